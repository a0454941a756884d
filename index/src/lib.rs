//! Embedded vector index: vectors in a directory, nearest neighbours out of it.
//!
//! ```
//! use tintype_index::{Config, Index, Metric};
//!
//! # fn main() -> tintype_index::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path().join("vectors");
//! let index = Index::create(&dir, Config { dim: 3, metric: Metric::Cosine, ..Config::default() })?;
//! let mut writer = index.writer()?;
//! writer.add(7, &[0.9, 0.1, 0.0])?;
//! writer.add(8, &[0.0, 0.2, 0.8])?;
//! writer.commit()?; // on disk when it returns
//!
//! let reader = index.reader()?; // a snapshot of the last commit
//! let near = reader.search(&[1.0, 0.0, 0.0]).k(1).run()?;
//! assert_eq!(near[0].key, 7);
//! # Ok(())
//! # }
//! ```

mod build;
mod calibrate;
mod collect;
mod compose;
mod config;
mod encoding;
mod error;
mod fold;
mod format;
mod graph;
mod index;
mod kernel;
mod manifest;
mod metric;
mod plan;
mod reader;
mod sealed;
mod search;
mod segment;
pub mod storage;
mod vectors;
mod verify;
mod writer;

pub use config::{Config, Rows};
pub use error::{Error, Result};
pub use index::Index;
pub use metric::Metric;
pub use reader::Reader;
pub use search::{Neighbor, Search, SearchBatch};
pub use verify::VerifyReport;
pub use writer::Writer;

/// Chosen by the caller; identifies a vector.
pub type Key = u64;
