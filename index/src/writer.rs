//! The one that changes an index.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::Key;
use crate::build::Watch;
use crate::compose::{Composer, Inherited, Merge, Pending, Source};
use crate::error::{Error, Result};
use crate::fold;
use crate::format::{self, ManifestData, SegmentEntry, encode_removed};
use crate::kernel::Kernels;
use crate::manifest;
use crate::segment::Part;
use crate::storage::{LOCK, Lock, Storage};
use crate::vectors::Shape;

/// Bytes of added vectors that are held in memory; more go to a file that the next commit names.
const HELD: usize = 64 << 20;

/// Changes an index: adds, replaces and removes vectors, and makes the changes durable at [`Writer::commit`]. Holds the writer
/// lock until dropped; what was not committed is dropped with it.
pub struct Writer {
    storage: Arc<dyn Storage>,
    _lock: Box<dyn Lock>,
    kernels: Kernels,
    /// The last commit.
    data: ManifestData,
    /// What the next commit will be made of, but for `pending`.
    parts: Vec<Part>,
    pending: Pending,
    /// Where a key is in `pending`.
    places: HashMap<Key, u32>,
    changed: bool,
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
        manifest::sweep(&*storage, &data)?;
        Ok(Writer {
            storage,
            _lock: lock,
            kernels: Kernels::detect(),
            data,
            parts,
            pending: Pending::default(),
            places: HashMap::new(),
            changed: false,
            poisoned: false,
            garbage: Vec::new(),
        })
    }

    fn usable(&self) -> Result<()> {
        if self.poisoned { Err(Error::Poisoned { path: self.storage.path("") }) } else { Ok(()) }
    }

    /// Adds a vector; one that has the key already is replaced. Readers that are opened after the next commit see it. Added
    /// vectors are held in memory up to 64 MiB, then written to a file.
    ///
    /// # Errors
    /// [`Error::Dimension`], [`Error::NotFinite`], [`Error::ZeroVector`] (cosine only), [`Error::Poisoned`]: nothing is changed
    /// then. [`Error::Io`] if memory was full and the file could not be written: the vector is added nevertheless.
    pub fn add(&mut self, key: Key, vector: &[f32]) -> Result<()> {
        self.usable()?;
        let dim = self.data.config.dim;
        let vector = self.data.config.metric.admit(vector, dim)?;
        if let Some(&at) = self.places.get(&key) {
            self.pending.numbers[at as usize * dim..][..dim].copy_from_slice(&vector);
            return Ok(());
        }
        self.remove_from_parts(key)?;
        self.places.insert(key, self.pending.len());
        self.pending.keys.push(key);
        self.pending.numbers.extend_from_slice(&vector);
        self.changed = true;
        if self.pending.numbers.len() * 4 >= HELD {
            self.flush()?;
        }
        Ok(())
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

    /// Makes every change since the last commit durable and visible to new readers, all at once: when it returns, the changes
    /// are on disk. Returns the generation; without changes, the one that stands.
    ///
    /// A commit costs a few syncs and the bytes that were added, with a share of earlier small commits. Where enough vectors
    /// have come together it then builds a graph over them, as a commit of its own.
    ///
    /// # Errors
    /// [`Error::Io`]: an earlier commit stays whole, the changes are kept, and the commit may be tried again. Where it is not
    /// known whether the new state or the old one is on disk, the writer refuses everything from then on with
    /// [`Error::Poisoned`].
    pub fn commit(&mut self) -> Result<u64> {
        self.commit_watched(&mut |_, _| ControlFlow::Continue(()))
    }

    /// As [`Writer::commit`], telling `watch` how many vectors of a graph are in and how many there will be. If it breaks, the
    /// commit stands, without the graph.
    ///
    /// # Errors
    /// As [`Writer::commit`], and [`Error::Cancelled`].
    pub fn commit_watched(&mut self, watch: &mut dyn FnMut(u64, u64) -> ControlFlow<()>) -> Result<u64> {
        self.usable()?;
        if self.changed {
            self.flush()?;
            self.publish(self.parts.clone())?;
            let due = fold::due(&self.parts);
            if !due.is_empty() {
                self.merge(&due, true, watch)?;
            }
        }
        Ok(self.data.generation)
    }

    /// Commits, then merges everything into one segment with a new graph and drops removed vectors from disk. Readers are not
    /// disturbed. Costs as much as building the index anew; commits keep an index in good shape without it.
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
        if self.changed {
            self.flush()?;
            self.publish(self.parts.clone())?;
        }
        let all: Vec<usize> = (0..self.parts.len()).collect();
        let compact = |part: &Part| {
            part.removed.count() == 0 && part.segment.has_graph() == (part.segment.count() >= fold::GRAPH)
        };
        if self.parts.len() > 1 || self.parts.iter().any(|part| !compact(part)) {
            self.merge(&all, false, watch)?;
        }
        Ok(self.data.generation)
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
        (largest.live() >= fold::GRAPH).then(|| Inherited::centre(largest))
    }

    /// Writes what is pending to a segment, together with small ones before it. The next commit will name it.
    fn flush(&mut self) -> Result<()> {
        if self.pending.len() == 0 {
            return Ok(());
        }
        let keep = self.parts.len() - fold::carry(&self.parts, self.pending.len());
        let merge = Merge::new(&self.parts[keep..]);
        let both = Both(&merge, &self.pending);
        let id = self.data.next_id;
        let centre = self.centre().filter(|_| both.len() < fold::GRAPH);
        let composer = Composer { storage: &*self.storage, config: &self.data.config, kernels: self.kernels };
        let composed = composer.compose(id, &both, 0, centre, &mut |_, _| ControlFlow::Continue(()));
        self.take_id();
        match composed {
            Err(error) => {
                self.garbage.push(format::segment_name(id));
                self.clear_garbage();
                Err(error)
            }
            Ok(segment) => {
                self.drop_parts(keep..self.parts.len());
                self.parts.push(Part { segment: Arc::new(segment), removed: Arc::default(), removed_id: 0 });
                self.pending = Pending::default();
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

    /// Merges the parts at these places into one and commits that. Where `graft` is set and most of the vectors come from one graph,
    /// that graph is taken over.
    fn merge(&mut self, places: &[usize], graft: bool, watch: Watch<'_>) -> Result<()> {
        let mut merged: Vec<Part> = places.iter().map(|&at| self.parts[at].clone()).collect();
        let stock = if graft { fold::stock(&merged) } else { None };
        if let Some(stock) = stock {
            merged.swap(0, stock);
        }
        let mut parts = self.parts.clone();
        let mut at = 0;
        parts.retain(|_| {
            at += 1;
            !places.contains(&(at - 1))
        });
        let source = Merge::new(&merged);
        if source.len() > 0 {
            let room = Shape::filled(self.data.config.dim, self.data.config.links).links;
            let links = if source.len() >= fold::GRAPH { room } else { 0 };
            let id = self.take_id();
            let composer = Composer { storage: &*self.storage, config: &self.data.config, kernels: self.kernels };
            let inherited = if stock.is_some() && links > 0 {
                Some(Inherited { graft: source.graft()?, ..Inherited::centre(&merged[0]) })
            } else {
                None
            };
            let composed = composer.compose(id, &source, links, inherited, watch);
            // Not named until published.
            self.garbage.push(format::segment_name(id));
            let segment = match composed {
                Ok(segment) => segment,
                Err(error) => {
                    self.clear_garbage();
                    return Err(error);
                }
            };
            // Before the younger parts, of which some may be small and wait for more.
            parts.insert(
                places[0].min(parts.len()),
                Part { segment: Arc::new(segment), removed: Arc::default(), removed_id: 0 },
            );
        }
        self.publish(parts)
    }

    /// Makes these parts the last commit.
    fn publish(&mut self, mut parts: Vec<Part>) -> Result<()> {
        parts.retain(|part| part.live() > 0);
        for part in parts.iter_mut().filter(|part| part.removed.count() > 0 && part.removed_id == 0) {
            part.removed_id = self.take_id();
            self.garbage.push(format::removed_name(part.removed_id));
            self.write_removed(part)?;
        }
        let data = ManifestData {
            config: self.data.config.clone(),
            generation: self.data.generation + 1,
            next_id: self.data.next_id,
            segments: parts.iter().map(Part::entry).collect(),
        };
        if let Err(failed) = manifest::publish(&*self.storage, &data) {
            self.poisoned = failed.ambiguous;
            return Err(failed.error);
        }
        self.garbage.extend(files(&self.data.segments));
        self.data = data;
        self.parts = parts;
        self.changed = false;
        self.clear_garbage();
        Ok(())
    }

    fn write_removed(&self, part: &Part) -> Result<()> {
        let name = format::removed_name(part.removed_id);
        let path = self.storage.path(&name);
        let mut file = self.storage.create(&name).map_err(Error::io(&path, "create"))?;
        let bytes = encode_removed(part.segment.count(), part.removed.words());
        file.write_all(&bytes).map_err(Error::io(&path, "write"))?;
        file.sync().map_err(Error::io(&path, "sync"))
    }

    /// Removes files that neither the last commit nor the next one names. Readers that have them mapped keep them; what the
    /// system will not remove now is swept by the next writer.
    fn clear_garbage(&mut self) {
        let next: Vec<_> = self.parts.iter().map(Part::entry).collect();
        let named: HashSet<String> = files(&self.data.segments).chain(files(&next)).collect();
        let candidates: HashSet<String> = self.garbage.drain(..).collect();
        let (keep, gone): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|name| named.contains(name));
        self.garbage = keep;
        for name in gone {
            let _ = self.storage.remove(&name);
        }
    }
}

/// Names of the files of some segments.
fn files(segments: &[SegmentEntry]) -> impl Iterator<Item = String> + '_ {
    let removed = segments.iter().filter(|s| s.removed_id != 0).map(|s| format::removed_name(s.removed_id));
    segments.iter().map(|s| format::segment_name(s.id)).chain(removed)
}

/// One source after another.
struct Both<'a>(&'a dyn Source, &'a dyn Source);

impl Source for Both<'_> {
    fn len(&self) -> u32 {
        self.0.len() + self.1.len()
    }

    fn key(&self, at: u32) -> Result<Key> {
        if at < self.0.len() { self.0.key(at) } else { self.1.key(at - self.0.len()) }
    }

    fn vector(&self, at: u32, into: &mut Vec<f32>) -> Result<()> {
        if at < self.0.len() { self.0.vector(at, into) } else { self.1.vector(at - self.0.len(), into) }
    }
}
