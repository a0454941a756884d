//! Vectors and what is said of them, as other programs read them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::fresh::Fresh;
use super::npy::Npy;
use super::{Row, rows};
use crate::collection::{ColumnKind, ParquetWriter, SPACE_FILE};
use crate::engine::{Engine, Snapshot};
use crate::query::Filter;
use crate::{Error, Result};

/// Rows of a file, as clip-retrieval has them.
const ROWS_PER_FILE: u64 = 1_000_000;

/// What an export writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportFormat {
    /// A folder as clip-retrieval's `inference` writes it and its `index` reads it: `img_emb/img_emb_0.npy` (float16),
    /// `text_emb/text_emb_0.npy` if every photo has a vector of its caption, `metadata/metadata_0.parquet`, and `space.json`, which
    /// says which model made the vectors.
    ClipRetrieval,
    /// One Parquet file with a column `embedding`.
    Parquet,
    /// One JSON object a line, with an array `embedding`.
    JsonLines,
}

/// What an export wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Photos.
    pub rows: u64,
    /// Files.
    pub files: Vec<PathBuf>,
    /// Vectors of captions that were left out, because not every photo has one and rows must agree.
    pub captions_left_out: u64,
}

/// An export request; ends in [`Export::run`].
#[must_use = "nothing is written before `run`"]
pub struct Export<'a> {
    engine: &'a Engine,
    format: ExportFormat,
    filter: Filter,
    rows_per_file: u64,
    progress: Box<dyn FnMut(u64) + 'a>,
}

impl Engine {
    /// Writes photos with their vectors for other programs: a request; its `run` does it.
    pub fn export(&self, format: ExportFormat) -> Export<'_> {
        let progress = Box::new(|_| {});
        Export { engine: self, format, filter: Filter::new(), rows_per_file: ROWS_PER_FILE, progress }
    }
}

impl<'a> Export<'a> {
    /// Only photos that the filter lets pass.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Rows of each file of [`ExportFormat::ClipRetrieval`]. One million by default.
    pub fn rows_per_file(mut self, rows: u64) -> Self {
        self.rows_per_file = rows.max(1);
        self
    }

    /// Hears how many rows are written.
    pub fn on_progress(mut self, progress: impl FnMut(u64) + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Writes to `path`: a new or empty folder for [`ExportFormat::ClipRetrieval`], a new file otherwise. Rows are in the order in
    /// which the photos came into the library. They have their name when everything is written.
    ///
    /// # Errors
    /// [`Error::Io`], also if the file is there or the folder is not empty: nothing is overwritten.
    pub fn run(mut self, path: impl AsRef<Path>) -> Result<Exported> {
        let snapshot = self.engine.snapshot()?;
        let fresh = Fresh::new(path.as_ref(), self.format == ExportFormat::ClipRetrieval)?;
        let path = fresh.at();
        let columns = columns(&snapshot)?;
        let mut done = 0;
        let progress = &mut self.progress;
        let mut count = || {
            done += 1;
            if done % 256 == 0 {
                progress(done);
            }
        };
        let mut exported = match self.format {
            ExportFormat::ClipRetrieval => {
                folder(&snapshot, &self.filter, path, self.rows_per_file, &columns, &mut count)?
            }
            ExportFormat::Parquet => {
                let dim = snapshot.encoder.space().dim;
                let mut file = ParquetWriter::create(path, &columns, Some(("embedding", dim)))?;
                rows(&snapshot, &self.filter, |row| {
                    count();
                    file.push(values(&row, &columns), &row.vector)
                })?;
                file.finish()?;
                Exported { rows: done, files: vec![path.to_path_buf()], captions_left_out: 0 }
            }
            ExportFormat::JsonLines => {
                let mut file = BufWriter::new(File::create(path).map_err(Error::io(path))?);
                rows(&snapshot, &self.filter, |row| {
                    count();
                    let values = values(&row, &columns).into_iter();
                    let mut line: Map<String, Value> = columns
                        .iter()
                        .map(|(name, _)| name.clone())
                        .zip(values)
                        .filter(|(_, value)| !value.is_null())
                        .collect();
                    line.insert("embedding".to_owned(), json!(row.vector));
                    writeln!(file, "{}", Value::Object(line)).map_err(Error::io(path))
                })?;
                file.flush().map_err(Error::io(path))?;
                Exported { rows: done, files: vec![path.to_path_buf()], captions_left_out: 0 }
            }
        };
        exported.files.iter_mut().for_each(|file| *file = fresh.named(file));
        fresh.finish()?;
        Ok(exported)
    }
}

fn folder(
    snapshot: &Snapshot<'_>,
    filter: &Filter,
    path: &Path,
    rows_per_file: u64,
    columns: &[(String, ColumnKind)],
    count: &mut impl FnMut(),
) -> Result<Exported> {
    let keys = snapshot.catalog.select(filter)?;
    let (mut captioned, mut all) = (0, 0);
    for key in keys.iter() {
        all += u64::from(snapshot.index.contains(key)?);
        if let Some(captions) = &snapshot.captions {
            captioned += u64::from(captions.contains(key)?);
        }
    }
    let captions = snapshot.captions.as_ref().filter(|_| captioned == all && all > 0);
    let files = all.div_ceil(rows_per_file).max(1);
    let width = files.ilog10() as usize + 1;
    let dim = snapshot.encoder.space().dim;
    let make = |name: &str| {
        let folder = path.join(name);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder)).map(|()| folder)
    };
    let (images, metadata) = (make("img_emb")?, make("metadata")?);
    let texts = if captions.is_some() { Some(make("text_emb")?) } else { None };
    let mut exported =
        Exported { captions_left_out: if captions.is_some() { 0 } else { captioned }, ..Exported::default() };
    let mut open: Option<(Npy, Option<Npy>, ParquetWriter)> = None;
    let close = |open: Option<(Npy, Option<Npy>, ParquetWriter)>, exported: &mut Exported| -> Result<()> {
        let Some((image, text, table)) = open else { return Ok(()) };
        for npy in std::iter::once(image).chain(text) {
            exported.files.push(npy.path().to_path_buf());
            npy.finish()?;
        }
        table.finish()
    };
    let begin = |number: u64| -> Result<(Npy, Option<Npy>, ParquetWriter)> {
        let image = Npy::create(images.join(format!("img_emb_{number:0width$}.npy")), dim)?;
        let text = match &texts {
            Some(folder) => Some(Npy::create(folder.join(format!("text_emb_{number:0width$}.npy")), dim)?),
            None => None,
        };
        let table = ParquetWriter::create(&metadata.join(format!("metadata_{number:0width$}.parquet")), columns, None)?;
        Ok((image, text, table))
    };
    rows(snapshot, filter, |row| {
        if exported.rows.is_multiple_of(rows_per_file) {
            close(open.take(), &mut exported)?;
            open = Some(begin(exported.rows / rows_per_file)?);
        }
        if let Some((image, text, table)) = &mut open {
            image.push(&row.vector)?;
            if let (Some(text), Some(captions)) = (text, captions) {
                text.push(&captions.get(row.record.key)?.unwrap_or_else(|| vec![0.0; dim]))?;
            }
            table.push(values(&row, columns), &row.vector)?;
        }
        exported.rows += 1;
        count();
        Ok(())
    })?;
    if exported.rows == 0 {
        open = Some(begin(0)?);
    }
    close(open, &mut exported)?;
    let space = snapshot.encoder.space();
    let note = json!({"model": space.model, "fingerprint": space.fingerprint, "dim": space.dim});
    let path = path.join(SPACE_FILE);
    std::fs::write(&path, format!("{note}\n")).map_err(Error::io(&path))?;
    Ok(exported)
}

