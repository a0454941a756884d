//! What every request that writes may be told: whether to wait, whom to tell how it goes, and whom to ask whether to go on.

use std::time::Duration;

use super::Progress;
use super::memory::Memory;
use crate::catalog::{Catalog, Writer};
use crate::{Error, Result};

/// The patience and the closures of a request.
pub(crate) struct Watch<'a> {
    /// Whether to wait while another process writes.
    pub(crate) wait: bool,
    /// Bytes that indexes may take; none: half of what is free.
    pub(crate) memory: Option<u64>,
    pub(crate) progress: Box<dyn FnMut(&Progress) + 'a>,
    pub(crate) cancel: Box<dyn FnMut() -> bool + 'a>,
}

impl Watch<'_> {
    /// Stops whatever can wait.
    pub(crate) fn hurried() -> Self {
        Watch { cancel: Box::new(|| true), ..Watch::default() }
    }

    /// How much the run may hold.
    pub(super) fn memory(&self) -> Memory {
        Memory::new(self.memory)
    }

    /// Bounds what an index that is written alone holds.
    pub(crate) fn bound(&self, index: &mut tintype_index::Writer) {
        self.memory().bound(index, 1);
    }

    /// The writing side of a catalog, if need be when another process is done.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process writes and the request does not wait, [`Error::Cancelled`].
    pub(crate) fn writer<'c>(&mut self, catalog: &'c Catalog) -> Result<Writer<'c>> {
        loop {
            match catalog.write() {
                Err(Error::Busy { .. }) if self.wait => {
                    if (self.cancel)() {
                        return Err(Error::Cancelled);
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                writer => return writer,
            }
        }
    }
}

impl Default for Watch<'_> {
    fn default() -> Self {
        Watch { wait: false, memory: None, progress: Box::new(|_| {}), cancel: Box::new(|| false) }
    }
}

/// The setters of a request that has a `watch`.
macro_rules! watched {
    ($request:ident) => {
        impl<'a> $request<'a> {
            /// Waits while another process writes to the library, instead of returning [`Error::Busy`](crate::Error::Busy).
            pub fn wait(mut self, yes: bool) -> Self {
                self.watch.wait = yes;
                self
            }

            /// Bytes of memory that may be held for the index while it is written and its graphs are built, some 1,130 per vector of
            /// 512 numbers. Half of what is free by default, where the system says how much that is. With less there are several
            /// graphs instead of one, which are searched one after the other. Less than 64 MiB is taken for so much.
            pub fn memory(mut self, bytes: u64) -> Self {
                self.watch.memory = Some(bytes);
                self
            }

            /// Calls `progress` about ten times a second, on the thread that called `run`, and once at the end.
            pub fn on_progress(mut self, progress: impl FnMut(&$crate::Progress) + 'a) -> Self {
                self.watch.progress = Box::new(progress);
                self
            }

            /// Asks `cancel` about ten times a second, on the thread that called `run`; `true` ends the run.
            pub fn cancel(mut self, cancel: impl FnMut() -> bool + 'a) -> Self {
                self.watch.cancel = Box::new(cancel);
                self
            }
        }
    };
}

pub(crate) use watched;
