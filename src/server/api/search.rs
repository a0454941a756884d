//! `search`, `rank` and `similar`: queries and their results.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::asked::{By, Form, SearchBody, SearchParams, SimilarParams};
use crate::catalog::Key;
use crate::query::Term;
use crate::server::body::{self, Body, Params, Share};
use crate::server::dedup::{EXAMINED, Shown, THRESHOLD};
use crate::server::failure::{Failure, Message};
use crate::server::json;
use crate::server::metrics::Step;
use crate::server::service::Service;
use crate::server::stored::{Item, table};
use crate::server::view::View;
use crate::{Error, Query};

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::server) struct Answer {
    /// The library that answered.
    library: String,
    /// The model that gave the scores.
    model: String,
    /// Whether there are scores; a query that only filters gives the newest first.
    scored: bool,
    /// Milliseconds that the search took.
    took: f64,
    /// Whether there may be further results.
    more: bool,
    /// Best first.
    items: Vec<Item>,
}

/// What was found, as columns of equal length: for lists too long for objects.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Ranked")]
pub(in crate::server) struct Ranked {
    /// The library that answered.
    library: String,
    /// The model that gave the scores.
    model: String,
    /// Whether there are scores; a query that only filters gives the newest first.
    scored: bool,
    /// Milliseconds that the search took.
    took: f64,
    /// Whether there may be further results.
    more: bool,
    /// Numbers of the photos, best first.
    ids: Vec<u64>,
    /// Scores; empty where there are none.
    scores: Vec<f32>,
    /// Width over height of each picture in hundredths; 0 where it is not known.
    shapes: Vec<u16>,
}

/// Finds photos by words and filters.
#[utoipa::path(get, path = "/api/v1/search", tag = "search", params(SearchParams), responses(
    (status = 200, description = "What was found", body = Answer),
    (status = 400, description = "A mistake in the request", body = Message),
    (status = 404, description = "No such library", body = Message)))]
pub(in crate::server) async fn find(
    State(service): State<Arc<Service>>,
    Params(params): Params<SearchParams>,
) -> Result<Response, Failure> {
    answer(service, params.into(), None, None).await
}

/// Finds photos by words, pictures, vectors and filters.
#[utoipa::path(post, path = "/api/v1/search", tag = "search", request_body = SearchBody, responses(
    (status = 200, description = "What was found", content((Answer = "application/json"), (String = "text/csv"))),
    (status = 400, description = "A mistake in the request", body = Message),
    (status = 404, description = "No such library", body = Message),
    (status = 413, description = "The body is too large", body = Message)))]
pub(in crate::server) async fn find_posted(
    State(service): State<Arc<Service>>,
    request: Request,
) -> Result<Response, Failure> {
    let Body { bytes, share } = service.body(request).await?;
    let search: SearchBody = body::json(&bytes)?;
    drop(bytes);
    answer(service, search, None, Some(share)).await
}

/// Ranks photos: as a search, but the answer is columns of numbers, shapes and scores.
#[utoipa::path(post, path = "/api/v1/rank", tag = "search", request_body = SearchBody, responses(
    (status = 200, description = "What was found", body = Ranked),
    (status = 400, description = "A mistake in the request", body = Message),
    (status = 404, description = "No such library", body = Message),
    (status = 413, description = "The body is too large", body = Message)))]
pub(in crate::server) async fn rank(
    State(service): State<Arc<Service>>,
    request: Request,
) -> Result<Response, Failure> {
    let Body { bytes, share } = service.body(request).await?;
    let search: SearchBody = body::json(&bytes)?;
    drop(bytes);
    found(service, search, None, Some(share), |found, took| {
        Ok(json::compact(&Ranked {
            library: found.library,
            model: found.model,
            scored: found.scored,
            more: found.more,
            took,
            ids: found.best.iter().map(|(key, _)| *key).collect(),
            scores: if found.scored { found.best.iter().map(|(_, score)| *score).collect() } else { Vec::new() },
            shapes: found.best.iter().map(|(key, _)| found.view.live.shape(*key)).collect(),
        }))
    })
    .await
}

/// Finds photos that look like one of the library.
#[utoipa::path(get, path = "/api/v1/similar", tag = "search", params(SimilarParams), responses(
    (status = 200, description = "What was found", body = Answer),
    (status = 400, description = "A mistake in the request", body = Message),
    (status = 404, description = "No such library or photo", body = Message)))]
pub(in crate::server) async fn similar(
    State(service): State<Arc<Service>>,
    Params(params): Params<SimilarParams>,
) -> Result<Response, Failure> {
    let photo = Query::like(params.id);
    answer(service, params.into(), Some(photo), None).await
}

/// Finds photos that look like a picture: the body is its file.
#[utoipa::path(post, path = "/api/v1/similar", tag = "search", params(SearchParams),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "A picture file"), responses(
    (status = 200, description = "What was found", body = Answer),
    (status = 400, description = "A mistake in the request, or not a picture that can be read", body = Message),
    (status = 404, description = "No such library", body = Message),
    (status = 413, description = "The picture is too large", body = Message)))]
pub(in crate::server) async fn similar_posted(
    State(service): State<Arc<Service>>,
    Params(params): Params<SearchParams>,
    request: Request,
) -> Result<Response, Failure> {
    let Body { bytes, share } = service.body(request).await?;
    answer(service, params.into(), Some(Query::image_bytes(bytes)), Some(share)).await
}

async fn answer(
    service: Arc<Service>,
    search: SearchBody,
    also: Option<Query>,
    share: Option<Share>,
) -> Result<Response, Failure> {
    let format = search.format;
    found(service, search, also, share, move |found, took| {
        let items = found.items()?;
        if format == Form::Csv {
            return Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], table(&items)).into_response());
        }
        let Found { library, model, scored, more, .. } = found;
        Ok(json::compact(&Answer { library, model, scored, more, took, items }))
    })
    .await
}

