//! Small copies of pictures that cannot be had again cheaply: those of the web, and those in gzipped shards, where each costs
//! reading all that comes before it.
//!
//! A file per content, in the library itself, because what is lost here is lost: an address may answer with another picture
//! tomorrow, or with none. For the same reason nothing makes room for something else; once the bound is reached, no more are kept.
//! A copy is at least as large as any model looks at, so that another model can read the pictures again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Result;

/// Longer side of a copy in pixels.
pub(crate) const SIDE: u32 = 640;

/// A picture file of no more bytes is kept as it is.
pub(crate) const SMALL: usize = 48 << 10;

/// The folder of a library's copies.
#[derive(Debug)]
pub(crate) struct Copies {
    dir: PathBuf,
    /// Bytes that the files take; unknown until the first is written.
    taken: Mutex<Option<u64>>,
}

impl Copies {
    /// Name of the folder inside the library.
    const DIR: &'static str = "copies";

    /// The copies of a library.
    pub(crate) fn of(library: &Path) -> Copies {
        Copies { dir: library.join(Self::DIR), taken: Mutex::default() }
    }

    /// Where the copy of a content would be.
    fn path(&self, hash: &str) -> Option<PathBuf> {
        // Hashes are hexadecimal; anything else is no name of a file.
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(self.dir.join(&hash[..2]).join(&hash[2..]))
    }

    /// The file of the copy of a content, if there is one.
    pub(crate) fn file(&self, hash: &str) -> Option<PathBuf> {
        self.path(hash).filter(|path| path.is_file())
    }

    /// The copy of a content, if there is one.
    pub(crate) fn find(&self, hash: &str) -> Option<Vec<u8>> {
        fs::read(self.path(hash)?).ok()
    }

    /// Keeps what `make` makes, unless it is kept already or the copies would take more than `bound` bytes. A disk that is full
    /// costs the copy and not the photo.
    pub(crate) fn keep(&self, hash: &str, bound: u64, make: impl FnOnce() -> Option<Vec<u8>>) {
        let Some(path) = self.path(hash).filter(|path| !path.exists()) else { return };
        if self.taken() >= bound {
            return;
        }
        let Some(bytes) = make() else { return };
        let size = bytes.len() as u64;
        // Room is taken first, so that nobody waits for the disk of another.
        if !self.take(size, bound) || write(&path, &bytes).is_ok() {
            return;
        }
        if let Some(taken) = &mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner) {
            *taken = taken.saturating_sub(size);
        }
    }

    /// Counts bytes as taken, unless that were more than `bound`.
    fn take(&self, size: u64, bound: u64) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let after = taken.unwrap_or(0) + size;
        if after <= bound {
            *taken = Some(after);
        }
        after <= bound
    }

    fn taken(&self) -> u64 {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        *taken.get_or_insert_with(|| self.files().map(|(_, size, _)| size).sum())
    }

    /// Deletes the copies of contents that are not wanted any more.
    pub(crate) fn retain(&self, mut wanted: impl FnMut(&str) -> Result<bool>) -> Result<()> {
        for (hash, _, path) in self.files() {
            if !wanted(&hash)? {
                // One that stays takes room and harms nobody.
                let _ = fs::remove_file(path);
            }
        }
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Content, size and path of all copies.
    fn files(&self) -> impl Iterator<Item = (String, u64, PathBuf)> {
        let shelves = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let entries = shelves.flat_map(|shelf| fs::read_dir(shelf.path()).into_iter().flatten().flatten());
        entries.filter_map(|entry| {
            let (path, size) = (entry.path(), entry.metadata().ok()?.len());
            let shelf = path.parent()?.file_name()?.to_str()?;
            Some((format!("{shelf}{}", entry.file_name().to_str()?), size, path))
        })
    }
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let thread: String = format!("{:?}", std::thread::current().id()).chars().filter(char::is_ascii_digit).collect();
    let part = path.with_extension(format!("{thread}.part"));
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path)).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_kept_within_the_bound_and_go_with_their_photos() {
        let dir = tempfile::tempdir().unwrap();
        let hash = |n: u8| blake3::hash(&[n]).to_hex().to_string();
        let copies = Copies::of(dir.path());
        for n in 0..5 {
            copies.keep(&hash(n), 350, || Some(vec![n; 100]));
        }
        assert_eq!((0..5).filter(|n| copies.find(&hash(*n)).is_some()).count(), 3, "as many as there is room for");
        assert_eq!(copies.find(&hash(1)), Some(vec![1; 100]));
        Copies::of(dir.path()).keep(&hash(1), 1000, || panic!("it is there"));
        Copies::of(dir.path()).keep(&hash(9), 350, || Some(vec![9; 100]));
        assert_eq!(copies.find(&hash(9)), None, "what was there before counts");
        copies.retain(|kept| Ok(kept == hash(1))).unwrap();
        assert_eq!((copies.find(&hash(0)), copies.find(&hash(1)).is_some()), (None, true));
        copies.keep("../../../../etc/passwd", 1000, || panic!("no name of a content"));
        assert_eq!(copies.file(&hash(7)), None);
    }
}
