//! The cache folder of one repository, in the layout that the Hugging Face tools share.
//!
//! ```text
//! CACHE/models--OWNER--NAME/blobs/ETAG                    the bytes, named by their checksum
//!                          /blobs/ETAG.incomplete         a download that is not finished or not yet checked
//!                          /snapshots/COMMIT/FILE         links to ../../blobs/ETAG
//!                          /refs/main                     the commit that `main` meant when it was last asked
//! CACHE/.locks/models--OWNER--NAME/ETAG.lock              held while a blob is written
//! ```
//!
//! Invariants: a blob and a snapshot's file appear by rename, complete and checked; a ref is written after the files of
//! its snapshot, so that a reader that follows it finds the whole model.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::import::shards;
use crate::model::registry::Need;
use crate::{Error, Result};

/// How often a waiting program looks whether the other one has finished, or whether it should stop.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// The cache folder of one repository.
pub(super) struct Repository {
    cache: PathBuf,
    folder: String,
}

impl Repository {
    /// The folder of `owner/name` in `cache`; creates nothing.
    pub(super) fn new(cache: &Path, repository: &str) -> Self {
        Self { cache: cache.to_path_buf(), folder: format!("models--{}", repository.replace('/', "--")) }
    }

    fn root(&self) -> PathBuf {
        self.cache.join(&self.folder)
    }

    /// Where the bytes named `etag` lie.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root().join("blobs").join(etag)
    }

    /// Where they lie until they are complete and checked. The name without a random part lets a later program, ours or
    /// another, go on where this one stopped.
    pub(super) fn partial(&self, etag: &str) -> PathBuf {
        self.root().join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The directory of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root().join("snapshots").join(commit)
    }

    /// The commit that `revision` meant when it was last asked for.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.root().join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// The directory that holds everything in `needs` at `revision`, or the first file that is missing.
    pub(super) fn find(&self, revision: &str, needs: &[Need]) -> Result<PathBuf, &'static str> {
        let first = needs.first().map_or("", |need| need[0][0]);
        let snapshot = self.snapshot(&self.commit(revision).ok_or(first)?);
        let here = |file: &&str| {
            let path = snapshot.join(file);
            let shards = || shards(&snapshot, &path).is_ok_and(|shards| shards.iter().all(|shard| shard.is_file()));
            path.is_file() && (!is_index(file) || shards())
        };
        for need in needs {
            if !need.iter().any(|set| set.iter().all(here)) {
                return Err(need[0][0]);
            }
        }
        Ok(snapshot)
    }

    /// Makes the folders that a download writes to.
    pub(super) fn prepare(&self, commit: &str) -> Result<()> {
        for folder in [self.root().join("blobs"), self.root().join("refs"), self.snapshot(commit), self.locks()] {
            fs::create_dir_all(&folder).map_err(|error| self.trouble(error))?;
        }
        Ok(())
    }

    fn locks(&self) -> PathBuf {
        self.cache.join(".locks").join(&self.folder)
    }

    /// Waits for the lock on a blob, which ends with the returned file. `waiting` is called while another program has it,
    /// and says whether to give up. Where the file system has no locks the download goes ahead without: two writers then
    /// spoil each other's partial file, which the checksum notices.
    pub(super) fn lock(&self, etag: &str, mut waiting: impl FnMut() -> bool) -> Result<Option<File>> {
        let path = self.locks().join(format!("{etag}.lock"));
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|error| self.trouble(error))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if waiting() => return Err(Error::Cancelled),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_POLL),
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(self.trouble(error)),
            }
        }
    }

    /// Makes `file` of a snapshot out of a blob: a relative link; where links are off or refused a hard link; and where the
    /// file system has neither, the blob itself.
    pub(super) fn link(&self, etag: &str, commit: &str, file: &str, symlinks: bool) -> Result<()> {
        let (blob, pointer) = (self.blob(etag), self.snapshot(commit).join(file));
        let fresh = self.snapshot(commit).join(aside(file));
        // What a program that was killed has left.
        let _ = fs::remove_file(&fresh);
        let target = Path::new("..").join("..").join("blobs").join(etag);
        let linked = (symlinks && symlink(&target, &fresh).is_ok()) || fs::hard_link(&blob, &fresh).is_ok();
        fs::rename(if linked { &fresh } else { &blob }, &pointer).map_err(|error| self.trouble(error))
    }

    /// Notes that `revision` is `commit`.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let refs = self.root().join("refs");
        let fresh = refs.join(aside(revision));
        fs::write(&fresh, commit)
            .and_then(|()| fs::rename(&fresh, refs.join(revision)))
            .map_err(|error| self.trouble(error))
    }

    /// An error of the cache folder, with what can be done about it.
    pub(super) fn trouble(&self, source: io::Error) -> Error {
        let reason = match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "the disk is full. Free some space, or keep models on another disk (HF_HOME); what has arrived so far is \
                 kept, and the download goes on from there"
            }
            ErrorKind::ReadOnlyFilesystem => "this disk is read-only. Keep models in another folder (HF_HOME)",
            ErrorKind::PermissionDenied => {
                "this folder may not be written to. Change its permissions, or keep models in another folder (HF_HOME)"
            }
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                "a file is in the way of this folder. Keep models in another folder (HF_HOME)"
            }
            _ => "models cannot be kept in this folder",
        };
        Error::ModelCache { path: self.root(), reason: reason.to_owned(), source }
    }
}

