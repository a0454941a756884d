//! Records of equal stride over plain bytes: code, correction terms and level-0 links of one vector, side by side.
//!
//! A visit to a node of the graph reads its code; an expansion reads its links. Keeping both in one run of cache lines costs one
//! random access per visit instead of two, which is what a walk through memory is made of. Offsets are in FORMAT.md.

use std::io;

use memmap2::MmapMut;

use crate::Key;

/// No row.
pub(crate) const NONE: u32 = u32::MAX;

/// No record has room for more.
pub(crate) const MOST_LINKS: usize = 80;

/// Where things lie in a record. The part after the code starts at `code`; the constants here are relative to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes of the code: the dimension, rounded up to 64.
    pub(crate) code: usize,
    /// Room for links.
    pub(crate) links: usize,
    /// Bytes from one record to the next, a multiple of 64.
    pub(crate) stride: usize,
}

impl Shape {
    pub(crate) const KEY: usize = 0;
    pub(crate) const SCALE: usize = 8;
    pub(crate) const BIAS: usize = 12;
    pub(crate) const ERROR: usize = 16;
    pub(crate) const TWIN: usize = 20;
    pub(crate) const COUNT: usize = 24;
    pub(crate) const LINKS: usize = 28;

    /// The shape for vectors of `dim` numbers with room for `links` links and for as many more as fit into the last cache line,
    /// which is read anyway: more links cost nothing there and find more.
    pub(crate) fn filled(dim: usize, links: usize) -> Shape {
        let shape = Shape::new(dim, links);
        Shape { links: ((shape.stride - shape.code - Shape::LINKS) / 4).min(MOST_LINKS), ..shape }
    }

    /// The shape for vectors of `dim` numbers with room for `links` links.
    pub(crate) fn new(dim: usize, links: usize) -> Shape {
        let code = dim.next_multiple_of(64);
        Shape { code, links, stride: (code + Shape::LINKS + 4 * links).next_multiple_of(64) }
    }
}

/// Records over bytes. Reading is safe whatever the bytes hold: counts are clamped, and rows are checked by who follows them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Records<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) shape: Shape,
    pub(crate) count: u32,
}

impl<'a> Records<'a> {
    #[cfg(test)]
    /// `None` if the bytes do not hold `count` records.
    pub(crate) fn new(bytes: &'a [u8], shape: Shape, count: u32) -> Option<Records<'a>> {
        (bytes.len() >= shape.stride.checked_mul(count as usize)?).then_some(Records { bytes, shape, count })
    }

    #[inline]
    pub(crate) fn record(&self, row: u32) -> &'a [u8] {
        &self.bytes[row as usize * self.shape.stride..][..self.shape.stride]
    }

    #[inline]
    pub(crate) fn code(&self, row: u32) -> &'a [u8] {
        &self.record(row)[..self.shape.code]
    }

    #[inline]
    fn word(&self, row: u32, at: usize) -> [u8; 4] {
        let at = self.shape.code + at;
        self.record(row)[at..at + 4].try_into().expect("four bytes")
    }

    pub(crate) fn key(&self, row: u32) -> Key {
        let at = self.shape.code + Shape::KEY;
        Key::from_le_bytes(self.record(row)[at..at + 8].try_into().expect("eight bytes"))
    }

    #[inline]
    pub(crate) fn scale(&self, row: u32) -> f32 {
        f32::from_le_bytes(self.word(row, Shape::SCALE))
    }

    #[inline]
    pub(crate) fn bias(&self, row: u32) -> f32 {
        f32::from_le_bytes(self.word(row, Shape::BIAS))
    }

    /// Length of what the code leaves out of the vector.
    pub(crate) fn error(&self, row: u32) -> f32 {
        f32::from_le_bytes(self.word(row, Shape::ERROR))
    }

    /// The next row with the same code. Only one of such twins stands in the graph; the others hang on it in ascending order, so
    /// a damaged chain cannot loop.
    pub(crate) fn twin(&self, row: u32) -> Option<u32> {
        let twin = u32::from_le_bytes(self.word(row, Shape::TWIN));
        (twin > row && twin < self.count).then_some(twin)
    }

    /// Links and twin as they are written; no links if there are more than there is room for.
    pub(crate) fn raw_links(&self, row: u32) -> (Option<impl Iterator<Item = u32> + use<'a>>, Option<u32>) {
        let count = u32::from_le_bytes(self.word(row, Shape::COUNT)) as usize;
        let twin = u32::from_le_bytes(self.word(row, Shape::TWIN));
        let room = &self.record(row)[self.shape.code + Shape::LINKS..];
        let links = (count <= self.shape.links)
            .then(|| room[..4 * count].chunks_exact(4).map(|l| u32::from_le_bytes([l[0], l[1], l[2], l[3]])));
        (links, Some(twin).filter(|&twin| twin != NONE))
    }

    /// Copies the links of a row to the front of `into`, those that point outside included; returns how many.
    #[inline(always)]
    pub(crate) fn copy_links(&self, row: u32, into: &mut [u32; MOST_LINKS]) -> usize {
        let (words, _) = self.record(row)[self.shape.code + Shape::COUNT..].as_chunks::<4>();
        let (count, words) =
            words.split_first().map_or((0, words), |(count, words)| (u32::from_le_bytes(*count), words));
        let count = (count as usize).min(self.shape.links).min(MOST_LINKS);
        into.iter_mut().zip(&words[..count]).for_each(|(to, word)| *to = u32::from_le_bytes(*word));
        count
    }

    /// The links of a row; those that point outside are left out.
    #[inline]
    pub(crate) fn links(&self, row: u32) -> impl Iterator<Item = u32> + use<'a> {
        let record = self.record(row);
        let at = self.shape.code;
        let count = u32::from_le_bytes(record[at + Shape::COUNT..][..4].try_into().expect("four bytes"));
        let links = &record[at + Shape::LINKS..][..4 * self.shape.links.min(count as usize)];
        let total = self.count;
        links.chunks_exact(4).map(|l| u32::from_le_bytes([l[0], l[1], l[2], l[3]])).filter(move |&l| l < total)
    }
}

