//! Reading: one transaction, so that all answers of a reader are of one moment.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use tintype_index::KeySet;

use super::clause::Fields;
use super::filter::{Names, Narrowed, asks_metadata, names_equipment};
use super::record::{COLUMNS, invalid};
use super::schema::{Space, State, VERSION};
use super::{Catalog, Hash, Key, Keys, Place, Record, path, store};
use crate::query::Filter;
use crate::{Error, Result};

/// A file as the catalog remembers it, for comparison with the disk.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) kind: Kind,
}

/// What became of a known file.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A record.
    Photo {
        /// Its key.
        key: Key,
        /// Whether the file was missed by the last look.
        gone: bool,
    },
    /// Looked at and not taken.
    Skipped {
        /// Why; none where it is no picture.
        reason: Option<String>,
        /// By this version of the program: another one may have read less.
        now: bool,
    },
}

/// Of which files something is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Those that a walk meets: not what lies inside of shards and matrices, which a walk neither meets nor misses.
    #[default]
    Walked,
    /// Those inside of other files as well.
    All,
}

/// A snapshot of the catalog.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    catalog: &'a Catalog,
    connection: Option<Connection>,
}

impl<'a> Reader<'a> {
    pub(super) fn begin(catalog: &'a Catalog) -> Result<Reader<'a>> {
        let connection = catalog.take().map_err(catalog.error())?;
        connection.execute_batch("BEGIN").map_err(catalog.error())?;
        Ok(Reader { catalog, connection: Some(connection) })
    }

    pub(super) fn ask<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let connection = self.connection.as_ref().expect("there until the drop");
        question(connection).map_err(self.catalog.error())
    }

    /// The space that answers searches.
    pub(crate) fn current(&self) -> Result<Space> {
        self.ask(|db| Space::in_state(db, State::Current))?.ok_or_else(|| Error::DamagedCatalog {
            path: self.catalog.path().to_path_buf(),
            reason: "it names no current model".to_owned(),
        })
    }

    /// All spaces, retired ones included.
    pub(crate) fn spaces(&self) -> Result<Vec<Space>> {
        self.ask(Space::all)
    }

