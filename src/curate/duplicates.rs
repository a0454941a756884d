//! Photos that are nearly the same.
//!
//! Two photos belong together if the cosine of their vectors reaches a threshold, and so do two that both belong together with a
//! third: connected components, as clip-retrieval has them. Each photo's neighbours come from the index, so a library of a
//! million costs a million searches and not the half of a million times a million comparisons.

use std::collections::{HashMap, HashSet};

use crate::Result;
use crate::catalog::{Key, Record};
use crate::engine::Engine;
use crate::query::Filter;

/// Neighbours that are looked at for each photo. Where all of them are that near, there may be more: those are looked for among so many
/// times as many, and so on.
const NEIGHBOURS: usize = 32;
const WIDER: usize = 8;

/// No further than this, beyond which groups grow together through the neighbours of their members.
const MOST: usize = NEIGHBOURS * WIDER * WIDER;

/// The share of the pairs that is looked for from either side; a pair is missed if it is missed from both.
const RECALL: f32 = 0.99;

/// From this cosine on the neighbours of two photos are the same.
const EQUAL: f32 = 0.999_999;

/// Numbers of all neighbours of a batch of searches: they bound what it takes.
const BATCH: usize = 512 * NEIGHBOURS;

/// Photos that are nearly the same.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Group {
    /// The one to keep: most pixels, then most bytes, then first in the library.
    pub keep: Record,
    /// The others, most like it first, each with the cosine of its vector and the kept one's.
    pub others: Vec<(Record, f32)>,
}

/// A request to look for duplicates; ends in [`Duplicates::run`].
#[must_use = "nothing is looked for before `run`"]
pub struct Duplicates<'a> {
    engine: &'a Engine,
    threshold: f32,
    filter: Filter,
    progress: Box<dyn FnMut(u64, u64) + 'a>,
}

impl Engine {
    /// Looks for photos that are nearly the same: a request; its `run` does it. Nothing is deleted.
    pub fn duplicates(&self) -> Duplicates<'_> {
        Duplicates { engine: self, threshold: 0.94, filter: Filter::new(), progress: Box::new(|_, _| {}) }
    }
}

impl<'a> Duplicates<'a> {
    /// The cosine from which on two photos are nearly the same. Default 0.94, as in clip-retrieval.
    pub fn threshold(mut self, cosine: f32) -> Self {
        self.threshold = cosine;
        self
    }

    /// Only among photos that the filter lets pass.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Hears how many photos are done, and of how many.
    pub fn on_progress(mut self, progress: impl FnMut(u64, u64) + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Looks at every photo. Largest groups come first.
    ///
    /// Costs one search of the index per photo, on all cores, and more where dozens of photos are nearly the same. Those searches
    /// are asked for 99 of 100 neighbours: a pair may be missed where neither finds the other and no third photo links the two.
    ///
    /// # Errors
    /// Errors of catalog and index.
    pub fn run(mut self) -> Result<Vec<Group>> {
        let snapshot = self.engine.snapshot()?;
        let allowed = snapshot.catalog.select(&self.filter)?;
        let keys: Vec<Key> = allowed.iter().collect();
        let (mut sets, mut width) = (Sets::default(), NEIGHBOURS);
        let (mut left, mut done) = (keys.clone(), 0);
        while !left.is_empty() {
            // Photos all of whose neighbours are near enough, and those who have the same neighbours as one of them.
            let (mut full, mut covered) = (Vec::new(), HashSet::new());
            for batch in left.chunks((BATCH / width).max(1)) {
                (self.progress)(done, keys.len() as u64);
                let (mut present, mut vectors) = (Vec::new(), Vec::new());
                for key in batch {
                    if let Some(vector) = snapshot.index.get(*key)? {
                        present.push(*key);
                        vectors.push(vector);
                    }
                }
                let search = snapshot.index.search_batch(&vectors).k(width).recall(RECALL);
                for (key, near) in present.into_iter().zip(search.among(&allowed).run()?) {
                    let count = near.iter().take_while(|near| near.score >= self.threshold).count();
                    near[..count].iter().filter(|near| near.key != key).for_each(|near| sets.join(key, near.key));
                    if count == width {
                        let equal: Vec<Key> =
                            near.iter().take_while(|near| near.score >= EQUAL).map(|near| near.key).collect();
                        if !equal.iter().chain([&key]).any(|key| covered.contains(key)) {
                            full.push(key);
                        }
                        covered.extend(equal.into_iter().chain([key]));
                    }
                }
                done = (done + batch.len() as u64).min(keys.len() as u64);
            }
            width *= WIDER;
            left = if width <= MOST { full } else { Vec::new() };
        }
        let mut groups = Vec::new();
        for keys in sets.groups() {
            let mut records = snapshot.catalog.records(&keys)?;
            records.sort_by_key(|record| {
                let pixels = u64::from(record.width) * u64::from(record.height);
                (std::cmp::Reverse((pixels, record.size)), record.key)
            });
            let mut records = records.into_iter();
            let Some(keep) = records.next() else { continue };
            let kept = snapshot.index.get(keep.key)?.unwrap_or_default();
            let mut others = Vec::new();
            for record in records {
                let vector = snapshot.index.get(record.key)?.unwrap_or_default();
                others.push((record, kept.iter().zip(&vector).map(|(a, b)| a * b).sum::<f32>()));
            }
            others.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.key.cmp(&b.0.key)));
            if !others.is_empty() {
                groups.push(Group { keep, others });
            }
        }
        groups.sort_by_key(|group| (std::cmp::Reverse(group.others.len()), group.keep.key));
        Ok(groups)
    }
}

/// Disjoint sets of keys.
#[derive(Debug, Default)]
struct Sets {
    parents: HashMap<Key, Key>,
}

impl Sets {
    fn root(&mut self, key: Key) -> Key {
        let mut root = key;
        while let Some(parent) = self.parents.get(&root).copied().filter(|parent| *parent != root) {
            root = parent;
        }
        let mut at = key;
        while at != root {
            at = self.parents.insert(at, root).unwrap_or(root);
        }
        root
    }

    fn join(&mut self, a: Key, b: Key) {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.parents.insert(low, low);
        self.parents.insert(high, low);
    }

    fn groups(mut self) -> Vec<Vec<Key>> {
        let keys: Vec<Key> = self.parents.keys().copied().collect();
        let mut groups: HashMap<Key, Vec<Key>> = HashMap::new();
        for key in keys {
            groups.entry(self.root(key)).or_default().push(key);
        }
        let mut groups: Vec<Vec<Key>> = groups.into_values().filter(|keys| keys.len() > 1).collect();
        groups.iter_mut().for_each(|keys| keys.sort_unstable());
        groups.sort();
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_by_way_of_others_is_one_group() {
        let mut sets = Sets::default();
        for (a, b) in [(5, 4), (1, 2), (4, 3), (9, 9), (2, 6), (3, 5)] {
            sets.join(a, b);
        }
        assert_eq!(sets.groups(), [vec![1, 2, 6], vec![3, 4, 5]]);
    }
}
