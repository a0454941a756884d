//! A library that is open.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tintype_index::{Config, Index, KeySet, Metric};

use super::{Status, Switch, VerifyReport};
use crate::catalog::{CAPTIONS, Catalog, Copies, Hash, KeptFeatures, Key, Reader, Record, Space, WriteLock, absolute};
#[cfg(feature = "collections")]
use crate::ingest::{Collect, Merge};
use crate::ingest::{EmbedCaptions, Ingest, Target};
use crate::model::{EmbeddingSpace, Encode};
use crate::{Error, Result};

/// A library of photos: a directory that you ingest into and search.
///
/// Any number of processes may have a library open and search it; one at a time writes. All methods take `&self`, and an
/// `Engine` may be shared between threads.
pub struct Engine {
    dir: PathBuf,
    catalog: Catalog,
    current: RwLock<Arc<Current>>,
    /// Photos that may answer, as of a stamp of the catalog: what every search without a filter needs, and a pass over all rows.
    live: Mutex<Option<(i64, Arc<KeySet>)>>,
}

/// The embedding space that answers, and what belongs to it.
pub(super) struct Current {
    pub(super) space: Space,
    pub(super) index: Index,
    pub(super) encoder: Arc<dyn Encode>,
}

/// All that a search reads, as of one moment.
pub(crate) struct Snapshot<'a> {
    /// Records.
    pub(crate) catalog: Reader<'a>,
    /// Vectors: those of all records that have one, and perhaps of files that are gone or not recorded yet.
    pub(crate) index: tintype_index::Reader,
    /// Vectors of captions, where the library has any.
    pub(crate) captions: Option<tintype_index::Reader>,
    /// Makes vectors of the same space.
    pub(crate) encoder: Arc<dyn Encode>,
}

impl Engine {
    /// Makes an empty library in `dir`, which is created where it is missing, for the vectors of `encoder`.
    ///
    /// # Errors
    /// [`Error::LibraryExists`] if there is one, [`Error::Busy`] if another process is just making one, [`Error::Io`].
    pub fn create(dir: impl AsRef<Path>, encoder: impl Into<Arc<dyn Encode>>) -> Result<Engine> {
        let (dir, encoder) = (dir.as_ref(), encoder.into());
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let dir = absolute(dir).map_err(Error::io(dir))?;
        let _lock = WriteLock::take(&dir)?;
        if Catalog::exists(&dir) {
            return Err(Error::LibraryExists { path: dir });
        }
        let catalog = Catalog::create(&dir, encoder.space())?;
        Self::assemble(dir, catalog, encoder)
    }

    /// Opens the library in `dir` with the encoder that it was made with; [`Engine::space`] says which one that is. Reads a
    /// few kilobytes, whatever the size of the library.
    ///
    /// # Errors
    /// [`Error::NoLibrary`] if there is none, [`Error::SpaceMismatch`] if it was made with another model,
    /// [`Error::NewerCatalog`] and [`Error::DamagedCatalog`] if it cannot be read.
    pub fn open(dir: impl AsRef<Path>, encoder: impl Into<Arc<dyn Encode>>) -> Result<Engine> {
        let dir = absolute(dir.as_ref()).map_err(Error::io(&dir))?;
        let catalog = Catalog::open(&dir)?;
        Self::assemble(dir, catalog, encoder.into())
    }

    /// Opens the library in `dir`, or makes it.
    ///
    /// # Errors
    /// As [`Engine::open`] and [`Engine::create`].
    pub fn open_or_create(dir: impl AsRef<Path>, encoder: impl Into<Arc<dyn Encode>>) -> Result<Engine> {
        let (dir, encoder) = (dir.as_ref(), encoder.into());
        // Another process may be making it at this moment, which takes milliseconds.
        for _ in 0..100 {
            if Catalog::exists(dir) {
                return Self::open(dir, encoder);
            }
            match Self::create(dir, Arc::clone(&encoder)) {
                Err(Error::Busy { .. } | Error::LibraryExists { .. }) => std::thread::sleep(Duration::from_millis(20)),
                made => return made,
            }
        }
        Self::create(dir, encoder)
    }

    fn assemble(dir: PathBuf, catalog: Catalog, encoder: Arc<dyn Encode>) -> Result<Engine> {
        let space = catalog.current()?;
        comparable(&dir, &space.space, encoder.space())?;
        let index = open_index(&dir, &space)?;
        let current = RwLock::new(Arc::new(Current { space, index, encoder }));
        Ok(Engine { dir, catalog, current, live: Mutex::default() })
    }

