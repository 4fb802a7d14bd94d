//! Every route with every role, and with malformed, deep and long requests: no panic, no request to the dataplane without the role,
//! and no secret in an answer.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tower::ServiceExt as _;

use super::*;
use crate::tokens::NewToken;

/// A dataplane that accepts connections, counts them, and answers nothing.
fn dataplane(dir: &std::path::Path) -> (Dataplane, Arc<AtomicUsize>) {
    let socket = dir.join("dataplane.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Relaxed);
        }
    });
    (Dataplane::new(socket), asked)
}

/// The API on TCP with a token of each role.
struct Api {
    _dir: tempfile::TempDir,
    app: Arc<App>,
    router: Router,
    tokens: Arc<Tokens>,
    made: Vec<NewToken>,
    asked: Arc<AtomicUsize>,
}

impl Api {
    fn new() -> Api {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Arc::new(Tokens::load(&dir.path().join("tokens.json")).unwrap());
        let day = Duration::from_secs(86_400);
        let make = |role: Role| tokens.create(role.name().parse().unwrap(), role, day).unwrap();
        let made = Role::ALL.map(make).into();
        let (dataplane, asked) = dataplane(dir.path());
        let mut app = App::new(dataplane, Resolver::default(), Metrics::default());
        app.tokens = Some(Arc::clone(&tokens));
        let app = Arc::new(app);
        let router = with_tokens(app.clone(), Arc::clone(&tokens));
        Api { _dir: dir, app, router, tokens, made, asked }
    }

    async fn send(&self, router: &Router, request: Request<Body>) -> (StatusCode, String) {
        let answer = router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        let stored = std::fs::read_to_string(self.tokens.path()).unwrap();
        let hashes = stored.split('"').filter(|word| word.len() == 64);
        for secret in self.made.iter().map(|made| made.token.as_str()).chain(hashes) {
            assert!(!body.contains(secret), "{body}");
        }
        (status, body)
    }
}

fn request(method: &Method, path: &str, token: Option<&str>, body: Vec<u8>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Body::from(body)).unwrap()
}

