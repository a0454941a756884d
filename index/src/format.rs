//! Bytes ⇄ structs. Every offset, magic and version is here and in FORMAT.md, and a test compares the two. No I/O.
//!
//! All numbers are little-endian. The places of a segment's sections follow from its counts, so no offset is stored that could
//! disagree with them.

mod old;

use xxhash_rust::xxh3::xxh3_64;

use crate::config::{Config, Rows};
pub(crate) use crate::format::old::{OldRecord, OldShape};
use crate::metric::Metric;
use crate::vectors::{MOST_LINKS, Shape};

/// Version of every structure that is written. Older ones are read as well.
pub(crate) const VERSION: u32 = 3;
/// From this version on the exact rows of a segment come before what is made of them.
const ROWS_FIRST: u32 = 2;
/// From this version on codes are rotated and lie in two planes.
const PLANES: u32 = 3;
pub(crate) const MANIFEST: &str = "MANIFEST";
pub(crate) const MANIFEST_NEW: &str = "MANIFEST.new";
pub(crate) const MANIFEST_MAGIC: [u8; 8] = *b"TTMANIF\x01";
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"TTSEGMT\x01";
pub(crate) const REMOVED_MAGIC: [u8; 8] = *b"TTREMOV\x01";
pub(crate) const SAMPLES_MAGIC: [u8; 8] = *b"TTQUERY\x01";
/// Bytes under one checksum.
pub(crate) const BLOCK: usize = 4096;
/// Sections start at multiples of this.
pub(crate) const ALIGN: usize = 64;
pub(crate) const FOOTER: usize = 256;
pub(crate) const MANIFEST_HEAD: usize = 48;
pub(crate) const MANIFEST_ENTRY: usize = 32;
pub(crate) const REMOVED_HEAD: usize = 24;
pub(crate) const SAMPLES_HEAD: usize = 24;
/// Bytes of one entry of the key table.
pub(crate) const KEY_ENTRY: usize = 12;
/// Links of a node above level 0.
pub(crate) const UPPER_LINKS: usize = 16;
pub(crate) const UPPER_NODE: usize = 8 + 4 * UPPER_LINKS;
pub(crate) const LEVELS: usize = 8;
/// Walk widths that a graph is calibrated for.
pub(crate) const CALIBRATED_EF: [usize; 16] =
    [6, 10, 16, 26, 42, 66, 110, 170, 270, 430, 680, 1080, 1700, 2700, 4300, 6800];
/// Neighbours that the calibration counts.
pub(crate) const CALIBRATED_K: usize = 10;

/// Why bytes were not taken: what was found, and where.
#[derive(Debug)]
pub(crate) enum Refusal {
    Version(u32),
    Damaged(String),
}

fn damaged<T>(what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Damaged(what.into()))
}

/// Reads numbers at fixed offsets of a slice whose length was checked.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.0[at..at + 2].try_into().expect("two bytes"))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    fn f32(&self, at: usize) -> f32 {
        f32::from_bits(self.u32(at))
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// Checks magic, version and the checksum in the last eight bytes.
fn open<'a>(bytes: &'a [u8], magic: [u8; 8], least: usize) -> Result<Fields<'a>, Refusal> {
    if bytes.len() < least {
        return damaged(format!("{} bytes long, at least {least} expected", bytes.len()));
    }
    if bytes[..8] != magic {
        return damaged("it does not begin as such a file does");
    }
    let version = Fields(bytes).u32(8);
    if !(1..=VERSION).contains(&version) {
        return Err(Refusal::Version(version));
    }
    let (body, sum) = bytes.split_at(bytes.len() - 8);
    if xxh3_64(body).to_le_bytes() != *sum {
        return damaged("wrong checksum");
    }
    Ok(Fields(bytes))
}

fn seal(bytes: &mut Vec<u8>) {
    let sum = xxh3_64(bytes);
    bytes.extend(sum.to_le_bytes());
}

fn metric_byte(metric: Metric) -> u8 {
    match metric {
        Metric::Cosine => 0,
        Metric::Dot => 1,
        Metric::L2 => 2,
    }
}

fn metric_of(byte: u8) -> Result<Metric, Refusal> {
    match byte {
        0 => Ok(Metric::Cosine),
        1 => Ok(Metric::Dot),
        2 => Ok(Metric::L2),
        _ => damaged(format!("metric {byte}")),
    }
}

