//! Candidates of one search: gathered by code score from every part, then scored exactly.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::Key;
use crate::encoding::EncodedQuery;
use crate::error::Result;
use crate::format::UPPER_NODE;
use crate::graph::{self, Level, Links, Scratch, Width};
use crate::kernel::{Kernels, prefetch_codes, prefetch_links};
use crate::metric::Metric;
use crate::plan::Walk;
use crate::segment::{Part, Segment, UpperNode};
use crate::vectors::Records;

/// A vector that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// The vector's key.
    pub key: Key,
    /// How near: cosine, dot product, or negated squared distance. Higher is nearer, whatever the metric. Computed from the
    /// exact row, never from the code.
    pub score: f32,
}

/// A row that may be among the nearest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Score by code.
    pub(crate) score: f32,
    pub(crate) part: u32,
    pub(crate) row: u32,
}

/// Rows that are scored in one call of a scan.
const CHUNK: usize = 256;

/// What one search needs; kept between searches so that few allocate.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) scratch: Scratch,
    pub(crate) query: EncodedQuery,
    pub(crate) candidates: Vec<Candidate>,
    /// Rows to scan instead of all, where that was asked for.
    pub(crate) listed: Vec<u32>,
    rows: Vec<u32>,
    scores: Vec<f32>,
    best: Vec<(f32, u32)>,
}

/// A filter over keys.
pub(crate) type Passes<'a> = &'a (dyn Fn(Key) -> bool + 'a);

/// Which rows a scan looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// All that are not removed.
    All,
    /// The rows in [`Work::listed`], which are known to pass.
    Listed,
}

/// Level 0 of a mapped graph.
struct Mapped<'a>(&'a Segment, Records<'a>);

impl Level for Mapped<'_> {
    fn records(&self) -> Records<'_> {
        self.1
    }

    fn size(&self) -> u32 {
        self.1.count
    }

    #[inline(always)]
    fn rows<'a>(&self, places: &'a [u32], _: &'a mut Vec<u32>) -> &'a [u32] {
        places
    }

    #[inline(always)]
    fn links(&self, place: u32, into: &mut Links) -> usize {
        self.1.copy_links(place, into)
    }

    #[inline(always)]
    fn check(&self, rows: &[u32]) -> Result<()> {
        self.0.check_rows(rows)
    }

    #[inline(always)]
    fn prefetch_links(&self, place: u32) {
        prefetch_links(&self.1, place);
    }
}

/// A level above 0 of a mapped graph, whose bytes are checked.
struct MappedUpper<'a> {
    segment: &'a Segment,
    records: Records<'a>,
    nodes: &'a [[u8; UPPER_NODE]],
}

impl Level for MappedUpper<'_> {
    fn records(&self) -> Records<'_> {
        self.records
    }

    fn size(&self) -> u32 {
        self.nodes.len() as u32
    }

    fn rows<'a>(&self, places: &'a [u32], into: &'a mut Vec<u32>) -> &'a [u32] {
        // A row outside is brought inside rather than followed.
        into.extend(
            places.iter().map(|&place| UpperNode(&self.nodes[place as usize]).row().min(self.records.count - 1)),
        );
        into
    }

    fn links(&self, place: u32, into: &mut Links) -> usize {
        into.iter_mut().zip(UpperNode(&self.nodes[place as usize]).links()).map(|(to, link)| *to = link).count()
    }

    fn check(&self, rows: &[u32]) -> Result<()> {
        self.segment.check_rows(rows)
    }

    fn prefetch_links(&self, _: u32) {}
}

impl graph::Upper for MappedUpper<'_> {
    fn down(&self, place: u32) -> u32 {
        // What stands there is checked where it is used: on the lowest level it is a row.
        UpperNode(&self.nodes[place as usize]).down().min(self.records.count - 1)
    }
}

