//! Failures of API requests: always a status and `{"error": "…"}`.

use std::fmt::Display;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use knockplane_limits::refusal::Refusal;
use knockplane_policy::rsc::Problem;
use serde::Serialize;

use crate::dataplane::DataplaneError;

/// A failed request: its status and its body.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Body,
}

#[derive(Debug, Serialize)]
struct Body {
    /// The message.
    error: String,
    /// The remedy at the end of the message, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// The problems of the rule file, if the request had one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

impl ApiError {
    /// 400: the request is invalid.
    pub fn bad_request(error: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, error)
    }

    /// 404: no such path.
    pub fn not_found(path: &str) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, format!("the API has no path {path}"))
    }

    /// 422: the rules are not valid text.
    pub fn invalid_rules(problems: Vec<Problem>) -> Self {
        let count = problems.len();
        let error = format!("the rules have {count} problem{}; nothing changed", if count == 1 { "" } else { "s" });
        ApiError { status: StatusCode::UNPROCESSABLE_ENTITY, body: Body { error, remedy: None, problems } }
    }

    /// 413: the body is longer than its path allows.
    pub fn too_long(longest: usize) -> Self {
        let remedy = "only rules and entries may be long: split the file";
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the request has more than {longest} bytes: {remedy}"))
    }

    /// 408 or 503: a limit on time, connections or memory.
    pub fn refused(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::SlowRequest => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        ApiError::new(status, refusal.sentence())
    }

    /// 500: a defect of this process.
    pub fn internal(error: &dyn Display) -> Self {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("this is a defect of knockplane-control: {error}"))
    }

    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        ApiError { status, body: Body { error: error.into(), remedy: None, problems: Vec::new() } }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<DataplaneError> for ApiError {
    /// 409 if the request does not fit the state of the dataplane, 422 if the dataplane refused, 500 if it failed, 413 if the
    /// request is too long for it, otherwise a status of a gateway.
    fn from(error: DataplaneError) -> Self {
        let status = match &error {
            DataplaneError::Conflict(_) => StatusCode::CONFLICT,
            DataplaneError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            DataplaneError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            DataplaneError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            DataplaneError::Unreachable { .. } | DataplaneError::Lost(_) | DataplaneError::TurnedAway(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            DataplaneError::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
            DataplaneError::Version { .. } | DataplaneError::Garbage { .. } => StatusCode::BAD_GATEWAY,
        };
        let mut failure = ApiError::new(status, error.to_string());
        failure.body.remedy = error.remedy();
        failure
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        ApiError::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        ApiError::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        ApiError::new(rejection.status(), rejection.body_text())
    }
}
