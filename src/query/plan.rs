//! `Query` to a vector and a predicate.
