//! Failures of API requests: always a status and `{"code": …, "message": …, "remedy": …}`.

use std::fmt::Display;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use knockplane_limits::refusal::Refusal;
use knockplane_policy::rsc::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::operator::Operator;
use crate::dataplane::DataplaneError;
use crate::sessions::Holder;
use crate::tokens::{Role, TokenError};

/// A failed request: its body, whose code has the status.
#[derive(Debug)]
pub struct ApiError {
    body: ErrorBody<Vec<Problem>>,
    /// The time after which a further request can succeed.
    wait: Option<Duration>,
}

/// The body of a failed request.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Failure")]
pub(crate) struct ErrorBody<P> {
    /// The kind of failure.
    pub(crate) code: ErrorCode,
    /// The message. It ends with the remedy, if there is one.
    pub(crate) message: String,
    /// The remedy at the end of the message; `null` if there is none.
    pub(crate) remedy: Option<String>,
    /// The problems of the rule file, if the request had one.
    pub(crate) problems: P,
}

macro_rules! codes {
    ($($(#[doc = $about:literal])+ $variant:ident = $name:literal, $status:literal;)+) => {
        /// The kinds of failure. Each has its status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub(crate) enum ErrorCode {
            $($(#[doc = $about])+ #[serde(rename = $name)] $variant,)+
        }

        impl ErrorCode {
            /// Each code with its name, status and description.
            #[cfg(test)]
            pub(crate) const ALL: &'static [(ErrorCode, &'static str, u16, &'static str)] =
                &[$((ErrorCode::$variant, $name, $status, concat!($($about),+)),)+];

            fn status(self) -> StatusCode {
                let number: u16 = match self {
                    $(ErrorCode::$variant => $status,)+
                };
                StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    };
}

codes! {
    /// The request is invalid: a path, a parameter or the body.
    InvalidRequest = "invalid-request", 400;
    /// The request has no token, or one that is unknown, revoked or expired.
    Unauthenticated = "unauthenticated", 401;
    /// The role of the token or of the socket does not include the request.
    Forbidden = "forbidden", 403;
    /// There is no such path or object.
    NotFound = "not-found", 404;
    /// The list has no such entry, or not any more; nothing changed.
    NoEntry = "no-entry", 404;
    /// The path has no such method.
    MethodNotAllowed = "method-not-allowed", 405;
    /// The request did not arrive in time.
    SlowRequest = "slow-request", 408;
    /// The request does not fit the present state; nothing changed.
    Conflict = "conflict", 409;
    /// Other rules run than those of the request: read the rules again.
    OtherRules = "other-rules", 409;
    /// The change would leave no rule, or no way in from outside: it needs `force`. Nothing changed.
    Unconfirmed = "unconfirmed", 409;
    /// The body is too long.
    TooLong = "too-long", 413;
    /// The body is not declared as JSON.
    MediaType = "media-type", 415;
    /// The body is JSON, but not of this request.
    InvalidBody = "invalid-body", 422;
    /// The rules are invalid; `problems` has each of them, and nothing changed.
    InvalidRules = "invalid-rules", 422;
    /// The dataplane refused the request; nothing changed.
    Refused = "refused", 422;
    /// Too many requests, or too many with an invalid token. `Retry-After` has the time to wait.
    TooMany = "too-many-requests", 429;
    /// The dataplane or the control process failed.
    Failed = "failed", 500;
    /// The dataplane has another version, or is another program.
    BadGateway = "bad-gateway", 502;
    /// The dataplane is not reachable, or there are too many connections.
    Unavailable = "unavailable", 503;
    /// The dataplane did not answer in time.
    Timeout = "timeout", 504;
}

impl ApiError {
    /// 400: the request is invalid.
    pub fn bad_request(error: impl Into<String>) -> Self {
        ApiError::new(ErrorCode::InvalidRequest, error)
    }

    /// 401: no valid token.
    pub fn unauthenticated(error: &str) -> Self {
        let remedy = "make a token with `knockctl token new`, and send it as `Authorization: Bearer TOKEN`";
        ApiError::new(ErrorCode::Unauthenticated, error).with_remedy(remedy)
    }

    /// The same, for a token in the form of the web page.
    pub fn at_sign_in(self) -> Self {
        match (self.body.code, &self.body.remedy) {
            (ErrorCode::Unauthenticated, Some(remedy)) => {
                let message = self.body.message.trim_end_matches(remedy.as_str()).trim_end_matches(": ").to_owned();
                ApiError::new(ErrorCode::Unauthenticated, message).with_remedy("make one with `knockctl token new`")
            }
            _ => self,
        }
    }

    /// 401: a browser without a session.
    pub fn signed_out() -> Self {
        ApiError::new(ErrorCode::Unauthenticated, "you are not signed in, or the session has ended")
            .with_remedy("open a link of `knockctl page`, or sign in with a token of `knockctl token new`")
    }

    /// 401: a link that begins no session.
    pub(super) fn invalid_link(valid: Duration) -> Self {
        let message = format!("the link is wrong, was used already, or is older than {} s", valid.as_secs());
        ApiError::new(ErrorCode::Unauthenticated, message).with_remedy("run `knockctl page` on the host again")
    }

    /// 403: a request of a browser that does not come from the web page.
    pub fn not_from_the_page(error: &str) -> Self {
        ApiError::new(ErrorCode::Forbidden, error)
            .with_remedy("open the page at the address of the API, and use it there")
    }

    /// 403: another role is required.
    pub fn forbidden(operator: Option<&Operator>, role: Option<Role>, required: Role) -> Self {
        let role = role.map_or("no role", Role::name);
        let (message, remedy) = match operator {
            Some(operator @ Operator::Session(Holder::User(_))) => (
                format!("{operator} has the role `{role}` in this session, and this request needs `{required}`"),
                format!("sign in again with a link of `knockctl page --role {required}`"),
            ),
            Some(operator @ (Operator::Token(_) | Operator::Session(Holder::Token(_)))) => (
                format!("the {operator} has the role `{role}`, and this request needs `{required}`"),
                format!("use another token, or make one with `knockctl token new NAME --role {required}`"),
            ),
            _ => (
                format!("this socket has the role `{role}`, and this request needs `{required}`"),
                "use the socket of operators, `socket` in [control]".to_owned(),
            ),
        };
        ApiError::new(ErrorCode::Forbidden, message).with_remedy(&remedy)
    }

    /// 403: only users of this host may do this.
    pub fn only_at_the_socket() -> Self {
        let message = "tokens are created, listed and revoked by users of the host, not with a token";
        ApiError::new(ErrorCode::Forbidden, message).with_remedy("run `knockctl token` on the host, without --api")
    }

    /// 403: a link without a user of this host.
    pub(super) fn links_are_of_the_socket() -> Self {
        let message = "links that sign in are made by users of the host, not with a token or in a session";
        ApiError::new(ErrorCode::Forbidden, message).with_remedy("run `knockctl page` on the host, without --api")
    }

    /// 403: a link with a role that its user has not.
    pub(super) fn above_the_socket(wanted: Role, own: Role) -> Self {
        let message = format!("this socket has the role `{own}`, so it makes no link with the role `{wanted}`");
        ApiError::new(ErrorCode::Forbidden, message)
            .with_remedy("use the socket of operators, `socket` in [control], or omit the role")
    }

    /// 409: the web page is needed.
    pub(super) fn page_is_off(error: &str) -> Self {
        ApiError::conflict(error)
            .with_remedy("set `page = true` in [control.api], restart the control process, and use its address")
    }

    /// 404: no such path.
    pub fn not_found(path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        ApiError::new(ErrorCode::NotFound, format!("the API has no path {path}"))
            .with_remedy("/api/v1/openapi.json has all paths")
    }

    /// 405: the path has no such method.
    pub fn method_not_allowed() -> Self {
        ApiError::new(ErrorCode::MethodNotAllowed, "the path has no such method")
            .with_remedy("/api/v1/openapi.json has the methods of all paths")
    }

    /// 409: the request does not fit the present state.
    pub fn conflict(error: impl Into<String>) -> Self {
        ApiError::new(ErrorCode::Conflict, error)
    }

    /// 409: other rules run than those of the request.
    pub fn other_rules() -> Self {
        ApiError::new(ErrorCode::OtherRules, "other rules run than those of `order`")
            .with_remedy("read GET /api/v1/rules again")
    }

    /// 409: a change with a loss that must be confirmed.
    pub fn unconfirmed(loss: &str) -> Self {
        ApiError::new(ErrorCode::Unconfirmed, format!("{}; nothing changed", loss.trim_end()))
            .with_remedy("repeat the request with `force` to apply it nevertheless")
    }

    /// 422: the rules are not valid text.
    pub fn invalid_rules(problems: Vec<Problem>) -> Self {
        let count = problems.len();
        let error = format!("the rules have {count} problem{}; nothing changed", if count == 1 { "" } else { "s" });
        let mut failure = ApiError::new(ErrorCode::InvalidRules, error);
        failure.body.problems = problems;
        failure
    }

    /// 413: the body is longer than its path allows.
    pub fn too_long(longest: usize) -> Self {
        ApiError::new(ErrorCode::TooLong, format!("the request has more than {longest} bytes"))
            .with_remedy("only rules and entries may be long: split the file")
    }

    /// 429: too many requests.
    pub fn too_many(error: &str, wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        let mut failure = ApiError::new(ErrorCode::TooMany, error).with_remedy(&format!("try again in {seconds} s"));
        failure.wait = Some(wait);
        failure
    }

    /// 408 or 503: a limit on time, connections or memory.
    pub fn refused(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::SlowRequest => ErrorCode::SlowRequest,
            _ => ErrorCode::Unavailable,
        };
        ApiError::new(code, refusal.sentence())
    }

    /// 503: a limit of this process.
    pub fn unavailable(error: impl Into<String>) -> Self {
        ApiError::new(ErrorCode::Unavailable, error)
    }

    /// 500: a defect of this process.
    pub fn internal(error: &dyn Display) -> Self {
        ApiError::new(ErrorCode::Failed, format!("this is a defect of knockplane-control: {error}"))
    }

    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let body = ErrorBody { code, message: message.into(), remedy: None, problems: Vec::new() };
        ApiError { body, wait: None }
    }

    /// Adds the remedy at the end of the message.
    pub(super) fn with_remedy(mut self, remedy: &str) -> Self {
        self.body.message = format!("{}: {remedy}", self.body.message);
        self.body.remedy = Some(remedy.to_owned());
        self
    }

    /// The same, with the remedy at the end of its message.
    pub(super) fn ends_with(mut self, remedy: Option<String>) -> Self {
        self.body.remedy = remedy;
        self
    }

    /// The failure to read a request.
    fn unreadable(status: StatusCode, text: String) -> Self {
        let code = match status {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::MediaType,
            StatusCode::UNPROCESSABLE_ENTITY => ErrorCode::InvalidBody,
            StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLong,
            _ => ErrorCode::InvalidRequest,
        };
        ApiError::new(code, text).with_remedy("/api/v1/openapi.json has the form of each request")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ApiError { body, wait } = self;
        let code = body.code;
        let mut answer = (code.status(), Json(body)).into_response();
        if let Some(wait) = wait {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        if code == ErrorCode::Unauthenticated {
            let scheme = HeaderValue::from_static("Bearer realm=\"knockplane\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        answer
    }
}

impl From<DataplaneError> for ApiError {
    fn from(error: DataplaneError) -> Self {
        let code = match &error {
            DataplaneError::Conflict(_) => ErrorCode::Conflict,
            DataplaneError::NoEntry(_) => ErrorCode::NoEntry,
            DataplaneError::Refused(_) => ErrorCode::Refused,
            DataplaneError::Failed(_) => ErrorCode::Failed,
            DataplaneError::TooLong(_) => ErrorCode::TooLong,
            DataplaneError::Unreachable { .. } | DataplaneError::Lost(_) | DataplaneError::TurnedAway(_) => {
                ErrorCode::Unavailable
            }
            DataplaneError::Silent(_) => ErrorCode::Timeout,
            DataplaneError::Version { .. } | DataplaneError::Garbage { .. } => ErrorCode::BadGateway,
        };
        let mut failure = ApiError::new(code, error.to_string());
        failure.body.remedy = error.remedy();
        failure
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let code = match &error {
            TokenError::Taken(_) | TokenError::Full => ErrorCode::Conflict,
            TokenError::Missing(_) => ErrorCode::NotFound,
            TokenError::Time => ErrorCode::InvalidRequest,
            TokenError::Failed(_) => ErrorCode::Failed,
        };
        let failure = ApiError::new(code, error.to_string());
        match error.remedy() {
            Some(remedy) => failure.with_remedy(remedy),
            None => failure,
        }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        ApiError::unreadable(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        ApiError::unreadable(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        ApiError::unreadable(rejection.status(), rejection.body_text())
    }
}
