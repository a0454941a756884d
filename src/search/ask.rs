//! A query as one vector.

use std::path::{Path, PathBuf};

use crate::catalog::{Key, absolute};
use crate::engine::Snapshot;
use crate::image::{DecodeOptions, Photo};
use crate::model::{Encode, PixelBatch};
use crate::query::{Condition, Filter, Plan, Query, Stored, Target};
use crate::{Error, Result};

/// A query as one vector.
pub(super) struct Asked {
    /// Of length one.
    pub(super) direction: Vec<f32>,
    /// What the length was: cosines times this are scores.
    pub(super) length: f32,
    /// Photos of the library that the query itself names.
    pub(super) own: Vec<Key>,
}

pub(super) fn ask(query: &Query, snapshot: &Snapshot<'_>) -> Result<Asked> {
    let plan = Plan::new(query)?;
    let encoder = &*snapshot.encoder;
    let mut target = Target::new(encoder.space().dim);
    let mut own = Vec::new();
    if !plan.texts.is_empty() {
        let texts: Vec<&str> = plan.texts.iter().map(|(_, text)| *text).collect();
        for ((weight, text), vector) in plan.texts.iter().zip(encoder.encode_texts(&texts)?.rows()) {
            if vector.iter().all(|x| *x == 0.0) {
                return Err(mistake(format!("the model knows no word of \"{text}\"")));
            }
            target.add(*weight, vector)?;
        }
    }
    for (weight, path) in plan.files {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let vector = embed(encoder, &bytes)
            .map_err(|error| Error::QueryImage { path: path.to_path_buf(), source: Box::new(error) })?;
        target.add(weight, &vector)?;
        own.extend(snapshot.catalog.record(&absolute(path).map_err(Error::io(path))?)?.map(|record| record.key));
    }
    for (weight, bytes) in plan.pictures {
        target.add(weight, &embed(encoder, bytes)?)?;
    }
    for (weight, photo) in plan.stored {
        let key = match photo {
            Stored::Key(key) => key,
            Stored::Path(path) => find(snapshot, path)?,
        };
        let Some(vector) = snapshot.index.get(key)? else {
            return Err(mistake(format!("the library has no photo of the number {key}")));
        };
        target.add(weight, &vector)?;
        own.push(key);
    }
    for (weight, vector) in plan.vectors {
        target.add(weight, vector)?;
    }
    let (direction, length) = target.direction()?;
    Ok(Asked { direction, length, own })
}

/// The vector of a picture.
fn embed(encoder: &dyn Encode, bytes: &[u8]) -> Result<Vec<f32>> {
    let photo = Photo::decode_for(bytes, &DecodeOptions::default(), encoder.preprocess())?;
    let (height, width) = encoder.preprocess().size;
    let mut batch = PixelBatch::new(height, width);
    batch.push(&encoder.preprocess().apply(&photo)?);
    Ok(encoder.encode_images(&batch)?.as_slice().to_vec())
}

/// The one photo of the library at a path, or whose path ends so.
fn find(snapshot: &Snapshot<'_>, path: &Path) -> Result<Key> {
    if let Some(record) = snapshot.catalog.record(&absolute(path).map_err(Error::io(path))?)? {
        return Ok(record.key);
    }
    let pattern = globset::escape(&path.to_string_lossy());
    let found = snapshot.catalog.list(&Filter::new().and(Condition::Path(vec![pattern])), 0, 2)?;
    match found.as_slice() {
        [one] => Ok(one.key),
        [] => Err(mistake(format!("the library has no photo {}", path.display()))),
        [one, other, ..] => Err(mistake(format!(
            "several photos of the library are called {}: {}, {}; write more of the path",
            path.display(),
            one.path.display(),
            other.path.display()
        ))),
    }
}

/// Paths in the spelling that the catalog has.
pub(super) fn stored_paths(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    paths.iter().map(|path| absolute(path).map_err(Error::io(path))).collect()
}

pub(super) fn with_stored_paths(filter: Filter) -> Result<Filter> {
    fn one(condition: Condition) -> Result<Condition> {
        Ok(match condition {
            Condition::Under(paths) => Condition::Under(stored_paths(&paths)?),
            Condition::Not(inner) => Condition::Not(Box::new(one(*inner)?)),
            other => other,
        })
    }
    filter.into_iter().map(one).collect()
}

/// A mistake that has no place in the query text.
pub(super) fn mistake(message: String) -> Error {
    Error::BadQuery { message, span: 0..0 }
}
