//! When segments are merged, and which.
//!
//! A commit writes one small segment; left alone they would pile up. Small ones are merged as digits carry in a binary counter, so
//! a vector is rewritten about log₂ times before there are enough of them for a graph. Graphs are merged by size in the same
//! spirit: a big graph is left alone until what is to be added is worth a rewrite. Scanning the small ones meanwhile is cheap:
//! the limit is where it costs about as much as a walk through the graph of a large library. A small library has its first graph sooner:
//! among 4,600 CLIP images with one, three times as many queries were answered per second as by scanning their codes.

use crate::segment::Part;
use crate::vectors::Shape;

/// From how many vectors on what is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fold {
    /// Vectors without a graph, all together, beyond which a commit builds one, however large the graphs are.
    pub(crate) flat: u32,
    /// Graphs of fewer vectors are not worth having: scanning their codes is as fast.
    pub(crate) graph: u32,
    /// No graph is made with more vectors: it is built in memory.
    pub(crate) most: u32,
}

impl Default for Fold {
    fn default() -> Fold {
        // A fuzzer wants graphs, not speed.
        let (flat, graph) = if cfg!(fuzzing) { (256, 64) } else { (16_384, 4_096) };
        Fold { flat, graph, most: u32::MAX }
    }
}

/// Bytes per vector while a graph is built: the record; the links of one that is taken over, as a list that grew by doubling, with
/// what allocators add; and what is sorted, marked and counted on the way.
fn building(shape: Shape) -> u64 {
    (shape.stride + 8 * shape.links + 104) as u64
}

/// Share of removed vectors beyond which a segment is rewritten.
const REMOVED_SHARE: u32 = 3;

impl Fold {
    /// As it is, but for graphs that are built in so many bytes. With fewer than twice what may be without a graph there would be
    /// more graphs than they are worth.
    pub(crate) fn within(self, bytes: u64, shape: Shape) -> Fold {
        let most = u32::try_from(bytes / building(shape)).unwrap_or(u32::MAX);
        Fold { most: most.max(self.flat.saturating_mul(2)), ..self }
    }

    /// How many parts at the end, all without a graph and none of them `taken` by a merge under way, are to be merged with one
    /// that is about to be added with `added` vectors.
    pub(crate) fn carry(self, parts: &[Part], added: u32, taken: impl Fn(&Part) -> bool) -> usize {
        let mut sum = u64::from(added);
        let small = |part: &&Part| !part.segment.has_graph() && part.segment.count() < self.flat && !taken(part);
        let carried = parts.iter().rev().take_while(small).take_while(|part| {
            let live = u64::from(part.live());
            let carries = live <= 2 * sum && sum + live <= u64::from(self.most);
            sum += live;
            carries
        });
        carried.count()
    }

    /// How many vectors may be without a graph: few while the graphs are small and soon built anew.
    fn limit(self, parts: &[Part]) -> u32 {
        let graphs = parts.iter().filter(|part| part.segment.has_graph());
        let linked: u64 = graphs.map(|part| u64::from(part.live())).sum();
        u32::try_from(linked / 2).unwrap_or(u32::MAX).max(self.graph).min(self.flat)
    }

    /// The parts to be merged into one graph, by place; empty if nothing is due.
    pub(crate) fn due(self, parts: &[Part]) -> Vec<usize> {
        let fits = |part: &Part| part.live() <= self.most;
        let flat = || (0..parts.len()).filter(|&at| !parts[at].segment.has_graph() && fits(&parts[at]));
        let mut sum: u64 = flat().map(|at| u64::from(parts[at].live())).sum();
        let mut chosen: Vec<usize> = Vec::new();
        if sum > u64::from(self.limit(parts)) {
            let most = u64::from(self.most);
            sum = 0;
            for at in flat() {
                let with = sum + u64::from(parts[at].live());
                // What does not fit is due again when these have their graph.
                if with > most && sum > 0 {
                    break;
                }
                sum = with;
                chosen.push(at);
            }
            let mut graphs: Vec<usize> = (0..parts.len()).filter(|&at| parts[at].segment.has_graph()).collect();
            graphs.sort_by_key(|&at| parts[at].live());
            for at in graphs {
                let live = u64::from(parts[at].live());
                if live > 2 * sum || sum + live > most {
                    break;
                }
                sum += live;
                chosen.push(at);
            }
        } else {
            // Too much of one segment is gone: rewrite it alone.
            let worn = |part: &Part| {
                part.removed.count() > self.graph
                    && part.removed.count() > part.segment.count() / REMOVED_SHARE
                    && fits(part)
            };
            chosen.extend((0..parts.len()).find(|&at| worn(&parts[at])));
        }
        // One part, and nothing to be gained.
        if let [at] = chosen[..]
            && parts[at].removed.count() == 0
            && (parts[at].segment.has_graph() || parts[at].live() < self.graph)
        {
            chosen.clear();
        }
        chosen.sort_unstable();
        chosen
    }
}

/// A graph that lost more than one in so many of its nodes is made anew: nearly every node has lost a link by then, so that mending
/// costs what a build costs, and the mended graph of CLIP images that had lost 30 % found 2 % less for texts.
const GRAFTED_REMOVED: u32 = 8;

/// The part whose graph is worth taking over into the merge of all: it has half of the vectors, lost few, and its centre was not
/// taken when there were far fewer.
pub(crate) fn stock(parts: &[Part]) -> Option<usize> {
    let total: u64 = parts.iter().map(|part| u64::from(part.live())).sum();
    (0..parts.len()).find(|&at| {
        let part = &parts[at];
        part.segment.has_graph()
            && 2 * u64::from(part.live()) >= total
            && part.removed.count() <= part.segment.count() / GRAFTED_REMOVED
            && 4 * u64::from(part.segment.footer.centred) >= total
    })
}
