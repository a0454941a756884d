//! No vector is cut off: after insertion, every node can be walked to.
//!
//! A node may lose all links that lead to it when its neighbours prefer others. Few do, so they are looked for at the end, instead
//! of being prevented at every step. Where the only hosts are full, one gives up a link for it: never one by which the search for
//! lost nodes reached somebody, so that mending cuts nobody else off.

use super::{At, Graph};
use crate::error::Result;
use crate::graph::{Scratch, Width};
use crate::kernel::CodeQuery;
use crate::vectors::NONE;

/// An entry of the graph: reached without a link.
const ENTRY: u32 = NONE - 1;
/// A row that hangs on its twin and needs no path.
const TWIN: u32 = NONE - 2;

/// Which node led to each; [`NONE`] for those that were not reached.
struct Paths(Vec<u32>);

impl Paths {
    fn reaches(&self, place: u32) -> bool {
        self.0[place as usize] < TWIN || self.0[place as usize] == ENTRY
    }

    fn follow(&mut self, from: u32, to: u32) -> bool {
        let fresh = self.0[to as usize] == NONE;
        if fresh {
            self.0[to as usize] = from;
        }
        fresh
    }

    /// The last of the links of a host by which nobody is reached.
    fn spare(&self, host: u32, links: &[u32]) -> Option<usize> {
        links.iter().rposition(|&link| self.0[link as usize] != host)
    }
}

impl Graph<'_> {
    /// Nodes that no path from the entries reaches get a link from a near node that is reached.
    pub(super) fn reach_all(&mut self) -> Result<()> {
        let records = self.records.records();
        let count = records.count;
        let mut paths = Paths(vec![NONE; count as usize]);
        (0..count).filter_map(|row| records.twin(row)).for_each(|twin| paths.0[twin as usize] = TWIN);
        let Some(first) = paths.0.iter().position(|&from| from == NONE) else { return Ok(()) };
        // Descents land on nodes of the lowest upper level.
        let mut open = self.uppers.last().map_or(vec![first as u32], |upper| upper.rows.clone());
        let start = open[0];
        let width = Width { open: self.ef, keep: self.ef };
        open.iter().for_each(|&row| paths.0[row as usize] = ENTRY);
        let (mut links, mut scratch, mut query) = (Vec::new(), Scratch::default(), CodeQuery::default());
        let mut next = 0;
        loop {
            while let Some(row) = open.pop() {
                links.clear();
                self.links_at(At::Ground, row, &mut links);
                open.extend(links.iter().filter(|&&link| paths.follow(row, link)));
            }
            let Some(lost) = paths.0[next..].iter().position(|&from| from == NONE) else { return Ok(()) };
            next += lost;
            let lost = next as u32;
            self.query_of(self.row_at(At::Ground, lost), &mut query);
            self.enter(At::Ground, &query, 1, &|_| true, start, &mut scratch)?;
            self.walk_along(At::Ground, &query, width, &mut scratch)?;
            let near = || scratch.pool.iter().map(|p| p.1).filter(|&p| p != lost && paths.reaches(p));
            let all = || (0..count).filter(|&p| paths.reaches(p));
            let room = self.room(At::Ground);
            let has_room = |&place: &u32| self.records.records().links(place).count() < room;
            let can_spare = |&place: &u32| {
                let links: Vec<u32> = self.records.records().links(place).collect();
                links.len() < room || paths.spare(place, &links).is_some()
            };
            // There is always one: fewer links lead to somebody new than there are nodes.
            let host = near().find(has_room).or_else(|| near().find(can_spare)).or_else(|| all().find(can_spare));
            let host = host.unwrap_or(start);
            links.clear();
            self.links_at(At::Ground, host, &mut links);
            if links.len() == room
                && let Some(spare) = paths.spare(host, &links)
            {
                links.remove(spare);
            }
            links.push(lost);
            links.truncate(room);
            self.set_links(At::Ground, host, &links);
            paths.follow(host, lost);
            open.push(lost);
        }
    }
}
