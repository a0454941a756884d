//! No vector is cut off: after insertion, every node can be walked to.
//!
//! A node may lose all links that lead to it when its neighbours prefer others. Few do, so they are looked for at the end, instead
//! of being prevented at every step.

use super::{At, Graph};
use crate::error::Result;
use crate::graph::Scratch;
use crate::kernel::CodeQuery;

impl Graph<'_> {
    /// Nodes that no path from the entries reaches get a link from a near node that is reached.
    pub(super) fn reach_all(&mut self) -> Result<()> {
        // A second round is needed only where a full node had to give up a link.
        for _ in 0..4 {
            if self.reach_once()? {
                break;
            }
        }
        Ok(())
    }

    /// One round; `true` if nothing can have been cut off by it.
    fn reach_once(&mut self) -> Result<bool> {
        let records = self.records.records();
        let count = records.count;
        let mut reached = vec![false; count as usize];
        // Twins hang on a node of the graph; they need no path.
        (0..count).filter_map(|row| records.twin(row)).for_each(|twin| reached[twin as usize] = true);
        let Some(first) = reached.iter().position(|r| !r) else { return Ok(true) };
        // Descents land on nodes of the lowest upper level.
        let mut open = self.uppers.last().map_or(vec![first as u32], |upper| upper.rows.clone());
        let start = open[0];
        open.iter().for_each(|&row| reached[row as usize] = true);
        let (mut links, mut scratch, mut query) = (Vec::new(), Scratch::default(), CodeQuery::default());
        let mut sound = true;
        let mut next = 0;
        loop {
            while let Some(row) = open.pop() {
                links.clear();
                self.links_at(At::Ground, row, &mut links);
                open.extend(links.iter().filter(|&&l| !std::mem::replace(&mut reached[l as usize], true)));
            }
            let Some(lost) = reached[next..].iter().position(|r| !r).map(|at| at + next) else { return Ok(sound) };
            next = lost;
            let lost = lost as u32;
            self.query_of(self.row_at(At::Ground, lost), &mut query);
            self.find(At::Ground, &query, self.ef, &|_| true, start, &mut scratch)?;
            let mut near = scratch.pool.iter().map(|p| p.1).filter(|&p| p != lost && reached[p as usize]);
            let nearest = near.clone().next().unwrap_or(start);
            let degree = |place: u32| self.records.records().links(place).count();
            let host = near.find(|&place| degree(place) < self.room(At::Ground)).unwrap_or(nearest);
            links.clear();
            self.links_at(At::Ground, host, &mut links);
            if links.len() == self.room(At::Ground) {
                links.pop();
                sound = false;
            }
            links.push(lost);
            self.set_links(At::Ground, host, &links);
            reached[lost as usize] = true;
            open.push(lost);
        }
    }
}
