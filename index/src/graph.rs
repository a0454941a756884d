//! The walk through an HNSW graph (Malkov & Yashunin 2016): greedy descent through the sparse levels, then a beam on level 0.
//!
//! The beam is one list sorted by score with a mark on what was expanded, not the two heaps of the paper: lists of a few hundred
//! entries are shifted faster than heaps are sifted, and the next node to expand is known early enough to fetch its links. All
//! unseen neighbours of a node are found in one pass without a branch per link, and then scored in one call that fetches ahead.
//!
//! Walks go by rough scores, from the front half of each code: half the memory per place, and for the way they are as good. What was
//! found is put into the order of whole codes at the end ([`settle`]).
//!
//! Nothing here trusts the bytes: a [`Level`] hands out only places inside itself, and a node is entered at most once.

mod pool;

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::error::Result;
pub(crate) use crate::graph::pool::Pool;
use crate::kernel::{CodeQuery, Kernels, prefetch_codes, prefetch_fronts, prefetch_links};
use crate::vectors::{MOST_LINKS, Records};

/// Links of one place, as they are stored: some may point outside the level.
pub(crate) type Links = [u32; MOST_LINKS];

/// One level of a graph. Nodes have places, dense from 0; each has a row.
pub(crate) trait Level {
    fn records(&self) -> Records<'_>;
    /// How many places there are.
    fn size(&self) -> u32;
    /// The rows of places; a level whose places are rows hands them back.
    fn rows<'a>(&self, places: &'a [u32], into: &'a mut Vec<u32>) -> &'a [u32];
    /// The linked places, into the front of `into`; returns how many.
    fn links(&self, place: u32, into: &mut Links) -> usize;
    /// Called before the records of rows are used.
    fn check(&self, rows: &[u32]) -> Result<()>;
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
    fn rows<'a>(&self, places: &'a [u32], _: &'a mut Vec<u32>) -> &'a [u32] {
        places
    }

    #[inline(always)]
    fn links(&self, place: u32, into: &mut Links) -> usize {
        self.0.copy_links(place, into)
    }

    #[inline(always)]
    fn check(&self, _: &[u32]) -> Result<()> {
        Ok(())
    }

    #[inline(always)]
    fn prefetch_links(&self, place: u32) {
        prefetch_links(&self.0, place);
    }
}

/// How wide a walk is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Width {
    /// Places that are expanded: those that stand among the best so many.
    pub(crate) open: usize,
    /// Places that are kept; at least `open`. A walk meets many more than it expands, and those that are near are worth an exact
    /// look: with ten opened, keeping twenty instead of ten finds 2 % more.
    pub(crate) keep: usize,
}

/// Places that a walk meets, their scores, and its pool.
type Met<'a> = (&'a [u32], &'a [f32], &'a mut Pool);

/// Room for the links of one place.
struct Room(Links);

impl Default for Room {
    fn default() -> Room {
        Room([0; MOST_LINKS])
    }
}

/// What a walk needs besides the graph; kept between walks so that none allocates.
#[derive(Default)]
pub(crate) struct Scratch {
    /// One bit per place; all zero between walks but for those of `seen_places` and the bits beyond the last place.
    seen: Vec<u64>,
    /// Places in the order in which they were seen, in the front; what follows is room.
    seen_places: Vec<u32>,
    /// How many there are.
    seen_count: usize,
    /// Words of `seen` in use.
    words: usize,
    /// Where the next walk starts; [`descend`] leaves them here.
    pub(crate) entries: Vec<u32>,
    /// Score and place, best first; after a walk, the answer.
    pub(crate) pool: Pool,
    links: Room,
    rows: Vec<u32>,
    scores: Vec<f32>,
    /// Distances computed since the caller last set it to zero.
    pub(crate) distances: usize,
}

impl Scratch {
    /// Forgets the last walk, and gets ready for one through so many places.
    fn reset(&mut self, size: u32) {
        if self.seen_count < self.words {
            self.seen_places[..self.seen_count].iter().for_each(|&place| self.seen[place as usize / 64] = 0);
        } else {
            self.seen[..self.words].fill(0);
        }
        if let Some(last) = self.words.checked_sub(1) {
            self.seen[last] = 0;
        }
        self.pool.clear();
        self.words = (size as usize).div_ceil(64);
        if self.seen.len() < self.words {
            self.seen.resize(self.words, 0);
        }
        // Places beyond the last count as seen, so that a link that points there is not followed.
        if !size.is_multiple_of(64)
            && let Some(last) = self.words.checked_sub(1)
        {
            self.seen[last] = u64::MAX << (size % 64);
        }
        self.seen_count = 0;
    }

