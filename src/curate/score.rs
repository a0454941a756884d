//! How well captions fit their pictures: the cosine of the two vectors, by which LAION chose its pairs.

use super::{Row, rows};
use crate::Result;
use crate::catalog::Record;
use crate::engine::{Engine, Snapshot};
use crate::query::Filter;

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
}

impl Engine {
    /// Compares every caption with its picture: a request; its `run` does it.
    pub fn score_captions(&self) -> ScoreCaptions<'_> {
        ScoreCaptions { engine: self, filter: Filter::new() }
    }
}

impl ScoreCaptions<'_> {
    /// Only photos that the filter lets pass.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Hands over every photo that has a caption, in the order of the library. Captions that have a vector already are not
    /// embedded again.
    ///
    /// # Errors
    /// Errors of catalog, index and encoder, and what `each` returns.
    pub fn run(self, mut each: impl FnMut(Pair) -> Result<()>) -> Result<()> {
        let snapshot = self.engine.snapshot()?;
        let mut waiting = Vec::new();
        rows(&snapshot, &self.filter, |row| {
            if row.record.caption.is_some() {
                waiting.push(row);
            }
            if waiting.len() == BATCH { score(&snapshot, &mut waiting, &mut each) } else { Ok(()) }
        })?;
        score(&snapshot, &mut waiting, &mut each)
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
