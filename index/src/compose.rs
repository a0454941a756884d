//! Writes a segment: encodes vectors from any source, builds the graph if one is asked for, streams everything to a file.
//!
//! Exact rows go straight from the source to the file, beside the building; only records and links are held in memory.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rayon::prelude::*;

use crate::Key;
use crate::build::{Graph, Upper, Watch, tell};
use crate::calibrate;
use crate::config::{Config, Rows};
use crate::encoding::{Encode, Encoder, Encoding};
use crate::error::{Error, Result};
use crate::format::{self, Footer, KEY_ENTRY, LEVELS, Layout, UPPER_NODE, VERSION};
use crate::graft::Graft;
use crate::kernel::{CodeQuery, Kernels};
use crate::plan::elsewhere;
use crate::samples::Samples;
use crate::sealed::{BUFFER, Sealer, Unsynced};
use crate::segment::{Part, Segment};
use crate::storage::Storage;
use crate::vectors::{RecordBuffer, Shape, write_record};

/// Vectors by number.
pub(crate) trait Source: Sync {
    fn len(&self) -> u32;
    fn key(&self, at: u32) -> Result<Key>;
    fn vector(&self, at: u32, into: &mut Vec<f32>) -> Result<()>;
}

/// Vectors in memory, in the form that is stored.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) keys: Vec<Key>,
    pub(crate) numbers: Vec<f32>,
}

impl Pending {
    /// Takes all out; the memory stays, for those that come next.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.numbers.clear();
    }

    /// Takes one out; the last takes its place.
    pub(crate) fn swap_remove(&mut self, at: u32, dim: usize) {
        let last = self.keys.len() - 1;
        self.numbers.copy_within(last * dim.., at as usize * dim);
        self.numbers.truncate(last * dim);
        self.keys.swap_remove(at as usize);
    }
}

impl Source for Pending {
    fn len(&self) -> u32 {
        self.keys.len() as u32
    }

    fn key(&self, at: u32) -> Result<Key> {
        Ok(self.keys[at as usize])
    }

    fn vector(&self, at: u32, into: &mut Vec<f32>) -> Result<()> {
        let dim = self.numbers.len() / self.keys.len();
        into.clear();
        into.extend_from_slice(&self.numbers[at as usize * dim..][..dim]);
        Ok(())
    }
}

/// One source after another.
pub(crate) struct Both<'a>(pub(crate) &'a dyn Source, pub(crate) &'a dyn Source);

impl Source for Both<'_> {
    fn len(&self) -> u32 {
        self.0.len() + self.1.len()
    }

    fn key(&self, at: u32) -> Result<Key> {
        if at < self.0.len() { self.0.key(at) } else { self.1.key(at - self.0.len()) }
    }

    fn vector(&self, at: u32, into: &mut Vec<f32>) -> Result<()> {
        if at < self.0.len() { self.0.vector(at, into) } else { self.1.vector(at - self.0.len(), into) }
    }
}

/// More rows than this would not leave a bit of a row number for the walk's marks.
const MOST: usize = (1 << 31) - 1;

/// What is live in some parts, in their order.
pub(crate) struct Merge<'a> {
    parts: &'a [Part],
    rows: Vec<(u32, u32)>,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(parts: &'a [Part]) -> Merge<'a> {
        let live = |part: &'a Part| (0..part.segment.count()).filter(|&row| !part.removed.contains(row));
        let rows = parts.iter().zip(0..).flat_map(|(part, at)| live(part).map(move |row| (at, row))).collect();
        Merge { parts, rows }
    }

    /// The graph of the first part, to be taken over.
    pub(crate) fn graft(&self) -> Result<Option<Graft>> {
        let numbers = (0..).zip(&self.rows).filter(|(_, row)| row.0 == 0).map(|(number, _)| number);
        self.parts.first().map(|part| Graft::new(part, numbers)).transpose()
    }

    fn at(&self, at: u32) -> (&Segment, u32) {
        let (part, row) = self.rows[at as usize];
        (&self.parts[part as usize].segment, row)
    }
}

impl Source for Merge<'_> {
    fn len(&self) -> u32 {
        self.rows.len() as u32
    }

    fn key(&self, at: u32) -> Result<Key> {
        let (segment, row) = self.at(at);
        segment.key(row)
    }

    fn vector(&self, at: u32, into: &mut Vec<f32>) -> Result<()> {
        let (segment, row) = self.at(at);
        segment.vector(row, into)
    }
}

