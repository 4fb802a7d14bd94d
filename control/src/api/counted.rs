//! Counts the requests of all listeners.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::App;
use crate::metrics::requests;

/// Counts a request with the status of its answer and the time until the answer begins.
pub(super) async fn counted(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (began, class) = (Instant::now(), requests::class(request.method(), request.uri().path()));
    let answer = next.run(request).await;
    app.metrics.requests.note(class, answer.status(), began.elapsed());
    answer
}
