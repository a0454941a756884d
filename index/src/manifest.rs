//! Which files make a generation: reading the manifest with what it names, and replacing it.
//!
//! A commit writes new files under new names, syncs them, syncs their names, writes the new manifest beside the old one, syncs it,
//! renames it over the old one and syncs the rename. Every state in which a crash can leave the directory therefore shows the
//! old manifest with all its files or the new one with all of its own; a log would only add a second story to recover from.
//!
//! Which of the two the medium shows is not known before the last sync, and whoever opens the index after a writer that did not get
//! there sees the new one. So the next writer syncs before it builds on that, and publishes the manifest once more where a commit
//! was broken off.

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
    /// Whether it is not known now what the medium holds: which manifest, or which names of new files.
    pub(crate) ambiguous: bool,
}

/// Makes `data` the last commit. Every file that it names must be synced already.
pub(crate) fn publish(storage: &dyn Storage, data: &ManifestData) -> Result<(), Failed> {
    let path = storage.path(MANIFEST_NEW);
    let io = |action| {
        let path = path.clone();
        move |e| Failed { error: Error::io(path, action)(e), ambiguous: false }
    };
    let mut file = storage.create(MANIFEST_NEW).map_err(io("create"))?;
    file.write_all(&data.encode()).map_err(io("write"))?;
    file.sync().map_err(io("sync"))?;
    drop(file);
    // The names of the new files must be there before the manifest that names them.
    let unknown = |error| Failed { error, ambiguous: true };
    settle(storage).map_err(unknown)?;
    storage.rename(MANIFEST_NEW, MANIFEST).map_err(|e| unknown(Error::io(storage.path(MANIFEST), "replace")(e)))?;
    settle(storage).map_err(unknown)
}

/// Brings names to the medium. A sync that succeeds after one that failed says nothing of what the first was to bring there, so where
/// it fails a mark is left for the next writer, if even that can be done: a commit that looks broken off.
pub(crate) fn settle(storage: &dyn Storage) -> Result<()> {
    storage.sync().map_err(|e| {
        drop(storage.create(MANIFEST_NEW));
        Error::io(storage.path(""), "sync")(e)
    })
}

/// Removes files of ours that the manifest does not name: leftovers of a writer that did not get to its end. For the holder of the
/// lock. Those that were begun after the manifest go at once. Older ones may be what the manifest before it names, and that
/// may be the one on the medium, so the manifest is published anew before they go, as it is where a commit was broken off;
/// returns whether it was. What cannot be removed (Windows, while it is mapped) is left for the next time.
pub(crate) fn sweep(storage: &dyn Storage, data: &ManifestData) -> Result<bool> {
    let mut named = HashSet::new();
    for entry in &data.segments {
        named.insert(format::segment_name(entry.id));
        named.insert(format::removed_name(entry.removed_id));
    }
    if data.samples.count > 0 {
        named.insert(format::samples_name(data.samples.id));
    }
    let mut names = storage.list().map_err(Error::io(storage.path(""), "list"))?;
    names.retain(|name| format::is_ours(name) && !named.contains(name));
    let (old, new): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| format::is_older(name, data.next_id));
    let remove = |name: &String| drop(storage.remove(name));
    new.iter().for_each(remove);
    if !old.is_empty() {
        publish(storage, data).map_err(|failed| failed.error)?;
        old.iter().for_each(remove);
    }
    Ok(!old.is_empty())
}