/// Gathers at most `width` candidates of a part, plus their twins, by walking its graph. `false` if the walk gave up: after `budget`
/// distances under a filter, or as many twins that were refused.
pub(crate) fn walk(
    (at, part): (u32, &Part),
    kernels: &Kernels,
    passes: Option<Passes<'_>>,
    (Walk { ef, budget, spread }, width): (Walk, usize),
    work: &mut Work,
) -> Result<bool> {
    let segment = &*part.segment;
    let records = segment.records();
    let nodes = segment.upper_nodes()?;
    let uppers = segment.levels().map(|(_, places)| MappedUpper {
        segment,
        records,
        nodes: &nodes[places.start as usize..places.end as usize],
    });
    graph::descend(uppers, kernels, &work.query.codes, spread, &mut work.scratch)?;
    let level = Mapped(segment, records);
    let accepts = |row: u32| !part.removed.contains(row) && passes.is_none_or(|passes| passes(records.key(row)));
    let gone = part.removed.count();
    // Equal vectors may be as many as there are, and all but the last may be refused.
    let mut refusals = budget.max(1);
    // With few rows removed at random a wider plain walk is cheaper than one that asks at every step.
    if passes.is_none() && gone <= segment.count() / 2 {
        let wider = |width: usize| width.saturating_mul(segment.count() as usize) / part.live().max(1) as usize;
        let width = Width { open: wider(ef), keep: wider(ef.max(width)) };
        graph::beam(&level, kernels, &work.query.codes, width, &mut work.scratch)?;
    } else {
        let mut failed = None;
        let mut accept = |row: u32| {
            let mut next = Some(row);
            while let Some(row) = next {
                // The row itself was checked when it was scored; its twins were not.
                if let Err(e) = segment.check_record(row) {
                    failed = Some(e);
                    return false;
                }
                if accepts(row) {
                    return true;
                }
                next = records.twin(row).filter(|_| refusals > 0);
                refusals -= usize::from(next.is_some());
            }
            false
        };
        let bounds = (Width { open: ef, keep: ef.max(width) }, budget);
        let done = graph::beam_accepting(&level, kernels, &work.query.codes, bounds, &mut accept, &mut work.scratch)?;
        if let Some(error) = failed {
            return Err(error);
        }
        if !done || refusals == 0 {
            return Ok(false);
        }
    }
    graph::settle(&level, kernels, &work.query.codes, &mut work.scratch);
    let before = work.candidates.len();
    // All that a wide walk found may be looked at, so that bursts, whose codes are equal, are told apart.
    let (mut taken, width) = (0, width.max(ef));
    for (score, row) in work.scratch.pool.iter() {
        if taken >= width {
            break;
        }
        let mut next = Some(row);
        let mut twins = 0;
        while let Some(row) = next.filter(|_| twins < width) {
            segment.check_record(row)?;
            let accepted = accepts(row);
            if accepted {
                work.candidates.push(Candidate { score, part: at, row });
                twins += 1;
            }
            next = records.twin(row).filter(|_| refusals > 0);
            refusals -= usize::from(next.is_some() && !accepted);
        }
        if refusals == 0 {
            work.candidates.truncate(before);
            return Ok(false);
        }
        taken += usize::from(twins > 0);
    }
    Ok(true)
}

/// Calls `each` with the rows that may be found and their scores, in chunks.
fn scan_chunks(
    part: &Part,
    kernels: &Kernels,
    among: Rows,
    work: &mut Work,
    mut each: impl FnMut(&[u32], &[f32], &mut Vec<(f32, u32)>),
) -> Result<()> {
    let segment = &*part.segment;
    let records = segment.records();
    work.scores.resize(CHUNK, 0.0);
    if let Rows::Listed = among {
        for rows in work.listed.chunks(CHUNK) {
            prefetch_codes(&records, rows);
            rows.iter().try_for_each(|&row| segment.check_record(row))?;
            kernels.scores(&work.query.codes, &records, rows, &mut work.scores);
            each(rows, &work.scores, &mut work.best);
        }
        return Ok(());
    }
    let mut start = 0;
    while start < records.count {
        let end = records.count.min(start + CHUNK as u32);
        segment.check_records(start..end)?;
        work.rows.clear();
        work.rows.extend((start..end).filter(|&row| !part.removed.contains(row)));
        kernels.scores(&work.query.codes, &records, &work.rows, &mut work.scores);
        each(&work.rows, &work.scores, &mut work.best);
        start = end;
    }
    Ok(())
}

