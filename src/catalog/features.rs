//! Features that image towers had before their last map, kept so that another last map needs no photo.
//!
//! A SQLite file of its own, by content and kind of features: it is written while photos are read, belongs to no commit, and what
//! it lacks is read from the photo. Columns of the catalog would have made every copy of that a hundred times as large.
//! Numbers are halves: the last map forgives them (cosine above 0.99999).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use half::f16;
use rusqlite::{Connection, OptionalExtension};

use super::Hash;
use super::store::integrity;
use crate::{Error, Result};

const FILE: &str = "features.sqlite";

/// How long another process may be writing.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kept features of a library.
pub(crate) struct KeptFeatures {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl KeptFeatures {
    /// Those of a library; none if it keeps none.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub(crate) fn of(library: &Path) -> Result<Option<KeptFeatures>> {
        if library.join(FILE).exists() { Self::keep(library).map(Some) } else { Ok(None) }
    }

    /// The same, from now on kept.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub(crate) fn keep(library: &Path) -> Result<KeptFeatures> {
        let path = library.join(FILE);
        let open = || {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(PATIENCE)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS features (
                     kind TEXT NOT NULL, content BLOB NOT NULL, numbers BLOB NOT NULL, PRIMARY KEY (kind, content)
                 ) WITHOUT ROWID",
            )?;
            Ok(connection)
        };
        let connection = open().map_err(|error: rusqlite::Error| failed(&path, error))?;
        Ok(KeptFeatures { path, connection: Mutex::new(connection) })
    }

    /// Keeps rows, each of a content.
    pub(crate) fn put<'a>(&self, kind: &str, rows: impl Iterator<Item = (Hash, &'a [f32])>) -> Result<()> {
        let mut connection = self.lock();
        let write = || {
            let transaction = connection.transaction()?;
            let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO features VALUES (?1, ?2, ?3)")?;
            for (content, row) in rows {
                let numbers: Vec<u8> = row.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
                insert.execute((kind, &content[..], numbers))?;
            }
            drop(insert);
            transaction.commit()
        };
        write().map_err(|error| failed(&self.path, error))
    }

    /// Takes over what another library keeps of some contents, of any kind.
    pub(crate) fn take(&self, other: &KeptFeatures, contents: &[Hash]) -> Result<()> {
        let mut rows: Vec<(String, &Hash, Vec<u8>)> = Vec::new();
        {
            let connection = other.lock();
            let mut read = || {
                let mut select = connection.prepare_cached("SELECT kind, numbers FROM features WHERE content = ?1")?;
                for content in contents {
                    let found = select.query_map([&content[..]], |row| Ok((row.get(0)?, content, row.get(1)?)))?;
                    rows.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
                }
                Ok(())
            };
            read().map_err(|error| failed(&other.path, error))?;
        }
        let mut connection = self.lock();
        let write = || {
            let transaction = connection.transaction()?;
            let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO features VALUES (?1, ?2, ?3)")?;
            for (kind, content, numbers) in rows {
                insert.execute((kind, &content[..], numbers))?;
            }
            drop(insert);
            transaction.commit()
        };
        write().map_err(|error| failed(&self.path, error))
    }

    /// The features of a content, if they are kept and as wide as they should be.
    pub(crate) fn get(&self, kind: &str, width: usize, content: &Hash) -> Result<Option<Vec<f32>>> {
        let connection = self.lock();
        let read = || {
            let mut select =
                connection.prepare_cached("SELECT numbers FROM features WHERE kind = ?1 AND content = ?2")?;
            select.query_row((kind, &content[..]), |row| row.get::<_, Vec<u8>>(0)).optional()
        };
        let numbers = read().map_err(|error| failed(&self.path, error))?;
        let numbers =
            numbers.map(|bytes| bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect());
        Ok(numbers.filter(|row: &Vec<f32>| row.len() == width && row.iter().all(|x| x.is_finite())))
    }

    /// Looks for damage in the file. Reads all of it.
    pub(crate) fn check(&self) -> Result<Vec<String>> {
        integrity(&self.lock()).map_err(|error| failed(&self.path, error))
    }

    /// How many there are of a kind.
    pub(crate) fn count(&self, kind: &str) -> Result<u64> {
        let count = "SELECT count(*) FROM features WHERE kind = ?1";
        let count = self.lock().query_row(count, [kind], |row| row.get::<_, i64>(0));
        count.map(i64::unsigned_abs).map_err(|error| failed(&self.path, error))
    }

    /// Forgets the features of contents that are not wanted any more.
    pub(crate) fn retain(&self, mut wanted: impl FnMut(&Hash) -> Result<bool>) -> Result<()> {
        let contents: Vec<Vec<u8>> = {
            let connection = self.lock();
            let read = || {
                let mut select = connection.prepare("SELECT DISTINCT content FROM features")?;
                select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
            };
            read().map_err(|error| failed(&self.path, error))?
        };
        for content in contents {
            let is_wanted = match Hash::try_from(content.as_slice()) {
                Ok(hash) => wanted(&hash)?,
                Err(_) => false,
            };
            if !is_wanted {
                let deleted = self.lock().execute("DELETE FROM features WHERE content = ?1", [content]);
                deleted.map_err(|error| failed(&self.path, error))?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(path: &Path, error: rusqlite::Error) -> Error {
    Error::Catalog { path: path.to_path_buf(), source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_kept_by_content_and_kind() {
        let dir = tempfile::tempdir().unwrap();
        assert!(KeptFeatures::of(dir.path()).unwrap().is_none());
        let kept = KeptFeatures::keep(dir.path()).unwrap();
        let (a, b) = ([1; 32], [2; 32]);
        kept.put("x", [(a, &[1.0, -2.5][..]), (b, &[0.25, 7.0][..])].into_iter()).unwrap();
        let kept = KeptFeatures::of(dir.path()).unwrap().unwrap();
        assert_eq!(kept.get("x", 2, &a).unwrap(), Some(vec![1.0, -2.5]));
        assert_eq!((kept.get("y", 2, &a).unwrap(), kept.get("x", 3, &a).unwrap()), (None, None));
        let elsewhere = tempfile::tempdir().unwrap();
        let other = KeptFeatures::keep(elsewhere.path()).unwrap();
        other.put("x", [(b, &[9.0, 9.0][..])].into_iter()).unwrap();
        other.take(&kept, &[a, b, [3; 32]]).unwrap();
        assert_eq!(other.get("x", 2, &a).unwrap(), Some(vec![1.0, -2.5]));
        assert_eq!(other.get("x", 2, &b).unwrap(), Some(vec![9.0, 9.0]), "what is there stays");
        kept.retain(|hash| Ok(*hash == b)).unwrap();
        assert_eq!((kept.get("x", 2, &a).unwrap(), kept.count("x").unwrap()), (None, 1));
    }
}
