//! Texts that tell an index of pictures what will be asked, before its first graph is built.

use tintype_index::{Index, Reader};

use super::Watch;
use crate::model::Encode;
use crate::{Error, Result};

/// An index of fewer vectors has no graph, so nothing for texts to shape.
pub(crate) const FROM: u64 = 4_096;
/// Texts that are taken: [`PHRASES`] are as many, near enough.
const TEXTS: usize = 600;
/// Texts per call of the encoder.
const BATCH: usize = 16;
/// What people have pictures of and look for, for libraries without captions.
const PHRASES: &str = include_str!("sample-queries.txt");

/// Gives an index of pictures its sample queries, unless it has some: vectors of captions evenly over all that there are, or where
/// these are few, phrases. A model that does not read leaves it without, and so does `cancel`; another run does it then. For an index
/// that has [`FROM`] vectors or will have them.
pub(crate) fn sample(
    index: &mut tintype_index::Writer,
    captions: Option<&Index>,
    encoder: &dyn Encode,
    watch: &mut Watch<'_>,
) -> Result<()> {
    if index.sample_queries() > 0 {
        return Ok(());
    }
    let captions = captions.map(Index::reader).transpose()?.filter(|captions| captions.len() >= TEXTS as u64);
    let queries = match captions {
        Some(captions) => among(&captions)?,
        None => phrases(encoder, watch),
    };
    match index.set_sample_queries(&queries) {
        // The encoder made nothing of a phrase.
        Err(tintype_index::Error::ZeroVector | tintype_index::Error::NotFinite { .. }) => Ok(()),
        set => set.map_err(Error::from),
    }
}

/// Vectors of captions, evenly over the keys.
fn among(captions: &Reader) -> Result<Vec<Vec<f32>>> {
    let keys: Vec<u64> = captions.keys().collect::<tintype_index::Result<_>>()?;
    let taken = (0..TEXTS).map(|at| captions.get(keys[at * keys.len() / TEXTS]));
    Ok(taken.filter_map(Result::transpose).collect::<tintype_index::Result<_>>()?)
}

fn phrases(encoder: &dyn Encode, watch: &mut Watch<'_>) -> Vec<Vec<f32>> {
    let phrases: Vec<&str> = PHRASES.lines().collect();
    let mut queries = Vec::new();
    for phrases in phrases.chunks(BATCH) {
        if (watch.cancel)() {
            return Vec::new();
        }
        let Ok(vectors) = encoder.encode_texts(phrases) else { return Vec::new() };
        queries.extend(vectors.rows().map(<[f32]>::to_vec));
    }
    queries
}
