//! Which files of embeddings belong together.
//!
//! ```text
//! img_emb/img_emb_0.npy     text_emb/text_emb_0.npy     metadata/metadata_0.parquet      clip-retrieval
//! images/img_emb_0000.npy   texts/text_emb_0000.npy     metadata/metadata_0000.parquet   LAION
//! a.npy   b.npy   a.parquet   b.parquet                                                  a folder, or one of these files
//! ```
//! Without `img_emb` the rows of `text_emb` are captions without pictures. Their vectors stand for both: texts and pictures have one
//! space, so captions are found by what they mean whichever of the two is asked.
//!
//! Rows count through all files in the order of their names: row *n* of the matrices is row *n* of the tables, wherever files
//! end. A table with more or fewer rows than the matrices is refused: every caption would stand with another picture.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::parquet::{ParquetTable, RowVector, bad};
use super::{Matrix, Table};
use crate::model::EmbeddingSpace;
use crate::{Error, Result};

/// Rows of a matrix that are read at a time.
const BLOCK: u64 = 2048;

/// Says which model made the vectors; `tintype export` writes it.
pub(crate) const SPACE_FILE: &str = "space.json";

/// Embeddings in one or many files.
#[derive(Debug)]
pub(crate) struct Embeddings {
    pub(crate) files: Vec<EmbeddingFile>,
    /// Numbers per vector.
    pub(crate) dim: usize,
    /// The folder that paths of pictures begin at.
    pub(crate) base: PathBuf,
    /// Which model made them, if that is noted.
    pub(crate) space: Option<EmbeddingSpace>,
}

/// One file of vectors, with what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddingFile {
    pub(crate) path: PathBuf,
    pub(crate) rows: u64,
    dim: usize,
    /// Name of the column, or of the archive's member.
    column: Option<String>,
    /// Vectors of captions: file, and rows to leave out.
    captions: Option<PathBuf>,
    /// Tables that speak of the rows: file, rows to leave out, and rows to read.
    tables: Vec<(PathBuf, u64, u64)>,
}

/// One row.
pub(crate) struct EmbeddingRow {
    pub(crate) row: u64,
    pub(crate) vector: RowVector,
    pub(crate) caption_vector: Option<Vec<f32>>,
    pub(crate) fields: Result<Map<String, Value>, String>,
}

/// Whether a folder is a collection of embeddings.
pub(super) fn is_embeddings(folder: &Path) -> bool {
    ["img_emb", "images", "text_emb", "texts", "."].iter().any(|dir| !files(&folder.join(dir), &["npy"]).is_empty())
}

/// Files of a folder with these extensions, by name.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    super::files(folder, |name| name.rsplit_once('.').is_some_and(|(_, end)| extensions.contains(&end)))
}

impl Embeddings {
    /// Finds the files and compares their numbers of rows; reads headers only.
    ///
    /// # Errors
    /// [`Error::BadCollection`] if there are no vectors, or the files do not fit together.
    pub(crate) fn open(path: &Path, column: Option<&str>) -> Result<Embeddings> {
        if path.is_dir() {
            return Self::folder(path, column);
        }
        let base = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let tables = match extension.as_str() {
            "parquet" => Vec::new(),
            _ => ["parquet", "jsonl", "csv", "tsv"]
                .map(|end| path.with_extension(end))
                .into_iter()
                .find(|table| table.is_file())
                .into_iter()
                .collect(),
        };
        Self::of(base, vec![path.to_path_buf()], Vec::new(), tables, column)
    }

