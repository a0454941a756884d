//! Files to records and vectors.

mod diff;
mod pipeline;
mod walk;

use std::path::PathBuf;

/// A file that could not be taken in, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub error: crate::Error,
}

/// What an ingest did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Files seen for the first time and embedded.
    pub added: u64,
    /// Files whose content changed and that were embedded again.
    pub changed: u64,
    /// Files that moved and kept their embedding.
    pub moved: u64,
    /// Files as they were.
    pub unchanged: u64,
    /// Files that are gone.
    pub gone: u64,
    /// Files that could not be read, with the reason.
    pub skipped: Vec<Skipped>,
}

/// Where an ingest stands; handed to the progress closure a few times a second.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Candidate files found so far.
    pub found: u64,
    /// Files dealt with so far.
    pub done: u64,
    /// Whether the walk has ended, so that `found` is the total.
    pub walked: bool,
    /// Files embedded so far.
    pub embedded: u64,
    /// Files skipped with an error so far.
    pub skipped: u64,
}

/// An ingest request; ends in `run`.
pub struct Ingest<'a> {
    pub(crate) _engine: std::marker::PhantomData<&'a ()>,
}
