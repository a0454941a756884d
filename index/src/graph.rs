//! The walk through an HNSW graph (Malkov & Yashunin 2016): greedy descent through the sparse levels, then a beam on level 0.
//!
//! The beam is one list sorted by score with a mark on what was expanded, not the two heaps of the paper: lists of a few hundred
//! entries are shifted faster than heaps are sifted, and the next node to expand is known early enough to fetch its links. All
//! unseen neighbours of a node are prefetched and then scored in one call.
//!
//! Nothing here trusts the bytes: a [`Level`] hands out only places inside itself, and a node is entered at most once.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::error::Result;
use crate::kernel::{CodeQuery, Kernels, prefetch};
use crate::vectors::{Records, Shape};

/// Mark of an expanded entry; places are below it.
const EXPANDED: u32 = 1 << 31;

/// One level of a graph. Nodes have places, dense from 0; each has a row.
pub(crate) trait Level {
    fn records(&self) -> Records<'_>;
    /// How many places there are.
    fn size(&self) -> u32;
    fn row(&self, place: u32) -> u32;
    /// Appends the linked places, all inside the level.
    fn links(&self, place: u32, into: &mut Vec<u32>) -> Result<()>;
    /// Called before a row's record is used.
    fn check(&self, row: u32) -> Result<()>;
    /// Asks for the links of a place to be fetched.
    fn prefetch_links(&self, place: u32);
}

/// Level 0 of a graph whose records need no check: links stand in the records, the place is the row.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a>(pub(crate) Records<'a>);

impl Level for Ground<'_> {
    fn records(&self) -> Records<'_> {
        self.0
    }

    fn size(&self) -> u32 {
        self.0.count
    }

    #[inline(always)]
    fn row(&self, place: u32) -> u32 {
        place
    }

    #[inline]
    fn links(&self, place: u32, into: &mut Vec<u32>) -> Result<()> {
        into.extend(self.0.links(place));
        Ok(())
    }

    #[inline(always)]
    fn check(&self, _: u32) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn prefetch_links(&self, place: u32) {
        prefetch(&self.0.record(place)[self.0.shape.code..]);
    }
}

/// What a walk needs besides the graph; kept between walks so that none allocates.
#[derive(Default)]
pub(crate) struct Scratch {
    /// One bit per place; all zero between walks.
    seen: Vec<u64>,
    touched: Vec<u32>,
    /// Score and place, best first; after a walk, the answer.
    pub(crate) pool: Vec<(f32, u32)>,
    links: Vec<u32>,
    rows: Vec<u32>,
    scores: Vec<f32>,
    /// Distances computed since the caller last set it to zero.
    pub(crate) distances: usize,
}

impl Scratch {
    fn reset(&mut self, size: u32) {
        for &word in &self.touched {
            self.seen[word as usize] = 0;
        }
        self.touched.clear();
        let words = (size as usize).div_ceil(64);
        if self.seen.len() < words {
            self.seen.resize(words, 0);
        }
        self.pool.clear();
    }

    /// Whether the place is seen for the first time.
    #[inline(always)]
    fn visit(&mut self, place: u32) -> bool {
        let (word, bit) = (place / 64, 1u64 << (place % 64));
        let seen = &mut self.seen[word as usize];
        if *seen & bit != 0 {
            return false;
        }
        if *seen == 0 {
            self.touched.push(word);
        }
        *seen |= bit;
        true
    }

    /// Collects the links of a place that were not seen, fetches and scores them into `rows` (places, then) and `scores`.
    #[inline]
    fn score_links<L: Level>(&mut self, level: &L, kernels: &Kernels, query: &CodeQuery, place: u32) -> Result<()> {
        let records = level.records();
        let mut links = std::mem::take(&mut self.links);
        links.clear();
        level.links(place, &mut links)?;
        links.retain(|&link| self.visit(link));
        self.rows.clear();
        for &link in &links {
            let row = level.row(link);
            prefetch(&records.record(row)[..records.shape.code + Shape::ERROR]);
            self.rows.push(row);
        }
        for &row in &self.rows {
            level.check(row)?;
        }
        self.scores.resize(links.len().max(self.scores.len()), 0.0);
        kernels.scores(query, &records, &self.rows, &mut self.scores);
        self.distances += links.len();
        self.links = links;
        Ok(())
    }

