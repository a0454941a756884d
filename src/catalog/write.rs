//! Writing: batches of changes, each batch one transaction.

use std::path::{MAIN_SEPARATOR, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params, params_from_iter};

use super::describe::{self, describe, index_words};
use super::schema::{CAPTIONS, Space, State, VERSION};
use super::{Catalog, Item, Key, Keys, Record, SourceFile, SourceState, WriteLock, path, store};
use crate::Result;
use crate::model::EmbeddingSpace;

/// One step of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A photo with a new key. Whatever was known at its path is replaced.
    Put(Box<Record>),
    /// A photo's file is now at this path, with these file times, and its content is as it was.
    At {
        /// Whose.
        key: Key,
        /// Where.
        path: PathBuf,
        /// Modification time, nanoseconds since 1970.
        mtime: i64,
    },
    /// The file is there again.
    Back(Key),
    /// The file is not there.
    Gone(Key),
    /// A file was looked at and not taken.
    Skip {
        /// The file.
        path: PathBuf,
        /// Bytes.
        size: u64,
        /// Modification time, nanoseconds since 1970.
        mtime: i64,
        /// Why; none if it is no picture.
        reason: Option<String>,
    },
    /// A path is neither photo nor skipped any more.
    Forget(PathBuf),
    /// A folder was indexed.
    Root(PathBuf),
    /// What a collection says of a photo that is known already.
    Describe {
        /// Whose.
        key: Key,
        /// Replaces the caption; empty where there is none any more.
        caption: Option<String>,
        /// Metadata; columns that are not named stay, unless nothing else speaks of the photo.
        item: Box<Item>,
    },
    /// So many rows of a source are dealt with.
    Done {
        /// Which.
        source: i64,
        /// Rows from the first on.
        rows: u64,
    },
    /// A source was read to its end.
    Complete(i64),
}

/// The one writer of a catalog.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    catalog: &'a Catalog,
    connection: Option<Connection>,
    _lock: WriteLock,
}

impl<'a> Writer<'a> {
    pub(super) fn new(catalog: &'a Catalog, connection: Connection, lock: WriteLock) -> Writer<'a> {
        Writer { catalog, connection: Some(connection), _lock: lock }
    }

    fn transaction<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let connection = self.connection.as_mut().expect("there until the drop");
        let run = move || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(self.catalog.error())
    }

    /// Applies a batch and notes the next free key. Returns the keys that lost their record: their vectors can go.
    pub(crate) fn apply(&mut self, changes: &[Change], next_key: Key) -> Result<Keys> {
        self.transaction(|db| {
            let mut dropped = Keys::default();
            for change in changes {
                apply(db, change, &mut dropped)?;
            }
            db.prepare_cached("UPDATE library SET next_key = max(next_key, ?1), stamp = stamp + 1")?
                .execute([next_key as i64])?;
            Ok(dropped)
        })
    }

    /// Forgets all that is known at or below the paths. Returns the keys that lost their record.
    pub(crate) fn remove(&mut self, scope: &[PathBuf]) -> Result<Keys> {
        self.transaction(|db| {
            let mut dropped = Keys::default();
            for dir in scope {
                let (below, values) = path::below(dir);
                // A list below may have described pictures of other folders that were indexed: they stay. It may have brought others
                // that lie elsewhere, on the web for one: they go.
                let (separator, behind) = (MAIN_SEPARATOR, char::from(MAIN_SEPARATOR as u8 + 1));
                let root_below = below.replace("path", "r.path");
                let sql = format!(
                    "UPDATE photo SET source = NULL, start = NULL WHERE source IN \
                     (SELECT id FROM source WHERE {below} AND kind = 'list') AND NOT {below} AND EXISTS \
                     (SELECT 1 FROM root AS r WHERE photo.path > r.path || '{separator}' \
                     AND photo.path < r.path || '{behind}' AND NOT {root_below})"
                );
                db.execute(&sql, params_from_iter(values.iter().chain(&values).chain(&values)))?;
                let both = values.iter().chain(&values);
                let sql = format!(
                    "DELETE FROM photo WHERE {below} OR source IN (SELECT id FROM source WHERE {below}) RETURNING key"
                );
                let mut rows = db.prepare(&sql)?;
                let mut rows = rows.query(params_from_iter(both))?;
                while let Some(row) = rows.next()? {
                    dropped.insert(row.get::<_, i64>(0)? as Key);
                }
                let (skipped, skips) = path::skipped_below(dir);
                db.execute(&format!("DELETE FROM skipped WHERE {skipped}"), params_from_iter(&skips))?;
                db.execute(&format!("DELETE FROM source WHERE {below}"), params_from_iter(&values))?;
                db.execute(&format!("DELETE FROM root WHERE {below}"), params_from_iter(&values))?;
            }
            db.execute("UPDATE library SET stamp = stamp + 1", [])?;
            Ok(dropped)
        })
    }

