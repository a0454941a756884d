//! The vectors: which are in the index, which are asked for, and what the exact answers are.
//!
//! Every 100th image is taken out of the set and becomes a query; text queries come with the set. Even queries are for tuning,
//! odd ones for reporting. Fewer vectors than the set has are an even sample of it; more are the set and jittered copies of it
//! (Gaussian noise of norm 0.3, then normalised): a stand-in for a larger library, and said to be one wherever shown.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::engine::{DIM, EXACT};
use crate::worker::{Query, Request, Worker};

/// Neighbours that are asked for everywhere.
pub(crate) const K: usize = 10;
/// Every which image is taken out as a query.
const TAKEN: usize = 100;
const JITTER: f32 = 0.3;

/// The text queries, beside the indexes of a size.
pub(crate) const TEXTS: &str = "text.f32";

/// Rows of `DIM` little-endian f32 in a file.
pub(crate) struct Rows(File);

impl Rows {
    pub(crate) fn open(path: &Path) -> Result<Rows> {
        Ok(Rows(File::open(path).with_context(|| path.display().to_string())?))
    }

    pub(crate) fn count(&self) -> Result<usize> {
        Ok(self.0.metadata()?.len() as usize / (4 * DIM))
    }

    pub(crate) fn read(&self, at: &[usize]) -> Result<Vec<f32>> {
        let mut rows = Vec::with_capacity(at.len() * DIM);
        let mut bytes = [0; 4 * DIM];
        for &row in at {
            self.0.read_exact_at(&mut bytes, (row * 4 * DIM) as u64)?;
            rows.extend(bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])));
        }
        Ok(rows)
    }
}

/// One kind of query.
pub(crate) struct Queries {
    pub(crate) name: &'static str,
    pub(crate) rows: PathBuf,
    /// The exact nearest keys, per query.
    truth: Vec<Vec<u64>>,
}

impl Queries {
    pub(crate) fn tuning(&self) -> Vec<usize> {
        (0..self.truth.len()).step_by(2).collect()
    }

    pub(crate) fn reported(&self) -> Vec<usize> {
        (1..self.truth.len()).step_by(2).collect()
    }
}

/// Everything a section works on.
pub(crate) struct Data {
    pub(crate) n: usize,
    /// Files of this size: vectors, filters, indexes. Not tracked.
    pub(crate) dir: PathBuf,
    pub(crate) base: PathBuf,
    pub(crate) text: Queries,
    pub(crate) image: Queries,
}

impl Data {
    /// Makes what is not there yet. `None` where the vectors are missing.
    pub(crate) fn prepare(n: usize, python: &Path) -> Result<Option<Data>> {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
        let shared = std::env::var_os("TINTYPE_TEST_DATA").map_or(beside, PathBuf::from);
        let source = shared.join("data/clip-vectors");
        if !source.is_dir() {
            return Ok(None);
        }
        let dir = Data::folder(n);
        fs::create_dir_all(&dir)?;
        let [base, text, image] = ["base.f32", TEXTS, "image.f32"].map(|name| dir.join(name));
        if !image.exists() {
            let images = read_npy(&source.join("images-100k-f16.npy"))?;
            let (taken, kept): (Vec<_>, Vec<_>) = images.into_iter().enumerate().partition(|(at, _)| at % TAKEN == 0);
            let kept: Vec<_> = kept.into_iter().map(|(_, row)| row).collect();
            write_rows(&text, read_npy(&source.join("text-queries-1203-f32.npy"))?)?;
            write_rows(
                &base,
                (0..n).map(|at| if n < kept.len() { kept[at * kept.len() / n].clone() } else { copy(&kept, at) }),
            )?;
            write_rows(&image, taken.into_iter().map(|(_, row)| row))?;
        }
        let mut exact = None;
        let mut queries = |name, rows: PathBuf| -> Result<Queries> {
            let truth = truth(&rows, &base, n, &mut exact, python)?;
            Ok(Queries { name, rows, truth })
        };
        let (text, image) = (queries("text", text)?, queries("image", image)?);
        Ok(Some(Data { n, dir, base, text, image }))
    }

    /// Where the files of a size are.
    pub(crate) fn folder(n: usize) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/data/{n}"))
    }

    pub(crate) fn queries(&self) -> [&Queries; 2] {
        [&self.image, &self.text]
    }

    /// The directory of an engine's index.
    pub(crate) fn store(&self, store: &str) -> PathBuf {
        self.dir.join(store)
    }

    /// Mean share of the true neighbours among the answers. A neighbour as near as the last true one counts as true: the set
    /// has exact duplicates, and which of them is named does not matter.
    pub(crate) fn recall(&self, queries: &Queries, at: &[usize], found: &[Vec<u64>]) -> Result<f64> {
        let truth: Vec<_> = at.iter().map(|&query| queries.truth[query].as_slice()).collect();
        recall(&self.base, &queries.rows, at, &truth, found)
    }
}