fn rows_byte(rows: Rows) -> u8 {
    match rows {
        Rows::F32 => 0,
        Rows::F16 => 1,
    }
}

fn rows_of(byte: u8) -> Result<Rows, Refusal> {
    match byte {
        0 => Ok(Rows::F32),
        1 => Ok(Rows::F16),
        _ => damaged(format!("row encoding {byte}")),
    }
}

/// One segment as the manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    /// Number in the file name.
    pub(crate) id: u64,
    pub(crate) count: u32,
    /// Rows that are removed.
    pub(crate) removed: u32,
    /// Number of the file that says which; 0 where none is removed.
    pub(crate) removed_id: u64,
    /// The segment's own footer checksum: the manifest vouches for every byte that it names.
    pub(crate) checksum: u64,
}

/// The sample queries as the manifest names them; zeros where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SamplesEntry {
    /// Number in the file name.
    pub(crate) id: u64,
    pub(crate) count: u32,
}

/// What makes a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestData {
    pub(crate) config: Config,
    pub(crate) generation: u64,
    /// The number of the next new file.
    pub(crate) next_id: u64,
    pub(crate) segments: Vec<SegmentEntry>,
    pub(crate) samples: SamplesEntry,
}

impl ManifestData {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut b = vec![0; MANIFEST_HEAD + MANIFEST_ENTRY * self.segments.len()];
        put(&mut b, 0, MANIFEST_MAGIC);
        put(&mut b, 8, VERSION.to_le_bytes());
        put(&mut b, 12, (self.config.dim as u32).to_le_bytes());
        put(&mut b, 16, [metric_byte(self.config.metric)]);
        put(&mut b, 17, [rows_byte(self.config.rows)]);
        put(&mut b, 18, (self.config.links as u16).to_le_bytes());
        put(&mut b, 20, (self.config.build_ef as u32).to_le_bytes());
        put(&mut b, 24, self.generation.to_le_bytes());
        put(&mut b, 32, self.next_id.to_le_bytes());
        put(&mut b, 40, (self.segments.len() as u32).to_le_bytes());
        put(&mut b, 44, self.samples.count.to_le_bytes());
        for (entry, b) in self.segments.iter().zip(b[MANIFEST_HEAD..].chunks_exact_mut(MANIFEST_ENTRY)) {
            put(b, 0, entry.id.to_le_bytes());
            put(b, 8, entry.count.to_le_bytes());
            put(b, 12, entry.removed.to_le_bytes());
            put(b, 16, entry.removed_id.to_le_bytes());
            put(b, 24, entry.checksum.to_le_bytes());
        }
        if self.samples.count > 0 {
            b.extend(self.samples.id.to_le_bytes());
        }
        seal(&mut b);
        b
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<ManifestData, Refusal> {
        let f = open(bytes, MANIFEST_MAGIC, MANIFEST_HEAD + 8)?;
        let config = Config {
            dim: f.u32(12) as usize,
            metric: metric_of(bytes[16])?,
            rows: rows_of(bytes[17])?,
            links: f.u16(18).into(),
            build_ef: f.u32(20) as usize,
        };
        if let Err(e) = config.check() {
            return damaged(e.to_string());
        }
        let count = f.u32(40) as usize;
        let sampled = if f.u32(44) > 0 { 8 } else { 0 };
        if (count as u64) * MANIFEST_ENTRY as u64 + (MANIFEST_HEAD + sampled + 8) as u64 != bytes.len() as u64 {
            return damaged(format!("{} bytes long, which does not fit {count} segments", bytes.len()));
        }
        let end = bytes.len() - 8 - sampled;
        let samples = SamplesEntry { id: if sampled > 0 { f.u64(end) } else { 0 }, count: f.u32(44) };
        let entries = bytes[MANIFEST_HEAD..end].chunks_exact(MANIFEST_ENTRY).map(|b| {
            let f = Fields(b);
            SegmentEntry {
                id: f.u64(0),
                count: f.u32(8),
                removed: f.u32(12),
                removed_id: f.u64(16),
                checksum: f.u64(24),
            }
        });
        Ok(ManifestData { config, generation: f.u64(24), next_id: f.u64(32), segments: entries.collect(), samples })
    }
}

/// Which rows of a segment are removed: one bit per row.
pub(crate) fn encode_removed(count: u32, words: &[u64]) -> Vec<u8> {
    let mut b = vec![0; REMOVED_HEAD];
    put(&mut b, 0, REMOVED_MAGIC);
    put(&mut b, 8, VERSION.to_le_bytes());
    put(&mut b, 12, count.to_le_bytes());
    b.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    seal(&mut b);
    b
}

