//! The one that changes an index.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Key;
use crate::error::{Error, Result};
use crate::snapshot::Snapshot;

/// Changes an index: adds, replaces and removes vectors, and makes the changes durable at [`Writer::commit`]. Holds the writer
/// lock until dropped; what was not committed is dropped with it.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    _lock: fs::File,
    next: Snapshot,
    changed: bool,
}

impl Writer {
    pub(crate) fn open(dir: &Path) -> Result<Writer> {
        let path = dir.join("LOCK");
        let lock = fs::File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(Error::io(&path, "open"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(Error::Locked { path }),
            Err(fs::TryLockError::Error(source)) => return Err(Error::Io { path, action: "lock", source }),
        }
        Ok(Writer { next: Snapshot::read(dir)?, dir: dir.into(), _lock: lock, changed: false })
    }

    /// Adds a vector; one that has the key already is replaced. Visible to readers that are opened after the next commit.
    ///
    /// # Errors
    /// [`Error::Dimension`], [`Error::NotFinite`], [`Error::ZeroVector`] (cosine only): nothing is changed then.
    pub fn add(&mut self, key: Key, vector: &[f32]) -> Result<()> {
        let dim = self.next.config.dim;
        let row = self.next.config.metric.admit(vector, dim)?;
        self.changed = true;
        if let Some(&at) = self.next.by_key.get(&key) {
            self.next.rows[at * dim..][..dim].copy_from_slice(&row);
        } else {
            self.next.by_key.insert(key, self.next.keys.len());
            self.next.keys.push(key);
            self.next.rows.extend(row);
        }
        Ok(())
    }

    /// Removes the vector with this key. `false` if there was none.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`].
    pub fn remove(&mut self, key: Key) -> Result<bool> {
        let Some(at) = self.next.by_key.remove(&key) else { return Ok(false) };
        let dim = self.next.config.dim;
        let last = self.next.keys.len() - 1;
        if at != last {
            self.next.by_key.insert(self.next.keys[last], at);
            self.next.rows.copy_within(last * dim.., at * dim);
        }
        self.next.keys.swap_remove(at);
        self.next.rows.truncate(last * dim);
        self.changed = true;
        Ok(true)
    }

    /// Makes every change since the last commit durable and visible to new readers, all at once. When it returns, the changes
    /// are on disk. Returns the generation; without changes, the one that stands.
    ///
    /// # Errors
    /// [`Error::Io`]; the last commit stays whole.
    pub fn commit(&mut self) -> Result<u64> {
        if self.changed {
            self.next.generation += 1;
            self.next.write(&self.dir)?;
            self.changed = false;
        }
        Ok(self.next.generation)
    }

    /// Commits, then folds everything into one graph and drops removed vectors from disk. Readers are not disturbed.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub fn compact(&mut self) -> Result<u64> {
        self.commit()
    }

    /// Vectors, changes since the last commit included.
    pub fn len(&self) -> u64 {
        self.next.keys.len() as u64
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a vector has this key, changes since the last commit included.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the key table is damaged.
    pub fn contains(&self, key: Key) -> Result<bool> {
        Ok(self.next.by_key.contains_key(&key))
    }
}
