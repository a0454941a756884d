//! A fresh process: time to open, first query, memory to serve.

use anyhow::Result;

use super::{Bench, say, spread};
use crate::data::K;
use crate::report::Table;
use crate::worker::{Query, Request};

/// Walk width of the queries here.
const EF: usize = 64;

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
    for round in 0..bench.options.rounds {
        say(&format!("round {round}"));
        for (&(entry, mapped), values) in ways.iter().zip(&mut measured) {
            let mut worker = bench.start(entry)?;
            let idle = worker.ask(&Request::Idle)?;
            let mut query = Query { rows: data.image.rows.clone(), k: K, ef: Some(EF), ..Query::default() };
            query.refine = entry.refine[entry.refine.len() / 2];
            let open = worker.ask(&Request::Open { dir: data.store(entry.store), mapped })?;
            let mut one = |at: Vec<usize>| {
                query.at = at;
                worker.ask(&Request::Query(query.clone()))
            };
            let (first, second) = (one(vec![0])?, one(vec![1])?);
            let all = one(data.image.reported())?;
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
    for (&(entry, mapped), [open, first, second, anonymous, resident]) in ways.iter().zip(&measured) {
        let name = if mapped { format!("{}, mapped", entry.name) } else { entry.name.into() };
        let cells = [
            spread(open, 1e3, 2),
            spread(first, 1e3, 2),
            spread(second, 1e3, 3),
            spread(anonymous, 1.0, 0),
            spread(resident, 1.0, 0),
        ];
        table.row(std::iter::once(name).chain(cells));
    }
    bench.record("open", vec![table], |_| ())
}
