//! Captions, metadata, words and sources: what collections add to the photos.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Transaction, params, params_from_iter};
use serde_json::{Map, Value};

use super::filter::Narrowed;
use super::item::{MOST_FIELDS, REST, from_sql, to_sql};
use super::read::path_of;
use super::{Item, Key, Reader, Said, SourceFile, SourceKind, SourceState, Whereabouts, path, words};
use crate::Result;
use crate::query::Filter;

/// `whole` of a source whose file is another one than before: nothing that is known of its members may be relied on until it has
/// been read to its end again, however many runs that takes.
const CHANGED: i64 = 2;

/// Notes a source or finds its state. The file as it is now is what the next look compares with.
pub(super) fn source(db: &Transaction<'_>, file: &SourceFile) -> rusqlite::Result<SourceState> {
    let (size, base) = (file.size as i64, file.base.as_deref().map(path::to_sql));
    let part = file.part.map(|part| part.to_string());
    let known = db
        .query_row(
            "SELECT id, size, mtime, done, whole, kind, part FROM source WHERE path = ?1",
            [path::to_sql(&file.path)],
            |row| {
                let same = (row.get::<_, i64>(1)?, row.get::<_, i64>(2)?) == (size, file.mtime)
                    && row.get_ref(5)?.as_str().is_ok_and(|kind| kind == file.kind.name());
                let other_part = row.get::<_, Option<String>>(6)? != part;
                // Of another part nothing was read yet. Rows of matrices lie where they lay; members of shards were compared with the
                // file only where they are of the part that was read, and are looked at again.
                let whole = match row.get(4)? {
                    whole if same && !other_part => whole,
                    whole if same && file.kind == SourceKind::Embeddings => {
                        if whole == CHANGED {
                            CHANGED
                        } else {
                            0
                        }
                    }
                    _ => CHANGED,
                };
                let done = if same && !other_part { row.get::<_, i64>(3)? as u64 } else { 0 };
                Ok(SourceState { id: row.get(0)?, done, complete: whole == 1, changed: whole == CHANGED })
            },
        )
        .optional()?;
    let Some(state) = known else {
        db.execute(
            "INSERT INTO source (path, kind, size, mtime, base, part) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![path::to_sql(&file.path), file.kind.name(), size, file.mtime, base, part],
        )?;
        return Ok(SourceState { id: db.last_insert_rowid(), ..SourceState::default() });
    };
    let whole = if state.changed { CHANGED } else { state.complete.into() };
    db.execute(
        "UPDATE source SET kind = ?2, size = ?3, mtime = ?4, base = coalesce(?5, base), done = ?6, whole = ?7, part = ?8 \
         WHERE id = ?1",
        params![state.id, file.kind.name(), size, file.mtime, base, state.done as i64, whole, part],
    )?;
    Ok(state)
}

/// Puts the words of a photo into the full-text index, in place of those that it had.
pub(super) fn index_words(db: &Transaction<'_>, key: Key, caption: Option<&str>, place: &Path) -> rusqlite::Result<()> {
    let name = place.file_name().unwrap_or(place.as_os_str()).to_string_lossy();
    db.prepare_cached("INSERT OR REPLACE INTO words (rowid, caption, name) VALUES (?1, ?2, ?3)")?.execute(params![
        key as i64,
        caption.map(words::spaced),
        words::spaced(&name)
    ])?;
    Ok(())
}

/// Puts the words of all photos that are in a script without spaces into the index again.
pub(super) fn index_words_anew(db: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut rows = db.prepare("SELECT key, coalesce(link, path), caption, link IS NULL AND hash = x'' FROM photo")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (key, place, caption): (i64, _, Option<String>) = (row.get(0)?, path_of(row, 1)?, row.get(2)?);
        let place = if row.get(3)? { Path::new("") } else { &place };
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        if words::is_unspaced(&name) || caption.as_deref().is_some_and(words::is_unspaced) {
            index_words(db, key as Key, caption.as_deref(), place)?;
        }
    }
    Ok(())
}

