//! The request of an ingest, and what comes of it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::absent::Absent;
use super::diff::{Table, Verdict};
use super::pipeline::{Candidate, Event, Feed, Stages, Stopped};
use super::walk::{Roots, Rules, Step};
use super::watch::{Watch, watched};
use super::writer::{Ingested, Sink};
use crate::catalog::{Catalog, Hash, KeptFeatures, Key, Keys, Part, Said, Whose};
use crate::image::DecodeOptions;
use crate::model::Encode;
use crate::{Error, Result};

/// A file that could not be taken in, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct Skipped {
    /// The file, or the folder.
    pub path: PathBuf,
    /// The reason.
    pub error: Error,
}

/// What an ingest did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Files seen for the first time.
    pub added: u64,
    /// Files whose content changed.
    pub changed: u64,
    /// Files that moved and kept their embedding.
    pub moved: u64,
    /// Files as they were.
    pub unchanged: u64,
    /// Files that had been gone and are there again, as they were.
    pub returned: u64,
    /// Files that are gone: no answers any more, but not forgotten either.
    pub gone: u64,
    /// Vectors that were computed; copies and moved files need none.
    pub embedded: u64,
    /// Bytes of files that were read.
    pub bytes: u64,
    /// Whether the library was empty before.
    pub first: bool,
    /// Files that could not be read, with the reason; those included that are as they were when an earlier run could not.
    pub skipped: Vec<Skipped>,
}

/// Where an ingest stands; handed to the progress closure a few times a second.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Files met by the walk so far.
    pub found: u64,
    /// Files dealt with so far.
    pub done: u64,
    /// How many there will be, where that can be told before the walk ends: by how much of all lists and shards was
    /// read.
    pub expected: Option<u64>,
    /// Whether the walk has ended, so that `found` is the total.
    pub walked: bool,
    /// Vectors computed so far.
    pub embedded: u64,
    /// Files skipped with an error so far.
    pub skipped: u64,
    /// Bytes of files read so far.
    pub bytes: u64,
    /// While the index builds a graph over what it has: vectors in the graph, and how many there will be.
    pub graph: Option<(u64, u64)>,
}

/// What an ingest writes to.
pub(crate) struct Target<'a> {
    pub(crate) library: &'a Path,
    pub(crate) catalog: &'a Catalog,
    /// Row of the space that the index and the encoder belong to.
    pub(crate) space: i64,
    pub(crate) index: tintype_index::Index,
    /// Vectors of captions, where the library has or gets some.
    pub(crate) captions: Option<tintype_index::Index>,
    /// Where they are or would be.
    pub(crate) captions_dir: PathBuf,
    pub(crate) encoder: Arc<dyn Encode>,
    /// Where features are kept, if they are.
    pub(crate) features: Option<KeptFeatures>,
}

/// An ingest request; ends in [`Ingest::run`].
#[must_use = "an ingest does nothing before `run`"]
pub struct Ingest<'a> {
    target: Target<'a>,
    paths: Vec<PathBuf>,
    rules: Rules,
    part: Option<Part>,
    threads: usize,
    max_pixels: u64,
    watch: Watch<'a>,
}

/// Threads where the caller does not say: one per core.
pub(crate) fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the walk tells the sink.
#[derive(Debug)]
pub(super) enum Walked {
    Back(Key),
    StillSkipped(PathBuf, String),
    Unreadable(Option<PathBuf>, Error),
    /// A photo is as it was, and its collection says this of it.
    Describe(Key, Box<Said>),
    /// A source was read to its end, and so many of its photos were sent on.
    SourceEnd(i64, u64),
    /// The walk is over, and this is what it knew.
    End(Box<Table>),
    /// It could not begin.
    Failed(Error),
}

watched!(Ingest);

impl<'a> Ingest<'a> {
    pub(crate) fn new(target: Target<'a>, paths: Vec<PathBuf>) -> Ingest<'a> {
        let rules = Rules { library: target.library.to_path_buf(), ..Rules::default() };
        let max_pixels = DecodeOptions::default().max_pixels;
        Ingest { target, paths, rules, part: None, threads: default_threads(), max_pixels, watch: Watch::default() }
    }

    /// Also leaves out what matches this pattern, in the syntax of `.gitignore`, relative to each path that was given. Adds to
    /// the folders that are left out anyway (`@eaDir`, `node_modules`, `.git`, trash…); `!node_modules` takes one of these back.
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.rules.exclude.push(pattern.into());
        self
    }

    /// Also looks for photos in files and folders whose name begins with a dot. Off by default; hidden photos that the library
    /// knows stay in it either way.
    pub fn hidden(mut self, yes: bool) -> Self {
        self.rules.hidden = yes;
        self
    }

    /// Follows symbolic links below the paths that were given. Off by default.
    pub fn follow_links(mut self, yes: bool) -> Self {
        self.rules.follow_links = yes;
        self
    }

    /// Only a part of the photos; nothing is said of the others, and those that the library has stay in it.
    pub fn part(mut self, part: Part) -> Self {
        self.part = Some(part);
        self
    }

    /// Threads that read and decode. One per core by default. Encoders have threads of their own.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Refuses pictures with more pixels. 512 million by default.
    pub fn max_pixels(mut self, pixels: u64) -> Self {
        self.max_pixels = pixels;
        self
    }

