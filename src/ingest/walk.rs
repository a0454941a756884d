//! Which files there are.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use ignore::WalkBuilder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::catalog::{Said, absolute};
use crate::{Error, Result};

/// Folders that hold no photos of their owner's: thumbnails of NAS systems, dependencies, trash, bookkeeping of file systems.
pub(super) const EXCLUDED: &[&str] = &[
    "@eaDir",
    "#recycle",
    "node_modules",
    ".git",
    "System Volume Information",
    "$RECYCLE.BIN",
    ".Trash",
    ".Trash-*",
    ".Trashes",
    ".thumbnails",
    ".Spotlight-V100",
    ".fseventsd",
    "lost+found",
];

/// Names the file with patterns of what to leave out, in the syntax of `.gitignore`.
const IGNORE_FILE: &str = ".tintypeignore";

/// What the walk looks at.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Patterns in the syntax of `.gitignore`, after [`EXCLUDED`]; one that begins with `!` takes an earlier one back.
    pub(super) exclude: Vec<String>,
    pub(super) hidden: bool,
    pub(super) follow_links: bool,
    /// Never looked into.
    pub(super) library: PathBuf,
}

/// A file as the directory shows it.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    /// Nanoseconds since 1970.
    pub(crate) mtime: i64,
    /// What a collection says of it.
    pub(crate) said: Option<Box<Said>>,
}

impl File {
    pub(super) fn new(path: PathBuf, metadata: &Metadata) -> File {
        File { path, size: metadata.len(), mtime: mtime(metadata), said: None }
    }
}

/// Modification time in nanoseconds since 1970; 0 where the system has none.
pub(super) fn mtime(metadata: &Metadata) -> i64 {
    let Ok(time) = metadata.modified() else { return 0 };
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}

/// What a walk meets.
#[derive(Debug)]
pub(super) enum Step {
    File(File),
    /// A folder or file that the system would not show. Without a path, anything below the root may be missing.
    Unreadable(Option<PathBuf>, Error),
}

/// Where walks start: absolute, each once.
///
/// A root inside another is left out of the outer walk and walked for itself, so that every file is met once and a root that
/// was named is looked at even where the outer walk would pass it by.
#[derive(Debug)]
pub(super) struct Roots {
    dirs: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
}

