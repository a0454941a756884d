//! Ctrl-C: the first one asks for a clean end, the second one ends at once.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Context;

const LISTENING: u8 = 0;
const ASKED: u8 = 1;
const OVER: u8 = 2;

/// Whether the user wants to stop. When the value is dropped, what has to end cleanly has ended, and Ctrl-C ends the program
/// at once again.
#[derive(Debug)]
pub(crate) struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    /// Listens from now on; once per process.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let state = Arc::new(AtomicU8::new(LISTENING));
        let seen = Arc::clone(&state);
        ctrlc::set_handler(move || {
            if seen.compare_exchange(LISTENING, ASKED, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                exit(130);
            }
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(Self(state))
    }

    /// Whether Ctrl-C was pressed.
    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst) == ASKED
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.0.store(OVER, Ordering::SeqCst);
    }
}
