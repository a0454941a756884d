//! The request of a search.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use tintype_index::KeySet;

use super::ask::{Asked, ask, mistake, stored_paths, with_stored_paths};
use super::fuse::fuse;
use crate::catalog::{Key, Record};
use crate::engine::{Engine, Snapshot};
use crate::query::{Condition, Filter, Query, Term};
use crate::{Error, Result};

/// Photos of each ranking that a hybrid search fuses. The same for every page: the score of a photo must not depend on how many
/// are asked for.
const DEPTH: usize = 1000;

/// One answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hit {
    /// Absolute path, or the address in a collection: see [`Record::path`].
    pub path: PathBuf,
    /// By [`Ranking::Image`] and [`Ranking::Caption`] the dot product of the query's vector, which is not normalised, and the
    /// photo's, which is; see [`Ranking`] for the others. 0 if the query only filters.
    pub score: f32,
    /// What the catalog knows.
    pub record: Record,
}

/// What photos are ranked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ranking {
    /// The vectors of the pictures. A query of `text:` conditions alone is ranked by words.
    #[default]
    Image,
    /// The vectors of the captions: finds captions that mean the same, in the way of clip-retrieval's text index.
    Caption,
    /// The words of captions and file names, by BM25; the score is the higher the better.
    Words,
    /// All of these that the library has, by reciprocal rank fusion; the score is the sum of 1 ÷ (60 + rank) over the best
    /// thousand of each. What is in none of them follows by its picture alone.
    Hybrid,
}

/// A search request; ends in [`Search::run`].
#[must_use = "nothing is searched before `run`"]
pub struct Search<'a> {
    engine: &'a Engine,
    query: Result<Query>,
    ranking: Ranking,
    recall: f32,
    limit: usize,
    offset: usize,
    min_score: Option<f32>,
    under: Vec<PathBuf>,
}

impl Engine {
    /// Looks for photos: a request; its `run` does it. Takes query text or a [`Query`].
    ///
    /// ```no_run
    /// # fn example(engine: &tintype::Engine) -> tintype::Result<()> {
    /// for hit in engine.search("a dog on the beach -leash after:2024").limit(20).run()? {
    ///     println!("{:.3} {}", hit.score, hit.path.display());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn search<Q: TryInto<Query>>(&self, query: Q) -> Search<'_>
    where
        Error: From<Q::Error>,
    {
        Search {
            engine: self,
            query: query.try_into().map_err(Error::from),
            ranking: Ranking::Image,
            recall: 1.0,
            limit: 20,
            offset: 0,
            min_score: None,
            under: Vec::new(),
        }
    }
}

impl Search<'_> {
    /// At most so many hits. Default 20.
    pub fn limit(mut self, hits: usize) -> Self {
        self.limit = hits;
        self
    }

    /// Leaves out the best so many. Default 0.
    pub fn offset(mut self, hits: usize) -> Self {
        self.offset = hits;
        self
    }

    /// Only hits with at least this score. A query that only filters has no scores and is not held to this.
    pub fn min_score(mut self, score: f32) -> Self {
        self.min_score = Some(score);
        self
    }

    /// What photos are ranked by. Default [`Ranking::Image`].
    pub fn ranking(mut self, ranking: Ranking) -> Self {
        self.ranking = ranking;
        self
    }

    /// The share of the best photos that the answer should hold on average, 0 to 1. Default 1: the answer is exact, and the
    /// time grows with the library. Below that the graph of the index is walked where it is faster than looking at every vector.
    pub fn recall(mut self, recall: f32) -> Self {
        self.recall = recall;
        self
    }

    /// Only photos at or below one of these paths; none means all.
    pub fn under(mut self, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        self.under.extend(paths.into_iter().map(|path| path.as_ref().to_path_buf()));
        self
    }

    /// Searches. The best hit comes first; without parts in the query, the newest photo. No path occurs twice.
    ///
    /// Costs a pass through the towers for each text and picture of the query, a look into the catalog for the filter, and
    /// the search of the index. The answer is exact, whatever the filter, unless [`Search::recall`] asks for less. Writes nothing.
    ///
    /// # Errors
    /// [`Error::BadQuery`], for a ranking too that the library has nothing for; [`Error::QueryImage`] if a picture of the query
    /// cannot be read; [`Error::SpaceMismatch`] if another process has switched the library to another model; errors of catalog,
    /// index and encoder.
    pub fn run(self) -> Result<Vec<Hit>> {
        let snapshot = self.engine.snapshot()?;
        let best = match self.find(&snapshot)? {
            Found::Listed(records) => {
                let hit = |record: Record| Hit { path: record.path.clone(), score: 0.0, record };
                return Ok(records.into_iter().map(hit).collect());
            }
            Found::Ranked(best) => best,
        };
        let keys: Vec<Key> = best.iter().map(|(key, _)| *key).collect();
        let scores: HashMap<Key, f32> = best.into_iter().collect();
        let hit = |record: Record| {
            let score = scores.get(&record.key).copied().unwrap_or_default();
            Hit { path: record.path.clone(), score, record }
        };
        Ok(snapshot.catalog.records(&keys)?.into_iter().map(hit).collect())
    }

    /// As [`Search::run`], but keys and scores only: for long lists of which few are looked at.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub fn keys(self) -> Result<Vec<(Key, f32)>> {
        let snapshot = self.engine.snapshot()?;
        Ok(match self.find(&snapshot)? {
            Found::Listed(records) => records.into_iter().map(|record| (record.key, 0.0)).collect(),
            Found::Ranked(best) => best,
        })
    }

    fn find(self, snapshot: &Snapshot<'_>) -> Result<Found> {
        let query = self.query?;
        let mut filter = with_stored_paths(query.filter.clone())?;
        if !self.under.is_empty() {
            filter = filter.and(Condition::Under(stored_paths(&self.under)?));
        }
        let most = self.offset.saturating_add(self.limit);
        let words = Words::of(&query);
        let best = if query.parts.is_empty() && words.demanded.is_empty() {
            return snapshot.catalog.list(&filter, self.offset, self.limit).map(Found::Listed);
        } else if query.parts.is_empty() {
            words.rank(snapshot, &filter, most)?.unwrap_or_default()
        } else {
            let engine = self.engine;
            let near =
                |which| Nearest { engine, snapshot, query: &query, filter: &filter, recall: self.recall }.rank(which);
            match self.ranking {
                Ranking::Image => near(&[(&snapshot.index, most)])?.remove(0),
                Ranking::Caption => near(&[(captions(snapshot)?, most)])?.remove(0),
                Ranking::Words => words.rank(snapshot, &filter, most)?.ok_or_else(no_words)?,
                Ranking::Hybrid => {
                    let mut indexes = vec![(&snapshot.index, DEPTH)];
                    indexes.extend(snapshot.captions.as_ref().map(|captions| (captions, DEPTH)));
                    if most > DEPTH {
                        indexes.push((&snapshot.index, most));
                    }
                    let keys = |ranking: Vec<(Key, f32)>| ranking.into_iter().map(|(key, _)| key).collect();
                    let mut rankings: Vec<Vec<Key>> = near(&indexes)?.into_iter().map(keys).collect();
                    let deep = if most > DEPTH { rankings.pop() } else { None };
                    rankings.extend(words.rank(snapshot, &filter, DEPTH)?.map(keys));
                    fuse(&rankings, &deep.unwrap_or_default())
                }
            }
        };
        let page = best.into_iter().skip(self.offset).take(self.limit);
        Ok(Found::Ranked(page.take_while(|(_, score)| self.min_score.is_none_or(|least| *score >= least)).collect()))
    }
}