/// Adds what a collection says of a photo that is known.
pub(super) fn describe(db: &Transaction<'_>, key: Key, caption: Option<&str>, item: &Item) -> rusqlite::Result<()> {
    let before = caption_of(db, key)?;
    let after = Said::caption_after(caption, item, before.as_deref());
    let place = db
        .prepare_cached(
            "UPDATE photo SET caption = ?2, source = coalesce(?3, source), start = coalesce(?4, start) WHERE key = ?1 \
             RETURNING coalesce(link, path), caption",
        )?
        .query_row(params![key as i64, after, item.source, item.start.map(|start| start as i64)], |row| {
            Ok((path_of(row, 0)?, row.get::<_, Option<String>>(1)?))
        })
        .optional()?;
    let Some((place, caption)) = place else { return Ok(()) };
    index_words(db, key, caption.as_deref(), &place)?;
    if item.alone {
        db.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key as i64])?;
    }
    fields(db, key, &item.fields)
}

/// Writes metadata, making columns for names that are new. A value of null takes the place of what was there.
pub(super) fn fields(db: &Transaction<'_>, key: Key, fields: &Map<String, Value>) -> rusqlite::Result<()> {
    if fields.is_empty() {
        return Ok(());
    }
    let (mut columns, mut values) = (vec!["key".to_owned()], vec![Sql::Integer(key as i64)]);
    let mut rest = Map::new();
    for (name, value) in fields {
        let known = if value.is_null() { known_column(db, name)? } else { column(db, name)? };
        match known {
            Some(id) => {
                columns.push(format!("f{id}"));
                values.push(to_sql(value));
            }
            None if value.is_null() => {}
            None => {
                rest.insert(name.clone(), value.clone());
            }
        }
    }
    if !rest.is_empty()
        && let Some(id) = column(db, REST)?
    {
        columns.push(format!("f{id}"));
        values.push(Sql::Text(Value::Object(rest).to_string()));
    }
    let marks = vec!["?"; columns.len()].join(", ");
    let updates: Vec<String> = columns[1..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let conflict =
        if updates.is_empty() { "DO NOTHING".to_owned() } else { format!("DO UPDATE SET {}", updates.join(", ")) };
    let sql = format!("INSERT INTO meta ({}) VALUES ({marks}) ON CONFLICT (key) {conflict}", columns.join(", "));
    db.prepare_cached(&sql)?.execute(params_from_iter(values))?;
    Ok(())
}

/// The number of a column, which is made where it is missing; none if there are too many.
fn column(db: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<i64>> {
    if let Some(id) = known_column(db, name)? {
        return Ok(Some(id));
    }
    let count: i64 = db.query_row("SELECT count(*) FROM field", [], |row| row.get(0))?;
    if count as usize >= MOST_FIELDS && name != REST {
        return Ok(None);
    }
    db.execute("INSERT INTO field (name) VALUES (?1)", [name])?;
    let id = db.last_insert_rowid();
    db.execute_batch(&format!("ALTER TABLE meta ADD COLUMN f{id}"))?;
    Ok(Some(id))
}

/// The caption of a photo.
pub(super) fn caption_of(db: &Connection, key: Key) -> rusqlite::Result<Option<String>> {
    let mut row = db.prepare_cached("SELECT caption FROM photo WHERE key = ?1")?;
    Ok(row.query_row([key as i64], |row| row.get(0)).optional()?.flatten())
}

/// The number of a column that is there.
fn known_column(db: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM field WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

impl Reader<'_> {
    /// The caption of a photo.
    pub(crate) fn caption(&self, key: Key) -> Result<Option<String>> {
        self.ask(|db| caption_of(db, key))
    }

    /// The columns of metadata: name and number.
    pub(crate) fn fields(&self) -> Result<Vec<(String, i64)>> {
        self.ask(|db| {
            let mut rows = db.prepare_cached("SELECT name, id FROM field ORDER BY id")?;
            rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    /// The metadata of keys, in their order; empty for a key without any.
    pub(crate) fn metadata(&self, keys: &[Key]) -> Result<Vec<Map<String, Value>>> {
        let fields = self.fields()?;
        self.ask(|db| {
            if fields.is_empty() {
                return Ok(vec![Map::new(); keys.len()]);
            }
            let columns: Vec<String> = fields.iter().map(|(_, id)| format!("f{id}")).collect();
            let mut row = db.prepare_cached(&format!("SELECT {} FROM meta WHERE key = ?1", columns.join(", ")))?;
            let mut all = Vec::with_capacity(keys.len());
            for &key in keys {
                let mut map = Map::new();
                let mut rows = row.query([key as i64])?;
                if let Some(row) = rows.next()? {
                    for (at, (name, _)) in fields.iter().enumerate() {
                        let value = from_sql(row.get_ref(at)?);
                        if name == REST {
                            let rest: Option<Map<String, Value>> =
                                value.as_str().and_then(|text| serde_json::from_str(text).ok());
                            map.extend(rest.unwrap_or_default());
                        } else if !value.is_null() {
                            map.insert(name.clone(), value);
                        }
                    }
                }
                all.push(map);
            }
            Ok(all)
        })
    }

    /// Photos that a file beside them may speak of, `a.jpg` for `a.txt` and for `a.jpg.txt`, and whether no collection speaks of them.
    pub(crate) fn beside(&self, file: &Path) -> Result<Vec<(Key, PathBuf, bool)>> {
        let Some(stem) = file.file_stem() else { return Ok(Vec::new()) };
        let photo = file.with_file_name(stem);
        let Some(text) = photo.to_str() else { return Ok(Vec::new()) };
        self.ask(|db| {
            // `/` follows `.` in ASCII: the range is all names that begin so.
            let mut rows = db.prepare_cached(
                "SELECT key, path, source IS NULL FROM photo WHERE path = ?1 OR (path > ?1 || '.' AND path < ?1 || '/')",
            )?;
            let rows = rows.query_map([text], |row| Ok((row.get::<_, i64>(0)? as Key, path_of(row, 1)?, row.get(2)?)))?;
            let mut found = Vec::new();
            for row in rows {
                let (key, path, alone): (Key, PathBuf, bool) = row?;
                if path == photo || path.with_extension("") == photo {
                    found.push((key, path, alone));
                }
            }
            Ok(found)
        })
    }

    /// Where the bytes of a picture are; none if the key has no photo that may answer.
    pub(crate) fn whereabouts(&self, key: Key) -> Result<Option<Whereabouts>> {
        self.ask(|db| {
            let mut row = db.prepare_cached(
                "SELECT photo.path, link, photo.size, start, source.path, kind, base FROM photo \
                 LEFT JOIN source ON source.id = photo.source WHERE key = ?1 AND gone IS NULL",
            )?;
            row.query_row([key as i64], |row| {
                let kind = row.get::<_, Option<String>>(5)?.and_then(|kind| SourceKind::from_name(&kind));
                let base = path::from_sql(row.get_ref(6)?);
                Ok(Whereabouts {
                    path: path_of(row, 0)?,
                    link: row.get(1)?,
                    size: row.get::<_, i64>(2)? as u64,
                    start: row.get::<_, Option<i64>>(3)?.map(|start| start as u64),
                    source: path::from_sql(row.get_ref(4)?).zip(kind).map(|(path, kind)| (path, kind, base)),
                })
            })
            .optional()
        })
    }

    /// Photos whose caption or name has some of the words, best first, with FTS5's BM25 rank (lower is better). None if there is
    /// no word in `texts`.
    pub(crate) fn ranked_by_words(
        &self,
        texts: &[&str],
        every: bool,
        filter: &Filter,
        limit: usize,
    ) -> Result<Option<Vec<(Key, f64)>>> {
        let query = if every { words::all(&texts.join(" ")) } else { words::any(texts.iter().copied()) };
        let Some(query) = query else { return Ok(None) };
        let Narrowed { tables, clause, values, rest } = self.narrow(filter)?;
        let allowed = if rest.is_some() { Some(self.select(filter)?) } else { None };
        self.ask(|db| {
            // The filter is asked of each row that matches, not the other way round: matches are fewer as a rule.
            let sql = format!(
                "SELECT words.rowid, words.rank FROM words WHERE words MATCH ? AND EXISTS \
                 (SELECT 1 FROM {tables} WHERE key = words.rowid AND {clause}) ORDER BY rank, words.rowid"
            );
            let mut rows = db.prepare_cached(&sql)?;
            let all = std::iter::once(Sql::Text(query)).chain(values);
            let mut rows = rows.query(params_from_iter(all))?;
            let mut found = Vec::new();
            while found.len() < limit {
                let Some(row) = rows.next()? else { break };
                let key = row.get::<_, i64>(0)? as Key;
                if allowed.as_ref().is_none_or(|allowed| allowed.contains(key)) {
                    found.push((key, row.get(1)?));
                }
            }
            Ok(Some(found))
        })
    }

    /// Captions of keys that have one.
    pub(crate) fn captions(&self, after: Key, mut each: impl FnMut(Key, String) -> ControlFlow<()>) -> Result<()> {
        self.ask(|db| {
            let mut rows = db.prepare(
                "SELECT key, caption FROM photo WHERE key > ? AND caption IS NOT NULL AND caption <> '' ORDER BY key",
            )?;
            let mut rows = rows.query([after as i64])?;
            while let Some(row) = rows.next()? {
                if each(row.get::<_, i64>(0)? as Key, row.get(1)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSpace;
    use crate::catalog::schema::{APPLICATION, MIGRATIONS};
    use crate::catalog::{Catalog, Change, Record};
    use crate::query::{Condition, Expression};
    use serde_json::json;

    fn space() -> EmbeddingSpace {
        EmbeddingSpace { model: "m".to_owned(), fingerprint: "f".to_owned(), dim: 4 }
    }

    fn library(metadata: &[Value]) -> (tempfile::TempDir, Catalog) {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::create(dir.path(), &space()).unwrap();
        let mut writer = catalog.write().unwrap();
        let changes: Vec<Change> = metadata
            .iter()
            .enumerate()
            .map(|(at, fields)| {
                let mut record = Record::blank();
                record.key = at as Key + 1;
                record.path = format!("/s/IMG_{at}.jpg").into();
                record.hash = blake3::hash(&[at as u8]).to_hex().to_string();
                record.width = 100;
                record.caption = fields["caption"].as_str().map(str::to_owned);
                record.item = Some(Box::new(Item { fields: fields.as_object().unwrap().clone(), ..Item::default() }));
                Change::Put(Box::new(record))
            })
            .collect();
        writer.apply(&changes, 100).unwrap();
        drop(writer);
        (dir, catalog)
    }

    fn select(catalog: &Catalog, condition: Condition) -> Vec<Key> {
        catalog.read().unwrap().select(&Filter::new().and(condition)).unwrap().iter().collect()
    }

    #[test]
    fn columns_are_asked_with_values_that_are_bound() {
        let (_dir, catalog) = library(&[
            json!({"width": 2000, "NSFW": "UNLIKELY", "nested": {"a": [1, 2]}, "odd name\"; --": 1.5}),
            json!({"width": null, "NSFW": "it's", "flag": true}),
            json!({}),
        ]);
        let ask = |text: &str| select(&catalog, Condition::Where(text.parse::<Expression>().unwrap()));
        assert_eq!(ask("width > 1024"), [1]);
        assert_eq!(ask("width <= 100"), [2, 3], "what the collection does not say, the file does");
        assert_eq!(ask("nsfw = 'it''s'"), [2]);
        assert_eq!(ask("NSFW != 'UNLIKELY'"), [2], "a photo without a value is neither");
        assert_eq!(ask("not NSFW = 'UNLIKELY'"), [2, 3]);
        assert_eq!(ask("NSFW is null or flag = true"), [2, 3]);
        assert_eq!(ask("[odd name\"; --] between 1 and 2"), [1]);
        assert_eq!(ask("NSFW in ('UNLIKELY', 'it''s') and not flag = 1"), [1]);
        assert_eq!(ask("nested like '%[1,2]%'"), [1]);
        assert_eq!(ask("NSFW = 'x'' OR 1=1 --'"), Vec::<Key>::new());
        let unknown = Condition::Where("NSFV = 1".parse().unwrap());
        let error = catalog.read().unwrap().select(&Filter::new().and(unknown)).unwrap_err();
        assert!(
            matches!(&error, crate::Error::BadQuery { message, span } if message.contains("NSFW?") && *span == (0..4)),
            "{error}"
        );
        let metadata = catalog.read().unwrap().metadata(&[1, 3, 99]).unwrap();
        assert_eq!(metadata[0]["odd name\"; --"], json!(1.5));
        assert_eq!(metadata[0]["nested"], json!("{\"a\":[1,2]}"));
        assert!(metadata[1].is_empty() && metadata[2].is_empty());
    }

    #[test]
    fn words_are_found_in_captions_and_names_and_go_with_their_photo() {
        let (_dir, catalog) = library(&[
            json!({"caption": "Two dogs running on a Beach"}),
            json!({"caption": "a café by night"}),
            json!({}),
        ]);
        let ask = |text: &str| select(&catalog, Condition::Mentions(text.to_owned()));
        assert_eq!(ask("dog beach"), [1], "endings and case do not count");
        assert_eq!(ask("\"running on\""), [1]);
        assert_eq!(ask("\"on running\""), Vec::<Key>::new());
        assert_eq!(ask("cafe"), [2]);
        assert_eq!(ask("IMG"), [1, 2, 3]);
        for beginning in
            ["bea*", "beac*", "beach*", "r*", "run*", "runn*", "runni*", "runnin*", "running*", "two runn*"]
        {
            assert_eq!(ask(beginning), [1], "{beginning}");
        }
        assert_eq!(ask("runk*"), Vec::<Key>::new());
        assert_eq!(ask("beach OR cafe"), Vec::<Key>::new(), "operators are words");
        let reader = catalog.read().unwrap();
        let ranked = reader.ranked_by_words(&["dogs at night"], false, &Filter::new(), 10).unwrap().unwrap();
        assert_eq!(ranked.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [2, 1]);
        drop(reader);
        let item = Box::new(Item { fields: json!({"x": 1}).as_object().unwrap().clone(), ..Item::default() });
        let changes = [
            Change::Describe { key: 3, caption: Some("a dog".to_owned()), item },
            Change::Forget("/s/IMG_0.jpg".into()),
        ];
        catalog.write().unwrap().apply(&changes, 100).unwrap();
        assert_eq!(ask("dog"), [3]);
        assert_eq!(catalog.read().unwrap().metadata(&[3]).unwrap()[0]["x"], json!(1));
    }

    #[test]
    fn any_stretch_of_a_caption_without_spaces_is_found() {
        let (_dir, catalog) = library(&[
            json!({"caption": "两只小狗在雪地里奔跑"}),
            json!({"caption": "夏の海辺で遊ぶ子供たち beach"}),
            json!({"caption": "눈 위의 강아지들"}),
        ]);
        let ask = |text: &str| select(&catalog, Condition::Mentions(text.to_owned()));
        for (text, found) in [("小狗", 1), ("狗", 1), ("雪地", 1), ("海辺", 2), ("子供 beach", 2), ("강아지", 3)]
        {
            assert_eq!(ask(text), [found], "{text}");
        }
        assert_eq!(ask("狗小"), Vec::<Key>::new(), "the order counts");
        let ranked =
            catalog.read().unwrap().ranked_by_words(&["一只小狗"], false, &Filter::new(), 10).unwrap().unwrap();
        assert_eq!(ranked[0].0, 1);
    }

    #[test]
    fn columns_beyond_the_most_are_kept_together() {
        let many: Map<String, Value> = (0..MOST_FIELDS + 5).map(|n| (format!("c{n}"), json!(n))).collect();
        let (_dir, catalog) = library(&[Value::Object(many.clone())]);
        let found = catalog.read().unwrap().metadata(&[1]).unwrap().remove(0);
        assert_eq!(found.len(), many.len());
        assert_eq!(found[&format!("c{}", MOST_FIELDS + 4)], json!(MOST_FIELDS + 4));
    }

    #[test]
    fn a_library_of_the_first_version_is_brought_up() {
        let dir = tempfile::tempdir().unwrap();
        let old = Connection::open(dir.path().join(Catalog::FILE)).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.pragma_update(None, "application_id", APPLICATION).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.execute_batch(
            "INSERT INTO space VALUES (1, 'm', 'f', 4, 'index-f', 'current');
             INSERT INTO photo VALUES (7, '/a/Sunset Rome.jpg', 1, 2, x'00', 'jpeg', 3, 4, '2024', NULL, NULL, NULL, NULL, NULL, NULL);
             INSERT INTO photo VALUES (8, '/a/罗马的日落.jpg', 1, 2, x'01', 'jpeg', 3, 4, '2024', NULL, NULL, NULL, NULL, NULL, NULL);",
        )
        .unwrap();
        drop(old);
        let catalog = Catalog::open(dir.path()).unwrap();
        assert_eq!(select(&catalog, Condition::Mentions("rome".to_owned())), [7]);
        assert_eq!(select(&catalog, Condition::Mentions("日落".to_owned())), [8]);
        assert_eq!(select(&catalog, Condition::Where("width = 3 and key < 8 and iso is null".parse().unwrap())), [7]);
        let record = catalog.read().unwrap().records(&[7]).unwrap().remove(0);
        assert_eq!((record.caption, record.link, record.width), (None, None, 3));
        assert_eq!(catalog.read().unwrap().sources().unwrap(), []);
    }
}
