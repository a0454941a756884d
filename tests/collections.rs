//! Collections: shards, lists and embeddings, as others make them and as they arrive damaged.

mod crash;
mod embeddings;
mod lists;
mod out;
mod parts;
mod shards;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tintype::{Encode, Encoder, Engine, Report};

use crate::colours::Colours;

/// A folder, a library beside it, and an encoder that needs no model.
pub(crate) struct Place {
    root: tempfile::TempDir,
    pub(crate) encoder: Arc<Colours>,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { root: tempfile::tempdir().unwrap(), encoder: Arc::new(Colours::new("colours")) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn engine(&self) -> Engine {
        self.library("library")
    }

    pub(crate) fn library(&self, name: &str) -> Engine {
        Engine::open_or_create(self.path(name), Arc::clone(&self.encoder) as Arc<dyn Encode>).unwrap()
    }
}

/// A picture that looks like no other with another seed.
pub(crate) fn picture(seed: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    crate::ingest::photos::write_picture(&path, seed);
    std::fs::read(path).unwrap()
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/collections").join(name)
}

/// The lines of a report, without the folder.
pub(crate) fn lines(report: &Report, place: &Place) -> Vec<String> {
    let folder = format!("{}/", place.path("").display().to_string().trim_end_matches('/'));
    let line = |skipped: &tintype::Skipped| skipped.error.to_string().replace(&folder, "");
    let mut lines: Vec<String> = report.skipped.iter().map(line).collect();
    lines.sort();
    lines
}

/// A library of embeddings.
pub(crate) fn declared(place: &Place, dim: usize) -> Engine {
    declared_as(place, "vectors", dim)
}

/// The same under a name.
pub(crate) fn declared_as(place: &Place, name: &str, dim: usize) -> Engine {
    let space = tintype::EmbeddingSpace::declared("somebody's", dim);
    Engine::open_or_create(place.path(name), Encoder::declared(space)).unwrap()
}
