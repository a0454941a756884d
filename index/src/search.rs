//! The request of one search, and how it is carried out.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::Key;
use crate::collect::{self, Neighbor, Passes, Rows, Work};
use crate::encoding::{Admit, EncodedQuery, Encoding};
use crate::error::{Error, Result};
use crate::format::KEY_ENTRY;
use crate::kernel::Wide;
use crate::keys::KeySet;
use crate::plan::{Plan, Target, listing_pays, plan};
use crate::reader::Reader;
use crate::segment::{Part, key_and_row};

/// A closure over keys that can be asked about one key or about a whole table of them. The loop over the table is compiled together
/// with the closure, so that asking it about every key costs about as much as reading them: that is what a selective filter needs.
trait Pass: Send + Sync {
    fn one(&self, key: Key) -> bool;
    /// Appends the rows whose keys pass.
    fn list(&self, table: &[[u8; KEY_ENTRY]], rows: &mut Vec<u32>);
}

impl<F: Fn(Key) -> bool + Send + Sync> Pass for F {
    fn one(&self, key: Key) -> bool {
        self(key)
    }

    fn list(&self, table: &[[u8; KEY_ENTRY]], rows: &mut Vec<u32>) {
        let mut many = false;
        for entries in table.chunks(ASKED as usize) {
            let start = rows.len();
            if many {
                // Which ones pass is as good as random: no branch depends on it.
                rows.resize(start + entries.len(), 0);
                let room = &mut rows[start..];
                let mut passed = 0;
                for entry in entries {
                    let (key, row) = key_and_row(entry);
                    room[passed] = row;
                    passed += usize::from(self(key));
                }
                rows.truncate(start + passed);
            } else {
                for entry in entries {
                    let (key, row) = key_and_row(entry);
                    if self(key) {
                        rows.push(row);
                    }
                }
            }
            many = rows.len() - start > entries.len() / 16;
        }
    }
}

enum Filter<'a> {
    Closure(Box<dyn Pass + 'a>),
    Among(&'a KeySet),
}

impl Filter<'_> {
    fn passes(&self, key: Key) -> bool {
        match self {
            Filter::Closure(closure) => closure.one(key),
            Filter::Among(set) => set.contains(key),
        }
    }

    fn list(&self, table: &[[u8; KEY_ENTRY]], rows: &mut Vec<u32>) {
        match self {
            Filter::Closure(closure) => closure.list(table, rows),
            Filter::Among(set) => (|key| set.contains(key)).list(table, rows),
        }
    }
}

struct Request<'a> {
    k: usize,
    target: Target,
    filter: Option<Filter<'a>>,
    without: Option<Key>,
}

/// Rows that a filter is asked about to learn how many pass.
const ASKED: u32 = 200;
/// Candidates that are scored exactly: at least this many, at least so many per neighbour.
const RESCORED: usize = 30;
const RESCORED_PER_K: usize = 3;

/// A query into code.
struct EncodeQuery<'a>(&'a Encoding, &'a [f32], &'a mut EncodedQuery);

impl Wide for EncodeQuery<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.0.query(self.1, self.2);
    }
}

