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

use std::path::Path;

use crate::Result;
use crate::catalog::SourceKind;
use crate::model::EmbeddingSpace;

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
/// shards if there are `.tar` files directly in it, unless there are pictures beside them. A Parquet file is one of embeddings if it has
/// the column of vectors that `vectors` names; without a name, if it has one of a usual name, or one that can be nothing
/// else: the only list of more than 32 numbers, where no column has paths or addresses of pictures.
pub fn detect(path: &Path, vectors: Option<&str>) -> Option<SourceKind> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    if path.is_dir() {
        if layout::is_embeddings(path) && !has_pictures(path) {
            return Some(SourceKind::Embeddings);
        }
        let is_collection = shards(path).next().is_some() && !has_pictures(path);
        return is_collection.then_some(SourceKind::Tar);
    }
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if ends(&[".tar", ".tar.gz", ".tgz"]) {
        Some(SourceKind::Tar)
    } else if ends(&[".npy", ".npz"]) {
        Some(SourceKind::Embeddings)
    } else if ends(&[".jsonl", ".jsonl.gz", ".ndjson", ".csv", ".csv.gz", ".tsv", ".tsv.gz"]) {
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
    let picture = |path: std::path::PathBuf| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        shard::PICTURES.contains(&extension.as_str())
    };
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| picture(entry.path()))
}

/// The shards directly in a folder.
pub(crate) fn shards(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
            [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end)) && path.is_file()
        })
        .collect();
    found.sort();
    found.into_iter()
}
