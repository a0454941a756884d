//! Searches in a part of the vectors: 50, 10, 1 and 0.1 %, drawn at random.
//!
//! The measure is an exact scan of the allowed rows; both scans here know the filter as bits, as every engine does.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Bench, say};
use crate::curve::{Curve, Knob, Point};
use crate::data::{K, exact_worker, recall, uniform};
use crate::engine::{EXACT, SCAN};
use crate::report::Table;
use crate::worker::{Query, Request, Worker};

const PERCENT: [f64; 4] = [50.0, 10.0, 1.0, 0.1];
const EF: [usize; 6] = [16, 32, 64, 128, 256, 512];
const TARGET: f64 = 0.95;
/// Queries of each kind, the reported half of them; peers without a plan for small filters take seconds for one.
const QUERIES: usize = 100;
/// Seconds beyond which a way to ask is not asked again, nor with a wider walk.
const PATIENCE: f64 = 10.0;

/// Other ways to ask tintype-index: the recall, and whether the filter is a closure instead of a set of keys.
const OTHERWISE: [(&str, f64, bool); 2] =
    [("tintype-index, filter as a closure", TARGET, true), ("tintype-index, asked for recall 1", 1.0, false)];

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let data = &bench.data;
    let all: Vec<usize> = (0..data.n).collect();
    let mut exact = exact_worker(&data.base, all.clone(), &bench.options.python)?;
    let mut scan = bench.start(&SCAN)?;
    scan.ask(&Request::Create { dir: data.dir.clone(), capacity: data.n })?;
    scan.ask(&Request::Add { rows: data.base.clone(), at: all, offset: 0 })?;
    let mut engines =
        vec![(&EXACT, exact_worker(&data.base, (0..data.n).collect(), &bench.options.python)?), (&SCAN, scan)];
    for entry in bench.engines() {
        if let Some(worker) = bench.opened(entry)? {
            engines.push((entry, worker));
        }
    }
    let mut tables = Vec::new();
    for queries in data.queries() {
        let mut at = queries.reported();
        at.truncate(QUERIES);
        let title = format!(
            "{} queries under a filter, {} vectors: queries per second at recall@10 {TARGET}",
            queries.name, data.n
        );
        let mut table = Table::new(&title, &["engine", "passes 50 %", "10 %", "1 %", "0.1 %"]);
        let mut rows = vec![Vec::new(); engines.len() + OTHERWISE.len()];
        for percent in PERCENT {
            say(&format!("{} queries, {percent} %", queries.name));
            let filter = data.dir.join(format!("filter-{percent}.bits"));
            fs::write(&filter, bits(data.n, percent))?;
            let query =
                Query { rows: queries.rows.clone(), at: at.clone(), k: K, allowed: Some(filter), ..Query::default() };
            let truth = exact.ask(&Request::Query(query.clone()))?.found;
            let truth: Vec<&[u64]> = truth.iter().map(Vec::as_slice).collect();
            let one =
                |worker: &mut Worker, knob: Knob| point(worker, &query, knob, bench.options.rounds, &data.base, &truth);
            for ((entry, worker), row) in engines.iter_mut().zip(&mut rows) {
                let refine = entry.refine[0];
                let knobs: Vec<Knob> = match entry.store {
                    "faiss-flat" | "scan" => vec![Knob { ef: None, recall: None, refine }],
                    "tintype-index" => vec![Knob { ef: None, recall: Some(TARGET as f32), refine }],
                    _ => EF.map(|ef| Knob { ef: Some(ef), recall: None, refine }).into(),
                };
                let mut curve = Curve { engine: entry.name.into(), queries: queries.name.into(), points: Vec::new() };
                let mut refused = None;
                for knob in knobs {
                    match one(worker, knob) {
                        Ok(point) => curve.points.push(point),
                        Err(error) => refused = Some(error.root_cause().to_string()),
                    }
                    let slow = |p: &Point| p.recall > 0.99 || p.seconds.iter().all(|s| s * at.len() as f64 > PATIENCE);
                    if refused.is_some() || curve.points.last().is_some_and(slow) {
                        break;
                    }
                }
                row.push(match (refused, curve.points.as_slice()) {
                    (Some(refused), _) => refused,
                    // One way to ask: say what came of it.
                    (None, [point]) => said(point),
                    (None, _) => curve.speed(TARGET).to_string(),
                });
            }
            let beside = engines.len();
            let ours = engines.iter_mut().find(|(entry, _)| entry.store == "tintype-index");
            if let Some((_, worker)) = ours {
                for ((_, target, closure), row) in OTHERWISE.into_iter().zip(&mut rows[beside..]) {
                    let query = Query { closure, ..query.clone() };
                    let knob = Knob { ef: None, recall: Some(target as f32), refine: 0 };
                    let point = point(worker, &query, knob, bench.options.rounds, &data.base, &truth)?;
                    row.push(said(&point));
                }
            }
        }
        let names = engines.iter().map(|(entry, _)| entry.name).chain(OTHERWISE.map(|otherwise| otherwise.0));
        for (name, row) in names.zip(rows).filter(|(_, row)| !row.is_empty()) {
            table.row(std::iter::once(name.to_owned()).chain(row));
        }
        tables.push(table);
    }
    bench.record("filter", tables, |_| ())
}

/// What came of one way to ask.
fn said(point: &Point) -> String {
    format!("{:.0} (recall {:.3})", point.qps(), point.recall)
}

/// One bit per key, set for about that share of them.
fn bits(n: usize, percent: f64) -> Vec<u8> {
    let mut state = percent.to_bits();
    let mut bits = vec![0; n.div_ceil(8)];
    for key in 0..n {
        bits[key / 8] |= u8::from(f64::from(uniform(&mut state)) < percent / 100.0) << (key % 8);
    }
    bits
}

fn point(
    worker: &mut Worker,
    query: &Query,
    knob: Knob,
    rounds: usize,
    base: &Path,
    truth: &[&[u64]],
) -> Result<Point> {
    let mut query = query.clone();
    knob.apply(&mut query);
    let mut point = Point { knob, recall: 0.0, seconds: Vec::new() };
    // The first time warms up.
    for round in 0..=rounds {
        let answer = worker.ask(&Request::Query(query.clone()))?;
        let slow = answer.cpu > PATIENCE;
        if round > 0 || slow {
            point.seconds.push(answer.cpu / query.at.len() as f64);
        }
        if round == 0 {
            point.recall = recall(base, &query.rows, &query.at, truth, &answer.found)?;
        }
        if slow {
            break;
        }
    }
    Ok(point)
}