enum Found {
    /// Newest first.
    Listed(Vec<Record>),
    /// Best first.
    Ranked(Vec<(Key, f32)>),
}

/// A search by vectors.
struct Nearest<'a> {
    engine: &'a Engine,
    snapshot: &'a Snapshot<'a>,
    query: &'a Query,
    filter: &'a Filter,
    recall: f32,
}

impl Nearest<'_> {
    /// Of each index so many keys, best first.
    fn rank(&self, indexes: &[(&tintype_index::Reader, usize)]) -> Result<Vec<Vec<(Key, f32)>>> {
        let Asked { direction, length, own } = ask(self.query, self.snapshot)?;
        let live = self.engine.live(&self.snapshot.catalog)?;
        let selected: KeySet;
        let allowed: &KeySet = if self.filter.is_empty() {
            &live
        } else {
            selected = self.snapshot.catalog.select(self.filter)?;
            &selected
        };
        let own: BTreeSet<Key> = own.into_iter().filter(|key| allowed.contains(*key)).collect();
        let mut rankings = Vec::new();
        for (index, most) in indexes {
            let k = (*most).min(allowed.len() - own.len());
            if k == 0 {
                rankings.push(Vec::new());
                continue;
            }
            let near = index.search(&direction).k(k + own.len()).recall(self.recall).among(allowed).run()?;
            let others = near.into_iter().filter(|neighbour| !own.contains(&neighbour.key)).take(k);
            rankings.push(others.map(|neighbour| (neighbour.key, neighbour.score * length)).collect());
        }
        Ok(rankings)
    }
}

/// What a query says in words.
struct Words<'q> {
    /// Texts that pictures should look like: any of their words may match.
    wanted: Vec<&'q str>,
    /// Texts of `text:` conditions: all of their words match anyway.
    demanded: Vec<&'q str>,
}

impl<'q> Words<'q> {
    fn of(query: &'q Query) -> Words<'q> {
        let wanted = query.parts.iter().filter(|part| part.weight > 0.0).filter_map(|part| match &part.term {
            Term::Text(text) => Some(text.as_str()),
            _ => None,
        });
        let demanded = query.filter.conditions().iter().filter_map(|condition| match condition {
            Condition::Mentions(text) => Some(text.as_str()),
            _ => None,
        });
        Words { wanted: wanted.collect(), demanded: demanded.collect() }
    }

    /// By BM25, best first; none if there are no words.
    fn rank(&self, snapshot: &Snapshot<'_>, filter: &Filter, most: usize) -> Result<Option<Vec<(Key, f32)>>> {
        let (texts, every) = if self.wanted.is_empty() { (&self.demanded, true) } else { (&self.wanted, false) };
        let ranked = snapshot.catalog.ranked_by_words(texts, every, filter, most)?;
        // SQLite's rank is negative, the best the lowest.
        Ok(ranked.map(|ranked| ranked.into_iter().map(|(key, rank)| (key, -rank as f32)).collect()))
    }
}

fn captions<'a>(snapshot: &'a Snapshot<'_>) -> Result<&'a tintype_index::Reader> {
    snapshot
        .captions
        .as_ref()
        .ok_or_else(|| mistake("this library has no vectors of captions; `index --captions` makes them".to_owned()))
}

fn no_words() -> Error {
    mistake("there are no words in this query that captions could be searched for".to_owned())
}
