//! Everything in one go: the sections at three sizes, what matters most first, each saved as it ends.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::data::Data;
use crate::section::say;
use crate::{Command, Options, run};

#[derive(Args, Clone)]
pub(crate) struct Everything {
    /// Builds the peers anew at every size; by default only those that are not there, but for the rounds of builds in turns
    #[arg(long)]
    fresh: bool,
    /// Only these steps, by number, separated by commas
    #[arg(long, value_delimiter = ',')]
    steps: Vec<usize>,
    /// Says what would be done, and does nothing
    #[arg(long)]
    dry: bool,
    /// The processor that single-threaded work is pinned to
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// A Python that has faiss, hnswlib and numpy
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The results folder; by default one named by date and machine kind
    #[arg(long)]
    out: Option<PathBuf>,
}

struct Step {
    section: fn(Options) -> Command,
    name: &'static str,
    n: usize,
    rounds: usize,
    threads: usize,
    /// Names or stores; empty for all.
    engines: &'static [&'static str],
    /// Whether an index that is there already need not be built.
    keeps: bool,
    /// On an idle machine of two processors.
    minutes: f64,
}

const ALL: &[&str] = &[];
/// The fastest builds, which take turns.
const QUICK: &[&str] = &["tintype-index", "tintype-samples", "hnswlib", "faiss-sq8", "usearch-i8"];
const OURS: &[&str] = &["tintype-index", "tintype-samples"];
/// Who is compared with a million vectors.
const LARGE: &[&str] = &["tintype-index", "tintype-samples", "hnswlib", "faiss HNSW-Flat", "faiss HNSW-SQ8 + RefineFlat"];
const LARGE_PEERS: &[&str] = &["hnswlib", "faiss-hnsw", "faiss-sq8"];
const SET: usize = 99_000;
const MILLION: usize = 1_000_000;

const STEPS: [Step; 15] = [
    step(Command::Build, "build", SET, 1, 1, &["hnsw_rs", "faiss-hnsw", "usearch-f16"], true, 2.5),
    step(Command::Build, "build", SET, 3, 1, QUICK, false, 4.0),
    step(Command::Search, "search", SET, 3, 1, ALL, false, 8.0),
    step(Command::Build, "build", SET, 2, 2, &["tintype-index", "hnswlib", "faiss-sq8"], false, 1.5),
    step(Command::Build, "build", MILLION, 1, 1, LARGE_PEERS, true, 25.0),
    step(Command::Build, "build", MILLION, 1, 1, OURS, false, 4.0),
    step(Command::Search, "search", MILLION, 2, 1, LARGE, false, 9.0),
    step(Command::Open, "open", MILLION, 2, 1, LARGE, false, 3.0),
    step(Command::Open, "open", SET, 3, 1, ALL, false, 3.0),
    step(Command::Commit, "commit", SET, 3, 1, ALL, false, 4.0),
    step(Command::Churn, "churn", SET, 3, 1, ALL, false, 12.0),
    step(Command::Filter, "filter", SET, 2, 1, ALL, false, 8.0),
    step(Command::Build, "build", 10_000, 3, 1, ALL, false, 1.0),
    step(Command::Search, "search", 10_000, 2, 1, ALL, false, 2.0),
    step(Command::Report, "report", SET, 1, 1, ALL, false, 0.0),
];

#[allow(clippy::too_many_arguments, reason = "a row of a table")]
const fn step(
    section: fn(Options) -> Command,
    name: &'static str,
    n: usize,
    rounds: usize,
    threads: usize,
    engines: &'static [&'static str],
    keeps: bool,
    minutes: f64,
) -> Step {
    Step { section, name, n, rounds, threads, engines, keeps, minutes }
}

impl Step {
    /// The engines of this step that there is something to do for; `None` if for none.
    fn engines(&self, fresh: bool) -> Option<Vec<String>> {
        let mut engines: Vec<String> = self.engines.iter().map(|&e| e.to_owned()).collect();
        if self.keeps && !fresh {
            // What a build leaves when it has ended.
            engines.retain(|store| !Data::folder(self.n).join(format!("{store}-build-1.json")).is_file());
            return (!engines.is_empty()).then_some(engines);
        }
        Some(engines)
    }
}

/// Runs the steps; one that fails is told of, and the next begins.
pub(crate) fn everything(options: &Everything) -> Result<()> {
    let wanted = |at: &usize| options.steps.is_empty() || options.steps.contains(at);
    let mut todo: Vec<(usize, &Step, Vec<String>)> = Vec::new();
    for (at, step) in (1..).zip(&STEPS).filter(|(at, _)| wanted(at)) {
        let Some(engines) = step.engines(options.fresh) else {
            say(&format!("{at:2} {} {}: built already", step.name, step.n));
            continue;
        };
        let threads = if step.threads > 1 { format!(", {} threads", step.threads) } else { String::new() };
        let who = if engines.is_empty() { "all".to_owned() } else { engines.join(", ") };
        say(&format!("{at:2} {} {}{threads}: {who}; about {} min", step.name, step.n, step.minutes));
        todo.push((at, step, engines));
    }
    say(&format!("about {:.0} minutes on an idle machine", todo.iter().map(|t| t.1.minutes).sum::<f64>()));
    if options.dry {
        return Ok(());
    }
    let start = Instant::now();
    for (at, step, engines) in todo {
        say(&format!("step {at}, {} {}, minute {:.0}", step.name, step.n, start.elapsed().as_secs_f64() / 60.0));
        let one = Options {
            n: step.n,
            engines,
            rounds: step.rounds,
            threads: step.threads,
            cpu: options.cpu,
            python: options.python.clone(),
            out: options.out.clone(),
        };
        // Two threads need two processors, whichever one is pinned to.
        let one = if step.threads > 1 { Options { cpu: 0, ..one } } else { one };
        if let Err(error) = run((step.section)(one)) {
            say(&format!("step {at} failed: {error:#}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ENGINES;

    #[test]
    fn every_step_names_engines_that_there_are() {
        for engine in STEPS.iter().flat_map(|step| step.engines) {
            assert!(ENGINES.iter().any(|e| e.name == *engine || e.store == *engine), "{engine}");
        }
    }
}
