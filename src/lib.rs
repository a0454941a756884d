#![doc = include_str!("../README.md")]
// The catalog and the ingest know of collections whether or not somebody can read them here.
#![cfg_attr(not(feature = "collections"), allow(dead_code))]

#[cfg(feature = "collections")]
pub mod adapt;
mod catalog;
#[cfg(feature = "collections")]
pub mod collection;
#[cfg(feature = "collections")]
mod curate;
mod engine;
mod error;
#[cfg(feature = "collections")]
pub mod eval;
#[cfg(any(feature = "server", all(feature = "hub", feature = "collections")))]
mod fetch;
pub mod image;
mod ingest;
pub mod model;
pub mod query;
mod search;
#[cfg(feature = "server")]
pub mod server;

pub use catalog::{Key, Part as CollectionPart, Place, Record, Source, SourceKind};
#[cfg(feature = "collections")]
pub use curate::{Duplicates, Export, ExportFormat, Exported, Group, Pair, ScoreCaptions, Scored};
pub use engine::{Engine, Root, Status, Switch, SwitchReport, VerifyReport};
pub use error::{Error, Result};
#[cfg(feature = "collections")]
pub use ingest::{Collect, Download, Merge};
pub use ingest::{EmbedCaptions, Ingest, Progress, Report, Skipped};
pub use model::{EmbeddingSpace, Embeddings, Encode, Encoder, PixelBatch};
pub use query::{Bounds, Condition, Expression, Filter, Part, Query, Term};
pub use search::{Hit, Ranking, Search};
pub use tintype_index as index;
