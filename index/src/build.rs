//! Builds a graph in memory: insertion and neighbour selection.
//!
//! Batch-synchronous (as in ParlayANN, Manohar et al. 2024): a batch of at most 2 % of what stands is searched in parallel against
//! the graph as it was, then the new links and their reverses are computed target by target and written by one thread. So the
//! graph is the same at any thread count, no lock is taken, and no node is half linked. The classic way, a lock per node, gives
//! another graph on every run. Memory: the records (codes and links) and a few words per vector; exact rows are not needed.

mod nearest;
mod project;
mod reach;

use std::ops::ControlFlow;

use rayon::prelude::*;

use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::format::{LEVELS, UPPER_LINKS};
use crate::graft::{Graft, Scion};
use crate::graph::{self, Ground, Level, Links, Scratch, Width, beam, descend, settle};
use crate::kernel::{CodeQuery, Kernels, Line, prefetch_codes};
use crate::vectors::{NONE, RecordBuffer, Records, write_links, write_twin};

/// One of this many nodes of a level stands in the next one too.
const SPARSITY: u32 = 32;
/// No level is made with fewer nodes.
const LEAST: usize = 8;
/// Width of the search for new neighbours of a node that lost some.
const MENDING: usize = 64;
/// A search for links expands half of what it keeps, but so many at least: with 128 kept that takes a fifth off the time of a build
/// and costs texts 0.3 points of recall; with half of 64, frames of bursts no longer find themselves.
const NARROW: usize = 64;
/// How much nearer to a kept link than to the node a candidate must be to be left out, in distance (squared, for L2).
const SLACK: f32 = 1.1;
/// Largest batch.
const BATCH: usize = 2000;

/// Called with how many nodes are done and how many there are; may break.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

/// Tells how many nodes are done; an error if that breaks.
pub(crate) fn tell(watch: Watch<'_>, done: u64, total: u64) -> Result<()> {
    if watch(done, total).is_break() { Err(Error::Cancelled) } else { Ok(()) }
}

/// A level above 0.
#[derive(Clone, Default)]
pub(crate) struct Upper {
    /// Row of each place.
    pub(crate) rows: Vec<u32>,
    /// Place of each node one level below.
    pub(crate) down: Vec<u32>,
    /// [`UPPER_LINKS`] places per node, [`NONE`] after the last.
    pub(crate) links: Vec<u32>,
}

impl Upper {
    fn links_of(&self, place: u32) -> impl Iterator<Item = u32> + '_ {
        self.links[place as usize * UPPER_LINKS..][..UPPER_LINKS].iter().copied().take_while(|&l| l != NONE)
    }
}

struct UpperLevel<'a>(&'a Upper, Records<'a>);

impl Level for UpperLevel<'_> {
    fn records(&self) -> Records<'_> {
        self.1
    }

    fn size(&self) -> u32 {
        self.0.rows.len() as u32
    }

    fn rows<'a>(&self, places: &'a [u32], into: &'a mut Vec<u32>) -> &'a [u32] {
        into.extend(places.iter().map(|&place| self.0.rows[place as usize]));
        into
    }

    fn links(&self, place: u32, into: &mut Links) -> usize {
        into.iter_mut().zip(self.0.links_of(place)).map(|(to, link)| *to = link).count()
    }

    fn check(&self, _: &[u32]) -> Result<()> {
        Ok(())
    }

    /// Upper levels are small and stay in the cache.
    fn prefetch_links(&self, _: u32) {}
}

impl graph::Upper for UpperLevel<'_> {
    fn down(&self, place: u32) -> u32 {
        self.0.down[place as usize]
    }
}

/// A graph in the making.
pub(crate) struct Graph<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) encoding: &'a Encoding,
    ef: usize,
    pub(crate) records: RecordBuffer,
    /// The top first.
    pub(crate) uppers: Vec<Upper>,
    /// For each of them, where its places stand on a tour that leads from neighbour to neighbour, roughly.
    tours: Vec<Vec<u32>>,
}

