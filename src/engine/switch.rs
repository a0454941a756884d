//! From one model to another, while the library answers.
//!
//! The new vectors grow in an index of their own beside the present one, and one transaction of the catalog says which of the
//! two answers. Embedding in place would leave a library that half answers for hours; a copy of the whole library would cost
//! its size and lose what is indexed meanwhile.
//!
//! Interrupted at any moment, a switch goes on where it was: what the second index holds is done.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::RecvTimeoutError;

use super::Engine;
use super::library::{Current, open_captions, open_index};
use crate::catalog::{Catalog, Copies, Hash, KeptFeatures, Key, Reader, Record, Source, SourceKind, is_address};
use crate::image::DecodeOptions;
use crate::ingest::{
    Candidate, EmbedCaptions, Event, Feed, Given, Pace, Progress, Skipped, Stages, Stopped, TICK, Watch, commit_index,
    default_threads, samples, watched,
};
use crate::model::{Encode, Features};
use crate::query::{Condition, Filter};
use crate::{Error, Result};

/// What a switch did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SwitchReport {
    /// Vectors that were computed from photos.
    pub embedded: u64,
    /// Vectors that were computed from kept features, or from the present vectors, without the photo.
    pub projected: u64,
    /// Photos that an interrupted switch had done already, or that are copies of others.
    pub reused: u64,
    /// Photos that could not be read: they cannot be found by their content until an ingest reads them.
    pub skipped: Vec<Skipped>,
}

/// A request to change models; ends in [`Switch::run`].
#[must_use = "nothing is switched before `run`"]
pub struct Switch<'a> {
    engine: &'a Engine,
    encoder: Arc<dyn Encode>,
    threads: usize,
    watch: Watch<'a>,
}

/// Contents that are projected together.
const PROJECTED: usize = 1024;

/// Keys of one content that have no vector yet.
type Todo = HashMap<Hash, Vec<Key>>;

watched!(Switch);