    /// Meets the entries.
    fn enter<L: Level>(&mut self, level: &L, kernels: &Kernels, query: &CodeQuery) -> Result<Met<'_>> {
        let start = self.seen_count;
        for from in (0..self.entries.len()).step_by(MOST_LINKS) {
            let entries = &self.entries[from..];
            let count = entries.len().min(MOST_LINKS);
            self.links.0[..count].copy_from_slice(&entries[..count]);
            self.gather(level, count, start);
        }
        self.score_from(level, kernels, query, start)
    }

    /// Of the first `count` places in `links`, appends those to `seen_places` that were not seen. What is scored with them stands there
    /// from `step` on, and the codes with which that begins are asked for.
    #[inline(always)]
    fn gather<L: Level>(&mut self, level: &L, count: usize, step: usize) {
        let start = self.seen_count;
        if self.seen_places.len() < start + MOST_LINKS {
            self.seen_places.resize(2 * (start + MOST_LINKS), 0);
        }
        let seen = &mut self.seen[..self.words];
        let room = &mut self.seen_places[start..start + MOST_LINKS];
        let mut new = 0;
        for &link in &self.links.0[..count] {
            let Some(word) = seen.get_mut(link as usize / 64) else { continue };
            // Whether a link was seen is as good as random: no branch depends on it.
            let bit = 1 << (link % 64);
            room[new] = link;
            new += usize::from(*word & bit == 0);
            *word |= bit;
        }
        self.seen_count = start + new;
        self.rows.clear();
        let rows = level.rows(&self.seen_places[start..self.seen_count], &mut self.rows);
        prefetch_fronts(&level.records(), rows, start - step);
    }

    /// Scores the places in `seen_places` from `start` on: `scores` are those of the places that are returned.
    #[inline(always)]
    fn score_from<L: Level>(
        &mut self,
        level: &L,
        kernels: &Kernels,
        query: &CodeQuery,
        start: usize,
    ) -> Result<Met<'_>> {
        let places = &self.seen_places[start..self.seen_count];
        self.rows.clear();
        let rows = level.rows(places, &mut self.rows);
        level.check(rows)?;
        if self.scores.len() < places.len() {
            self.scores.resize(places.len() + MOST_LINKS, 0.0);
        }
        kernels.rough(query, &level.records(), rows, &mut self.scores);
        self.distances += places.len();
        Ok((places, &self.scores[..places.len()], &mut self.pool))
    }
}

/// A level above 0.
pub(crate) trait Upper: Level {
    /// The place of a node one level below.
    fn down(&self, place: u32) -> u32;
}

/// Entries to the ground of a query from elsewhere.
const SPREAD: usize = 64;

/// How many entries to the ground a walk begins with. The nearest rows of a query from elsewhere lie far apart, and one entry leads to
/// some of them: with 64, a walk through CLIP images finds 3 points more of what is nearest to a text for a tenth more time, and which
/// of them no longer depends on the order in which the graph was built. A query like the rows gains nothing.
pub(crate) fn spread(ef: usize, elsewhere: bool) -> usize {
    if elsewhere { (ef / 2).clamp(1, SPREAD) } else { 1 }
}

/// Walks down through levels, the top first; leaves the places below the last one, `spread` at most, in `scratch.entries`.
pub(crate) fn descend<U: Upper>(
    levels: impl Iterator<Item = U>,
    kernels: &Kernels,
    query: &CodeQuery,
    spread: usize,
    scratch: &mut Scratch,
) -> Result<()> {
    let mut levels = levels.peekable();
    scratch.entries.clear();
    scratch.entries.push(0);
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        scratch.entries.iter_mut().for_each(|entry| *entry = (*entry).min(level.size() - 1));
        // A walk that opens one place is the greedy one: from a place to its best neighbour until none is better.
        let width = if last { spread } else { 1 };
        beam(&level, kernels, query, Width { open: width, keep: width }, scratch)?;
        let Scratch { entries, pool, .. } = scratch;
        if pool.iter().next().is_none() {
            // No score was a number: any way down will do.
            entries.iter_mut().for_each(|entry| *entry = level.down(*entry));
            continue;
        }
        entries.clear();
        entries.extend(pool.iter().map(|(_, place)| level.down(place)));
    }
    Ok(())
}

