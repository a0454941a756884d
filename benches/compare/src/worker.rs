//! The requests that an engine's process answers, and both ends of the line.
//!
//! A request is one line of JSON, and so is its answer. Vectors and filters go through files that the worker reads before its
//! stopwatch runs. Lines that are no answer are passed over, since some engines print.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::clock::{Stopwatch, busiest, memory, pin};
use crate::data::Rows;
use crate::engine::{DIM, Engine, Entry, How, new};

/// Rows that are in memory at a time while an index is filled.
const BLOCK: usize = 10_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Does nothing: the answer tells what memory a process without an index has.
    Idle,
    Create {
        dir: PathBuf,
        capacity: usize,
    },
    Open {
        dir: PathBuf,
        mapped: bool,
    },
    /// Adds rows of a file; a key is the row's number plus `offset`.
    Add {
        rows: PathBuf,
        at: Vec<usize>,
        offset: usize,
    },
    Remove {
        keys: Vec<u64>,
    },
    Commit,
    Compact,
    Query(Query),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Query {
    pub(crate) rows: PathBuf,
    pub(crate) at: Vec<usize>,
    pub(crate) k: usize,
    pub(crate) ef: Option<usize>,
    pub(crate) recall: Option<f32>,
    pub(crate) refine: usize,
    pub(crate) allowed: Option<PathBuf>,
    /// Whether the filter is a closure, where the engine has another way to say the same.
    pub(crate) closure: bool,
}

/// What a worker says back.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Seconds of process CPU time, and of wall time.
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
    /// CPU seconds that the busiest thread took during the request.
    pub(crate) busiest: f64,
    /// Resident memory after the request in MB: anonymous, and mapped from files.
    pub(crate) anonymous: f64,
    pub(crate) mapped: f64,
    /// Keys, per query.
    pub(crate) found: Vec<Vec<u64>>,
    pub(crate) error: Option<String>,
}

/// Answers requests on standard input until it ends.
pub(crate) fn serve(store: &str, threads: usize, cpus: &str) -> Result<()> {
    pin(cpus)?;
    let mut engine = new(store, threads)?;
    for line in std::io::stdin().lock().lines() {
        let answer = answer(engine.as_mut(), serde_json::from_str(&line?)?);
        let answer = answer.unwrap_or_else(|e| Answer { error: Some(format!("{e:#}")), ..Answer::default() });
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
    }
    Ok(())
}

fn answer(engine: &mut dyn Engine, request: Request) -> Result<Answer> {
    let mut watch = Stopwatch::default();
    let before = busiest()?;
    let mut found = Vec::new();
    match request {
        Request::Idle => {}
        Request::Create { dir, capacity } => watch.time(|| engine.create(&dir, capacity))?,
        Request::Open { dir, mapped } => watch.time(|| engine.open(&dir, mapped))?,
        Request::Add { rows, at, offset } => {
            let rows = Rows::open(&rows)?;
            for at in at.chunks(BLOCK) {
                let block = rows.read(at)?;
                let keys: Vec<u64> = at.iter().map(|row| (row + offset) as u64).collect();
                watch.time(|| engine.add(&keys, &block))?;
            }
        }
        Request::Remove { keys } => watch.time(|| engine.remove(&keys))?,
        Request::Commit => watch.time(|| engine.commit())?,
        Request::Compact => watch.time(|| engine.compact())?,
        Request::Query(query) => {
            let rows = Rows::open(&query.rows)?.read(&query.at)?;
            let allowed = query.allowed.map(std::fs::read).transpose()?;
            let (allowed, closure) = (allowed.as_deref(), query.closure);
            let how = How { k: query.k, ef: query.ef, recall: query.recall, allowed, closure };
            let rows = rows.chunks_exact(DIM);
            engine.prepare(allowed);
            found = watch.time(|| rows.map(|row| engine.search(row, &how)).collect::<Result<_>>())?;
        }
    }
    let (anonymous, mapped) = memory()?;
    let (cpu, wall) = (watch.cpu.as_secs_f64(), watch.wall.as_secs_f64());
    Ok(Answer { cpu, wall, busiest: busiest()? - before, anonymous, mapped, found, error: None })
}

/// An engine's process, seen from outside. It ends when this is dropped.
pub(crate) struct Worker {
    name: &'static str,
    child: Child,
    /// Taken on drop: the end of its input is what ends the worker.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    pub(crate) fn start(entry: &Entry, python: &Path, threads: usize, cpus: &str) -> Result<Worker> {
        let mut command = if entry.python {
            let mut command = Command::new(python);
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers.py"));
            command
        } else {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("worker");
            command
        };
        command.args([entry.store, &threads.to_string(), cpus]);
        command.env("RAYON_NUM_THREADS", threads.to_string()).env("OMP_NUM_THREADS", threads.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = Some(child.stdin.take().context("no pipe to the worker")?);
        let output = BufReader::new(child.stdout.take().context("no pipe from the worker")?);
        Ok(Worker { name: entry.name, child, input, output })
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Answer> {
        let input = self.input.as_mut().context("the worker was told to end")?;
        writeln!(input, "{}", serde_json::to_string(request)?)?;
        input.flush()?;
        let mut line = String::new();
        while self.output.read_line(&mut line)? > 0 {
            if let Ok(answer) = serde_json::from_str::<Answer>(&line) {
                return match answer.error {
                    Some(error) => bail!("{}: {error}", self.name),
                    None => Ok(answer),
                };
            }
            line.clear();
        }
        bail!("{}: its process ended", self.name)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.input = None;
        // A worker that will not end has nothing left to say.
        let _ = self.child.wait();
    }
}
