//! A segment: an immutable file of vectors, with a graph over them once there are enough.

use std::ops::Range;
use std::sync::Arc;

use crate::Key;
use crate::config::Config;
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::format::{
    self, FOOTER, Footer, KEY_ENTRY, LEVELS, Layout, Refusal, SegmentEntry, UPPER_LINKS, UPPER_NODE, VERSION,
};
use crate::sealed::Sealed;
use crate::storage::Storage;
use crate::vectors::{NONE, Records};

/// An open segment. Rows are dense numbers from 0.
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) footer: Footer,
    pub(crate) checksum: u64,
    pub(crate) encoding: Encoding,
    /// Smallest and largest key, so that most segments are passed over without a look at their table.
    span: (Key, Key),
    layout: Layout,
    file: Sealed,
}

/// A refusal, with the file it is about.
pub(crate) fn refused(refusal: Refusal, path: std::path::PathBuf) -> Error {
    match refusal {
        Refusal::Version(found) => Error::Version { path, found, expected: VERSION },
        Refusal::Damaged(what) => Error::Corrupt { path, what },
    }
}

impl Segment {
    /// Opens and checks what everything else depends on; the rest is checked as it is used.
    pub(crate) fn open(storage: &dyn Storage, id: u64, count: u32, checksum: u64, config: &Config) -> Result<Segment> {
        let name = format::segment_name(id);
        let path = storage.path(&name);
        let bytes = storage.read(&name).map_err(Error::io(&path, "open"))?;
        let footer = Footer::decode(&bytes).map_err(|r| refused(r, path.clone()))?;
        let found = Footer::checksum(&bytes[bytes.len() - FOOTER..]);
        let layout = Layout::of(&footer).filter(|layout| layout.footer + FOOTER == bytes.len());
        let Some(layout) = layout.filter(|_| found == checksum && footer.count == count) else {
            return Err(Error::corrupt(path, format!("{} bytes, not the file that the manifest names", bytes.len())));
        };
        if footer.dim != config.dim || footer.metric != config.metric || footer.rows != config.rows || count == 0 {
            return Err(Error::corrupt(path, "made for another configuration"));
        }
        let file = Sealed::new(path, bytes, layout.sums, footer.sums_checksum);
        let centre = file.get(layout.centre..layout.centre + 4 * footer.dim)?;
        let centre = centre.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().expect("four bytes"))).collect();
        let encoding = Encoding::new(footer.metric, centre);
        let mut segment = Segment { id, footer, checksum, encoding, span: (0, Key::MAX), layout, file };
        segment.span = (segment.key_entry(0)?.0, segment.key_entry(count - 1)?.0);
        Ok(segment)
    }

    pub(crate) fn count(&self) -> u32 {
        self.footer.count
    }

    pub(crate) fn has_graph(&self) -> bool {
        self.footer.links > 0
    }

    /// All records, unchecked: [`Segment::check_record`] comes before use.
    #[inline]
    pub(crate) fn records(&self) -> Records<'_> {
        let bytes = &self.file.bytes()[self.layout.records..self.layout.upper];
        Records { bytes, shape: self.footer.shape(), count: self.footer.count }
    }

    #[inline]
    pub(crate) fn check_record(&self, row: u32) -> Result<()> {
        self.check_records(row..row + 1)
    }

    #[inline]
    pub(crate) fn check_records(&self, rows: Range<u32>) -> Result<()> {
        let stride = self.footer.shape().stride;
        self.file
            .check(self.layout.records + rows.start as usize * stride..self.layout.records + rows.end as usize * stride)
    }

    /// Asks for the exact row to be fetched into the cache.
    #[inline]
    pub(crate) fn prefetch_row(&self, row: u32) {
        crate::kernel::prefetch(&self.file.bytes()[self.row_range(row)]);
    }

    fn row_range(&self, row: u32) -> Range<usize> {
        let stride = self.footer.dim * self.footer.rows.bytes();
        let at = self.layout.rows + row as usize * stride;
        at..at + stride
    }

    /// The exact row, as stored.
    #[inline]
    pub(crate) fn row(&self, row: u32) -> Result<&[u8]> {
        self.file.get(self.row_range(row))
    }

    /// The exact row as numbers.
    pub(crate) fn vector(&self, row: u32, into: &mut Vec<f32>) -> Result<()> {
        into.clear();
        let bytes = self.row(row)?;
        match self.footer.rows {
            crate::Rows::F32 => {
                into.extend(bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().expect("four bytes"))))
            }
            crate::Rows::F16 => {
                into.extend(bytes.chunks_exact(2).map(|x| half::f16::from_le_bytes([x[0], x[1]]).to_f32()))
            }
        }
        Ok(())
    }

    /// The key of a row.
    pub(crate) fn key(&self, row: u32) -> Result<Key> {
        self.check_record(row)?;
        Ok(self.records().key(row))
    }

    /// An entry of the key table, which is sorted by key.
    pub(crate) fn key_entry(&self, at: u32) -> Result<(Key, u32)> {
        let start = self.layout.keys + at as usize * KEY_ENTRY;
        let bytes = self.file.get(start..start + KEY_ENTRY)?;
        let (key, row) = bytes.split_at(8);
        let row = u32::from_le_bytes(row.try_into().expect("four bytes"));
        if row >= self.footer.count {
            return Err(Error::corrupt(
                self.file.path(),
                format!("the key table names row {row} of {}", self.footer.count),
            ));
        }
        Ok((Key::from_le_bytes(key.try_into().expect("eight bytes")), row))
    }

    /// The row that has this key. A key occurs once in a segment.
    pub(crate) fn find(&self, key: Key) -> Result<Option<u32>> {
        if key < self.span.0 || key > self.span.1 {
            return Ok(None);
        }
        let (mut low, mut high) = (0, self.footer.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let (found, row) = self.key_entry(middle)?;
            match found.cmp(&key) {
                std::cmp::Ordering::Equal => return Ok(Some(row)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// Levels above 0 and the place of their first node in the upper section, the top first.
    pub(crate) fn levels(&self) -> impl DoubleEndedIterator<Item = (u32, Range<u32>)> + '_ {
        let sizes = self.footer.levels;
        (0..LEVELS as u32).filter(move |&l| sizes[l as usize] > 0).map(move |l| {
            let first = sizes[..l as usize].iter().sum();
            (l, first..first + sizes[l as usize])
        })
    }

    /// A node of the upper section.
    #[inline]
    pub(crate) fn upper_node(&self, at: u32) -> Result<UpperNode<'_>> {
        let start = self.layout.upper + at as usize * UPPER_NODE;
        Ok(UpperNode(self.file.get(start..start + UPPER_NODE)?))
    }

    /// Length of the file, and of its part without the exact rows.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.file.len() as u64, (self.file.len() - (self.layout.sums - self.layout.rows)) as u64)
    }

    pub(crate) fn path(&self) -> &std::path::PathBuf {
        self.file.path()
    }

    /// Checks every byte of the file anew.
    pub(crate) fn verify_bytes(&self) -> Vec<Error> {
        self.file.verify()
    }
}

