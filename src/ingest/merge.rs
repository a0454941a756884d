//! Several libraries as one, without embedding anything again.
//!
//! Records are copied with their vectors under new keys. What is in the library already, by path, stays as it is: so a merge that
//! was interrupted goes on where it was, and of two parts that overlap the first one wins.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Instant;

use tintype_index::Index;

use super::TICK;
use super::captions;
use super::request::{Counters, Report, Target};
use super::watch::{Watch, watched};
use super::writer::Sink;
use crate::catalog::{
    CAPTIONS, Catalog, Change, Copies, Hash, Item, KeptFeatures, Key, Part, Record, SourceFile, SourceState, absolute,
    fingerprint,
};
use crate::{Error, Result};

/// Rows that are read at a time.
const BATCH: usize = 1000;

/// A request to merge libraries; ends in [`Merge::run`].
#[must_use = "nothing is merged before `run`"]
pub struct Merge<'a> {
    target: Target<'a>,
    parts: Vec<PathBuf>,
    watch: Watch<'a>,
}

/// A library that is read.
struct Library {
    catalog: Catalog,
    vectors: tintype_index::Reader,
    captions: Option<tintype_index::Reader>,
    copies: Copies,
    features: Option<KeptFeatures>,
}

/// What stands beside the catalog of the library that is merged into.
struct Beside {
    copies: Copies,
    features: Option<KeptFeatures>,
}

watched!(Merge);

