//! The HTTP service: libraries over the network, as clip-retrieval serves its indices, with an API and a page of our own.
//!
//! This is the one asynchronous room of the house. Connections live on an async runtime, because thousands of idle clients
//! must not cost threads; the work stays synchronous. What takes microseconds (a walk through the index) runs where the
//! request is; what takes longer (a tower, a decoder, a scan) goes to a pool that is as wide as the machine, so that a burst
//! of pictures makes others wait instead of filling the memory.
//!
//! Invariants:
//! - Nothing is served but what a library holds: an item is asked for by key, never by path, and its file must still be a
//!   picture below the folders of its library.
//! - A request never sees a half-made commit: it takes one `View` and keeps it to its end.
//! - What a client does wrong is answered 4xx with `{"message": …}`; a 5xx is a fault of ours or of the disk.

mod api;
mod body;
mod compute;
mod dedup;
mod failure;
mod fetch;
mod front;
mod guard;
mod json;
mod knn;
mod listen;
mod metrics;
mod options;
mod page;
mod picture;
mod router;
mod service;
mod stored;
mod thumbnails;
mod view;

pub use options::{Fetch, ServerOptions};
pub use service::{Library, Server};
