//! What every request that writes may be told: whether to wait, whom to tell how it goes, and whom to ask whether to go on.

use std::time::Duration;

use super::Progress;
use crate::catalog::{Catalog, Writer};
use crate::{Error, Result};

/// The patience and the closures of a request.
pub(crate) struct Watch<'a> {
    /// Whether to wait while another process writes.
    pub(crate) wait: bool,
    pub(crate) progress: Box<dyn FnMut(&Progress) + 'a>,
    pub(crate) cancel: Box<dyn FnMut() -> bool + 'a>,
}

impl Watch<'_> {
    /// Stops whatever can wait.
    pub(crate) fn hurried() -> Self {
        Watch { cancel: Box::new(|| true), ..Watch::default() }
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
        Watch { wait: false, progress: Box::new(|_| {}), cancel: Box::new(|| false) }
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
