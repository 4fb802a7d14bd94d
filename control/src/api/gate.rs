//! Who may send which request: the operator and the role of each request, and the role that a route requires.
//!
//! At a unix socket, the mode of its file decides who connects, and the socket has a role. On TCP a request has a token, or the
//! cookie of a session at the web page. A request without either learns nothing: neither whether a path exists, nor whether the name
//! of a token does. [`SIGN_IN`] is the only request without them: its body has the token, or the secret of a link.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
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
use crate::page::browser::{self, Browser};
use crate::server::ConnectionSlot;
use crate::server::rates::{Rate, Rates};
use crate::sessions::{Holder, LINK_VALID, MAX_SESSIONS, NewSession, Sessions, ValidSession};
use crate::tokens::{MAX_TOKENS, Role, TokenName, TokenRefusal, Tokens, ValidToken};

/// The path of requests about the session of a browser. A POST signs in.
pub(super) const SIGN_IN: &str = "/api/v1/session";

/// Failed authentications of one address. A person who mistypes a token has fewer; a guess of a token would need 2^256.
const FAILURES: Rate = Rate { events: 10, period: Duration::from_secs(60) };

/// Addresses whose failures are counted.
const MAX_ADDRESSES: usize = 1_024;

/// Requests of one operator, by token or session. `knockctl` sends a request for each 10,000 entries of a list.
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
    /// The web page; `None` if it is off.
    page: Option<PageGate>,
    failures: Rates<IpAddr>,
    requests: Rates<Holder>,
    sign_ins: Rates<(TokenName, IpAddr)>,
    lines: Rates<()>,
}

/// The state of the gate for browsers.
#[derive(Debug)]
pub(super) struct PageGate {
    pub(super) sessions: Arc<Sessions>,
    pub(super) browser: Browser,
}

/// The reason that a request has no proof.
enum Refused {
    /// A browser without a session, or with one that has ended. That is no failed authentication: a cookie has 256 random bits.
    SignedOut(ApiError),
    Failed(ApiError),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Refused::Failed(error)
    }
}

/// The proof of a request on TCP.
#[derive(Clone, Debug)]
enum Proof {
    Token(ValidToken),
    Session(ValidSession, Arc<Sessions>),
}

impl Proof {
    fn role(&self) -> Role {
        match self {
            Proof::Token(token) => token.role,
            Proof::Session(session, _) => session.rights.role(),
        }
    }

    fn operator(&self) -> Operator {
        match self {
            Proof::Token(token) => Operator::Token(token.name.clone()),
            Proof::Session(session, _) => Operator::Session(session.rights.holder()),
        }
    }
}

