//! Integration tests, one binary with a module per part.

mod builtin;
mod layering;
