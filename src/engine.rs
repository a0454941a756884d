//! The facade: opens catalog, index and encoder together and checks that they match.

/// A library of photos: a directory that you ingest into and search.
pub struct Engine {}

/// What a library holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Photos that can be found.
    pub photos: u64,
}
