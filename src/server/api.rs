//! Our own API: every query that the command line knows, as JSON.
//!
//! The description that is served is made from the types that are served, so it cannot tell of another API than this one.

mod asked;
mod items;
mod search;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::service::Service;
use super::{front, json, knn};

/// The routes of the API.
pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/api/v1/search", get(search::find).post(search::find_posted))
        .route("/api/v1/rank", axum::routing::post(search::rank))
        .route("/api/v1/similar", get(search::similar).post(search::similar_posted))
        .route("/api/v1/items", get(items::items))
        .route("/api/v1/image", get(items::image))
        .route("/api/v1/thumbnail", get(items::thumbnail))
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/facets", get(status::facets))
        .route("/api/v1/openapi.json", get(description))
}

#[derive(OpenApi)]
#[openapi(
    info(title = "tintype", description = "Search photos by what is in them.", license(name = "MIT OR Apache-2.0")),
    paths(
        search::find, search::find_posted, search::rank, search::similar, search::similar_posted,
        items::items, items::image, items::thumbnail, status::status, status::facets,
        knn::service, knn::metadata, front::indices,
    ),
    modifiers(&Token),
)]
struct Description;

struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Only where the server was started with a token."))
            .build();
        document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

async fn description() -> Response {
    json::compact(&Description::openapi())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_described() {
        let document = serde_json::to_value(Description::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for path in ["search", "rank", "similar", "items", "image", "thumbnail", "status", "facets"] {
            assert!(paths.contains_key(&format!("/api/v1/{path}")), "{path}");
        }
        assert!(paths["/knn-service"]["post"]["requestBody"].is_object());
    }
}