/// Columns that every row has before those of the metadata.
const FIRST: &[(&str, ColumnKind)] = &[("image_path", ColumnKind::Text), ("caption", ColumnKind::Text)];

/// Columns of pictures that were opened, behind them; a column of the metadata of the same name takes its place.
const PICTURES: &[(&str, ColumnKind)] = &[
    ("width", ColumnKind::Integer),
    ("height", ColumnKind::Integer),
    ("taken", ColumnKind::Text),
    ("camera", ColumnKind::Text),
    ("latitude", ColumnKind::Real),
    ("longitude", ColumnKind::Real),
    ("hash", ColumnKind::Text),
];

fn columns(snapshot: &Snapshot<'_>) -> Result<Vec<(String, ColumnKind)>> {
    let owned = |list: &[(&str, ColumnKind)]| list.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    let mut columns: Vec<(String, ColumnKind)> = owned(FIRST);
    for (name, kinds) in snapshot.catalog.field_kinds()? {
        let kind = match kinds.as_slice() {
            ["integer"] => ColumnKind::Integer,
            ["real"] | ["integer", "real"] => ColumnKind::Real,
            _ => ColumnKind::Text,
        };
        if !columns.iter().any(|(other, _)| *other == name) {
            columns.push((name, kind));
        }
    }
    for (name, kind) in PICTURES {
        if !columns.iter().any(|(other, _)| other == name) {
            columns.push(((*name).to_owned(), *kind));
        }
    }
    Ok(columns)
}

fn values(row: &Row, columns: &[(String, ColumnKind)]) -> Vec<Value> {
    let record = &row.record;
    let number = |number: u32| if number == 0 { Value::Null } else { number.into() };
    let value = |name: &str| match name {
        "image_path" => record.place_of_picture().display().to_string().into(),
        "caption" => record.caption.clone().into(),
        "width" => number(record.width),
        "height" => number(record.height),
        "taken" => record.taken.map(|time| time.to_string()).into(),
        "camera" => record.camera.clone().into(),
        "latitude" => record.place.map(|place| place.latitude).into(),
        "longitude" => record.place.map(|place| place.longitude).into(),
        "hash" => Some(record.hash.clone()).filter(|hash| !hash.is_empty()).into(),
        _ => Value::Null,
    };
    columns.iter().map(|(name, _)| row.metadata.get(name).cloned().unwrap_or_else(|| value(name))).collect()
}
