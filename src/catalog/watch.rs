//! Whether the catalog has changed.

use std::path::Path;
use std::time::UNIX_EPOCH;

use rusqlite::{Connection, MAIN_DB, OpenFlags};

use super::Catalog;
use super::store::log_of;
use crate::{Error, Result};

/// Looks at the catalog from a connection of its own; a look costs microseconds.
#[derive(Debug)]
pub(crate) struct Watch {
    connection: Connection,
    error: fn(&Path, rusqlite::Error) -> Error,
    path: std::path::PathBuf,
}

impl Watch {
    pub(super) fn new(catalog: &Catalog) -> Result<Watch> {
        let flags = OpenFlags::default() & !OpenFlags::SQLITE_OPEN_CREATE;
        let connection = catalog.connect(flags).map_err(catalog.error())?;
        Ok(Watch { connection, error: super::store::error, path: catalog.path().to_path_buf() })
    }

    /// A number that is another one after each commit of any process, and means nothing else.
    pub(crate) fn version(&self) -> Result<i64> {
        let read = self.connection.query_row("PRAGMA data_version", [], |row| row.get(0));
        let version: i64 = read.map_err(|source| (self.error)(&self.path, source))?;
        // What may not be written from here may be read as if nobody wrote it, and then SQLite never looks again.
        let watched = self.connection.is_readonly(MAIN_DB).unwrap_or(true);
        Ok(if watched { version ^ stamp(&self.path) ^ stamp(&log_of(&self.path)) } else { version })
    }
}

/// A number that is another one when a file was written.
fn stamp(path: &Path) -> i64 {
    let Ok(file) = std::fs::metadata(path) else { return 0 };
    let time = file.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    time.map_or(0, |time| time.as_nanos() as i64).wrapping_mul(31) ^ file.len() as i64
}
