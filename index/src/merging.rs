//! A merge of parts into one segment: in the foreground, or on a thread beside a writer that goes on.
//!
//! A merge reads parts as they were when it began and writes one new file that no manifest names yet; it needs nothing of the
//! writer and takes nothing from it. What the writer removes or replaces meanwhile is removed from the new segment when it takes
//! the parts' place ([`install`]). The thread never commits: one that did would need the writer's state under a lock, and a
//! commit of a few milliseconds would have to wait for it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::build::Watch;
use crate::compose::{Composer, Inherited, Merge, Source, TICK};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::fold::{self, Fold};
use crate::format;
use crate::kernel::Kernels;
use crate::samples::Samples;
use crate::segment::{Part, Removed, Segment};
use crate::storage::Storage;
use crate::vectors::Shape;

/// Told how many vectors of a graph are in and how many there will be, on the merging thread; may break.
pub(crate) type Told = Arc<Mutex<dyn FnMut(u64, u64) -> ControlFlow<()> + Send>>;

/// Everything that a merge needs.
pub(crate) struct Job {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) config: Config,
    pub(crate) kernels: Kernels,
    pub(crate) fold: Fold,
    /// Number of the new file.
    pub(crate) id: u64,
    /// What is merged, as it was when the merge began.
    pub(crate) parts: Vec<Part>,
    /// What shapes the graph, and the number of its file.
    pub(crate) samples: Arc<Samples>,
    pub(crate) samples_id: u64,
    /// Take over the graph that has most of the vectors, if there is such a one.
    pub(crate) graft: bool,
}

impl Job {
    /// Writes and syncs the new segment; `None` if nothing is live. A failed one leaves nothing behind.
    pub(crate) fn run(&self, watch: Watch<'_>) -> Result<Option<Segment>> {
        let mut parts = self.parts.clone();
        let stock = if self.graft { fold::stock(&parts) } else { None };
        if let Some(stock) = stock {
            parts.swap(0, stock);
        }
        let source = Merge::new(&parts);
        if source.len() == 0 {
            return Ok(None);
        }
        let room = Shape::filled(self.config.dim, self.config.links).links;
        let links = if source.len() >= self.fold.graph { room } else { 0 };
        let inherited = if stock.is_some() && links > 0 {
            Some(Inherited { graft: source.graft()?, ..Inherited::centre(&parts[0]) })
        } else {
            None
        };
        let composer = Composer {
            storage: &*self.storage,
            config: &self.config,
            kernels: self.kernels,
            samples: (&self.samples, self.samples_id),
        };
        let composed = composer.compose(self.id, &source, links, inherited, watch);
        let composed = composed.and_then(|(segment, file)| file.sync().map(|()| segment));
        if composed.is_err() {
            let _ = self.storage.remove(&format::segment_name(self.id));
        }
        composed.map(Some)
    }

    /// Merges on a thread of its own.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no thread to be had.
    pub(crate) fn start(self, told: Option<Told>) -> Result<Merging> {
        let job = Arc::new(self);
        let control = Arc::new(Control::default());
        let (send, done) = channel();
        let thread = {
            let (job, control) = (Arc::clone(&job), Arc::clone(&control));
            move || {
                let outcome = job.run(&mut |done, total| control.tell(done, total, told.as_ref()));
                // The receiver goes first only where nobody wants the outcome.
                let _ = send.send(outcome);
            }
        };
        let path = job.storage.path("");
        let thread = std::thread::Builder::new().name("tintype-merge".into()).spawn(thread);
        let thread = Some(thread.map_err(Error::io(path, "start a thread"))?);
        Ok(Merging { job, control, done, outcome: None, thread })
    }
}

/// What the writer and the merging thread tell each other.
#[derive(Default)]
struct Control {
    stop: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
}

impl Control {
    fn tell(&self, done: u64, total: u64, told: Option<&Told>) -> ControlFlow<()> {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        if self.stop.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        told.map_or(ControlFlow::Continue(()), |told| {
            (told.lock().unwrap_or_else(PoisonError::into_inner))(done, total)
        })
    }
}

