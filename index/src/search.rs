//! The request of one search.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::Key;
use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::reader::Reader;

/// A vector that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// The vector's key.
    pub key: Key,
    /// How near: cosine, dot product, or negated squared distance. Higher is nearer, whatever the metric. Computed from the
    /// exact row, never from the code.
    pub score: f32,
}

type Filter<'a> = Box<dyn Fn(Key) -> bool + Send + Sync + 'a>;

struct Request<'a> {
    k: usize,
    ef: Option<usize>,
    recall: Option<f32>,
    filter: Option<Filter<'a>>,
    without: Option<Key>,
}

impl Request<'_> {
    fn run(&self, reader: &Reader, query: &[f32]) -> Result<Vec<Neighbor>> {
        if let Some(recall) = self.recall.filter(|r| !(0.0..=1.0).contains(r)) {
            return Err(Error::Invalid { field: "recall", found: recall.to_string(), expected: "0 to 1" });
        }
        let _ = self.ef;
        let snapshot = &reader.snapshot;
        let config = &snapshot.config;
        let query = config.metric.admit(query, config.dim)?;
        let mut found: Vec<Neighbor> = Vec::new();
        for (at, &key) in snapshot.keys.iter().enumerate() {
            if self.without == Some(key) || self.filter.as_ref().is_some_and(|f| !f(key)) {
                continue;
            }
            let pairs = query.iter().zip(snapshot.row(at));
            let score = match config.metric {
                Metric::L2 => -pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f32>(),
                _ => pairs.map(|(a, b)| a * b).sum::<f32>(),
            };
            found.push(Neighbor { key, score });
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.key.cmp(&b.key)));
        found.truncate(self.k);
        Ok(found)
    }
}

macro_rules! request_setters {
    () => {
        /// How many neighbours to return. Default 10.
        pub fn k(mut self, k: usize) -> Self {
            self.request.k = k;
            self
        }

        /// Width of the walk through the graph: wider finds more and takes longer. [`recall`](Self::recall) is the friendlier way
        /// to say the same.
        pub fn ef(mut self, ef: usize) -> Self {
            self.request.ef = Some(ef);
            self
        }

        /// The share of the true nearest neighbours that the answer should hold, 0 to 1; 1 scans everything. Default 0.95.
        pub fn recall(mut self, recall: f32) -> Self {
            self.request.recall = Some(recall);
            self
        }

        /// Only vectors whose key passes.
        pub fn filter(mut self, filter: impl Fn(Key) -> bool + Send + Sync + 'a) -> Self {
            self.request.filter = Some(Box::new(filter));
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
        Search { reader, query, request: Request { k: 10, ef: None, recall: None, filter: None, without: None } }
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
        let request = Request { k: 10, ef: None, recall: None, filter: None, without: None };
        SearchBatch { reader, queries, request }
    }

    request_setters!();

    /// Searches for every query, in rayon's current thread pool; answers are in the order of the queries.
    ///
    /// # Errors
    /// As [`Search::run`], for the first query that fails.
    pub fn run(self) -> Result<Vec<Vec<Neighbor>>> {
        self.queries.par_iter().map(|q| self.request.run(self.reader, q.as_ref())).collect()
    }
}
