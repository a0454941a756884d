//! A segment: an immutable file of vectors, with a graph over them once there are enough.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::Key;
use crate::config::Config;
use crate::encoding::{Encode, Encoder, Encoding};
use crate::error::{Error, Result};
use crate::format::{
    self, FOOTER, Footer, KEY_ENTRY, LEVELS, Layout, OldRecord, OldShape, Refusal, SegmentEntry, UPPER_NODE, VERSION,
};
use crate::kernel::Kernels;
use crate::sealed::Sealed;
use crate::storage::Storage;
use crate::vectors::{NONE, RecordBuffer, Records, write_links, write_record, write_twin};

/// Bytes of an exact row that are fetched ahead.
const AHEAD: usize = 2048;

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
    /// Whether all nodes above level 0 were compared with their checksums.
    uppers_sound: AtomicBool,
    /// The records, where those of the file are of an older version.
    converted: Option<RecordBuffer>,
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
        let uppers_sound = AtomicBool::new(false);
        let (span, converted) = ((0, Key::MAX), None);
        let mut segment = Segment { id, footer, checksum, encoding, span, layout, file, uppers_sound, converted };
        segment.span = (segment.key_entry(0)?.0, segment.key_entry(count - 1)?.0);
        if segment.footer.is_old() {
            segment.converted = Some(segment.convert()?);
        }
        Ok(segment)
    }

    /// The records of an older version in today's form: their codes are made anew from the exact rows. That takes the memory of the
    /// records, and about as long as reading the file.
    fn convert(&self) -> Result<RecordBuffer> {
        let (old, shape, kernels) = (OldShape::new(&self.footer), self.footer.shape(), Kernels::detect());
        let bytes = self.file.get(self.layout.records..self.layout.records + self.count() as usize * old.stride)?;
        let memory = RecordBuffer::new(shape, self.count());
        let mut buffer = memory.map_err(Error::io(self.path(), "reserve memory for the codes and links of"))?;
        let convert = |(vector, encoder): &mut (Vec<f32>, Encoder), (row, (to, from)): (usize, (&mut [u8], &[u8]))| {
            let impossible = || Error::corrupt(self.path(), format!("the record of row {row} is impossible"));
            let record = OldRecord::decode(from, old).ok_or_else(impossible)?;
            self.vector(row as u32, vector)?;
            kernels.wide(Encode(&self.encoding, vector, encoder));
            write_record(to, shape, record.key, &encoder.code);
            write_links(to, shape, &record.links);
            record.twin.iter().for_each(|&twin| write_twin(to, shape, twin));
            Ok(())
        };
        let records = buffer.bytes_mut().par_chunks_exact_mut(shape.stride).zip(bytes.par_chunks_exact(old.stride));
        records.enumerate().with_min_len(64).map_init(Default::default, convert).collect::<Result<()>>()?;
        Ok(buffer)
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
        if let Some(converted) = &self.converted {
            return converted.records();
        }
        let bytes = &self.file.bytes()[self.layout.records..self.layout.upper];
        Records { bytes, shape: self.footer.shape(), count: self.footer.count }
    }

    #[inline]
    pub(crate) fn check_record(&self, row: u32) -> Result<()> {
        self.check_records(row..row + 1)
    }

    #[inline]
    pub(crate) fn check_records(&self, rows: Range<u32>) -> Result<()> {
        if self.converted.is_some() {
            return Ok(());
        }
        let stride = self.footer.shape().stride;
        self.file
            .check(self.layout.records + rows.start as usize * stride..self.layout.records + rows.end as usize * stride)
    }

    /// As [`Segment::check_record`], for rows in any order.
    #[inline]
    pub(crate) fn check_rows(&self, rows: &[u32]) -> Result<()> {
        if self.converted.is_some() {
            return Ok(());
        }
        let stride = self.footer.shape().stride;
        let starts = rows.iter().map(|&row| self.layout.records + row as usize * stride);
        if self.file.all_checked(starts, stride) {
            Ok(())
        } else {
            rows.iter().try_for_each(|&row| self.check_record(row))
        }
    }

    /// Asks for the exact row, or its front where it is long, to be fetched into the cache; the processor goes on by itself.
    #[inline]
    pub(crate) fn prefetch_row(&self, row: u32) {
        let range = self.row_range(row);
        crate::kernel::prefetch(&self.file.bytes()[range.start..range.end.min(range.start + AHEAD)]);
    }

    /// Asks for the front of the exact row, so that the place of its page is known when all of it is asked for.
    #[inline]
    pub(crate) fn prefetch_page(&self, row: u32) {
        let start = self.row_range(row).start;
        crate::kernel::prefetch(&self.file.bytes()[start..start + 1]);
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

    /// The key table, checked: sorted by key. Its rows may lie outside ([`Segment::check_inside`]).
    pub(crate) fn key_table(&self) -> Result<&[[u8; KEY_ENTRY]]> {
        let bytes = self.file.get(self.layout.keys..self.layout.keys + self.footer.count as usize * KEY_ENTRY)?;
        Ok(bytes.as_chunks().0)
    }

    /// Refuses rows that the segment has not.
    pub(crate) fn check_inside(&self, rows: &[u32]) -> Result<()> {
        let most = rows.iter().fold(0, |most, &row| most.max(row));
        if most < self.footer.count { Ok(()) } else { Err(self.misplaced(most)) }
    }

    fn misplaced(&self, row: u32) -> Error {
        Error::corrupt(self.file.path(), format!("the key table names row {row} of {}", self.footer.count))
    }

    /// An entry of the key table, which is sorted by key.
    pub(crate) fn key_entry(&self, at: u32) -> Result<(Key, u32)> {
        let start = self.layout.keys + at as usize * KEY_ENTRY;
        let bytes = self.file.get(start..start + KEY_ENTRY)?;
        let (key, row) = key_and_row(bytes.try_into().expect("as long as an entry"));
        if row < self.footer.count { Ok((key, row)) } else { Err(self.misplaced(row)) }
    }

    /// The row that has this key. A key occurs once in a segment.
    pub(crate) fn find(&self, key: Key) -> Result<Option<u32>> {
        if key < self.span.0 || key > self.span.1 {
            return Ok(None);
        }
        // Keys are mostly handed out in order, so that one stands about where it lies between the first and the last. From there
        // steps that double lead to either side of it, and halves to itself: never more than twice the probes of halving alone.
        let (mut low, mut high) = (0, self.footer.count);
        let (along, whole) = (u128::from(key - self.span.0), u128::from(self.span.1 - self.span.0).max(1));
        let mut at = (along * u128::from(high.saturating_sub(1)) / whole) as u32;
        let (mut step, mut below, mut above) = (1, false, false);
        while low < high {
            let (found, row) = self.key_entry(at)?;
            match found.cmp(&key) {
                std::cmp::Ordering::Equal => return Ok(Some(row)),
                std::cmp::Ordering::Less => (low, below) = (at + 1, true),
                std::cmp::Ordering::Greater => (high, above) = (at, true),
            }
            at = match (below, above) {
                (true, false) => low.saturating_add(step),
                (false, true) => high.saturating_sub(step),
                _ => low + (high - low) / 2,
            };
            at = at.clamp(low, high.saturating_sub(1).max(low));
            step = step.saturating_mul(2);
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

    /// The nodes of all levels above 0, checked. They are a fifteenth of all nodes, and every walk starts there, so they are
    /// checked together once instead of at each step.
    #[inline]
    pub(crate) fn upper_nodes(&self) -> Result<&[[u8; UPPER_NODE]]> {
        let count: u32 = self.footer.levels.iter().sum();
        let range = self.layout.upper..self.layout.upper + count as usize * UPPER_NODE;
        if !self.uppers_sound.load(Ordering::Relaxed) {
            self.file.check(range.clone())?;
            self.uppers_sound.store(true, Ordering::Relaxed);
        }
        Ok(self.file.bytes()[range].as_chunks().0)
    }

    /// A node of the upper section.
    pub(crate) fn upper_node(&self, at: u32) -> Result<UpperNode<'_>> {
        let start = self.layout.upper + at as usize * UPPER_NODE;
        let bytes = self.file.get(start..start + UPPER_NODE)?;
        Ok(UpperNode(bytes.try_into().expect("as long as a node")))
    }

    /// Length of the file, and of its part without the exact rows.
    pub(crate) fn size(&self) -> (u64, u64) {
        let rows = self.row_range(self.footer.count).start - self.layout.rows;
        (self.file.len() as u64, (self.file.len() - rows) as u64)
    }

    pub(crate) fn path(&self) -> &std::path::PathBuf {
        self.file.path()
    }

    /// Checks every byte of the file anew.
    pub(crate) fn verify_bytes(&self) -> Vec<Error> {
        self.uppers_sound.store(false, Ordering::Relaxed);
        match Footer::decode(self.file.footer()) {
            Ok(_) if Footer::checksum(self.file.footer()) == self.checksum => self.file.verify(),
            Ok(_) => vec![Error::corrupt(self.path(), "not the footer that it was opened with")],
            Err(refusal) => vec![refused(refusal, self.path().clone())],
        }
    }
}

/// An entry of the key table.
#[inline(always)]
pub(crate) fn key_and_row(entry: &[u8; KEY_ENTRY]) -> (Key, u32) {
    let [a, b, c, d, e, f, g, h, row @ ..] = *entry;
    (Key::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes(row))
}

/// A node above level 0: its row, its place one level below, its links as places in its own level.
#[derive(Clone, Copy)]
pub(crate) struct UpperNode<'a>(pub(crate) &'a [u8; UPPER_NODE]);

impl<'a> UpperNode<'a> {
    #[inline]
    fn word(self, at: usize) -> u32 {
        let (words, _) = self.0.as_chunks::<4>();
        u32::from_le_bytes(words[at])
    }

    #[inline]
    pub(crate) fn row(self) -> u32 {
        self.word(0)
    }

    #[inline]
    pub(crate) fn down(self) -> u32 {
        self.word(1)
    }

    #[inline]
    pub(crate) fn links(self) -> impl Iterator<Item = u32> + use<'a> {
        let (words, _) = self.0[8..].as_chunks::<4>();
        words.iter().map(|&word| u32::from_le_bytes(word)).take_while(|&link| link != NONE)
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
