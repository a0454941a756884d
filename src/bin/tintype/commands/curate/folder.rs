//! The folder that the pictures of a filter go to.
//!
//! A second run adds what is new: a picture that is there already, under whatever name an earlier run gave it, stays as it is.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tintype::{Engine, Hit};

/// A picture is written under this name and renamed: half a picture looks like a whole one.
const UNFINISHED: &str = ".tintype-part";

/// What was done with a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Copied,
    Linked,
    /// It was there.
    There,
}

/// A folder with what was in it before.
pub(super) struct Folder {
    dir: PathBuf,
    link: bool,
    /// Files by their size.
    files: HashMap<u64, Vec<PathBuf>>,
    /// Links by where they lead.
    links: HashMap<PathBuf, PathBuf>,
    /// The number that the next picture of a name gets.
    numbers: HashMap<String, u64>,
}

impl Folder {
    /// Opens or makes a folder for copies or, where pictures have files of their own, links.
    pub(super) fn open(dir: &Path, link: bool) -> anyhow::Result<Folder> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let (mut files, mut links) = (HashMap::<u64, Vec<PathBuf>>::new(), HashMap::new());
        for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                // Of a killed run. It may be a second name of a finished picture, and must not be written into.
                let _ = fs::remove_file(entry.path());
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                files.entry(metadata.len()).or_default().push(entry.path());
            } else if let Ok(to) = fs::read_link(entry.path()) {
                links.insert(to, entry.path());
            }
        }
        Ok(Folder { dir: dir.to_path_buf(), link, files, links, numbers: HashMap::new() })
    }

    /// Puts a picture into the folder, under a name that is free there, and says where it is.
    pub(super) fn place(&mut self, engine: &Engine, hit: &Hit) -> anyhow::Result<(Placed, PathBuf)> {
        // What lies in a shard or on the web is copied all the same.
        if self.link && hit.path.is_file() {
            return match self.links.get(&hit.path) {
                Some(there) => Ok((Placed::There, there.clone())),
                None => self.make(hit, |to| link(&hit.path, to)).map(|to| (Placed::Linked, to)),
            };
        }
        let bytes = engine.open_image(hit.record.key)?;
        let alike = self.files.get(&(bytes.len() as u64)).into_iter().flatten();
        if let Some(there) = alike.into_iter().find(|file| fs::read(file).is_ok_and(|found| found == bytes)) {
            return Ok((Placed::There, there.clone()));
        }
        let unfinished = self.dir.join(format!("{UNFINISHED}{}", std::process::id()));
        let written = File::create_new(&unfinished).and_then(|mut file| file.write_all(&bytes));
        let placed = written
            .with_context(|| format!("cannot write {}", unfinished.display()))
            // Unlike a renamed file, a second name never takes the place of another file.
            .and_then(|()| {
                self.make(hit, |to| fs::hard_link(&unfinished, to).or_else(|error| copied(&unfinished, to, error)))
            });
        let _ = fs::remove_file(&unfinished);
        placed.map(|to| (Placed::Copied, to))
    }

    /// Makes a file under the first name for a picture that is free.
    fn make(&mut self, hit: &Hit, make: impl Fn(&Path) -> io::Result<()>) -> anyhow::Result<PathBuf> {
        let (stem, extension) = name(hit);
        let number = self.numbers.entry(format!("{stem}{extension}")).or_insert(0);
        loop {
            let name = if *number == 0 { format!("{stem}{extension}") } else { format!("{stem}-{number}{extension}") };
            *number += 1;
            let to = self.dir.join(name);
            match make(&to) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| to.clone()).with_context(|| format!("cannot write {}", to.display())),
            }
        }
    }
}

/// The name of a picture, and its extension with the dot.
fn name(hit: &Hit) -> (String, String) {
    let name = hit.record.place_of_picture().file_name().unwrap_or_default().to_string_lossy().into_owned();
    // `0.tar!dir/1.jpg` and `0.tar!1.jpg` both end in the member's name.
    let name = name.rsplit(['!', '\\']).next().unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem.to_owned(), format!(".{extension}")),
        _ => (name.clone(), String::new()),
    };
    (if stem.is_empty() { hit.record.key.to_string() } else { stem }, extension)
}

/// The file under another name, where the file system knows no second names.
fn copied(from: &Path, to: &Path, error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Err(error),
        _ if to.symlink_metadata().is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        _ => fs::rename(from, to),
    }
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(from, to)
}

#[cfg(not(unix))]
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)
}
