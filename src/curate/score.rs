//! How well captions fit their pictures: the cosine of the two vectors, by which LAION chose its pairs.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::fresh::Fresh;
use super::{Row, rows};
use crate::catalog::Record;
use crate::collection::{ColumnKind, ParquetWriter};
use crate::engine::{Engine, Snapshot};
use crate::query::Filter;
use crate::{Error, Result};

/// Captions per call of the encoder.
const BATCH: usize = 64;

/// A picture, its caption, and how well they fit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pair {
    /// The picture; its caption is there.
    pub record: Record,
    /// Cosine of the two vectors.
    pub score: f32,
}

/// A request to score captions; ends in [`ScoreCaptions::run`].
#[must_use = "nothing is scored before `run`"]
pub struct ScoreCaptions<'a> {
    engine: &'a Engine,
    filter: Filter,
    threshold: f32,
    progress: Box<dyn FnMut(u64) + 'a>,
}

/// What was scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scored {
    /// Photos that have a caption.
    pub pairs: u64,
    /// Those whose score reaches the threshold.
    pub kept: u64,
}

impl Pair {
    /// `{"path", "key", "caption", "score"}`.
    pub fn to_json(&self) -> Value {
        let record = &self.record;
        let place = record.place_of_picture().display().to_string();
        json!({"path": place, "key": record.key, "caption": record.caption, "score": self.score})
    }
}

impl Engine {
    /// Compares every caption with its picture: a request; its `run` does it.
    pub fn score_captions(&self) -> ScoreCaptions<'_> {
        let progress = Box::new(|_| {});
        ScoreCaptions { engine: self, filter: Filter::new(), threshold: f32::NEG_INFINITY, progress }
    }
}

impl<'a> ScoreCaptions<'a> {
    /// Only photos that the filter lets pass.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Only pairs with at least this score.
    pub fn threshold(mut self, score: f32) -> Self {
        self.threshold = score;
        self
    }

    /// Hears how many photos are done, those without a caption included.
    pub fn on_progress(mut self, progress: impl FnMut(u64) + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Hands over every photo that has a caption and passes, in the order of the library. Captions that have a vector already are
    /// not embedded again.
    ///
    /// # Errors
    /// Errors of catalog, index and encoder, and what `each` returns.
    pub fn run(mut self, mut each: impl FnMut(Pair) -> Result<()>) -> Result<Scored> {
        let snapshot = self.engine.snapshot()?;
        let mut scored = Scored::default();
        let mut keep = |pair: Pair| {
            scored.pairs += 1;
            if pair.score < self.threshold {
                return Ok(());
            }
            scored.kept += 1;
            each(pair)
        };
        let (mut waiting, mut done) = (Vec::new(), 0);
        rows(&snapshot, &self.filter, |row| {
            done += 1;
            if row.record.caption.is_some() {
                waiting.push(row);
            }
            if waiting.len() < BATCH {
                return Ok(());
            }
            (self.progress)(done);
            score(&snapshot, &mut waiting, &mut keep)
        })?;
        score(&snapshot, &mut waiting, &mut keep)?;
        Ok(scored)
    }

    /// Writes the pairs to a new file: Parquet if its name ends so, JSON lines otherwise; columns as in [`Pair::to_json`].
    ///
    /// # Errors
    /// As [`ScoreCaptions::run`], and [`Error::Io`], also if the file is there: nothing is overwritten.
    pub fn write(self, path: impl AsRef<Path>) -> Result<Scored> {
        let is_parquet = path.as_ref().extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
        let fresh = Fresh::new(path.as_ref(), false)?;
        let path = fresh.at();
        let scored = if is_parquet {
            let columns = [
                ("path", ColumnKind::Text),
                ("key", ColumnKind::Integer),
                ("caption", ColumnKind::Text),
                ("score", ColumnKind::Real),
            ]
            .map(|(name, kind)| (name.to_owned(), kind));
            let mut file = ParquetWriter::create(path, &columns, None)?;
            let scored = self.run(|pair| {
                let line = pair.to_json();
                file.push(columns.iter().map(|(name, _)| line[name].clone()).collect(), &[])
            })?;
            file.finish()?;
            scored
        } else {
            let mut file = BufWriter::new(File::create(path).map_err(Error::io(path))?);
            let scored = self.run(|pair| writeln!(file, "{}", pair.to_json()).map_err(Error::io(path)))?;
            file.flush().map_err(Error::io(path))?;
            scored
        };
        fresh.finish()?;
        Ok(scored)
    }
}

fn score(snapshot: &Snapshot<'_>, waiting: &mut Vec<Row>, each: &mut impl FnMut(Pair) -> Result<()>) -> Result<()> {
    let mut vectors = Vec::new();
    for row in waiting.iter() {
        vectors.push(match &snapshot.captions {
            Some(captions) => captions.get(row.record.key)?,
            None => None,
        });
    }
    let texts: Vec<&str> = waiting
        .iter()
        .zip(&vectors)
        .filter(|(_, vector)| vector.is_none())
        .map(|(row, _)| row.record.caption.as_deref().unwrap_or_default())
        .collect();
    if !texts.is_empty() {
        let made = snapshot.encoder.encode_texts(&texts)?;
        let mut made = made.rows();
        for vector in vectors.iter_mut().filter(|vector| vector.is_none()) {
            *vector = made.next().map(<[f32]>::to_vec);
        }
    }
    for (row, vector) in waiting.drain(..).zip(vectors) {
        let score = row.vector.iter().zip(&vector.unwrap_or_default()).map(|(a, b)| a * b).sum();
        each(Pair { record: row.record, score })?;
    }
    Ok(())
}
