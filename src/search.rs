//! Query to vector to neighbours to hits.
//!
//! The filter is asked first and its answer, a set of keys, goes into the search of the index. Filtering the neighbours
//! afterwards would return too few photos, or none, whenever the filter is narrow.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::catalog::{Key, Record, absolute};
use crate::engine::{Engine, Snapshot};
use crate::image::{DecodeOptions, Photo};
use crate::model::{Encode, PixelBatch};
use crate::query::{Condition, Filter, Plan, Query, Stored, Target};
use crate::{Error, Result};

/// One answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hit {
    /// Absolute path.
    pub path: PathBuf,
    /// Dot product of the query's vector, which is not normalised, and the photo's, which is; 0 if the query has no parts.
    pub score: f32,
    /// What the catalog knows.
    pub record: Record,
}

/// A search request; ends in [`Search::run`].
#[must_use = "nothing is searched before `run`"]
pub struct Search<'a> {
    engine: &'a Engine,
    query: Result<Query>,
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
        let query = query.try_into().map_err(Error::from);
        Search { engine: self, query, limit: 20, offset: 0, min_score: None, under: Vec::new() }
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

    /// Only hits with at least this score. A query without parts has no scores and is not held to this.
    pub fn min_score(mut self, score: f32) -> Self {
        self.min_score = Some(score);
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
    /// the search of the index. The answer is exact, whatever the filter. Writes nothing.
    ///
    /// # Errors
    /// [`Error::BadQuery`]; [`Error::QueryImage`] if a picture of the query cannot be read; [`Error::SpaceMismatch`] if
    /// another process has switched the library to another model; errors of catalog, index and encoder.
    pub fn run(self) -> Result<Vec<Hit>> {
        let query = self.query?;
        let snapshot = self.engine.snapshot()?;
        let mut filter = with_stored_paths(query.filter.clone())?;
        if !self.under.is_empty() {
            filter = filter.and(Condition::Under(stored_paths(&self.under)?));
        }
        if query.parts.is_empty() {
            let records = snapshot.catalog.list(&filter, self.offset, self.limit)?;
            return Ok(records
                .into_iter()
                .map(|record| Hit { path: record.path.clone(), score: 0.0, record })
                .collect());
        }
        let Asked { direction, length, own } = ask(&query, &snapshot)?;
        let mut allowed = snapshot.catalog.select(&filter)?;
        for key in own {
            allowed.remove(key);
        }
        let k = self.offset.saturating_add(self.limit).min(allowed.len());
        if k <= self.offset {
            return Ok(Vec::new());
        }
        let near = snapshot.index.search(&direction).k(k).recall(1.0).filter(|key| allowed.contains(key)).run()?;
        let scored = near.into_iter().map(|neighbour| (neighbour.key, neighbour.score * length));
        let best = scored.skip(self.offset).take_while(|(_, score)| self.min_score.is_none_or(|least| *score >= least));
        let best: Vec<(Key, f32)> = best.collect();
        let keys: Vec<Key> = best.iter().map(|(key, _)| *key).collect();
        let scores: HashMap<Key, f32> = best.into_iter().collect();
        let hit = |record: Record| {
            let score = scores.get(&record.key).copied().unwrap_or_default();
            Hit { path: record.path.clone(), score, record }
        };
        Ok(snapshot.catalog.records(&keys)?.into_iter().map(hit).collect())
    }
}

/// A query as one vector.
struct Asked {
    /// Of length one.
    direction: Vec<f32>,
    /// What the length was: cosines times this are scores.
    length: f32,
    /// Photos of the library that the query itself names.
    own: Vec<Key>,
}

fn ask(query: &Query, snapshot: &Snapshot<'_>) -> Result<Asked> {
    let plan = Plan::new(query)?;
    let encoder = &*snapshot.encoder;
    let mut target = Target::new(encoder.space().dim);
    let mut own = Vec::new();
    if !plan.texts.is_empty() {
        let texts: Vec<&str> = plan.texts.iter().map(|(_, text)| *text).collect();
        for ((weight, text), vector) in plan.texts.iter().zip(encoder.encode_texts(&texts)?.rows()) {
            if vector.iter().all(|x| *x == 0.0) {
                return Err(mistake(format!("the model knows no word of \"{text}\"")));
            }
            target.add(*weight, vector)?;
        }
    }
    for (weight, path) in plan.files {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let vector = embed(encoder, &bytes)
            .map_err(|error| Error::QueryImage { path: path.to_path_buf(), source: Box::new(error) })?;
        target.add(weight, &vector)?;
        own.extend(snapshot.catalog.record(&absolute(path).map_err(Error::io(path))?)?.map(|record| record.key));
    }
    for (weight, bytes) in plan.pictures {
        target.add(weight, &embed(encoder, bytes)?)?;
    }
    for (weight, photo) in plan.stored {
        let key = match photo {
            Stored::Key(key) => key,
            Stored::Path(path) => find(snapshot, path)?,
        };
        let Some(vector) = snapshot.index.get(key)? else {
            return Err(mistake(format!("the library has no photo of the number {key}")));
        };
        target.add(weight, &vector)?;
        own.push(key);
    }
    for (weight, vector) in plan.vectors {
        target.add(weight, vector)?;
    }
    let (direction, length) = target.direction()?;
    Ok(Asked { direction, length, own })
}

/// The vector of a picture.
fn embed(encoder: &dyn Encode, bytes: &[u8]) -> Result<Vec<f32>> {
    let photo = Photo::decode(bytes, &DecodeOptions::default())?;
    let (height, width) = encoder.preprocess().size;
    let mut batch = PixelBatch::new(height, width);
    batch.push(&encoder.preprocess().apply(&photo)?);
    Ok(encoder.encode_images(&batch)?.as_slice().to_vec())
}

/// The one photo of the library at a path, or whose path ends so.
fn find(snapshot: &Snapshot<'_>, path: &Path) -> Result<Key> {
    if let Some(record) = snapshot.catalog.record(&absolute(path).map_err(Error::io(path))?)? {
        return Ok(record.key);
    }
    let pattern = globset::escape(&path.to_string_lossy());
    let found = snapshot.catalog.list(&Filter::new().and(Condition::Path(vec![pattern])), 0, 2)?;
    match found.as_slice() {
        [one] => Ok(one.key),
        [] => Err(mistake(format!("the library has no photo {}", path.display()))),
        [one, other, ..] => Err(mistake(format!(
            "several photos of the library are called {}: {}, {}; write more of the path",
            path.display(),
            one.path.display(),
            other.path.display()
        ))),
    }
}

/// Paths in the spelling that the catalog has.
fn stored_paths(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    paths.iter().map(|path| absolute(path).map_err(Error::io(path))).collect()
}

fn with_stored_paths(filter: Filter) -> Result<Filter> {
    fn one(condition: Condition) -> Result<Condition> {
        Ok(match condition {
            Condition::Under(paths) => Condition::Under(stored_paths(&paths)?),
            Condition::Not(inner) => Condition::Not(Box::new(one(*inner)?)),
            other => other,
        })
    }
    filter.into_iter().map(one).collect()
}

/// A mistake that has no place in the query text.
fn mistake(message: String) -> Error {
    Error::BadQuery { message, span: 0..0 }
}