pub(crate) fn decode_removed(bytes: &[u8], count: u32) -> Result<Vec<u64>, Refusal> {
    let f = open(bytes, REMOVED_MAGIC, REMOVED_HEAD + 8)?;
    let words = (count as usize).div_ceil(64);
    if f.u32(12) != count || bytes.len() != REMOVED_HEAD + 8 * words + 8 {
        return damaged(format!("it is about {} rows, {count} expected", f.u32(12)));
    }
    let body = &bytes[REMOVED_HEAD..bytes.len() - 8];
    Ok(body.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("eight bytes"))).collect())
}

/// Sample queries, `dim` numbers each.
pub(crate) fn encode_samples(dim: usize, numbers: &[f32]) -> Vec<u8> {
    let mut b = vec![0; SAMPLES_HEAD];
    put(&mut b, 0, SAMPLES_MAGIC);
    put(&mut b, 8, VERSION.to_le_bytes());
    put(&mut b, 12, (dim as u32).to_le_bytes());
    put(&mut b, 16, ((numbers.len() / dim) as u32).to_le_bytes());
    b.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    seal(&mut b);
    b
}

pub(crate) fn decode_samples(bytes: &[u8], dim: usize, count: u32) -> Result<Vec<f32>, Refusal> {
    let f = open(bytes, SAMPLES_MAGIC, SAMPLES_HEAD + 8)?;
    let (found, length) = ((f.u32(12), f.u32(16)), (count as usize).checked_mul(4 * dim));
    if found != (dim as u32, count) || length.and_then(|l| l.checked_add(SAMPLES_HEAD + 8)) != Some(bytes.len()) {
        return damaged(format!("it holds {} queries of {} numbers, {count} of {dim} expected", found.1, found.0));
    }
    let body = &bytes[SAMPLES_HEAD..bytes.len() - 8];
    let numbers: Vec<f32> =
        body.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().expect("four bytes"))).collect();
    if numbers.iter().all(|x| x.is_finite()) { Ok(numbers) } else { damaged("a number is not finite") }
}

/// The end of a segment file, from which everything else in it follows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Footer {
    pub(crate) version: u32,
    pub(crate) dim: usize,
    pub(crate) metric: Metric,
    pub(crate) rows: Rows,
    /// Room for links per record; 0 where there is no graph.
    pub(crate) links: usize,
    pub(crate) count: u32,
    /// Rows that there were when the centre was taken.
    pub(crate) centred: u32,
    /// Nodes per level above 0, the top first; zeros after the last.
    pub(crate) levels: [u32; LEVELS],
    pub(crate) sums_checksum: u64,
    /// Largest distance of a row from the centre.
    pub(crate) reach: f32,
    /// Mean and deviation of the bias over the rows: what marks a query from elsewhere.
    pub(crate) bias_mean: f32,
    pub(crate) bias_deviation: f32,
    /// Recall@10 measured at each of [`CALIBRATED_EF`]: for queries like the rows, then for queries from elsewhere. Zeros where
    /// nothing was measured.
    pub(crate) recall: [[f32; CALIBRATED_EF.len()]; 2],
    /// Number of the file of sample queries that the graph was made with; 0 for none.
    pub(crate) samples: u64,
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut b = vec![0; FOOTER - 8];
        put(&mut b, 0, SEGMENT_MAGIC);
        put(&mut b, 8, self.version.to_le_bytes());
        put(&mut b, 12, (self.dim as u32).to_le_bytes());
        put(&mut b, 16, [metric_byte(self.metric)]);
        put(&mut b, 17, [rows_byte(self.rows)]);
        put(&mut b, 18, (self.links as u16).to_le_bytes());
        put(&mut b, 20, self.count.to_le_bytes());
        put(&mut b, 24, self.centred.to_le_bytes());
        put(&mut b, 28, self.reach.to_le_bytes());
        for (at, level) in self.levels.iter().enumerate() {
            put(&mut b, 32 + 4 * at, level.to_le_bytes());
        }
        put(&mut b, 64, self.sums_checksum.to_le_bytes());
        put(&mut b, 72, self.bias_mean.to_le_bytes());
        put(&mut b, 76, self.bias_deviation.to_le_bytes());
        for (at, recall) in self.recall.as_flattened().iter().enumerate() {
            put(&mut b, 80 + 4 * at, recall.to_le_bytes());
        }
        put(&mut b, 208, self.samples.to_le_bytes());
        seal(&mut b);
        b
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Footer, Refusal> {
        if bytes.len() < FOOTER {
            return damaged(format!("{} bytes long, at least {FOOTER} expected", bytes.len()));
        }
        let bytes = &bytes[bytes.len() - FOOTER..];
        let f = open(bytes, SEGMENT_MAGIC, FOOTER)?;
        let mut recall = [[0.0; CALIBRATED_EF.len()]; 2];
        for (at, recall) in recall.as_flattened_mut().iter_mut().enumerate() {
            *recall = f.f32(80 + 4 * at);
        }
        let footer = Footer {
            version: f.u32(8),
            dim: f.u32(12) as usize,
            metric: metric_of(bytes[16])?,
            rows: rows_of(bytes[17])?,
            links: f.u16(18).into(),
            count: f.u32(20),
            centred: f.u32(24),
            levels: std::array::from_fn(|at| f.u32(32 + 4 * at)),
            sums_checksum: f.u64(64),
            reach: f.f32(28),
            bias_mean: f.f32(72),
            bias_deviation: f.f32(76),
            recall,
            samples: f.u64(208),
        };
        if !(1..=4096).contains(&footer.dim) || footer.links > MOST_LINKS || footer.count > u32::MAX / 2 {
            return damaged(format!("dimension {}, {} links, {} rows", footer.dim, footer.links, footer.count));
        }
        Ok(footer)
    }

    /// The checksum that the manifest repeats: the last eight bytes of an encoded footer.
    pub(crate) fn checksum(encoded: &[u8]) -> u64 {
        Fields(encoded).u64(encoded.len() - 8)
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape::new(self.dim, self.links)
    }

    /// Whether the records are those of an older version.
    pub(crate) fn is_old(&self) -> bool {
        self.version < PLANES
    }
}

