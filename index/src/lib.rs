#![doc = include_str!("../README.md")]

mod build;
mod calibrate;
mod collect;
mod compose;
mod config;
mod encoding;
mod error;
mod fold;
mod format;
mod graft;
mod graph;
mod index;
mod kernel;
mod keys;
mod lanes;
mod manifest;
mod merging;
mod metric;
mod plan;
mod reader;
mod rotation;
mod samples;
mod sealed;
mod search;
mod segment;
pub mod storage;
#[cfg(test)]
mod tests;
mod vectors;
mod verify;
mod writer;

pub use collect::Neighbor;
pub use config::{Config, Rows};
pub use error::{Error, Result};
pub use index::Index;
pub use keys::KeySet;
pub use metric::Metric;
pub use reader::Reader;
pub use search::{Search, SearchBatch};
pub use verify::VerifyReport;
pub use writer::Writer;

/// Chosen by the caller; identifies a vector.
pub type Key = u64;
