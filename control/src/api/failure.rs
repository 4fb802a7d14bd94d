//! What the API answers when it does not do what it was asked: a status and `{"error": "…"}`, always.

use std::fmt::Display;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use knockplane_limits::refusal::Refusal;
use knockplane_policy::rsc::Problem;
use serde::Serialize;

use crate::dataplane::DataplaneError;

/// A status and its body.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    body: Body,
}

#[derive(Debug, Serialize)]
struct Body {
    /// One sentence for people.
    error: String,
    /// Its end that says what to do, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// The places in the rule file, if that is what it was about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

impl Failure {
    /// 400: the request makes no sense.
    pub fn bad_request(error: impl Into<String>) -> Self {
        Failure::new(StatusCode::BAD_REQUEST, error)
    }

    /// 404: no such path.
    pub fn not_found(path: &str) -> Self {
        Failure::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}"))
    }

    /// 422: the rules cannot be read.
    pub fn invalid_rules(problems: Vec<Problem>) -> Self {
        let count = problems.len();
        let error = format!("the rules have {count} problem{}; nothing changed", if count == 1 { "" } else { "s" });
        Failure { status: StatusCode::UNPROCESSABLE_ENTITY, body: Body { error, remedy: None, problems } }
    }

    /// 413: the body is longer than its path allows.
    pub fn too_long(longest: usize) -> Self {
        let remedy = "only rules and entries may be long: split the file";
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the request has more than {longest} bytes: {remedy}"))
    }

    /// 408 or 503: a limit on time, connections or memory.
    pub fn refused(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::SlowRequest => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure::new(status, refusal.sentence())
    }

    /// 500: a defect of this process.
    pub fn internal(error: &dyn Display) -> Self {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("this is a defect of knockplane-control: {error}"))
    }

    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Failure { status, body: Body { error: error.into(), remedy: None, problems: Vec::new() } }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<DataplaneError> for Failure {
    /// 422 if the dataplane refused, 500 if it failed, 413 if the request is too long for it, otherwise what a gateway says.
    fn from(error: DataplaneError) -> Self {
        let status = match &error {
            DataplaneError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            DataplaneError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            DataplaneError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            DataplaneError::Unreachable { .. } | DataplaneError::Lost(_) | DataplaneError::TurnedAway(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            DataplaneError::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
            DataplaneError::Version { .. } | DataplaneError::Garbage { .. } => StatusCode::BAD_GATEWAY,
        };
        let mut failure = Failure::new(status, error.to_string());
        failure.body.remedy = error.remedy();
        failure
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Failure::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Failure::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Failure::new(rejection.status(), rejection.body_text())
    }
}