fn descending(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Gathers the best `width` candidates of a part by scanning its codes.
pub(crate) fn scan(
    (at, part): (u32, &Part),
    kernels: &Kernels,
    among: Rows,
    width: usize,
    work: &mut Work,
) -> Result<()> {
    work.best.clear();
    let mut least = f32::NEG_INFINITY;
    let room = 2 * width + CHUNK;
    scan_chunks(part, kernels, among, work, |rows, scores, best| {
        for (&row, &score) in rows.iter().zip(scores) {
            if score > least {
                best.push((score, row));
            }
        }
        if best.len() > room {
            best.select_nth_unstable_by(width - 1, descending);
            best.truncate(width);
            least = best[width - 1].0;
        }
    })?;
    if work.best.len() > width {
        work.best.select_nth_unstable_by(width - 1, descending);
        work.best.truncate(width);
    }
    let found = work.best.iter().map(|&(score, row)| Candidate { score, part: at, row });
    work.candidates.extend(found);
    Ok(())
}

/// Gathers every row of a part that can be among the `k` nearest, given how far a code score can be off.
pub(crate) fn scan_proven(
    (at, part): (u32, &Part),
    kernels: &Kernels,
    among: Rows,
    k: usize,
    work: &mut Work,
) -> Result<()> {
    work.best.clear();
    let bound = Bound::new(part, &work.query, work.query.error);
    let mut sure = Sure::new(k);
    scan_chunks(part, kernels, among, work, |rows, scores, best| {
        for (&row, &score) in rows.iter().zip(scores) {
            if let Some(most) = sure.admit(score, bound.of(score, row)) {
                best.push((most, row));
            }
        }
    })?;
    sure.keep(&mut work.best);
    // A query from elsewhere has a few large numbers and the steps of its code are coarse: look again with finer steps before
    // the exact rows are read, which are far away and four times as long.
    if work.best.len() > REFINED + 4 * k {
        part.segment.encoding.refine(&mut work.query);
        let records = part.segment.records();
        let rows: Vec<u32> = work.best.drain(..).map(|(_, row)| row).collect();
        let bound = Bound::new(part, &work.query, work.query.fine_error);
        let mut sure = Sure::new(k);
        let mut fine = [0.0; CHUNK];
        for rows in rows.chunks(CHUNK) {
            kernels.scores(&work.query.codes, &records, rows, &mut work.scores);
            kernels.scores(&work.query.fine, &records, rows, &mut fine);
            for ((&row, &coarse), fine) in rows.iter().zip(&work.scores).zip(fine) {
                let score = coarse + (fine - records.bias(row));
                if let Some(most) = sure.admit(score, bound.of(score, row)) {
                    work.best.push((most, row));
                }
            }
        }
        sure.keep(&mut work.best);
    }
    // The candidate carries the best score that its row can have.
    work.candidates.extend(work.best.iter().map(|&(score, row)| Candidate { score, part: at, row }));
    Ok(())
}

/// Candidates from which on a second look by code pays.
const REFINED: usize = 100;

/// How far the score of a code can be off: by Cauchy and Schwarz, with a little for the rounding of the sums themselves.
struct Bound<'a> {
    records: Records<'a>,
    factor: f32,
    reach: f32,
    length: f32,
    lost: f32,
    offset: f32,
}

impl<'a> Bound<'a> {
    /// `lost` is the length of what the codes of the query leave out.
    fn new(part: &'a Part, query: &EncodedQuery, lost: f32) -> Bound<'a> {
        let segment = &part.segment;
        let (factor, reach) = (segment.encoding.factor(), segment.footer.reach);
        Bound {
            records: segment.records(),
            factor,
            reach,
            length: query.length,
            lost,
            offset: query.codes.offset.abs(),
        }
    }

    #[inline]
    fn of(&self, score: f32, row: u32) -> f32 {
        let error = self.records.error(row);
        let codes = self.factor * (self.length * error + self.lost * (self.reach + error));
        codes * 1.001 + 1e-5 * (score.abs() + self.offset + self.records.bias(row).abs())
    }
}

/// The k best of the scores that rows have at least: what cannot reach the last of them is out.
struct Sure {
    k: usize,
    scores: BinaryHeap<Reverse<Score>>,
    least: f32,
}

impl Sure {
    fn new(k: usize) -> Sure {
        Sure { k, scores: BinaryHeap::new(), least: f32::NEG_INFINITY }
    }