/// Rows that are encoded before it is asked whether to go on.
const ENCODED: usize = 16_384;

/// Rows that the centre is the mean of; more do not move it.
const CENTRE_SAMPLE: u32 = 20_000;
/// Rows of it that one thread adds up.
const STRETCH: usize = 512;

/// How often somebody who waits is told how far it is.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// What a new segment takes over from another.
pub(crate) struct Inherited {
    pub(crate) encoding: Encoding,
    /// Rows that the centre was taken from.
    pub(crate) centred: u32,
    /// Its graph; `source` begins with its rows then.
    pub(crate) graft: Option<Graft>,
}

impl Inherited {
    /// The centre of a part.
    pub(crate) fn centre(part: &Part) -> Inherited {
        let segment = &part.segment;
        Inherited { encoding: segment.encoding.clone(), centred: segment.footer.centred, graft: None }
    }
}

/// Where segments go, and what is the same for all of them.
pub(crate) struct Composer<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) config: &'a Config,
    pub(crate) kernels: Kernels,
    /// What shapes a graph, and the number of its file.
    pub(crate) samples: (&'a Samples, u64),
}

impl Composer<'_> {
    fn mean(&self, source: &dyn Source) -> Result<Vec<f32>> {
        let step = (source.len() / CENTRE_SAMPLE).max(1);
        let rows: Vec<u32> = (0..source.len()).step_by(step as usize).collect();
        // Sums over stretches of one length, so that the result does not depend on how many threads there are.
        let sums = rows.par_chunks(STRETCH).map_init(Vec::new, |vector, rows| {
            let mut sums = vec![0f64; self.config.dim];
            for &row in rows {
                source.vector(row, vector)?;
                sums.iter_mut().zip(&*vector).for_each(|(sum, &x)| *sum += f64::from(x));
            }
            Ok(sums)
        });
        let mut mean = vec![0f64; self.config.dim];
        for sums in sums.collect::<Result<Vec<_>>>()? {
            mean.iter_mut().zip(sums).for_each(|(mean, sum)| *mean += sum);
        }
        Ok(mean.into_iter().map(|sum| (sum / rows.len().max(1) as f64) as f32).collect())
    }

    /// Encodes every vector; returns the records and the largest distance from the centre.
    fn encode(
        &self,
        source: &dyn Source,
        encoding: &Encoding,
        links: usize,
        watch: Watch<'_>,
    ) -> Result<(RecordBuffer, f32)> {
        let shape = Shape::new(self.config.dim, links);
        let memory = RecordBuffer::new(shape, source.len());
        let mut buffer = memory.map_err(Error::io(self.storage.path(""), "reserve memory for codes and links"))?;
        let mut reach: f32 = 0.0;
        for (block, records) in buffer.bytes_mut().chunks_mut(ENCODED * shape.stride).enumerate() {
            tell(watch, 0, source.len().into())?;
            let reached = records
                .par_chunks_exact_mut(shape.stride)
                .enumerate()
                .with_min_len(64)
                .map_init(Default::default, |(vector, encoder): &mut (Vec<f32>, Encoder), (at, record)| {
                    let at = (block * ENCODED + at) as u32;
                    source.vector(at, vector)?;
                    self.kernels.wide(Encode(encoding, vector, encoder));
                    write_record(record, shape, source.key(at)?, &encoder.code);
                    let reach = vector.iter().zip(encoding.centre()).map(|(x, c)| (x - c) * (x - c)).sum::<f32>();
                    Ok(reach.sqrt())
                })
                .try_reduce(|| 0.0, |a, b| Ok(f32::max(a, b)))?;
            reach = reach.max(reached);
        }
        Ok((buffer, reach))
    }

    /// Writes the segment with number `id` and opens it; the caller syncs the file. `links` 0 makes no graph. `inherited` are the
    /// encoding of another segment and the number of rows that its centre was taken from, so that queries are encoded once for
    /// both; and perhaps its graph.
    pub(crate) fn compose(
        &self,
        id: u64,
        source: &dyn Source,
        links: usize,
        inherited: Option<Inherited>,
        watch: Watch<'_>,
    ) -> Result<(Segment, Unsynced)> {
        if source.len() as usize > MOST {
            let found = source.len().to_string();
            return Err(Error::Invalid { field: "vectors in one segment", found, expected: "fewer than 2^31" });
        }
        let Inherited { encoding, centred, graft } = match inherited {
            Some(inherited) => inherited,
            None => {
                let encoding = Encoding::new(self.config.metric, self.mean(source)?);
                Inherited { encoding, centred: source.len(), graft: None }
            }
        };
        let name = format::segment_name(id);
        let path = self.storage.path(&name);
        let file = self.storage.create(&name).map_err(Error::io(&path, "create"))?;
        let sealer = Sealer::new(file, path);
        // How far it is, for those who only ask whether to go on.
        let told = Cell::new((0, source.len().into()));
        let mut watch = |done, total| {
            told.set((done, total));
            watch(done, total)
        };
        let write = |stop: &_| self.write_rows(sealer, source, &encoding, stop);
        let make = |watch: Watch<'_>| self.make(source, &encoding, links, graft, watch);
        let (sealer, Made { graph, reach, bias, measuring }) = self.beside((&mut watch, &told), write, make)?;
        let write = |stop: &_| write_graph(sealer, &graph, stop);
        let (sealer, recall) = if links > 0 {
            let go_on = |watch: Watch<'_>| tell(watch, told.get().0, told.get().1);
            let measure = |watch: Watch<'_>| calibrate::measure(&graph, &measuring, &mut || go_on(watch));
            self.beside((&mut watch, &told), write, measure)?
        } else {
            (write(&AtomicBool::new(false))?, Default::default())
        };
        let mut levels = [0; LEVELS];
        levels.iter_mut().zip(&graph.uppers).for_each(|(level, upper)| *level = upper.rows.len() as u32);
        let mut footer = Footer {
            version: VERSION,
            dim: self.config.dim,
            metric: self.config.metric,
            rows: self.config.rows,
            links,
            count: source.len(),
            centred,
            levels,
            sums_checksum: 0,
            reach,
            bias_mean: bias.0,
            bias_deviation: bias.1,
            recall,
            samples: if links > 0 { self.samples.1 } else { 0 },
        };
        let size = Layout::of(&footer).ok_or_else(|| Error::Invalid {
            field: "number of vectors",
            found: footer.count.to_string(),
            expected: "what this machine can address",
        })?;
        debug_assert_eq!(sealer.position(), size.sums);
        let (checksum, file) = sealer.finish(&mut footer)?;
        Ok((Segment::open(self.storage, id, footer.count, checksum, self.config)?, file))
    }

    /// Writes while `make` makes something: on a thread of its own, since those of rayon have other things to do than to wait for a
    /// disk. `told` is how far it is. Each is stopped where the other fails.
    fn beside<T>(
        &self,
        (watch, told): (Watch<'_>, &Cell<(u64, u64)>),
        write: impl FnOnce(&AtomicBool) -> Result<Sealer> + Send,
        make: impl FnOnce(Watch<'_>) -> Result<T>,
    ) -> Result<(Sealer, T)> {
        let stop = &AtomicBool::new(false);
        let mut watch =
            |done, total| if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { watch(done, total) };
        std::thread::scope(|scope| {
            let (send, receive) = channel();
            let write = move || {
                let written = write(stop);
                stop.fetch_or(written.is_err(), Ordering::Relaxed);
                // Somebody waits.
                let _ = send.send(written);
            };
            let thread = std::thread::Builder::new().name("tintype-write".into()).spawn_scoped(scope, write);
            thread.map_err(Error::io(self.storage.path(""), "start a thread in"))?;
            let made = make(&mut watch);
            stop.fetch_or(made.is_err(), Ordering::Relaxed);
            let written = loop {
                match receive.recv_timeout(TICK) {
                    Ok(written) => break written,
                    Err(RecvTimeoutError::Timeout) => {
                        let (done, total) = told.get();
                        stop.fetch_or(watch(done, total).is_break(), Ordering::Relaxed);
                    }
                    // It panicked, and so will the scope.
                    Err(RecvTimeoutError::Disconnected) => break Err(Error::Cancelled),
                }
            };
            match (written, made) {
                (Ok(sealer), Ok(made)) => Ok((sealer, made)),
                (Err(error), Ok(_) | Err(Error::Cancelled)) | (_, Err(error)) => Err(error),
            }
        })
    }

    /// Encodes every vector and makes the graph, if there is to be one.
    fn make<'a>(
        &self,
        source: &dyn Source,
        encoding: &'a Encoding,
        links: usize,
        graft: Option<Graft>,
        watch: Watch<'_>,
    ) -> Result<Made<'a>> {
        let (records, reach) = self.encode(source, encoding, links, watch)?;
        let mut graph = Graph::new(self.kernels, encoding, self.config.build_ef, records);
        let biases = (0..source.len()).map(|row| f64::from(graph.records.records().bias(row)));
        let mean = biases.clone().sum::<f64>() / f64::from(source.len());
        let deviation = (biases.map(|b| (b - mean).powi(2)).sum::<f64>() / f64::from(source.len())).sqrt();
        let bias = (mean as f32, deviation as f32);
        let mut measuring = Vec::new();
        if links > 0 {
            let (shaping, held_out) = self.samples.0.encode(encoding);
            measuring = held_out;
            measuring.retain(|query| elsewhere(query.offset - encoding.constant(), bias.0, bias.1));
            let total = graph.build(graft, &shaping, watch)?;
            // What follows a graph is told as the whole of it.
            tell(watch, total, total)?;
        }
        Ok(Made { graph, reach, bias, measuring })
    }

    /// Writes what needs nothing but the vectors: the centre and the exact rows.
    fn write_rows(
        &self,
        mut sealer: Sealer,
        source: &dyn Source,
        encoding: &Encoding,
        stop: &AtomicBool,
    ) -> Result<Sealer> {
        let mut bytes: Vec<u8> = encoding.centre().iter().flat_map(|x| x.to_le_bytes()).collect();
        sealer.write(&bytes)?;
        sealer.align()?;
        let mut vector = Vec::new();
        for row in 0..source.len() {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            source.vector(row, &mut vector)?;
            bytes.resize(self.config.dim * self.config.rows.bytes(), 0);
            match self.config.rows {
                Rows::F32 => {
                    let (words, _) = bytes.as_chunks_mut::<4>();
                    words.iter_mut().zip(&vector).for_each(|(to, x)| *to = x.to_le_bytes());
                }
                Rows::F16 => {
                    let (halves, _) = bytes.as_chunks_mut::<2>();
                    halves.iter_mut().zip(&vector).for_each(|(to, &x)| *to = half::f16::from_f32(x).to_le_bytes());
                }
            }
            sealer.write(&bytes)?;
        }
        sealer.align()?;
        sealer.begin_sync();
        Ok(sealer)
    }
}

