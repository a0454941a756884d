//! Query text to `Query`.
