//! The only door to the disk.
//!
//! Files are written once, from front to back, and never changed after; a change of the index is a new file and an atomic
//! rename. So the whole contract with the medium is five operations, small enough for a test to fail, drop or tear each of them.
//! Files are mapped for reading: a mapped file is never modified in place by this crate, and a removed one stays readable where
//! it is mapped. Somebody else who truncates a mapped file makes the process fault, as with every memory-mapped store.

use std::fs;
use std::io::{self, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// The bytes of a file.
#[derive(Clone, Debug)]
pub struct Bytes(Inner);

#[derive(Clone, Debug)]
enum Inner {
    Map(Arc<memmap2::Mmap>),
    Heap(Arc<[u8]>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Inner::Map(map) => map,
            Inner::Heap(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes(Inner::Heap(bytes.into()))
    }
}

/// A file that is being written, front to back.
pub trait NewFile: Write + Send {
    /// Returns when everything written so far is on the medium.
    fn sync(&mut self) -> io::Result<()>;
    /// Has the system begin to bring what was written to the medium, and does not wait: a hint, after which [`NewFile::sync`] waits
    /// for less. It tells of whatever goes wrong.
    fn begin_sync(&mut self) {}
}

/// Holds the writer lock until dropped.
pub trait Lock: Send + Sync {}

/// Where an index keeps its files: a flat set of names. [`Directory`] is the one for daily use; another one may keep the files
/// in memory, or count, delay and break every operation in a test.
pub trait Storage: Send + Sync {
    /// The whole file.
    fn read(&self, name: &str) -> io::Result<Bytes>;
    /// A new file; one of this name is replaced.
    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>>;
    /// Renames over whatever has the new name, atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns when created, renamed and removed names are on the medium.
    fn sync(&self) -> io::Result<()>;
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// The writer lock, or `None` if somebody holds it.
    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>>;
    /// Where a file lies, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// Files in a directory, mapped for reading.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

/// Name of the file that the writer locks. It stays; only the lock comes and goes.
pub(crate) const LOCK: &str = "LOCK";

impl Directory {
    /// The directory at `path`, which must exist before anything is done with it.
    pub fn new(path: impl AsRef<Path>) -> Directory {
        Directory { path: path.as_ref().into() }
    }

    /// Makes the directory at `path` where it is missing, parents included, and syncs the names of all that it made.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Directory> {
        let path = path.as_ref();
        let holders = holders(path);
        fs::create_dir_all(path)?;
        // Who made it before may not have come to this.
        if let Some(parent) = path.canonicalize()?.parent() {
            sync_directory(parent)?;
        }
        holders.iter().try_for_each(|holder| sync_directory(holder))?;
        Ok(Directory::new(path))
    }
}

/// Directories in which a name will be new once the directory at `path` is made with all its parents; its own parent, which is
/// the last, is left out.
fn holders(path: &Path) -> Vec<PathBuf> {
    let named = |dir: &&Path| !dir.as_os_str().is_empty();
    let missing = path.ancestors().skip(1).take_while(named).take_while(|dir| !dir.exists());
    let holder = |dir: &Path| dir.parent().filter(named).unwrap_or(Path::new(".")).into();
    missing.map(holder).collect()
}

/// A directory is synced like a file where the system has such a thing; Windows has not, and journals names itself.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(windows) { Ok(()) } else { fs::File::open(path)?.sync_all() }
}

struct DiskFile {
    file: fs::File,
    /// Syncs that were begun.
    syncing: Vec<JoinHandle<io::Result<()>>>,
}

impl Write for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for DiskFile {
    fn sync(&mut self) -> io::Result<()> {
        for syncing in self.syncing.drain(..) {
            // The system reports an error once, perhaps to that one.
            syncing.join().unwrap_or_else(|_| Err(io::Error::other("a sync panicked")))?;
        }
        self.file.sync_all()
    }

    fn begin_sync(&mut self) {
        if let Ok(file) = self.file.try_clone() {
            let thread = thread::Builder::new().name("tintype-sync".into());
            self.syncing.extend(thread.spawn(move || file.sync_data()));
        }
    }
}

struct DiskLock(fs::File);

impl Drop for DiskLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that another thread has just forked holds it open too, until its `exec`.
        let _ = self.0.unlock();
    }
}

impl Lock for DiskLock {}

impl Storage for Directory {
    fn read(&self, name: &str) -> io::Result<Bytes> {
        let file = fs::File::open(self.path.join(name))?;
        if file.metadata()?.len() == 0 {
            return Ok(Vec::new().into());
        }
        // SAFETY: a file of an index is never changed once it has its name, only removed, which leaves the mapping whole (module
        // docs; truncation by others is outside what any mapping can promise).
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Bytes(Inner::Map(Arc::new(map))))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        let path = self.path.join(name);
        // A leftover of this name may still be mapped by a reader: take its name away rather than its bytes.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = fs::File::options().write(true).create_new(true).open(path)?;
        Ok(Box::new(DiskFile { file, syncing: Vec::new() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.filter_map(|entry| match entry {
            Ok(entry) => entry.file_name().into_string().ok().map(Ok),
            Err(e) => Some(Err(e)),
        });
        names.collect()
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>> {
        let file = fs::File::options().create(true).truncate(false).write(true).open(self.path.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(DiskLock(file)))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.path.clone() } else { self.path.join(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_after_a_sync_was_begun_is_synced_too() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::new(dir.path());
        let mut file = storage.create("file").unwrap();
        for part in [&b"one "[..], b"two ", b"three"] {
            file.write_all(part).unwrap();
            file.begin_sync();
        }
        file.sync().unwrap();
        file.sync().unwrap();
        assert_eq!(*storage.read("file").unwrap(), *b"one two three");
    }

    #[test]
    fn every_directory_that_gets_a_new_name_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        assert_eq!(holders(&deep), [dir.path().join("a"), dir.path().into()]);
        assert_eq!(holders(Path::new("no-such-parent/index")), [Path::new(".")]);
        Directory::create(&deep).unwrap();
        Directory::create(&deep).unwrap();
        assert!(deep.is_dir() && holders(&deep).is_empty());
    }
}
