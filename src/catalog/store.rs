//! The database file: opening, creating, migrating, and connections for readers.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, TransactionBehavior, params};

use super::schema::{APPLICATION, MIGRATIONS, Space, State};
use super::{Reader, WriteLock, Writer};
use crate::model::EmbeddingSpace;
use crate::{Error, Result};

/// How long a statement waits for another process. Writers hold the database for milliseconds, so this is for slow disks.
const PATIENCE: Duration = Duration::from_secs(20);

/// The catalog of one library. Cheap to share between threads: each reader takes a connection of its own.
#[derive(Debug)]
pub(crate) struct Catalog {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Catalog {
    /// Name of the file inside the library.
    pub(crate) const FILE: &'static str = "catalog.db";

    /// Whether the directory holds a catalog that [`Catalog::create`] finished, or one that cannot be read.
    pub(crate) fn exists(library: &Path) -> bool {
        !matches!(Catalog::open(library), Err(Error::NoLibrary { .. }))
    }

    /// Makes the file, or finishes one whose creation was cut short. The caller holds the library's lock.
    pub(crate) fn create(library: &Path, space: &EmbeddingSpace) -> Result<Catalog> {
        let catalog = Catalog { path: library.join(Self::FILE), idle: Mutex::default() };
        let mut connection = catalog.connect(OpenFlags::default()).map_err(catalog.error())?;
        migrate(&mut connection, &catalog.path)?;
        let mut first = || -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if Space::in_state(&transaction, State::Current)?.is_none() {
                insert_space(&transaction, space, State::Current)?;
            }
            transaction.commit()
        };
        first().map_err(catalog.error())?;
        catalog.give_back(connection);
        Ok(catalog)
    }

    /// Opens the file and brings it to this program's version.
    pub(crate) fn open(library: &Path) -> Result<Catalog> {
        let catalog = Catalog { path: library.join(Self::FILE), idle: Mutex::default() };
        if let Err(source) = std::fs::metadata(&catalog.path) {
            return Err(match source.kind() {
                std::io::ErrorKind::NotFound => Error::NoLibrary { path: library.to_path_buf() },
                _ => Error::Io { path: catalog.path, source },
            });
        }
        let flags = OpenFlags::default() & !OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = catalog.connect(flags).map_err(catalog.error())?;
        migrate(&mut connection, &catalog.path)?;
        if Space::all(&connection).map_err(catalog.error())?.is_empty() {
            return Err(Error::NoLibrary { path: library.to_path_buf() });
        }
        catalog.give_back(connection);
        Ok(catalog)
    }

    /// The database file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A consistent view of this moment, whatever is written meanwhile.
    pub(crate) fn read(&self) -> Result<Reader<'_>> {
        Reader::begin(self)
    }

    /// The writing side, with the library's lock.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process writes.
    pub(crate) fn write(&self) -> Result<Writer<'_>> {
        let library = self.path.parent().unwrap_or(Path::new("."));
        let lock = WriteLock::take(library)?;
        let connection = self.take().map_err(self.error())?;
        Ok(Writer::new(self, connection, lock))
    }

    /// Whether it changes, from now on.
    #[cfg(feature = "server")]
    pub(crate) fn watch(&self) -> Result<super::Watch> {
        super::Watch::new(self)
    }

    /// The space that answers searches.
    pub(crate) fn current(&self) -> Result<Space> {
        self.read()?.current()
    }

    /// Turns what SQLite says into this crate's error, for `map_err`.
    pub(crate) fn error(&self) -> impl Fn(rusqlite::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| error(&path, source)
    }

    /// An idle connection or a new one.
    pub(super) fn take(&self) -> rusqlite::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => self.connect(OpenFlags::default() & !OpenFlags::SQLITE_OPEN_CREATE),
        }
    }

    /// Keeps a connection for the next reader.
    pub(super) fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // What was opened as if nobody wrote keeps what it has read: somebody else may write after all.
        let lasting = !connection.is_readonly(MAIN_DB).unwrap_or(true);
        if idle.len() < 8 && connection.is_autocommit() && lasting {
            idle.push(connection);
        }
    }

    pub(super) fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        match configured(Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?) {
            // A library that cannot be written from here is read as if nobody wrote it, without shared memory; each reader opens it
            // anew, in case somebody does.
            Err(failure) if read_only(&failure) && !pending(&self.path) => immutable(&self.path),
            connection => connection,
        }
    }
}

fn configured(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // Each commit reaches the disk: there are few of them, and the index counts on their order.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// What SQLite finds damaged in a database; reads all of it.
pub(super) fn integrity(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut rows = db.prepare("PRAGMA integrity_check(100)")?;
    let lines: rusqlite::Result<Vec<String>> = rows.query_map([], |row| row.get(0))?.collect();
    Ok(lines?.into_iter().filter(|line| line != "ok").collect())
}

fn read_only(failure: &rusqlite::Error) -> bool {
    matches!(failure.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen))
}

