//! The one that changes an index.

mod background;
mod samples;

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::Key;
use crate::build::Watch;
use crate::compose::{Both, Composer, Inherited, Merge, Pending, Source};
use crate::config::Config;
use crate::encoding::Admit;
use crate::error::{Error, Result};
use crate::fold::Fold;
use crate::format::{self, ManifestData, SamplesEntry, SegmentEntry, encode_removed};
use crate::kernel::Kernels;
use crate::manifest;
use crate::merging::{Job, Merging, install};
use crate::samples::Samples;
use crate::sealed::Unsynced;
use crate::segment::{Part, Segment};
use crate::storage::{LOCK, Lock, Storage};
use crate::vectors::Shape;
use background::Background;

/// Bytes of added vectors that are held in memory unless [`Writer::hold`] says otherwise.
const HELD: usize = 64 << 20;
/// What an added vector takes besides its numbers: its key, and its place in a hash table that is half empty.
const BESIDE: usize = 8 + 40;

/// Changes an index: adds, replaces and removes vectors, and makes the changes durable at [`Writer::commit`]. Holds the writer
/// lock until dropped; what was not committed is dropped with it.
///
/// Once enough vectors have come together, their segments are merged into one with a graph: inside a commit, so that the same
/// calls leave the same files; or, after [`Writer::merge_in_background`], beside the writer, so that no commit waits for one.
pub struct Writer {
    /// First, so that its thread is gone before the lock is.
    merging: Option<Merging>,
    background: Option<Background>,
    storage: Arc<dyn Storage>,
    _lock: Box<dyn Lock>,
    fold: Fold,
    kernels: Kernels,
    /// The last commit.
    data: ManifestData,
    /// What the next commit will be made of, but for `pending`.
    parts: Vec<Part>,
    pending: Pending,
    /// Files among `parts`, by number, that are on their way to the medium.
    unsynced: Vec<(u64, Unsynced)>,
    /// Where a key is in `pending`.
    places: HashMap<Key, u32>,
    /// The sample queries, once they were read or set anew.
    samples: Option<Arc<Samples>>,
    /// Their file; zeros where there are none, or none is written yet.
    samples_named: SamplesEntry,
    /// Bytes of added vectors that are held; more go to a file that the next commit names.
    held: usize,
    changed: bool,
    /// Whether this writer saw to it that the last commit is on the medium.
    published: bool,
    /// Whether there was a commit since somebody looked whether a merge is due.
    committed: bool,
    poisoned: bool,
    /// Files that no commit names any more, or never did.
    garbage: Vec<String>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.storage.path("");
        f.debug_struct("Writer").field("path", &path).field("generation", &self.data.generation).finish_non_exhaustive()
    }
}

impl Writer {
    pub(crate) fn open(storage: Arc<dyn Storage>) -> Result<Writer> {
        let path = storage.path(LOCK);
        let lock = storage.lock().map_err(Error::io(&path, "lock"))?.ok_or(Error::Locked { path })?;
        let (data, parts) = manifest::load(&*storage)?;
        let published = manifest::sweep(&*storage, &data)?;
        Ok(Writer {
            merging: None,
            background: None,
            storage,
            _lock: lock,
            fold: Fold::default(),
            kernels: Kernels::detect(),
            samples: None,
            samples_named: data.samples,
            data,
            parts,
            pending: Pending::default(),
            unsynced: Vec::new(),
            places: HashMap::new(),
            held: HELD,
            changed: false,
            published,
            committed: false,
            poisoned: false,
            garbage: Vec::new(),
        })
    }

    fn usable(&self) -> Result<()> {
        if self.poisoned { Err(Error::Poisoned { path: self.storage.path("") }) } else { Ok(()) }
    }

    /// Adds a vector; one that has the key already is replaced. Readers that are opened after the next commit see it. Added
    /// vectors are held in memory up to 64 MiB ([`Writer::hold`]), then written to a file.
    ///
    /// # Errors
    /// [`Error::Dimension`], [`Error::NotFinite`], [`Error::TooLarge`] (f16 only), [`Error::ZeroVector`] (cosine only),
    /// [`Error::Poisoned`]: nothing changes then. [`Error::Io`] if memory was full and a file not written: it is added all the same.
    pub fn add(&mut self, key: Key, vector: &[f32]) -> Result<()> {
        self.usable()?;
        let dim = self.data.config.dim;
        let mut vector = self.kernels.wide(Admit(self.data.config.metric, dim, vector))?;
        self.data.config.rows.round(&mut vector)?;
        if let Some(&at) = self.places.get(&key) {
            self.pending.numbers[at as usize * dim..][..dim].copy_from_slice(&vector);
            return Ok(());
        }
        self.remove_from_parts(key)?;
        self.places.insert(key, self.pending.len());
        self.pending.keys.push(key);
        self.pending.numbers.extend_from_slice(&vector);
        self.changed = true;
        let held = self.pending.keys.len() * (4 * dim + BESIDE);
        if held >= self.held || self.pending.len() >= self.fold.most {
            self.flush(Sync::Later)?;
        }
        Ok(())
    }

