//! What to look for: weighted parts that add up to one vector, and a filter.

mod filter;
pub mod parse;
pub mod plan;

use std::path::PathBuf;

pub use filter::{Bounds, Condition, Filter, Predicate};

use crate::catalog::Key;

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
    /// A vector of the library's space, of any length greater than zero.
    Vector(Vec<f32>),
    /// A photo of the library, by its key.
    Like(Key),
    /// A photo of the library, by its path; its stored vector is used, the file is not read.
    LikePath(PathBuf),
}

/// A term and its weight; negative weights push away.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Factor of the term's normalised vector.
    pub weight: f32,
    /// What to look like.
    pub term: Term,
}

/// A question to the library.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Weighted parts; none means every photo that the filter lets pass, newest first.
    pub parts: Vec<Part>,
    /// Which photos may answer.
    pub filter: Filter,
}