/// A place with its code in one piece, as it is compared with many.
struct Member {
    place: u32,
    code: Vec<u8>,
    scale: f32,
    bias: f32,
}

/// Which level is being built: an upper one, or the ground.
#[derive(Clone, Copy)]
enum At {
    Upper(usize),
    Ground,
}

/// A well-mixed number per row, the same everywhere.
fn mix(row: u32) -> u64 {
    let mut z = (u64::from(row) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// How many levels a row stands in above 0.
fn height(row: u32) -> usize {
    (mix(row).leading_zeros() / SPARSITY.ilog2()) as usize
}

impl<'a> Graph<'a> {
    /// Takes encoded records without links.
    pub(crate) fn new(kernels: Kernels, encoding: &'a Encoding, ef: usize, records: RecordBuffer) -> Graph<'a> {
        Graph { kernels, encoding, ef, records, uppers: Vec::new(), tours: Vec::new() }
    }

    /// Builds the graph over all records, on top of what is taken over, and for queries like the samples; returns how many nodes it has.
    pub(crate) fn build(&mut self, graft: Option<Graft>, samples: &[CodeQuery], watch: Watch<'_>) -> Result<u64> {
        let nodes = self.join_twins();
        let mut grafted = graft.map_or_else(Vec::new, |graft| graft.levels);
        let ground = grafted.pop().unwrap_or_default();
        // Bottom up: who was high stays as high, new rows draw their height.
        let mut sets: Vec<Vec<u32>> = Vec::new();
        let first_new = ground.iter().map(|scion| scion.row + 1).max().unwrap_or(0);
        for level in 1..=LEVELS {
            let old = grafted.len().checked_sub(level).map_or(&[][..], |at| &grafted[at][..]);
            let old = old.iter().map(|scion| scion.row).filter(|row| nodes.binary_search(row).is_ok());
            let new = nodes.iter().copied().filter(|&row| row >= first_new && height(row) >= level);
            let mut set: Vec<u32> = old.chain(new).collect();
            set.sort_unstable();
            set.dedup();
            if set.len() < LEAST {
                break;
            }
            sets.push(set);
        }
        sets.reverse();
        for at in 0..sets.len() {
            let rows = sets[at].clone();
            let below = sets.get(at + 1);
            let place = |row: &u32| below.map_or(Some(*row), |b| b.binary_search(row).ok().map(|p| p as u32));
            let down = rows.iter().map(|row| place(row).unwrap_or(0)).collect();
            let links = vec![NONE; rows.len() * UPPER_LINKS];
            self.uppers.push(Upper { rows, down, links });
        }
        let missing = grafted.len().saturating_sub(self.uppers.len());
        let mut grafted = grafted.into_iter().skip(missing);
        let total = nodes.len() as u64;
        let new_levels = self.uppers.len() - grafted.len();
        for at in 0..self.uppers.len() {
            let scions = if at < new_levels { Vec::new() } else { grafted.next().unwrap_or_default() };
            let standing = self.take_over(At::Upper(at), scions)?;
            let places = (0..self.uppers[at].rows.len() as u32).collect();
            self.insert(At::Upper(at), places, standing, self.ef.min(100), (watch, total))?;
            self.tour(at)?;
        }
        let standing = self.take_over(At::Ground, ground)?;
        self.insert(At::Ground, nodes.clone(), standing, self.ef, (watch, total))?;
        if !samples.is_empty() {
            self.project(samples, &nodes, &mut || tell(watch, total, total))?;
        }
        self.reach_all()?;
        Ok(total)
    }

    /// Sets the links of nodes that are taken over, and inserts those anew that lost some; returns which places stand then.
    fn take_over(&mut self, at: At, scions: Vec<Scion>) -> Result<Vec<bool>> {
        let records = self.records.records();
        let mut hangs = vec![false; records.count as usize];
        (0..records.count).filter_map(|row| records.twin(row)).for_each(|twin| hangs[twin as usize] = true);
        let place = |row: u32| match at {
            At::Upper(level) => self.uppers[level].rows.binary_search(&row).ok().map(|place| place as u32),
            At::Ground => Some(row).filter(|&row| !hangs[row as usize]),
        };
        let mut standing = vec![false; self.size(at)];
        for scion in &scions {
            if let Some(place) = place(scion.row) {
                standing[place as usize] = true;
            }
        }
        let graph = &*self;
        let mut mended: Vec<u32> = scions.iter().filter(|s| s.mended).filter_map(|s| place(s.row)).collect();
        let linked: Vec<(u32, Vec<u32>)> = scions
            .into_par_iter()
            .with_min_len(32)
            .filter_map(|scion| {
                let own = place(scion.row)?;
                let stands = |&place: &u32| place != own && standing[place as usize];
                let mut links: Vec<u32> = scion.links.iter().filter_map(|&row| place(row)).filter(stands).collect();
                if scion.mended || links.len() > graph.room(at) {
                    let mut scored = Vec::new();
                    graph.rank(at, own, &links, &mut CodeQuery::default(), &mut Vec::new(), &mut scored);
                    graph.select(at, own, scored.into_iter(), &mut links);
                }
                Some((own, links))
            })
            .collect();
        for (place, links) in linked {
            self.set_links(at, place, &links);
        }
        // The neighbours of removed neighbours keep the graph together, but they are not all that should stand in their place:
        // with a third removed, recall fell by 4 points until mended nodes were searched for again. A narrow search is enough.
        if let Some(start) = standing.iter().position(|&stands| stands) {
            mended.sort_by_cached_key(|&place| mix(self.row_at(at, place)));
            for batch in mended.chunks(BATCH) {
                self.insert_batch(at, batch, self.ef.min(MENDING), &standing, start as u32)?;
            }
        }
        Ok(standing)
    }

    /// How many levels there are above.
    fn above(&self, at: At) -> usize {
        match at {
            At::Upper(level) => level,
            At::Ground => self.uppers.len(),
        }
    }

    fn size(&self, at: At) -> usize {
        match at {
            At::Upper(level) => self.uppers[level].rows.len(),
            At::Ground => self.records.count as usize,
        }
    }

    /// Chains rows with equal codes and returns those that stand in the graph: duplicates (bursts, video frames) would fill each
    /// other's links and cut themselves off from the rest.
    fn join_twins(&mut self) -> Vec<u32> {
        let records = self.records.records();
        let hash = |code: &mut Vec<u8>, row| {
            records.code(row, code);
            (xxhash_rust::xxh3::xxh3_64_with_seed(code, records.scale(row).to_bits().into()), row)
        };
        let rows = (0..records.count).into_par_iter().with_min_len(64);
        let mut order: Vec<(u64, u32)> = rows.map_init(Vec::new, hash).collect();
        order.par_sort_unstable();
        let mut twins = Vec::new();
        for run in order.chunk_by(|a, b| a.0 == b.0).filter(|run| run.len() > 1) {
            let mut rest: Vec<u32> = run.iter().map(|r| r.1).collect();
            while let Some(&first) = rest.first() {
                let (mut code, mut other) = (Vec::new(), Vec::new());
                records.code(first, &mut code);
                let mut same = |&row: &u32| {
                    records.code(row, &mut other);
                    other == code && records.scale(row) == records.scale(first)
                };
                let (chain, different): (Vec<u32>, Vec<u32>) = rest.iter().partition(|row| same(row));
                twins.extend(chain.windows(2).map(|pair| (pair[0], pair[1])));
                rest = different;
            }
        }
        let mut hangs = vec![false; records.count as usize];
        for &(row, twin) in &twins {
            hangs[twin as usize] = true;
            let shape = self.records.shape;
            write_twin(self.records.record_mut(row), shape, twin);
        }
        (0..self.records.count).filter(|&row| !hangs[row as usize]).collect()
    }

    /// The code of a row as a query.
    pub(crate) fn query_of(&self, row: u32, query: &mut CodeQuery) {
        let records = self.records.records();
        let mut code = Vec::new();
        records.code(row, &mut code);
        query.offset = self.encoding.constant() + records.bias(row);
        query.scale = self.encoding.factor() * records.scale(row);
        query.lines.clear();
        query.sum = 0;
        for codes in code.chunks_exact(64) {
            let mut line = Line([0; 64]);
            for (to, &code) in line.0.iter_mut().zip(codes) {
                *to = (code ^ 0x80) as i8;
            }
            query.sum += line.0.iter().map(|&c| i32::from(c)).sum::<i32>();
            query.lines.push(line);
        }
    }

    /// Score of two rows.
    fn pair(&self, a: &Member, b: &Member) -> f32 {
        let product = self.kernels.pair(&a.code, &b.code);
        self.encoding.constant() + a.bias + b.bias + self.encoding.factor() * a.scale * b.scale * product as f32
    }

    /// A place of a level, for comparison with others.
    fn member(&self, at: At, place: u32, mut code: Vec<u8>) -> Member {
        let (records, row) = (self.records.records(), self.row_at(at, place));
        records.code(row, &mut code);
        Member { place, code, scale: records.scale(row), bias: records.bias(row) }
    }

    fn row_at(&self, at: At, place: u32) -> u32 {
        match at {
            At::Upper(level) => self.uppers[level].rows[place as usize],
            At::Ground => place,
        }
    }

    fn links_at(&self, at: At, place: u32, into: &mut Vec<u32>) {
        match at {
            At::Upper(level) => into.extend(self.uppers[level].links_of(place)),
            At::Ground => into.extend(self.records.records().links(place)),
        }
    }

    fn room(&self, at: At) -> usize {
        match at {
            At::Upper(_) => UPPER_LINKS,
            At::Ground => self.records.shape.links,
        }
    }

    fn set_links(&mut self, at: At, place: u32, links: &[u32]) {
        match at {
            At::Upper(level) => {
                let room = &mut self.uppers[level].links[place as usize * UPPER_LINKS..][..UPPER_LINKS];
                room.fill(NONE);
                room[..links.len()].copy_from_slice(links);
            }
            At::Ground => {
                let shape = self.records.shape;
                write_links(self.records.record_mut(place), shape, links);
            }
        }
    }

    /// Keeps, best first, each candidate that is nearer to the node than to any that is kept, with some slack (the heuristic of the
    /// paper, with the slack of Vamana, Subramanya et al. 2019: links that are a little redundant shorten the way of queries that
    /// lie off the data).
    fn select(&self, at: At, node: u32, candidates: impl Iterator<Item = (f32, u32)>, into: &mut Vec<u32>) {
        into.clear();
        self.select_more(at, node, candidates, into);
    }

    /// As [`Graph::select`], beside the links that are kept already.
    fn select_more(&self, at: At, node: u32, candidates: impl Iterator<Item = (f32, u32)>, into: &mut Vec<u32>) {
        let mut kept: Vec<Member> = into.iter().map(|&place| self.member(at, place, Vec::new())).collect();
        let mut code = Vec::new();
        for (score, place) in candidates {
            if into.len() >= self.room(at) {
                break;
            }
            if place == node {
                continue;
            }
            let most = self.encoding.distance(score).map_or(score, |d| 1.0 - d / SLACK);
            let candidate = self.member(at, place, code);
            let hidden = |kept: &Member| {
                let pair = self.pair(&candidate, kept);
                kept.place == place || self.encoding.distance(pair).map_or(pair, |d| 1.0 - d) > most
            };
            if kept.iter().any(hidden) {
                code = candidate.code;
            } else {
                into.push(place);
                kept.push(candidate);
                code = Vec::new();
            }
        }
    }

    /// Walks down to the level; leaves where it arrives in the entries, `start` if that does not stand yet.
    fn enter(
        &self,
        at: At,
        query: &CodeQuery,
        spread: usize,
        stands: &dyn Fn(u32) -> bool,
        start: u32,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let above = self.above(at);
        let levels = self.uppers[..above].iter().map(|upper| UpperLevel(upper, self.records.records()));
        descend(levels, &self.kernels, query, spread, scratch)?;
        scratch.entries.retain(|&entry| above > 0 && stands(entry));
        if scratch.entries.is_empty() {
            scratch.entries.push(start);
        }
        Ok(())
    }

    /// Walks along the level from the entries; leaves the nearest places in the pool.
    fn walk_along(&self, at: At, query: &CodeQuery, width: Width, scratch: &mut Scratch) -> Result<()> {
        let records = self.records.records();
        match at {
            At::Upper(level) => self.walk_level(&UpperLevel(&self.uppers[level], records), query, width, scratch),
            At::Ground => self.walk_level(&Ground(records), query, width, scratch),
        }
    }

    fn walk_level<L: Level>(&self, level: &L, query: &CodeQuery, width: Width, scratch: &mut Scratch) -> Result<()> {
        beam(level, &self.kernels, query, width, scratch)?;
        settle(level, &self.kernels, query, scratch);
        Ok(())
    }

    /// Walks from the top; leaves the nearest rows in the pool.
    pub(crate) fn walk(&self, query: &CodeQuery, width: Width, spread: usize, scratch: &mut Scratch) -> Result<()> {
        self.enter(At::Ground, query, spread, &|_| true, 0, scratch)?;
        self.walk_along(At::Ground, query, width, scratch)
    }

    /// Where on the tour of the level above a walk came down to this place.
    fn region(&self, at: At, entry: u32) -> u32 {
        let Some(above) = self.above(at).checked_sub(1) else { return 0 };
        self.uppers[above].down.binary_search(&entry).map_or(0, |place| self.tours[above][place])
    }

    /// Lays a tour through a level: one after the other the places that are nearest to the same node of the level above, in the order
    /// of the tour there.
    fn tour(&mut self, level: usize) -> Result<()> {
        let at = At::Upper(level);
        let graph = &*self;
        let enter = |(scratch, query): &mut (Scratch, CodeQuery), place| {
            graph.query_of(graph.row_at(at, place), query);
            graph.enter(at, query, 1, &|_| true, 0, scratch)?;
            Ok((graph.region(at, scratch.entries[0]), place))
        };
        let places = (0..self.size(at) as u32).into_par_iter().with_min_len(8);
        let mut order: Vec<(u32, u32)> = places.map_init(Default::default, enter).collect::<Result<_>>()?;
        order.par_sort_unstable();
        let mut tour = vec![0; order.len()];
        (0..).zip(order).for_each(|(rank, (_, place))| tour[place as usize] = rank);
        self.tours.push(tour);
        Ok(())
    }

    /// Inserts the places that do not stand yet into a level, in batches.
    fn insert(
        &mut self,
        at: At,
        places: Vec<u32>,
        mut standing: Vec<bool>,
        ef: usize,
        (watch, total): (Watch<'_>, u64),
    ) -> Result<()> {
        let Some(&first) = places.first() else { return Ok(()) };
        let (old, mut order): (Vec<u32>, Vec<u32>) = places.into_iter().partition(|&place| standing[place as usize]);
        // A fixed shuffle, so that a sorted input does not make a bad graph; nodes of upper levels first, so that descents land on
        // nodes that stand. The entry of the top level is place 0, so that one comes first of all.
        let above: &[u32] = match at {
            At::Ground => self.uppers.last().map_or(&[], |upper| &upper.rows),
            At::Upper(level) => level.checked_sub(1).map_or(&[], |higher| &self.uppers[higher].rows),
        };
        order.sort_by_cached_key(|&place| {
            let low = above.binary_search(&self.row_at(at, place)).is_err();
            (place != first || !above.is_empty(), low, mix(self.row_at(at, place) ^ 0x5555_5555))
        });
        let start = *old.first().or(order.first()).unwrap_or(&first);
        let mut done = old.len();
        let mut left = &order[..];
        if done == 0 {
            standing[start as usize] = true;
            left = &order[1..];
            done = 1;
        }
        let mut told = 0;
        while !left.is_empty() {
            let (batch, later) = left.split_at((done / 50).clamp(1, BATCH).min(left.len()));
            self.insert_batch(at, batch, ef, &standing, start)?;
            batch.iter().for_each(|&place| standing[place as usize] = true);
            done += batch.len();
            left = later;
            // Two hundred times are often enough.
            if matches!(at, At::Ground) && (done as u64 >= told + total / 200 || left.is_empty()) {
                told = done as u64;
                tell(watch, told, total)?;
            }
        }
        Ok(())
    }

    fn insert_batch(&mut self, at: At, batch: &[u32], ef: usize, standing: &[bool], start: u32) -> Result<()> {
        let graph = &*self;
        let enter = |(scratch, query): &mut (Scratch, CodeQuery), &place: &u32| {
            graph.query_of(graph.row_at(at, place), query);
            graph.enter(at, query, 1, &|p| standing[p as usize], start, scratch)?;
            let entry = scratch.entries[0];
            Ok((graph.region(at, entry), place, entry))
        };
        let mut tour: Vec<(u32, u32, u32)> =
            batch.par_iter().with_min_len(8).map_init(Default::default, enter).collect::<Result<_>>()?;
        // One neighbour after the other: much of what a walk needs is in the cache from the one before. The graph is the same.
        tour.par_sort_unstable();
        let width = Width { open: ef.min(NARROW).max(ef.div_ceil(2)), keep: ef };
        let search = |(scratch, query): &mut (Scratch, CodeQuery), &(_, place, entry): &(u32, u32, u32)| {
            graph.query_of(graph.row_at(at, place), query);
            scratch.entries.clear();
            scratch.entries.push(entry);
            graph.walk_along(at, query, width, scratch)?;
            let mut links = Vec::with_capacity(graph.room(at));
            graph.select(at, place, scratch.pool.iter(), &mut links);
            Ok(links)
        };
        let forward: Vec<Vec<u32>> =
            tour.par_iter().with_min_len(8).map_init(Default::default, search).collect::<Result<_>>()?;
        let mut reverse: Vec<(u32, u32)> = Vec::new();
        for (&(_, place, _), links) in tour.iter().zip(&forward) {
            self.set_links(at, place, links);
            reverse.extend(links.iter().map(|&target| (target, place)));
        }
        reverse.par_sort_unstable();
        let targets: Vec<&[(u32, u32)]> = reverse.chunk_by(|a, b| a.0 == b.0).collect();
        let graph = &*self;
        let linked: Vec<(u32, Vec<u32>)> = targets
            .par_iter()
            .with_min_len(32)
            .map_init(
                || (CodeQuery::default(), Vec::new(), Vec::new()),
                |(query, rows, scored), run| {
                    let target = run[0].0;
                    let mut links = Vec::with_capacity(graph.room(at) + run.len());
                    graph.links_at(at, target, &mut links);
                    for &(_, place) in *run {
                        if !links.contains(&place) {
                            links.push(place);
                        }
                    }
                    if links.len() > graph.room(at) {
                        graph.rank(at, target, &links, query, rows, scored);
                        graph.select(at, target, scored.iter().copied(), &mut links);
                    }
                    (target, links)
                },
            )
            .collect();
        match at {
            At::Ground => self.records.write_links(&linked),
            At::Upper(_) => linked.iter().for_each(|(target, links)| self.set_links(at, *target, links)),
        }
        Ok(())
    }

    /// Scores places against a node, best first.
    fn rank(
        &self,
        at: At,
        node: u32,
        places: &[u32],
        query: &mut CodeQuery,
        rows: &mut Vec<u32>,
        scored: &mut Vec<(f32, u32)>,
    ) {
        let records = self.records.records();
        self.query_of(self.row_at(at, node), query);
        rows.clear();
        rows.extend(places.iter().map(|&place| self.row_at(at, place)));
        prefetch_codes(&records, rows);
        let mut scores = vec![0.0; rows.len()];
        self.kernels.scores(query, &records, rows, &mut scores);
        scored.clear();
        scored.extend(scores.into_iter().zip(places.iter().copied()));
        scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    }
}