    /// Brings the library in line with the files.
    ///
    /// A file whose size and modification time are as they were costs one `stat`. Photos are searchable a few seconds after
    /// they were embedded, while the run goes on. Ended at any moment by whatever means, it loses no more than those seconds.
    ///
    /// # Errors
    /// [`Error::NoRoot`] for a path that is not there: nothing was changed. [`Error::Busy`] if another process writes.
    /// [`Error::Cancelled`] if `cancel` said so, and errors of catalog, index, encoder or disk: what was done until then is
    /// kept. A file that cannot be read is no error, but a line in [`Report::skipped`].
    pub fn run(mut self) -> Result<Report> {
        let roots = Roots::new(&self.paths)?;
        let catalog = self.target.catalog;
        let writer = self.watch.writer(catalog)?;
        let mut sink = Sink::new(&self.target, writer, self.watch.memory())?;
        // Files beside photos that were noted before, or that nobody walks to, are looked for beside each photo.
        sink.meets_all = sink.report.first && !catalog.read()?.has_skipped()? && roots.are_folders();
        let missing = sink.missing().clone();
        let scope = roots.outermost();
        let counters = Counters::default();
        let stages = Stages {
            encoder: &*self.target.encoder,
            threads: self.threads,
            max_pixels: self.max_pixels,
            has_vector: &|hash| has_vector(catalog, &missing, hash),
            copies: None,
            features: self.target.features.as_ref(),
            bytes_read: &counters.bytes,
            stop: &AtomicBool::new(false),
        };
        let walk = |feed: &Feed<'_, Walked>| {
            let known = Table::load(catalog, &scope, Whose::Walked, &missing);
            let _ = walk(feed, known, &roots, &self.rules, self.part, &counters);
        };
        let watch = &mut self.watch;
        let ended = stages.run(walk, |events| sink.drain(events, &counters, watch));
        let table = match ended {
            Ok(Ingested::Walked(table)) => table,
            // What reached the sink is written down before the run ends.
            Ok(Ingested::Cancelled) => {
                return Err(sink.commit(&counters, &mut Watch::hurried()).err().unwrap_or(Error::Cancelled));
            }
            Err(error) => {
                let _ = sink.commit(&counters, &mut Watch::hurried());
                return Err(error);
            }
        };
        // The catalog must know of moves before it is asked for what was not met.
        sink.write(&counters, watch)?;
        let absent = Absent::of(table.unseen(catalog, &scope)?, &roots, &self.rules, sink.unreadable());
        absent.photos.into_iter().for_each(|key| sink.gone(key));
        absent.skipped.into_iter().for_each(|path| sink.forget(path));
        absent.doubtful.into_iter().for_each(|(path, error)| sink.skip(path, error));
        roots.all().for_each(|root| sink.indexed(root));
        sink.finish(&counters, watch)
    }
}

/// The source of an ingest: the walk, compared with the catalog.
fn walk(
    feed: &Feed<'_, Walked>,
    known: Result<Table>,
    roots: &Roots,
    rules: &Rules,
    part: Option<Part>,
    counters: &Counters,
) -> Result<(), Stopped> {
    let mut table = match known {
        Ok(table) => table,
        Err(error) => return feed.event(Event::Other(Walked::Failed(error))),
    };
    let mut each = |step: Step| -> Result<(), Stopped> {
        let file = match step {
            Step::File(file) => file,
            Step::Unreadable(path, error) => return feed.event(Event::Other(Walked::Unreadable(path, error))),
        };
        // One that is another part's is there all the same.
        let verdict = table.judge(&file);
        if part.is_some_and(|part| !part.takes_file(roots.above(&file.path), &file.path)) {
            return feed.check();
        }
        counters.found.fetch_add(1, Ordering::Relaxed);
        match verdict {
            Verdict::New => feed.file(Candidate::new(file, false)),
            Verdict::Changed => feed.file(Candidate::new(file, true)),
            Verdict::Back(key) => feed.event(Event::Other(Walked::Back(key))),
            Verdict::Skipped(Some(reason)) => feed.event(Event::Other(Walked::StillSkipped(file.path, reason))),
            verdict @ (Verdict::Unchanged | Verdict::Skipped(None)) => {
                let counter = if verdict == Verdict::Unchanged { &counters.unchanged } else { &counters.ignored };
                counter.fetch_add(1, Ordering::Relaxed);
                feed.check()
            }
        }
    };
    let walked = roots.walk(rules, |step| match each(step) {
        Ok(()) => ControlFlow::Continue(()),
        Err(Stopped) => ControlFlow::Break(()),
    });
    counters.walked.store(true, Ordering::Release);
    feed.event(Event::Other(match walked {
        Ok(()) => Walked::End(Box::new(table)),
        Err(error) => Walked::Failed(error),
    }))
}

/// Whether a content has a vector that another file may take over.
pub(super) fn has_vector(catalog: &Catalog, missing: &Keys, hash: &Hash) -> Result<bool> {
    Ok(catalog.read()?.with_content(hash)?.iter().any(|record| !missing.contains(record.key)))
}

/// What the threads of an ingest count.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) found: AtomicU64,
    pub(super) unchanged: AtomicU64,
    /// Files known to be no pictures.
    pub(super) ignored: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Photos that there will be, as far as that can be told; 0 where it cannot.
    pub(super) announced: AtomicU64,
    pub(super) walked: AtomicBool,
}

impl Counters {
    pub(super) fn progress(&self, report: &Report, done: u64) -> Progress {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            // Before `found`, which must be the total once this is set.
            walked: self.walked.load(Ordering::Acquire),
            done: count(&self.unchanged) + count(&self.ignored) + done,
            found: count(&self.found),
            expected: Some(count(&self.announced)).filter(|announced| *announced > 0),
            embedded: report.embedded,
            skipped: report.skipped.len() as u64,
            bytes: count(&self.bytes),
            graph: None,
        }
    }

    /// Unchanged files and bytes read.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.unchanged.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}
