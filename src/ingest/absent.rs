//! What to make of known files that a walk did not meet.

use std::path::{Path, PathBuf};

use super::walk::{Roots, Rules};
use crate::Error;
use crate::catalog::{Key, Kind, Known};

/// Photos whose files are gone, skipped files that are gone, and roots about which nothing can be said.
#[derive(Debug, Default)]
pub(super) struct Absent {
    pub(super) photos: Vec<Key>,
    pub(super) skipped: Vec<PathBuf>,
    pub(super) doubtful: Vec<(PathBuf, Error)>,
}

impl Absent {
    /// Nothing is gone below a folder that could not be read, nor below a root that is empty: that is what the mount point of a
    /// drive looks like while the drive is in a drawer.
    pub(super) fn of(unseen: Vec<Known>, roots: &Roots, rules: &Rules, unreadable: &[Option<PathBuf>]) -> Absent {
        let mut absent = Absent::default();
        let empty: Vec<&Path> = roots.dirs().filter(|dir| is_empty(dir)).collect();
        let mut emptied = vec![0_u64; empty.len()];
        for Known { path, kind, .. } in unseen {
            if unreadable.iter().any(|place| place.as_ref().is_none_or(|place| path.starts_with(place))) {
                continue;
            }
            if let Some(at) = empty.iter().position(|root| path.starts_with(root)) {
                emptied[at] += u64::from(matches!(kind, Kind::Photo { .. }));
                continue;
            }
            let root = roots.dirs().filter(|root| path.starts_with(root)).max_by_key(|root| root.as_os_str().len());
            if root.is_some_and(|root| path.is_file() && rules.pass_by(root, &path)) {
                continue;
            }
            match kind {
                Kind::Photo { key, .. } => absent.photos.push(key),
                Kind::Skipped { .. } => absent.skipped.push(path),
            }
        }
        for (root, known) in empty.into_iter().zip(emptied).filter(|(_, known)| *known > 0) {
            let path = root.to_path_buf();
            absent.doubtful.push((path.clone(), Error::EmptyRoot { path, known }));
        }
        absent
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}
