//! What to look for: weighted parts that add up to one vector, and a filter.

pub mod parse;
pub mod plan;

use std::path::PathBuf;

use crate::catalog::{Key, Place};

/// One thing to look like.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Term {
    /// Words.
    Text(String),
    /// A picture file.
    Image(PathBuf),
    /// The bytes of a picture file.
    ImageBytes(Vec<u8>),
    /// A vector of the library's space.
    Vector(Vec<f32>),
    /// A photo of the library.
    Like(Key),
}

/// A term and its weight; negative weights push away.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Factor of the term's normalised vector.
    pub weight: f32,
    /// What to look like.
    pub term: Term,
}

/// Which photos may answer. Every condition must hold; an empty filter lets all pass.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Filter {
    /// Taken at or after (file time where the camera did not say).
    pub after: Option<jiff::civil::DateTime>,
    /// Taken before.
    pub before: Option<jiff::civil::DateTime>,
    /// Camera name contains this, case-insensitive; any of them.
    pub camera: Vec<String>,
    /// Within so many kilometres of a place.
    pub near: Option<(Place, f64)>,
    /// Path patterns, any of them.
    pub path: Vec<String>,
    /// Formats, any of them: `jpeg`.
    pub format: Vec<String>,
    /// At least so many pixels on the shorter side.
    pub min_side: Option<u32>,
}

/// A question to the library.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Weighted parts; none means every photo that the filter lets pass.
    pub parts: Vec<Part>,
    /// Which photos may answer.
    pub filter: Filter,
}