impl Request<'_> {
    fn new() -> Self {
        Request { k: 10, target: Target::Recall(0.95), filter: None, without: None }
    }

    fn run(&self, reader: &Reader, query: &[f32]) -> Result<Vec<Neighbor>> {
        if let Target::Recall(recall) = self.target
            && !(0.0..=1.0).contains(&recall)
        {
            return Err(Error::Invalid { field: "recall", found: recall.to_string(), expected: "0 to 1" });
        }
        let config = reader.config();
        let query = reader.kernels().wide(Admit(config.metric, config.dim, query))?;
        // More than there are cannot be found, and must not be reserved.
        let k = self.k.min(reader.len() as usize);
        if k == 0 {
            return Ok(Vec::new());
        }
        let mut work = reader.take_work();
        let found = self.collect(reader, &query, k, &mut work);
        reader.give_work(work);
        found
    }

    fn collect(&self, reader: &Reader, query: &[f32], k: usize, work: &mut Work) -> Result<Vec<Neighbor>> {
        let kernels = reader.kernels();
        let parts = reader.parts();
        let target = if self.target == Target::Recall(1.0) { Target::Exact } else { self.target };
        let all = |key| self.without != Some(key) && self.filter.as_ref().is_none_or(|filter| filter.passes(key));
        let passes: Option<Passes<'_>> =
            if self.filter.is_some() || self.without.is_some() { Some(&all) } else { None };
        // Leaving out one key is no filter worth planning for: one more candidate, and the walk stays plain.
        let (gather, wanted) =
            if self.filter.is_some() { (passes, k) } else { (None, k + usize::from(passes.is_some())) };
        let width = RESCORED.max(RESCORED_PER_K * wanted);
        work.candidates.clear();
        let mut centre: &[f32] = &[];
        for (at, part) in (0..).zip(parts) {
            if part.live() == 0 {
                continue;
            }
            if part.segment.encoding.centre() != centre {
                kernels.wide(EncodeQuery(&part.segment.encoding, query, &mut work.query));
                centre = part.segment.encoding.centre();
            }
            let mut rows = Rows::All;
            if let Some(Filter::Among(set)) = self.filter
                && listing_pays(part, set.len())
            {
                work.listed.clear();
                for key in set.iter().filter(|&key| self.without != Some(key)) {
                    work.listed.extend(part.find(key)?);
                }
                rows = Rows::Listed;
            }
            let mut walked = false;
            if target != Target::Exact {
                let passing = match (rows, gather) {
                    (Rows::Listed, _) => work.listed.len() as f32 / part.segment.count() as f32,
                    (_, Some(passes)) => passing(part, passes)?,
                    _ => part.live() as f32 / part.segment.count() as f32,
                };
                let bias = work.query.codes.offset - part.segment.encoding.constant();
                let asks = rows == Rows::All && self.filter.is_some();
                if let Plan::Walk(walk) = plan(part, target, wanted, passing, asks, bias) {
                    walked = collect::walk((at, part), kernels, gather, (walk, width), work)?;
                }
            }
            if walked {
                continue;
            }
            if let Some(filter) = &self.filter
                && rows == Rows::All
            {
                self.list(part, filter, &mut work.listed)?;
                rows = Rows::Listed;
            }
            if target == Target::Exact {
                collect::scan_proven((at, part), kernels, rows, wanted, work)?;
            } else {
                collect::scan((at, part), kernels, rows, width, work)?;
            }
        }
        if let (None, Some(without)) = (&self.filter, self.without) {
            work.candidates.retain(|c| parts[c.part as usize].segment.records().key(c.row) != without);
        }
        collect::rescore(parts, kernels, query, k, target == Target::Exact, work)
    }

    /// The rows of a part that may be found.
    fn list(&self, part: &Part, filter: &Filter<'_>, rows: &mut Vec<u32>) -> Result<()> {
        rows.clear();
        filter.list(part.segment.key_table()?, rows);
        if part.removed.count() > 0 {
            rows.retain(|&row| !part.removed.contains(row));
        }
        if let Some(row) = self.without.map(|key| part.segment.find(key)).transpose()?.flatten() {
            rows.retain(|&other| other != row);
        }
        part.segment.check_inside(rows)
    }
}

