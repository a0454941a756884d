//! The public object: a directory with vectors.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::reader::Reader;
use crate::snapshot::{SNAPSHOT, Snapshot};
use crate::writer::Writer;

/// Vectors in a directory. Cheap to hold: it knows the path and the configuration, [`Index::reader`] and [`Index::writer`] do the work.
#[derive(Clone, Debug)]
pub struct Index {
    dir: PathBuf,
    config: Config,
}

impl Index {
    /// Makes an empty index in `dir`, which is created where it is missing, and syncs it to disk.
    ///
    /// # Errors
    /// [`Error::Exists`] if an index is there already, [`Error::Invalid`] if a field of `config` is out of range, [`Error::Io`].
    pub fn create(dir: impl AsRef<Path>, config: Config) -> Result<Index> {
        config.check()?;
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(Error::io(dir, "create the directory"))?;
        if dir.join(SNAPSHOT).exists() {
            return Err(Error::Exists { path: dir.into() });
        }
        Snapshot::empty(config.clone()).write(dir)?;
        Ok(Index { dir: dir.into(), config })
    }

    /// Opens the index in `dir`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, [`Error::Corrupt`], [`Error::Version`], [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Index> {
        let snapshot = Snapshot::read(dir.as_ref())?;
        Ok(Index { dir: dir.as_ref().into(), config: snapshot.config })
    }

    /// What this index is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the writer lock. One writer at a time, across processes; the lock goes with the writer, or with its process.
    ///
    /// # Errors
    /// [`Error::Locked`] if somebody else writes; it never waits.
    pub fn writer(&self) -> Result<Writer> {
        Writer::open(&self.dir)
    }

    /// A snapshot of the last commit. Later commits do not change it; take a new reader to see them.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn reader(&self) -> Result<Reader> {
        Ok(Reader { snapshot: Arc::new(Snapshot::read(&self.dir)?), dir: self.dir.clone() })
    }
}
