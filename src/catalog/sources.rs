//! What the catalog knows of the files that photos came from.

use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, Row};

use super::read::path_of;
use super::{Key, Keys, Part, Reader, Source, SourceFile, SourceKind, path};
use crate::Result;

impl Reader<'_> {
    /// Keys of the photos that came from a source.
    pub(crate) fn keys_of_source(&self, source: i64) -> Result<Keys> {
        self.ask(|db| {
            let mut rows = db.prepare_cached("SELECT key FROM photo WHERE source = ?1")?;
            let keys = rows.query_map([source], |row| row.get::<_, i64>(0).map(|key| key as Key))?;
            keys.collect()
        })
    }

    /// All sources, by path.
    pub(crate) fn sources(&self) -> Result<Vec<Source>> {
        self.ask(|db| {
            let mut rows = db.prepare_cached(
                "SELECT path, kind, whole = 1, (SELECT count(*) FROM photo WHERE source = source.id), part FROM source \
                 ORDER BY path",
            )?;
            let mut rows = rows.query([])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let kind = SourceKind::from_name(row.get_ref(1)?.as_str().unwrap_or_default());
                let (path, items) = (path_of(row, 0)?, row.get::<_, i64>(3)? as u64);
                let (complete, part) = (row.get(2)?, part_of(row, 4)?);
                all.extend(kind.map(|kind| Source { path, kind, items, complete, part }));
            }
            Ok(all)
        })
    }

    /// All sources as a writer knows them, with their numbers, the rows that are dealt with, and whether they are complete.
    pub(crate) fn source_files(&self) -> Result<Vec<(i64, SourceFile, u64, bool)>> {
        self.ask(|db| {
            let mut rows =
                db.prepare("SELECT id, path, kind, size, mtime, base, done, whole = 1, part FROM source ORDER BY id")?;
            let mut rows = rows.query([])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let Some(kind) = SourceKind::from_name(row.get_ref(2)?.as_str().unwrap_or_default()) else { continue };
                let file = SourceFile {
                    path: path_of(row, 1)?,
                    kind,
                    size: row.get::<_, i64>(3)? as u64,
                    mtime: row.get(4)?,
                    base: path::from_sql(row.get_ref(5)?),
                    part: part_of(row, 8)?,
                };
                all.push((row.get(0)?, file, row.get::<_, i64>(6)? as u64, row.get(7)?));
            }
            Ok(all)
        })
    }

    /// Of each key the byte of its source where the picture begins, if it has one.
    pub(crate) fn starts(&self, keys: &[Key]) -> Result<Vec<Option<u64>>> {
        self.ask(|db| {
            let mut row = db.prepare_cached("SELECT start FROM photo WHERE key = ?1")?;
            let start = |key: &Key| row.query_row([*key as i64], |row| row.get::<_, Option<i64>>(0)).optional();
            keys.iter().map(start).map(|found| Ok(found?.flatten().map(|start| start as u64))).collect()
        })
    }

    /// Every path, gone ones included.
    pub(crate) fn paths(&self, mut each: impl FnMut(&Path)) -> Result<()> {
        self.ask(|db| {
            let mut rows = db.prepare("SELECT path FROM photo")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                each(&path_of(row, 0)?);
            }
            Ok(())
        })
    }

    /// The columns of metadata with the kinds of values that SQLite has in them (`integer`, `real`, `text`), sorted. Reads all
    /// metadata.
    pub(crate) fn field_kinds(&self) -> Result<Vec<(String, Vec<&'static str>)>> {
        let fields = self.fields()?;
        self.ask(|db| {
            let mut all = Vec::new();
            for (name, id) in fields {
                let mut kinds =
                    db.prepare(&format!("SELECT DISTINCT typeof(f{id}) FROM meta WHERE f{id} IS NOT NULL"))?;
                let mut found: Vec<&'static str> = kinds
                    .query_map([], |row| {
                        Ok(match row.get_ref(0)?.as_str().unwrap_or_default() {
                            "integer" => "integer",
                            "real" => "real",
                            _ => "text",
                        })
                    })?
                    .collect::<rusqlite::Result<_>>()?;
                found.sort_unstable();
                all.push((name, found));
            }
            Ok(all)
        })
    }

    /// Folders in which links of metadata may point: those that were indexed, and those that sources begin at.
    pub(crate) fn trusted_folders(&self) -> Result<Vec<PathBuf>> {
        self.ask(|db| {
            let mut rows =
                db.prepare_cached("SELECT path FROM root UNION SELECT base FROM source WHERE base IS NOT NULL")?;
            rows.query_map([], |row| path_of(row, 0))?.collect()
        })
    }
}

fn part_of(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Part>> {
    Ok(row.get::<_, Option<String>>(at)?.as_deref().and_then(Part::from_name))
}
