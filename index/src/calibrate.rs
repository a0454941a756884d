//! Measures what a graph finds at each walk width, on its own data, so that `recall(0.95)` means something.
//!
//! Two kinds of queries: vectors of the index itself, and vectors from elsewhere, as a text encoder gives for an index of images.
//! The latter are made up: a vector of the index, mostly drowned in a direction of no meaning, which makes a query whose nearest
//! neighbours are far and far apart. Recall is counted among codes; the exact re-score mends what codes lose.

use std::collections::HashSet;

use rayon::prelude::*;

use crate::build::Graph;
use crate::error::Result;
use crate::format::CALIBRATED_EF;
use crate::graph::Scratch;
use crate::kernel::CodeQuery;

/// Queries of each kind.
const QUERIES: u32 = 100;
/// Neighbours per query.
const K: usize = 10;

/// Recall@10 at each width: for queries like the rows, then for queries from elsewhere.
pub(crate) fn measure(graph: &Graph<'_>) -> Result<[[f32; CALIBRATED_EF.len()]; 2]> {
    let count = graph.records.count;
    let hangs: HashSet<u32> = (0..count).filter_map(|row| graph.records.records().twin(row)).collect();
    let nodes: Vec<u32> = (0..count).filter(|row| !hangs.contains(row)).collect();
    let step = (nodes.len() / QUERIES as usize).max(1);
    let rows: Vec<u32> = nodes.iter().copied().step_by(step).take(QUERIES as usize).collect();
    let mut recall = [[0.0; CALIBRATED_EF.len()]; 2];
    for (kind, recall) in recall.iter_mut().enumerate() {
        let found: Vec<[usize; CALIBRATED_EF.len()]> = rows
            .par_iter()
            .map_init(Scratch::default, |scratch, &row| {
                let mut query = CodeQuery::default();
                graph.query_of(row, &mut query);
                if kind == 1 {
                    estrange(&mut query, row);
                }
                let truth = nearest(graph, &nodes, &query, row);
                let mut found = [0; CALIBRATED_EF.len()];
                for (found, &ef) in found.iter_mut().zip(&CALIBRATED_EF) {
                    graph.walk(&query, ef + 1, scratch)?;
                    // The row that the query was made of finds itself; it does not count.
                    let pool = scratch.pool.iter().filter(|p| p.1 != row).take(K);
                    *found = pool.filter(|p| truth.contains(&p.1)).count();
                    if *found == truth.len() {
                        // Wider walks find no less, near enough.
                        break;
                    }
                }
                let mut best = 0;
                found.iter_mut().for_each(|f| {
                    best = best.max(*f);
                    *f = if best == truth.len() { K } else { *f };
                });
                Ok(found)
            })
            .collect::<Result<_>>()?;
        for (at, recall) in recall.iter_mut().enumerate() {
            *recall = found.iter().map(|f| f[at] as f32).sum::<f32>() / (found.len() * K) as f32;
        }
    }
    Ok(recall)
}

/// The nearest nodes among all, by code.
fn nearest(graph: &Graph<'_>, nodes: &[u32], query: &CodeQuery, without: u32) -> HashSet<u32> {
    let records = graph.records.records();
    let rows: Vec<u32> = nodes.iter().copied().filter(|&row| row != without).collect();
    let mut scores = vec![0.0; rows.len()];
    graph.kernels.scores(query, &records, &rows, &mut scores);
    let mut scored: Vec<(f32, u32)> = scores.into_iter().zip(rows).collect();
    let k = K.min(scored.len());
    if k < scored.len() {
        scored.select_nth_unstable_by(k, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    }
    scored.into_iter().take(k).map(|s| s.1).collect()
}

/// Drowns a query in noise: one part signal, five parts a direction of no meaning.
fn estrange(query: &mut CodeQuery, seed: u32) {
    let mut state = u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let energy: i64 = query.lines.iter().flat_map(|l| l.0).map(|c| i64::from(c).pow(2)).sum();
    let numbers = query.lines.len() * 64;
    let amplitude = (energy as f64 / numbers as f64).sqrt() * 5.0 * 3f64.sqrt();
    let mut mixed: Vec<f64> = Vec::with_capacity(numbers);
    for code in query.lines.iter().flat_map(|l| l.0) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let noise = (state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0;
        mixed.push(f64::from(code) + noise * amplitude);
    }
    let largest = mixed.iter().fold(1e-9f64, |m, x| m.max(x.abs()));
    let mut sum = 0;
    for (code, x) in query.lines.iter_mut().flat_map(|l| l.0.iter_mut()).zip(mixed) {
        *code = (x / largest * 127.0).round() as i8;
        sum += i32::from(*code);
    }
    query.sum = sum;
}
