//! Who may send which request: the operator and the role of each request, and the role that a route requires.
//!
//! At a unix socket, the mode of its file decides who connects, and the socket has a role. On TCP a request has a token. A request
//! without a valid token learns nothing: neither whether a path exists, nor whether the name of a token does.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as _, Frame, SizeHint};
use ipnet::IpNet;
use knockplane_log::target;
use knockplane_policy::rule::AddressSet;
use tracing::warn;

use super::failure::ApiError;
use super::operator::{Access, Operator};
use crate::events::change::{OperatorAction, OperatorChange};
use crate::metrics::{ApiRefusal, Metrics};
use crate::server::ConnectionSlot;
use crate::server::rates::{Rate, Rates};
use crate::tokens::{Role, TokenName, TokenRefusal, Tokens, ValidToken};

/// Failed authentications of one address. A person who mistypes a token has fewer; a guess of a token would need 2^256.
const FAILURES: Rate = Rate { events: 10, period: Duration::from_secs(60) };

/// Addresses whose failures are counted.
const MAX_ADDRESSES: usize = 1_024;

/// Requests with one token. `knockctl` sends a request for each 10,000 entries of a list.
const REQUESTS: Rate = Rate { events: 1_000, period: Duration::from_secs(10) };

/// Events about a token that is used from an address: the first request, and the first one after this time.
const SIGN_INS: Rate = Rate { events: 1, period: Duration::from_secs(12 * 60 * 60) };

/// Lines of the log about refused requests.
const LINES: Rate = Rate { events: 10, period: Duration::from_secs(10) };

/// Admits requests, and finds their operators and roles.
#[derive(Debug)]
pub enum Gate {
    /// A unix socket, with the role of all its peers.
    Socket(Role),
    /// The API on TCP.
    Tokens(Box<TokenGate>),
}

/// The state of the gate on TCP.
#[derive(Debug)]
pub struct TokenGate {
    tokens: Arc<Tokens>,
    failures: Rates<IpAddr>,
    requests: Rates<TokenName>,
    sign_ins: Rates<(TokenName, IpAddr)>,
    lines: Rates<()>,
}

impl Gate {
    /// The gate of the API on TCP.
    pub fn tokens(tokens: Arc<Tokens>) -> Self {
        Gate::Tokens(Box::new(TokenGate {
            tokens,
            failures: Rates::new(FAILURES, MAX_ADDRESSES),
            requests: Rates::new(REQUESTS, crate::tokens::MAX_TOKENS),
            sign_ins: Rates::new(SIGN_INS, MAX_ADDRESSES),
            lines: Rates::new(LINES, 1),
        }))
    }
}

/// The state of [`admit`].
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) gate: Arc<Gate>,
    pub(super) app: Arc<super::App>,
}

/// Finds the operator and the role of a request, or refuses it.
pub(super) async fn admit(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Arc<ConnectionSlot>>().cloned();
    let gate = match &*guard.gate {
        Gate::Socket(role) => {
            let uid = connection.and_then(|connection| connection.uid());
            let operator = uid.map_or(Operator::Unknown, Operator::User);
            request.extensions_mut().insert(Access { operator, role: *role });
            return next.run(request).await;
        }
        Gate::Tokens(gate) => gate,
    };
    // A router without a server has no peer.
    let address = connection.and_then(|connection| connection.address()).unwrap_or(Ipv4Addr::LOCALHOST.into());
    let valid = match gate.authenticate(request.headers(), address, &guard.app.metrics) {
        Ok(valid) => valid,
        Err(error) => return error.into_response(),
    };
    // No log of a layer below can contain the token.
    request.headers_mut().remove(header::AUTHORIZATION);
    let ValidToken { name, role, .. } = valid.clone();
    let operator = Operator::Token(name.clone());
    if gate.is_sign_in(name, address) {
        // Peers over IPv6 are counted by their /64.
        let length = if address.is_ipv4() { 32 } else { 64 };
        let change = OperatorChange {
            address: IpNet::new(address, length).ok().map(AddressSet::Prefix),
            ..OperatorChange::of(OperatorAction::SignIn, operator.recorded())
        };
        guard.app.events.record(change);
    }
    request.extensions_mut().insert(Access { operator, role });
    let answer = next.run(request).await;
    let (parts, body) = answer.into_parts();
    // Only a stream has no length.
    let body = match body.size_hint().exact() {
        Some(_) => body,
        None => Body::new(TokenBody::new(body, Arc::clone(&gate.tokens), valid)),
    };
    Response::from_parts(parts, body)
}

impl TokenGate {
    /// Whether this is the first request with the token from the address for a long time.
    fn is_sign_in(&self, name: TokenName, address: IpAddr) -> bool {
        self.sign_ins.take((name, address), Instant::now()).is_ok()
    }

    fn authenticate(&self, headers: &HeaderMap, address: IpAddr, metrics: &Metrics) -> Result<ValidToken, ApiError> {
        let now = Instant::now();
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token =
            token.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let checked = match token {
            None => Err(None),
            Some((_, token)) => self.tokens.check(token.trim()).map_err(Some),
        };
        let valid = checked.map_err(|refusal| {
            // A valid token is not affected: other clients may have the same address.
            if let Err(wait) = self.failures.take(address, now) {
                metrics.api_refused(ApiRefusal::Rate);
                return ApiError::too_many("too many requests with an invalid token came from this address", wait);
            }
            metrics.api_refused(ApiRefusal::Authentication);
            let (reason, error) = match refusal {
                None => ("no token", ApiError::unauthenticated("the request has no token")),
                Some(TokenRefusal::Unknown) => {
                    ("unknown token", ApiError::unauthenticated("the token is unknown or revoked"))
                }
                Some(TokenRefusal::Expired) => ("expired token", ApiError::unauthenticated("the token has expired")),
            };
            if self.lines.take((), now).is_ok() {
                warn!(target: target!("operator"), source = %address, reason, "API request refused");
            }
            error
        })?;
        if let Err(wait) = self.requests.take(valid.name.clone(), now) {
            metrics.api_refused(ApiRefusal::Rate);
            return Err(ApiError::too_many("too many requests came with this token", wait));
        }
        Ok(valid)
    }
}

/// The state of [`require`]: the role of one route.
#[derive(Clone, Debug)]
pub(super) struct Required {
    pub(super) role: Role,
    pub(super) app: Arc<super::App>,
}

/// Refuses a request without the role that its route requires.
pub(super) async fn require(State(required): State<Required>, request: Request, next: Next) -> Response {
    // A router without a gate admits nothing.
    let access = request.extensions().get::<Access>();
    let role = access.map(|access| access.role);
    if role.is_some_and(|role| role >= required.role) {
        return next.run(request).await;
    }
    required.app.metrics.api_refused(ApiRefusal::Role);
    ApiError::forbidden(access.map(|access| &access.operator), role, required.role).into_response()
}

/// A body that ends when its token does.
struct TokenBody {
    body: Body,
    ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl TokenBody {
    fn new(body: Body, tokens: Arc<Tokens>, token: ValidToken) -> Self {
        TokenBody { body, ended: Some(Box::pin(async move { tokens.ended(&token).await })) }
    }
}

impl hyper::body::Body for TokenBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(ended) = &mut self.ended else { return Poll::Ready(None) };
        if ended.as_mut().poll(context).is_ready() {
            self.ended = None;
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
