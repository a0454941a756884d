//! Addresses and what answers at them.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use super::failure::Failure;
use super::guard::{self, Guard};
use super::service::Service;
use super::{api, front, knn, page};

/// Everything that is answered.
pub(super) fn router(service: Arc<Service>, address: SocketAddr) -> Router {
    let guard = Arc::new(Guard::new(Arc::clone(&service), address));
    let routes = Router::new()
        .route("/knn-service", post(knn::service))
        .route("/metadata", post(knn::metadata))
        .route("/indices-list", get(front::indices))
        .route("/config.json", get(front::config))
        .route("/metrics", get(front::metrics))
        .route("/metrics-summary", get(front::summary))
        .merge(api::routes())
        .merge(page::routes())
        .fallback(|| async { Failure::absent("there is nothing at this address") })
        .method_not_allowed_fallback(|| async { Failure::method() })
        .layer(DefaultBodyLimit::max(service.options.max_body))
        .with_state(service);
    // A layer runs after its router has chosen a route, so what must change the choice needs a router around it.
    Router::new().fallback_service(routes).layer(from_fn_with_state(guard, guard::guard)).layer(from_fn(single_slashes))
}

/// clip-retrieval's front asks for `//indices-list`.
async fn single_slashes(mut request: Request, next: axum::middleware::Next) -> axum::response::Response {
    if request.uri().path().contains("//") {
        let mut path = String::with_capacity(request.uri().path().len());
        for c in request.uri().path().chars() {
            if c != '/' || !path.ends_with('/') {
                path.push(c);
            }
        }
        if let Some(query) = request.uri().query() {
            path.push('?');
            path.push_str(query);
        }
        match path.parse::<Uri>() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return axum::response::IntoResponse::into_response((StatusCode::BAD_REQUEST, "")),
        }
    }
    next.run(request).await
}
