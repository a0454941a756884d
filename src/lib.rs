#![doc = include_str!("../README.md")]

mod catalog;
mod engine;
mod error;
pub mod image;
mod ingest;
pub mod model;
pub mod query;
mod search;
#[cfg(feature = "server")]
pub mod server;

pub use catalog::{Key, Place, Record, Source, SourceKind};
pub use engine::{Engine, Root, Status, Switch, SwitchReport, VerifyReport};
pub use error::{Error, Result};
pub use ingest::{Ingest, Progress, Report, Skipped};
pub use model::{EmbeddingSpace, Embeddings, Encode, Encoder, PixelBatch};
pub use query::{Bounds, Condition, Expression, Filter, Part, Query, Term};
pub use search::{Hit, Ranking, Search};
pub use tintype_index as index;
