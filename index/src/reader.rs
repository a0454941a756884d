//! A snapshot of one commit.

use std::path::PathBuf;
use std::sync::Arc;

use crate::Key;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::search::{Search, SearchBatch};
use crate::snapshot::Snapshot;
use crate::verify::VerifyReport;

/// A snapshot of one commit. Cloning is cheap, any number of threads may search at once, and no writer is ever in the way.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) dir: PathBuf,
}

impl Reader {
    /// Vectors in this snapshot.
    pub fn len(&self) -> u64 {
        self.snapshot.keys.len() as u64
    }

    /// Whether this snapshot holds no vector.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The commit that this snapshot shows.
    pub fn generation(&self) -> u64 {
        self.snapshot.generation
    }

    /// What this index is.
    pub fn config(&self) -> &Config {
        &self.snapshot.config
    }

    /// Whether a vector has this key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the key table is damaged.
    pub fn contains(&self, key: Key) -> Result<bool> {
        Ok(self.snapshot.by_key.contains_key(&key))
    }

    /// The vector with this key, as stored: normalised for cosine, rounded if rows are kept as f16.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if its bytes are damaged.
    pub fn get(&self, key: Key) -> Result<Option<Vec<f32>>> {
        Ok(self.snapshot.by_key.get(&key).map(|&at| self.snapshot.row(at).to_vec()))
    }

    /// Every key, in no particular order. An item is an error where the table of keys is damaged.
    pub fn keys(&self) -> impl Iterator<Item = Result<Key>> + '_ {
        self.snapshot.keys.iter().copied().map(Ok)
    }

    /// Starts a search for the nearest vectors to `query`.
    pub fn search<'a>(&'a self, query: &'a [f32]) -> Search<'a> {
        Search::new(self, query.into())
    }

    /// Starts a search for the nearest vectors to the one stored under `key`, itself left out.
    ///
    /// # Errors
    /// [`Error::UnknownKey`], [`Error::Corrupt`].
    pub fn search_key(&self, key: Key) -> Result<Search<'_>> {
        let vector = self.get(key)?.ok_or(Error::UnknownKey { key })?;
        Ok(Search::new(self, vector.into()).without(key))
    }

    /// Starts a search for many queries at once, on all cores.
    pub fn search_batch<'a, Q: AsRef<[f32]> + Sync>(&'a self, queries: &'a [Q]) -> SearchBatch<'a, Q> {
        SearchBatch::new(self, queries)
    }

    /// Reads every byte and checks it. Takes as long as reading the files does.
    ///
    /// # Errors
    /// [`Error::Io`]. Damage is not an error here but a line in the report.
    pub fn verify(&self) -> Result<VerifyReport> {
        VerifyReport::of(self)
    }
}
