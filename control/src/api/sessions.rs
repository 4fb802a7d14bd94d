//! Requests about the sessions of the web page.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use knockplane_policy::time::Time;

use super::App;
use super::failure::ApiError;
use super::gate::{self, PageGate, SignInGate};
use super::messages::{SessionInfo, SignIn};
use super::operator::Operator;
use crate::events::change::{OperatorAction, OperatorChange};
use crate::json::rfc_3339;
use crate::page::browser::Browser;
use crate::sessions::{Holder, IDLE, LONGEST, ValidSession};

/// `POST /api/v1/session`.
pub(super) async fn sign_in(
    State(app): State<Arc<App>>,
    gate: Option<Extension<SignInGate>>,
    headers: HeaderMap,
    body: Result<Json<SignIn>, JsonRejection>,
) -> Result<Response, ApiError> {
    let gate = gate.as_ref().map(|Extension(gate)| gate);
    let Some((gate, PageGate { sessions, browser })) = gate.and_then(|gate| Some((gate, gate.page()?))) else {
        return Err(page_is_off());
    };
    browser.check_origin(&Method::POST, &headers)?;
    let Json(SignIn { token, link }) = body?;
    let begun = match (token, link) {
        (None, Some(link)) => gate.begin_with_link(link.trim(), &app.metrics)?,
        (Some(token), None) => {
            let token = gate.check(token.trim(), &app.metrics)?;
            let kept = Arc::clone(sessions);
            on_disk(move || kept.begin(token)).await?.map_err(|error| ApiError::internal(&error))?
        }
        _ => return Err(ApiError::bad_request("give either `token` or `link`")),
    };
    let session = begun.session;
    gate::record_sign_in(&app, &Operator::Session(session.rights.holder()), gate.address);
    let cookie = browser.set_cookie(&headers, &begun.secret, LONGEST.as_secs());
    let cookie = HeaderValue::from_str(&cookie).map_err(|error| ApiError::internal(&error))?;
    Ok(([(SET_COOKIE, cookie)], Json(info_of(&session))).into_response())
}

/// `GET /api/v1/session`. The gate answers a browser without a session with 204.
pub(super) async fn session(session: Option<Extension<ValidSession>>) -> Result<Json<SessionInfo>, ApiError> {
    let Extension(session) = session.ok_or_else(no_session)?;
    Ok(Json(info_of(&session)))
}

