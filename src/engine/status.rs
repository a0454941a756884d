//! What a library holds, and whether it is whole.

use std::path::{Path, PathBuf};

use super::Snapshot;
use super::library::open_captions;
use crate::Result;
use crate::catalog::{Catalog, KeptFeatures, Source, State};
use crate::model::EmbeddingSpace;

/// What a library holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The library's directory.
    pub library: PathBuf,
    /// Photos that can be found.
    pub photos: u64,
    /// Photos whose files were not there when last looked for. They come back with their files.
    pub gone: u64,
    /// Files that could not be taken in.
    pub skipped: u64,
    /// The model that answers.
    pub space: EmbeddingSpace,
    /// The model that a switch is under way to, or was when it was interrupted.
    pub switching: Option<EmbeddingSpace>,
    /// Folders that were indexed.
    pub roots: Vec<Root>,
    /// Shards, lists and matrices of embeddings that photos came from.
    pub sources: Vec<Source>,
    /// Names of the metadata columns, in the order in which they were met.
    pub columns: Vec<String>,
    /// Captions that have a vector of their own.
    pub caption_vectors: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// A folder, or a single file, that was indexed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Root {
    /// Absolute path.
    pub path: PathBuf,
    /// When it was last looked at to the end.
    pub indexed: jiff::Timestamp,
}

impl Status {
    pub(super) fn of(library: &Path, catalog: &Catalog) -> Result<Status> {
        let reader = catalog.read()?;
        let (photos, gone, skipped) = reader.counts()?;
        let current = reader.current()?;
        let caption_vectors = match open_captions(library, &current)? {
            Some(captions) => captions.reader()?.len(),
            None => 0,
        };
        let switching = reader.spaces()?.into_iter().find(|space| space.state == State::Coming);
        let root = |(path, seconds)| Root { path, indexed: jiff::Timestamp::from_second(seconds).unwrap_or_default() };
        Ok(Status {
            library: library.to_path_buf(),
            photos,
            gone,
            skipped,
            space: current.space,
            switching: switching.map(|space| space.space),
            roots: reader.roots()?.into_iter().map(root).collect(),
            sources: reader.sources()?,
            columns: reader.fields()?.into_iter().map(|(name, _)| name).collect(),
            caption_vectors,
            bytes: size(library),
        })
    }
}

/// Bytes of all files below a directory; what vanishes meanwhile does not count.
fn size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(file) if file.is_dir() => size(&entry.path()),
        Ok(file) => file.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// What a full check of a library found.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Records, those of files that are gone included.
    pub records: u64,
    /// Photos that have no vector and so cannot be found by their content; the next ingest makes it.
    pub missing: Vec<PathBuf>,
    /// Vectors without a record: left over from an interruption, never an answer, removed by the next ingest.
    pub orphans: u64,
    /// What SQLite says is damaged in the catalog.
    pub catalog: Vec<String>,
    /// What the index says.
    pub index: tintype_index::VerifyReport,
    /// What the index of captions says, where there is one.
    pub captions: Option<tintype_index::VerifyReport>,
    /// What SQLite says is damaged in the kept features.
    pub features: Vec<String>,
}

impl VerifyReport {
    pub(super) fn of(snapshot: &Snapshot<'_>, library: &Path) -> Result<VerifyReport> {
        let index = snapshot.index.verify()?;
        let captions = snapshot.captions.as_ref().map(|captions| captions.verify()).transpose()?;
        let features = match KeptFeatures::of(library)? {
            Some(features) => features.check()?,
            None => Vec::new(),
        };
        let catalog = snapshot.catalog.check()?;
        let (all, live) = (snapshot.catalog.keys(true)?, snapshot.catalog.keys(false)?);
        let mut orphans = 0;
        for key in snapshot.index.keys() {
            // A damaged table of keys is among the problems of the index already.
            orphans += u64::from(key.is_ok_and(|key| !all.contains(key)));
        }
        let mut missing = Vec::new();
        for key in live.iter() {
            if !snapshot.index.contains(key).unwrap_or(false) {
                missing.extend(snapshot.catalog.path(key)?);
            }
        }
        Ok(VerifyReport { records: all.len() as u64, missing, orphans, catalog, index, captions, features })
    }

    /// Whether nothing is damaged and every photo can be found.
    pub fn is_clean(&self) -> bool {
        let captions = self.captions.as_ref().is_none_or(tintype_index::VerifyReport::is_clean);
        self.missing.is_empty()
            && self.catalog.is_empty()
            && self.index.is_clean()
            && captions
            && self.features.is_empty()
    }
}