/// What is made of the vectors of a segment.
struct Made<'a> {
    graph: Graph<'a>,
    /// Largest distance from the centre.
    reach: f32,
    /// Mean and deviation of the biases.
    bias: (f32, f32),
    /// What the graph is to be measured with.
    measuring: Vec<CodeQuery>,
}

/// Writes what follows the exact rows: codes and links, upper levels, keys.
fn write_graph(mut sealer: Sealer, graph: &Graph<'_>, stop: &AtomicBool) -> Result<Sealer> {
    for records in graph.records.bytes().chunks(BUFFER) {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        sealer.write(records)?;
    }
    for upper in &graph.uppers {
        sealer.write(&upper_bytes(upper))?;
    }
    sealer.align()?;
    sealer.write(&key_table(graph))?;
    sealer.align()?;
    sealer.begin_sync();
    Ok(sealer)
}

fn upper_bytes(upper: &Upper) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(upper.rows.len() * UPPER_NODE);
    for ((row, down), links) in upper.rows.iter().zip(&upper.down).zip(upper.links.chunks(crate::format::UPPER_LINKS)) {
        bytes.extend(row.to_le_bytes());
        bytes.extend(down.to_le_bytes());
        bytes.extend(links.iter().flat_map(|l| l.to_le_bytes()));
    }
    bytes
}

fn key_table(graph: &Graph<'_>) -> Vec<u8> {
    let records = graph.records.records();
    let mut keys: Vec<(Key, u32)> = (0..records.count).map(|row| (records.key(row), row)).collect();
    keys.sort_unstable();
    let mut bytes = Vec::with_capacity(keys.len() * KEY_ENTRY);
    for (key, row) in keys {
        bytes.extend(key.to_le_bytes());
        bytes.extend(row.to_le_bytes());
    }
    bytes
}
