//! Plan, neighbours, hits.

use std::path::PathBuf;

use crate::catalog::Record;

/// One answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hit {
    /// Absolute path.
    pub path: PathBuf,
    /// Dot product of the query vector and the photo's normalised vector.
    pub score: f32,
    /// What the catalog knows.
    pub record: Record,
}

/// A search request; ends in `run`.
pub struct Search<'a> {
    pub(crate) _engine: std::marker::PhantomData<&'a ()>,
}
