//! clip-retrieval's service: `/knn-service` and `/metadata`.
//!
//! The shapes are those of the original, byte for byte where a client could notice; its faults are not. A mistake of the
//! client is a 400 or 404 with the same `{"message": …}`, pictures come as thumbnails instead of full-size copies, and only
//! photos of the library are read.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rayon::prelude::*;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use tintype_index::Neighbor;
use utoipa::ToSchema;

use super::body::{Body, Share};
use super::dedup::{EXAMINED, Rows, THRESHOLD, best_of_groups};
use super::failure::{Failure, Message};
use super::metrics::Step;
use super::picture::is_at_hand;
use super::service::Service;
use super::stored::Columns;
use super::view::View;
use super::{body, json};
use crate::catalog::Key;
use crate::image::{DecodeOptions, Photo};
use crate::{PixelBatch, Record};

/// Longer side in pixels of a picture inside an answer.
const INLINED: u32 = 640;
/// Pictures inside one answer; results after them come without.
const MAX_INLINED: usize = 500;
/// Bytes of a text to look for.
const MAX_TEXT: usize = 16 << 10;
/// A search for no more than this is done where the request is.
const QUICK: usize = 500;

/// The body of `/knn-service`. Keys that are not named here are taken and ignored, as those of safety and aesthetic models are.
#[derive(Deserialize, ToSchema)]
pub(super) struct KnnRequest {
    /// Words to look for. Of the four kinds of query the first that is there counts.
    #[serde(default)]
    text: Option<String>,
    /// A picture to look for: base 64 of its file.
    #[serde(default)]
    image: Option<String>,
    /// Address of a picture to look for, where the server allows that.
    #[serde(default)]
    image_url: Option<String>,
    /// A vector to look for.
    #[serde(default)]
    embedding_input: Option<Vec<f32>>,
    /// `image` looks among pictures, anything else among captions.
    modality: String,
    /// How many results carry metadata.
    num_images: u32,
    /// The library; null is the first.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    indice_name: Option<String>,
    /// How many results; as many as `num_images` if it is not said.
    #[serde(default)]
    num_result_ids: Option<u32>,
    /// Whether near duplicates are left out; then at most the best 10,000 are looked at.
    #[serde(default, deserialize_with = "truth")]
    #[schema(value_type = bool)]
    deduplicate: bool,
}

/// Python takes null for false.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<bool>::deserialize(deserializer).map(Option::unwrap_or_default)
}

enum Asked {
    Text(String),
    Picture(Vec<u8>),
    Address(String),
    Vector(Vec<f32>),
}

impl KnnRequest {
    fn asked(&mut self) -> Result<Asked, Failure> {
        if let Some(text) = self.text.take().filter(|text| !text.is_empty()) {
            if text.len() > MAX_TEXT {
                return Err(Failure::bad(format!("a text of more than {MAX_TEXT} bytes")));
            }
            return Ok(Asked::Text(text));
        }
        if let Some(image) = self.image.take() {
            return decoded(&image).map(Asked::Picture);
        }
        if let Some(address) = self.image_url.take() {
            return Ok(Asked::Address(address));
        }
        if let Some(vector) = self.embedding_input.take() {
            return Ok(Asked::Vector(vector));
        }
        Err(Failure::bad("nothing to look for: give one of text, image, image_url, embedding_input"))
    }
}

/// The bytes of a picture in base 64, with or without the head of a `data:` address.
pub(super) fn decoded(text: &str) -> Result<Vec<u8>, Failure> {
    let text = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once(";base64,").map_or("", |(_, text)| text),
        None => text,
    };
    STANDARD.decode(text.trim()).map_err(|error| Failure::bad(format!("image is not base 64: {error}")))
}

/// One result.
#[derive(ToSchema)]
#[schema(title = "KnnResult")]
pub(super) struct Entry {
    /// Number of the photo in the library.
    id: u64,
    /// Dot product of the query's vector and the photo's.
    similarity: f64,
    /// What is known of it; only the first `num_images` have it. Its keys stand beside `id`.
    #[schema(ignore)]
    record: Option<(Record, Map<String, Value>)>,
    /// The picture, as base 64 of a JPEG; only the first `num_images` have it.
    image: Option<String>,
}

/// One result with the columns that are wanted.
struct Told<'a>(&'a Entry, Option<&'a [String]>);

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Told(entry, only) = *self;
        let mut map = serializer.serialize_map(None)?;
        if let Some((record, metadata)) = &entry.record {
            Columns { record, metadata, image: entry.image.as_deref(), only }.write(&mut map)?;
        }
        map.serialize_entry("id", &entry.id)?;
        map.serialize_entry("similarity", &entry.similarity)?;
        map.end()
    }
}

/// Finds photos as clip-retrieval does.
#[utoipa::path(post, path = "/knn-service", tag = "clip-retrieval", request_body = KnnRequest, responses(
    (status = 200, description = "Results, the best first; beside the keys named here the first num_images carry columns of metadata",
        body = Vec<Entry>),
    (status = 400, description = "A mistake in the request", body = Message),
    (status = 404, description = "No such library", body = Message)))]
