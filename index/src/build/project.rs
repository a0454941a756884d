//! Links that sample queries ask for.
//!
//! The rows nearest to a text lie far apart among images, and a graph of near neighbours leads from one of them to the next by detours.
//! So the nearest rows of each sample query are offered to each other as links, after RoarGraph (Chen et al. 2024), within the room
//! that a record has beside the links that it has already. Other queries of the kind find their way by them too; what the graph
//! finds for queries like the rows stays as it is, since no link goes; they look at a few links more.

use rayon::prelude::*;

use super::{At, Graph};
use crate::error::Result;
use crate::kernel::CodeQuery;

/// Rows that are offered to each other: with 50 or 25 of them, a walk for other queries finds 2 or 5 points less of what it would;
/// 200 find 1 point more and take three times as long.
const OFFERED: usize = 100;
/// Nodes whose links are set together.
const TOGETHER: usize = 8192;

impl Graph<'_> {
    /// `nodes` are those of the ground.
    pub(super) fn project(
        &mut self,
        samples: &[CodeQuery],
        nodes: &[u32],
        go_on: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let nearest = self.nearest(samples, nodes, OFFERED, go_on)?;
        // Each node with the samples that it is near to.
        let named = nearest.iter().zip(0u32..).flat_map(|(rows, sample)| rows.iter().map(move |&row| (row, sample)));
        let mut named: Vec<(u32, u32)> = named.collect();
        named.par_sort_unstable();
        let named: Vec<&[(u32, u32)]> = named.chunk_by(|a, b| a.0 == b.0).collect();
        for named in named.chunks(TOGETHER) {
            go_on()?;
            let graph = &*self;
            let linked = named.par_iter().map_init(
                || (CodeQuery::default(), Vec::new(), Vec::new()),
                |(query, rows, scored), samples| {
                    let node = samples[0].0;
                    let mut links = Vec::with_capacity(graph.room(At::Ground));
                    graph.links_at(At::Ground, node, &mut links);
                    let mut offered: Vec<u32> =
                        samples.iter().flat_map(|&(_, sample)| &nearest[sample as usize]).copied().collect();
                    offered.sort_unstable();
                    offered.dedup();
                    graph.rank(At::Ground, node, &offered, query, rows, scored);
                    graph.select_more(At::Ground, node, scored.iter().copied(), &mut links);
                    (node, links)
                },
            );
            let linked: Vec<(u32, Vec<u32>)> = linked.collect();
            self.records.write_links(&linked);
        }
        Ok(())
    }
}
