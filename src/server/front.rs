//! The small answers that clip-retrieval's front and boards ask for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::json;
use super::metrics::Gauge;
use super::service::Service;

/// Names of the libraries.
#[utoipa::path(get, path = "/indices-list", tag = "clip-retrieval",
    responses((status = 200, description = "Names of the libraries", body = Vec<String>)))]
pub(super) async fn indices(State(service): State<Arc<Service>>) -> Response {
    let names: Vec<&str> = service.libraries.iter().map(|library| library.name.as_str()).collect();
    json::python(&names)
}

#[derive(Serialize)]
struct Config<'a> {
    #[serde(rename = "defaultBackend")]
    backend: String,
    #[serde(rename = "defaultIndex")]
    index: &'a str,
    #[serde(rename = "urlColumn")]
    url_column: &'a str,
}

/// What clip-retrieval's front needs to know to begin.
pub(super) async fn config(headers: HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    json::python(&Config { backend: format!("http://{host}/"), index: "", url_column: "url" })
}

/// Counters as Prometheus text.
pub(super) async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let gauge = |library: &super::view::Served| {
        let view = library.view();
        Gauge {
            library: library.name.clone(),
            photos: view.live.keys.len() as u64,
            generation: view.index.generation(),
        }
    };
    let gauges: Vec<Gauge> = service.libraries.iter().map(gauge).collect();
    let text = service.metrics.text(&gauges);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The costs of a request by step, for people.
pub(super) async fn summary(State(service): State<Arc<Service>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], service.metrics.summary()).into_response()
}
