//! Bodies of requests, and what is read from them and from the address.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::SemaphorePermit;

use super::failure::Failure;
use super::service::Service;

/// A body, and its share of the memory that bodies may take.
pub(super) struct Body<'a> {
    pub(super) bytes: Bytes,
    _share: SemaphorePermit<'a>,
}

impl Service {
    /// Reads a body; waits while too many others are being read.
    pub(super) async fn body(&self, request: Request) -> Result<Body<'_>, Failure> {
        let limit = self.options.max_body;
        let length =
            request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let length: usize = length.unwrap_or(limit);
        if length > limit {
            return Err(Failure::too_large(limit));
        }
        let share = u32::try_from((length >> 10) + 1).unwrap_or(u32::MAX);
        let share = self.bodies.acquire_many(share).await.map_err(|error| Failure::internal(error.to_string()))?;
        // Half of what the whole request may take: a body that drips is told so while there is time to.
        let read = tokio::time::timeout(self.options.deadline / 2, Bytes::from_request(request, &())).await;
        match read.map_err(|_| Failure::slow())? {
            Ok(bytes) => Ok(Body { bytes, _share: share }),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(Failure::too_large(limit)),
            Err(_) => Err(Failure::bad("the body could not be read to its end")),
        }
    }
}

/// Reads JSON, whatever the content type says.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        // What clip-retrieval says, word for word.
        serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
            Failure::bad("The browser (or proxy) sent a request that this server could not understand.")
        }
        _ => Failure::bad(format!("the request is not as expected: {error}")),
    })
}

/// What stands behind the `?` of an address.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Service>> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Service>) -> Result<Self, Failure> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Params(params)),
            Err(rejection) => Err(Failure::bad(rejection.body_text())),
        }
    }
}