    fn score_one<L: Level>(&mut self, level: &L, kernels: &Kernels, query: &CodeQuery, place: u32) -> Result<f32> {
        let row = level.row(place);
        level.check(row)?;
        let mut score = [0.0];
        kernels.scores(query, &level.records(), &[row], &mut score);
        self.distances += 1;
        Ok(score[0])
    }
}

/// From `entry`, steps to the best neighbour until none is better.
pub(crate) fn greedy<L: Level>(
    level: &L,
    kernels: &Kernels,
    query: &CodeQuery,
    entry: u32,
    scratch: &mut Scratch,
) -> Result<u32> {
    scratch.reset(level.size());
    scratch.visit(entry);
    let mut best = (scratch.score_one(level, kernels, query, entry)?, entry);
    loop {
        let from = best.1;
        scratch.score_links(level, kernels, query, from)?;
        for (&score, &place) in scratch.scores.iter().zip(&scratch.links) {
            if score > best.0 {
                best = (score, place);
            }
        }
        if best.1 == from {
            return Ok(from);
        }
    }
}

/// Leaves the best `ef` places near the query in `scratch.pool`, best first.
pub(crate) fn beam<L: Level>(
    level: &L,
    kernels: &Kernels,
    query: &CodeQuery,
    entry: u32,
    ef: usize,
    scratch: &mut Scratch,
) -> Result<()> {
    scratch.reset(level.size());
    scratch.visit(entry);
    let score = scratch.score_one(level, kernels, query, entry)?;
    scratch.pool.push((score, entry));
    let mut at = 0;
    while at < scratch.pool.len() {
        let place = scratch.pool[at].1;
        if place & EXPANDED != 0 {
            at += 1;
            continue;
        }
        scratch.pool[at].1 |= EXPANDED;
        scratch.score_links(level, kernels, query, place)?;
        let pool = &mut scratch.pool;
        let mut first = usize::MAX;
        for (&score, &place) in scratch.scores.iter().zip(&scratch.links) {
            if pool.len() >= ef {
                if score <= pool[pool.len() - 1].0 {
                    continue;
                }
                pool.pop();
            }
            let to = pool.partition_point(|entry| entry.0 >= score);
            pool.insert(to, (score, place));
            first = first.min(to);
        }
        at = first.min(at + 1);
        if let Some(next) = pool.get(at) {
            level.prefetch_links(next.1 & !EXPANDED);
        }
    }
    scratch.pool.iter_mut().for_each(|entry| entry.1 &= !EXPANDED);
    Ok(())
}

/// A frontier entry, ordered by score.
struct Open(f32, u32);

impl PartialEq for Open {
    fn eq(&self, other: &Open) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Open {}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Open) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Open {
    fn cmp(&self, other: &Open) -> Ordering {
        self.0.total_cmp(&other.0).then(other.1.cmp(&self.1))
    }
}

/// As [`beam`], but only places that `accept` passes enter the pool; the others are walked through. Gives up, with `false`, when
/// `budget` distances were not enough.
pub(crate) fn beam_accepting<L: Level>(
    level: &L,
    kernels: &Kernels,
    query: &CodeQuery,
    entry: u32,
    (ef, budget): (usize, usize),
    accept: &mut dyn FnMut(u32) -> bool,
    scratch: &mut Scratch,
) -> Result<bool> {
    scratch.reset(level.size());
    scratch.visit(entry);
    let score = scratch.score_one(level, kernels, query, entry)?;
    let mut open = BinaryHeap::from([Open(score, entry)]);
    if accept(entry) {
        scratch.pool.push((score, entry));
    }
    let limit = scratch.distances + budget;
    while let Some(Open(score, place)) = open.pop() {
        if scratch.pool.len() >= ef && score < scratch.pool[ef - 1].0 {
            break;
        }
        if scratch.distances > limit {
            return Ok(false);
        }
        scratch.score_links(level, kernels, query, place)?;
        let pool = &mut scratch.pool;
        for (&score, &place) in scratch.scores.iter().zip(&scratch.links) {
            let full = pool.len() >= ef;
            if full && score <= pool[ef - 1].0 {
                continue;
            }
            open.push(Open(score, place));
            if accept(place) {
                if full {
                    pool.pop();
                }
                let to = pool.partition_point(|entry| entry.0 >= score);
                pool.insert(to, (score, place));
            }
        }
    }
    Ok(true)
}
