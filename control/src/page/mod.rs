//! The web page: its files, with the headers that protect it.
//!
//! The files need no sign-in: they contain no data of the filter. Everything that the page shows comes from `/api/v1`.
//!
//! | file         | owns |
//! |--------------|------|
//! | `mod.rs`     | the router, and the headers of all answers |
//! | `assets.rs`  | the files |
//! | `browser.rs` | checks of the requests of browsers, and their cookie |

mod assets;
pub(crate) mod browser;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use self::browser::Browser;

/// The headers of all answers. Scripts and styles are files of this origin alone, and no script can make another one from text.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// The router of the files.
pub(crate) fn router(browser: Browser) -> Router {
    Router::new()
        .route("/", get(file))
        .route("/{name}", get(file))
        .route("/js/{*path}", get(file))
        .route("/vendor/{*path}", get(file))
        .with_state(browser)
}

/// Adds the headers to all answers of a router.
pub(crate) fn with_headers(router: Router) -> Router {
    router.layer(from_fn(add_headers))
}

async fn add_headers(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let caching = HeaderValue::from_static("no-store");
    answer.headers_mut().entry(header::CACHE_CONTROL).or_insert(caching);
    answer
}

async fn file(State(browser): State<Browser>, headers: HeaderMap, uri: Uri) -> Response {
    if let Err(error) = browser.check_host(&headers) {
        return error.into_response();
    }
    let name = match uri.path() {
        "/" => "index.html",
        path => path.trim_start_matches('/'),
    };
    let Some(asset) = assets::find(name) else { return StatusCode::NOT_FOUND.into_response() };
    // The browser asks each time whether its copy is the present one.
    let common = [(header::ETAG, asset.etag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == asset.etag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    let content_type = [(header::CONTENT_TYPE, asset.content_type), (header::VARY, "accept-encoding")];
    match accepted.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("gzip")) {
        true => (common, content_type, [(header::CONTENT_ENCODING, "gzip")], asset.compressed.clone()).into_response(),
        false => (common, content_type, asset.content.clone()).into_response(),
    }
}