/// Searches, and tells what was found and in how many milliseconds.
async fn found(
    service: Arc<Service>,
    mut search: SearchBody,
    also: Option<Query>,
    share: Option<Share>,
    tell: impl FnOnce(Found, f64) -> Result<Response, Failure> + Send + 'static,
) -> Result<Response, Failure> {
    let fetching = search.fetch(&service).await?;
    let shared = Arc::clone(&service);
    let work = move || {
        // Held for as long as there is anything of the request.
        let _held = (share, fetching);
        let begun = Instant::now();
        let found = Found::of(&shared, search, also)?;
        let took = (begun.elapsed().as_secs_f64() * 1e5).round() / 100.0;
        tell(found, took)
    };
    service.compute.run(work).await
}

/// The results of a search, and where they are from.
struct Found {
    view: Arc<View>,
    library: String,
    model: String,
    scored: bool,
    /// Whether there may be further results.
    more: bool,
    /// Best first.
    best: Vec<(Key, f32)>,
}

impl Found {
    fn of(service: &Service, mut body: SearchBody, also: Option<Query>) -> Result<Found, Failure> {
        let library = service.library(body.library.as_deref())?;
        let view = library.view();
        let mut query = body.query()?;
        if let Some(also) = also {
            query = query.plus(also);
        }
        // Once, within the server's limits, however often the library is asked below.
        for part in &mut query.parts {
            let vector = match &part.term {
                Term::ImageBytes(bytes) => service.picture_vector(&view, bytes)?,
                Term::Text(text) if body.deduplicate && matches!(body.by, By::Image | By::Caption) => {
                    service.text_vector(&view, text)?
                }
                _ => continue,
            };
            part.term = Term::Vector(vector);
        }
        let most = service.options.max_results;
        let limit = body.limit.map_or(20, |limit| limit as usize).min(most);
        let offset = body.offset.unwrap_or(0) as usize;
        if offset > most {
            return Err(Failure::bad(format!("offset is more than the limit of {most}")));
        }
        if body.min_score.is_some_and(|score| !score.is_finite()) {
            return Err(Failure::bad("min_score is no number"));
        }
        let recall = body.recall.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&recall) {
            return Err(Failure::bad("recall goes from 0 to 1"));
        }
        let scored = query.ranks();
        let within: Vec<PathBuf> = body.within.iter().map(PathBuf::from).collect();
        let run = |offset: usize, limit: usize| -> Result<Vec<(Key, f32)>, Failure> {
            let search = view.engine.search(query.clone()).ranking(body.by.into()).recall(recall);
            let mut search = search.under(&within).limit(limit).offset(offset);
            if let Some(score) = body.min_score {
                search = search.min_score(score);
            }
            search.keys().map_err(|error| blamed(&view, error))
        };
        let (best, more) = service.metrics.time(Step::Search, || {
            if body.deduplicate {
                return distinct(&view, body.similarity.unwrap_or(THRESHOLD), offset, limit, |depth| run(0, depth));
            }
            let best = run(offset, limit)?;
            let more = limit > 0 && best.len() == limit;
            Ok((best, more))
        })?;
        let model = view.encoder.space().model.clone();
        Ok(Found { view, library: library.name.clone(), model, scored, more, best })
    }

    /// What is known of the results.
    fn items(&self) -> Result<Vec<Item>, Failure> {
        let keys: Vec<Key> = self.best.iter().map(|(key, _)| *key).collect();
        let mut described = self.view.described(&keys)?.into_iter().peekable();
        let item = |(key, score): &(Key, f32)| {
            let (record, metadata) = described.next_if(|(record, _)| record.key == *key)?;
            Some(Item::new(&record, metadata, self.scored.then_some(*score)))
        };
        Ok(self.best.iter().filter_map(item).collect())
    }
}

/// Whose fault an error is: a path outside of the library that cannot be, empty or with a NUL in it, came with the request.
fn blamed(view: &View, error: Error) -> Failure {
    match error {
        Error::Io { path, source } if !path.starts_with(view.engine.dir()) => {
            Failure::bad(format!("{:?} is no path: {source}", path.display().to_string()))
        }
        error => error.into(),
    }
}

/// Results without near duplicates, and whether there may be more: looks ever further until there are enough.
fn distinct(
    view: &View,
    similarity: f32,
    offset: usize,
    limit: usize,
    best: impl Fn(usize) -> Result<Vec<(Key, f32)>, Failure>,
) -> Result<(Vec<(Key, f32)>, bool), Failure> {
    if !(0.0..=1.0).contains(&similarity) {
        return Err(Failure::bad("similarity goes from 0 to 1"));
    }
    let wanted = (offset + limit).min(EXAMINED);
    let mut depth = (wanted * 2).clamp(200, EXAMINED);
    loop {
        let best = best(depth)?;
        let last = best.len() < depth;
        let mut shown = Shown::new(view.index.config().dim, similarity);
        let mut kept = Vec::new();
        for (key, score) in best {
            if kept.len() == wanted {
                break;
            }
            // A photo without a vector yet is like nothing.
            if view.index.get(key)?.is_none_or(|vector| shown.admit(&vector)) {
                kept.push((key, score));
            }
        }
        let enough = kept.len() == wanted;
        if enough || last || depth == EXAMINED {
            // Nothing behind the last that is looked at is ever shown.
            let more = enough && offset + limit < EXAMINED;
            kept.drain(..offset.min(kept.len()));
            return Ok((kept, more));
        }
        depth = (depth * 2).min(EXAMINED);
    }
}