/// Where the sections of a segment lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) centre: usize,
    pub(crate) records: usize,
    pub(crate) upper: usize,
    pub(crate) keys: usize,
    pub(crate) rows: usize,
    pub(crate) sums: usize,
    pub(crate) footer: usize,
}

impl Layout {
    /// `None` where the sizes overflow.
    pub(crate) fn of(footer: &Footer) -> Option<Layout> {
        let count = footer.count as usize;
        let nodes = footer.levels.iter().try_fold(0usize, |sum, &l| sum.checked_add(l as usize))?;
        let after = |at: usize, items: usize, size: usize| {
            at.checked_add(items.checked_mul(size)?)?.checked_next_multiple_of(ALIGN)
        };
        let row = footer.dim * footer.rows.bytes();
        let rows_first = footer.version >= ROWS_FIRST;
        let first = after(0, footer.dim, 4)?;
        let records = if rows_first { after(first, count, row)? } else { first };
        let stride = if footer.is_old() { OldShape::new(footer).stride } else { footer.shape().stride };
        let upper = after(records, count, stride)?;
        let keys = after(upper, nodes, UPPER_NODE)?;
        let last = after(keys, count, KEY_ENTRY)?;
        let (rows, sums) = if rows_first { (first, last) } else { (last, after(last, count, row)?) };
        let end = sums.checked_add(sums.div_ceil(BLOCK).checked_mul(8)?)?;
        end.checked_add(FOOTER)?;
        Some(Layout { centre: 0, records, upper, keys, rows, sums, footer: end })
    }
}

/// Name of a segment file.
pub(crate) fn segment_name(id: u64) -> String {
    format!("{id:012}.seg")
}

/// Name of a file of removed rows.
pub(crate) fn removed_name(id: u64) -> String {
    format!("{id:012}.del")
}

/// Name of a file of sample queries.
pub(crate) fn samples_name(id: u64) -> String {
    format!("{id:012}.qry")
}

/// Whether a file of this name belongs to the index and may be removed when no manifest names it.
pub(crate) fn is_ours(name: &str) -> bool {
    name == MANIFEST_NEW
        || name.len() == 16
            && name[..12].bytes().all(|b| b.is_ascii_digit())
            && matches!(&name[12..], ".seg" | ".del" | ".qry")
}

/// Whether a file of ours is a manifest or has a number below `id`.
pub(crate) fn is_older(name: &str, id: u64) -> bool {
    name == MANIFEST_NEW || name < &segment_name(id)[..12]
}

#[cfg(test)]
mod tests;
