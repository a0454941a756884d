//! Whether the catalog has changed.

use std::time::UNIX_EPOCH;

use rusqlite::{Connection, MAIN_DB, OpenFlags};

use super::Catalog;
use crate::{Error, Result};

/// Looks at the catalog from a connection of its own; a look costs microseconds.
#[derive(Debug)]
pub(crate) struct Watch {
    connection: Connection,
    error: fn(&std::path::Path, rusqlite::Error) -> Error,
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
        if self.connection.is_readonly(MAIN_DB).unwrap_or(true) {
            // A file that this process may not write is read as if nobody did, and SQLite never looks again.
            let file = std::fs::metadata(&self.path).map_err(Error::io(&self.path))?;
            let time = file.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            return Ok(time.map_or(0, |time| time.as_nanos() as i64) ^ file.len() as i64);
        }
        let read = self.connection.query_row("PRAGMA data_version", [], |row| row.get(0));
        read.map_err(|source| (self.error)(&self.path, source))
    }
}
