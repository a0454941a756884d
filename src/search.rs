//! Query to vector to neighbours to hits.
//!
//! The filter is asked first and its answer, a set of keys, goes into the search of the index. Filtering the neighbours
//! afterwards would return too few photos, or none, whenever the filter is narrow.

mod ask;
mod fuse;
mod request;

pub use request::{Hit, Ranking, Search};
