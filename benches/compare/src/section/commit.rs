//! What it takes to add vectors to a stored index so that they are on disk when the call returns.
//!
//! The peers rewrite their file; a sync and an atomic rename are added for them, without which a crash may cost the index. Time
//! is wall time here, since waiting for the disk is most of it. That the vectors are there is checked in a fresh process.

use std::fs;

use anyhow::{Result, ensure};

use super::{Bench, say, spread};
use crate::data::{Rows, copy, write_rows};
use crate::engine::{DIM, Entry};
use crate::report::Table;
use crate::worker::{Query, Request, Worker};

/// Keys of added vectors start here in every engine that has keys.
const OFFSET: usize = 10_000_000;
const SINGLES_PER_ROUND: usize = 4;
const MANY: usize = 10_000;

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let data = &bench.data;
    let new = data.dir.join("new.f32");
    if !new.exists() {
        let every = data.n.div_ceil(MANY);
        let at: Vec<usize> = (0..data.n).step_by(every).collect();
        let rows: Vec<Vec<f32>> = Rows::open(&data.base)?.read(&at)?.chunks(DIM).map(Vec::from).collect();
        write_rows(&new, (rows.len()..rows.len() + MANY).map(|at| copy(&rows, at)))?;
    }
    let stores: Vec<_> = bench.stores().into_iter().filter(|e| data.store(e.store).is_dir()).collect();
    let mut table = Table::new(
        &format!("A durable commit to a stored index of {} vectors (wall, CPU)", data.n),
        &["engine", "1 vector, ms", "1 vector, CPU ms", "10,000 vectors, s", "10,000 vectors, CPU-s"],
    );
    let mut workers = Vec::new();
    for entry in stores {
        let dir = data.store(entry.store).with_extension("commit");
        copy_dir(&data.store(entry.store), &dir)?;
        let mut worker = bench.start(entry)?;
        worker.ask(&Request::Open { dir: dir.clone(), mapped: false })?;
        workers.push((entry, dir, worker, [Vec::new(), Vec::new()]));
    }
    for round in 0..bench.options.rounds {
        say(&format!("round {round}"));
        for (_, _, worker, [wall, cpu]) in &mut workers {
            for single in 0..SINGLES_PER_ROUND {
                let at = round * SINGLES_PER_ROUND + single;
                let add = worker.ask(&Request::Add { rows: data.image.rows.clone(), at: vec![at], offset: OFFSET })?;
                let commit = worker.ask(&Request::Commit)?;
                wall.push(add.wall + commit.wall);
                cpu.push(add.cpu + commit.cpu);
            }
        }
    }
    for (entry, dir, mut worker, [wall, cpu]) in workers {
        let add = worker.ask(&Request::Add { rows: new.clone(), at: (0..MANY).collect(), offset: 2 * OFFSET })?;
        let commit = worker.ask(&Request::Commit)?;
        drop(worker);
        check(bench, entry, dir)?;
        let many = [add.wall + commit.wall, add.cpu + commit.cpu].map(|s| format!("{s:.2}"));
        table.row([entry.name.to_owned(), spread(&wall, 1e3, 1), spread(&cpu, 1e3, 1)].into_iter().chain(many));
    }
    bench.record("commit", vec![table], |_| ())
}

/// A fresh process finds the first vector that was added.
fn check(bench: &Bench, entry: &Entry, dir: std::path::PathBuf) -> Result<()> {
    let mut worker: Worker = bench.start(entry)?;
    worker.ask(&Request::Open { dir: dir.clone(), mapped: false })?;
    let query = Query { rows: bench.data.image.rows.clone(), at: vec![0], k: 1, ef: Some(256), ..Query::default() };
    let found = worker.ask(&Request::Query(query))?.found;
    // faiss numbers rows by their place instead.
    let keys = [OFFSET as u64, bench.data.n as u64];
    ensure!(found[0].iter().any(|key| keys.contains(key)), "{}: the added vector is not found: {found:?}", entry.name);
    Ok(fs::remove_dir_all(dir)?)
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
