//! What collections and files beside photos add to the sink: captions, metadata, and how far a source is dealt with.

use std::collections::{BTreeMap, HashSet};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::walk::File;
use super::writer::{Sink, is_absent};
use crate::catalog::{Change, Item, Key, Keys, Reader, Record, Said};
use crate::{Error, Result};

/// Longest file beside a photo that is read as its caption or metadata.
const MAX_BESIDE: u64 = 1 << 20;

/// Photos of a source that are dealt with. A source is complete when all that were sent have arrived: they overtake each other
/// on their way, and a source that is called complete too early would lose what was still on its way when the process ends.
#[derive(Debug, Default)]
pub(super) struct Tally {
    arrived: u64,
    /// How many were sent, once that is known.
    sent: Option<u64>,
    /// Whether one of them may be readable another time.
    unsettled: bool,
}

/// Whether a file that is no picture may say something of the photo beside it.
pub(super) fn speaks_of_photos(path: &Path) -> bool {
    is_text(path) || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// Opens an index of captions for writing and removes what has no record.
pub(super) fn without_orphans(captions: &tintype_index::Index, reader: &Reader<'_>) -> Result<tintype_index::Writer> {
    let all = reader.keys(true)?;
    let mut writer = captions.writer()?;
    writer.merge_in_background(|_, _| std::ops::ControlFlow::Continue(()));
    for key in captions.reader()?.keys() {
        let key = key?;
        if !all.contains(key) {
            writer.remove(key)?;
        }
    }
    Ok(writer)
}

impl Sink<'_> {
    /// A photo of a source is dealt with; `for_good` if no later run would find it otherwise.
    pub(super) fn settled(&mut self, file: &File, for_good: bool) {
        self.settle(file.said.as_ref().and_then(|said| said.item.source), for_good);
    }

    pub(super) fn settle(&mut self, source: Option<i64>, for_good: bool) {
        let Some(source) = source else { return };
        let tally = self.tallies.entry(source).or_default();
        tally.arrived += 1;
        tally.unsettled |= !for_good;
        self.conclude(source);
    }

    /// A source was read to its end.
    pub(super) fn source_ended(&mut self, source: i64, sent: u64) {
        self.tallies.entry(source).or_default().sent = Some(sent);
        self.conclude(source);
    }

    fn conclude(&mut self, source: i64) {
        let Some(tally) = self.tallies.get(&source) else { return };
        if tally.sent == Some(tally.arrived) {
            if !tally.unsettled {
                self.changes.push(Change::Complete(source));
            }
            self.tallies.remove(&source);
            self.concluded += 1;
        }
    }

    /// Whether sources were read, and all that they sent has arrived: nothing is left then that could be interrupted.
    pub(super) fn all_sources_are_in(&self) -> bool {
        self.concluded > 0 && self.tallies.is_empty()
    }

    /// A record with its vector, and the vector of its caption.
    pub(super) fn put(&mut self, mut record: Record, vector: &[f32], caption: Option<&[f32]>) -> Result<()> {
        record.key = self.next_key;
        if let Err(error) = self.index.add(record.key, vector) {
            return self.refused(record.path, error);
        }
        if let (Some(caption), Some(captions)) = (caption, &mut self.captions)
            && let Err(error) = captions.add(record.key, caption)
        {
            let mut path = record.path.clone().into_os_string();
            path.push(" (caption)");
            self.refused(path.into(), error)?;
        }
        self.next_key += 1;
        self.report.added += 1;
        self.changes.push(Change::Put(Box::new(record)));
        Ok(())
    }

    /// A vector that is none is a line in the report, anything else the end of the run.
    fn refused(&mut self, path: PathBuf, error: tintype_index::Error) -> Result<()> {
        use tintype_index::Error::{Dimension, NotFinite, ZeroVector};
        match error {
            error @ (NotFinite { .. } | ZeroVector | Dimension { .. }) => {
                self.skip(path, error.into());
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    /// Notes how many rows of a source are dealt with.
    pub(super) fn rows_done(&mut self, source: i64, rows: u64) {
        self.changes.push(Change::Done { source, rows });
    }

    /// Whether photos of a source have lost their vectors.
    pub(super) fn lacks(&self, source: i64) -> Result<bool> {
        let keys = self.database.read()?.keys_of_source(source)?;
        Ok(keys.iter().any(|key| self.missing().contains(key)))
    }

    /// Forgets the photos of a source, which is read again.
    pub(super) fn empty_source(&mut self, source: i64) -> Result<()> {
        let keys = self.catalog.empty_source(source)?;
        self.drop_vectors(&keys)
    }

    /// Adds what a collection says of a photo.
    pub(super) fn describe(&mut self, key: Key, said: Said) {
        self.changes.push(Change::Describe { key, caption: said.caption, item: Box::new(said.item) });
    }

    /// Takes the vectors of keys out of all indexes.
    pub(super) fn drop_vectors(&mut self, keys: &Keys) -> Result<()> {
        for key in keys.iter() {
            self.index.remove(key)?;
            if let Some(captions) = &mut self.captions {
                captions.remove(key)?;
            }
        }
        Ok(())
    }

    /// A photo has a new record: what is said of it beside must be read, even if those files are as they were.
    pub(super) fn look_beside(&mut self, photo: &Path) {
        if self.meets_all {
            return;
        }
        for path in names_beside(photo) {
            match file_at(&path) {
                Ok(Some(metadata)) => self.beside.push(File::new(path, &metadata)),
                Ok(None) => {}
                // Reading it says why not.
                Err(_) => self.beside.push(File { path, size: 0, mtime: 0, said: None }),
            }
        }
    }

    /// Reads the captions and metadata that stand in files beside photos: `a.txt` and `a.json`, also as `a.jpg.json`. Where nothing
    /// else speaks of a photo, all of them together are what is said of it; where one of them cannot be read, what the photo had
    /// from it stays. Done after all photos are recorded; until then the files are not noted, so an interrupted run finds them new.
    pub(super) fn attach_beside(&mut self) -> Result<()> {
        let (there, vanished) = (std::mem::take(&mut self.beside), std::mem::take(&mut self.vanished));
        if there.is_empty() && vanished.is_empty() {
            return Ok(());
        }
        let reader = self.database.read()?;
        let mut photos = BTreeMap::new();
        for file in there {
            for (key, photo, alone) in reader.beside(&file.path)? {
                let (_, files) = photos.entry(key).or_insert_with(|| (alone, names_beside(&photo)));
                files.push(file.path.clone());
            }
            let File { path, size, mtime, .. } = file;
            self.changes.push(Change::Skip { path, size, mtime, reason: None });
        }
        for (key, photo, alone) in vanished.iter().map(|path| reader.beside(path)).collect::<Result<Vec<_>>>()?.concat()
        {
            photos.entry(key).or_insert_with(|| (alone, names_beside(&photo)));
        }
        let mut told = HashSet::new();
        for (key, (alone, mut files)) in photos {
            // What a text says comes after what an object says, and wins; `a.jpg.txt` means one photo, and wins over `a.txt`.
            files.sort_by_cached_key(|file| (is_text(file), file.as_os_str().len(), file.clone()));
            files.dedup();
            let (mut caption, mut item) = (None, Item { alone, ..Item::default() });
            for path in files {
                match read_beside(&path) {
                    Ok((said, fields)) => {
                        caption = said.or(caption);
                        item.fields.extend(fields);
                    }
                    Err(error) => {
                        item.alone = false;
                        if told.insert(path.clone()) {
                            // What the disk refuses now, another run may read.
                            if matches!(error, Error::Io { .. }) {
                                self.changes.push(Change::Forget(path.clone()));
                            }
                            self.skip(path, error);
                        }
                    }
                }
            }
            self.changes.push(Change::Describe { key, caption, item: Box::new(item) });
        }
        Ok(())
    }

    /// Takes away the vectors of captions that are about to change, before the catalog says so: a caption without a vector gets one,
    /// and one with the vector of another text would keep it.
    pub(super) fn drop_old_captions(&mut self) -> Result<()> {
        let Some(captions) = &mut self.captions else { return Ok(()) };
        let reader = self.database.read()?;
        for change in &self.changes {
            let Change::Describe { key, caption, item } = change else { continue };
            let before = reader.caption(*key)?;
            if Said::caption_after(caption.as_deref(), item, before.as_deref()) != before.as_deref() {
                captions.remove(*key)?;
            }
        }
        Ok(())
    }
}

/// Files that may speak of a photo.
fn names_beside(photo: &Path) -> Vec<PathBuf> {
    let with = |end: &str| {
        let mut name = photo.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    ["json", "JSON", "txt", "TXT"]
        .iter()
        .flat_map(|end| [photo.with_extension(end), with(&format!(".{end}"))])
        .collect()
}

/// The metadata of a file; none if there is no file of that name.
fn file_at(path: &Path) -> std::io::Result<Option<Metadata>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata).filter(Metadata::is_file)),
        // The name of a photo may be so long that no other fits beside it.
        Err(error) if is_absent(&error) || error.kind() == ErrorKind::InvalidFilename => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"))
}

/// The caption and the metadata of a file; nothing of one that is not there or too large.
fn read_beside(path: &Path) -> Result<(Option<String>, Map<String, Value>)> {
    if file_at(path).map_err(Error::io(path))?.is_none_or(|file| file.len() > MAX_BESIDE) {
        return Ok((None, Map::new()));
    }
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let bad = |reason| Err(Error::BadCollection { path: path.to_path_buf(), reason });
    let clean =
        |text: &str| Some(text.trim().trim_start_matches('\u{feff}').to_owned()).filter(|text| !text.is_empty());
    if is_text(path) {
        return Ok((clean(&String::from_utf8_lossy(&bytes)), Map::new()));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(mut fields)) => {
            let caption = fields.get("caption").and_then(Value::as_str).and_then(clean);
            if caption.is_some() {
                fields.shift_remove("caption");
            }
            Ok((caption, fields))
        }
        Ok(_) => bad("this is no JSON object; the photo beside it has no new metadata from it".to_owned()),
        Err(error) => bad(format!("this is no JSON ({error}); the photo beside it has no new metadata from it")),
    }
}
