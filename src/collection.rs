//! Collections as others keep them: shards, lists, matrices of embeddings. Reading and writing of files, nothing else.
//!
//! Everything is read as a stream: a shard sample by sample, a list and a matrix in batches of rows. No file is held in memory
//! whole, so their size does not matter. What is wrong with one sample is said with that sample; what makes the rest of a file
//! unreadable ends the file, after all that came before was handed over.

mod columns;
mod counted;
mod expand;
mod layout;
mod matrix;
mod parquet;
mod shard;
mod table;

pub use columns::Columns;
pub use expand::expand;
pub(crate) use layout::{EmbeddingFile, EmbeddingRow, Embeddings, SPACE_FILE};
pub(crate) use matrix::Matrix;
pub(crate) use parquet::{ColumnKind, ParquetWriter};
pub(crate) use shard::{Bytes, PICTURES, Sample, extract, read_shard, read_shard_with};
pub(crate) use table::{Fields, Table};

use std::path::{Path, PathBuf};

use crate::Result;
use crate::catalog::SourceKind;
use crate::model::EmbeddingSpace;

/// How the names of shards end.
const SHARDS: &[&str] = &[".tar", ".tar.gz", ".tgz"];

/// How the names of lists end; those of Parquet may also be those of vectors.
const TABLES: &[&str] = &[".jsonl", ".jsonl.gz", ".ndjson", ".csv", ".csv.gz", ".tsv", ".tsv.gz"];

/// Which model made the embeddings at a path, if that is noted there, and how many numbers a vector has. `column` names the column
/// of vectors, or the member of an archive, where it has no usual name.
///
/// # Errors
/// [`Error::BadCollection`](crate::Error::BadCollection) if there are no embeddings, or their files do not fit together.
pub fn space(path: &Path, column: Option<&str>) -> Result<(Option<EmbeddingSpace>, usize)> {
    let found = Embeddings::open(path, column)?;
    Ok((found.space, found.dim))
}

/// What kind of collection is at a path: by the name of a file, by the contents of a folder. None for pictures, folders of
/// pictures, and what is not there.
///
/// A folder is a collection of embeddings if it has a folder `img_emb` or `images` with `.npy` files in it, and a collection of
/// shards if there are `.tar` files directly in it, unless there are pictures beside them. A folder with lists in it, but neither
/// pictures nor folders, is a collection of those lists. A Parquet file is one of embeddings if it has
/// the column of vectors that `vectors` names; without a name, if it has one of a usual name, or one that can be nothing
/// else: the only list of more than 32 numbers, where no column has paths or addresses of pictures.
pub fn detect(path: &Path, vectors: Option<&str>) -> Option<SourceKind> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    if path.is_dir() {
        if layout::is_embeddings(path) && !has_pictures(path) {
            return Some(SourceKind::Embeddings);
        }
        if has_pictures(path) {
            return None;
        }
        if !shards(path).is_empty() {
            return Some(SourceKind::Tar);
        }
        return lists(path).first().filter(|_| !has_folders(path)).and_then(|list| detect(list, vectors));
    }
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if ends(SHARDS) {
        Some(SourceKind::Tar)
    } else if ends(&[".npy", ".npz"]) {
        Some(SourceKind::Embeddings)
    } else if ends(TABLES) {
        Some(SourceKind::List)
    } else if name.ends_with(".parquet") {
        // A list of pictures or of vectors: the columns tell.
        let is_embeddings = parquet::ParquetTable::open(path).is_ok_and(|table| table.is_of_vectors(vectors));
        Some(if is_embeddings { SourceKind::Embeddings } else { SourceKind::List })
    } else {
        None
    }
}

/// Whether there are pictures directly in a folder: then it is a folder of pictures, with an archive among them.
fn has_pictures(folder: &Path) -> bool {
    let picture = |name: &str| name.rsplit_once('.').is_some_and(|(_, end)| shard::PICTURES.contains(&end));
    !files(folder, picture).is_empty()
}

/// Whether there are folders in a folder: then it is more than its lists.
fn has_folders(folder: &Path) -> bool {
    let mut entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().is_dir())
}

/// The shards directly in a folder.
pub(crate) fn shards(folder: &Path) -> Vec<PathBuf> {
    files(folder, |name| SHARDS.iter().any(|end| name.ends_with(end)))
}

/// The lists directly in a folder.
pub(crate) fn lists(folder: &Path) -> Vec<PathBuf> {
    files(folder, |name| name.ends_with(".parquet") || TABLES.iter().any(|end| name.ends_with(end)))
}

/// The files directly in a folder whose name, in lower case, fits; by name.
fn files(folder: &Path, fits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        // What a file system or a writer hides is no part of the data.
        !name.starts_with('.') && fits(&name) && path.is_file()
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits).collect();
    found.sort();
    found
}