    /// The model that the library in `dir` answers with, so that the right encoder can be loaded before opening.
    ///
    /// # Errors
    /// [`Error::NoLibrary`], [`Error::NewerCatalog`], [`Error::DamagedCatalog`].
    pub fn space(dir: impl AsRef<Path>) -> Result<EmbeddingSpace> {
        let dir = absolute(dir.as_ref()).map_err(Error::io(&dir))?;
        Ok(Catalog::open(&dir)?.current()?.space)
    }

    /// What the library in `dir` holds, without a model.
    ///
    /// # Errors
    /// [`Error::NoLibrary`], [`Error::NewerCatalog`], [`Error::DamagedCatalog`].
    pub fn inspect(dir: impl AsRef<Path>) -> Result<Status> {
        let dir = absolute(dir.as_ref()).map_err(Error::io(&dir))?;
        Status::of(&dir, &Catalog::open(&dir)?)
    }

    /// The library's directory, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The encoder in use.
    pub fn encoder(&self) -> Arc<dyn Encode> {
        Arc::clone(&self.current().encoder)
    }

    /// Takes in the photos at and below `paths`: a request; its `run` does it.
    ///
    /// ```no_run
    /// # fn example(engine: &tintype::Engine) -> tintype::Result<()> {
    /// let report = engine.ingest(["/home/me/Photos"]).exclude("*.tmp").on_progress(|p| eprintln!("{}", p.done)).run()?;
    /// for skipped in &report.skipped {
    ///     eprintln!("{}: {}", skipped.path.display(), skipped.error);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn ingest(&self, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Ingest<'_> {
        Ingest::new(self.target(), paths.into_iter().map(|path| path.as_ref().to_path_buf()).collect())
    }

    /// Takes in collections: shards, lists, embeddings, or folders of them; see [`detect`](crate::collection::detect). A request;
    /// its `run` does it.
    #[cfg(feature = "collections")]
    pub fn collect(&self, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Collect<'_> {
        Collect::new(self.target(), paths.into_iter().map(|path| path.as_ref().to_path_buf()).collect())
    }

    /// Takes in the libraries in `parts`, records and vectors, without embedding anything again. A request; its `run` does it.
    #[cfg(feature = "collections")]
    pub fn merge(&self, parts: impl IntoIterator<Item = impl AsRef<Path>>) -> Merge<'_> {
        Merge::new(self.target(), parts.into_iter().map(|path| path.as_ref().to_path_buf()).collect())
    }

    /// Gives a vector to each caption that has none: a request; its `run` does it. From then on searches can rank by captions.
    pub fn embed_captions(&self) -> EmbedCaptions<'_> {
        EmbedCaptions::new(self.target())
    }

    fn target(&self) -> Target<'_> {
        let current = self.current();
        Target {
            library: &self.dir,
            catalog: &self.catalog,
            space: current.space.id,
            index: current.index.clone(),
            captions: open_captions(&self.dir, &current.space).ok().flatten(),
            captions_dir: captions_dir(&self.dir, &current.space),
            encoder: Arc::clone(&current.encoder),
            // A library whose features cannot be opened takes photos in as before.
            features: KeptFeatures::of(&self.dir).ok().flatten(),
        }
    }

    /// From now on keeps what image towers have before their last map, in half precision, for photos that are taken in: an adapted
    /// model then needs no photo again. Costs two bytes per number (3.6 KB per photo for the built-in model).
    ///
    /// Photos that the library knows already are read once when the model is adapted, and kept then.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn keep_features(&self) -> Result<()> {
        KeptFeatures::keep(&self.dir).map(|_| ())
    }

    /// Of how many contents features are kept that the present model has.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn kept_features(&self) -> Result<u64> {
        match KeptFeatures::of(&self.dir)? {
            Some(kept) => kept.count(&self.current().encoder.features().fingerprint),
            None => Ok(0),
        }
    }

    /// Computes all vectors anew with another model, while the library answers with the present one: a request; its `run`
    /// does it.
    pub fn switch(&self, encoder: impl Into<Arc<dyn Encode>>) -> Switch<'_> {
        Switch::new(self, encoder.into())
    }

    /// Forgets all photos at and below `paths`, records and vectors, those included whose files are gone. The files
    /// themselves are not touched. Returns how many photos were forgotten.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process writes.
    pub fn remove(&self, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<u64> {
        let mut scope = Vec::new();
        for path in paths {
            scope.push(absolute(path.as_ref()).map_err(Error::io(path.as_ref()))?);
        }
        let current = self.current();
        let mut catalog = self.catalog.write()?;
        // Record first, vector second: the index may hold more than the catalog, never less.
        let dropped = catalog.remove(&scope)?;
        let indexes = [Some(current.index.clone()), open_captions(&self.dir, &current.space)?];
        for index in indexes.into_iter().flatten() {
            let mut index = index.writer()?;
            for key in dropped.iter() {
                index.remove(key)?;
            }
            index.commit()?;
        }
        let reader = self.catalog.read()?;
        Copies::of(&self.dir).retain(|hash| reader.has_content(hash))?;
        if let Some(features) = KeptFeatures::of(&self.dir)? {
            features.retain(|hash: &Hash| reader.has_content(&blake3::Hash::from(*hash).to_hex()))?;
        }
        Ok(dropped.len() as u64)
    }

    /// The record of the photo at `path`; none if the library does not know it or its file is gone.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn record(&self, path: impl AsRef<Path>) -> Result<Option<Record>> {
        let path = absolute(path.as_ref()).map_err(Error::io(path.as_ref()))?;
        self.catalog.read()?.record(&path)
    }

    /// The records of keys, in their order; keys without a photo are left out.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn records(&self, keys: &[Key]) -> Result<Vec<Record>> {
        self.catalog.read()?.records(keys)
    }

    /// What the library holds.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn status(&self) -> Result<Status> {
        Status::of(&self.dir, &self.catalog)
    }

    /// Reads every byte of the library and checks it. Damage is a line in the report, not an error.
    ///
    /// # Errors
    /// [`Error::Catalog`] and [`Error::Index`] if the files cannot be read at all.
    pub fn verify(&self) -> Result<VerifyReport> {
        VerifyReport::of(&self.snapshot()?, &self.dir)
    }

    /// All that a search reads, as of this moment.
    ///
    /// # Errors
    /// [`Error::SpaceMismatch`] if another process has switched the library to another model.
    pub(crate) fn snapshot(&self) -> Result<Snapshot<'_>> {
        let current = self.current();
        // The catalog first: every vector that its records speak of is in the index by then.
        let catalog = self.catalog.read()?;
        let space = catalog.current()?;
        comparable(&self.dir, &space.space, current.encoder.space())?;
        let index = if space.id == current.space.id { current.index.clone() } else { open_index(&self.dir, &space)? };
        let captions = match open_captions(&self.dir, &space)? {
            Some(index) => Some(index.reader()?),
            None => None,
        };
        Ok(Snapshot { index: index.reader()?, captions, catalog, encoder: Arc::clone(&current.encoder) })
    }

    /// Every photo that may answer.
    pub(crate) fn live(&self, reader: &Reader<'_>) -> Result<Arc<KeySet>> {
        let stamp = reader.stamp()?;
        let known = self.live.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, keys)) = known
            && at == stamp
        {
            return Ok(keys);
        }
        let keys = Arc::new(reader.keys(false)?.iter().collect());
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, Arc::clone(&keys)));
        Ok(keys)
    }

    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_current(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }
}

