//! The sink of an ingest: one thread that turns events into records and vectors, and commits them.
//!
//! Order of a commit: the indexes, then the catalog. A crash between the two leaves vectors without a record, which no search
//! returns and the next run removes. Removal goes the other way round: the record first, its vector with the next commit.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::collected::{Tally, speaks_of_photos, without_orphans};
use super::diff::Table;
use super::memory::Memory;
use super::pipeline::Event;
use super::request::{Counters, Progress, Report, Skipped, Target, Walked};
use super::samples;
use super::walk::File;
use super::watch::Watch;
use crate::catalog::{Catalog, Change, Hash, Key, Keys, Record, Said, Writer};
use crate::model::Encode;
use crate::{Error, Result};

/// How often the closures of a request are called.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// When to commit: not before `LEAST`, so that small costs stay small, not after `MOST`, which is what a crash may lose, and
/// between them so rarely that committing takes a twentieth of the time.
#[derive(Debug)]
pub(crate) struct Pace {
    last: Instant,
    interval: Duration,
}

impl Pace {
    const LEAST: Duration = Duration::from_secs(2);
    const MOST: Duration = Duration::from_secs(10);

    pub(crate) fn new() -> Pace {
        Pace { last: Instant::now(), interval: Self::LEAST }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.last.elapsed() >= self.interval
    }

    /// Notes a commit that began at `start` and is over.
    pub(crate) fn committed(&mut self, start: Instant) {
        self.interval = (start.elapsed() * 20).clamp(Self::LEAST, Self::MOST);
        self.last = Instant::now();
    }
}