    /// Sets how many bytes of added vectors, keys included, are held in memory before they go to a file, 64 MiB by default. Less
    /// saves memory and costs more files, which the writer merges as it goes.
    pub fn hold(&mut self, bytes: usize) {
        self.held = bytes;
    }

    /// Bounds the memory of the building of graphs. Beyond it there will be several graphs instead of one, each of which is
    /// searched: about 1,130 bytes per vector of 512 numbers while a graph is built, taking another over included. Not less than
    /// 32,768 vectors' worth, and [`Writer::compact`] makes one graph whatever it takes. Unbounded by default. Set it before vectors
    /// are added: a file that was written with more of them than fit is scanned until more is allowed.
    pub fn graph_memory(&mut self, bytes: u64) {
        let Config { dim, links, .. } = self.data.config;
        self.fold = self.fold.within(bytes, Shape::filled(dim, links));
    }

    /// Removes the vector with this key. `false` if there was none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a key table is damaged, [`Error::Poisoned`].
    pub fn remove(&mut self, key: Key) -> Result<bool> {
        self.usable()?;
        if let Some(at) = self.places.remove(&key) {
            self.pending.swap_remove(at, self.data.config.dim);
            if let Some(moved) = self.pending.keys.get(at as usize) {
                self.places.insert(*moved, at);
            }
            return Ok(true);
        }
        self.remove_from_parts(key)
    }

