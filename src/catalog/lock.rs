//! The write lock of a library.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::{Error, Result};

/// Held by the one process that writes to a library; the system lets go of it when the process ends, however it ends.
///
/// A lock of its own rather than SQLite's, because an ingest writes to catalog and index in many transactions over hours, in
/// which readers must never wait.
#[derive(Debug)]
pub(crate) struct WriteLock {
    file: File,
}

impl WriteLock {
    const FILE: &'static str = "lock";

    /// Takes the lock, or says that somebody else has it.
    pub(crate) fn take(library: &Path) -> Result<WriteLock> {
        let path = library.join(Self::FILE);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(WriteLock { file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { path: library.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(Error::Io { path, source }),
        }
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that another thread has just forked holds it open too, until its `exec`.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = WriteLock::take(dir.path()).unwrap();
        assert!(matches!(WriteLock::take(dir.path()), Err(Error::Busy { .. })));
        let held_elsewhere = lock.file.try_clone().unwrap();
        drop(lock);
        WriteLock::take(dir.path()).unwrap();
        drop(held_elsewhere);
    }
}
