//! The full check of an index.

use crate::error::{Error, Result};
use crate::reader::Reader;
use crate::snapshot::Snapshot;

/// What a full check found.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The commit that was checked.
    pub generation: u64,
    /// Vectors that a search can find.
    pub vectors: u64,
    /// Bytes that were read and checked.
    pub bytes: u64,
    /// What is damaged; empty when all is well.
    pub problems: Vec<Error>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn of(reader: &Reader) -> Result<VerifyReport> {
        let problems = Snapshot::read(&reader.dir).err().into_iter().collect();
        let bytes = (reader.snapshot.rows.len() * 4 + reader.snapshot.keys.len() * 8) as u64;
        Ok(VerifyReport { generation: reader.generation(), vectors: reader.len(), bytes, problems })
    }
}