impl Gate {
    /// The gate of the API on TCP.
    pub(super) fn tokens(tokens: Arc<Tokens>, page: Option<PageGate>) -> Self {
        Gate::Tokens(Box::new(TokenGate {
            tokens,
            page,
            failures: Rates::new(FAILURES, MAX_ADDRESSES),
            requests: Rates::new(REQUESTS, MAX_TOKENS + MAX_SESSIONS),
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
    if gate.page.is_some() && request.method() == Method::POST && request.uri().path() == SIGN_IN {
        request.extensions_mut().insert(Access { operator: Operator::Unknown, role: Role::Read });
        request.extensions_mut().insert(SignInGate { gate: Arc::clone(&guard.gate), address });
        return next.run(request).await;
    }
    let proof = match gate.authenticate(&request, address, &guard.app.metrics) {
        Ok(proof) => proof,
        // The page asks whether it is signed in. That it is not is an answer.
        Err(Refused::SignedOut(_)) if request.method() == Method::GET && request.uri().path() == SIGN_IN => {
            return StatusCode::NO_CONTENT.into_response();
        }
        Err(Refused::SignedOut(error) | Refused::Failed(error)) => return error.into_response(),
    };
    // No log of a layer below can contain a secret.
    request.headers_mut().remove(header::AUTHORIZATION);
    request.headers_mut().remove(header::COOKIE);
    let (operator, role) = (proof.operator(), proof.role());
    match &proof {
        Proof::Token(token) if gate.is_sign_in(token.name.clone(), address) => {
            record_sign_in(&guard.app, &operator, address)
        }
        Proof::Token(_) => {}
        Proof::Session(session, _) => _ = request.extensions_mut().insert(session.clone()),
    }
    request.extensions_mut().insert(Access { operator, role });
    let answer = next.run(request).await;
    let (parts, body) = answer.into_parts();
    // Only a stream has no length.
    let body = match body.size_hint().exact() {
        Some(_) => body,
        None => Body::new(ProvenBody::new(body, Arc::clone(&gate.tokens), proof)),
    };
    Response::from_parts(parts, body)
}

/// Records the sign-in of an operator.
pub(super) fn record_sign_in(app: &super::App, operator: &Operator, address: IpAddr) {
    // Peers over IPv6 are counted by their /64.
    let length = if address.is_ipv4() { 32 } else { 64 };
    let change = OperatorChange {
        address: IpNet::new(address, length).ok().map(AddressSet::Prefix),
        ..OperatorChange::of(OperatorAction::SignIn, operator.recorded())
    };
    app.events.record(change);
}

/// The gate, for the handler of a sign-in.
#[derive(Clone, Debug)]
pub(super) struct SignInGate {
    gate: Arc<Gate>,
    pub(super) address: IpAddr,
}

impl SignInGate {
    /// The web page; `None` if it is off.
    pub(super) fn page(&self) -> Option<&PageGate> {
        match &*self.gate {
            Gate::Socket(_) => None,
            Gate::Tokens(gate) => gate.page.as_ref(),
        }
    }

    /// Checks a token. Failures count as those of any other request.
    pub(super) fn check(&self, token: &str, metrics: &Metrics) -> Result<ValidToken, ApiError> {
        match &*self.gate {
            Gate::Socket(_) => Err(ApiError::unauthenticated("a socket has no tokens")),
            Gate::Tokens(gate) => {
                let checked = gate.tokens.check(token).map_err(Some);
                gate.limited(checked, self.address, metrics).map_err(ApiError::at_sign_in)
            }
        }
    }

    /// Begins a session with the secret of a link. Failures count as those of tokens.
    pub(super) fn begin_with_link(&self, link: &str, metrics: &Metrics) -> Result<NewSession, ApiError> {
        let Gate::Tokens(gate) = &*self.gate else { return Err(ApiError::invalid_link(LINK_VALID)) };
        let Some(PageGate { sessions, .. }) = &gate.page else { return Err(ApiError::invalid_link(LINK_VALID)) };
        let begun = sessions.begin_with_link(link).map_err(|error| ApiError::internal(&error))?;
        begun.ok_or_else(|| gate.failed("invalid link", ApiError::invalid_link(LINK_VALID), self.address, metrics))
    }
}

impl TokenGate {
    /// Whether this is the first request with the token from the address for a long time.
    fn is_sign_in(&self, name: TokenName, address: IpAddr) -> bool {
        self.sign_ins.take((name, address), Instant::now()).is_ok()
    }

    /// The proof of a request: its token, or else the cookie of its session.
    fn authenticate(&self, request: &Request, address: IpAddr, metrics: &Metrics) -> Result<Proof, Refused> {
        let headers = request.headers();
        if let Some(page) = &self.page
            && !headers.contains_key(header::AUTHORIZATION)
        {
            if let Some(secret) = page.browser.cookie(headers) {
                return self.session(page, secret, request, metrics);
            }
            if request.uri().path() == SIGN_IN {
                return Err(Refused::SignedOut(ApiError::signed_out()));
            }
        }
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token =
            token.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let checked = match token {
            None => Err(None),
            Some((_, token)) => self.tokens.check(token.trim()).map_err(Some),
        };
        Ok(Proof::Token(self.limited(checked, address, metrics)?))
    }

    /// The session of a request of the web page.
    fn session(&self, page: &PageGate, secret: &str, request: &Request, metrics: &Metrics) -> Result<Proof, Refused> {
        let (method, headers) = (request.method(), request.headers());
        let is_active = !headers.contains_key(browser::BACKGROUND);
        let refuse = |error: ApiError| {
            metrics.api_refused(ApiRefusal::Authentication);
            error
        };
        page.browser.check_origin(method, headers).map_err(refuse)?;
        let session = page.sessions.check(secret, is_active);
        let session = session.ok_or_else(|| Refused::SignedOut(refuse(ApiError::signed_out())))?;
        browser::check_csrf(method, headers, &session.csrf).map_err(refuse)?;
        self.within_rate(session.rights.holder(), metrics)?;
        Ok(Proof::Session(session, Arc::clone(&page.sessions)))
    }

    /// Counts a failure, or a request with a valid token.
    fn limited(
        &self,
        checked: Result<ValidToken, Option<TokenRefusal>>,
        address: IpAddr,
        metrics: &Metrics,
    ) -> Result<ValidToken, ApiError> {
        let valid = checked.map_err(|refusal| {
            let (reason, error) = match refusal {
                None => ("no token", ApiError::unauthenticated("the request has no token")),
                Some(TokenRefusal::Unknown) => {
                    ("unknown token", ApiError::unauthenticated("the token is unknown or revoked"))
                }
                Some(TokenRefusal::Expired) => ("expired token", ApiError::unauthenticated("the token has expired")),
            };
            self.failed(reason, error, address, metrics)
        })?;
        self.within_rate(Holder::Token(valid.name.clone()), metrics)?;
        Ok(valid)
    }

    /// Counts a failed authentication, and returns the error for it.
    fn failed(&self, reason: &'static str, error: ApiError, address: IpAddr, metrics: &Metrics) -> ApiError {
        let now = Instant::now();
        // A valid token or link is not affected: other clients may have the same address.
        if let Err(wait) = self.failures.take(address, now) {
            metrics.api_refused(ApiRefusal::Rate);
            return ApiError::too_many("too many requests with an invalid token or link came from this address", wait);
        }
        metrics.api_refused(ApiRefusal::Authentication);
        if self.lines.take((), now).is_ok() {
            warn!(target: target!("operator"), source = %address, reason, "API request refused");
        }
        error
    }

    fn within_rate(&self, holder: Holder, metrics: &Metrics) -> Result<(), ApiError> {
        self.requests.take(holder, Instant::now()).map_err(|wait| {
            metrics.api_refused(ApiRefusal::Rate);
            ApiError::too_many("too many requests came from this operator", wait)
        })
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

/// A body that ends when its token or its session does.
struct ProvenBody {
    body: Body,
    ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl ProvenBody {
    fn new(body: Body, tokens: Arc<Tokens>, proof: Proof) -> Self {
        let ended = async move {
            match proof {
                Proof::Token(token) => tokens.ended(&token).await,
                Proof::Session(session, sessions) => sessions.ended(&session).await,
            }
        };
        ProvenBody { body, ended: Some(Box::pin(ended)) }
    }
}

impl hyper::body::Body for ProvenBody {
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