    fn folder(folder: &Path, column: Option<&str>) -> Result<Embeddings> {
        for (images, texts) in
            [("img_emb", "text_emb"), ("images", "texts"), ("text_emb", "text_emb"), ("texts", "texts")]
        {
            let vectors = files(&folder.join(images), &["npy"]);
            if !vectors.is_empty() {
                let captions = files(&folder.join(texts), &["npy"]);
                let tables = files(&folder.join("metadata"), &["parquet"]);
                return Self::of(folder.to_path_buf(), vectors, captions, tables, column);
            }
        }
        if let Some(parent) = folder.parent()
            && folder
                .file_name()
                .is_some_and(|name| name == "img_emb" || name == "images" || name == "text_emb" || name == "texts")
            && is_embeddings(parent)
        {
            return Self::folder(parent, column);
        }
        let (vectors, tables) = (files(folder, &["npy"]), files(folder, &["parquet"]));
        match (vectors.is_empty(), tables.is_empty()) {
            (true, true) => Err(bad(folder, "there are no matrices (.npy, .parquet) in this folder".to_owned())),
            (true, false) => Self::of(folder.to_path_buf(), tables, Vec::new(), Vec::new(), column),
            (false, _) => Self::of(folder.to_path_buf(), vectors, Vec::new(), tables, column),
        }
    }

    fn of(
        base: PathBuf,
        vectors: Vec<PathBuf>,
        captions: Vec<PathBuf>,
        tables: Vec<PathBuf>,
        column: Option<&str>,
    ) -> Result<Embeddings> {
        let mut found = Vec::new();
        for path in vectors {
            let is_table = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
            let (rows, dim, column) = if is_table {
                let table = ParquetTable::open(&path)?;
                let column = table.vector_column(column)?;
                let (rows, dim) = (table.rows(), table.first_length(&column)?);
                (rows, dim, Some(column))
            } else {
                let matrix = Matrix::open(&path, column)?;
                (matrix.rows(), matrix.dim(), column.map(str::to_owned))
            };
            found.push(EmbeddingFile { path, rows, dim, column, captions: None, tables: Vec::new() });
        }
        let dim = found.iter().find(|file| file.rows > 0).or(found.first()).map_or(0, |file| file.dim);
        if let Some(other) = found.iter().find(|file| file.rows > 0 && file.dim != dim) {
            return Err(bad(&other.path, format!("vectors of {} numbers; the first file has {dim}", other.dim)));
        }
        pair_captions(&mut found, captions, dim)?;
        pair_tables(&mut found, &tables)?;
        let space = read_space(&base)?;
        Ok(Embeddings { files: found, dim, base, space })
    }
}

/// Vectors of captions must be in files like those of the pictures.
fn pair_captions(files: &mut [EmbeddingFile], captions: Vec<PathBuf>, dim: usize) -> Result<()> {
    if captions.is_empty() {
        return Ok(());
    }
    if captions.len() != files.len() {
        let reason = format!("{} files of caption vectors for {} of pictures", captions.len(), files.len());
        return Err(bad(&captions[0], reason));
    }
    for (file, path) in files.iter_mut().zip(captions) {
        let matrix = Matrix::open(&path, None)?;
        if (matrix.rows(), matrix.dim()) != (file.rows, file.dim) && file.rows > 0 {
            let found = format!("{} × {}", matrix.rows(), matrix.dim());
            return Err(bad(&path, format!("{found} caption vectors for {} × {dim} of pictures", file.rows)));
        }
        file.captions = Some(path);
    }
    Ok(())
}

/// Deals the rows of all tables to the files, in order.
fn pair_tables(files: &mut [EmbeddingFile], tables: &[PathBuf]) -> Result<()> {
    let Some(first) = tables.first() else { return Ok(()) };
    let mut counted = Vec::new();
    for path in tables {
        let table = Table::open(path)?;
        let rows = match table.rows() {
            Some(rows) => rows,
            None => {
                let mut rows = 0;
                table.read(0, |_, _| {
                    rows += 1;
                    ControlFlow::Continue(())
                })?;
                rows
            }
        };
        counted.push((path.clone(), rows));
    }
    let (described, vectors): (u64, u64) =
        (counted.iter().map(|(_, rows)| rows).sum(), files.iter().map(|file| file.rows).sum());
    if described != vectors {
        let whose = if tables.len() == 1 { "it has" } else { "it and the tables beside it have" };
        let reason = format!("{whose} {described} rows, and there are {vectors} vectors; they do not belong together");
        return Err(bad(first, reason));
    }
    let (mut table, mut used) = (0, 0);
    for file in files {
        let mut left = file.rows;
        while left > 0 {
            let (path, rows) = &counted[table];
            let take = left.min(rows - used);
            if take > 0 {
                file.tables.push((path.clone(), used, take));
            }
            left -= take;
            used += take;
            if used == *rows {
                (table, used) = (table + 1, 0);
            }
        }
    }
    Ok(())
}

