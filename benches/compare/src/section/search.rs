//! Recall against queries per second.
//!
//! A short round on even queries finds the ways to ask that are worth it: how wide a walk still gains, which refinement beats
//! which. What is reported is measured on the odd queries, engines taking turns.

use anyhow::Result;

use super::{Bench, ask, say};
use crate::curve::{Curve, Knob};
use crate::engine::{Entry, OURS, SAMPLED};
use crate::report::Table;
use crate::worker::Worker;

/// From widths that miss one of ten on: no cell is the edge of a curve then.
const EF: [usize; 19] = [3, 4, 5, 6, 8, 10, 16, 24, 40, 64, 100, 160, 250, 400, 640, 1024, 1700, 2700, 4300];
/// The recalls that tintype-index is asked for by name.
const ASKED: [f32; 4] = [0.9, 0.95, 0.99, 1.0];
/// A wider walk than one that finds this much is not tried.
const ENOUGH: f64 = 0.996;
/// Queries that are tuned on.
const TUNING: usize = 200;
pub(crate) const TARGETS: [f64; 3] = [0.9, 0.95, 0.99];

struct Contender {
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
            contenders.push(Contender { worker, curves: curves.into_iter().collect::<Result<_>>()? });
        }
    }
    for round in 0..bench.options.rounds {
        say(&format!("round {round}"));
        for Contender { worker, curves, .. } in &mut contenders {
            for (queries, curve) in bench.data.queries().into_iter().zip(curves) {
                for point in &mut curve.points {
                    let again = ask(worker, &bench.data, queries, &queries.reported(), point.knob)?;
                    point.recall = again.recall;
                    point.seconds.extend(again.seconds);
                }
            }
        }
    }
    let curves: Vec<Curve> = contenders.into_iter().flat_map(|c| c.curves).collect();
    // Its tables are made of the curves where they are shown, so that no cell can say anything else.
    bench.record("search", Vec::new(), |outcome| outcome.curves = curves)
}

/// CPU seconds of a query at each recall, as `what/engine`.
pub(crate) fn costs(curves: &[Curve]) -> impl Iterator<Item = (String, f64)> + '_ {
    let cost = |curve: &Curve, target: f64| {
        let seconds = 1.0 / curve.speed(target).qps()?;
        Some((format!("{} query CPU-s at {target}/{}", curve.queries, curve.engine), seconds))
    };
    curves.iter().flat_map(move |curve| TARGETS.into_iter().filter_map(move |target| cost(curve, target)))
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
    if entry.store == OURS {
        knobs.extend(ASKED.map(|recall| Knob { ef: None, recall: Some(recall), refine: 0 }));
    }
    curve.points =
        knobs.into_iter().map(|knob| crate::curve::Point { knob, recall: 0.0, seconds: Vec::new() }).collect();
    Ok(curve)
}

/// What curves over so many vectors say.
pub(crate) fn tables(n: usize, curves: &[Curve]) -> Vec<Table> {
    vec![speeds(n, curves), asked(n, curves)]
}

fn speeds(n: usize, curves: &[Curve]) -> Table {
    let title = format!("Queries per second on one thread at recall@10, {n} vectors");
    let head = ["engine", "image 0.90", "image 0.95", "image 0.99", "text 0.90", "text 0.95", "text 0.99"];
    let mut table = Table::new(&title, &head);
    let engines: Vec<&[Curve]> = curves.chunk_by(|a, b| a.engine == b.engine).collect();
    let cells = |of: &[Curve]| of.iter().flat_map(|curve| TARGETS.map(|t| curve.speed(t))).collect::<Vec<_>>();
    for of in &engines {
        let spreads = of.iter().flat_map(|curve| TARGETS.map(|t| curve.spread(t)));
        let text = cells(of)
            .iter()
            .zip(spreads)
            .map(|(cell, spread)| match spread {
                Some(spread) => format!("{cell} (±{:.0} %)", 50.0 * spread),
                None => cell.to_string(),
            })
            .collect::<Vec<_>>();
        table.row(std::iter::once(of[0].engine.clone()).chain(text));
    }
    let (ours, mut peers): (Vec<&[Curve]>, Vec<&[Curve]>) =
        engines.iter().copied().partition(|of| of[0].engine == OURS);
    peers.retain(|of| of[0].engine != SAMPLED);
    if let Some(ours) = ours.first().filter(|_| !peers.is_empty()) {
        let ratios = cells(ours).into_iter().enumerate().map(|(at, ours)| {
            let best = peers.iter().filter_map(|peer| Some((cells(peer).get(at)?.qps()?, peer[0].engine.as_str())));
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
fn asked(n: usize, curves: &[Curve]) -> Table {
    let title = format!("tintype-index asked for a recall instead of a width, {n} vectors");
    let mut table = Table::new(&title, &["queries", "asked", "recall@10", "queries per second"]);
    for curve in curves.iter().filter(|c| c.engine == OURS) {
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
