//! How long a build takes from nothing to synced files, and how large these are.
//!
//! A build is minutes of work, so engines may be built in several runs: each leaves its figures beside its index, and the table
//! shows all that are there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Bench, say, spread};
use crate::curve::median;
use crate::engine::{DIM, ENGINES};
use crate::report::Table;
use crate::worker::Worker;

/// Every build of one engine, in seconds.
#[derive(Default, Serialize, Deserialize)]
struct Builds {
    cpu: Vec<f64>,
    wall: Vec<f64>,
    /// The busiest thread: what a build on that many idle processors could not be faster than.
    busiest: Vec<f64>,
    megabytes: f64,
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let threads = bench.options.threads;
    let cpus: Vec<String> = (0..threads).map(|c| (bench.options.cpu + c).to_string()).collect();
    // Builds on more threads are for the clock only: the other sections use the index of one thread.
    let dir = |store: &str| bench.data.store(store).with_extension(if threads == 1 { "" } else { "threads" });
    for entry in bench.stores() {
        // What an earlier run left would be another version's.
        let _ = fs::remove_file(figures(bench, entry.store));
    }
    for round in 0..bench.options.rounds {
        for entry in bench.stores() {
            let mut worker = Worker::start(entry, &bench.options.python, threads, &cpus.join(","))?;
            let steps = bench.fill(&mut worker, dir(entry.store), (0..bench.data.n).collect())?;
            let mut builds = read(&figures(bench, entry.store));
            builds.cpu.push(steps.iter().map(|a| a.cpu).sum());
            builds.wall.push(steps.iter().map(|a| a.wall).sum());
            builds.busiest.push(steps.iter().map(|a| a.busiest).sum());
            builds.megabytes = size(&dir(entry.store))? as f64 / 1e6;
            say(&format!("round {round}: {} {:.1} CPU-s", entry.name, builds.cpu[round]));
            fs::write(figures(bench, entry.store), serde_json::to_string(&builds)?)?;
        }
    }
    let title = format!("Build, {} vectors, {threads} thread(s): from nothing to synced files", bench.data.n);
    let head = ["engine", "CPU-s", "busiest thread CPU-s", "wall s", "on disk MB", "without f32 rows MB"];
    let mut table = Table::new(&title, &head);
    let mut numbers = Vec::new();
    for entry in &ENGINES {
        let builds = read(&figures(bench, entry.store));
        if builds.cpu.is_empty() || (entry.store == "faiss-sq8" && entry.refine.len() == 1) {
            continue;
        }
        let rows = (bench.data.n * DIM * 4) as f64 / 1e6;
        let without = builds.megabytes - rows;
        let without = if without > 0.0 { format!("{without:.1}") } else { "keeps none".into() };
        let [cpu, mut busiest, wall] = [&builds.cpu, &builds.busiest, &builds.wall].map(|v| spread(v, 1.0, 1));
        if median(&builds.busiest) < 0.8 * median(&builds.cpu) / threads as f64 {
            // Its threads ended before they could be looked at.
            busiest = "–".into();
        }
        let times = [cpu, busiest, wall];
        let sizes = [format!("{:.1}", builds.megabytes), without];
        table.row([entry.name.to_owned()].into_iter().chain(times).chain(sizes));
        numbers.push((format!("build CPU-s/{}", entry.name), median(&builds.cpu)));
    }
    bench.record("build", vec![table], |outcome| {
        if threads == 1 {
            outcome.numbers.extend(numbers);
        }
    })
}

fn figures(bench: &Bench, store: &str) -> PathBuf {
    bench.data.dir.join(format!("{store}-build-{}.json", bench.options.threads))
}

/// Nothing where nothing was measured.
fn read(path: &Path) -> Builds {
    fs::read_to_string(path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn size(path: &Path) -> Result<u64> {
    let meta = fs::metadata(path)?;
    if meta.is_file() {
        return Ok(meta.len());
    }
    fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}
