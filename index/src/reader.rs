//! A snapshot of one commit.

use std::sync::{Arc, Mutex, PoisonError};

use crate::Key;
use crate::collect::Work;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::format::ManifestData;
use crate::kernel::Kernels;
use crate::search::{Search, SearchBatch};
use crate::segment::Part;
use crate::storage::Storage;
use crate::verify::VerifyReport;

/// A snapshot of one commit. Cloning is cheap, any number of threads may search at once, and no writer is ever in the way.
///
/// Files are mapped: what is searched often is in memory as long as the system has room, and every byte is compared with its
/// checksum before it is first used.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

struct Shared {
    storage: Arc<dyn Storage>,
    data: ManifestData,
    parts: Vec<Part>,
    live: u64,
    kernels: Kernels,
    /// Working memory of searches that are over, for those to come.
    idle: Mutex<Vec<Work>>,
}

/// Working memories that are kept.
const IDLE: usize = 64;

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.shared.storage.path("");
        f.debug_struct("Reader")
            .field("path", &path)
            .field("generation", &self.generation())
            .field("kernels", &self.shared.kernels.name)
            .finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn new(storage: Arc<dyn Storage>, data: ManifestData, parts: Vec<Part>) -> Reader {
        let live = parts.iter().map(|part| u64::from(part.live())).sum();
        let kernels = Kernels::detect();
        Reader { shared: Arc::new(Shared { storage, data, parts, live, kernels, idle: Mutex::default() }) }
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.shared.parts
    }

    pub(crate) fn kernels(&self) -> &Kernels {
        &self.shared.kernels
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.shared.storage
    }

    pub(crate) fn data(&self) -> &ManifestData {
        &self.shared.data
    }

    pub(crate) fn take_work(&self) -> Work {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(crate) fn give_work(&self, work: Work) {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(work);
        }
    }

    /// Vectors in this snapshot.
    pub fn len(&self) -> u64 {
        self.shared.live
    }

    /// Whether this snapshot holds no vector.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The commit that this snapshot shows.
    pub fn generation(&self) -> u64 {
        self.shared.data.generation
    }

    /// What this index is.
    pub fn config(&self) -> &Config {
        &self.shared.data.config
    }

    /// How many sample queries the index was told ([`Writer::set_sample_queries`](crate::Writer::set_sample_queries)).
    pub fn sample_queries(&self) -> u32 {
        self.data().samples.count
    }

    /// Whether a vector has this key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the key table is damaged.
    pub fn contains(&self, key: Key) -> Result<bool> {
        Ok(self.find(key)?.is_some())
    }

    /// The newest part comes last, and a key is live in one part at most.
    fn find(&self, key: Key) -> Result<Option<(&Part, u32)>> {
        for part in self.parts().iter().rev() {
            if let Some(row) = part.find(key)? {
                return Ok(Some((part, row)));
            }
        }
        Ok(None)
    }

    /// The vector with this key, as stored: normalised for cosine, rounded if rows are kept as f16.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if its bytes are damaged.
    pub fn get(&self, key: Key) -> Result<Option<Vec<f32>>> {
        let Some((part, row)) = self.find(key)? else { return Ok(None) };
        let mut vector = Vec::with_capacity(self.config().dim);
        part.segment.vector(row, &mut vector)?;
        Ok(Some(vector))
    }

    /// Every key, in no particular order. An item is an error where the bytes that hold it are damaged.
    pub fn keys(&self) -> impl Iterator<Item = Result<Key>> + '_ {
        self.parts().iter().flat_map(|part| {
            let live = (0..part.segment.count()).filter(|&row| !part.removed.contains(row));
            live.map(|row| part.segment.key(row))
        })
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

    /// Reads every byte of this snapshot from disk and checks it, then checks that graphs and key tables are whole. Takes as
    /// long as reading the files does, and longer where there are graphs.
    ///
    /// # Errors
    /// Damage is not an error here but an entry of [`VerifyReport::problems`].
    pub fn verify(&self) -> Result<VerifyReport> {
        VerifyReport::of(self)
    }
}