/// Records in memory, aligned to pages.
pub(crate) struct RecordBuffer {
    bytes: MmapMut,
    pub(crate) shape: Shape,
    pub(crate) count: u32,
}

/// Buffers from this size on ask for huge pages: a walk touches records all over, and with small pages half of the touches miss the
/// TLB too.
#[cfg(target_os = "linux")]
const HUGE: usize = 4 << 20;

impl RecordBuffer {
    /// Zeroed records; `count` is at least 1. Fails where there is not so much memory.
    pub(crate) fn new(shape: Shape, count: u32) -> io::Result<RecordBuffer> {
        let bytes = MmapMut::map_anon(shape.stride * count as usize)?;
        #[cfg(target_os = "linux")]
        if bytes.len() >= HUGE {
            // A wish: a kernel without huge pages refuses, and the build is a little slower.
            let _ = bytes.advise(memmap2::Advice::HugePage);
        }
        Ok(RecordBuffer { bytes, shape, count })
    }

    pub(crate) fn records(&self) -> Records<'_> {
        Records { bytes: &self.bytes, shape: self.shape, count: self.count }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Sets the links of records, which come in the order of their rows.
    pub(crate) fn write_links(&mut self, linked: &[(u32, Vec<u32>)]) {
        write_links_from(0, &mut self.bytes, self.shape, linked);
    }

    pub(crate) fn record_mut(&mut self, row: u32) -> &mut [u8] {
        let stride = self.shape.stride;
        &mut self.bytes_mut()[row as usize * stride..][..stride]
    }
}

/// Writes the fields of one record; the links are set later.
pub(crate) fn write_record(record: &mut [u8], shape: Shape, key: Key, scale: f32, bias: f32, error: f32) {
    let tail = &mut record[shape.code..];
    tail[Shape::KEY..][..8].copy_from_slice(&key.to_le_bytes());
    tail[Shape::SCALE..][..4].copy_from_slice(&scale.to_le_bytes());
    tail[Shape::BIAS..][..4].copy_from_slice(&bias.to_le_bytes());
    tail[Shape::ERROR..][..4].copy_from_slice(&error.to_le_bytes());
    tail[Shape::TWIN..][..4].copy_from_slice(&NONE.to_le_bytes());
    tail[Shape::COUNT..].fill(0);
}

/// Sets the next row with the same code.
pub(crate) fn write_twin(record: &mut [u8], shape: Shape, twin: u32) {
    record[shape.code + Shape::TWIN..][..4].copy_from_slice(&twin.to_le_bytes());
}

/// Records whose links are set by one thread.
const FEW: usize = 512;

/// Sets the links of records in `bytes`, the first of which is that of row `first`.
fn write_links_from(first: u32, bytes: &mut [u8], shape: Shape, linked: &[(u32, Vec<u32>)]) {
    if linked.len() <= FEW {
        for (row, links) in linked {
            write_links(&mut bytes[(row - first) as usize * shape.stride..][..shape.stride], shape, links);
        }
        return;
    }
    let (low, high) = linked.split_at(linked.len() / 2);
    let middle = high[0].0;
    let (before, after) = bytes.split_at_mut((middle - first) as usize * shape.stride);
    rayon::join(|| write_links_from(first, before, shape, low), || write_links_from(middle, after, shape, high));
}

/// Sets the links of one record.
pub(crate) fn write_links(record: &mut [u8], shape: Shape, links: &[u32]) {
    debug_assert!(links.len() <= shape.links);
    let tail = &mut record[shape.code..];
    tail[Shape::COUNT..][..4].copy_from_slice(&(links.len() as u32).to_le_bytes());
    for (room, link) in tail[Shape::LINKS..].chunks_exact_mut(4).zip(links) {
        room.copy_from_slice(&link.to_le_bytes());
    }
}
