//! What is measured, one module per question.

pub(crate) mod build;
pub(crate) mod churn;
pub(crate) mod commit;
pub(crate) mod filter;
pub(crate) mod open;
pub(crate) mod search;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::Options;
use crate::curve::{Knob, Point, median};
use crate::data::{Data, K, Queries};
use crate::engine::{ENGINES, Entry};
use crate::report::{Outcome, Table};
use crate::worker::{Answer, Query, Request, Worker};

/// Queries that are asked first to see how long all will take.
const FIRST: usize = 64;
/// CPU seconds that are measured at least: all queries are asked again until there are as many.
const LEAST: f64 = 0.1;

/// What a section works with.
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) data: Data,
    pub(crate) out: PathBuf,
    load_before: String,
}

/// The first line that a command prints, if it succeeds.
fn line_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").trim().to_owned())
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Processor and number of them, from what the kernel says.
fn machine() -> (String, usize) {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|l| l.split(':').next().is_some_and(|n| n.trim() == name));
        line.and_then(|l| l.split_once(": ")).map_or("unknown", |(_, value)| value).to_owned()
    };
    let cpus = info.lines().filter(|l| l.starts_with("processor")).count();
    (format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model")), cpus)
}

impl Bench {
    pub(crate) fn new(options: Options, data: Data) -> Result<Bench> {
        let (name, cpus) = machine();
        let kind = name.to_lowercase().replace(" (family ", "-f").replace(", model ", "-m").replace(')', "");
        let date = line_of("date", &["-u", "+%F"]).context("the program `date` does not answer")?;
        let folder = format!("results/{date}-{}-{cpus}cpu", kind.replace(' ', "-"));
        let out = options.out.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
        fs::create_dir_all(&out)?;
        Ok(Bench { options, data, out, load_before: load() })
    }

    /// The engines that were asked for, with their names as in the tables or as stores.
    pub(crate) fn engines(&self) -> impl Iterator<Item = &'static Entry> {
        let wanted = &self.options.engines;
        ENGINES.iter().filter(move |e| wanted.is_empty() || wanted.iter().any(|w| w == e.name || w == e.store))
    }

    /// The engines, each store once.
    pub(crate) fn stores(&self) -> Vec<&'static Entry> {
        let mut stores: Vec<&Entry> = self.engines().collect();
        // The later of two rows that share a store is the fuller one.
        stores.reverse();
        let mut seen = Vec::new();
        stores.retain(|e| {
            !seen.contains(&e.store) && {
                seen.push(e.store);
                true
            }
        });
        stores.reverse();
        stores
    }

    /// A single-threaded worker on the pinned processor.
    pub(crate) fn start(&self, entry: &Entry) -> Result<Worker> {
        Worker::start(entry, &self.options.python, 1, &self.options.cpu.to_string())
    }

    /// A worker with the built index of that engine loaded; none where `build` was not run.
    pub(crate) fn opened(&self, entry: &Entry) -> Result<Option<Worker>> {
        let dir = self.data.store(entry.store);
        if !dir.is_dir() {
            say(&format!("{}: not built, left out", entry.name));
            return Ok(None);
        }
        let mut worker = self.start(entry)?;
        worker.ask(&Request::Open { dir, mapped: false })?;
        Ok(Some(worker))
    }

    /// Fills an empty index with these rows, in `dir`, and commits. Gives creating, adding and committing.
    pub(crate) fn fill(&self, worker: &mut Worker, dir: PathBuf, at: Vec<usize>) -> Result<[Answer; 3]> {
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        let create = worker.ask(&Request::Create { dir, capacity: at.len() })?;
        let add = worker.ask(&Request::Add { rows: self.data.base.clone(), at, offset: 0 })?;
        Ok([create, add, worker.ask(&Request::Commit)?])
    }

    /// Leaves what was measured in the results folder.
    pub(crate) fn record(&self, section: &str, tables: Vec<Table>, more: impl FnOnce(&mut Outcome)) -> Result<()> {
        let o = &self.options;
        let mut command = format!("compare {section} --n {} --rounds {}", o.n, o.rounds);
        if o.threads > 1 {
            command += &format!(" --threads {}", o.threads);
        }
        if !o.engines.is_empty() {
            command += &format!(" --engines {:?}", o.engines.join(","));
        }
        let (machine, cpus) = machine();
        let mut outcome = Outcome {
            section: section.into(),
            n: self.data.n,
            command,
            commit: env!("INDEX_COMMIT").into(),
            machine: format!("{machine}, {cpus} processors"),
            load: format!("{} before, {} after (1 and 5 minutes)", self.load_before, load()),
            tables,
            curves: Vec::new(),
            numbers: BTreeMap::new(),
        };
        more(&mut outcome);
        outcome.save(&self.out, o.threads)
    }
}

/// Asks one kind of query, warm; the point has one round. What the caches hold at first is another engine's, so a few queries
/// go before those that count, and all of them where that is quick.
pub(crate) fn ask(worker: &mut Worker, data: &Data, queries: &Queries, at: &[usize], knob: Knob) -> Result<Point> {
    let mut query =
        Query { rows: queries.rows.clone(), at: at[..at.len().min(FIRST)].to_vec(), k: K, ..Query::default() };
    knob.apply(&mut query);
    let first = worker.ask(&Request::Query(query.clone()))?.cpu * at.len() as f64 / query.at.len() as f64;
    query.at = at.to_vec();
    if first < LEAST {
        worker.ask(&Request::Query(query.clone()))?;
    }
    let (mut cpu, mut passes) = (0.0, 0.0);
    let found = loop {
        let answer = worker.ask(&Request::Query(query.clone()))?;
        (cpu, passes) = (cpu + answer.cpu, passes + 1.0);
        if cpu >= LEAST {
            break answer.found;
        }
    };
    let recall = data.recall(queries, at, &found)?;
    Ok(Point { knob, recall, seconds: vec![cpu / passes / at.len() as f64] })
}

/// Median and range of some measurements, scaled.
pub(crate) fn spread(values: &[f64], scale: f64, digits: usize) -> String {
    let most = values.iter().copied().fold(f64::NAN, f64::max) * scale;
    let least = values.iter().copied().fold(f64::NAN, f64::min) * scale;
    let median = median(values) * scale;
    if values.len() < 2 {
        format!("{median:.digits$}")
    } else {
        format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}

/// Talk goes to stderr.
pub(crate) fn say(text: &str) {
    eprintln!("compare: {text}");
}
