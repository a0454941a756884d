//! Integration tests, one binary with a module per part.

mod builtin;
mod colours;
#[cfg(feature = "hub")]
mod hub;
mod image;
mod ingest;
mod layering;
mod query;