    /// Photos that may answer, photos whose file is gone, and files that could not be taken in.
    pub(crate) fn counts(&self) -> Result<(u64, u64, u64)> {
        self.ask(|db| {
            let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0).map(|n| n as u64));
            let gone = count("SELECT count(*) FROM photo WHERE gone IS NOT NULL")?;
            let all = count("SELECT count(*) FROM photo")?;
            Ok((all - gone, gone, count("SELECT count(*) FROM skipped WHERE reason IS NOT NULL")?))
        })
    }

    /// Whether any file is known that was not taken in.
    pub(crate) fn has_skipped(&self) -> Result<bool> {
        self.ask(|db| db.query_row("SELECT EXISTS (SELECT 1 FROM skipped)", [], |row| row.get(0)))
    }

    /// Folders that were indexed, and when (Unix seconds).
    pub(crate) fn roots(&self) -> Result<Vec<(PathBuf, i64)>> {
        self.ask(|db| {
            let mut rows = db.prepare_cached("SELECT path, indexed FROM root ORDER BY path")?;
            rows.query_map([], |row| Ok((path_of(row, 0)?, row.get(1)?)))?.collect()
        })
    }

    /// Keys of the photos that a filter lets pass.
    ///
    /// Costs a walk over the rows of one index where SQL can tell, and a look at each path where it cannot.
    pub(crate) fn select(&self, filter: &Filter) -> Result<KeySet> {
        let narrowed = self.narrow(filter)?;
        self.ask(|db| {
            let mut keys = Vec::new();
            let columns = if narrowed.rest.is_some() { "key, path, latitude, longitude, link" } else { "key" };
            let mut rows =
                db.prepare_cached(&format!("SELECT {columns} FROM {} WHERE {}", narrowed.tables, narrowed.clause))?;
            let mut rows = rows.query(params_from_iter(&narrowed.values))?;
            let mut seen = Record::blank();
            while let Some(row) = rows.next()? {
                if let Some(rest) = &narrowed.rest {
                    seen.path = path_of(row, 1)?;
                    seen.place = place_of(row, 2)?;
                    seen.link = row.get(4)?;
                    if !rest.matches(&seen) {
                        continue;
                    }
                }
                keys.push(row.get::<_, i64>(0)? as Key);
            }
            Ok(keys.into_iter().collect())
        })
    }

    /// Photos that a filter lets pass, newest first.
    pub(crate) fn list(&self, filter: &Filter, offset: usize, limit: usize) -> Result<Vec<Record>> {
        let narrowed = self.narrow(filter)?;
        self.ask(|db| {
            let Narrowed { tables, clause, .. } = &narrowed;
            let sql = format!("SELECT {COLUMNS} FROM {tables} WHERE {clause} ORDER BY time DESC, key DESC");
            let mut rows = db.prepare_cached(&sql)?;
            let mut rows = rows.query(params_from_iter(&narrowed.values))?;
            let (mut found, mut passed, mut seen) = (Vec::new(), 0, Record::blank());
            while found.len() < limit {
                let Some(row) = rows.next()? else { break };
                if let Some(rest) = &narrowed.rest {
                    seen.path = path_of(row, 1)?;
                    seen.place = place_of(row, 11)?;
                    seen.link = row.get(13)?;
                    if !rest.matches(&seen) {
                        continue;
                    }
                }
                passed += 1;
                if passed > offset {
                    found.push(Record::from_row(row)?);
                }
            }
            Ok(found)
        })
    }

    pub(super) fn narrow(&self, filter: &Filter) -> Result<Narrowed> {
        let mut names = Names { cameras: Vec::new(), lenses: Vec::new(), fields: Fields::default() };
        if asks_metadata(filter) {
            names.fields = Fields(self.fields()?);
        }
        if names_equipment(filter) {
            names.cameras = self.distinct("camera")?;
            names.lenses = self.distinct("lens")?;
        }
        Narrowed::new(filter, &names)
    }

    fn distinct(&self, column: &str) -> Result<Vec<String>> {
        self.ask(|db| {
            let sql = format!("SELECT DISTINCT {column} FROM photo WHERE {column} IS NOT NULL");
            let mut rows = db.prepare_cached(&sql)?;
            rows.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// The records of keys, in their order; keys without a photo that may answer are left out.
    pub(crate) fn records(&self, keys: &[Key]) -> Result<Vec<Record>> {
        self.ask(|db| {
            let mut row = db.prepare_cached(&format!("SELECT {COLUMNS} FROM photo WHERE key = ?1 AND gone IS NULL"))?;
            let mut found = Vec::with_capacity(keys.len());
            for &key in keys {
                found.extend(row.query_row([key as i64], Record::from_row).optional()?);
            }
            Ok(found)
        })
    }

    /// The record at a path, if its file was there when it was last looked for.
    pub(crate) fn record(&self, path: &Path) -> Result<Option<Record>> {
        self.ask(|db| {
            let mut row =
                db.prepare_cached(&format!("SELECT {COLUMNS} FROM photo WHERE path = ?1 AND gone IS NULL"))?;
            row.query_row([path::to_sql(path)], Record::from_row).optional()
        })
    }

    /// Whether a photo has the content of a hash in hexadecimal, gone ones included.
    pub(crate) fn has_content(&self, hash: &str) -> Result<bool> {
        let Ok(hash) = blake3::Hash::from_hex(hash) else { return Ok(false) };
        self.ask(|db| db.prepare_cached("SELECT 1 FROM photo WHERE hash = ?1")?.exists([hash.as_bytes().as_slice()]))
    }

    /// Records with a content, gone ones included.
    pub(crate) fn with_content(&self, hash: &Hash) -> Result<Vec<Record>> {
        self.ask(|db| {
            let mut rows = db.prepare_cached(&format!("SELECT {COLUMNS} FROM photo WHERE hash = ?1 ORDER BY key"))?;
            rows.query_map([hash.as_slice()], Record::from_row)?.collect()
        })
    }

    /// Every key with a record, gone ones included or not.
    pub(crate) fn keys(&self, gone: bool) -> Result<Keys> {
        let condition = if gone { "" } else { " WHERE gone IS NULL" };
        self.ask(|db| {
            let mut rows = db.prepare(&format!("SELECT key FROM photo{condition}"))?;
            let keys = rows.query_map([], |row| row.get::<_, i64>(0).map(|key| key as Key))?;
            keys.collect()
        })
    }

    /// Contents and one key each, gone photos included; the greatest key of a content wins.
    pub(crate) fn contents(&self, mut each: impl FnMut(Hash, Key)) -> Result<()> {
        self.ask(|db| {
            let mut rows = db.prepare("SELECT hash, key FROM photo ORDER BY key")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                if let Ok(hash) = Hash::try_from(row.get_ref(0)?.as_blob().unwrap_or_default()) {
                    each(hash, row.get::<_, i64>(1)? as Key);
                }
            }
            Ok(())
        })
    }

    /// Paths of keys, gone ones included.
    pub(crate) fn path(&self, key: Key) -> Result<Option<PathBuf>> {
        self.ask(|db| {
            let mut row = db.prepare_cached("SELECT path FROM photo WHERE key = ?1")?;
            row.query_row([key as i64], |row| path_of(row, 0)).optional()
        })
    }

    /// Files that photos lie inside of. Not [`Reader::sources`], which counts what came from each: every search that looks for new
    /// photos asks this.
    fn containers(&self) -> Result<HashSet<PathBuf>> {
        self.ask(|db| {
            let mut rows = db.prepare_cached("SELECT path FROM source WHERE kind <> 'list'")?;
            rows.query_map([], |row| path_of(row, 0))?.collect()
        })
    }

    /// Hands over what is known at or below the given paths.
    pub(crate) fn known(&self, scope: &[PathBuf], whose: Whose, mut each: impl FnMut(Known)) -> Result<()> {
        let (containers, outside) = match whose {
            Whose::Walked => {
                (self.containers()?, " AND (source IS NULL OR source IN (SELECT id FROM source WHERE kind = 'list'))")
            }
            Whose::All => (HashSet::new(), ""),
        };
        self.ask(|db| {
            for dir in scope {
                let (below, values) = path::photos_below(dir);
                let sql = format!("SELECT path, size, mtime, key, gone FROM photo WHERE {below}{outside}");
                let mut rows = db.prepare(&sql)?;
                let mut rows = rows.query(params_from_iter(&values))?;
                while let Some(row) = rows.next()? {
                    let gone = !matches!(row.get_ref(4)?, ValueRef::Null);
                    each(known(row, Kind::Photo { key: row.get::<_, i64>(3)? as Key, gone })?);
                }
                skipped(db, dir, &mut |known: Known| {
                    if containers.is_empty() || !is_inside(&known.path, &containers) {
                        each(known);
                    }
                })?;
            }
            Ok(())
        })
    }

    /// Addresses of the web that failed for good.
    pub(crate) fn failed_addresses(&self, mut each: impl FnMut(Known)) -> Result<()> {
        self.ask(|db| ["http://", "https://"].iter().try_for_each(|all| skipped(db, Path::new(all), &mut each)))
    }

    /// Looks for damage in the file itself. Reads all of it.
    pub(crate) fn check(&self) -> Result<Vec<String>> {
        self.ask(store::integrity)
    }

    /// Rises with every change of photos.
    pub(crate) fn stamp(&self) -> Result<i64> {
        self.ask(|db| db.prepare_cached("SELECT stamp FROM library")?.query_row([], |row| row.get(0)))
    }

    /// The key that the next photo gets.
    pub(crate) fn next_key(&self) -> Result<Key> {
        self.ask(|db| {
            db.query_row("SELECT next_key FROM library", params![], |row| row.get::<_, i64>(0).map(|n| n as Key))
        })
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // A connection that cannot end its transaction is not kept: `give_back` looks.
            let _ = connection.execute_batch("COMMIT");
            self.catalog.give_back(connection);
        }
    }
}

