//! Records of equal stride over plain bytes: code, correction terms and level-0 links of one vector, side by side.
//!
//! A visit to a node of the graph reads the front of its code; an expansion reads its links. Memory is what a walk waits for, a cache
//! line at a time, so a code is kept in two planes: the high halves of its bytes first, with all that is needed for a rough score
//! among them, and the low halves at the end of the record, behind the links. Offsets are in FORMAT.md.

use std::io;

use memmap2::MmapMut;

use crate::Key;

/// No row.
pub(crate) const NONE: u32 = u32::MAX;

/// No record has room for more.
pub(crate) const MOST_LINKS: usize = 80;

/// What is to be taken from a high half, times 16, for its value: the middle of the low halves that may follow it.
pub(crate) const HIGH_MIDDLE: f32 = 120.5;
/// Numbers whose high halves give up their lowest bit for the terms of the rough score.
pub(crate) const LENT: usize = 32;

/// Where things lie in a record. What follows the high halves starts at `plane`; the constants here are relative to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes of each plane: a half per number of the code.
    pub(crate) plane: usize,
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
    pub(crate) const LENT: usize = 20;
    pub(crate) const TWIN: usize = 24;
    pub(crate) const COUNT: usize = 28;
    pub(crate) const LINKS: usize = 32;

    /// The shape for vectors of `dim` numbers with room for `links` links and for as many more as fit into the last cache line,
    /// which is read anyway: more links cost nothing there and find more.
    pub(crate) fn filled(dim: usize, links: usize) -> Shape {
        let shape = Shape::new(dim, links);
        Shape { links: ((shape.stride - 2 * shape.plane - Shape::LINKS) / 4).min(MOST_LINKS), ..shape }
    }

    /// The shape for vectors of `dim` numbers with room for `links` links.
    pub(crate) fn new(dim: usize, links: usize) -> Shape {
        let plane = padded(dim) / 2;
        Shape { plane, links, stride: (2 * plane + Shape::LINKS + 4 * links).next_multiple_of(64) }
    }

    /// Whether walks go by the high halves alone. Shorter codes lie in few cache lines anyway, and less evens out in them.
    #[inline(always)]
    pub(crate) fn rough(&self) -> bool {
        self.plane >= 128
    }

    /// Where the low halves start, in the record.
    #[inline(always)]
    pub(crate) fn low(&self) -> usize {
        self.stride - self.plane
    }
}