impl<'a> Switch<'a> {
    pub(super) fn new(engine: &'a Engine, encoder: Arc<dyn Encode>) -> Switch<'a> {
        Switch { engine, encoder, threads: default_threads(), watch: Watch::default() }
    }

    /// Threads that read and decode. One per core by default. Encoders have threads of their own.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Computes all vectors with the new model, then lets it answer and deletes the old vectors.
    ///
    /// Until then searches in this and other processes use the present model. Afterwards this engine has the new one, and
    /// engines that other processes have open say [`Error::SpaceMismatch`] at their next search. Nothing happens if the
    /// library has this model already. Captions that had vectors get new ones at the end.
    ///
    /// # Errors
    /// [`Error::NoRoot`] and [`Error::EmptyRoot`] if a folder of the library is not there: its photos could not be embedded.
    /// [`Error::Busy`] if another process writes, [`Error::Cancelled`] if `cancel` said so: run it again to go on.
    pub fn run(mut self) -> Result<SwitchReport> {
        let engine = self.engine;
        let catalog = engine.catalog();
        let mut writer = self.watch.writer(catalog)?;
        let space = self.encoder.space();
        let present = catalog.current()?;
        if present.space.fingerprint == space.fingerprint && present.space.dim == space.dim {
            return Ok(SwitchReport::default());
        }
        let features = self.encoder.features();
        let kept = KeptFeatures::of(engine.dir())?;
        let from_present = present.space.fingerprint == features.fingerprint;
        if kept.is_none() && !from_present {
            check_roots(&catalog.read()?)?;
            check_sources(&catalog.read()?)?;
        }
        let has_captions = open_captions(engine.dir(), &present)?.is_some();
        let coming = writer.coming(space)?;
        writer.sweep(engine.dir())?;
        let index = open_index(engine.dir(), &coming)?;
        let mut vectors = index.writer()?;
        self.watch.bound(&mut vectors);
        let mut report = SwitchReport::default();
        let mut todo = plan(&catalog.read()?, &index.reader()?, &mut vectors, &mut report)?;
        let coming = vectors.len() + todo.values().map(|keys| keys.len() as u64).sum::<u64>();
        if coming >= samples::FROM {
            samples::sample(&mut vectors, None, &*self.encoder, &mut self.watch)?;
        }
        let known = Known {
            kept: kept.as_ref(),
            present: from_present.then(|| engine.current().index.reader()).transpose()?,
            features,
        };
        self.project(&known, &mut todo, &mut vectors, &mut report)?;
        if !todo.is_empty() && (kept.is_some() || from_present) {
            check_roots(&catalog.read()?)?;
            check_sources(&catalog.read()?)?;
        }
        self.embed(todo, kept.as_ref(), &mut vectors, &mut report)?;
        if commit_index(&mut vectors, &mut self.watch, Progress::default())? {
            return Err(Error::Cancelled);
        }
        drop(vectors);
        writer.flip()?;
        let space = catalog.current()?;
        engine.set_current(Current { space, index, encoder: self.encoder });
        writer.sweep(engine.dir())?;
        drop(writer);
        if has_captions {
            let Watch { wait, memory, progress, cancel } = std::mem::take(&mut self.watch);
            let request = engine.embed_captions().wait(wait).on_progress(progress).cancel(cancel);
            memory.into_iter().fold(request, EmbedCaptions::memory).run()?;
        }
        Ok(report)
    }

    /// Vectors of all whose features are known, without their photos; the others stay to be done.
    fn project(
        &mut self,
        known: &Known<'_>,
        todo: &mut Todo,
        vectors: &mut tintype_index::Writer,
        report: &mut SwitchReport,
    ) -> Result<()> {
        if known.kept.is_none() && known.present.is_none() {
            return Ok(());
        }
        let head = self.encoder.head()?;
        let contents: Vec<Hash> = todo.keys().copied().collect();
        let mut progress = Progress { found: contents.len() as u64, walked: true, ..Progress::default() };
        let mut pace = Pace::new();
        for contents in contents.chunks(PROJECTED) {
            let (mut rows, mut whose) = (Vec::new(), Vec::new());
            for content in contents {
                if let Some(row) = known.features(content, &todo[content])? {
                    rows.extend(row);
                    whose.push(content);
                }
            }
            for (content, vector) in whose.iter().zip(head.project(&rows)?.rows()) {
                for key in todo.remove(*content).unwrap_or_default() {
                    vectors.add(key, vector)?;
                }
                report.projected += 1;
            }
            (progress.embedded, progress.done) = (report.projected, report.projected);
            (self.watch.progress)(&progress);
            let start = Instant::now();
            if (self.watch.cancel)() {
                commit_index(vectors, &mut Watch::hurried(), progress)?;
                return Err(Error::Cancelled);
            }
            if pace.is_due() {
                if commit_index(vectors, &mut self.watch, progress.clone())? {
                    return Err(Error::Cancelled);
                }
                pace.committed(start);
            }
        }
        Ok(())
    }

    fn embed(
        &mut self,
        mut todo: Todo,
        features: Option<&KeptFeatures>,
        vectors: &mut tintype_index::Writer,
        report: &mut SwitchReport,
    ) -> Result<()> {
        let (library, catalog) = (self.engine.dir(), self.engine.catalog());
        let (bytes, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let stages = Stages {
            encoder: &*self.encoder,
            threads: self.threads,
            max_pixels: DecodeOptions::default().max_pixels,
            has_vector: &|_| Ok(false),
            copies: None,
            features,
            bytes_read: &bytes,
            stop: &stop,
        };
        let keys: Vec<Vec<Key>> = todo.values().cloned().collect();
        let mut progress = Progress { found: keys.len() as u64, walked: true, ..Progress::default() };
        let watch = &mut self.watch;
        let source = |feed: &Feed<'_, Error>| {
            let _ = feed_records(library, catalog, &keys, feed);
        };
        stages.run(source, |events| {
            let (mut pace, mut ticked) = (Pace::new(), Instant::now());
            loop {
                match events.recv_timeout(TICK) {
                    Ok(Event::Embedded(record, _, vector)) => {
                        for key in todo.remove(&record.content()).unwrap_or_default() {
                            vectors.add(key, &vector)?;
                        }
                        report.embedded += 1;
                        progress.embedded += 1;
                        progress.done += 1;
                    }
                    Ok(Event::Skipped(file, _, error)) => {
                        report.skipped.push(Skipped { path: file.path, error });
                        progress.skipped += 1;
                        progress.done += 1;
                    }
                    Ok(Event::NoPicture(file)) => {
                        report.skipped.push(Skipped { path: file.path, error: Error::Changing });
                        progress.done += 1;
                    }
                    // Each content is sent once.
                    Ok(Event::Familiar(..)) => progress.done += 1,
                    Ok(Event::Other(error) | Event::Fatal(error)) => return Err(error),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                if ticked.elapsed() >= TICK {
                    if (watch.cancel)() {
                        commit_index(vectors, &mut Watch::hurried(), progress.clone())?;
                        return Err(Error::Cancelled);
                    }
                    progress.bytes = bytes.load(Ordering::Relaxed);
                    (watch.progress)(&progress);
                    ticked = Instant::now();
                }
                if pace.is_due() {
                    let start = Instant::now();
                    if commit_index(vectors, watch, progress.clone())? {
                        return Err(Error::Cancelled);
                    }
                    pace.committed(start);
                }
            }
        })
    }
}

/// Where features come from without photos.
struct Known<'a> {
    kept: Option<&'a KeptFeatures>,
    /// The vectors that answer now, where the new model maps them.
    present: Option<tintype_index::Reader>,
    features: Features,
}

impl Known<'_> {
    /// The features of a content, which these keys have.
    fn features(&self, content: &Hash, keys: &[Key]) -> Result<Option<Vec<f32>>> {
        if let Some(index) = &self.present {
            for &key in keys {
                if let Some(vector) = index.get(key)? {
                    return Ok(Some(vector));
                }
            }
        }
        match self.kept {
            Some(kept) => kept.get(&self.features.fingerprint, self.features.width, content),
            None => Ok(None),
        }
    }
}

