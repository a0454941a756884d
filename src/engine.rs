//! The facade: opens catalog, index and encoder together and checks that they match.
//!
//! A library is a directory: `catalog.db` says what is known of each photo, `index-…` holds the vectors of one embedding space,
//! `lock` is held by whoever writes. The catalog is the truth: it names the space that answers, and the index may hold more
//! vectors than it has records, never fewer for long (an ingest makes up what is missing).

mod library;
mod picture;
mod status;
mod switch;

pub use library::Engine;
pub(crate) use library::Snapshot;
pub use status::{Root, Status, VerifyReport};
pub use switch::{Switch, SwitchReport};
