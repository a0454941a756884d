//! `status` and `facets`: what the libraries hold.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::catalog::Facets;
use crate::server::body::Params;
use crate::server::failure::{Failure, Message};
use crate::server::service::Service;
use crate::server::{Fetch, json};

/// What this server is and holds.
#[derive(Serialize, ToSchema)]
pub(in crate::server) struct Status {
    /// Version of the program.
    version: &'static str,
    /// The most results of one search.
    max_results: usize,
    /// The most bytes of a request.
    max_body: usize,
    /// Whether pictures are fetched from addresses.
    fetches: bool,
    /// In the order in which they were given; the first answers where none is named.
    libraries: Vec<LibraryStatus>,
}

/// One library.
#[derive(Serialize, ToSchema)]
struct LibraryStatus {
    /// The name that it is served under.
    name: String,
    /// Photos that can be found.
    photos: u64,
    /// Photos whose files were not there when last looked for.
    gone: u64,
    /// Files that could not be taken in.
    unreadable: u64,
    /// The model that answers.
    model: String,
    /// Numbers of a vector.
    dimensions: usize,
    /// The model that a switch is under way to.
    switching_to: Option<String>,
    /// Number of the commit that is searched.
    generation: u64,
    /// Folders that were indexed.
    folders: Vec<String>,
    /// Shards, lists and matrices of embeddings that photos came from.
    sources: u64,
    /// Names of the columns of metadata, for `where:` in queries.
    columns: Vec<String>,
    /// Captions that have a vector of their own, for `by=caption`.
    caption_vectors: u64,
}

/// As parameters of an address.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct FacetsParams {
    /// The library; without it the first.
    library: Option<String>,
}

/// What the photos of a library have in common: what they can be filtered by.
#[derive(Serialize, ToSchema)]
pub(in crate::server) struct FacetsAnswer {
    /// Cameras, the most frequent first.
    cameras: Vec<Count>,
    /// Lenses, the most frequent first.
    lenses: Vec<Count>,
    /// Formats, the most frequent first.
    formats: Vec<Count>,
    /// Months such as `2024-05`, in order; the last 200.
    months: Vec<Count>,
    /// Folders and how many photos lie in and below each, in order of their paths.
    folders: Vec<Count>,
    /// Photos that say where they were taken.
    placed: u64,
}

/// A name and how many photos have it.
#[derive(Serialize, ToSchema)]
struct Count {
    name: String,
    photos: u64,
}

/// Says what this server is and holds.
#[utoipa::path(get, path = "/api/v1/status", tag = "libraries", responses(
    (status = 200, description = "What this server is and holds", body = Status)))]
pub(in crate::server) async fn status(State(service): State<Arc<Service>>) -> Result<Response, Failure> {
    let shared = Arc::clone(&service);
    let work = move || {
        let library = |served: &crate::server::view::Served| -> Result<LibraryStatus, Failure> {
            let view = served.view();
            let status = view.engine.status()?;
            Ok(LibraryStatus {
                name: served.name.clone(),
                photos: status.photos,
                gone: status.gone,
                unreadable: status.skipped,
                model: status.space.model,
                dimensions: status.space.dim,
                switching_to: status.switching.map(|space| space.model),
                generation: view.index.generation(),
                sources: status.sources.len() as u64,
                columns: status.columns,
                caption_vectors: status.caption_vectors,
                folders: status.roots.iter().map(|root| root.path.to_string_lossy().into_owned()).collect(),
            })
        };
        let libraries = shared.libraries.iter().map(library).collect::<Result<_, _>>()?;
        Ok(json::compact(&Status {
            version: env!("CARGO_PKG_VERSION"),
            max_results: shared.options.max_results,
            max_body: shared.options.max_body,
            fetches: shared.options.fetch != Fetch::Never,
            libraries,
        }))
    };
    service.compute.run(work).await
}

/// Says what the photos of a library can be filtered by.
#[utoipa::path(get, path = "/api/v1/facets", tag = "libraries", params(FacetsParams), responses(
    (status = 200, description = "Names and how many photos have them", body = FacetsAnswer),
    (status = 400, description = "A mistake in the request", body = Message),
    (status = 404, description = "No such library", body = Message)))]
pub(in crate::server) async fn facets(
    State(service): State<Arc<Service>>,
    Params(params): Params<FacetsParams>,
) -> Result<Response, Failure> {
    let view = service.view(params.library.as_deref())?;
    let work = move || {
        let Facets { cameras, lenses, formats, months, folders, placed } = view.engine.catalog().read()?.facets()?;
        let counts = |names: Vec<(String, u64)>| -> Vec<Count> {
            names.into_iter().map(|(name, photos)| Count { name, photos }).collect()
        };
        let folders = folders.into_iter().map(|(path, photos)| (path.to_string_lossy().into_owned(), photos)).collect();
        Ok(json::compact(&FacetsAnswer {
            cameras: counts(cameras),
            lenses: counts(lenses),
            formats: counts(formats),
            months: counts(months),
            folders: counts(folders),
            placed,
        }))
    };
    service.compute.run(work).await
}