    /// Notes sources, or finds out how far they were read. One that changed since is to be read from its beginning.
    pub(crate) fn sources(&mut self, files: &[SourceFile]) -> Result<Vec<SourceState>> {
        self.transaction(|db| files.iter().map(|file| describe::source(db, file)).collect())
    }

    /// Forgets the photos of a source. Returns their keys.
    pub(crate) fn empty_source(&mut self, source: i64) -> Result<Keys> {
        self.transaction(|db| {
            db.execute("UPDATE source SET done = 0, whole = 0 WHERE id = ?1", [source])?;
            db.execute("UPDATE library SET stamp = stamp + 1", [])?;
            let mut rows = db.prepare("DELETE FROM photo WHERE source = ?1 RETURNING key")?;
            let keys = rows.query_map([source], |row| row.get::<_, i64>(0).map(|key| key as Key))?;
            keys.collect()
        })
    }

    /// The space that is being filled beside the current one: the one noted before, or a new row. A different space that was
    /// being filled is retired.
    pub(crate) fn coming(&mut self, space: &EmbeddingSpace) -> Result<Space> {
        self.transaction(|db| match Space::in_state(db, State::Coming)? {
            Some(coming) if coming.space.fingerprint == space.fingerprint && coming.space.dim == space.dim => {
                Ok(coming)
            }
            other => {
                if let Some(other) = other {
                    set_state(db, other.id, State::Retired)?;
                }
                store::insert_space(db, space, State::Coming)
            }
        })
    }

    /// The coming space answers from now on; the current one is retired.
    pub(crate) fn flip(&mut self) -> Result<()> {
        self.transaction(|db| {
            if let Some(coming) = Space::in_state(db, State::Coming)? {
                if let Some(current) = Space::in_state(db, State::Current)? {
                    set_state(db, current.id, State::Retired)?;
                }
                set_state(db, coming.id, State::Current)?;
            }
            Ok(())
        })
    }

    /// Deletes the files of retired spaces, and then the rows. What cannot be deleted now (a file in use on Windows) is for the
    /// next time.
    pub(crate) fn sweep(&mut self, library: &Path) -> Result<()> {
        let spaces = self.transaction(|db| Space::all(db))?;
        for space in spaces.into_iter().filter(|space| space.state == State::Retired) {
            let _ = std::fs::remove_dir_all(library.join(format!("{}{CAPTIONS}", space.directory)));
            match std::fs::remove_dir_all(library.join(&space.directory)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
                _ => self.transaction(|db| {
                    db.execute("DELETE FROM space WHERE id = ?1 AND state = 'retired'", [space.id])?;
                    Ok(())
                })?,
            }
        }
        Ok(())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.catalog.give_back(connection);
        }
    }
}

fn set_state(db: &Transaction<'_>, id: i64, state: State) -> rusqlite::Result<()> {
    db.execute("UPDATE space SET state = ?2 WHERE id = ?1", params![id, state.name()])?;
    Ok(())
}

