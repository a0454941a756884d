//! Tables, their versions and the way from one to the next.
//!
//! The version is SQLite's `user_version`. Each migration is one step, run in one transaction with the version's change, and
//! never edited once released. A file with a higher version is refused: an older program must not guess.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::model::EmbeddingSpace;

/// SQLite's `application_id`: `TINT`.
pub(super) const APPLICATION: i32 = 0x5449_4e54;

/// The program's version, noted with each skipped file.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Step *n* leads from version *n* to *n* + 1.
pub(super) const MIGRATIONS: &[&str] = &[V1, V2, V3, V4];

/// `time` is when the photo was taken, or the file's modification time in local civil time where the camera did not say, as
/// ISO 8601 text: it sorts, it fits SQLite's date functions, and people can read it.
/// `gone` is the Unix time at which the file was missed. `reason` is empty where a file is no picture and nobody needs to hear of it.
const V1: &str = "
CREATE TABLE library (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    next_key INTEGER NOT NULL
) STRICT;
INSERT INTO library (id, next_key) VALUES (1, 1);

CREATE TABLE space (
    id          INTEGER PRIMARY KEY,
    model       TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dim         INTEGER NOT NULL,
    directory   TEXT NOT NULL UNIQUE,
    state       TEXT NOT NULL CHECK (state IN ('current', 'coming', 'retired'))
) STRICT;
CREATE UNIQUE INDEX space_current ON space (state) WHERE state <> 'retired';

CREATE TABLE root (
    path    ANY PRIMARY KEY,
    indexed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE photo (
    key       INTEGER PRIMARY KEY,
    path      ANY NOT NULL UNIQUE,
    size      INTEGER NOT NULL,
    mtime     INTEGER NOT NULL,
    hash      BLOB NOT NULL,
    format    TEXT NOT NULL,
    width     INTEGER NOT NULL,
    height    INTEGER NOT NULL,
    time      TEXT NOT NULL,
    taken     TEXT,
    camera    TEXT,
    lens      TEXT,
    latitude  REAL,
    longitude REAL,
    gone      INTEGER
) STRICT;
CREATE INDEX photo_hash ON photo (hash);
CREATE INDEX photo_time ON photo (time);
CREATE INDEX photo_camera ON photo (camera) WHERE camera IS NOT NULL;
CREATE INDEX photo_lens ON photo (lens) WHERE lens IS NOT NULL;
CREATE INDEX photo_place ON photo (latitude, longitude) WHERE latitude IS NOT NULL;
CREATE INDEX photo_gone ON photo (key) WHERE gone IS NOT NULL;

CREATE TABLE skipped (
    path    ANY PRIMARY KEY,
    size    INTEGER NOT NULL,
    mtime   INTEGER NOT NULL,
    reason  TEXT,
    version TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Collections. `source` is a file that photos came from; `done` counts its rows that
/// are dealt with, `whole` is 1 once it was read to its end, and 2 from when it changed until it was read to its end again. A photo of a source has its
/// address in it as path (`shard.tar!000.jpg`, `img_emb_0.npy#17`), `start` is the byte where the picture begins, `link` the path or
/// address that the collection gives. Metadata has a column `f…` of `meta` for each name in `field`: [`super::item`] says why.
/// `words` is the full-text index; it keeps no copy of the texts. `stamp` rises with every transaction that changes photos.
const V2: &str = "
CREATE TABLE source (
    id    INTEGER PRIMARY KEY,
    path  ANY NOT NULL UNIQUE,
    kind  TEXT NOT NULL,
    size  INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    base  ANY,
    done  INTEGER NOT NULL DEFAULT 0,
    whole INTEGER NOT NULL DEFAULT 0
) STRICT;

ALTER TABLE photo ADD COLUMN source INTEGER REFERENCES source (id);
ALTER TABLE photo ADD COLUMN start INTEGER;
ALTER TABLE photo ADD COLUMN link TEXT;
ALTER TABLE photo ADD COLUMN caption TEXT;
CREATE INDEX photo_source ON photo (source) WHERE source IS NOT NULL;

CREATE TABLE field (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE meta (key INTEGER PRIMARY KEY);

CREATE VIRTUAL TABLE words USING fts5 (
    caption, name, content = '', contentless_delete = 1, tokenize = 'porter unicode61 remove_diacritics 2'
);
INSERT INTO words (rowid, name)
    SELECT key, replace(path, rtrim(path, replace(path, '/', '')), '') FROM photo WHERE typeof(path) = 'text';

ALTER TABLE library ADD COLUMN stamp INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER photo_forgotten AFTER DELETE ON photo BEGIN
    DELETE FROM meta WHERE key = old.key;
    DELETE FROM words WHERE rowid = old.key;
END;
";

/// How photos were exposed. Those that are here already say nothing of it until they are taken in anew. With this step
/// [`super::describe::index_words_anew`] puts captions and names in scripts without spaces into the full-text index as the words
/// of [`super::words`].
const V3: &str = "
ALTER TABLE photo ADD COLUMN aperture REAL;
ALTER TABLE photo ADD COLUMN exposure_time REAL;
ALTER TABLE photo ADD COLUMN iso INTEGER;
ALTER TABLE photo ADD COLUMN focal_length REAL;
";

/// Which part of a source `done` and `whole` speak of, as `0/4`; NULL for all of it. What earlier versions read is taken for all.
const V4: &str = "
ALTER TABLE source ADD COLUMN part TEXT;
";

/// What the directory of a space's captions is called, behind the name of its index.
pub(crate) const CAPTIONS: &str = "-captions";

/// What an embedding space is to the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Answers searches.
    Current,
    /// Being filled beside the current one.
    Coming,
    /// Its files wait to be deleted.
    Retired,
}

impl State {
    /// As stored.
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Current => "current",
            State::Coming => "coming",
            State::Retired => "retired",
        }
    }
}

/// A row of `space`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Space {
    pub(crate) id: i64,
    pub(crate) space: EmbeddingSpace,
    /// Name of the index directory inside the library.
    pub(crate) directory: String,
    pub(crate) state: State,
}

impl Space {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Space> {
        let state = match row.get_ref(5)?.as_str().unwrap_or_default() {
            "current" => State::Current,
            "coming" => State::Coming,
            _ => State::Retired,
        };
        Ok(Space {
            id: row.get(0)?,
            space: EmbeddingSpace { model: row.get(1)?, fingerprint: row.get(2)?, dim: row.get::<_, u32>(3)? as usize },
            directory: row.get(4)?,
            state,
        })
    }

    /// All rows.
    pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<Space>> {
        let mut rows =
            connection.prepare_cached("SELECT id, model, fingerprint, dim, directory, state FROM space ORDER BY id")?;
        rows.query_map([], Space::from_row)?.collect()
    }

    /// The row in a state that at most one row has.
    pub(super) fn in_state(connection: &Connection, state: State) -> rusqlite::Result<Option<Space>> {
        let mut row = connection
            .prepare_cached("SELECT id, model, fingerprint, dim, directory, state FROM space WHERE state = ?1")?;
        row.query_row(params![state.name()], Space::from_row).optional()
    }
}
