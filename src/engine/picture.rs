//! The bytes of a picture, wherever its source keeps them, and what is said of it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Engine;
use crate::catalog::{Copies, Key, Reader, Record, SourceKind, Whereabouts, is_address};
use crate::image::Format;
use crate::{Error, Result};

/// No picture that decodes within the pixel limit is larger than this.
const MAX_FILE: u64 = 2 << 30;

impl Engine {
    /// The bytes of a picture's file: read from the disk, out of its shard, or from where its collection says it is.
    ///
    /// Hands out nothing but pictures, and of what metadata points at only what lies in a folder that was indexed or that was
    /// named as the place of the pictures: an address in somebody's table must not open any file of this machine. Costs one read;
    /// of a gzipped shard everything before the picture is read as well. Of a picture of the web it is the small copy that was kept
    /// when it was taken in.
    ///
    /// # Errors
    /// [`Error::NoPicture`] if the library has no such photo, knows only its vector, or the picture is on the web and has no copy; [`Error::Io`] if
    /// its file is not there; [`Error::BadImage`] if what is there is no picture.
    pub fn open_image(&self, key: Key) -> Result<Vec<u8>> {
        let reader = self.catalog().read()?;
        let found = reader.whereabouts(key)?.ok_or_else(|| Error::NoPicture {
            path: PathBuf::from(format!("#{key}")),
            reason: "the library has no photo of this number".to_owned(),
        })?;
        let bytes = match &found.source {
            Some((path, SourceKind::Tar, _)) => member(&own(&reader, path)?, path, &found)?,
            Some((_, SourceKind::Embeddings, base)) => read(&linked(&reader, &found, base.as_deref())?)?,
            _ if is_address(&found.path) => {
                let record = reader.records(&[key])?.pop();
                record.and_then(|record| self.small_copy(&record)).ok_or_else(|| on_the_web(&found))?
            }
            _ => read(&own(&reader, &found.path)?)?,
        };
        match Format::sniff(&bytes) {
            Some(_) => Ok(bytes),
            None => Err(Error::BadImage { reason: "this is no picture any more".to_owned() }),
        }
    }

    /// The small copy of a picture that is not at hand, where one is kept.
    pub(crate) fn small_copy(&self, record: &Record) -> Option<Vec<u8>> {
        Copies::of(self.dir()).find(&record.hash)
    }

    /// The metadata of photos, in the order of the keys, as their collection gave it: column to value. Empty for a photo without
    /// any. The caption is in [`Record`](crate::Record).
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn metadata(&self, keys: &[Key]) -> Result<Vec<Map<String, Value>>> {
        self.catalog().read()?.metadata(keys)
    }
}

/// The file of a photo or a shard, unless a link that was put in its place leads out of the folders that were indexed.
fn own(reader: &Reader<'_>, path: &Path) -> Result<PathBuf> {
    let real = path.canonicalize().map_err(Error::io(path))?;
    // What was named may be the file itself: that it leads to where it leads says nothing.
    let inside =
        |folder: &PathBuf| folder != path && folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
    if real == path || reader.trusted_folders()?.iter().any(inside) {
        return Ok(real);
    }
    let reason = "a link leads from here out of the folders that were indexed".to_owned();
    Err(Error::NoPicture { path: path.to_path_buf(), reason })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    // Asked before it is opened, too: opening a pipe waits for its other end.
    let is_file = path.metadata().map_err(Error::io(path))?.is_file();
    let file = if is_file { Some(File::open(path).map_err(Error::io(path))?) } else { None };
    let Some((file, metadata)) = file.and_then(|file| file.metadata().ok().map(|metadata| (file, metadata))) else {
        return Err(Error::NoPicture { path: path.to_path_buf(), reason: "this is no file".to_owned() });
    };
    if metadata.len() > MAX_FILE {
        return Err(Error::FileTooLarge { size: metadata.len(), limit: MAX_FILE });
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}

/// A picture inside a shard, whose file is really at `real`.
fn member(real: &Path, shard: &Path, found: &Whereabouts) -> Result<Vec<u8>> {
    let Some(start) = found.start else { return compressed(real, shard, found) };
    let mut file = File::open(real).map_err(Error::io(shard))?;
    file.seek(SeekFrom::Start(start)).map_err(Error::io(shard))?;
    let mut bytes = Vec::new();
    file.take(found.size.min(MAX_FILE)).read_to_end(&mut bytes).map_err(Error::io(shard))?;
    Ok(bytes)
}

#[cfg(feature = "collections")]
fn compressed(real: &Path, shard: &Path, found: &Whereabouts) -> Result<Vec<u8>> {
    let path = found.path.to_string_lossy();
    let member = path.strip_prefix(&format!("{}!", shard.display())).unwrap_or_default();
    crate::collection::extract(real, member)
}

#[cfg(not(feature = "collections"))]
fn compressed(_: &Path, _: &Path, found: &Whereabouts) -> Result<Vec<u8>> {
    let reason = "this program was built without collections".to_owned();
    Err(Error::NoPicture { path: found.path.clone(), reason })
}

/// The file that metadata points at, if it may.
fn linked(reader: &Reader<'_>, found: &Whereabouts, base: Option<&Path>) -> Result<PathBuf> {
    let none = |reason: &str| Error::NoPicture { path: found.path.clone(), reason: reason.to_owned() };
    let link = found.link.as_deref().ok_or_else(|| none("only its vector is known"))?;
    if is_address(Path::new(link)) {
        return Err(on_the_web(found));
    }
    let path = base.unwrap_or(Path::new("/")).join(link);
    let real = path.canonicalize().map_err(Error::io(&path))?;
    let trusted = reader.trusted_folders()?;
    let inside = |folder: &PathBuf| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder));
    if trusted.iter().any(inside) {
        Ok(real)
    } else {
        Err(none("its picture lies outside of the folders that were indexed; say with --images where the pictures are"))
    }
}

fn on_the_web(found: &Whereabouts) -> Error {
    let place = found.link.clone().unwrap_or_else(|| found.path.display().to_string());
    Error::NoPicture {
        path: place.into(),
        reason: "the picture is on the web, and the library keeps no copy".to_owned(),
    }
}
