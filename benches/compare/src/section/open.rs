//! A fresh process: time to open, first query, memory to serve; with the files in the page cache, and with none of them there.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};

use super::{Bench, say, spread};
use crate::data::K;
use crate::report::Table;
use crate::worker::{Query, Request, Worker};

/// Walk width of the queries here.
const EF: usize = 64;
/// Queries after the first, with a cold cache.
const FEW: usize = 10;

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let data = &bench.data;
    let title = format!("A fresh process, {} vectors, warm page cache", data.n);
    let head = ["engine", "open ms", "first query ms", "second query ms", "anonymous MB", "mapped MB"];
    let mut table = Table::new(&title, &head);
    let stores: Vec<_> = bench.stores().into_iter().filter(|e| data.store(e.store).is_dir()).collect();
    // Read whole, and mapped where the engine offers it: tintype-index is always mapped, hnswlib never.
    let ways: Vec<_> = stores.iter().flat_map(|&e| [false, true].map(|mapped| (e, mapped))).collect();
    let ways: Vec<_> = ways
        .into_iter()
        .filter(|(e, mapped)| match e.store {
            "tintype-index" => *mapped,
            "hnswlib" => !*mapped,
            _ => true,
        })
        .collect();
    let mut measured = vec![[const { Vec::new() }; 5]; ways.len()];
    let mut cold = vec![[const { Vec::new() }; 3]; ways.len()];
    for round in 0..bench.options.rounds {
        say(&format!("round {round}"));
        for ((&(entry, mapped), values), cold) in ways.iter().zip(&mut measured).zip(&mut cold) {
            let dir = data.store(entry.store);
            let mut query = Query { rows: data.image.rows.clone(), k: K, ef: Some(EF), ..Query::default() };
            query.refine = entry.refine[entry.refine.len() / 2];
            let one = |worker: &mut Worker, at: Vec<usize>| worker.ask(&Request::Query(Query { at, ..query.clone() }));
            forget(&dir)?;
            let mut worker = bench.start(entry)?;
            let open = worker.ask(&Request::Open { dir: dir.clone(), mapped })?;
            let first = one(&mut worker, vec![0])?;
            let next: Vec<usize> = (1..=FEW).collect();
            let few = one(&mut worker, next)?;
            for (values, value) in cold.iter_mut().zip([open.wall, first.wall, few.wall / FEW as f64]) {
                values.push(value);
            }
            drop(worker);
            remember(&dir)?;
            let mut worker = bench.start(entry)?;
            let idle = worker.ask(&Request::Idle)?;
            let open = worker.ask(&Request::Open { dir, mapped })?;
            let (first, second) = (one(&mut worker, vec![0])?, one(&mut worker, vec![1])?);
            let all = one(&mut worker, data.image.reported())?;
            for (values, value) in values.iter_mut().zip([
                open.wall,
                first.wall,
                second.wall,
                all.anonymous - idle.anonymous,
                all.mapped - idle.mapped,
            ]) {
                values.push(value);
            }
        }
    }
    let title = format!("A fresh process, {} vectors, nothing of the index in the page cache", data.n);
    let head = ["engine", "open ms", "first query ms", "each of the next ten, ms"];
    let mut table_cold = Table::new(&title, &head);
    let name = |entry: &crate::engine::Entry, mapped: bool| {
        if mapped { format!("{}, mapped", entry.name) } else { entry.name.to_owned() }
    };
    for (&(entry, mapped), [open, first, few]) in ways.iter().zip(&cold) {
        let cells = [spread(open, 1e3, 1), spread(first, 1e3, 1), spread(few, 1e3, 2)];
        table_cold.row(std::iter::once(name(entry, mapped)).chain(cells));
    }
    for (&(entry, mapped), [open, first, second, anonymous, resident]) in ways.iter().zip(&measured) {
        let cells = [
            spread(open, 1e3, 2),
            spread(first, 1e3, 2),
            spread(second, 1e3, 3),
            spread(anonymous, 1.0, 0),
            spread(resident, 1.0, 0),
        ];
        table.row(std::iter::once(name(entry, mapped)).chain(cells));
    }
    bench.record("open", vec![table, table_cold], |_| ())
}

fn files(path: &Path, each: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    if path.is_file() {
        return each(path);
    }
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        files(&entry?.path(), each)?;
    }
    Ok(())
}

/// Asks the system to drop the files from its page cache. It does where they are synced and nobody has them mapped.
fn forget(dir: &Path) -> Result<()> {
    files(dir, &mut |path| {
        let file = File::open(path)?;
        file.sync_all()?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    })
}

/// Reads the files, so that they are in the page cache.
fn remember(dir: &Path) -> Result<()> {
    files(dir, &mut |path| {
        std::io::copy(&mut File::open(path)?, &mut std::io::sink())?;
        Ok(())
    })
}