/// A merge under way. Dropped, it is given up: its thread is waited for, which takes a batch of a build at most, or a block of rows
/// that are encoded or written, or a few queries that its graph is measured with; and its file goes.
pub(crate) struct Merging {
    pub(crate) job: Arc<Job>,
    control: Arc<Control>,
    done: Receiver<Result<Option<Segment>>>,
    outcome: Option<Result<Option<Segment>>>,
    thread: Option<JoinHandle<()>>,
}

impl Merging {
    /// Whether a part is being merged.
    pub(crate) fn takes(&self, part: &Part) -> bool {
        self.job.parts.iter().any(|taken| taken.segment.id == part.segment.id)
    }

    /// Vectors of the graph that are in, and how many there will be; zeros before it is begun.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.control.done.load(Ordering::Relaxed), self.control.total.load(Ordering::Relaxed))
    }

    /// Whether the outcome is there. Never waits.
    pub(crate) fn is_over(&mut self) -> bool {
        if self.outcome.is_none() {
            self.outcome = match self.done.try_recv() {
                Ok(outcome) => Some(outcome),
                Err(std::sync::mpsc::TryRecvError::Empty) => None,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => Some(Err(self.panicked())),
            };
        }
        self.outcome.is_some()
    }

    /// Waits for the outcome, telling `watch` meanwhile, and gives the job back with it. If `watch` breaks, the merge is given up.
    pub(crate) fn wait(mut self, watch: Watch<'_>) -> (Arc<Job>, Result<Option<Segment>>) {
        let outcome = loop {
            if let Some(outcome) = self.outcome.take() {
                break outcome;
            }
            match self.done.recv_timeout(TICK) {
                Ok(outcome) => break outcome,
                Err(RecvTimeoutError::Timeout) => {
                    let (done, total) = self.progress();
                    if watch(done, total).is_break() {
                        self.control.stop.store(true, Ordering::Relaxed);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break Err(self.panicked()),
            }
        };
        (Arc::clone(&self.job), outcome)
    }

    fn panicked(&self) -> Error {
        let source = std::io::Error::other("the merging thread panicked");
        Error::io(self.job.storage.path(&format::segment_name(self.job.id)), "merge into")(source)
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic is the outcome that nobody received.
            let _ = thread.join();
        }
        if self.outcome.is_some() || self.done.try_recv().is_ok_and(|outcome| outcome.is_ok()) {
            // Written, and wanted by nobody.
            let _ = self.job.storage.remove(&format::segment_name(self.job.id));
        }
    }
}

/// Puts a merged segment in the place of its parts. What was removed from them since the merge began is removed from it.
///
/// # Errors
/// [`Error::Corrupt`] if a key cannot be read; `parts` is as it was then.
pub(crate) fn install(parts: &mut Vec<Part>, merged: &[Part], segment: Option<Segment>) -> Result<()> {
    let mut removed = Removed::default();
    if let Some(segment) = &segment {
        for then in merged {
            let now = parts.iter().find(|now| now.segment.id == then.segment.id);
            if now.is_some_and(|now| Arc::ptr_eq(&now.removed, &then.removed)) {
                continue;
            }
            // A part that is gone lost all that it had.
            let rows = 0..then.segment.count();
            let lost =
                rows.filter(|&row| !then.removed.contains(row) && now.is_none_or(|now| now.removed.contains(row)));
            for row in lost {
                if let Some(row) = segment.find(then.segment.key(row)?)? {
                    removed.insert(row, segment.count());
                }
            }
        }
    }
    let is_merged = |part: &Part| merged.iter().any(|merged| merged.segment.id == part.segment.id);
    let at = parts.iter().position(is_merged).unwrap_or(0);
    parts.retain(|part| !is_merged(part));
    if let Some(segment) = segment {
        // Before the younger parts, of which some may be small and wait for more.
        let part = Part { segment: Arc::new(segment), removed: Arc::new(removed), removed_id: 0 };
        parts.insert(at.min(parts.len()), part);
    }
    Ok(())
}
