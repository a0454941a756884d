//! What the catalog knows, against what the walk meets.
//!
//! The known files are kept as fingerprints of their paths, about 80 bytes each: one pass over the catalog and one table, where
//! a question to the database per file would cost a hundred times the `stat` that an unchanged file is allowed to cost.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::walk::File;
use crate::Result;
use crate::catalog::{Catalog, Key, Keys, Kind, Known, Whose, fingerprint};

/// What to do about a file.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Never seen.
    New,
    /// Seen with another content or file time, or its vector is missing.
    Changed,
    /// As it was.
    Unchanged,
    /// As it was before it was gone.
    Back(Key),
    /// Not taken, and as it was then: with the reason, or no picture at all.
    Skipped(Option<String>),
}

/// Known files below some roots.
#[derive(Debug, Default)]
pub(super) struct Table {
    whose: Whose,
    entries: HashMap<u128, Entry>,
    /// Reasons of skipped files, by fingerprint; few, and long.
    reasons: HashMap<u128, String>,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    mtime: i64,
    /// A photo's key; none for a skipped file.
    key: Option<Key>,
    gone: bool,
    seen: bool,
}

impl Table {
    /// What is known at and below `scope`. Photos in `missing` have no vector and count as changed.
    pub(super) fn load(catalog: &Catalog, scope: &[PathBuf], whose: Whose, missing: &Keys) -> Result<Table> {
        let mut table = Table { whose, ..Table::default() };
        catalog.read()?.known(scope, whose, |known| table.note(known, missing))?;
        Ok(table)
    }

    /// Also what is known of addresses of the web that failed for good.
    pub(super) fn load_failed_addresses(&mut self, catalog: &Catalog) -> Result<()> {
        catalog.read()?.failed_addresses(|known| self.note(known, &Keys::default()))
    }

    fn note(&mut self, known: Known, missing: &Keys) {
        let print = fingerprint(&known.path);
        let (mut size, mtime) = (known.size, known.mtime);
        let (key, gone) = match known.kind {
            Kind::Photo { key, gone } => {
                if missing.contains(key) {
                    // No file has this size.
                    size = u64::MAX;
                }
                (Some(key), gone)
            }
            Kind::Skipped { reason, now } => {
                if !now {
                    size = u64::MAX;
                }
                self.reasons.extend(reason.map(|reason| (print, reason)));
                (None, false)
            }
        };
        self.entries.insert(print, Entry { size, mtime, key, gone, seen: false });
    }

    /// Compares a file with what is known of it, and notes that it is there.
    pub(super) fn judge(&mut self, file: &File) -> Verdict {
        let print = fingerprint(&file.path);
        let Some(entry) = self.entries.get_mut(&print) else { return Verdict::New };
        entry.seen = true;
        let same = (entry.size, entry.mtime) == (file.size, file.mtime);
        match entry.key {
            Some(_) if !same => Verdict::Changed,
            Some(key) if entry.gone => Verdict::Back(key),
            Some(_) => Verdict::Unchanged,
            None if same => Verdict::Skipped(self.reasons.get(&print).cloned()),
            None => Verdict::New,
        }
    }

    /// The key of a photo that is known at a path.
    pub(super) fn key(&self, path: &Path) -> Option<Key> {
        self.entries.get(&fingerprint(path)).and_then(|entry| entry.key)
    }

    /// The key of a photo of the web that is known, if its vector is there; notes that it was met.
    pub(super) fn seen(&mut self, path: &Path) -> Option<Key> {
        let entry = self.entries.get_mut(&fingerprint(path))?;
        entry.seen = true;
        entry.key.filter(|_| entry.size != u64::MAX && !entry.gone)
    }

    /// What is known and was not met: photos not marked as gone yet, and skipped files.
    pub(super) fn unseen(&self, catalog: &Catalog, scope: &[PathBuf]) -> Result<Vec<Known>> {
        let missed = |entry: &Entry| !entry.seen && !entry.gone;
        let mut unseen = Vec::new();
        if self.entries.values().any(missed) {
            catalog.read()?.known(scope, self.whose, |known| {
                if self.entries.get(&fingerprint(&known.path)).is_some_and(missed) {
                    unseen.push(known);
                }
            })?;
        }
        Ok(unseen)
    }
}
