//! Files to records and vectors.
//!
//! ```text
//! walk ─paths─► compare ─changes─► read, hash, decode, resize ─pixels─► encode ─vectors─► write
//! 1 thread      (unchanged stop)   N threads                  bounded   2 threads         the caller's thread
//! ```
//! Errors travel right, as items; back-pressure is the only thing that travels left. A photo that cannot be read is a line in
//! the report, never the end of a run.
//!
//! Each commit is one of the index and then one of the catalog, every few seconds: whatever ends the process loses what came
//! after the last commit, and nothing else. The next run finds those files new and takes them in.
//!
//! Memory is bounded, whatever the photos: file bytes being read by [`budget::FILE_BYTES`] and what decoders make of them by
//! [`budget::DECODED_BYTES`] over all threads together, 576 MiB in all, beside the encoder's own and about 80 bytes per file that
//! the library knows. A single photo may exceed either; it then waits until it is alone, and takes what it needs, at most what
//! its largest number of pixels is worth.

mod absent;
mod budget;
mod captions;
#[cfg(feature = "collections")]
mod collect;
mod collected;
mod diff;
#[cfg(feature = "collections")]
mod embeddings;
mod given;
#[cfg(feature = "collections")]
mod members;
mod memory;
#[cfg(feature = "collections")]
mod merge;
mod pipeline;
mod request;
pub(crate) mod samples;
mod walk;
mod watch;
mod writer;

pub use captions::EmbedCaptions;
#[cfg(feature = "collections")]
pub use collect::{Collect, Download};
pub(crate) use given::Given;
#[cfg(feature = "collections")]
pub(crate) use members::unpack;
#[cfg(feature = "collections")]
pub use merge::Merge;
pub(crate) use pipeline::{Candidate, Event, Feed, Stages, Stopped};
pub use request::{Ingest, Progress, Report, Skipped};
pub(crate) use request::{Target, default_threads};
pub(crate) use watch::{Watch, watched};
pub(crate) use writer::{Pace, TICK, commit_index};
