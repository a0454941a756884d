//! Bodies of requests, and what is read from them and from the address.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

use super::failure::Failure;
use super::service::{BODIES, Service};

/// A body.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) share: Share,
}

/// A share of the memory that bodies may take: held for as long as there is anything of the body, a picture that waits to be
/// looked at included.
pub(super) struct Share {
    _kib: OwnedSemaphorePermit,
}

impl Service {
    /// Reads a body; waits while others take too much memory.
    pub(super) async fn body(&self, request: Request) -> Result<Body, Failure> {
        let limit = self.options.max_body;
        let length =
            request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let length: usize = length.unwrap_or(limit);
        if length > limit {
            return Err(Failure::too_large(limit));
        }
        // No more than there is: a body that may be larger than all of it has it alone.
        let share = u32::try_from(((length >> 10) + 1).min(BODIES >> 10)).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.bodies).acquire_many_owned(share).await;
        let share = Share { _kib: share.map_err(|error| Failure::internal(error.to_string()))? };
        // Half of what the whole request may take: a body that drips is told so while there is time to.
        let read = tokio::time::timeout(self.options.deadline / 2, Bytes::from_request(request, &())).await;
        match read.map_err(|_| Failure::slow())? {
            Ok(bytes) => Ok(Body { bytes, share }),
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