/// Whether a log waits beside the file, without which the file alone would be an old state.
fn pending(path: &Path) -> bool {
    std::fs::metadata(log_of(path)).is_ok_and(|file| file.len() > 0)
}

/// Where SQLite writes before it writes into the file.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    PathBuf::from(log)
}

fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b':' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let facts = |connection: &Connection| -> rusqlite::Result<(i32, u32, u32)> {
        let pragma = |name: &str| format!("PRAGMA {name}");
        Ok((
            connection.query_row(&pragma("application_id"), [], |row| row.get(0))?,
            connection.query_row(&pragma("user_version"), [], |row| row.get(0))?,
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?,
        ))
    };
    let (application, found, tables) = facts(connection).map_err(|source| error(path, source))?;
    if application != APPLICATION && tables > 0 {
        return Err(Error::DamagedCatalog {
            path: path.to_path_buf(),
            reason: "it is a database of another program".to_owned(),
        });
    }
    let supported = MIGRATIONS.len() as u32;
    if found > supported {
        return Err(Error::NewerCatalog { path: path.to_path_buf(), found, supported });
    }
    if found == supported {
        return Ok(());
    }
    let mut steps = || -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have come first.
        let found: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        for step in MIGRATIONS.iter().skip(found as usize) {
            transaction.execute_batch(step)?;
        }
        if (1..3).contains(&found) {
            super::describe::index_words_anew(&transaction)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", supported.max(found))?;
        transaction.commit()
    };
    steps().map_err(|source| error(path, source))
}

/// Notes a space, with a directory name that no other has.
pub(super) fn insert_space(connection: &Connection, space: &EmbeddingSpace, state: State) -> rusqlite::Result<Space> {
    let prefix: String = space.fingerprint.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    let taken = Space::all(connection)?;
    let directory = (1..)
        .map(|n| if n == 1 { format!("index-{prefix}") } else { format!("index-{prefix}-{n}") })
        .find(|name| taken.iter().all(|other| other.directory != *name))
        .expect("more numbers than rows");
    connection.execute(
        "INSERT INTO space (model, fingerprint, dim, directory, state) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![space.model, space.fingerprint, space.dim as i64, directory, state.name()],
    )?;
    Ok(Space { id: connection.last_insert_rowid(), space: space.clone(), directory, state })
}

/// What SQLite says, as this crate's error.
pub(super) fn error(path: &Path, source: rusqlite::Error) -> Error {
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            Error::DamagedCatalog { path: path.to_path_buf(), reason: source.to_string() }
        }
        _ => Error::Catalog { path: path.to_path_buf(), source: Box::new(source) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(name: &str) -> EmbeddingSpace {
        EmbeddingSpace { model: name.to_owned(), fingerprint: format!("{name}-0123456789abcdef"), dim: 4 }
    }

    #[test]
    fn a_catalog_is_made_once_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!Catalog::exists(dir.path()));
        assert!(matches!(Catalog::open(dir.path()), Err(Error::NoLibrary { .. })));
        Catalog::create(dir.path(), &space("first")).unwrap();
        assert!(Catalog::exists(dir.path()));
        Catalog::create(dir.path(), &space("second")).unwrap();
        let found = Catalog::open(dir.path()).unwrap().current().unwrap();
        assert_eq!((found.space, found.directory), (space("first"), "index-first0123456".to_owned()));
    }

    #[test]
    fn a_newer_version_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::create(dir.path(), &space("a")).unwrap();
        catalog.take().unwrap().pragma_update(None, "user_version", 99).unwrap();
        drop(catalog);
        let error = Catalog::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::NewerCatalog { found: 99, .. }), "{error}");
        assert!(Catalog::exists(dir.path()), "something is there");
        let version: u32 = Connection::open(dir.path().join(Catalog::FILE))
            .unwrap()
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap();
        assert_eq!(version, 99);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(Catalog::FILE), b"not a database, but long enough to be looked at".repeat(40))
            .unwrap();
        let error = Catalog::open(dir.path()).unwrap_err();
        assert!(matches!(&error, Error::DamagedCatalog { .. }) && error.to_string().contains("catalog.db"), "{error}");
        assert!(Catalog::exists(dir.path()), "it must not be written over");

        let other = tempfile::tempdir().unwrap();
        let foreign = Connection::open(other.path().join(Catalog::FILE)).unwrap();
        foreign.execute_batch("CREATE TABLE t (x)").unwrap();
        drop(foreign);
        assert!(matches!(Catalog::open(other.path()), Err(Error::DamagedCatalog { .. })));
    }

    #[test]
    fn a_creation_cut_short_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        Connection::open(dir.path().join(Catalog::FILE)).unwrap().pragma_update(None, "journal_mode", "wal").unwrap();
        assert!(!Catalog::exists(dir.path()));
        Catalog::create(dir.path(), &space("a")).unwrap();
        assert!(Catalog::exists(dir.path()));
    }
}
