//! Integration tests, one binary with a module per part.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail where they are surprised, and say what they skip"
)]

#[cfg(feature = "collections")]
mod adapt;
mod builtin;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "collections")]
mod collections;
mod colours;
mod encoders;
#[cfg(feature = "collections")]
mod eval;
#[cfg(feature = "hub")]
mod hub;
mod image;
mod ingest;
mod layering;
mod model;
mod photos;
mod query;
mod search;
#[cfg(feature = "server")]
mod serve;
