//! tintype-index beside its peers: the same vectors, the same queries, the same pinned thread.
//!
//! Every engine lives in a process of its own and answers the same few requests ([`worker`]); it times itself with its
//! process CPU clock, so that what else runs on the machine is not counted. One process for all engines was rejected: resident
//! memory could not be told apart, and the Python peers need their own anyway. Sections take turns between engines and repeat
//! in rounds; a table shows medians.

mod all;
mod clock;
mod curve;
mod data;
mod engine;
mod plot;
mod report;
mod section;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use data::Data;
use section::Bench;

#[derive(Parser)]
#[command(about = "tintype-index beside its peers: same vectors, same queries, same thread")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build time, size on disk; leaves the indexes that the other sections use
    Build(Options),
    /// Recall against queries per second
    Search(Options),
    /// Time to open, first query of a fresh process, resident memory
    Open(Options),
    /// A durable commit of one vector and of 10,000
    Commit(Options),
    /// Recall after a third of the vectors was replaced, beside a fresh build
    Churn(Options),
    /// Filters that pass 50, 10, 1 and 0.1 %
    Filter(Options),
    /// All of these at 10,000, 99,000 and a million vectors
    All(all::Everything),
    /// Writes the Markdown and the plots anew from the measurements in the results folder
    Report(Options),
    #[command(hide = true)]
    Worker { engine: String, threads: usize, cpus: String },
}

/// What every section understands.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Vectors in the index: fewer than 99,000 are a sample, more are jittered copies
    #[arg(long, default_value_t = 99_000)]
    n: usize,
    /// Only these engines, separated by commas
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// How often everything is measured, engines taking turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads of a build
    #[arg(long, default_value_t = 1)]
    threads: usize,
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

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let (section, options): (fn(&Bench) -> Result<()>, Options) = match command {
        Command::Build(o) => (section::build::run, o),
        Command::Search(o) => (section::search::run, o),
        Command::Open(o) => (section::open::run, o),
        Command::Commit(o) => (section::commit::run, o),
        Command::Churn(o) => (section::churn::run, o),
        Command::Filter(o) => (section::filter::run, o),
        Command::Report(o) => (|_| Ok(()), o),
        Command::All(o) => return all::everything(&o),
        Command::Worker { engine, threads, cpus } => return worker::serve(&engine, threads, &cpus),
    };
    let Some(data) = Data::prepare(options.n, &options.python)? else {
        eprintln!("compare: skipped, there is no ../shared/data/clip-vectors; TINTYPE_TEST_DATA may name its `shared`");
        return Ok(());
    };
    let bench = Bench::new(options, data)?;
    section(&bench)?;
    report::write(&bench.out)
}
