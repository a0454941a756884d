//! What an index promises, tested from outside.

#![allow(clippy::unwrap_used, reason = "tests")]

mod background;
mod basics;
mod corruption;
mod crash;
mod graph;
mod limits;
mod real;
mod samples;
mod simulated;
mod support;
