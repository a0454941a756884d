//! When segments are merged, and which.
//!
//! A commit writes one small segment; left alone they would pile up. Small ones are merged as digits carry in a binary counter, so
//! a vector is rewritten about log₂ times before there are enough of them for a graph. Graphs are merged by size in the same
//! spirit: a big graph is left alone until what is to be added is worth a rewrite. Scanning the small ones meanwhile is cheap:
//! the limit is where it costs about as much as a walk through the graph of a large library.

use crate::segment::Part;

/// Vectors without a graph, all together, beyond which a commit builds one.
pub(crate) const FLAT: u32 = if cfg!(fuzzing) { 256 } else { 16_384 };
/// Graphs of fewer vectors are not worth having: scanning their codes is as fast. (A fuzzer wants graphs, not speed.)
pub(crate) const GRAPH: u32 = if cfg!(fuzzing) { 64 } else { 4_096 };
/// Share of removed vectors beyond which a segment is rewritten.
const REMOVED_SHARE: u32 = 3;

/// How many parts at the end, all without a graph, are to be merged with one that is about to be added with `added` vectors.
pub(crate) fn carry(parts: &[Part], added: u32) -> usize {
    let mut sum = u64::from(added);
    let small = |part: &&Part| !part.segment.has_graph() && part.segment.count() < FLAT;
    let carried = parts.iter().rev().take_while(small).take_while(|part| {
        let carries = u64::from(part.live()) <= 2 * sum;
        sum += u64::from(part.live());
        carries
    });
    carried.count()
}

/// The parts to be merged into one graph, by place; empty if nothing is due.
pub(crate) fn due(parts: &[Part]) -> Vec<usize> {
    let flat = || (0..parts.len()).filter(|&at| !parts[at].segment.has_graph());
    let mut sum: u64 = flat().map(|at| u64::from(parts[at].live())).sum();
    let mut chosen: Vec<usize> = Vec::new();
    if sum > FLAT.into() {
        chosen.extend(flat());
        let mut graphs: Vec<usize> = (0..parts.len()).filter(|&at| parts[at].segment.has_graph()).collect();
        graphs.sort_by_key(|&at| parts[at].live());
        for at in graphs {
            if u64::from(parts[at].live()) > 2 * sum {
                break;
            }
            sum += u64::from(parts[at].live());
            chosen.push(at);
        }
    } else {
        // Too much of one segment is gone: rewrite it alone.
        let worn =
            |part: &Part| part.removed.count() > GRAPH && part.removed.count() > part.segment.count() / REMOVED_SHARE;
        chosen.extend((0..parts.len()).find(|&at| worn(&parts[at])));
    }
    chosen.sort_unstable();
    chosen
}

/// The part whose graph is worth taking over into the merge of all: it has half of the vectors, lost few, and its centre was not
/// taken when there were far fewer.
pub(crate) fn stock(parts: &[Part]) -> Option<usize> {
    let total: u64 = parts.iter().map(|part| u64::from(part.live())).sum();
    (0..parts.len()).find(|&at| {
        let part = &parts[at];
        part.segment.has_graph()
            && 2 * u64::from(part.live()) >= total
            && part.removed.count() <= part.segment.count() / 2
            && 4 * u64::from(part.segment.footer.centred) >= total
    })
}