impl Roots {
    /// # Errors
    /// [`Error::NoRoot`] for a path that is not there.
    pub(super) fn new(paths: &[PathBuf]) -> Result<Roots> {
        let mut roots = Roots { dirs: BTreeSet::new(), files: BTreeSet::new() };
        for path in paths {
            let real = absolute(path).map_err(Error::io(path))?;
            match std::fs::metadata(&real) {
                Ok(metadata) if metadata.is_dir() => roots.dirs.insert(real),
                Ok(_) => roots.files.insert(real),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::NoRoot { path: real }),
                Err(source) => return Err(Error::Io { path: real, source }),
            };
        }
        Ok(roots)
    }

    pub(super) fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(PathBuf::as_path)
    }

    /// Whether no file was named.
    pub(super) fn are_folders(&self) -> bool {
        self.files.is_empty()
    }

    /// All roots.
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        self.dirs().chain(self.files.iter().map(PathBuf::as_path))
    }

    /// The outermost folder that a file is in, so that where it is in that does not depend on which folders inside are named too; the
    /// folder of a file that was named.
    pub(super) fn above<'p>(&'p self, file: &'p Path) -> &'p Path {
        let outermost = file.ancestors().skip(1).filter(|above| self.dirs.contains(*above)).last();
        outermost.or(file.parent()).unwrap_or(file)
    }

    /// Roots without those inside others: what they cover together, each part once.
    pub(super) fn outermost(&self) -> Vec<PathBuf> {
        let inside = |path: &Path| path.ancestors().skip(1).any(|above| self.dirs.contains(above));
        self.all().filter(|path| !inside(path)).map(Path::to_path_buf).collect()
    }

    /// Every file, each once, until `each` says stop.
    pub(super) fn walk(&self, rules: &Rules, mut each: impl FnMut(Step) -> ControlFlow<()>) -> Result<()> {
        for path in &self.files {
            let step = match std::fs::metadata(path) {
                Ok(metadata) if metadata.is_file() => Step::File(File::new(path.clone(), &metadata)),
                Ok(_) => continue,
                Err(source) => Step::Unreadable(Some(path.clone()), Error::Io { path: path.clone(), source }),
            };
            if each(step).is_break() {
                return Ok(());
            }
        }
        for dir in &self.dirs {
            if self.walk_dir(dir, rules, &mut each)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn walk_dir(
        &self,
        dir: &Path,
        rules: &Rules,
        each: &mut impl FnMut(Step) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let excluded = excluded(dir, &rules.exclude)?;
        let apart: BTreeSet<PathBuf> =
            self.all().filter(|root| *root != dir && root.starts_with(dir)).map(Path::to_path_buf).collect();
        let (apart, library) = (Arc::new(apart), rules.library.clone());
        if dir.starts_with(&library) {
            return Ok(ControlFlow::Continue(()));
        }
        let mut builder = WalkBuilder::new(dir);
        // Of the ignore files only our own: a photo is wanted whether or not somebody's git wants it.
        builder.standard_filters(false).parents(true).hidden(!rules.hidden).follow_links(rules.follow_links);
        builder.add_custom_ignore_filename(IGNORE_FILE);
        builder.filter_entry(move |entry| {
            let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
            entry.depth() == 0
                || !(excluded.matched(entry.path(), is_dir).is_ignore()
                    || apart.contains(entry.path())
                    || (is_dir && entry.path() == library))
        });
        for entry in builder.build() {
            let step = match entry {
                Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => match entry.metadata() {
                    Ok(metadata) => Step::File(File::new(entry.into_path(), &metadata)),
                    Err(error) => unreadable(error),
                },
                Ok(_) => continue,
                Err(error) if is_loop(&error) => continue,
                Err(error) => unreadable(error),
            };
            if each(step).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Rules {
    /// Whether this walk passes by a file that another one, with wider rules, may have met.
    pub(super) fn pass_by(&self, root: &Path, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(root) else { return false };
        let hidden = below.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
        if hidden && !self.hidden {
            return true;
        }
        let linked = |part: &Path| part.symlink_metadata().is_ok_and(|file| file.file_type().is_symlink());
        !self.follow_links && path.ancestors().take_while(|part| *part != root).any(linked)
    }
}

fn excluded(root: &Path, patterns: &[String]) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new(root);
    for pattern in EXCLUDED.iter().copied().map(str::to_owned).chain(patterns.iter().cloned()) {
        // A leading `#` would be a comment.
        let line = if pattern.starts_with('#') { format!("\\{pattern}") } else { pattern.clone() };
        builder.add_line(None, &line).map_err(|source| Error::BadPattern { pattern, source: Box::new(source) })?;
    }
    builder.build().map_err(|source| Error::BadPattern { pattern: patterns.join(", "), source: Box::new(source) })
}

/// A link that leads back to a folder above it: everything there is met on the direct way.
fn is_loop(error: &ignore::Error) -> bool {
    match error {
        ignore::Error::Loop { .. } => true,
        ignore::Error::WithPath { err, .. } | ignore::Error::WithDepth { err, .. } => is_loop(err),
        _ => false,
    }
}

fn unreadable(error: ignore::Error) -> Step {
    let mut path = None;
    let mut inner = &error;
    while let ignore::Error::WithPath { err, .. } | ignore::Error::WithDepth { err, .. } = inner {
        if let ignore::Error::WithPath { path: at, .. } = inner {
            path = Some(at.clone());
        }
        inner = err;
    }
    let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other("the folder could not be read"));
    Step::Unreadable(path.clone(), Error::Io { path: path.unwrap_or_default(), source })
}
