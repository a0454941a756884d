//! The small answers that clip-retrieval's front and boards ask for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::json;
use super::metrics::{Form, Gauge};
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
pub(super) async fn config(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let told = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = || {
        // Before a proxy the connection is another one than behind it.
        let secure = told("x-forwarded-proto").is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let scheme = if secure { "https" } else { "http" };
        format!("{scheme}://{}/", told(header::HOST.as_str()).unwrap_or("127.0.0.1"))
    };
    let options = &service.options;
    let backend = options.backend.clone().unwrap_or_else(asked);
    json::python(&Config { backend, index: "", url_column: &options.url_column })
}

/// Counters as Prometheus text, or as OpenMetrics where that is asked for.
pub(super) async fn metrics(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let gauge = |library: &super::view::Served| {
        let view = library.view();
        Gauge {
            library: library.name.clone(),
            photos: view.live.keys.len() as u64,
            generation: view.index.generation(),
        }
    };
    let gauges: Vec<Gauge> = service.libraries.iter().map(gauge).collect();
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
    let form = match accepted.is_some_and(|accepted| accepted.contains("application/openmetrics-text")) {
        true => Form::OpenMetrics,
        false => Form::Prometheus,
    };
    ([(header::CONTENT_TYPE, form.media_type())], service.metrics.text(&gauges, form)).into_response()
}

/// The costs of a request by step, for people.
pub(super) async fn summary(State(service): State<Arc<Service>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], service.metrics.summary()).into_response()
}
