//! The form of an answer: a document, as `knockctl --json` prints it, or a message between the processes.
//!
//! Documents are the contract for other clients: `docs/json.md`, `docs/openapi.json`. `knockctl` requests messages with the header
//! `Accept`, because it shows more than documents contain; their form can change with every version.

use std::convert::Infallible;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::json::Document;

/// The media type with which `knockctl` requests messages.
pub const MESSAGES: &str = "application/vnd.knockplane.message+json";

/// The form that a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Document,
    Message,
}

impl Form {
    /// The answer in this form.
    pub(super) fn answer<M: Serialize, D: Serialize>(self, message: M, document: impl FnOnce(M) -> D) -> Response {
        match self {
            Form::Message => Json(message).into_response(),
            Form::Document => Json(Document::new(document(message))).into_response(),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Form {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let wanted = parts.headers.get(header::ACCEPT).is_some_and(|accept| accept == MESSAGES);
        Ok(if wanted { Form::Message } else { Form::Document })
    }
}