impl<'a> Merge<'a> {
    pub(crate) fn new(target: Target<'a>, parts: Vec<PathBuf>) -> Merge<'a> {
        Merge { target, parts, watch: Watch::default() }
    }

    /// Copies everything, kept features of pictures included: the library keeps them if a part does. In the report, `added` are the photos that were copied and `unchanged` those that were there.
    ///
    /// # Errors
    /// [`Error::NoLibrary`], [`Error::SpaceMismatch`] if a part was made with another model: nothing was changed.
    /// [`Error::Busy`], [`Error::Cancelled`], errors of catalog, index and disk: what was done until then is kept.
    pub fn run(mut self) -> Result<Report> {
        let ours = self.target.encoder.space().clone();
        let mut parts = Vec::new();
        for path in &self.parts {
            let dir = absolute(path).map_err(Error::io(path))?;
            if dir == self.target.library {
                return Err(Error::BadCollection {
                    path: dir,
                    reason: "a library cannot be merged into itself".to_owned(),
                });
            }
            let catalog = Catalog::open(&dir)?;
            let space = catalog.current()?;
            if !space.space.fits(&ours) {
                let (found, expected) = (space.space.model, ours.model);
                return Err(Error::SpaceMismatch { path: dir, found, expected });
            }
            let captions = match Index::open(dir.join(format!("{}{CAPTIONS}", space.directory))) {
                Err(tintype_index::Error::NotFound { .. }) => None,
                opened => Some(opened?.reader()?),
            };
            let vectors = Index::open(dir.join(&space.directory))?.reader()?;
            let (copies, features) = (Copies::of(&dir), KeptFeatures::of(&dir)?);
            parts.push(Library { vectors, captions, catalog, copies, features });
        }
        let mut watch = std::mem::take(&mut self.watch);
        let writer = watch.writer(self.target.catalog)?;
        if parts.iter().any(|part| part.captions.is_some()) && self.target.captions.is_none() {
            self.target.captions = Some(captions::make(&self.target)?);
        }
        let mut sink = Sink::new(&self.target, writer, watch.memory())?;
        let counters = Counters::default();
        let features = match parts.iter().any(|part| part.features.is_some()) {
            true => Some(KeptFeatures::keep(self.target.library)?),
            false => KeptFeatures::of(self.target.library)?,
        };
        let beside = Beside { copies: Copies::of(self.target.library), features };
        match copy(&parts, &beside, &mut sink, &counters, &mut watch) {
            Ok(()) => sink.finish(&counters, &mut watch),
            Err(Error::Cancelled) => {
                Err(sink.commit(&counters, &mut Watch::hurried()).err().unwrap_or(Error::Cancelled))
            }
            Err(error) => {
                let _ = sink.commit(&counters, &mut Watch::hurried());
                Err(error)
            }
        }
    }
}

fn copy(
    parts: &[Library],
    beside: &Beside,
    sink: &mut Sink<'_>,
    counters: &Counters,
    watch: &mut Watch<'_>,
) -> Result<()> {
    use std::sync::atomic::Ordering::Relaxed;
    let mut there = HashSet::new();
    sink.database.read()?.paths(|path| {
        there.insert(fingerprint(path));
    })?;
    let mut sources: HashMap<PathBuf, Taken> = HashMap::new();
    let mut keys = Vec::new();
    for part in parts {
        let found: Vec<Key> = part.catalog.read()?.keys(false)?.iter().collect();
        counters.found.fetch_add(found.len() as u64, Relaxed);
        keys.push(found);
    }
    counters.walked.store(true, Relaxed);
    let mut ticked = Instant::now();
    for (part, keys) in parts.iter().zip(keys) {
        let reader = part.catalog.read()?;
        let files = reader.source_files()?;
        let ours = take_sources(&files, &mut sources, sink)?;
        for (root, _) in reader.roots()? {
            sink.indexed(&root);
        }
        for batch in keys.chunks(BATCH) {
            let records = reader.records(batch)?;
            let present: Vec<Key> = records.iter().map(|record| record.key).collect();
            let starts = reader.starts(&present)?;
            let metadata = reader.metadata(&present)?;
            if let (Some(ours), Some(theirs)) = (&beside.features, &part.features) {
                ours.take(theirs, &records.iter().map(Record::content).collect::<Vec<Hash>>())?;
            }
            for ((record, fields), start) in records.into_iter().zip(metadata).zip(starts) {
                if !there.insert(fingerprint(&record.path)) {
                    counters.unchanged.fetch_add(1, Relaxed);
                    continue;
                }
                sink.done += 1;
                let Some(vector) = part.vectors.get(record.key)? else { continue };
                let caption = match &part.captions {
                    Some(captions) => captions.get(record.key)?,
                    None => None,
                };
                let source = record.source.and_then(|source| ours.get(&source).copied());
                let item = Some(Box::new(Item { source, start, fields, alone: false }));
                beside.copies.keep(&record.hash, u64::MAX, || part.copies.find(&record.hash));
                sink.put(Record { source, item, ..record }, &vector, caption.as_deref())?;
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                if (watch.cancel)() {
                    return Err(Error::Cancelled);
                }
                (watch.progress)(&counters.progress(&sink.report, sink.done));
            }
            if sink.is_due() {
                sink.commit(counters, watch)?;
            }
        }
        // Only now are the rows here that were dealt with there.
        for (_, file, done, _) in &files {
            if file.part.is_none()
                && let Some(taken) = sources.get_mut(&file.path).filter(|taken| !taken.mixed)
            {
                taken.done = taken.done.max(*done);
                sink.rows_done(taken.id, taken.done);
            }
        }
    }
    sink.changes.extend(sources.into_values().filter(Taken::is_whole).map(|taken| Change::Complete(taken.id)));
    Ok(())
}

/// A file that libraries came from, and what they have of it.
struct Taken {
    id: i64,
    size: u64,
    mtime: i64,
    /// Whether photos of another state of it are among those that are here: then it is read again from where it was before them.
    mixed: bool,
    /// Rows that are dealt with.
    done: u64,
    /// The parts that were read to their end; none for all of it.
    parts: HashSet<Option<Part>>,
}

impl Taken {
    /// Whether everything that is in the file is here: somebody had it all, or all parts of one division are there.
    fn is_whole(&self) -> bool {
        let has_all = |part: Part| part.all().all(|part| self.parts.contains(&Some(part)));
        self.parts.contains(&None) || self.parts.iter().flatten().any(|part| has_all(*part))
    }
}

/// The sources of a library, by their numbers there, as numbers here.
fn take_sources(
    files: &[(i64, SourceFile, u64, bool)],
    sources: &mut HashMap<PathBuf, Taken>,
    sink: &mut Sink<'_>,
) -> Result<HashMap<i64, i64>> {
    let mut ours = HashMap::new();
    for (id, file, _, complete) in files {
        let taken = match sources.entry(file.path.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let whole = SourceFile { part: None, ..file.clone() };
                let SourceState { id, done, changed: mixed, .. } = sink.catalog.sources(&[whole])?[0];
                new.insert(Taken { id, size: file.size, mtime: file.mtime, mixed, done, parts: HashSet::new() })
            }
        };
        // Parts of two states of a file are no whole.
        taken.mixed |= (taken.size, taken.mtime) != (file.size, file.mtime);
        if *complete && !taken.mixed {
            taken.parts.insert(file.part);
        }
        ours.insert(*id, taken.id);
    }
    Ok(ours)
}
