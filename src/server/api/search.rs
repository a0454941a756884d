//! `search`, `rank` and `similar`: queries and their results.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::asked::{Form, SearchBody, SearchParams, SimilarParams};
use crate::catalog::Key;
use crate::query::Term;
use crate::server::body::{self, Params};
use crate::server::dedup::{Shown, THRESHOLD};
use crate::server::failure::{Failure, Message};
use crate::server::json;
use crate::server::metrics::Step;
use crate::server::service::Service;
use crate::server::stored::Item;
use crate::server::view::View;
use crate::{Error, Query};

/// Results that near duplicates are looked for among.
const EXAMINED: usize = 10_000;
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
    answer(service, params.into(), None).await
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
    let body = service.body(request).await?;
    let search: SearchBody = body::json(&body.bytes)?;
    drop(body);
    answer(service, search, None).await
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
    let body = service.body(request).await?;
    let search: SearchBody = body::json(&body.bytes)?;
    drop(body);
    let shared = Arc::clone(&service);
    let work = move || {
        let begun = Instant::now();
        let found = Found::of(&shared, &search, None)?;
        Ok(json::compact(&Ranked {
            library: found.library,
            model: found.model,
            scored: found.scored,
            took: milliseconds(begun),
            ids: found.best.iter().map(|(key, _)| *key).collect(),
            scores: if found.scored { found.best.iter().map(|(_, score)| *score).collect() } else { Vec::new() },
            shapes: found.best.iter().map(|(key, _)| found.view.live.shape(*key)).collect(),
        }))
    };
    service.compute.run(work).await
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
    answer(service, params.into(), Some(photo)).await
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
    let body = service.body(request).await?;
    let picture = Query::image_bytes(body.bytes.to_vec());
    drop(body);
    answer(service, params.into(), Some(picture)).await
}

async fn answer(service: Arc<Service>, search: SearchBody, also: Option<Query>) -> Result<Response, Failure> {
    let shared = Arc::clone(&service);
    let work = move || {
        let begun = Instant::now();
        let found = Found::of(&shared, &search, also)?;
        let items = found.items()?;
        if search.format == Form::Csv {
            let mut table = format!("{}\r\n", Item::COLUMNS);
            for item in &items {
                item.csv(&mut table);
            }
            return Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], table).into_response());
        }
        let Found { library, model, scored, .. } = found;
        Ok(json::compact(&Answer { library, model, scored, took: milliseconds(begun), items }))
    };
    service.compute.run(work).await
}

fn milliseconds(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e5).round() / 100.0
}

/// The results of a search, and where they are from.
struct Found {
    view: Arc<View>,
    library: String,
    model: String,
    scored: bool,
    /// Best first.
    best: Vec<(Key, f32)>,
}

impl Found {
    fn of(service: &Service, body: &SearchBody, also: Option<Query>) -> Result<Found, Failure> {
        let library = service.library(body.library.as_deref())?;
        let view = library.view();
        let mut query = body.query(service)?;
        if let Some(also) = also {
            query = query.plus(also);
        }
        // Once, within the server's limits, however often the library is asked below.
        for part in &mut query.parts {
            if let Term::ImageBytes(bytes) = &part.term {
                part.term = Term::Vector(service.picture_vector(&view, bytes)?);
            }
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
        let scored = query.ranks();
        let within: Vec<PathBuf> = body.within.iter().map(PathBuf::from).collect();
        let run = |offset: usize, limit: usize| -> Result<Vec<(Key, f32)>, Failure> {
            let search = view.engine.search(query.clone()).ranking(body.by.into());
            let mut search = search.under(&within).limit(limit).offset(offset);
            if let Some(score) = body.min_score {
                search = search.min_score(score);
            }
            search.keys().map_err(|error| blamed(&view, error))
        };
        let best = service.metrics.time(Step::Search, || {
            if !body.deduplicate {
                return run(offset, limit);
            }
            distinct(&view, body.similarity.unwrap_or(THRESHOLD), offset, limit, run)
        })?;
        let model = view.encoder.space().model.clone();
        Ok(Found { view, library: library.name.clone(), model, scored, best })
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

/// Results without near duplicates: looks further until there are enough.
fn distinct(
    view: &View,
    similarity: f32,
    offset: usize,
    limit: usize,
    run: impl Fn(usize, usize) -> Result<Vec<(Key, f32)>, Failure>,
) -> Result<Vec<(Key, f32)>, Failure> {
    if !(0.0..=1.0).contains(&similarity) {
        return Err(Failure::bad("similarity goes from 0 to 1"));
    }
    let wanted = (offset + limit).min(EXAMINED);
    let mut shown = Shown::new(view.index.config().dim, similarity);
    let (mut kept, mut looked) = (Vec::new(), 0);
    while kept.len() < wanted && looked < EXAMINED {
        let more = (wanted * 2).max(200).min(EXAMINED - looked);
        let best = run(looked, more)?;
        let last = best.len() < more;
        looked += more;
        for (key, score) in best {
            // A photo without a vector yet is like nothing.
            if view.index.get(key)?.is_none_or(|vector| shown.admit(&vector)) {
                kept.push((key, score));
            }
        }
        if last {
            break;
        }
    }
    kept.truncate(wanted);
    kept.drain(..offset.min(kept.len()));
    Ok(kept)
}