/// As [`Data::recall`], against a truth of its own.
pub(crate) fn recall(base: &Path, rows: &Path, at: &[usize], truth: &[&[u64]], found: &[Vec<u64>]) -> Result<f64> {
    ensure!(found.len() == at.len(), "{} answers to {} queries", found.len(), at.len());
    let (base, rows) = (Rows::open(base)?, Rows::open(rows)?);
    let (mut hits, mut wanted) = (0, 0);
    for ((&query, truth), found) in at.iter().zip(truth).zip(found) {
        let query = rows.read(&[query])?;
        let score = |key: u64| -> Result<f64> {
            let row = base.read(&[key as usize])?;
            Ok(query.iter().zip(&row).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum())
        };
        let scores = truth.iter().map(|&key| score(key)).collect::<Result<Vec<_>>>()?;
        let least = scores.into_iter().fold(f64::INFINITY, f64::min) - 1e-6;
        let mut found = found.clone();
        found.sort_unstable();
        found.dedup();
        let scores = found.iter().map(|&key| score(key)).collect::<Result<Vec<_>>>()?;
        hits += scores.into_iter().filter(|&score| score >= least).count().min(truth.len());
        wanted += truth.len();
    }
    Ok(hits as f64 / wanted.max(1) as f64)
}

/// The truth for a file of queries: from its file, or by an exact scan through `exact`, which is started when first needed.
fn truth(rows: &Path, base: &Path, n: usize, exact: &mut Option<Worker>, python: &Path) -> Result<Vec<Vec<u64>>> {
    let path = rows.with_extension("truth.json");
    if !path.exists() {
        let worker = match exact {
            Some(worker) => worker,
            None => exact.insert(exact_worker(base, (0..n).collect(), python)?),
        };
        let query =
            Query { rows: rows.into(), at: (0..Rows::open(rows)?.count()?).collect(), k: K, ..Query::default() };
        fs::write(&path, serde_json::to_string(&worker.ask(&Request::Query(query))?.found)?)?;
    }
    serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())
}

/// A worker that scans these rows; its keys are places in `at`.
pub(crate) fn exact_worker(base: &Path, at: Vec<usize>, python: &Path) -> Result<Worker> {
    let mut worker = Worker::start(&EXACT, python, 1, "0")?;
    worker.ask(&Request::Create { dir: base.with_extension("exact"), capacity: at.len() })?;
    worker.ask(&Request::Add { rows: base.into(), at, offset: 0 })?;
    Ok(worker)
}

/// Reads a two-dimensional NumPy file of f16 or f32 and normalises its rows.
fn read_npy(path: &Path) -> Result<Vec<Vec<f32>>> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).with_context(|| path.display().to_string())?;
    ensure!(
        bytes.len() > 10 && bytes.starts_with(b"\x93NUMPY\x01"),
        "{}: not a NumPy file of version 1",
        path.display()
    );
    let head = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (head, body) = bytes.split_at_checked(head).context("cut off")?;
    let head = String::from_utf8_lossy(head);
    let numbers: Vec<f32> = if head.contains("'<f2'") {
        body.chunks_exact(2).map(|x| half::f16::from_le_bytes([x[0], x[1]]).to_f32()).collect()
    } else if head.contains("'<f4'") {
        body.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect()
    } else {
        bail!("{}: neither f16 nor f32", path.display());
    };
    ensure!(head.contains(&format!(", {DIM})")), "{}: rows are not of {DIM} numbers", path.display());
    Ok(numbers.chunks_exact(DIM).map(|row| normalised(row.to_vec())).collect())
}

fn normalised(mut row: Vec<f32>) -> Vec<f32> {
    let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    row
}

pub(crate) fn write_rows(path: &Path, rows: impl IntoIterator<Item = Vec<f32>>) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for row in rows {
        file.write_all(&row.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>())?;
    }
    Ok(file.flush()?)
}

/// Row `at` of the set followed by jittered copies of it, again and again.
pub(crate) fn copy(rows: &[Vec<f32>], at: usize) -> Vec<f32> {
    let row = rows[at % rows.len()].clone();
    if at < rows.len() {
        return row;
    }
    let mut state = at as u64;
    // A sum of twelve uniform numbers is near enough to a Gaussian for noise.
    let mut gaussian = || (0..12).map(|_| uniform(&mut state)).sum::<f32>() - 6.0;
    let scale = JITTER / (DIM as f32).sqrt();
    normalised(row.into_iter().map(|x| x + scale * gaussian()).collect())
}

/// The next number in 0..1 (splitmix64).
pub(crate) fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ z >> 31) >> 40) as f32 / (1 << 24) as f32
}
