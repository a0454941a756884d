//! Merges beside a writer that goes on.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use super::Writer;
use crate::error::{Error, Result};
use crate::merging::Told;
use crate::segment::Part;

/// How merges beside the writer go.
pub(super) struct Background {
    pub(super) told: Told,
    /// Why one failed; no other is begun before somebody asked.
    pub(super) failed: Option<Error>,
}

impl Writer {
    /// From now on merges run on a thread of their own: [`Writer::commit`] begins one where it is due and never waits for it, and
    /// a later commit puts what has come of it in its place. `watch` is called on that thread with how many vectors of a graph are
    /// in and how many there will be; if it breaks, the merge is given up and a later commit begins it anew.
    ///
    /// What is not merged yet is found all the same, by scanning. When a merge ends depends on time, and so does then which
    /// vectors share a file; what is found at recall 1 does not. [`Writer::close`] waits for a merge under way, [`drop`] gives
    /// it up. Its graph is built on all cores, in rayon's global pool.
    pub fn merge_in_background(&mut self, watch: impl FnMut(u64, u64) -> ControlFlow<()> + Send + 'static) {
        self.background = Some(Background { told: Arc::new(Mutex::new(watch)), failed: None });
    }

    /// How far the merge in the background is: vectors of the graph that are in, and how many there will be, zeros before it is
    /// begun. `None` if there is no merge, or it has ended.
    pub fn merging(&mut self) -> Option<(u64, u64)> {
        let merging = self.merging.as_mut()?;
        (!merging.is_over()).then(|| merging.progress())
    }

    /// Commits, then begins to merge everything into one segment with a new graph and without removed vectors, as
    /// [`Writer::compact`] does, on a thread of its own: a later commit puts it in its place, [`Writer::close`] waits for it. What is
    /// added meanwhile stays beside it. A merge under way is given up for it, and later merges run in the background too, as after
    /// [`Writer::merge_in_background`]. `false` if there is nothing to be gained.
    ///
    /// # Errors
    /// As [`Writer::commit`], and [`Error::Io`] if there is no thread to be had.
    pub fn compact_in_background(&mut self) -> Result<bool> {
        self.usable()?;
        self.merging = None;
        if self.background.is_none() {
            self.merge_in_background(|_, _| ControlFlow::Continue(()));
        }
        self.commit_changes()?;
        let worth = self.worth_compacting();
        if worth && let Some(background) = &mut self.background {
            background.failed = None;
            let told = Arc::clone(&background.told);
            let all: Vec<usize> = (0..self.parts.len()).collect();
            self.merging = Some(self.job(&all, false)?.start(Some(told))?);
        }
        Ok(worth)
    }

    /// Whether there is more than one segment, or one that a merge of its own would make better.
    pub(super) fn worth_compacting(&self) -> bool {
        let graph = self.fold.graph;
        let compact = |part: &Part| {
            let segment = &part.segment;
            let shaped = !segment.has_graph() || segment.footer.samples == self.samples_named.id;
            part.removed.count() == 0 && segment.has_graph() == (segment.count() >= graph) && shaped
        };
        self.parts.len() > 1 || self.parts.iter().any(|part| !compact(part))
    }

    /// Begins a merge in the background if one is due, none is under way and none has failed.
    pub(super) fn merge_beside(&mut self) -> Result<()> {
        let Some(background) = self.background.as_ref().filter(|b| b.failed.is_none() && self.merging.is_none()) else {
            return Ok(());
        };
        let told = Arc::clone(&background.told);
        let due = self.fold.due(&self.parts);
        if !due.is_empty() {
            self.merging = Some(self.job(&due, true)?.start(Some(told))?);
        }
        Ok(())
    }

    /// Keeps why a merge in the background failed. One that was told to stop did not fail.
    pub(super) fn note(&mut self, error: Error) {
        if let (Some(background), false) = (&mut self.background, matches!(error, Error::Cancelled)) {
            background.failed = Some(error);
        }
    }
}