/// Places that are expanded together. Each step waits for memory once, for links and then for codes, so several at once wait less
/// often: a walk of the same width takes a sixth to a fifth less time, and finds a little more where it is narrow, because
/// what is expanded early cannot fall behind. With more than three, narrow walks pay for places that they would not have expanded.
const TOGETHER: usize = 3;
/// Places whose links are fetched while nothing else is to be done: the next ones, unless something nearer is met.
const FETCHED: usize = 2;

/// From `scratch.entries`, leaves the best places near the query in `scratch.pool`, best first.
pub(crate) fn beam<L: Level>(
    level: &L,
    kernels: &Kernels,
    query: &CodeQuery,
    width: Width,
    scratch: &mut Scratch,
) -> Result<()> {
    scratch.reset(level.size());
    let (places, scores, pool) = scratch.enter(level, kernels, query)?;
    pool.merge(kernels, width.keep, places, scores);
    // What stands before this one is expanded.
    let mut at = 0;
    while at < width.open && scratch.pool.entry(at).is_some() {
        let start = scratch.seen_count;
        let mut room = TOGETHER;
        while room > 0
            && at < width.open
            && let Some((place, expanded)) = scratch.pool.entry(at)
        {
            if !expanded {
                scratch.pool.expand(at);
                let count = level.links(place, &mut scratch.links.0);
                scratch.gather(level, count, start);
                room -= 1;
            }
            at += 1;
        }
        let (places, scores, pool) = scratch.score_from(level, kernels, query, start)?;
        at = pool.merge(kernels, width.keep, places, scores).min(at);
        let next = (at..width.open).map_while(|at| pool.entry(at)).filter(|(_, expanded)| !expanded);
        next.take(FETCHED).for_each(|(place, _)| level.prefetch_links(place));
    }
    Ok(())
}

/// Puts the places that a walk found into the order of their whole codes. Their records were checked when they were met.
pub(crate) fn settle<L: Level>(level: &L, kernels: &Kernels, query: &CodeQuery, scratch: &mut Scratch) {
    let records = level.records();
    if !records.shape.rough() {
        return;
    }
    let Scratch { seen_places: places, seen_count, pool, rows, scores, .. } = scratch;
    // The list of what was seen is what a walk is cleared by, so this goes behind it.
    let start = *seen_count;
    let end = start + pool.iter().count();
    places.resize(places.len().max(end), 0);
    places[start..end].iter_mut().zip(pool.iter()).for_each(|(to, (_, place))| *to = place);
    rows.clear();
    let rows = level.rows(&places[start..end], rows);
    prefetch_codes(&records, rows);
    scores.resize(scores.len().max(rows.len()), 0.0);
    kernels.scores(query, &records, rows, scores);
    pool.settle(scores);
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
    (width, budget): (Width, usize),
    accept: &mut dyn FnMut(u32) -> bool,
    scratch: &mut Scratch,
) -> Result<bool> {
    scratch.reset(level.size());
    let mut open = BinaryHeap::new();
    let (places, scores, pool) = scratch.enter(level, kernels, query)?;
    for (&score, &place) in scores.iter().zip(places) {
        open.push(Open(score, place));
        if accept(place) {
            pool.merge(kernels, width.keep, &[place], &[score]);
        }
    }
    let limit = scratch.distances + budget;
    loop {
        let start = scratch.seen_count;
        let mut room = TOGETHER;
        while room > 0
            && let Some(Open(score, place)) = open.pop()
        {
            if scratch.pool.score(width.open - 1).is_some_and(|last| score < last) {
                // Those behind it are worse, and the last of the pool only gets better.
                open.clear();
                break;
            }
            let count = level.links(place, &mut scratch.links.0);
            scratch.gather(level, count, start);
            room -= 1;
        }
        if room == TOGETHER {
            return Ok(true);
        }
        if scratch.distances > limit {
            return Ok(false);
        }
        let (places, scores, pool) = scratch.score_from(level, kernels, query, start)?;
        for (&score, &place) in scores.iter().zip(places) {
            if pool.score(width.open - 1).is_none_or(|last| score > last) {
                open.push(Open(score, place));
            }
            if pool.score(width.keep - 1).is_none_or(|last| score > last) && accept(place) {
                pool.merge(kernels, width.keep, &[place], &[score]);
            }
        }
    }
}
