//! A library as a request sees it: one commit, from beginning to end.
//!
//! A view holds what would otherwise be asked of the catalog for every request: which keys are live and how wide their
//! pictures are, three bytes per photo. A thread looks ten times a second whether the catalog has changed and puts a new view
//! in the place of the old one; requests never wait for that and never look themselves.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde_json::{Map, Value};
use tintype_index::{Neighbor, Reader};

use super::service::{Library, Reopen};
use crate::catalog::{Key, Live, Watch};
use crate::engine::Engine;
use crate::{Encode, Error, Record, Result};

/// One commit of a library.
pub(super) struct View {
    pub(super) engine: Arc<Engine>,
    pub(super) encoder: Arc<dyn Encode>,
    pub(super) index: Reader,
    /// Vectors of captions, where there are any.
    pub(super) captions: Option<Reader>,
    pub(super) live: Live,
    /// Whether every vector of the index is that of a live photo, as it is unless files are gone.
    whole: bool,
}

impl View {
    fn read(engine: Arc<Engine>) -> Result<View> {
        let (index, captions, encoder, live) = {
            let snapshot = engine.snapshot()?;
            (snapshot.index, snapshot.captions, snapshot.encoder, snapshot.catalog.live()?)
        };
        // A damaged key table is not this method's to report: searches through the filter will.
        let whole = index.len() == live.keys.len() as u64
            && index.keys().all(|key| key.is_ok_and(|key| live.keys.contains(key)));
        Ok(View { engine, encoder, index, captions, live, whole })
    }

    /// The live photos nearest to a vector of any length; scores are cosines.
    ///
    /// # Errors
    /// Those of the index: a vector of another dimension, without direction, or with a number that is none.
    pub(super) fn nearest(&self, query: &[f32], k: usize, recall: f32) -> Result<Vec<Neighbor>> {
        let search = self.index.search(query).k(k).recall(recall);
        let found = if self.whole { search.run() } else { search.filter(|key| self.live.keys.contains(key)).run() };
        Ok(found?)
    }

    /// The live photos whose captions are nearest to a vector of any length; none if no caption has a vector.
    ///
    /// # Errors
    /// As [`View::nearest`].
    pub(super) fn nearest_captions(&self, query: &[f32], k: usize, recall: f32) -> Result<Option<Vec<Neighbor>>> {
        let Some(captions) = &self.captions else { return Ok(None) };
        let search = captions.search(query).k(k).recall(recall).filter(|key| self.live.keys.contains(key));
        Ok(Some(search.run()?))
    }

    /// The records of keys, in their order; keys that are no live photo are left out.
    pub(super) fn records(&self, keys: &[Key]) -> Result<Vec<Record>> {
        self.engine.records(keys)
    }

    /// Records with what their collections say of them, column by column; in the order of the keys, without those that are no
    /// live photo.
    pub(super) fn described(&self, keys: &[Key]) -> Result<Vec<(Record, Map<String, Value>)>> {
        let records = self.records(keys)?;
        let keys: Vec<Key> = records.iter().map(|record| record.key).collect();
        let metadata = self.engine.metadata(&keys)?;
        Ok(records.into_iter().zip(metadata).collect())
    }
}

/// A library that is served.
pub(super) struct Served {
    pub(super) name: String,
    view: RwLock<Arc<View>>,
    watched: Mutex<Watched>,
    reopen: Option<Reopen>,
}

struct Watched {
    watch: Watch,
    seen: i64,
}

impl Served {
    /// Takes the first view.
    pub(super) fn new(library: Library) -> Result<Served> {
        let Library { name, engine, reopen } = library;
        let watch = engine.catalog().watch()?;
        // The number first: what is committed between the two is looked at once more.
        let seen = watch.version()?;
        let view = View::read(Arc::new(engine))?;
        Ok(Served { name, view: RwLock::new(Arc::new(view)), watched: Mutex::new(Watched { watch, seen }), reopen })
    }

    /// The newest commit that was seen.
    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a new view if the catalog has changed. After an error the old view stays and the next call tries again.
    ///
    /// # Errors
    /// Those of catalog, index and model.
    pub(super) fn refresh(&self) -> Result<bool> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let version = watched.watch.version()?;
        if version == watched.seen {
            return Ok(false);
        }
        let engine = Arc::clone(&self.view().engine);
        let view = match (View::read(engine), &self.reopen) {
            // Another process has switched the library to another model.
            (Err(Error::SpaceMismatch { .. }), Some(reopen)) => View::read(Arc::new(reopen()?))?,
            (view, _) => view?,
        };
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
        watched.seen = version;
        Ok(true)
    }
}
