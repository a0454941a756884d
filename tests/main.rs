//! Integration tests, one binary with a module per part.

mod builtin;
#[cfg(feature = "hub")]
mod hub;
mod image;
mod layering;
mod query;