fn read_space(base: &Path) -> Result<Option<EmbeddingSpace>> {
    let path = base.join(SPACE_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path, source }),
    };
    let read = || {
        let note: Value = serde_json::from_slice(&bytes).ok()?;
        Some(EmbeddingSpace {
            model: note["model"].as_str()?.to_owned(),
            fingerprint: note["fingerprint"].as_str()?.to_owned(),
            dim: note["dim"].as_u64()? as usize,
        })
    };
    read().map(Some).ok_or_else(|| bad(&path, "expected {\"model\", \"fingerprint\", \"dim\"}".to_owned()))
}

impl EmbeddingFile {
    /// Whether there are vectors of captions.
    pub(crate) fn has_captions(&self) -> bool {
        self.captions.is_some()
    }

    /// Rows from `skip` on, until `each` says stop.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::BadCollection`] where the rest cannot be read; the rows before are handed over.
    pub(crate) fn read(&self, skip: u64, mut each: impl FnMut(EmbeddingRow) -> ControlFlow<()>) -> Result<()> {
        if self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
            return ParquetTable::open(&self.path)?.read(skip, self.column.as_deref(), |row, fields, vector| {
                let vector = vector.unwrap_or_else(|| Err("its vector is missing".to_owned()));
                each(EmbeddingRow { row, vector, caption_vector: None, fields: Ok(fields) })
            });
        }
        let mut vectors = Vectors::open(&self.path, self.column.as_deref(), skip)?;
        let mut captions = match &self.captions {
            Some(path) => Some(Vectors::open(path, None, skip)?),
            None => None,
        };
        let mut row = skip;
        let mut one = |fields| -> Result<ControlFlow<()>> {
            let Some(vector) = vectors.next()? else { return Ok(ControlFlow::Break(())) };
            let caption_vector = captions.as_mut().map(Vectors::next).transpose()?.flatten();
            row += 1;
            Ok(each(EmbeddingRow { row: row - 1, vector: Ok(vector), caption_vector, fields }))
        };
        if self.tables.is_empty() {
            while one(Ok(Map::new()))?.is_continue() {}
            return Ok(());
        }
        let mut before = skip;
        for (path, first, count) in &self.tables {
            if before >= *count {
                before -= count;
                continue;
            }
            let (from, mut left) = (first + before, count - before);
            before = 0;
            let (mut failure, mut stopped) = (None, false);
            Table::open(path)?.read(from, |_, fields| match one(fields) {
                Ok(flow) => {
                    left -= 1;
                    stopped = flow.is_break();
                    if left == 0 { ControlFlow::Break(()) } else { flow }
                }
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            })?;
            match failure {
                Some(error) => return Err(error),
                None if stopped => return Ok(()),
                None => {}
            }
        }
        Ok(())
    }
}

/// The rows of a matrix one by one, read in blocks.
struct Vectors {
    matrix: Matrix,
    left: u64,
    block: Vec<f32>,
    at: usize,
}

impl Vectors {
    fn open(path: &Path, member: Option<&str>, skip: u64) -> Result<Vectors> {
        let mut matrix = Matrix::open(path, member)?;
        let skip = skip.min(matrix.rows());
        matrix.skip(skip)?;
        let left = matrix.rows() - skip;
        Ok(Vectors { matrix, left, block: Vec::new(), at: 0 })
    }

    fn next(&mut self) -> Result<Option<Vec<f32>>> {
        let dim = self.matrix.dim();
        if self.at == self.block.len() {
            let count = self.left.min(BLOCK);
            if count == 0 {
                return Ok(None);
            }
            self.block = self.matrix.read(count as usize)?;
            self.left -= count;
            self.at = 0;
        }
        self.at += dim;
        Ok(Some(self.block[self.at - dim..self.at].to_vec()))
    }
}