/// The share of a part's rows that may be found, from a sample. Keys are read from the key table, where they lie close together:
/// one out of each of equal stretches, not at the same place of each, because keys are often dense and filters periodic.
fn passing(part: &Part, passes: Passes<'_>) -> Result<f32> {
    let table = part.segment.key_table()?;
    let asked = (ASKED as usize).min(table.len());
    let passed = (0..asked).filter(|&at| {
        let stretch = at * table.len() / asked..(at + 1) * table.len() / asked;
        let along = ((at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
        let (key, row) = key_and_row(&table[stretch.start + along % stretch.len()]);
        !part.removed.contains(row) && passes(key)
    });
    Ok(passed.count() as f32 / asked.max(1) as f32)
}

macro_rules! request_setters {
    () => {
        /// How many neighbours to return. Default 10.
        pub fn k(mut self, k: usize) -> Self {
            self.request.k = k;
            self
        }

        /// Width of the walk through the graph: wider finds more and takes longer. [`recall`](Self::recall) is the friendlier
        /// way to say the same; the later call of the two counts.
        pub fn ef(mut self, ef: usize) -> Self {
            self.request.target = Target::Ef(ef.max(1));
            self
        }

        /// The share of the true nearest neighbours that the answer should hold on average, 0 to 1, by what was measured when
        /// the graph was built. At 1 everything is scanned and the answer is proven to be exact. Default 0.95.
        pub fn recall(mut self, recall: f32) -> Self {
            self.request.target = Target::Recall(recall);
            self
        }

        /// Only vectors whose key passes. The closure is called for a sample first, then for the keys that the search meets: all
        /// of them where few pass.
        pub fn filter(mut self, filter: impl Fn(Key) -> bool + Send + Sync + 'a) -> Self {
            self.request.filter = Some(Filter::Closure(Box::new(filter)));
            self
        }

        /// Only vectors whose key is in the set. Where the set is small its members are looked up, and nothing else is touched.
        /// Takes the place of a [`filter`](Self::filter), and the other way round: the later call counts.
        pub fn among(mut self, keys: &'a KeySet) -> Self {
            self.request.filter = Some(Filter::Among(keys));
            self
        }
    };
}

/// A search in the making; [`Search::run`] does it.
#[must_use = "a search does nothing before `run`"]
pub struct Search<'a> {
    reader: &'a Reader,
    query: Cow<'a, [f32]>,
    request: Request<'a>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(reader: &'a Reader, query: Cow<'a, [f32]>) -> Self {
        Search { reader, query, request: Request::new() }
    }

    pub(crate) fn without(mut self, key: Key) -> Self {
        self.request.without = Some(key);
        self
    }

    request_setters!();

    /// Searches. The best comes first; equal scores are ordered by key.
    ///
    /// # Errors
    /// [`Error::Dimension`], [`Error::NotFinite`], [`Error::ZeroVector`] for the query; [`Error::Corrupt`] where damaged bytes
    /// would have shaped the answer.
    pub fn run(self) -> Result<Vec<Neighbor>> {
        self.request.run(self.reader, &self.query)
    }
}

/// Many searches in the making; [`SearchBatch::run`] does them on all cores.
#[must_use = "a search does nothing before `run`"]
pub struct SearchBatch<'a, Q> {
    reader: &'a Reader,
    queries: &'a [Q],
    request: Request<'a>,
}

impl<'a, Q: AsRef<[f32]> + Sync> SearchBatch<'a, Q> {
    pub(crate) fn new(reader: &'a Reader, queries: &'a [Q]) -> Self {
        SearchBatch { reader, queries, request: Request::new() }
    }

    request_setters!();

    /// Searches for every query, in rayon's current thread pool; answers are in the order of the queries.
    ///
    /// # Errors
    /// As [`Search::run`], for one of the queries that fail.
    pub fn run(self) -> Result<Vec<Vec<Neighbor>>> {
        self.queries.par_iter().map(|q| self.request.run(self.reader, q.as_ref())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Index, Metric};

    #[test]
    fn a_periodic_filter_over_dense_keys_is_sampled_as_what_it_passes() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { dim: 2, metric: Metric::L2, links: 4, build_ef: 8, ..Config::default() };
        let mut writer = Index::create(dir.path(), config).unwrap().writer().unwrap();
        for key in 0..20_000 {
            writer.add(key, &[(key % 141) as f32, (key / 141) as f32]).unwrap();
        }
        writer.commit().unwrap();
        let reader = Index::open(dir.path()).unwrap().reader().unwrap();
        let [part] = reader.parts() else { panic!("one graph of all") };
        for every in [2, 3, 5, 10, 20, 50, 64, 100] {
            for rest in [0, 1, every - 1] {
                let expected = 1.0 / every as f32;
                let passing = passing(part, &|key| key % every == rest).unwrap();
                let deviation = (expected * (1.0 - expected) / ASKED as f32).sqrt();
                assert!((passing - expected).abs() < 3.0 * deviation, "one of {every}: {passing}");
                let plan = plan(part, Target::Ef(30), 10, passing, true, 0.0);
                match every {
                    2..=5 => assert!(matches!(plan, Plan::Walk(_)), "one of {every}: {plan:?}"),
                    50.. => assert_eq!(plan, Plan::Scan, "one of {every}"),
                    _ => {}
                }
            }
        }
    }
}