/// Whether vectors of two spaces can be compared.
fn comparable(library: &Path, found: &EmbeddingSpace, expected: &EmbeddingSpace) -> Result<()> {
    if expected.fits(found) {
        return Ok(());
    }
    let name = |space: &EmbeddingSpace| {
        let print: String = space.fingerprint.chars().take(8).collect();
        if found.model == expected.model { format!("{} ({print})", space.model) } else { space.model.clone() }
    };
    Err(Error::SpaceMismatch { path: library.to_path_buf(), found: name(found), expected: name(expected) })
}

/// Where the vectors of captions are, if there are any.
pub(super) fn captions_dir(library: &Path, space: &Space) -> PathBuf {
    library.join(format!("{}{CAPTIONS}", space.directory))
}

/// The index of captions; none if the library has none.
pub(super) fn open_captions(library: &Path, space: &Space) -> Result<Option<Index>> {
    match Index::open(captions_dir(library, space)) {
        Err(tintype_index::Error::NotFound { .. }) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

/// The index of a space. One that is not there is made: an ingest fills it again from the photos.
pub(super) fn open_index(library: &Path, space: &Space) -> Result<Index> {
    let dir = library.join(&space.directory);
    match Index::open(&dir) {
        Err(tintype_index::Error::NotFound { .. }) => {
            let config = Config { dim: space.space.dim, metric: Metric::Cosine, ..Config::default() };
            match Index::create(&dir, config) {
                Err(tintype_index::Error::Exists { .. }) => Ok(Index::open(&dir)?),
                made => Ok(made?),
            }
        }
        opened => Ok(opened?),
    }
}