/// What has no vector in the new index; copies of what has one get it here, and vectors of forgotten photos go.
fn plan(
    reader: &Reader<'_>,
    done: &tintype_index::Reader,
    vectors: &mut tintype_index::Writer,
    report: &mut SwitchReport,
) -> Result<Todo> {
    let live = reader.keys(false)?;
    for key in done.keys() {
        let key = key?;
        if !live.contains(key) {
            vectors.remove(key)?;
        }
    }
    let mut contents: HashMap<Hash, (Option<Key>, Vec<Key>)> = HashMap::new();
    let mut failure = None;
    reader.contents(|hash, key| {
        if live.contains(key) {
            let (embedded, waiting) = contents.entry(hash).or_default();
            match done.contains(key) {
                Ok(true) => *embedded = Some(key),
                Ok(false) => waiting.push(key),
                Err(error) => failure = Some(error),
            }
        }
    })?;
    if let Some(error) = failure {
        return Err(error.into());
    }
    let mut todo = Todo::new();
    for (hash, (embedded, waiting)) in contents {
        report.reused += u64::from(embedded.is_some());
        match embedded {
            Some(key) => {
                let vector = done.get(key)?.ok_or(tintype_index::Error::UnknownKey { key })?;
                for copy in waiting {
                    vectors.add(copy, &vector)?;
                    report.reused += 1;
                }
            }
            None => {
                todo.insert(hash, waiting);
            }
        }
    }
    Ok(todo)
}