/// Numbers in the code of a vector of `dim` numbers.
pub(crate) fn padded(dim: usize) -> usize {
    dim.next_multiple_of(64)
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

    /// Writes the code of a row: one byte per number, 128 more than its value.
    #[inline]
    pub(crate) fn code(&self, row: u32, into: &mut Vec<u8>) {
        let plane = self.shape.plane;
        let (high, low) = (&self.record(row)[..plane], &self.record(row)[self.shape.low()..]);
        into.clear();
        into.extend(high.iter().zip(low).map(|(high, low)| high << 4 | low & 0x0f));
        into.extend(high.iter().zip(low).map(|(high, low)| high & 0xf0 | low >> 4));
        let lent = self.lent(row);
        into[..LENT]
            .iter_mut()
            .enumerate()
            .for_each(|(at, byte)| *byte = *byte & !0x10 | ((lent >> at & 1) as u8) << 4);
    }

    #[inline]
    fn word(&self, row: u32, at: usize) -> [u8; 4] {
        let at = self.shape.plane + at;
        self.record(row)[at..at + 4].try_into().expect("four bytes")
    }

    pub(crate) fn key(&self, row: u32) -> Key {
        let at = self.shape.plane + Shape::KEY;
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

    /// The bits that the first high halves gave up.
    fn lent(&self, row: u32) -> u32 {
        u32::from_le_bytes(self.word(row, Shape::LENT))
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
        let room = &self.record(row)[self.shape.plane + Shape::LINKS..];
        let links = (count <= self.shape.links)
            .then(|| room[..4 * count].chunks_exact(4).map(|l| u32::from_le_bytes([l[0], l[1], l[2], l[3]])));
        (links, Some(twin).filter(|&twin| twin != NONE))
    }

    /// Copies the links of a row to the front of `into`, those that point outside included; returns how many.
    #[inline(always)]
    pub(crate) fn copy_links(&self, row: u32, into: &mut [u32; MOST_LINKS]) -> usize {
        let (words, _) = self.record(row)[self.shape.plane + Shape::COUNT..].as_chunks::<4>();
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
        let at = self.shape.plane;
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

/// The code of a vector with its correction terms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code {
    /// One byte per number, 128 more than its value; padded with 128.
    pub(crate) bytes: Vec<u8>,
    pub(crate) scale: f32,
    pub(crate) bias: f32,
    /// Length of what the code leaves out.
    pub(crate) error: f32,
    pub(crate) rough: Terms,
}

/// What a rough score needs besides the high halves, in 32 bits: a bf16 of the bias, and one of the scale with another bit in the place
/// of its sign.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    /// Scale of the high halves; not negative.
    pub(crate) scale: f32,
    pub(crate) bias: f32,
}

impl Terms {
    /// The scale is in the lower half.
    #[inline(always)]
    pub(crate) fn bits(self) -> u32 {
        // Half of what falls off is added, so that it is rounded.
        self.scale.to_bits().wrapping_add(1 << 14) >> 15 & 0xffff
            | self.bias.to_bits().wrapping_add(1 << 15) & 0xffff_0000
    }

    #[inline(always)]
    pub(crate) fn of(bits: u32) -> Terms {
        Terms { scale: f32::from_bits((bits & 0xffff) << 15), bias: f32::from_bits(bits & 0xffff_0000) }
    }
}

/// Writes one record without links.
pub(crate) fn write_record(record: &mut [u8], shape: Shape, key: Key, code: &Code) {
    let (first, second) = code.bytes.split_at(shape.plane);
    let (front, low) = record.split_at_mut(shape.low());
    let (high, tail) = front.split_at_mut(shape.plane);
    for (((high, low), first), second) in high.iter_mut().zip(low).zip(first).zip(second) {
        (*high, *low) = (first >> 4 | second & 0xf0, first & 0x0f | second << 4);
    }
    let terms = code.rough.bits();
    let mut lent = 0;
    for (at, byte) in high[..LENT].iter_mut().enumerate() {
        lent |= u32::from(*byte & 1) << at;
        *byte = *byte & !1 | (terms >> at & 1) as u8;
    }
    tail[Shape::KEY..][..8].copy_from_slice(&key.to_le_bytes());
    tail[Shape::SCALE..][..4].copy_from_slice(&code.scale.to_le_bytes());
    tail[Shape::BIAS..][..4].copy_from_slice(&code.bias.to_le_bytes());
    tail[Shape::ERROR..][..4].copy_from_slice(&code.error.to_le_bytes());
    tail[Shape::LENT..][..4].copy_from_slice(&lent.to_le_bytes());
    tail[Shape::TWIN..][..4].copy_from_slice(&NONE.to_le_bytes());
    tail[Shape::COUNT..].fill(0);
}

/// Sets the next row with the same code.
pub(crate) fn write_twin(record: &mut [u8], shape: Shape, twin: u32) {
    record[shape.plane + Shape::TWIN..][..4].copy_from_slice(&twin.to_le_bytes());
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
    let tail = &mut record[shape.plane..];
    tail[Shape::COUNT..][..4].copy_from_slice(&(links.len() as u32).to_le_bytes());
    for (room, link) in tail[Shape::LINKS..].chunks_exact_mut(4).zip(links) {
        room.copy_from_slice(&link.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_rounded_to_nine_and_eight_bits() {
        for at in 0..1000 {
            let x = 1.7f32.powi(at % 60 - 30) * (1.0 + at as f32 / 777.0);
            let terms = Terms { scale: x, bias: if at % 2 == 0 { x } else { -x } };
            let found = Terms::of(terms.bits());
            assert!(
                (found.scale - x).abs() <= x / 512.0 && (found.bias - terms.bias).abs() <= x / 256.0,
                "{x}: {found:?}"
            );
        }
        assert_eq!(Terms::of(Terms::default().bits()), Terms::default());
    }
}
