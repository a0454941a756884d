//! Measures what a graph finds at each walk width, on its own data, so that `recall(0.95)` means something.
//!
//! Two kinds of queries. Like the rows: a row with some noise, since a vector that stands in the graph finds its neighbours too easily.
//! From elsewhere, as a text encoder gives for an index of images: sample queries, where there are some; otherwise a row drowned in
//! noise, so that the nearest neighbours are far off and far apart. Recall is counted among codes; the exact re-score mends
//! what codes lose.

use std::collections::HashSet;

use rayon::prelude::*;

use crate::build::Graph;
use crate::error::Result;
use crate::format::{CALIBRATED_EF, CALIBRATED_K};
use crate::graph::{Scratch, Width, spread};
use crate::kernel::{CodeQuery, Line};
use crate::plan::walk_cost;

/// Queries of each kind.
pub(crate) const QUERIES: usize = 120;
/// Candidates that a search for [`CALIBRATED_K`] keeps, however narrow its walk.
const KEPT: usize = 30;
/// Length of the noise in a query like the rows, a row's being 1.
const NEAR_NOISE: f32 = 0.9;
/// And in a query from elsewhere: with six, the curve over the widths is that of 1,203 CLIP texts over 100,000 CLIP images to
/// within a point or two from width 10 to 768. (Sums of a few rows with less noise give curves of another shape.)
const FAR_NOISE: f32 = 6.0;

/// Queries that are measured before it is asked whether to go on, unless there are more threads.
const TOGETHER: usize = 20;

/// Recall@10 at each width: for queries like the rows, then for queries from elsewhere. Zero at widths at which a scan is cheaper.
/// `samples` are queries from elsewhere that did not shape the graph; too few of them, and such queries are made up. `go_on` is asked
/// now and then.
pub(crate) fn measure(
    graph: &Graph<'_>,
    samples: &[CodeQuery],
    go_on: &mut dyn FnMut() -> Result<()>,
) -> Result<[[f32; CALIBRATED_EF.len()]; 2]> {
    let count = graph.records.count;
    let hangs: HashSet<u32> = (0..count).filter_map(|row| graph.records.records().twin(row)).collect();
    let nodes: Vec<u32> = (0..count).filter(|row| !hangs.contains(row)).collect();
    let step = (nodes.len() / QUERIES).max(1);
    let rows: Vec<u32> = nodes.iter().copied().step_by(step).take(QUERIES).collect();
    let useful = CALIBRATED_EF.iter().take_while(|&&ef| walk_cost(ef) < count as usize).count();
    let mut recall = [[0.0; CALIBRATED_EF.len()]; 2];
    for (kind, recall) in recall.iter_mut().enumerate() {
        let noise = if kind == 0 { NEAR_NOISE } else { FAR_NOISE };
        // The row that a query was made of finds itself; it does not count.
        let (queries, own): (Vec<CodeQuery>, Vec<Option<u32>>) = if kind == 1 && samples.len() >= QUERIES / 2 {
            samples.iter().map(|sample| (sample.clone(), None)).unzip()
        } else {
            rows.par_iter().map(|&row| (mix(graph, row, noise), Some(row))).unzip()
        };
        let mut truths = graph.nearest(&queries, &nodes, CALIBRATED_K + 1, go_on)?;
        for (truth, &own) in truths.iter_mut().zip(&own) {
            truth.retain(|&found| Some(found) != own);
            truth.truncate(CALIBRATED_K);
        }
        let asked: Vec<(Option<u32>, &CodeQuery, &Vec<u32>)> =
            own.iter().zip(&queries).zip(&truths).map(|((&own, query), truth)| (own, query, truth)).collect();
        let mut found: Vec<[usize; CALIBRATED_EF.len()]> = Vec::new();
        for asked in asked.chunks(TOGETHER.max(rayon::current_num_threads())) {
            go_on()?;
            let measured = asked.par_iter().map_init(Scratch::default, |scratch, &(own, query, truth)| {
                let mut found = [0; CALIBRATED_EF.len()];
                for (found, &ef) in found.iter_mut().zip(&CALIBRATED_EF[..useful]) {
                    let width = Width { open: ef, keep: KEPT.max(ef) + 1 };
                    graph.walk(query, width, spread(ef, kind == 1), scratch)?;
                    let pool = scratch.pool.iter().filter(|p| Some(p.1) != own).take(CALIBRATED_K);
                    *found = pool.filter(|p| truth.contains(&p.1)).count();
                    if *found == truth.len() {
                        // Wider walks find no less, near enough.
                        break;
                    }
                }
                let mut best = 0;
                found[..useful].iter_mut().for_each(|f| {
                    best = best.max(*f);
                    *f = if best == truth.len() { CALIBRATED_K } else { *f };
                });
                Ok(found)
            });
            found.extend(measured.collect::<Result<Vec<_>>>()?);
        }
        for (at, recall) in recall.iter_mut().enumerate() {
            *recall = found.iter().map(|f| f[at] as f32).sum::<f32>() / (found.len() * CALIBRATED_K) as f32;
        }
    }
    Ok(recall)
}

/// Makes a query of a row and of noise, whose length is `noise` times that of the row.
fn mix(graph: &Graph<'_>, row: u32, noise: f32) -> CodeQuery {
    let records = graph.records.records();
    let mut code = Vec::new();
    records.code(row, &mut code);
    let mut sum: Vec<f32> = code.iter().map(|&c| f32::from(c) - 128.0).collect();
    let own = sum.iter().map(|x| x * x).sum::<f32>().sqrt().max(1.0);
    let length = records.scale(row) * own;
    sum.iter_mut().for_each(|x| *x /= own);
    let mut state = (1 ^ u64::from(row)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    // Uniform noise of deviation 1/√n per number has length 1.
    let amplitude = noise * (12.0 / sum.len() as f32).sqrt();
    for s in &mut sum {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *s += ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * amplitude;
    }
    let largest = sum.iter().fold(1e-9f32, |m, x| m.max(x.abs()));
    let line = |part: &[f32]| {
        let mut line = Line([0; 64]);
        line.0.iter_mut().zip(part).for_each(|(to, x)| *to = (x / largest * 127.0).round() as i8);
        line
    };
    let lines: Vec<Line> = sum.chunks(64).map(line).collect();
    let codes = lines.iter().flat_map(|line| line.0).map(i32::from).sum();
    CodeQuery { lines, sum: codes, scale: graph.encoding.factor() * length * largest / 127.0, offset: 0.0 }
}