fn apply(db: &Transaction<'_>, change: &Change, dropped: &mut Keys) -> rusqlite::Result<()> {
    match change {
        Change::Put(record) => {
            clear(db, &record.path, None, dropped)?;
            let hash = record.hash_bytes();
            let hash_is_empty = hash.is_empty();
            let item = record.item.as_deref();
            db.prepare_cached(
                "INSERT INTO photo (key, path, size, mtime, hash, format, width, height, time, taken, camera, lens, \
                 latitude, longitude, source, start, link, caption, aperture, exposure_time, iso, focal_length) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)",
            )?
            .execute(params![
                record.key as i64,
                path::to_sql(&record.path),
                record.size as i64,
                record.mtime,
                hash,
                record.format,
                record.width,
                record.height,
                record.taken.unwrap_or_else(|| civil(record.mtime)).to_string(),
                record.taken.map(|time| time.to_string()),
                record.camera,
                record.lens,
                record.place.map(|place| place.latitude),
                record.place.map(|place| place.longitude),
                item.and_then(|item| item.source),
                item.and_then(|item| item.start).map(|start| start as i64),
                record.link,
                record.caption,
                record.exposure.aperture,
                record.exposure.time,
                record.exposure.iso,
                record.exposure.focal_length,
            ])?;
            // The address of a row of numbers has no words that anybody would look for.
            let named = !hash_is_empty || record.link.is_some();
            let place = if named { record.place_of_picture() } else { Path::new("") };
            index_words(db, record.key, record.caption.as_deref(), place)?;
            if let Some(item) = item {
                describe::fields(db, record.key, &item.fields)?;
            }
        }
        Change::At { key, path, mtime } => {
            clear(db, path, Some(*key), dropped)?;
            db.prepare_cached(
                "UPDATE photo SET path = ?2, mtime = ?3, time = coalesce(taken, ?4), gone = NULL WHERE key = ?1",
            )?
            .execute(params![*key as i64, path::to_sql(path), mtime, civil(*mtime).to_string()])?;
            index_words(db, *key, describe::caption_of(db, *key)?.as_deref(), path)?;
        }
        Change::Back(key) => {
            db.prepare_cached("UPDATE photo SET gone = NULL WHERE key = ?1")?.execute([*key as i64])?;
        }
        Change::Gone(key) => {
            db.prepare_cached("UPDATE photo SET gone = ?2 WHERE key = ?1 AND gone IS NULL")?
                .execute(params![*key as i64, now()])?;
        }
        Change::Skip { path, size, mtime, reason } => {
            clear(db, path, None, dropped)?;
            db.prepare_cached(
                "INSERT OR REPLACE INTO skipped (path, size, mtime, reason, version) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![path::to_sql(path), *size as i64, mtime, reason, VERSION])?;
        }
        Change::Forget(path) => clear(db, path, None, dropped)?,
        Change::Root(path) => {
            db.prepare_cached("INSERT OR REPLACE INTO root (path, indexed) VALUES (?1, ?2)")?
                .execute(params![path::to_sql(path), now()])?;
        }
        Change::Describe { key, caption, item } => describe(db, *key, caption.as_deref(), item)?,
        Change::Done { source, rows } => {
            db.prepare_cached("UPDATE source SET done = ?2 WHERE id = ?1")?.execute(params![source, *rows as i64])?;
        }
        Change::Complete(source) => {
            db.prepare_cached("UPDATE source SET whole = 1 WHERE id = ?1")?.execute([source])?;
        }
    }
    Ok(())
}

/// Takes away what is known at a path, except the photo `keep`.
fn clear(db: &Transaction<'_>, path: &Path, keep: Option<Key>, dropped: &mut Keys) -> rusqlite::Result<()> {
    let path = path::to_sql(path);
    let old = db
        .prepare_cached("DELETE FROM photo WHERE path = ?1 AND key IS NOT ?2 RETURNING key")?
        .query_row(params![path, keep.map(|key| key as i64)], |row| row.get::<_, i64>(0))
        .optional()?;
    if let Some(old) = old {
        dropped.insert(old as Key);
    }
    db.prepare_cached("DELETE FROM skipped WHERE path = ?1")?.execute([path])?;
    Ok(())
}

/// A file time as people read it: local civil time.
fn civil(mtime: i64) -> jiff::civil::DateTime {
    let stamp = jiff::Timestamp::from_nanosecond(mtime.into()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    jiff::tz::TimeZone::system().to_datetime(stamp)
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
