//! `search`, `rank` and `similar`: queries and their results.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::catalog::Key;
use crate::query::Parser;
use crate::server::body::{self, Params};
use crate::server::dedup::{Shown, THRESHOLD};
use crate::server::failure::{Failure, Message};
use crate::server::json;
use crate::server::knn::decoded;
use crate::server::metrics::Step;
use crate::server::service::Service;
use crate::server::stored::Item;
use crate::server::view::View;
use crate::{Error, Part, Query, Ranking, Term};

/// Results that near duplicates are looked for among.
const EXAMINED: usize = 10_000;
/// Parts of one query, and bytes of its text: each part is a pass through a tower.
const MAX_PARTS: usize = 64;
const MAX_TEXT: usize = 16 << 10;

/// Which results, and of which library. As parameters of an address.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct SearchParams {
    /// Words, weights, signs and filters, in the query language of `tintype search`. Empty: every photo, newest first.
    #[serde(default)]
    q: String,
    /// The library; without it the first.
    library: Option<String>,
    /// What photos are ranked by.
    #[serde(default)]
    by: By,
    /// At most so many results (default 20).
    limit: Option<u32>,
    /// Leaves out the best so many (default 0).
    offset: Option<u32>,
    /// Only results with at least this score.
    min_score: Option<f32>,
    /// Hides pictures that are nearly the same as a better result.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    deduplicate: bool,
}

/// As parameters of an address.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct SimilarParams {
    /// Number of a photo of the library.
    id: u64,
    /// Further words and filters, in the query language of `tintype search`.
    #[serde(default)]
    q: String,
    /// The library; without it the first.
    library: Option<String>,
    /// What photos are ranked by.
    #[serde(default)]
    by: By,
    /// At most so many results (default 20).
    limit: Option<u32>,
    /// Leaves out the best so many (default 0).
    offset: Option<u32>,
    /// Only results with at least this score.
    min_score: Option<f32>,
    /// Hides pictures that are nearly the same as a better result.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    deduplicate: bool,
}

/// A query and which of its results.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct SearchBody {
    /// Words, weights, signs and filters, in the query language of `tintype search`.
    #[serde(default)]
    q: String,
    /// Further parts of the query; all add up.
    #[serde(default)]
    #[schema(max_items = 64)]
    parts: Vec<PartBody>,
    /// Only photos below one of these folders or files.
    #[serde(default)]
    within: Vec<String>,
    /// The library; without it the first.
    library: Option<String>,
    /// What photos are ranked by.
    #[serde(default)]
    by: By,
    /// At most so many results (default 20).
    limit: Option<u32>,
    /// Leaves out the best so many (default 0).
    offset: Option<u32>,
    /// Only results with at least this score.
    min_score: Option<f32>,
    /// Hides pictures that are nearly the same as a better result.
    #[serde(default)]
    deduplicate: bool,
    /// Cosine above which two pictures are nearly the same (default 0.94).
    #[schema(minimum = 0, maximum = 1)]
    similarity: Option<f32>,
    /// The form of the answer.
    #[serde(default)]
    format: Form,
}

/// What photos are ranked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server) enum By {
    /// What they look like.
    #[default]
    Image,
    /// What their captions mean.
    Caption,
    /// The words of their captions and names.
    Words,
    /// All of these that the library has.
    Hybrid,
}

impl From<By> for Ranking {
    fn from(by: By) -> Ranking {
        match by {
            By::Image => Ranking::Image,
            By::Caption => Ranking::Caption,
            By::Words => Ranking::Words,
            By::Hybrid => Ranking::Hybrid,
        }
    }
}

/// The form of the answer to a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server) enum Form {
    /// One object with all results.
    #[default]
    Json,
    /// A table, one line per result.
    Csv,
}

/// A part of a query: exactly one of `text`, `image`, `image_url`, `id`, `path` and `vector`, and its weight.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct PartBody {
    /// Factor of this part; negative pushes away (default 1).
    weight: Option<f32>,
    /// Words.
    text: Option<String>,
    /// A picture: base 64 of its file, or a `data:` address.
    image: Option<String>,
    /// Address of a picture, where the server allows that.
    image_url: Option<String>,
    /// Number of a photo of the library.
    id: Option<u64>,
    /// Path of a photo of the library, or the end of its path.
    path: Option<String>,
    /// A vector of the library's space.
    vector: Option<Vec<f32>>,
}

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
    let SimilarParams { id, q, library, by, limit, offset, min_score, deduplicate } = params;
    let search: SearchBody = SearchParams { q, library, by, limit, offset, min_score, deduplicate }.into();
    answer(service, search, Some(Query::like(id))).await
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

impl From<SearchParams> for SearchBody {
    fn from(params: SearchParams) -> Self {
        let SearchParams { q, library, by, limit, offset, min_score, deduplicate } = params;
        SearchBody { q, library, by, limit, offset, min_score, deduplicate, ..SearchBody::default() }
    }
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
        let mut query = asked(service, body)?;
        if let Some(also) = also {
            query = query.plus(also);
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

/// The query of a request.
fn asked(service: &Service, body: &SearchBody) -> Result<Query, Failure> {
    if body.q.len() > MAX_TEXT {
        return Err(Failure::bad(format!("a query text of more than {MAX_TEXT} bytes")));
    }
    // No word is a file: which files there are on this machine is nobody's business.
    let mut query = Parser::new().files(|_| false).parse(&body.q)?;
    if query.parts.iter().any(|part| matches!(part.term, Term::Image(_))) {
        return Err(Failure::bad(
            "a query here cannot name picture files; send the picture as a part, or name a photo of the library with like:",
        ));
    }
    if query.parts.len() + body.parts.len() > MAX_PARTS {
        return Err(Failure::bad(format!("more than {MAX_PARTS} parts")));
    }
    for part in &body.parts {
        query.parts.push(part.part(service)?);
    }
    Ok(query)
}

impl PartBody {
    fn part(&self, service: &Service) -> Result<Part, Failure> {
        let mut terms = Vec::new();
        if self.text.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
            return Err(Failure::bad(format!("a text of more than {MAX_TEXT} bytes")));
        }
        terms.extend(self.text.clone().map(Term::Text));
        if let Some(image) = &self.image {
            terms.push(Term::ImageBytes(decoded(image)?));
        }
        if let Some(address) = &self.image_url {
            terms.push(Term::ImageBytes(service.fetched(address)?));
        }
        terms.extend(self.id.map(Term::Like));
        terms.extend(self.path.clone().map(|path| Term::LikePath(path.into())));
        terms.extend(self.vector.clone().map(Term::Vector));
        match (terms.pop(), terms.is_empty()) {
            (Some(term), true) => Ok(Part { weight: self.weight.unwrap_or(1.0), term }),
            _ => Err(Failure::bad("a part is exactly one of text, image, image_url, id, path and vector")),
        }
    }
}
