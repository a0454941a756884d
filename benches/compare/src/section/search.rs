//! Recall against queries per second.
//!
//! A short round on even queries finds the ways to ask that are worth it: how wide a walk still gains, which refinement beats
//! which. What is reported is measured on the odd queries, engines taking turns.

use anyhow::Result;

use super::{Bench, ask, say};
use crate::curve::{Curve, Knob};
use crate::engine::Entry;
use crate::report::Table;
use crate::worker::Worker;

const EF: [usize; 16] = [6, 8, 10, 16, 24, 40, 64, 100, 160, 250, 400, 640, 1024, 1700, 2700, 4300];
/// The recalls that tintype-index is asked for by name.
const ASKED: [f32; 4] = [0.9, 0.95, 0.99, 1.0];
/// A wider walk than one that finds this much is not tried.
const ENOUGH: f64 = 0.996;
/// Queries that are tuned on.
const TUNING: usize = 200;
pub(crate) const TARGETS: [f64; 3] = [0.9, 0.95, 0.99];

struct Contender {
    entry: &'static Entry,
    worker: Worker,
    /// As the queries of the data: image, text.
    curves: Vec<Curve>,
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let mut contenders = Vec::new();
    for entry in bench.engines() {
        if let Some(mut worker) = bench.opened(entry)? {
            say(&format!("{}: tuning", entry.name));
            let curves = bench.data.queries().map(|q| tune(bench, entry, &mut worker, q));
            contenders.push(Contender { entry, worker, curves: curves.into_iter().collect::<Result<_>>()? });
        }
    }
    for round in 0..bench.options.rounds {
        say(&format!("round {round}"));
        for Contender { worker, curves, .. } in &mut contenders {
            for (queries, curve) in bench.data.queries().into_iter().zip(curves) {
                // What the caches hold at first is another engine's.
                if let Some(first) = curve.points.first() {
                    ask(worker, &bench.data, queries, &queries.reported(), first.knob)?;
                }
                for point in &mut curve.points {
                    let again = ask(worker, &bench.data, queries, &queries.reported(), point.knob)?;
                    point.recall = again.recall;
                    point.seconds.extend(again.seconds);
                }
            }
        }
    }
    let curves: Vec<Curve> = contenders.iter().flat_map(|c| c.curves.clone()).collect();
    let tables = vec![speeds(bench, &contenders), asked(bench, &contenders)];
    bench.record("search", tables, |outcome| {
        for curve in &curves {
            for target in TARGETS {
                if let Some(qps) = curve.speed(target).qps() {
                    outcome
                        .numbers
                        .insert(format!("{} query CPU-s at {target}/{}", curve.queries, curve.engine), 1.0 / qps);
                }
            }
        }
        outcome.curves = curves;
    })
}

/// The ways to ask that are worth it, without their times.
fn tune(bench: &Bench, entry: &Entry, worker: &mut Worker, queries: &crate::data::Queries) -> Result<Curve> {
    let mut at = queries.tuning();
    at.truncate(TUNING);
    let mut curve = Curve { engine: entry.name.into(), queries: queries.name.into(), points: Vec::new() };
    if let Some(&refine) = entry.refine.first() {
        let knob = Knob { ef: Some(refine.max(EF[0])), recall: None, refine };
        ask(worker, &bench.data, queries, &at, knob)?;
    }
    for &refine in entry.refine {
        for ef in EF.into_iter().filter(|&ef| ef >= refine) {
            let knob = Knob { ef: Some(ef), recall: None, refine };
            curve.points.push(ask(worker, &bench.data, queries, &at, knob)?);
            if curve.points.last().is_some_and(|p| p.recall > ENOUGH) {
                break;
            }
        }
    }
    let mut knobs = curve.promising();
    if entry.store == "tintype-index" {
        knobs.extend(ASKED.map(|recall| Knob { ef: None, recall: Some(recall), refine: 0 }));
    }
    curve.points =
        knobs.into_iter().map(|knob| crate::curve::Point { knob, recall: 0.0, seconds: Vec::new() }).collect();
    Ok(curve)
}

fn speeds(bench: &Bench, contenders: &[Contender]) -> Table {
    let title = format!("Queries per second on one thread at recall@10, {} vectors", bench.data.n);
    let head = ["engine", "image 0.90", "image 0.95", "image 0.99", "text 0.90", "text 0.95", "text 0.99"];
    let mut table = Table::new(&title, &head);
    let cells = |c: &Contender| c.curves.iter().flat_map(|curve| TARGETS.map(|t| curve.speed(t))).collect::<Vec<_>>();
    for c in contenders {
        let spreads = c.curves.iter().flat_map(|curve| TARGETS.map(|t| curve.spread(t)));
        let text = cells(c)
            .iter()
            .zip(spreads)
            .map(|(cell, spread)| match spread {
                Some(spread) => format!("{cell} (±{:.0} %)", 50.0 * spread),
                None => cell.to_string(),
            })
            .collect::<Vec<_>>();
        table.row(std::iter::once(c.entry.name.to_owned()).chain(text));
    }
    let (ours, peers): (Vec<_>, Vec<_>) = contenders.iter().partition(|c| c.entry.store == "tintype-index");
    if let Some(ours) = ours.first() {
        let ratios = cells(ours).into_iter().enumerate().map(|(at, ours)| {
            let best = peers.iter().filter_map(|peer| Some((cells(peer)[at].qps()?, peer.entry.name)));
            match (ours.qps(), best.max_by(|a, b| a.0.total_cmp(&b.0))) {
                (Some(ours), Some((best, name))) => format!("{:.2} × {name}", ours / best),
                (Some(_), None) => "no peer reaches it".into(),
                (None, Some((_, name))) => format!("lost to {name}"),
                (None, None) => "nobody reaches it".into(),
            }
        });
        table.row(std::iter::once("tintype-index / best peer".to_owned()).chain(ratios));
    }
    table
}

/// What comes of asking tintype-index for a recall by name.
fn asked(bench: &Bench, contenders: &[Contender]) -> Table {
    let title = format!("tintype-index asked for a recall instead of a width, {} vectors", bench.data.n);
    let mut table = Table::new(&title, &["queries", "asked", "recall@10", "queries per second"]);
    for curve in contenders.iter().filter(|c| c.entry.store == "tintype-index").flat_map(|c| &c.curves) {
        for point in &curve.points {
            if let Some(asked) = point.knob.recall {
                let cells = [
                    curve.queries.clone(),
                    asked.to_string(),
                    format!("{:.4}", point.recall),
                    format!("{:.0}", point.qps()),
                ];
                table.row(cells);
            }
        }
    }
    table
}