/// The path with this text for each parameter.
fn filled(path: &str, with: &str) -> String {
    let segment = |segment: &str| if segment.starts_with('{') { with.to_owned() } else { segment.to_owned() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

fn code(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    assert!(body["message"].is_string() && body.get("remedy").is_some(), "{body}");
    body["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_route_needs_its_role() {
    let api = Api::new();
    for endpoint in routes::table() {
        let path = filled(endpoint.path, "1");
        for made in &api.made {
            let before = api.asked.load(Relaxed);
            let sent = request(&endpoint.method, &path, Some(&made.token), Vec::new());
            let (status, body) =
                timeout(Duration::from_millis(300), api.send(&api.router, sent)).await.unwrap_or_default();
            let is_at_the_socket =
                ["/api/v1/tokens", "/api/v1/session-links"].iter().any(|path| endpoint.path.starts_with(path));
            if made.info.role < endpoint.role || is_at_the_socket {
                assert_eq!(
                    (status, code(&body)),
                    (StatusCode::FORBIDDEN, "forbidden".to_owned()),
                    "{path} {:?}",
                    made.info
                );
                tokio::task::yield_now().await;
                assert_eq!(api.asked.load(Relaxed), before, "{path}: nothing was sent to the dataplane");
            } else {
                assert!(![StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED].contains(&status), "{path} {body}");
            }
        }
        let sent = request(&endpoint.method, &path, None, Vec::new());
        let read_only = read_only(api.app.clone());
        let (status, body) = timeout(Duration::from_millis(300), api.send(&read_only, sent)).await.unwrap_or_default();
        assert_eq!(
            status == StatusCode::FORBIDDEN,
            endpoint.role > Role::Read,
            "{path} at the read-only socket: {body}"
        );
    }
}

#[tokio::test]
async fn without_a_valid_token_a_request_learns_nothing() {
    let api = Api::new();
    let revoked = api.tokens.create("gone".parse().unwrap(), Role::Administer, Duration::from_secs(60)).unwrap();
    api.tokens.revoke("gone").unwrap();
    for path in ["/api/v1/status", "/api/v1/nothing", "/metrics", "/"] {
        let (status, body) = api.send(&api.router, request(&Method::GET, path, Some(&revoked.token), Vec::new())).await;
        assert_eq!((status, code(&body).as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"));
        assert!(body.contains("unknown or revoked") && body.contains("knockctl token new"), "{body}");
    }
    for header in ["", "Basic abc", "Bearer", "Bearer ", "Bearer \u{e4}"] {
        let mut sent = request(&Method::GET, "/api/v1/status", None, Vec::new());
        sent.headers_mut().insert(header::AUTHORIZATION, header::HeaderValue::from_bytes(header.as_bytes()).unwrap());
        let answer = api.router.clone().oneshot(sent).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{header}");
        assert!(answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer "));
    }
    // The tenth failure of this address in a minute.
    let invalid = || request(&Method::GET, "/api/v1/status", Some("kp_x"), Vec::new());
    api.send(&api.router, invalid()).await;
    let sent = request(&Method::GET, "/api/v1/openapi.json", Some(&api.made[0].token), Vec::new());
    let answer = api.router.clone().oneshot(sent).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "clients with a valid token are not affected");
    let answer = api.router.clone().oneshot(invalid()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers()[header::RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() <= 61);
    assert_eq!(api.asked.load(Relaxed), 0);
    let text = api.app.metrics.render(None, &log_status(), &EventNumbers::default(), SystemTime::now());
    assert!(text.contains("control_api_requests_refused_total{reason=\"authentication\"} 10\n"), "{text}");
}

#[tokio::test]
async fn the_requests_of_a_token_are_limited() {
    let api = Api::new();
    let get = |token: usize| request(&Method::GET, "/api/v1/openapi.json", Some(&api.made[token].token), Vec::new());
    for _ in 0..1_000 {
        assert_eq!(api.router.clone().oneshot(get(0)).await.unwrap().status(), StatusCode::OK);
    }
    let (status, body) = api.send(&api.router, get(0)).await;
    assert_eq!((status, code(&body).as_str()), (StatusCode::TOO_MANY_REQUESTS, "too-many-requests"));
    assert_eq!(api.send(&api.router, get(1)).await.0, StatusCode::OK, "another token is not affected");
}

#[tokio::test]
async fn an_answer_without_end_ends_with_its_token() {
    let api = Api::new();
    let stream = || async {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        tokio::spawn(async move {
            while sender.send(Ok(Bytes::from_static(b"line\n"))).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Body::new(http_body_util::StreamBody::new(ReceiverFrames(receiver)))
    };
    let guard = gate::Guard { gate: Arc::new(Gate::tokens(Arc::clone(&api.tokens), None)), app: Arc::clone(&api.app) };
    let router: Router =
        Router::new().route("/stream", get(stream)).layer(axum::middleware::from_fn_with_state(guard, gate::admit));
    let sent = || request(&Method::GET, "/stream", Some(&api.made[0].token), Vec::new());
    let mut body = router.clone().oneshot(sent()).await.unwrap().into_body();
    for _ in 0..3 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    api.tokens.revoke("read").unwrap();
    let rest = async { while body.frame().await.is_some() {} };
    timeout(Duration::from_secs(10), rest).await.expect("the stream ends");
    assert_eq!(router.oneshot(sent()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

/// The parts of a stream.
struct ReceiverFrames(tokio::sync::mpsc::Receiver<Result<Bytes, std::io::Error>>);

impl futures_core::Stream for ReceiverFrames {
    type Item = Result<hyper::body::Frame<Bytes>, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|part| part.map(|part| part.map(hyper::body::Frame::data)))
    }
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let json = prop_oneof![Just("null"), Just("7"), Just("\"\""), Just("[]"), Just("{}"), Just("1e999"), Just("-0")];
    let member = (
        prop::sample::select(vec![
            "source",
            "text",
            "rules",
            "confirm_within",
            "time",
            "packets",
            "entries",
            "address",
            "timeout",
            "comment",
            "name",
            "role",
            "expires",
            "side",
            "frame",
            "edit",
            "origin",
            "based_on",
            "back_to",
            "base",
            "commands",
            "menu",
            "dry_run",
            "force",
            "packet",
            "from",
            "allow_invalid",
        ]),
        json,
    );
    let object = prop::collection::vec(member, 0..6).prop_map(|members| {
        let members: Vec<_> = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    });
    prop_oneof![
        3 => object,
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (1..5_000_usize, prop::sample::select(vec!["[", "{\"a\":", "{\"rules\":", "["]))
            .prop_map(|(depth, open)| open.repeat(depth).into_bytes()),
        1 => (0..300_000_usize).prop_map(|length| vec![b' '; length]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_request_panics_or_changes_anything_without_its_role(
        route in any::<prop::sample::Index>(),
        role in 0..4_usize,
        segment in prop_oneof![
            Just("1".to_owned()),
            Just("192.0.2.1".to_owned()),
            "[a-z%]{0,20}",
            (1..3_000_usize).prop_map(|length| "a".repeat(length)),
        ],
        query in prop_oneof![Just(String::new()), "\\?[a-z=&%0-9-]{0,60}", (1..9_000_usize).prop_map(|n| format!("?limit={}", "9".repeat(n)))],
        body in bodies(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let api = Api::new();
            let table = routes::table();
            let endpoint = &table[route.index(table.len())];
            let path = filled(endpoint.path, &segment) + &query;
            if path.parse::<Uri>().is_err() {
                return;
            }
            let token = api.made.get(role).map(|made| made.token.as_str());
            let sent = request(&endpoint.method, &path, token, body);
            let answered = timeout(Duration::from_millis(50), api.send(&api.router, sent)).await;
            let Ok((status, body)) = answered else {
                // The request waits for the dataplane, which does not answer.
                assert!(role < 3 && api.made[role].info.role >= endpoint.role, "{path}");
                return;
            };
            if status.is_success() {
                assert!(endpoint.path.ends_with("openapi.json"), "{path}: {body}");
                return;
            }
            let code = code(&body);
            assert!(!body.contains("defect"), "{body}");
            match api.made.get(role) {
                None => assert_eq!(code, "unauthenticated"),
                // An empty segment makes another path.
                Some(made) if made.info.role < endpoint.role => {
                    assert!(["forbidden", "not-found", "method-not-allowed"].contains(&code.as_str()), "{path}: {body}");
                }
                Some(_) => {}
            }
            if role >= 3 || api.made[role].info.role < endpoint.role {
                tokio::task::yield_now().await;
                assert_eq!(api.asked.load(Relaxed), 0, "{path}");
            }
        });
    }
}
