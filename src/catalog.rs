//! The catalog: what is known of each photo besides its vector.
//!
//! One SQLite file, because this is the part that must not lose data: vectors can be computed again, but a library that
//! forgets what it holds has to be read from the disk again in full. Its own format would have needed a log, indexes and
//! transactions; SQLite has them tested, and people can look into the file with tools they have.
//!
//! Invariants:
//! - A key stands for one content at one path for ever. A file that changes gets a new key, so no index ever holds a vector
//!   that is stale for its key; a file that moves keeps its key.
//! - A photo whose file is gone keeps its row (`gone`) and its vector, and is never an answer.
//! - Keys are handed out in rising order and never twice.

mod clause;
mod copies;
mod describe;
#[cfg(feature = "server")]
mod facets;
mod features;
mod filter;
mod item;
mod key;
mod lock;
mod part;
mod path;
mod read;
mod record;
mod schema;
mod sources;
mod store;
#[cfg(feature = "server")]
mod watch;
mod words;
mod write;

pub(crate) use copies::{Copies, SIDE as COPY_SIDE, SMALL as SMALL_COPY};
#[cfg(feature = "server")]
pub(crate) use facets::{Facets, Live};
pub(crate) use features::KeptFeatures;
pub(crate) use item::{Item, Said, SourceFile, SourceState, Whereabouts};
pub use item::{Source, SourceKind};
pub use key::Key;
pub(crate) use key::Keys;
pub(crate) use lock::WriteLock;
pub use part::Part;
pub(crate) use path::{absolute, fingerprint, is_address};
pub(crate) use read::{Kind, Known, Reader, Whose};
pub(crate) use record::Hash;
pub use record::{Place, Record};
pub(crate) use schema::{CAPTIONS, Space, State};
pub(crate) use store::Catalog;
#[cfg(feature = "server")]
pub(crate) use watch::Watch;
pub(crate) use write::{Change, Writer};
