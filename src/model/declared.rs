//! A space of vectors without the model that makes them.
//!
//! Embeddings come from elsewhere, and a library of them is useful before, or without, their model on this machine: what looks
//! alike is found by stored vectors. Words and pictures of a query need the model itself, and say so.

use super::{EmbeddingSpace, Embeddings, Encode, PixelBatch};
use crate::image::{Interpolation, Preprocess, ResizeMode};
use crate::{Error, Result};

/// What fingerprints of such spaces begin with; the name follows.
const PREFIX: &str = "declared:";

/// Stands where a model would.
pub(super) struct Declared {
    space: EmbeddingSpace,
    preprocess: Preprocess,
}

impl Declared {
    pub(super) fn new(space: EmbeddingSpace) -> Declared {
        let preprocess = Preprocess {
            size: (1, 1),
            mean: [0.0; 3],
            std: [1.0; 3],
            interpolation: Interpolation::Bilinear,
            resize_mode: ResizeMode::Squash,
            fill: 0,
            rgb_first: false,
        };
        Declared { space, preprocess }
    }

    fn refuse(&self, what: &str) -> Error {
        let model = self.space.model.clone();
        Error::NoModel { model, what: what.to_owned() }
    }
}

impl EmbeddingSpace {
    /// The space of a model that is known by its name only.
    pub fn declared(model: impl Into<String>, dim: usize) -> EmbeddingSpace {
        let model = model.into();
        EmbeddingSpace { fingerprint: format!("{PREFIX}{model}"), model, dim }
    }

    /// Whether nothing but the model's name and size is known.
    pub fn is_declared(&self) -> bool {
        self.fingerprint.starts_with(PREFIX)
    }

    /// Whether vectors of the other space can be searched with vectors of this one: the same weights, or, where only the name is
    /// known, the same name.
    pub fn fits(&self, other: &EmbeddingSpace) -> bool {
        let named =
            |declared: &EmbeddingSpace, model: &EmbeddingSpace| declared.is_declared() && declared.model == model.model;
        self.dim == other.dim && (self.fingerprint == other.fingerprint || named(self, other) || named(other, self))
    }
}

impl Encode for Declared {
    fn space(&self) -> &EmbeddingSpace {
        &self.space
    }

    fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    fn encode_images(&self, _: &PixelBatch) -> Result<Embeddings> {
        Err(self.refuse("pictures"))
    }

    fn encode_texts(&self, _: &[&str]) -> Result<Embeddings> {
        Err(self.refuse("words"))
    }
}
