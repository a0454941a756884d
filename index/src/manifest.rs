//! Which files make a generation: reading the manifest with what it names, and replacing it.
//!
//! A commit writes new files under new names, syncs them, syncs their names, writes the new manifest beside the old one, syncs it,
//! renames it over the old one and syncs the rename. Every state in which a crash can leave the directory therefore shows the
//! old manifest with all its files or the new one with all of its own; a log would only add a second story to recover from.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{self, MANIFEST, MANIFEST_NEW, ManifestData};
use crate::segment::{Part, Removed, Segment, refused};
use crate::storage::Storage;

/// How often a reader looks again when a file of the manifest it read is gone, because a writer has moved on.
const ATTEMPTS: u32 = 50;

/// Reads the manifest; `None` if there is no index.
pub(crate) fn read(storage: &dyn Storage) -> Result<Option<ManifestData>> {
    let path = storage.path(MANIFEST);
    let bytes = match storage.read(MANIFEST) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, "read")(e)),
    };
    ManifestData::decode(&bytes).map(Some).map_err(|r| refused(r, path))
}

/// Opens everything that the last commit names.
pub(crate) fn load(storage: &dyn Storage) -> Result<(ManifestData, Vec<Part>)> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let data = read(storage)?.ok_or_else(|| Error::NotFound { path: storage.path("") })?;
        match open_parts(storage, &data) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {
                // A writer may have replaced the manifest and removed the file since; otherwise the file is really gone.
                if read(storage)?.is_some_and(|now| now.generation == data.generation) {
                    let path = storage.path(MANIFEST);
                    return Err(Error::corrupt(path, format!("it names a file that is missing: {source}")));
                }
            }
            parts => return Ok((data, parts?)),
        }
    }
}

fn open_parts(storage: &dyn Storage, data: &ManifestData) -> Result<Vec<Part>> {
    let open = |entry: &format::SegmentEntry| {
        let segment = Segment::open(storage, entry.id, entry.count, entry.checksum, &data.config)?;
        let removed = if entry.removed_id == 0 {
            Removed::default()
        } else {
            let name = format::removed_name(entry.removed_id);
            let path = storage.path(&name);
            let bytes = storage.read(&name).map_err(Error::io(&path, "read"))?;
            Removed::from_words(format::decode_removed(&bytes, entry.count).map_err(|r| refused(r, path))?)
        };
        if removed.count() != entry.removed || entry.removed > entry.count {
            return Err(Error::corrupt(storage.path(MANIFEST), "numbers of removed rows do not agree"));
        }
        Ok(Part { segment: Arc::new(segment), removed: Arc::new(removed), removed_id: entry.removed_id })
    };
    data.segments.iter().map(open).collect()
}

/// Why a manifest was not published.
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// Whether the disk may show either manifest now.
    pub(crate) ambiguous: bool,
}

/// Makes `data` the last commit. Every file that it names must be synced already.
pub(crate) fn publish(storage: &dyn Storage, data: &ManifestData) -> Result<(), Failed> {
    let path = storage.path(MANIFEST_NEW);
    let before = |error| Failed { error, ambiguous: false };
    let io = |action| {
        let path = path.clone();
        move |e| before(Error::io(path, action)(e))
    };
    let mut file = storage.create(MANIFEST_NEW).map_err(io("create"))?;
    file.write_all(&data.encode()).map_err(io("write"))?;
    file.sync().map_err(io("sync"))?;
    drop(file);
    // The names of the new files must be there before the manifest that names them.
    let directory = storage.path("");
    storage.sync().map_err(|e| before(Error::io(&directory, "sync")(e)))?;
    storage
        .rename(MANIFEST_NEW, MANIFEST)
        .map_err(|e| Failed { error: Error::io(storage.path(MANIFEST), "replace")(e), ambiguous: true })?;
    storage.sync().map_err(|e| Failed { error: Error::io(directory, "sync")(e), ambiguous: true })
}

/// Removes files of ours that no manifest names: leftovers of a writer that did not get to its end. For the holder of the lock.
/// What cannot be removed (Windows, while it is mapped) is left for the next time.
pub(crate) fn sweep(storage: &dyn Storage, data: &ManifestData) -> Result<()> {
    let mut named = HashSet::new();
    for entry in &data.segments {
        named.insert(format::segment_name(entry.id));
        named.insert(format::removed_name(entry.removed_id));
    }
    for name in storage.list().map_err(Error::io(storage.path(""), "list"))? {
        if format::is_ours(&name) && !named.contains(&name) {
            let _ = storage.remove(&name);
        }
    }
    Ok(())
}
