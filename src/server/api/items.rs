//! `items`, `image` and `thumbnail`: photos of the library by their numbers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Record;
use crate::catalog::Key;
use crate::server::body::Params;
use crate::server::failure::{Failure, Message};
use crate::server::json;
use crate::server::picture::{Picture, SIDES};
use crate::server::service::Service;
use crate::server::stored::Item;
use crate::server::view::View;

/// Numbers in one request.
const MAX_IDS: usize = 1000;

/// As parameters of an address.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct ItemsParams {
    /// Numbers of photos, with commas between them.
    ids: String,
    /// The library; without it the first.
    library: Option<String>,
}

/// As parameters of an address.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct ImageParams {
    /// Number of the photo.
    id: u64,
    /// The library; without it the first.
    library: Option<String>,
}

/// As parameters of an address.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct ThumbnailParams {
    /// Number of the photo.
    id: u64,
    /// The library; without it the first.
    library: Option<String>,
    /// Longer side in pixels, rounded up to 160, 320, 640, 1280 or 2560 (default 320).
    #[param(minimum = 1)]
    size: Option<u32>,
}

/// What is known of photos.
#[derive(Serialize, ToSchema)]
pub(in crate::server) struct Items {
    /// In the order that was asked for; numbers without a photo are left out.
    items: Vec<Item>,
}

/// Says what is known of photos.
#[utoipa::path(get, path = "/api/v1/items", tag = "photos", params(ItemsParams), responses(
    (status = 200, description = "What is known", body = Items),
    (status = 400, description = "A mistake in the request", body = Message),
    (status = 404, description = "No such library", body = Message)))]
pub(in crate::server) async fn items(
    State(service): State<Arc<Service>>,
    Params(params): Params<ItemsParams>,
) -> Result<Response, Failure> {
    let view = service.view(params.library.as_deref())?;
    let numbers: Result<Vec<Key>, _> = params.ids.split(',').map(|id| id.trim().parse()).collect();
    let keys = numbers.map_err(|_| Failure::bad("ids are numbers with commas between them"))?;
    if keys.len() > MAX_IDS {
        return Err(Failure::bad(format!("more than {MAX_IDS} ids")));
    }
    let work = move || {
        let described = view.described(&keys)?.into_iter();
        Ok(json::compact(&Items {
            items: described.map(|(record, metadata)| Item::new(&record, metadata, None)).collect(),
        }))
    };
    service.compute.run(work).await
}

/// The file of a photo, as it is.
#[utoipa::path(get, path = "/api/v1/image", tag = "photos", params(ImageParams), responses(
    (status = 200, description = "The file", content_type = "image/*", body = Vec<u8>),
    (status = 304, description = "The file that the client has is the same"),
    (status = 400, description = "A mistake in the request", body = Message),
    (status = 404, description = "No such library or photo, or its file is not there", body = Message)))]
pub(in crate::server) async fn image(
    State(service): State<Arc<Service>>,
    Params(params): Params<ImageParams>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let view = service.view(params.library.as_deref())?;
    let work = move || {
        let record = record(&view, params.id)?;
        let tag = tag(&record, 0);
        if let Some(tag) = tag.as_deref().filter(|tag| is_known(&headers, tag)) {
            return Ok(unchanged(tag));
        }
        let picture = Picture::read(&view, &record)?;
        let media_type = picture.media_type();
        Ok(file(picture.bytes, media_type, tag))
    };
    service.compute.run(work).await
}

/// A small picture of a photo, upright, as JPEG.
#[utoipa::path(get, path = "/api/v1/thumbnail", tag = "photos", params(ThumbnailParams), responses(
    (status = 200, description = "The picture", content_type = "image/jpeg", body = Vec<u8>),
    (status = 304, description = "The picture that the client has is the same"),
    (status = 400, description = "A mistake in the request", body = Message),
    (status = 404, description = "No such library or photo, or its file is not there", body = Message)))]
pub(in crate::server) async fn thumbnail(
    State(service): State<Arc<Service>>,
    Params(params): Params<ThumbnailParams>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let view = service.view(params.library.as_deref())?;
    let side = params.size.unwrap_or(SIDES[1]);
    if side == 0 {
        return Err(Failure::bad("size is at least 1"));
    }
    let shared = Arc::clone(&service);
    let look = move || {
        let record = record(&view, params.id)?;
        let tag = tag(&record, side);
        if let Some(tag) = tag.as_deref().filter(|tag| is_known(&headers, tag)) {
            return Ok(Looked::Answered(unchanged(tag)));
        }
        if let Some(address) = shared.address_of_thumbnail(&view, &record, side) {
            return Ok(Looked::Away(view, Box::new(record), address));
        }
        let jpeg = shared.thumbnail(&view, &record, side, None)?;
        Ok(Looked::Answered(file(jpeg, "image/jpeg", tag)))
    };
    match service.compute.run(look).await? {
        Looked::Answered(response) => Ok(response),
        Looked::Away(view, record, address) => {
            let mut fetching = service.fetching().await?;
            let bytes = fetching.bytes(address).await?;
            let shared = Arc::clone(&service);
            let work = move || {
                let _fetching = fetching;
                let jpeg = shared.thumbnail(&view, &record, side, Some(bytes))?;
                Ok(file(jpeg, "image/jpeg", tag(&record, side)))
            };
            service.compute.run(work).await
        }
    }
}

/// What came of a look for a thumbnail.
enum Looked {
    Answered(Response),
    /// Its picture is at an address of the web.
    Away(Arc<View>, Box<Record>, String),
}

fn record(view: &View, id: Key) -> Result<Record, Failure> {
    let absent = || Failure::absent(format!("the library has no photo of the number {id}"));
    view.records(&[id])?.pop().ok_or_else(absent)
}

/// A name for the bytes that are sent: a key stands for one content for ever, where the content is known.
fn tag(record: &Record, side: u32) -> Option<String> {
    Some(format!("\"{}-{side}\"", record.hash.get(..32)?))
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    known.is_some_and(|known| known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag))
}

/// Kept by the browser, and not by anybody between: photos are private. A day is short enough for a library that is made anew.
const KEPT: &str = "private, max-age=86400";

fn unchanged(tag: &str) -> Response {
    let headers = [(header::ETAG, tag), (header::CACHE_CONTROL, KEPT)];
    (StatusCode::NOT_MODIFIED, headers.map(|(name, value)| (name, value.to_owned()))).into_response()
}

fn file(bytes: Vec<u8>, media_type: &'static str, tag: Option<String>) -> Response {
    match tag {
        Some(tag) => {
            let headers = [(header::CONTENT_TYPE, media_type.to_owned()), (header::ETAG, tag)];
            (headers, [(header::CACHE_CONTROL, KEPT)], bytes).into_response()
        }
        None => ([(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "private, max-age=60")], bytes)
            .into_response(),
    }
}