pub(super) async fn service(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Failure> {
    let begun = Instant::now();
    let answer = answer(&service, request).await;
    service.metrics.note(Step::Full, begun.elapsed());
    answer
}

async fn answer(service: &Arc<Service>, request: Request) -> Result<Response, Failure> {
    let Body { bytes, share } = service.body(request).await?;
    let mut request: KnnRequest = body::json(&bytes)?;
    drop(bytes);
    let view = service.view(request.indice_name.as_deref())?;
    let by_caption = request.modality != "image";
    if by_caption && view.captions.is_none() {
        return Err(Failure::bad("this library has no vectors of captions: ask with modality \"image\""));
    }
    let asked = request.asked()?;
    let with_record = request.num_images as usize;
    let wanted = request.num_result_ids.map_or(with_record, |wanted| wanted as usize);
    let search = Search {
        service: Arc::clone(service),
        view,
        wanted: wanted.min(service.options.max_results).min(if request.deduplicate { EXAMINED } else { usize::MAX }),
        with_record,
        by_caption,
        deduplicate: request.deduplicate,
        _share: share,
    };
    let entries = match asked {
        Asked::Vector(vector) if search.is_quick() => {
            let near = search.nearest(&vector)?;
            let entries = search.entries(near)?;
            if entries.iter().any(|entry| entry.record.as_ref().is_some_and(|(record, _)| service.shows(record))) {
                service.compute.run(move || Ok(search.with_pictures(entries))).await?
            } else {
                entries
            }
        }
        Asked::Vector(vector) => service.compute.run(move || search.all(&vector)).await?,
        Asked::Text(text) => {
            let work = move || {
                let vector = search.service.text_vector(&search.view, &text)?;
                search.all(&vector)
            };
            service.compute.run(work).await?
        }
        Asked::Picture(bytes) => {
            let work = move || {
                let vector = search.service.picture_vector(&search.view, &bytes)?;
                search.all(&vector)
            };
            service.compute.run(work).await?
        }
        Asked::Address(address) => {
            let mut fetching = service.fetching().await?;
            let bytes = fetching.bytes(address).await?;
            let work = move || {
                let _fetching = fetching;
                let vector = search.service.picture_vector(&search.view, &bytes)?;
                search.all(&vector)
            };
            service.compute.run(work).await?
        }
    };
    let only = service.options.columns.as_deref();
    Ok(json::python(&entries.iter().map(|entry| Told(entry, only)).collect::<Vec<_>>()))
}

struct Search {
    service: Arc<Service>,
    view: Arc<View>,
    wanted: usize,
    with_record: usize,
    by_caption: bool,
    deduplicate: bool,
    _share: Share,
}

impl Search {
    /// Whether it takes microseconds rather than milliseconds.
    fn is_quick(&self) -> bool {
        self.wanted <= QUICK && !(self.deduplicate && self.wanted > 50) && self.service.options.recall < 1.0
    }

    fn all(&self, vector: &[f32]) -> Result<Vec<Entry>, Failure> {
        let near = self.nearest(vector)?;
        let entries = self.entries(near)?;
        Ok(self.with_pictures(entries))
    }

    /// Neighbours with cosines times the length of the query, as a dot product would have it.
    fn nearest(&self, vector: &[f32]) -> Result<Vec<Neighbor>, Failure> {
        let metrics = &self.service.metrics;
        let (view, recall) = (&self.view, self.service.options.recall);
        let mut near = metrics.time(Step::Knn, || match self.by_caption {
            true => Ok(view.nearest_captions(vector, self.wanted, recall)?.unwrap_or_default()),
            false => view.nearest(vector, self.wanted, recall),
        })?;
        if self.deduplicate {
            near = metrics.time(Step::Dedup, || self.distinct(near))?;
        }
        let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
        for neighbour in &mut near {
            neighbour.score *= length;
        }
        Ok(near)
    }

    fn distinct(&self, near: Vec<Neighbor>) -> Result<Vec<Neighbor>, Failure> {
        let index = self.view.captions.as_ref().filter(|_| self.by_caption).unwrap_or(&self.view.index);
        let mut rows = Rows::new(index.config().dim);
        for neighbour in &near {
            let vector = index.get(neighbour.key)?;
            rows.push(&vector.ok_or_else(|| Failure::internal("a neighbour without a vector"))?);
        }
        Ok(best_of_groups(&rows, THRESHOLD).into_iter().map(|at| near[at]).collect())
    }

    fn entries(&self, near: Vec<Neighbor>) -> Result<Vec<Entry>, Failure> {
        let keys: Vec<Key> = near.iter().take(self.with_record).map(|neighbour| neighbour.key).collect();
        let mut records =
            self.service.metrics.time(Step::Metadata, || self.view.described(&keys))?.into_iter().peekable();
        let entry = |(position, neighbour): (usize, Neighbor)| {
            let record = records.next_if(|(record, _)| record.key == neighbour.key);
            // A photo that another process has just taken out of the library is no result any more.
            (position >= keys.len() || record.is_some()).then(|| Entry {
                id: neighbour.key,
                similarity: neighbour.score.into(),
                record,
                image: None,
            })
        };
        Ok(near.into_iter().enumerate().filter_map(entry).collect())
    }

    fn with_pictures(&self, mut entries: Vec<Entry>) -> Vec<Entry> {
        let shown = entries.len().min(MAX_INLINED);
        entries[..shown].par_iter_mut().for_each(|entry| {
            // A photo whose file is away has metadata but no picture, as in the original.
            entry.image = entry.record.as_ref().and_then(|(record, _)| self.service.inlined(&self.view, record));
        });
        entries
    }
}

impl Service {
    /// Whether the picture of a photo stands in answers.
    fn shows(&self, record: &Record) -> bool {
        let wanted = |only: &Vec<String>| only.iter().any(|name| name == "image" || name == "image_path");
        self.options.columns.as_ref().is_none_or(wanted) && is_at_hand(record)
    }

    /// The picture of a photo as it stands in answers.
    fn inlined(&self, view: &View, record: &Record) -> Option<String> {
        if !self.shows(record) {
            return None;
        }
        self.thumbnail(view, record, INLINED, None).ok().map(|jpeg| STANDARD.encode(jpeg))
    }

    /// The vector of a text.
    pub(super) fn text_vector(&self, view: &View, text: &str) -> Result<Vec<f32>, Failure> {
        let embeddings = self.metrics.time(Step::TextInference, || view.encoder.encode_texts(&[text]))?;
        let vector = embeddings.as_slice().to_vec();
        if vector.iter().all(|x| *x == 0.0) {
            return Err(Failure::bad(format!("the model knows no word of {text:?}")));
        }
        Ok(vector)
    }

    /// The vector of a picture file.
    pub(super) fn picture_vector(&self, view: &View, bytes: &[u8]) -> Result<Vec<f32>, Failure> {
        let batch = self.metrics.time(Step::ImagePreparation, || -> crate::Result<PixelBatch> {
            let options = DecodeOptions { max_pixels: self.options.max_pixels, ..DecodeOptions::default() };
            let preprocess = view.encoder.preprocess();
            let photo = Photo::decode_for(bytes, &options, preprocess)?;
            let mut batch = PixelBatch::new(preprocess.size.0, preprocess.size.1);
            batch.push(&preprocess.apply(&photo)?);
            Ok(batch)
        })?;
        let embeddings = self.metrics.time(Step::ImageInference, || view.encoder.encode_images(&batch))?;
        Ok(embeddings.as_slice().to_vec())
    }
}

/// The body of `/metadata`.
#[derive(Deserialize, ToSchema)]
pub(super) struct MetadataRequest {
    /// Numbers of photos.
    ids: Vec<u64>,
    /// The library; null is the first.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    indice_name: Option<String>,
}

/// What is known of one photo.
#[derive(Serialize, ToSchema)]
pub(super) struct Metadata<'a> {
    id: u64,
    #[schema(value_type = Object)]
    metadata: Columns<'a>,
}

