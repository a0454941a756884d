//! Files and folders that have their name only when they are whole.
//!
//! They are written beside it and renamed at the end: a run that was killed leaves nothing that looks like an export, and the next
//! run is not refused because of what is left. What fills an empty folder is written in a folder in it, for the folder may be a
//! mount point, a link, or where somebody is.

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
    /// Whether an empty folder is filled.
    fills: bool,
}

/// Ends the name of what is not whole.
const PART: &str = ".tintype-part";

impl Fresh {
    /// Nothing is there yet; whoever writes makes the file or the `folder` [`Fresh::at`]. What a killed run left there is removed.
    ///
    /// # Errors
    /// [`Error::Io`] if something is there that is no empty folder, or no folder is to be written.
    pub(super) fn new(path: &Path, folder: bool) -> Result<Fresh> {
        let left = |entry: std::io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() == PART);
        let fills = folder && fs::read_dir(path).is_ok_and(|mut entries| entries.all(left));
        if path.symlink_metadata().is_ok() && !fills {
            return Err(Error::Io { path: path.to_path_buf(), source: ErrorKind::AlreadyExists.into() });
        }
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or(path.as_os_str()));
        name.push(PART);
        let at = if fills { path.join(PART) } else { path.with_file_name(name) };
        let fresh = Fresh { at, path: path.to_path_buf(), fills };
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
        if !self.fills {
            return name(&self.at, &self.path);
        }
        for entry in fs::read_dir(&self.at).map_err(Error::io(&self.at))? {
            let entry = entry.map_err(Error::io(&self.at))?;
            name(&entry.path(), &self.path.join(entry.file_name()))?;
        }
        Ok(())
    }

    fn clear(&self) {
        if fs::remove_file(&self.at).is_err() {
            let _ = fs::remove_dir_all(&self.at);
        }
    }
}

/// Gives a name that nothing else has; a file that appeared there meanwhile stays.
fn name(at: &Path, path: &Path) -> Result<()> {
    let named = match fs::hard_link(at, path) {
        Ok(()) => fs::remove_file(at),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
        // Folders have no second name, nor has any file on some file systems.
        Err(_) => fs::rename(at, path),
    };
    named.map_err(Error::io(path))
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.clear();
    }
}