    /// The most that the score can be, unless that is too little. A bound that is not a number lets the row in.
    #[inline]
    fn admit(&mut self, score: f32, bound: f32) -> Option<f32> {
        let most = score + bound;
        if most < self.least {
            return None;
        }
        self.scores.push(Reverse(Score(score - bound)));
        if self.scores.len() > self.k {
            self.scores.pop();
            self.least = self.scores.peek().map_or(self.least, |last| last.0.0);
        }
        Some(most)
    }

    /// Drops rows that were let in before it was known that they have no chance.
    fn keep(&self, rows: &mut Vec<(f32, u32)>) {
        rows.retain(|&(most, _)| most >= self.least || most.is_nan());
    }
}

/// A score in a heap.
#[derive(PartialEq)]
struct Score(f32);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Score) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Score) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Exact rows that are fetched ahead of the one that is scored, their pages being known: on a Zen 3 one is as good as two, and ten at once
/// took a twentieth of a search for images longer.
const FETCHED: usize = 1;
/// Candidates per neighbour whose pages are asked for before all, in tenths: about as many as are scored.
const PAGES_TENTHS: usize = 12;
/// No more than the TLB has room for.
const PAGES: usize = 256;

/// Standard errors of a code score beyond which a row is not looked at exactly. On CLIP images and texts two leave out one of
/// 10,000 neighbours that four would find, and read an eighth fewer rows for images, two fifths fewer for texts.
const DOUBT: f32 = 2.0;

/// Scores the candidates from their exact rows, best first, and returns the best `k`. It stops where the rest is too far behind for
/// its codes to be that wrong; with `proven`, where its best possible scores are.
pub(crate) fn rescore(
    parts: &[Part],
    kernels: &Kernels,
    query: &[f32],
    k: usize,
    proven: bool,
    work: &mut Work,
) -> Result<Vec<Neighbor>> {
    let by_score =
        |a: &Candidate, b: &Candidate| b.score.total_cmp(&a.score).then((a.part, a.row).cmp(&(b.part, b.row)));
    work.candidates.sort_unstable_by(by_score);
    let mut found: Vec<Neighbor> = Vec::with_capacity(k.min(work.candidates.len()) + 1);
    let mut best: BinaryHeap<Reverse<Score>> = BinaryHeap::new();
    let ahead = |at: usize| {
        if let Some(c) = work.candidates.get(at) {
            parts[c.part as usize].segment.prefetch_row(c.row);
        }
    };
    let pages = work.candidates.iter().take((k.saturating_mul(PAGES_TENTHS) / 10).min(PAGES));
    pages.for_each(|c| parts[c.part as usize].segment.prefetch_page(c.row));
    (0..FETCHED).for_each(ahead);
    for (at, candidate) in work.candidates.iter().enumerate() {
        ahead(at + FETCHED);
        let segment = &*parts[candidate.part as usize].segment;
        let records = segment.records();
        if best.len() >= k {
            let error = records.error(candidate.row);
            // Not `hypot`, which is a call: none of these overflows.
            let (own, other) = (work.query.length * error, work.query.error * segment.footer.reach);
            let lost = (own * own + other * other).sqrt();
            let doubt = DOUBT * segment.encoding.factor() * lost / (query.len() as f32).sqrt();
            let doubt = if proven { 0.0 } else { doubt };
            if best.peek().is_some_and(|least| candidate.score + doubt < least.0.0) {
                break;
            }
        }
        let row = segment.row(candidate.row)?;
        let score = match segment.footer.metric {
            Metric::L2 => -kernels.l2(query, row, segment.footer.rows),
            _ => kernels.dot(query, row, segment.footer.rows),
        };
        found.push(Neighbor { key: records.key(candidate.row), score });
        best.push(Reverse(Score(score)));
        if best.len() > k {
            best.pop();
        }
    }
    found.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.key.cmp(&b.key)));
    found.truncate(k);
    Ok(found)
}
