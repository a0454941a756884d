//! Which way to search a part: walk the graph or scan the codes.
//!
//! The unit of cost is one code read in sequence. The constants were measured on 100,000 embeddings of 512 numbers; they are
//! ratios between kinds of memory access and move little between machines.

use crate::format::{CALIBRATED_EF, CALIBRATED_K};
use crate::graph::spread;
use crate::segment::Part;

/// How hard to look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Width of the walk, as given.
    Ef(usize),
    /// Share of the true neighbours.
    Recall(f32),
    /// All of them, proven.
    Exact,
}

/// Cost of one distance during a walk: a random access instead of a sequential one, but to half a code. Measured, about 1 with everything
/// in memory (2 when walks read whole codes); a walk through a file that is not loses far more than a scan, so more.
const WALK: usize = 3;
/// Distances that a walk computes per unit of width, and before the width matters.
const PER_EF: usize = 11;
const ENTRY: usize = 200;
/// Cost of asking a filter about one row, in tenths.
const ASK_TENTHS: usize = 5;
/// Cost of looking up the row of a key.
const LOOK_UP: usize = 30;
/// Deviations below the mean bias at which a query counts as coming from elsewhere: of 10,000 CLIP images none lies so low but a
/// handful (3), of the even half of 1,203 CLIP texts all do (the highest at 4.5), and so does the odd half.
const ELSEWHERE: f32 = 4.2;

/// Share of the allowed misses that is planned for. Real queries are a little harder than those that the graph was measured with:
/// planned without caution, 0.95 came out as 0.94 on CLIP texts, and between 0.93 and 0.96 on CLIP images, by which were left out. With
/// it, 0.90, 0.95 and 0.99 come out as 0.93, 0.96 and 1.00 on the even half of the texts among 10,000 images, as 0.91, 0.95 and 1.00
/// among 99,000 and as 0.96, 0.98 and 1.00 among 300,000, jittered copies among them; on the odd half up to 1.3 points more.
const CAUTION: f32 = 0.72;

/// Cost of a walk of a width.
pub(crate) fn walk_cost(ef: usize) -> usize {
    PER_EF.saturating_mul(ef).saturating_add(ENTRY).saturating_mul(WALK)
}

/// What to do with a part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plan {
    Scan,
    Walk(Walk),
}

/// A walk through a graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Walk {
    pub(crate) ef: usize,
    /// Give up and scan after so many distances.
    pub(crate) budget: usize,
    /// Entries to the ground.
    pub(crate) spread: usize,
}

/// Whether a query does not lie among rows of that mean bias and deviation: its own bias places it relative to them.
pub(crate) fn elsewhere(bias: f32, mean: f32, deviation: f32) -> bool {
    bias < mean - ELSEWHERE * deviation
}

/// The width that reaches a recall, by the calibration of the segment; `None` if no width that was tried does.
fn width(part: &Part, recall: f32, elsewhere: bool) -> Option<usize> {
    let measured = &part.segment.footer.recall[usize::from(elsewhere)];
    let recall = 1.0 - (1.0 - recall) * CAUTION;
    let at = measured.iter().position(|&r| r >= recall)?;
    let Some(before) = at.checked_sub(1) else { return Some(CALIBRATED_EF[0]) };
    // Between two measured widths recall grows about with the logarithm of the width.
    let (low, high) = (measured[before], measured[at]);
    let part = ((recall - low) / (high - low)).clamp(0.0, 1.0);
    let (from, to) = (CALIBRATED_EF[before] as f32, CALIBRATED_EF[at] as f32);
    Some((from * (to / from).powf(part)).ceil() as usize)
}

/// The width at which the first `k` are found as the first [`CALIBRATED_K`] are at `ef`. On CLIP images, with images, noisy images
/// and texts as queries, for 20 to 200 neighbours, the measured widths lie within a fifth of it: few more where the walk is wide,
/// room for the neighbours themselves where it is narrow.
fn widened(ef: usize, k: usize) -> usize {
    let k = k.max(CALIBRATED_K) as f32;
    (ef as f32 * (k / CALIBRATED_K as f32).powf(0.25) + 0.7 * (k - CALIBRATED_K as f32)).ceil() as usize
}

/// Whether to look up so many keys instead of asking for every row whether its key is among them.
pub(crate) fn listing_pays(part: &Part, keys: usize) -> bool {
    keys.saturating_mul(LOOK_UP) < part.segment.count() as usize * ASK_TENTHS / 10
}

/// Decides. `passing` is the share of rows that may be found; `bias` places the query relative to the rows.
pub(crate) fn plan(part: &Part, target: Target, k: usize, passing: f32, filtered: bool, bias: f32) -> Plan {
    let count = part.segment.count() as usize;
    if !part.segment.has_graph() || target == Target::Exact || passing <= 0.0 {
        return Plan::Scan;
    }
    let footer = &part.segment.footer;
    let elsewhere = elsewhere(bias, footer.bias_mean, footer.bias_deviation);
    let ef = match target {
        Target::Ef(ef) => Some(ef),
        Target::Recall(recall) => width(part, recall, elsewhere).map(|ef| widened(ef, k)),
        Target::Exact => None,
    };
    // More than all are never expanded.
    let Some(ef) = ef.map(|ef| ef.max(k.div_ceil(2)).min(count)) else { return Plan::Scan };
    let ask = if filtered { count * ASK_TENTHS / 10 } else { 0 };
    let scan = ask + (passing * count as f32) as usize;
    let walk = walk_cost((ef as f32 / passing) as usize);
    if walk < scan || cfg!(fuzzing) {
        Plan::Walk(Walk { ef, budget: 2 * scan / WALK, spread: spread(ef, elsewhere) })
    } else {
        Plan::Scan
    }
}
