//! The pool for work that takes longer than a turn of the event loop.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::failure::Failure;

/// As many jobs at a time as the machine has cores; more wait in order of arrival.
#[derive(Clone, Debug)]
pub(super) struct Compute {
    free: Arc<Semaphore>,
}

impl Compute {
    /// A pool of so many jobs at a time.
    pub(super) fn new(width: usize) -> Self {
        Compute { free: Arc::new(Semaphore::new(width.max(1))) }
    }

    /// Does the work on a thread where it may block. A job whose client has gone is finished, but one that has not begun
    /// by then is not begun.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let permit =
            Arc::clone(&self.free).acquire_owned().await.map_err(|error| Failure::internal(error.to_string()))?;
        let job = tokio::task::spawn_blocking(move || {
            // Given back when the work is over, whoever still waits for it.
            let _permit = permit;
            work()
        });
        job.await.map_err(|error| Failure::internal(error.to_string()))?
    }
}
