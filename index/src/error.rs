//! What can go wrong, with the values that a person needs to mend it.

use std::io;
use std::path::PathBuf;

use crate::Key;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that this crate reports. The file comes first, then what was found, what was expected and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory holds no index.
    #[error("{}: no index here; make one with Index::create", path.display())]
    NotFound {
        /// The directory.
        path: PathBuf,
    },
    /// The directory already holds an index.
    #[error("{}: an index is here already; open it with Index::open", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// Another writer, in this process or another, holds the index.
    #[error("{}: another writer holds the lock; wait for it to finish (readers never need the lock)", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file was written by another version of the format.
    #[error("{}: format version {found}, this build reads version {expected}; use the release that wrote it, or build the index anew", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version that this build reads.
        expected: u32,
    },
    /// Bytes on disk are not what was written.
    #[error("{}: damaged ({what}); restore the file from a copy, or build the index anew", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found and where.
        what: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operation that failed.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A vector of the wrong length.
    #[error("the vector has {found} numbers, this index holds vectors of {expected}")]
    Dimension {
        /// Numbers in the vector.
        found: usize,
        /// Numbers that the index holds per vector.
        expected: usize,
    },
    /// A vector with NaN or infinity in it, or whose length is beyond f32.
    #[error("number {position} of the vector is {value}; every number must be finite, and its square too")]
    NotFinite {
        /// Position of the offending number.
        position: usize,
        /// The number.
        value: f32,
    },
    /// A number that rows of half precision cannot hold.
    #[error(
        "number {position} of the vector is {value}; rows of f16 hold up to 65504: scale the vectors, or make the index with Rows::F32"
    )]
    TooLarge {
        /// Position of the offending number.
        position: usize,
        /// The number.
        value: f32,
    },
    /// A vector of length zero has no direction, so no cosine.
    #[error("the vector is zero; cosine needs a direction")]
    ZeroVector,
    /// No vector has this key.
    #[error("no vector has the key {key}")]
    UnknownKey {
        /// The key asked for.
        key: Key,
    },
    /// A configuration or a request that this index cannot serve.
    #[error("{field} is {found}; expected {expected}")]
    Invalid {
        /// The field or parameter.
        field: &'static str,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// An earlier commit failed where it is not known what is on disk.
    #[error("{}: an earlier commit failed and what is on disk is not known; drop this writer and open a new one", path.display())]
    Poisoned {
        /// The index directory.
        path: PathBuf,
    },
    /// The caller's closure asked to stop. Nothing was lost; the work may be started again.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, action, source }
    }

    pub(crate) fn corrupt(path: impl Into<PathBuf>, what: impl Into<String>) -> Error {
        Error::Corrupt { path: path.into(), what: what.into() }
    }
}