/// Says what is known of photos, in the order that was asked for.
#[utoipa::path(post, path = "/metadata", tag = "clip-retrieval", request_body = MetadataRequest, responses(
    (status = 200, description = "One entry for each number", body = Vec<Metadata<'static>>),
    (status = 400, description = "A mistake in the request", body = Message),
    (status = 404, description = "No such library or photo", body = Message)))]
pub(super) async fn metadata(State(service): State<Arc<Service>>, request: Request) -> Result<Response, Failure> {
    let Body { bytes, share } = service.body(request).await?;
    let request: MetadataRequest = body::json(&bytes)?;
    drop(bytes);
    let view = service.view(request.indice_name.as_deref())?;
    let limit = service.options.max_results;
    if request.ids.len() > limit {
        return Err(Failure::bad(format!("{} numbers are more than the limit of {limit}", request.ids.len())));
    }
    let work = {
        let service = Arc::clone(&service);
        move || {
            let _share = share;
            let described = service.metrics.time(Step::Metadata, || view.described(&request.ids))?;
            if let Some(id) = missing(&request.ids, described.iter().map(|(record, _)| record.key)) {
                return Err(Failure::absent(format!("the library has no photo of the number {id}")));
            }
            let image = |(position, (record, _)): (usize, &(Record, _))| {
                (position < MAX_INLINED).then(|| service.inlined(&view, record)).flatten()
            };
            let images: Vec<Option<String>> = described.par_iter().enumerate().map(image).collect();
            let only = service.options.columns.as_deref();
            let entries: Vec<Metadata<'_>> = described
                .iter()
                .zip(&images)
                .map(|((record, metadata), image)| Metadata {
                    id: record.key,
                    metadata: Columns { record, metadata, image: image.as_deref(), only },
                })
                .collect();
            Ok(json::python(&entries))
        }
    };
    service.compute.run(work).await
}

/// The first key that is not found; what is found is in the order of the keys.
fn missing(keys: &[Key], found: impl Iterator<Item = Key>) -> Option<Key> {
    let mut found = found.peekable();
    keys.iter().copied().find(|key| found.next_if_eq(key).is_none())
}