/// Sends one file of each content: the first that is there. Gzipped shards come last, each in one pass over it.
fn feed_records(
    library: &Path,
    catalog: &Catalog,
    contents: &[Vec<Key>],
    feed: &Feed<'_, Error>,
) -> Result<(), Stopped> {
    let copies = Copies::of(library);
    let mut packed: HashMap<PathBuf, HashMap<PathBuf, Record>> = HashMap::new();
    for keys in contents {
        let records = match catalog.read().and_then(|reader| reader.records(keys)) {
            Ok(records) => records,
            Err(error) => return feed.event(Event::Other(error)),
        };
        let there = records.iter().find(|record| record.source.is_some() || record.path.is_file());
        let Some(record) = there.or(records.first()) else { continue };
        let whereabouts = match catalog.read().and_then(|reader| reader.whereabouts(record.key)) {
            Ok(found) => found.filter(|_| record.source.is_some()),
            Err(error) => return feed.event(Event::Other(error)),
        };
        let candidate = Candidate::recorded(record);
        match whereabouts.and_then(|found| Some((found.source?, found.start))) {
            Some(((shard, SourceKind::Tar, _), Some(start))) => feed.file(candidate.given(Given::Part(shard, start)))?,
            Some(((shard, SourceKind::Tar, _), None)) => {
                packed.entry(shard).or_default().insert(record.path.clone(), record.clone());
            }
            _ if is_address(&record.path) => match copies.file(&record.hash) {
                Some(copy) => feed.file(candidate.given(Given::Copy(copy)))?,
                None => feed.event(candidate.unreadable(Error::NoPicture {
                    path: record.path.clone(),
                    reason: "the picture is on the web, and the library keeps no copy; take its list in again with --download"
                        .to_owned(),
                }))?,
            },
            _ => feed.file(candidate)?,
        }
    }
    for (shard, wanted) in packed {
        unpack(&shard, wanted, feed)?;
    }
    Ok(())
}

/// Sends the members of a gzipped shard. Those that are not there, or behind damage, are lines in the report.
#[cfg(feature = "collections")]
fn unpack(shard: &Path, mut wanted: HashMap<PathBuf, Record>, feed: &Feed<'_, Error>) -> Result<(), Stopped> {
    let read = crate::ingest::unpack(shard, feed, |member| {
        let address = PathBuf::from(format!("{}!{member}", shard.display()));
        wanted.remove(&address).map(|record| Candidate::recorded(&record))
    });
    let reason = match read {
        Ok(sent) => {
            sent?;
            "it is not in its shard any more".to_owned()
        }
        Err(error) => error.to_string(),
    };
    for (path, record) in wanted {
        let error = Error::NoPicture { path, reason: reason.clone() };
        feed.event(Candidate::recorded(&record).unreadable(error))?;
    }
    Ok(())
}

#[cfg(not(feature = "collections"))]
fn unpack(_: &Path, wanted: HashMap<PathBuf, Record>, feed: &Feed<'_, Error>) -> Result<(), Stopped> {
    for (path, record) in wanted {
        let reason = "this program was built without collections".to_owned();
        feed.event(Candidate::recorded(&record).unreadable(Error::NoPicture { path, reason }))?;
    }
    Ok(())
}

/// Vectors that were made elsewhere cannot be made again: the library would lose those photos.
fn check_sources(reader: &Reader<'_>) -> Result<()> {
    let foreign = |source: &Source| source.kind == SourceKind::Embeddings && source.items > 0;
    match reader.sources()?.into_iter().find(foreign) {
        Some(source) => Err(Error::BadCollection {
            path: source.path,
            reason:
                "its vectors were made elsewhere, and another model cannot make them again from pictures; take the \
                     embeddings of that model into a library of their own"
                    .to_owned(),
        }),
        None => Ok(()),
    }
}

/// Photos on a drive that is not mounted could not be embedded, and would be lost to searches by a switch.
fn check_roots(reader: &Reader<'_>) -> Result<()> {
    for (path, _) in reader.roots()? {
        let is_empty = |path: &Path| std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if path.exists() && !is_empty(&path) {
            continue;
        }
        let known = reader.select(&Filter::new().and(Condition::Under(vec![path.clone()])))?.len() as u64;
        if known > 0 {
            return Err(if path.exists() { Error::EmptyRoot { path, known } } else { Error::NoRoot { path } });
        }
    }
    Ok(())
}
