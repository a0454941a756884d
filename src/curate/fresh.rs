//! Files and folders that have their name only when they are whole.
//!
//! They are written beside it and renamed at the end: a run that was killed leaves nothing that looks like an export, and the next
//! run is not refused because of what is left.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// What is being written.
pub(super) struct Fresh {
    path: PathBuf,
    /// Where it is until then.
    at: PathBuf,
}

impl Fresh {
    /// Nothing is there yet; whoever writes makes the file or the folder [`Fresh::at`]. What a killed run left there is removed.
    ///
    /// # Errors
    /// [`Error::Io`] if something is there that is no empty folder.
    pub(super) fn new(path: &Path) -> Result<Fresh> {
        let empty = path.is_dir() && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if path.symlink_metadata().is_ok() && !empty {
            return Err(Error::Io { path: path.to_path_buf(), source: ErrorKind::AlreadyExists.into() });
        }
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or(path.as_os_str()));
        name.push(".tintype-part");
        let fresh = Fresh { at: path.with_file_name(name), path: path.to_path_buf() };
        fresh.clear();
        Ok(fresh)
    }

    /// Where to write.
    pub(super) fn at(&self) -> &Path {
        &self.at
    }

    /// The name of what is being written, or of something in it, once it is whole.
    pub(super) fn named(&self, at: &Path) -> PathBuf {
        match at.strip_prefix(&self.at) {
            Ok(inside) if inside != Path::new("") => self.path.join(inside),
            _ => self.path.clone(),
        }
    }

    /// It is whole.
    pub(super) fn finish(self) -> Result<()> {
        if self.path.is_dir() {
            fs::remove_dir(&self.path).map_err(Error::io(&self.path))?;
        }
        fs::rename(&self.at, &self.path).map_err(Error::io(&self.path))
    }

    fn clear(&self) {
        if fs::remove_file(&self.at).is_err() {
            let _ = fs::remove_dir_all(&self.at);
        }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.clear();
    }
}