fn skipped(db: &Connection, dir: &Path, each: &mut impl FnMut(Known)) -> rusqlite::Result<()> {
    let (below, values) = path::skipped_below(dir);
    let mut rows = db.prepare(&format!("SELECT path, size, mtime, reason, version FROM skipped WHERE {below}"))?;
    let mut rows = rows.query(params_from_iter(&values))?;
    while let Some(row) = rows.next()? {
        let now = row.get_ref(4)?.as_bytes().is_ok_and(|version| version == VERSION.as_bytes());
        each(known(row, Kind::Skipped { reason: row.get(3)?, now })?);
    }
    Ok(())
}

fn known(row: &Row<'_>, kind: Kind) -> rusqlite::Result<Known> {
    Ok(Known { path: path_of(row, 0)?, size: row.get::<_, i64>(1)? as u64, mtime: row.get(2)?, kind })
}

/// Whether an address is of something inside of one of the files: `shard.tar!key`, `matrix.npy#7`.
fn is_inside(address: &Path, files: &HashSet<PathBuf>) -> bool {
    address
        .to_str()
        .is_some_and(|text| text.match_indices(['!', '#']).any(|(at, _)| files.contains(Path::new(&text[..at]))))
}

pub(super) fn path_of(row: &Row<'_>, column: usize) -> rusqlite::Result<PathBuf> {
    path::from_sql(row.get_ref(column)?).ok_or_else(|| invalid(column, "path"))
}

fn place_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Place>> {
    let (latitude, longitude): (Option<f64>, Option<f64>) = (row.get(column)?, row.get(column + 1)?);
    Ok(latitude.zip(longitude).map(|(latitude, longitude)| Place { latitude, longitude }))
}
