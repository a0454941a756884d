//! Whether the catalog has changed.

use rusqlite::{Connection, OpenFlags};

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
        let read = self.connection.query_row("PRAGMA data_version", [], |row| row.get(0));
        read.map_err(|source| (self.error)(&self.path, source))
    }
}
