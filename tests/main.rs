//! Integration tests, one binary with a module per part.

mod builtin;
#[cfg(feature = "cli")]
mod cli;
mod colours;
#[cfg(feature = "hub")]
mod hub;
mod image;
mod ingest;
mod layering;
mod model;
mod query;
mod search;
