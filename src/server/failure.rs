//! Why a request gets no answer: a status and `{"message": …}`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::json;
use crate::Error;

/// The body of every answer that is none.
#[derive(Serialize, ToSchema)]
pub(super) struct Message {
    /// What is wrong and what to do.
    message: String,
}

/// A status and its reason.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    message: String,
    /// What the operator should hear and the client should not.
    pub(super) cause: Option<String>,
}

/// The cause of a failure, for whoever keeps the log.
#[derive(Clone, Debug)]
pub(super) struct Cause(pub(super) String);

impl Failure {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Failure { status, message: message.into(), cause: None }
    }

    /// The request is wrong.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such thing.
    pub(super) fn absent(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// Not from there, or not so.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// Without the token.
    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "this server asks for a token: Authorization: Bearer …")
    }

    /// More than the limit.
    pub(super) fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than the limit of {limit} bytes"))
    }

    /// The path is known, the method is not.
    pub(super) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take this method")
    }

    /// It took too long.
    pub(super) fn late() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "this took longer than the server allows; ask for less")
    }

    /// The body did not come in time.
    pub(super) fn slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time")
    }

    /// Our fault.
    pub(super) fn internal(cause: impl Into<String>) -> Self {
        let mut failure = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
        failure.cause = Some(cause.into());
        failure
    }

    /// The status.
    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::BadQuery { .. }
            | Error::UnsupportedImage { .. }
            | Error::BadImage { .. }
            | Error::DamagedImage { .. }
            | Error::ImageTooLarge { .. }
            | Error::BadPattern { .. }
            // Of embeddings without their model words were never to be had; that is in the documentation, not in the log.
            | Error::NoModel { .. }
            | Error::QueryImage { .. } => Failure::bad(error.to_string()),
            Error::Index(
                tintype_index::Error::Dimension { .. }
                | tintype_index::Error::NotFinite { .. }
                | tintype_index::Error::ZeroVector,
            ) => Failure::bad(error.to_string()),
            Error::SpaceMismatch { .. } => {
                let mut failure = Failure::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the library is being switched to another model; ask again",
                );
                failure.cause = Some(chain(&error));
                failure
            }
            error => Failure::internal(chain(&error)),
        }
    }
}

impl From<tintype_index::Error> for Failure {
    fn from(error: tintype_index::Error) -> Self {
        Error::from(error).into()
    }
}

/// An error with its sources.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, json::python(&Message { message: self.message })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(Cause(cause));
        }
        response
    }
}