/// A node above level 0: its row, its place one level below, its links as places in its own level.
#[derive(Clone, Copy)]
pub(crate) struct UpperNode<'a>(&'a [u8]);

impl UpperNode<'_> {
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[4 * at..4 * at + 4].try_into().expect("four bytes"))
    }

    pub(crate) fn row(&self) -> u32 {
        self.word(0)
    }

    pub(crate) fn down(&self) -> u32 {
        self.word(1)
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = u32> + '_ {
        (0..UPPER_LINKS).map(|at| self.word(2 + at)).take_while(|&link| link != NONE)
    }
}

/// Which rows of a segment are removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Empty where no row is removed.
    words: Vec<u64>,
    count: u32,
}

impl Removed {
    pub(crate) fn from_words(words: Vec<u64>) -> Removed {
        let count = words.iter().map(|w| w.count_ones()).sum();
        Removed { words, count }
    }

    #[inline]
    pub(crate) fn contains(&self, row: u32) -> bool {
        self.words.get(row as usize / 64).is_some_and(|w| w >> (row % 64) & 1 == 1)
    }

    /// `rows` is how many rows the segment has.
    pub(crate) fn insert(&mut self, row: u32, rows: u32) {
        self.words.resize((rows as usize).div_ceil(64), 0);
        self.words[row as usize / 64] |= 1 << (row % 64);
        self.count += 1;
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }
}

/// A segment and what is removed of it: a part of a generation.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) segment: Arc<Segment>,
    pub(crate) removed: Arc<Removed>,
    /// Number of the file that holds `removed`; 0 where there is none, or none yet.
    pub(crate) removed_id: u64,
}

impl Part {
    pub(crate) fn live(&self) -> u32 {
        self.segment.count() - self.removed.count().min(self.segment.count())
    }

    /// The row of a key, unless it is removed.
    pub(crate) fn find(&self, key: Key) -> Result<Option<u32>> {
        Ok(self.segment.find(key)?.filter(|&row| !self.removed.contains(row)))
    }

    pub(crate) fn entry(&self) -> SegmentEntry {
        SegmentEntry {
            id: self.segment.id,
            count: self.segment.count(),
            removed: self.removed.count(),
            removed_id: self.removed_id,
            checksum: self.segment.checksum,
        }
    }
}