/// Whether a file lists others, in which the weights lie.
pub(super) fn is_index(file: &str) -> bool {
    file.ends_with(".index.json")
}

/// A name to write under before renaming to `name`, which no other program and no other thread writes to.
fn aside(name: &str) -> String {
    format!(".{name}.{}.{:?}", std::process::id(), std::thread::current().id())
}

/// Whether `text` is a commit: 40 hexadecimal digits. Everything else would be a path of a stranger's choice.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|c| c.is_ascii_hexdigit())
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const NEEDS: &[Need] = &[&[&["config.json"]], &[&["tokenizer.json"], &["vocab.json", "merges.txt"]]];

    #[test]
    fn a_snapshot_counts_when_one_alternative_of_every_need_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::new(dir.path(), "owner/name");
        assert_eq!(repository.find("main", NEEDS), Err("config.json"));
        repository.prepare(COMMIT).unwrap();
        repository.set_commit("main", COMMIT).unwrap();
        let snapshot = dir.path().join("models--owner--name/snapshots").join(COMMIT);
        for (file, then) in [
            ("config.json", Err("tokenizer.json")),
            ("vocab.json", Err("tokenizer.json")),
            ("merges.txt", Ok(snapshot.clone())),
        ] {
            fs::write(snapshot.join(file), "x").unwrap();
            assert_eq!(repository.find("main", NEEDS), then);
        }
        assert_eq!(repository.find(COMMIT, NEEDS), Ok(snapshot));
    }

    #[test]
    fn a_link_without_its_blob_is_a_missing_file() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::new(dir.path(), "owner/name");
        repository.prepare(COMMIT).unwrap();
        repository.link("gone", COMMIT, "config.json", true).unwrap();
        repository.set_commit("main", COMMIT).unwrap();
        assert_eq!(repository.find("main", &NEEDS[..1]), Err("config.json"));
        fs::write(repository.blob("gone"), "x").unwrap();
        assert!(repository.find("main", &NEEDS[..1]).is_ok(), "the link is relative to the snapshot");
    }

    #[test]
    fn a_ref_that_is_no_commit_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::new(dir.path(), "owner/name");
        repository.prepare(COMMIT).unwrap();
        fs::write(dir.path().join("models--owner--name/refs/main"), "../../../etc").unwrap();
        assert_eq!(repository.commit("main"), None);
    }

    #[test]
    fn errors_name_the_folder_and_say_what_to_do() {
        let repository = Repository::new(Path::new("/c"), "owner/name");
        for (kind, words) in [
            (ErrorKind::StorageFull, "the disk is full"),
            (ErrorKind::ReadOnlyFilesystem, "read-only"),
            (ErrorKind::PermissionDenied, "may not be written to"),
        ] {
            let text = repository.trouble(kind.into()).to_string();
            assert!(text.contains("models--owner--name") && text.contains(words) && text.contains("HF_HOME"), "{text}");
        }
    }
}