/// `DELETE /api/v1/session`.
pub(super) async fn sign_out(
    State(app): State<Arc<App>>,
    operator: Operator,
    session: Option<Extension<ValidSession>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Extension(session) = session.ok_or_else(no_session)?;
    let sessions = app.web_page.as_ref().map(|page| Arc::clone(&page.sessions)).ok_or_else(page_is_off)?;
    on_disk(move || sessions.end(&session)).await?;
    app.events.record(OperatorChange::of(OperatorAction::SignOut, operator.recorded()));
    let browser = Browser { with_tls: app.certificates.is_some() };
    let cookie =
        HeaderValue::from_str(&browser.set_cookie(&headers, "", 0)).map_err(|error| ApiError::internal(&error))?;
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

fn info_of(session: &ValidSession) -> SessionInfo {
    SessionInfo {
        name: match session.rights.holder() {
            Holder::Token(name) => name.to_string(),
            user @ Holder::User(_) => user.to_string(),
        },
        role: session.rights.role(),
        csrf: session.csrf.clone(),
        expires: rfc_3339(Time::from_nanos(session.expires.saturating_mul(1_000_000_000))),
        idle_seconds: IDLE.as_secs(),
    }
}

pub(super) fn page_is_off() -> ApiError {
    ApiError::page_is_off("the web page is off, or this is not the API on TCP")
}

fn no_session() -> ApiError {
    ApiError::conflict("the request has no session").with_remedy("POST /api/v1/session begins one")
}

/// Runs code that waits for the disk, and ends also if the client disconnects.
async fn on_disk<T: Send + 'static>(code: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(code).await.map_err(|error| ApiError::internal(&error))
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use axum::Router;
    use axum::body::Body;
    use axum::http::{Request, header};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::api::{WebPage, with_tokens};
    use crate::dataplane::Dataplane;
    use crate::metrics::Metrics;
    use crate::names::Resolver;
    use crate::sessions::Sessions;
    use crate::tokens::{Role, Tokens};

    /// The API on TCP with the web page.
    pub(in crate::api) struct Page {
        pub(in crate::api) dir: tempfile::TempDir,
        pub(in crate::api) app: Arc<App>,
        tokens: Arc<Tokens>,
        router: Router,
    }

    impl Page {
        pub(in crate::api) fn new() -> Page {
            let dir = tempfile::tempdir().unwrap();
            let tokens = Arc::new(Tokens::load(&dir.path().join("tokens.json")).unwrap());
            let mut app = App::new(Dataplane::new("/nonexistent.sock"), Resolver::default(), Metrics::default());
            let sessions = Arc::new(Sessions::load(&dir.path().join("sessions.json"), Arc::clone(&tokens)));
            app.web_page = Some(WebPage { sessions, address: "http://127.0.0.1:9480/".to_owned() });
            let app = Arc::new(app);
            let router = with_tokens(Arc::clone(&app), Arc::clone(&tokens));
            Page { dir, app, tokens, router }
        }

        pub(in crate::api) fn token(&self, role: Role) -> String {
            self.tokens.create(role.name().parse().unwrap(), role, Duration::from_secs(86_400)).unwrap().token
        }

        pub(in crate::api) async fn send(
            &self,
            method: Method,
            path: &str,
            headers: &[(&str, &str)],
            body: &str,
        ) -> (StatusCode, HeaderMap, String) {
            let mut request =
                Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
            for (name, value) in [("host", "127.0.0.1:9480")].iter().chain(headers) {
                request = request.header(*name, *value);
            }
            let answer = self.router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, headers, String::from_utf8_lossy(&body).into_owned())
        }

        /// Signs in, and returns the cookie and the CSRF value.
        async fn sign_in(&self, token: &str) -> (String, String) {
            let body = format!("{{\"token\": \"{token}\"}}");
            let (status, headers, body) = self.send(Method::POST, "/api/v1/session", &[], &body).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            assert!(!body.contains(token), "{body}");
            let cookie = headers[SET_COOKIE].to_str().unwrap();
            assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            (cookie.split(';').next().unwrap().to_owned(), body["csrf"].as_str().unwrap().to_owned())
        }
    }

    #[tokio::test]
    async fn a_session_has_the_role_of_its_token_and_ends_with_it() {
        let page = Page::new();
        let (cookie, csrf) = page.sign_in(&page.token(Role::Read)).await;
        let with = [("cookie", cookie.as_str()), ("x-knockplane-csrf", csrf.as_str())];
        let (status, _, body) = page.send(Method::GET, "/api/v1/session", &with, "").await;
        assert!(status == StatusCode::OK && body.contains("\"role\":\"read\"") && body.contains(&csrf), "{body}");
        let (status, _, body) = page.send(Method::POST, "/api/v1/confirm", &with, "").await;
        assert!(status == StatusCode::FORBIDDEN && body.contains("token read has the role `read`"), "{body}");
        page.tokens.revoke("read").unwrap();
        let (status, _, body) = page.send(Method::GET, "/api/v1/openapi.json", &with, "").await;
        assert!(status == StatusCode::UNAUTHORIZED && body.contains("session has ended"), "{body}");
    }

    #[tokio::test]
    async fn a_change_needs_the_csrf_value_and_this_origin() {
        let page = Page::new();
        let (cookie, csrf) = page.sign_in(&page.token(Role::Administer)).await;
        let (cookie, csrf) = (("cookie", cookie.as_str()), ("x-knockplane-csrf", csrf.as_str()));
        let change = async |headers: &[(&str, &str)]| page.send(Method::DELETE, "/api/v1/session", headers, "").await.0;
        assert_eq!(change(&[cookie]).await, StatusCode::FORBIDDEN);
        assert_eq!(change(&[cookie, ("x-knockplane-csrf", "x")]).await, StatusCode::FORBIDDEN);
        assert_eq!(change(&[cookie, csrf, ("origin", "http://evil.example")]).await, StatusCode::FORBIDDEN);
        assert_eq!(change(&[cookie, csrf, ("sec-fetch-site", "cross-site")]).await, StatusCode::FORBIDDEN);
        assert_eq!(change(&[cookie, csrf]).await, StatusCode::NO_CONTENT);
        assert_eq!(change(&[cookie, csrf]).await, StatusCode::UNAUTHORIZED, "signed out");
    }

    #[tokio::test]
    async fn failed_sign_ins_are_limited_and_visits_without_a_session_are_not_counted() {
        let page = Page::new();
        for _ in 0..20 {
            let (status, ..) = page.send(Method::GET, "/api/v1/session", &[], "").await;
            assert_eq!(status, StatusCode::NO_CONTENT);
        }
        let wrong = "{\"token\": \"kp_wrong\"}";
        for _ in 0..10 {
            let (status, _, body) = page.send(Method::POST, "/api/v1/session", &[], wrong).await;
            assert!(status == StatusCode::UNAUTHORIZED && body.contains("unknown or revoked: make one with"), "{body}");
        }
        let (status, ..) = page.send(Method::POST, "/api/v1/session", &[], wrong).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        let (status, ..) =
            page.send(Method::POST, "/api/v1/session", &[("origin", "http://evil.example")], wrong).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn files_have_strict_headers_and_need_no_sign_in() {
        let page = Page::new();
        for (path, media_type) in [("/", "text/html"), ("/app.css", "text/css"), ("/js/main.js", "text/javascript")] {
            let (status, headers, body) = page.send(Method::GET, path, &[], "").await;
            assert!(status == StatusCode::OK && !body.is_empty(), "{path}");
            assert!(headers[header::CONTENT_TYPE].to_str().unwrap().starts_with(media_type), "{path}");
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            let known = [("if-none-match", headers[header::ETAG].to_str().unwrap())];
            assert_eq!(page.send(Method::GET, path, &known, "").await.0, StatusCode::NOT_MODIFIED);
        }
        let (status, headers, _) = page.send(Method::GET, "/api/v1/status", &[], "").await;
        assert_eq!(
            (status, &headers[header::CACHE_CONTROL]),
            (StatusCode::UNAUTHORIZED, &HeaderValue::from_static("no-store"))
        );
        assert_eq!(page.send(Method::GET, "/js/nothing.js", &[], "").await.0, StatusCode::NOT_FOUND);
    }
}