    fn remove_from_parts(&mut self, key: Key) -> Result<bool> {
        for part in self.parts.iter_mut().rev() {
            if let Some(row) = part.find(key)? {
                Arc::make_mut(&mut part.removed).insert(row, part.segment.count());
                // Its file does not say so yet.
                part.removed_id = 0;
                self.changed = true;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sets from how many vectors without a graph on they are merged, and how many a graph has at least. For tests.
    #[doc(hidden)]
    pub fn fold_at(&mut self, flat: u32, graph: u32) {
        self.fold = Fold { flat, graph, ..self.fold };
    }

    /// Makes every change since the last commit durable and visible to new readers, all at once: when it returns, the changes
    /// are on disk. Returns the generation; without changes, the one that stands, which is on disk then whoever made it.
    ///
    /// A commit costs a few syncs and the bytes that were added, with a share of earlier small commits. Where enough vectors
    /// have come together it then builds a graph over them, as a commit of its own, or begins to do so in the background
    /// ([`Writer::merge_in_background`]).
    ///
    /// # Errors
    /// [`Error::Io`]: an earlier commit stays whole, the changes are kept, and the commit may be tried again. Where it is not
    /// known what is on disk, because a sync of the directory failed, or of a file that memory had no room for, or the manifest could
    /// not be replaced, the writer refuses everything from then on with [`Error::Poisoned`]; a new one finds the new state or the old one. A merge in the background
    /// that fails is an error of the next [`Writer::commit_watched`], [`Writer::compact`] or [`Writer::close`]; nothing is lost.
    pub fn commit(&mut self) -> Result<u64> {
        if self.background.is_none() {
            return self.commit_watched(&mut |_, _| ControlFlow::Continue(()));
        }
        self.usable()?;
        if let Some(mut merging) = self.merging.take() {
            if merging.is_over() {
                let (job, merged) = merging.wait(&mut |_, _| ControlFlow::Continue(()));
                if let Err(error) = self.place(&job, merged) {
                    self.note(error);
                }
            } else {
                self.merging = Some(merging);
            }
        }
        self.commit_changes()?;
        if let Err(error) = self.merge_beside() {
            self.note(error);
        }
        Ok(self.data.generation)
    }

    /// As [`Writer::commit`] without a background, whether there is one or not: when it returns, what was due is merged. It tells
    /// `watch` how many vectors of a graph are in and how many there will be. If that breaks, the commit stands, without the graph.
    /// It is asked with none in while vectors are encoded before that, and with all in while recall is measured and what is left is written.
    ///
    /// # Errors
    /// As [`Writer::commit`], and [`Error::Cancelled`].
    pub fn commit_watched(&mut self, watch: &mut dyn FnMut(u64, u64) -> ControlFlow<()>) -> Result<u64> {
        self.usable()?;
        self.commit_changes()?;
        let failed = self.background.as_mut().and_then(|background| background.failed.take());
        if let Some(merging) = self.merging.take() {
            let (job, merged) = merging.wait(watch);
            self.place(&job, merged)?;
            self.commit_changes()?;
        } else if !self.committed && failed.is_none() {
            return Ok(self.data.generation);
        }
        // One after the other, where not all fit into one graph.
        loop {
            let due = self.fold.due(&self.parts);
            if due.is_empty() {
                break;
            }
            self.merge(&due, true, watch)?;
        }
        self.committed = false;
        Ok(self.data.generation)
    }

    /// Commits, then merges everything into one segment with a new graph and drops removed vectors from disk. Readers are not
    /// disturbed. Costs as much as building the index anew; commits keep an index in good shape without it. A merge in the
    /// background is given up for it. [`Writer::compact_in_background`] does not wait.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub fn compact(&mut self) -> Result<u64> {
        self.compact_watched(&mut |_, _| ControlFlow::Continue(()))
    }

    /// As [`Writer::compact`], with progress and a way to stop, as in [`Writer::commit_watched`].
    ///
    /// # Errors
    /// As [`Writer::commit`], and [`Error::Cancelled`].
    pub fn compact_watched(&mut self, watch: &mut dyn FnMut(u64, u64) -> ControlFlow<()>) -> Result<u64> {
        self.usable()?;
        self.merging = None;
        if let Some(background) = &mut self.background {
            background.failed = None;
        }
        self.commit_changes()?;
        if self.worth_compacting() {
            let all: Vec<usize> = (0..self.parts.len()).collect();
            self.merge(&all, false, watch)?;
        }
        Ok(self.data.generation)
    }

    /// Commits, waits for the merge in the background if there is one, and commits that. Returns the generation. A writer that is
    /// dropped instead gives the merge up, and what was not committed; the next writer merges what is due then.
    ///
    /// # Errors
    /// As [`Writer::commit`], whatever made a merge in the background fail, and [`Error::Cancelled`] if its watch broke it.
    pub fn close(mut self) -> Result<u64> {
        self.commit_watched(&mut |_, _| ControlFlow::Continue(()))
    }

    /// Vectors, changes since the last commit included.
    pub fn len(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.live())).sum::<u64>() + u64::from(self.pending.len())
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a vector has this key, changes since the last commit included.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a key table is damaged.
    pub fn contains(&self, key: Key) -> Result<bool> {
        if self.places.contains_key(&key) {
            return Ok(true);
        }
        for part in &self.parts {
            if part.find(key)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take_id(&mut self) -> u64 {
        let id = self.data.next_id;
        self.data.next_id += 1;
        id
    }

    /// What new small segments take over, so that a query is encoded once for all of them.
    fn centre(&self) -> Option<Inherited> {
        let largest = self.parts.iter().max_by_key(|part| part.live())?;
        (largest.live() >= self.fold.graph).then(|| Inherited::centre(largest))
    }

    /// Writes what is pending to a segment, together with small ones before it. The next commit will name it.
    fn flush(&mut self, sync: Sync) -> Result<()> {
        if self.pending.len() == 0 {
            return Ok(());
        }
        let taken = |part: &Part| self.merging.as_ref().is_some_and(|merging| merging.takes(part));
        let keep = self.parts.len() - self.fold.carry(&self.parts, self.pending.len(), taken);
        let merge = Merge::new(&self.parts[keep..]);
        let both = Both(&merge, &self.pending);
        let id = self.data.next_id;
        let centre = self.centre().filter(|_| both.len() < self.fold.graph);
        let composer = Composer {
            storage: &*self.storage,
            config: &self.data.config,
            kernels: self.kernels,
            samples: (&Samples::default(), 0),
        };
        let composed = composer.compose(id, &both, 0, centre, &mut |_, _| ControlFlow::Continue(()));
        let composed = composed.and_then(|(segment, mut file)| match sync {
            Sync::Now => file.sync().map(|()| (segment, None)),
            Sync::Later => {
                file.begin_sync();
                Ok((segment, Some((id, file))))
            }
        });
        self.take_id();
        match composed {
            Err(error) => {
                self.garbage.push(format::segment_name(id));
                self.clear_garbage();
                Err(error)
            }
            Ok((segment, unsynced)) => {
                self.unsynced.extend(unsynced);
                self.drop_parts(keep..self.parts.len());
                self.parts.push(Part { segment: Arc::new(segment), removed: Arc::default(), removed_id: 0 });
                self.pending.clear();
                self.places.clear();
                Ok(())
            }
        }
    }

    /// Takes parts out; their files go when a commit no longer names them.
    fn drop_parts(&mut self, range: std::ops::Range<usize>) {
        for part in self.parts.drain(range) {
            self.garbage.push(format::segment_name(part.segment.id));
        }
    }

    fn job(&mut self, places: &[usize], graft: bool) -> Result<Job> {
        Ok(Job {
            storage: Arc::clone(&self.storage),
            config: self.data.config.clone(),
            kernels: self.kernels,
            fold: self.fold,
            id: self.take_id(),
            parts: places.iter().map(|&at| self.parts[at].clone()).collect(),
            samples: self.samples()?,
            samples_id: self.samples_named.id,
            graft,
        })
    }

    /// Merges the parts at these places into one and commits that. Where `graft` is set and most of the vectors come from one graph,
    /// that graph is taken over.
    fn merge(&mut self, places: &[usize], graft: bool, watch: Watch<'_>) -> Result<()> {
        let job = self.job(places, graft)?;
        let merged = job.run(watch)?;
        self.place(&job, Ok(merged))?;
        self.commit_changes()
    }

    /// Puts what was merged in its place; the next commit will name it.
    fn place(&mut self, job: &Job, merged: Result<Option<Segment>>) -> Result<()> {
        let merged = merged?;
        // Not named until committed.
        self.garbage.push(format::segment_name(job.id));
        if let Err(error) = install(&mut self.parts, &job.parts, merged) {
            self.clear_garbage();
            return Err(error);
        }
        self.changed = true;
        Ok(())
    }

    fn commit_changes(&mut self) -> Result<()> {
        if self.changed {
            self.flush(Sync::Now)?;
            // Graphs need the memory now.
            self.pending = Pending::default();
            self.publish(self.parts.clone())?;
            self.committed = true;
        } else if !self.published {
            let settled = manifest::settle(&*self.storage);
            self.poisoned = settled.is_err();
            settled?;
            self.published = true;
        }
        Ok(())
    }

    /// Makes these parts the last commit.
    fn publish(&mut self, mut parts: Vec<Part>) -> Result<()> {
        parts.retain(|part| part.live() > 0);
        for part in parts.iter_mut().filter(|part| part.removed.count() > 0 && part.removed_id == 0) {
            part.removed_id = self.take_id();
            self.garbage.push(format::removed_name(part.removed_id));
            self.write_file(
                &format::removed_name(part.removed_id),
                &encode_removed(part.segment.count(), part.removed.words()),
            )?;
        }
        let samples = self.write_samples()?;
        let mut unsynced = std::mem::take(&mut self.unsynced);
        unsynced.retain(|(id, _)| parts.iter().any(|part| part.segment.id == *id));
        let synced = unsynced.into_iter().try_for_each(|(_, file)| file.sync());
        // Their vectors are nowhere else, and no later sync would tell whether they arrived.
        self.poisoned = synced.is_err();
        synced?;
        let data = ManifestData {
            config: self.data.config.clone(),
            generation: self.data.generation + 1,
            next_id: self.data.next_id,
            segments: parts.iter().map(Part::entry).collect(),
            samples,
        };
        if let Err(failed) = manifest::publish(&*self.storage, &data) {
            self.poisoned = failed.ambiguous;
            return Err(failed.error);
        }
        self.garbage.extend(files(&self.data.segments, self.data.samples));
        self.samples_named = data.samples;
        self.data = data;
        self.parts = parts;
        self.changed = false;
        self.published = true;
        self.clear_garbage();
        Ok(())
    }

    /// Writes and syncs a small file.
    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.storage.path(name);
        let mut file = self.storage.create(name).map_err(Error::io(&path, "create"))?;
        file.write_all(bytes).map_err(Error::io(&path, "write"))?;
        file.sync().map_err(Error::io(&path, "sync"))
    }

    /// Removes files that neither the last commit nor the next one names. Readers that have them mapped keep them; what the
    /// system will not remove now is swept by the next writer.
    fn clear_garbage(&mut self) {
        let next: Vec<_> = self.parts.iter().map(Part::entry).collect();
        let last = files(&self.data.segments, self.data.samples);
        let named: HashSet<String> = last.chain(files(&next, self.samples_named)).collect();
        let candidates: HashSet<String> = self.garbage.drain(..).collect();
        let (keep, gone): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|name| named.contains(name));
        self.garbage = keep;
        for name in gone {
            let _ = self.storage.remove(&name);
        }
    }
}

/// When a file is brought to the medium.
#[derive(Clone, Copy)]
enum Sync {
    /// Before anything else: a failure leaves its vectors where they were.
    Now,
    /// From now on, while more vectors come; the next commit waits for it.
    Later,
}

/// Names of the files of some segments, and of sample queries.
fn files(segments: &[SegmentEntry], samples: SamplesEntry) -> impl Iterator<Item = String> + '_ {
    let removed = segments.iter().filter(|s| s.removed_id != 0).map(|s| format::removed_name(s.removed_id));
    let samples = (samples.count > 0).then(|| format::samples_name(samples.id));
    segments.iter().map(|s| format::segment_name(s.id)).chain(removed).chain(samples)
}
