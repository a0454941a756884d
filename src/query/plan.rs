//! [`Query`] to the one vector to look for: what must be embedded or fetched first, then the weighted sum.

use std::path::Path;

use super::{Query, Term};
use crate::catalog::Key;
use crate::{Error, Result};

/// The terms of a query, sorted by where their vectors come from; each keeps its weight.
#[derive(Debug, Default)]
pub(crate) struct Plan<'q> {
    /// For the text tower, in one batch.
    pub(crate) texts: Vec<(f32, &'q str)>,
    /// For the image tower.
    pub(crate) files: Vec<(f32, &'q Path)>,
    /// For the image tower.
    pub(crate) pictures: Vec<(f32, &'q [u8])>,
    /// For the index.
    pub(crate) stored: Vec<(f32, Stored<'q>)>,
    /// At hand.
    pub(crate) vectors: Vec<(f32, &'q [f32])>,
}

/// A photo of the library.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stored<'q> {
    /// By key.
    Key(Key),
    /// By path, or the end of it.
    Path(&'q Path),
}

impl<'q> Plan<'q> {
    /// Sorts the terms.
    ///
    /// # Errors
    /// [`Error::BadQuery`] if a weight is infinite or no number.
    pub(crate) fn new(query: &'q Query) -> Result<Self> {
        let mut plan = Plan::default();
        for part in &query.parts {
            let weight = part.weight;
            if !weight.is_finite() {
                return Err(Error::BadQuery { message: format!("{weight} is no weight"), span: 0..0 });
            }
            match &part.term {
                Term::Text(text) => plan.texts.push((weight, text)),
                Term::Image(path) => plan.files.push((weight, path)),
                Term::ImageBytes(bytes) => plan.pictures.push((weight, bytes)),
                Term::Vector(vector) => plan.vectors.push((weight, vector)),
                Term::Like(key) => plan.stored.push((weight, Stored::Key(*key))),
                Term::LikePath(path) => plan.stored.push((weight, Stored::Path(path))),
            }
        }
        Ok(plan)
    }
}

/// Where to look in the space of vectors, and how to turn cosines into scores.
#[derive(Debug)]
pub(crate) struct Target {
    sum: Vec<f64>,
}

impl Target {
    /// The origin of a space of `dim` dimensions.
    pub(crate) fn new(dim: usize) -> Self {
        Self { sum: vec![0.0; dim] }
    }

    /// Adds `weight` times `vector` made one long.
    ///
    /// # Errors
    /// [`Error::BadQuery`] if the vector has another number of dimensions, or no direction.
    pub(crate) fn add(&mut self, weight: f32, vector: &[f32]) -> Result<()> {
        if vector.len() != self.sum.len() {
            let message = format!("a vector of {} numbers; this library has {}", vector.len(), self.sum.len());
            return Err(Error::BadQuery { message, span: 0..0 });
        }
        let length = length(vector.iter().map(|&x| x.into()));
        if length == 0.0 || !length.is_finite() {
            return Err(Error::BadQuery { message: "a vector without direction".to_owned(), span: 0..0 });
        }
        for (sum, &x) in self.sum.iter_mut().zip(vector) {
            *sum += f64::from(weight) / length * f64::from(x);
        }
        Ok(())
    }

    /// The sum made one long, and its length: the score of a photo is its cosine times this.
    ///
    /// # Errors
    /// [`Error::BadQuery`] if the parts cancel each other out.
    pub(crate) fn direction(&self) -> Result<(Vec<f32>, f32)> {
        let length = length(self.sum.iter().copied());
        if length < 1e-6 {
            let message = "the parts of this query cancel each other out, nothing is left to look for".to_owned();
            return Err(Error::BadQuery { message, span: 0..0 });
        }
        Ok((self.sum.iter().map(|x| (x / length) as f32).collect(), length as f32))
    }
}

fn length(vector: impl Iterator<Item = f64>) -> f64 {
    vector.map(|x| x * x).sum::<f64>().sqrt()
}
