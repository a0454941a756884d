//! The engines that are compared: what each can do, behind one trait.
//!
//! Every graph is built with 16 links per vector and level (32 on the lowest) and looks at 200 candidates, in each engine's own
//! words; everything else is the engine's default.

mod hnsw_rs;
mod scan;
mod tintype;
mod usearch;

use std::path::Path;

use anyhow::{Result, bail};

pub(crate) const DIM: usize = 512;
const LINKS: usize = 16;
const BUILD_EF: usize = 200;

/// An engine as the tables name it.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// What the worker is called and whose index is used: the two faiss SQ8 rows share one.
    pub(crate) store: &'static str,
    /// Whether it is driven through `peers.py`.
    pub(crate) python: bool,
    /// Candidates that are scored exactly after the walk, where that is the caller's choice; 0 is none.
    pub(crate) refine: &'static [usize],
}

const fn entry(name: &'static str, store: &'static str, python: bool, refine: &'static [usize]) -> Entry {
    Entry { name, store, python, refine }
}

/// What is under test.
pub(crate) const OURS: &str = "tintype-index";
/// The same, told of the even half of the text queries: nothing that peers have, so no figure of a comparison with them.
pub(crate) const SAMPLED: &str = "tintype-index, sample texts";

/// In the order of the tables.
pub(crate) const ENGINES: [Entry; 9] = [
    entry(OURS, "tintype-index", false, &[0]),
    entry(SAMPLED, "tintype-samples", false, &[0]),
    entry("hnsw_rs", "hnsw_rs", false, &[0]),
    entry("hnswlib", "hnswlib", true, &[0]),
    entry("faiss HNSW-Flat", "faiss-hnsw", true, &[0]),
    entry("faiss HNSW-SQ8", "faiss-sq8", true, &[0]),
    entry("faiss HNSW-SQ8 + RefineFlat", "faiss-sq8", true, &[15, 30, 50]),
    entry("usearch f16", "usearch-f16", false, &[0]),
    entry("usearch i8", "usearch-i8", false, &[0]),
];

/// The exact scan that gives the truth.
pub(crate) const EXACT: Entry = entry("faiss Flat (exact)", "faiss-flat", true, &[0]);

/// A plain scan of f32 rows in Rust, as an ordinary build compiles it.
pub(crate) const SCAN: Entry = entry("plain scan", "scan", false, &[0]);

/// How to search.
pub(crate) struct How<'a> {
    pub(crate) k: usize,
    /// Width of the walk; without it, the engine's own choice.
    pub(crate) ef: Option<usize>,
    /// The recall that is asked for, where the engine takes one.
    pub(crate) recall: Option<f32>,
    /// One bit per key: only these may be found.
    pub(crate) allowed: Option<&'a [u8]>,
    /// Whether that is to be a closure.
    pub(crate) closure: bool,
}

impl How<'_> {
    /// Whether the filter, if any, lets a key pass.
    pub(crate) fn allows(&self, key: u64) -> bool {
        self.allowed.is_none_or(|bits| bits[key as usize / 8] >> (key % 8) & 1 == 1)
    }
}

/// One engine in one process.
pub(crate) trait Engine {
    /// Starts an empty index that will be kept in `dir` and will hold at most `capacity` vectors.
    fn create(&mut self, dir: &Path, capacity: usize) -> Result<()>;
    /// Opens what `commit` left; `mapped` where the engine can choose between reading and mapping.
    fn open(&mut self, dir: &Path, mapped: bool) -> Result<()>;
    /// Adds the rows under their keys.
    fn add(&mut self, keys: &[u64], rows: &[f32]) -> Result<()>;
    /// Removes keys.
    fn remove(&mut self, _keys: &[u64]) -> Result<()> {
        bail!("cannot remove")
    }
    /// Leaves everything in the directory, synced.
    fn commit(&mut self) -> Result<()>;
    /// Does the housekeeping that the engine offers after removals.
    fn compact(&mut self) -> Result<()> {
        bail!("nothing to compact")
    }
    /// Brings a filter into the engine's own form, once for many queries; the stopwatch does not run.
    fn prepare(&mut self, _allowed: Option<&[u8]>) {}
    /// The nearest keys, best first.
    fn search(&mut self, query: &[f32], how: &How) -> Result<Vec<u64>>;
}

/// The Rust engine of that store name.
pub(crate) fn new(store: &str, threads: usize) -> Result<Box<dyn Engine>> {
    Ok(match store {
        "tintype-index" => Box::new(tintype::Tintype::default()),
        "tintype-samples" => Box::new(tintype::Tintype::sampled()),
        "scan" => Box::new(scan::Scan::default()),
        "hnsw_rs" => Box::new(hnsw_rs::HnswRs::new(threads)),
        "usearch-f16" => Box::new(usearch::Usearch::new(::usearch::ScalarKind::F16, threads)?),
        "usearch-i8" => Box::new(usearch::Usearch::new(::usearch::ScalarKind::I8, threads)?),
        other => bail!("no engine {other:?}"),
    })
}

/// Syncs a file and the directory that holds it: the peers leave that to their callers.
fn sync(path: &Path) -> Result<()> {
    std::fs::File::open(path)?.sync_all()?;
    if let Some(dir) = path.parent() {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}
