//! Embedded vector index.

/// Chosen by the caller; identifies a vector.
pub type Key = u64;

/// To be written.
#[derive(Debug, thiserror::Error)]
#[error("index")]
pub struct Error;

/// To be written.
pub struct Index;
