//! Thumbnails on disk: each is made once, by whichever library its photo is in, as long as there is room.
//!
//! A file per thumbnail, named by the content of the photo, so that nothing ever has to be thrown away because it is wrong.
//! When the bound is reached, the files that were not asked for longest go, a tenth of the room at a time. The files' times
//! are the only record of that; a table of uses would be one more thing to keep whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// A file's time is moved at most this often.
const USE: Duration = Duration::from_secs(24 * 60 * 60);

/// The thumbnails of a machine.
#[derive(Debug)]
pub(super) struct Thumbnails {
    dir: Option<PathBuf>,
    bound: u64,
    /// Bytes that the files take; unknown until the first is written.
    taken: Mutex<Option<u64>>,
}

impl Thumbnails {
    /// Keeps at most `bound` bytes below `dir`, or nothing.
    pub(super) fn new(dir: Option<PathBuf>, bound: u64) -> Self {
        Thumbnails { dir: dir.filter(|_| bound > 0), bound, taken: Mutex::new(None) }
    }

    fn path(&self, hash: &str, side: u32) -> Option<PathBuf> {
        // Hashes are hexadecimal; anything else is no name of a file.
        if hash.len() < 16 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(self.dir.as_ref()?.join(&hash[..2]).join(format!("{}-{side}.jpg", &hash[2..])))
    }

    /// The thumbnail of a content, if it is kept.
    pub(super) fn find(&self, hash: &str, side: u32) -> Option<Vec<u8>> {
        let path = self.path(hash, side)?;
        let bytes = fs::read(&path).ok()?;
        // What a power cut left of a file is not an answer.
        if !(bytes.starts_with(&[0xff, 0xd8]) && bytes.ends_with(&[0xff, 0xd9])) {
            return None;
        }
        let used = fs::metadata(&path).and_then(|file| file.modified()).ok();
        if used.is_some_and(|used| used.elapsed().is_ok_and(|ago| ago > USE))
            && let Ok(file) = File::options().append(true).open(&path)
        {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(bytes)
    }

    /// Keeps a thumbnail. A disk that is full or cannot be written is no fault that anybody needs to hear of: the next
    /// request makes the thumbnail again.
    pub(super) fn keep(&self, hash: &str, side: u32, bytes: &[u8]) {
        let Some(path) = self.path(hash, side) else { return };
        let Some(dir) = self.dir.as_deref() else { return };
        if write(&path, bytes).is_err() {
            return;
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match *taken {
            Some(taken) => taken + bytes.len() as u64,
            None => files(dir).iter().map(|file| file.size).sum(),
        };
        *taken = Some(if now > self.bound { shrink(dir, self.bound / 10 * 9) } else { now });
    }
}

/// Another process may write the same file: each has one of its own until it is whole.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    private(dir)?;
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    let part = path.with_extension(format!("{}-{thread}.part", std::process::id()));
    fs::write(&part, bytes)?;
    fs::rename(&part, path).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

/// Thumbnails show what photos show, so they are as private as those.
#[cfg(unix)]
fn private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(not(unix))]
fn private(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)
}

struct Kept {
    used: SystemTime,
    size: u64,
    path: PathBuf,
}

fn files(dir: &Path) -> Vec<Kept> {
    let shelves = fs::read_dir(dir).into_iter().flatten().flatten();
    let entries = shelves.flat_map(|shelf| fs::read_dir(shelf.path()).into_iter().flatten().flatten());
    let kept = entries.filter_map(|entry| {
        let file = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(Kept { used: file.modified().ok()?, size: file.len(), path: entry.path() })
    });
    kept.collect()
}

/// Deletes what was not used longest until no more than `goal` bytes are left; returns what is left.
fn shrink(dir: &Path, goal: u64) -> u64 {
    let mut files = files(dir);
    files.sort_by_key(|file| file.used);
    let mut left: u64 = files.iter().map(|file| file.size).sum();
    for file in files {
        if left <= goal {
            break;
        }
        if fs::remove_file(&file.path).is_ok() {
            left -= file.size;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg(size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        bytes[..2].copy_from_slice(&[0xff, 0xd8]);
        bytes[size - 2..].copy_from_slice(&[0xff, 0xd9]);
        bytes
    }

    fn hash(n: u8) -> String {
        format!("{n:02x}").repeat(32)
    }

    #[test]
    fn the_bound_holds_and_what_is_used_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Thumbnails::new(Some(dir.path().to_path_buf()), 10_000);
        cache.keep(&hash(0), 320, &jpeg(1000));
        for n in 1..40 {
            // Times of files are not fine enough to order what is written at once.
            let path = cache.path(&hash(n - 1), 320).unwrap();
            let past = SystemTime::now() - Duration::from_secs(1000 - u64::from(n));
            if n > 1 {
                File::options().append(true).open(path).unwrap().set_modified(past).ok();
            }
            cache.keep(&hash(n), 320, &jpeg(1000));
        }
        let total: u64 = files(dir.path()).iter().map(|file| file.size).sum();
        assert!(total <= 10_000, "{total}");
        assert_eq!(cache.find(&hash(39), 320), Some(jpeg(1000)));
        assert_eq!(cache.find(&hash(1), 320), None);
        assert_eq!(Thumbnails::new(Some(dir.path().to_path_buf()), 10_000).find(&hash(0), 320), Some(jpeg(1000)));
    }

    #[test]
    fn half_a_file_is_not_found_and_no_name_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Thumbnails::new(Some(dir.path().to_path_buf()), 10_000);
        cache.keep(&hash(1), 160, &jpeg(100)[..50]);
        assert_eq!(cache.find(&hash(1), 160), None);
        assert_eq!(cache.path("../../../../../../etc/passwd", 160), None);
        assert_eq!(cache.path("", 160), None);
        assert_eq!(Thumbnails::new(None, 10).path(&hash(1), 160), None);
    }
}
