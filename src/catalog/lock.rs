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
    _file: File,
}

impl WriteLock {
    const FILE: &'static str = "lock";

    /// Takes the lock, or says that somebody else has it.
    pub(crate) fn take(library: &Path) -> Result<WriteLock> {
        let path = library.join(Self::FILE);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(WriteLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { path: library.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(Error::Io { path, source }),
        }
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
        drop(lock);
        WriteLock::take(dir.path()).unwrap();
    }
}