/// Commits an index; while it builds a graph, `watch` hears of that and may stop it. The commit stands either way. Returns
/// whether it was told to stop.
pub(crate) fn commit_index(
    index: &mut tintype_index::Writer,
    watch: &mut Watch<'_>,
    mut progress: Progress,
) -> Result<bool> {
    let mut ticked = Instant::now();
    let committed = index.commit_watched(&mut |done, all| {
        if ticked.elapsed() < TICK {
            return ControlFlow::Continue(());
        }
        ticked = Instant::now();
        progress.graph = Some((done, all));
        (watch.progress)(&progress);
        if (watch.cancel)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match committed {
        Ok(_) => Ok(false),
        Err(tintype_index::Error::Cancelled) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Changes that wait in memory for a commit, at most about: a record with its metadata may be a few kilobytes.
const MOST_CHANGES: usize = 20_000;

/// How the stages ended.
pub(super) enum Ingested {
    Walked(Box<Table>),
    Cancelled,
}

pub(super) struct Sink<'a> {
    pub(super) database: &'a Catalog,
    pub(super) catalog: Writer<'a>,
    pub(super) index: tintype_index::Writer,
    /// For vectors of earlier commits, which copies take over.
    vectors: tintype_index::Index,
    /// What the first graph is shaped with, until that was done or found to be out of reach: captions, or what the encoder makes of
    /// phrases.
    texts: Option<(Option<tintype_index::Index>, Arc<dyn Encode>)>,
    /// Vectors of captions, where the library has or gets some.
    pub(super) captions: Option<tintype_index::Writer>,
    reader: Option<tintype_index::Reader>,
    missing: Keys,
    pub(super) next_key: Key,
    pub(super) changes: Vec<Change>,
    /// Photos embedded since the last commit, by content, with their vectors.
    recent: HashMap<Hash, (Record, Vec<f32>)>,
    /// Where photos moved to since the last commit.
    moved: HashMap<Key, PathBuf>,
    /// Copies of files that are still being embedded.
    waiting: HashMap<Hash, Vec<(File, bool)>>,
    /// Contents that could not be read in this run.
    failed: HashMap<Hash, String>,
    /// Folders that could not be read; none stands for an unknown one.
    unreadable: Vec<Option<PathBuf>>,
    /// Whether the walk meets all files beside photos as new ones.
    pub(super) meets_all: bool,
    /// Files that may hold the captions of photos beside them.
    pub(super) beside: Vec<File>,
    /// Those of them that are not there any more.
    pub(super) vanished: Vec<PathBuf>,
    /// Sources that are being read.
    pub(super) tallies: HashMap<i64, Tally>,
    /// Sources of which everything has arrived.
    pub(super) concluded: usize,
    pub(super) report: Report,
    pub(super) done: u64,
    pub(super) pace: Pace,
}

impl<'a> Sink<'a> {
    /// Compares index and catalog, and removes what an interrupted run left over.
    pub(super) fn new(target: &Target<'a>, mut catalog: Writer<'a>, memory: Memory) -> Result<Sink<'a>> {
        catalog.sweep(target.library)?;
        let reader = target.catalog.read()?;
        let space = reader.current()?;
        if space.id != target.space {
            return Err(Error::SpaceMismatch {
                path: target.library.to_path_buf(),
                found: space.space.model,
                expected: target.encoder.space().model.clone(),
            });
        }
        let mut missing = reader.keys(true)?;
        let first = missing.is_empty();
        let mut index = target.index.writer()?;
        // Photos go on being read while a graph is built.
        index.merge_in_background(|_, _| ControlFlow::Continue(()));
        let (mut orphans, mut next_key) = (Vec::new(), reader.next_key()?);
        for key in target.index.reader()?.keys() {
            let key = key?;
            next_key = next_key.max(key + 1);
            if !missing.remove(key) {
                orphans.push(key);
            }
        }
        for key in orphans {
            index.remove(key)?;
        }
        let mut captions = match &target.captions {
            Some(captions) => Some(without_orphans(captions, &reader)?),
            None => None,
        };
        let sharing = 1 + u64::from(captions.is_some());
        captions.iter_mut().chain([&mut index]).for_each(|index| memory.bound(index, sharing));
        Ok(Sink {
            database: target.catalog,
            catalog,
            index,
            vectors: target.index.clone(),
            texts: Some((target.captions.clone(), Arc::clone(&target.encoder))),
            captions,
            reader: None,
            missing,
            next_key,
            changes: Vec::new(),
            recent: HashMap::new(),
            moved: HashMap::new(),
            waiting: HashMap::new(),
            failed: HashMap::new(),
            unreadable: Vec::new(),
            meets_all: false,
            beside: Vec::new(),
            vanished: Vec::new(),
            tallies: HashMap::new(),
            concluded: 0,
            report: Report { first, ..Report::default() },
            done: 0,
            pace: Pace::new(),
        })
    }

    /// Records without a vector in this space.
    pub(super) fn missing(&self) -> &Keys {
        &self.missing
    }

    /// Folders that could not be read.
    pub(super) fn unreadable(&self) -> &[Option<PathBuf>] {
        &self.unreadable
    }

    /// Takes events until there are no more.
    pub(super) fn drain(
        &mut self,
        events: &Receiver<Event<Walked>>,
        counters: &Counters,
        watch: &mut Watch<'_>,
    ) -> Result<Ingested> {
        let mut table = None;
        let mut ticked = Instant::now();
        loop {
            match events.recv_timeout(TICK) {
                Ok(Event::Other(Walked::End(known))) => table = Some(known),
                Ok(event) => self.take(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if ticked.elapsed() >= TICK {
                if (watch.cancel)() && !(table.is_some() && self.all_sources_are_in()) {
                    return Ok(Ingested::Cancelled);
                }
                (watch.progress)(&counters.progress(&self.report, self.done));
                ticked = Instant::now();
            }
            if self.is_due() {
                self.commit(counters, watch)?;
            }
        }
        // Only a walk that was told to stop ends without saying so.
        Ok(table.map_or(Ingested::Cancelled, Ingested::Walked))
    }

    /// Whether it is time to commit, or what waits for it has become much.
    pub(super) fn is_due(&self) -> bool {
        self.pace.is_due() || self.changes.len() >= MOST_CHANGES
    }

    fn take(&mut self, event: Event<Walked>) -> Result<()> {
        self.done += 1;
        match event {
            Event::Embedded(record, known, vector) => self.embedded(*record, known, vector)?,
            Event::Familiar(file, known, hash) => self.familiar(file, known, hash)?,
            Event::NoPicture(file) if speaks_of_photos(&file.path) => self.beside.push(file),
            Event::NoPicture(file) => {
                self.settled(&file, true);
                let File { path, size, mtime, .. } = file;
                self.changes.push(Change::Skip { path, size, mtime, reason: None });
            }
            Event::Skipped(file, hash, error) => self.skipped(file, hash, error),
            Event::Other(Walked::Back(key)) => {
                self.changes.push(Change::Back(key));
                self.report.returned += 1;
            }
            Event::Other(Walked::StillSkipped(path, reason)) => self.skip(path, Error::StillUnreadable { reason }),
            Event::Other(Walked::Unreadable(path, error)) => {
                self.done -= 1;
                self.skip(path.clone().unwrap_or_default(), error);
                self.unreadable.push(path);
            }
            Event::Other(Walked::Describe(key, said)) => {
                self.done -= 1;
                self.describe(key, *said);
            }
            Event::Other(Walked::SourceEnd(source, sent)) => {
                self.done -= 1;
                self.source_ended(source, sent);
            }
            Event::Other(Walked::End(_)) => {}
            Event::Other(Walked::Failed(error)) | Event::Fatal(error) => return Err(error),
        }
        Ok(())
    }

    fn embedded(&mut self, mut record: Record, known: bool, vector: Vec<f32>) -> Result<()> {
        record.key = self.next_key;
        let hash = record.content();
        match self.index.add(record.key, &vector) {
            Ok(()) => {}
            Err(error @ (tintype_index::Error::NotFinite { .. } | tintype_index::Error::ZeroVector)) => {
                let Record { path, size, mtime, source, .. } = record;
                let said = source.map(|source| Box::new(Said::of(source)));
                self.skipped(File { path, size, mtime, said }, Some(hash), error.into());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        self.next_key += 1;
        self.report.embedded += 1;
        self.count(known);
        if record.source.is_none() {
            self.look_beside(&record.path);
        }
        self.settle(record.source, true);
        self.changes.push(Change::Put(Box::new(record.clone())));
        self.recent.insert(hash, (record, vector));
        for (file, known) in self.waiting.remove(&hash).unwrap_or_default() {
            self.done += 1;
            self.familiar(file, known, hash)?;
        }
        Ok(())
    }

    fn count(&mut self, known: bool) {
        if known {
            self.report.changed += 1;
        } else {
            self.report.added += 1;
        }
    }

    /// A file whose content has a vector, or is about to get one: the same file with a new time, a file that moved, or a copy.
    fn familiar(&mut self, file: File, known: bool, hash: Hash) -> Result<()> {
        if let Some(reason) = self.failed.get(&hash) {
            let error = Error::StillUnreadable { reason: reason.clone() };
            self.skipped(file, Some(hash), error);
            return Ok(());
        }
        let mut same = self.database.read()?.with_content(&hash)?;
        same.retain(|record| !self.missing.contains(record.key));
        for record in &mut same {
            if let Some(path) = self.moved.get(&record.key) {
                record.path.clone_from(path);
            }
        }
        same.extend(self.recent.get(&hash).map(|(record, _)| record.clone()));
        let here = same.iter().find(|record| record.path == file.path);
        // What has a place in a collection does not move.
        let collected = file.said.as_ref().is_some_and(|said| said.item.source.is_some() && said.item.start.is_some());
        let is_left = |record: &&Record| {
            record.source.is_none() && record.path.symlink_metadata().is_err_and(|error| is_absent(&error))
        };
        let left = || same.iter().find(is_left).filter(|_| !collected);
        if let Some(record) = here.or_else(left) {
            if record.path == file.path {
                self.report.unchanged += 1;
            } else {
                self.report.moved += 1;
                self.moved.insert(record.key, file.path.clone());
            }
            self.settled(&file, true);
            let key = record.key;
            self.changes.push(Change::At { key, path: file.path, mtime: file.mtime });
            if let Some(said) = file.said {
                self.describe(key, *said);
            }
        } else if let Some(record) = same.into_iter().next() {
            let vector = self.vector(&hash, record.key)?;
            let key = self.next_key;
            self.next_key += 1;
            self.index.add(key, &vector)?;
            self.count(known);
            self.settled(&file, true);
            if file.said.is_none() {
                self.look_beside(&file.path);
            }
            let copy = Record { key, path: file.path, size: file.size, mtime: file.mtime, ..record };
            self.changes.push(Change::Put(Box::new(copy.said(file.said))));
        } else {
            self.done -= 1;
            self.waiting.entry(hash).or_default().push((file, known));
        }
        Ok(())
    }

    fn vector(&mut self, hash: &Hash, key: Key) -> Result<Vec<f32>> {
        if let Some((record, vector)) = self.recent.get(hash)
            && record.key == key
        {
            return Ok(vector.clone());
        }
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.vectors.reader()?,
        };
        let vector = reader.get(key)?;
        self.reader = Some(reader);
        Ok(vector.ok_or(tintype_index::Error::UnknownKey { key })?)
    }

    pub(super) fn skipped(&mut self, file: File, hash: Option<Hash>, error: Error) {
        let reason = explain(&error);
        // What lies in the bytes stays as long as they do; a missing permission or a limit may be another tomorrow.
        let lasting = matches!(
            error,
            Error::BadImage { .. }
                | Error::DamagedImage { .. }
                | Error::UnsupportedImage { .. }
                | Error::StillUnreadable { .. }
                | Error::Download { lasting: true, .. }
        );
        self.settled(&file, lasting);
        if lasting {
            let File { path, size, mtime, .. } = file.clone();
            self.changes.push(Change::Skip { path, size, mtime, reason: Some(reason.clone()) });
        }
        self.skip(file.path, error);
        let Some(hash) = hash else { return };
        for (file, _) in self.waiting.remove(&hash).unwrap_or_default() {
            self.done += 1;
            self.settled(&file, lasting);
            if lasting {
                let File { path, size, mtime, .. } = file.clone();
                self.changes.push(Change::Skip { path, size, mtime, reason: Some(reason.clone()) });
            }
            self.skip(file.path, Error::StillUnreadable { reason: reason.clone() });
        }
        self.failed.insert(hash, reason);
    }

    /// Notes a line of the report.
    pub(super) fn skip(&mut self, path: PathBuf, error: Error) {
        self.report.skipped.push(Skipped { path, error });
    }

    /// The file of a photo is not there.
    pub(super) fn gone(&mut self, key: Key) {
        self.changes.push(Change::Gone(key));
        self.report.gone += 1;
    }

    /// A path that was skipped earlier is not there.
    pub(super) fn forget(&mut self, path: PathBuf) {
        if speaks_of_photos(&path) {
            self.vanished.push(path.clone());
        }
        self.changes.push(Change::Forget(path));
    }

    /// A root was walked to its end.
    pub(super) fn indexed(&mut self, root: &Path) {
        self.changes.push(Change::Root(root.to_path_buf()));
    }

    /// Makes everything so far durable and searchable. A graph that is due is built meanwhile, and not waited for.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `watch` said so: everything is committed then.
    pub(super) fn commit(&mut self, counters: &Counters, watch: &mut Watch<'_>) -> Result<()> {
        self.write(counters, watch)?;
        if (watch.cancel)() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// As [`Sink::commit`], where nothing is left that could be interrupted.
    pub(super) fn write(&mut self, counters: &Counters, watch: &mut Watch<'_>) -> Result<()> {
        let start = Instant::now();
        self.drop_old_captions()?;
        if let Some(captions) = &mut self.captions {
            captions.commit()?;
        }
        if self.index.len() >= samples::FROM
            && let Some((captions, encoder)) = self.texts.take()
        {
            samples::sample(&mut self.index, captions.as_ref(), &*encoder, watch)?;
        }
        self.index.commit()?;
        if !self.changes.is_empty() {
            let dropped = self.catalog.apply(&self.changes, self.next_key)?;
            self.changes.clear();
            self.drop_vectors(&dropped)?;
        }
        self.recent.clear();
        self.moved.clear();
        self.reader = None;
        self.pace.committed(start);
        let graph = self.index.merging().filter(|(_, all)| *all > 0);
        (watch.progress)(&Progress { graph, ..counters.progress(&self.report, self.done) });
        Ok(())
    }

    /// Commits the rest, removals included, and waits for the graph.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `watch` said so while a graph was built: everything is committed then, and the graph can wait.
    pub(super) fn finish(mut self, counters: &Counters, watch: &mut Watch<'_>) -> Result<Report> {
        self.attach_beside()?;
        self.write(counters, watch)?;
        let mut stopped = commit_index(&mut self.index, watch, counters.progress(&self.report, self.done))?;
        if let Some(captions) = &mut self.captions {
            stopped |= commit_index(captions, watch, counters.progress(&self.report, self.done))?;
        }
        if stopped {
            return Err(Error::Cancelled);
        }
        (watch.progress)(&counters.progress(&self.report, self.done));
        let (unchanged, bytes) = counters.totals();
        self.report.unchanged += unchanged;
        self.report.bytes = bytes;
        Ok(self.report)
    }
}

pub(super) fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// An error with what caused it, in one line.
fn explain(error: &Error) -> String {
    let mut line = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}
