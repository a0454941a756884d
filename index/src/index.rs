//! The public object: a directory with vectors.

use std::path::Path;
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::format::{ManifestData, SamplesEntry};
use crate::manifest;
use crate::reader::Reader;
use crate::storage::{Directory, LOCK, Storage};
use crate::writer::Writer;

/// Vectors in a directory. Cheap to hold: it knows the place and the configuration; [`Index::reader`] and [`Index::writer`] do
/// the work.
#[derive(Clone)]
pub struct Index {
    storage: Arc<dyn Storage>,
    config: Config,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("path", &self.storage.path("")).field("config", &self.config).finish()
    }
}

impl Index {
    /// Makes an empty index in `dir`, which is created where it is missing, and syncs it to disk.
    ///
    /// # Errors
    /// [`Error::Exists`] if an index is there already, [`Error::Invalid`] if a field of `config` is out of range,
    /// [`Error::Locked`] if somebody else is making one, [`Error::Io`].
    pub fn create(dir: impl AsRef<Path>, config: Config) -> Result<Index> {
        config.check()?;
        let dir = dir.as_ref();
        let storage = Directory::create(dir).map_err(Error::io(dir, "create the directory"))?;
        Index::create_on(Arc::new(storage), config)
    }

    /// Opens the index in `dir`: reads the manifest, a few hundred bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, [`Error::Corrupt`], [`Error::Version`], [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Index> {
        Index::open_on(Arc::new(Directory::new(dir)))
    }

    /// As [`Index::create`], on a storage of your own.
    ///
    /// # Errors
    /// As [`Index::create`].
    pub fn create_on(storage: Arc<dyn Storage>, config: Config) -> Result<Index> {
        config.check()?;
        let path = storage.path(LOCK);
        let lock = storage.lock().map_err(Error::io(&path, "lock"))?;
        let _lock = lock.ok_or(Error::Locked { path })?;
        if manifest::read(&*storage)?.is_some() {
            return Err(Error::Exists { path: storage.path("") });
        }
        let data = ManifestData {
            config: config.clone(),
            generation: 0,
            next_id: 1,
            segments: Vec::new(),
            samples: SamplesEntry::default(),
        };
        manifest::publish(&*storage, &data).map_err(|failed| failed.error)?;
        Ok(Index { storage, config })
    }

    /// As [`Index::open`], on a storage of your own.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn open_on(storage: Arc<dyn Storage>) -> Result<Index> {
        let data = manifest::read(&*storage)?.ok_or_else(|| Error::NotFound { path: storage.path("") })?;
        Ok(Index { storage, config: data.config })
    }

    /// What this index is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes the writer lock. One writer at a time, across processes; the lock goes with the writer, or with its process. Files
    /// that a broken-off writer left behind are removed.
    ///
    /// # Errors
    /// [`Error::Locked`] if somebody else writes (it never waits), [`Error::Corrupt`], [`Error::Io`].
    pub fn writer(&self) -> Result<Writer> {
        Writer::open(Arc::clone(&self.storage))
    }

    /// A snapshot of the last commit. Later commits do not change it; take a new reader to see them. Files are mapped, not read:
    /// the cost does not grow with the number of vectors, but for the bits of removed ones.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn reader(&self) -> Result<Reader> {
        let (data, parts) = manifest::load(&*self.storage)?;
        Ok(Reader::new(Arc::clone(&self.storage), data, parts))
    }
}
