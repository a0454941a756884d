//! The page for people, inside the program: no build step, no file to install, nothing from elsewhere.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::service::Service;

struct Asset {
    path: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($path:literal $media_type:literal $file:literal)*) => {
        [$(Asset { path: $path, media_type: $media_type, bytes: include_bytes!(concat!("page/", $file)) }),*]
    };
}

static ASSETS: [Asset; 9] = assets! {
    "/" "text/html; charset=utf-8" "index.html"
    "/assets/style.css" "text/css; charset=utf-8" "style.css"
    "/assets/icon.svg" "image/svg+xml" "icon.svg"
    "/assets/main.js" "text/javascript; charset=utf-8" "main.js"
    "/assets/api.js" "text/javascript; charset=utf-8" "api.js"
    "/assets/detail.js" "text/javascript; charset=utf-8" "detail.js"
    "/assets/filters.js" "text/javascript; charset=utf-8" "filters.js"
    "/assets/grid.js" "text/javascript; charset=utf-8" "grid.js"
    "/assets/query.js" "text/javascript; charset=utf-8" "query.js"
};

/// The routes of the page.
pub(super) fn routes() -> Router<Arc<Service>> {
    ASSETS
        .iter()
        .fold(Router::new(), |router, asset| router.route(asset.path, get(move |headers| serve(asset, headers))))
}

async fn serve(asset: &'static Asset, headers: HeaderMap) -> Response {
    let tag = format!("\"{}\"", &blake3::hash(asset.bytes).to_hex()[..32]);
    // A new version of the program is seen at the next visit.
    let kept = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, kept).into_response();
    }
    (kept, [(header::CONTENT_TYPE, asset.media_type)], asset.bytes).into_response()
}
