//! Limits on requests that compute for long: checks, plans, explanations and edits of rules.
//!
//! Each listener has two classes of such requests, so that readers do not make changes wait. A class runs a few requests at once;
//! some wait, and further ones get 429. A request keeps its place until its computation ends, also if the client disconnects. It
//! waits without a turn for the dataplane, so other requests are not delayed.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::App;
use super::failure::ApiError;
use crate::metrics::ApiRefusal;
use crate::server::body::BodyMemory;

/// Computations of a class at once.
const AT_ONCE: usize = 2;

/// Requests of a class that run or wait.
const PLACES: usize = 8;

/// Time limit for the comparison of verdicts in a plan; the rest of it depends on the length of the rules alone.
pub(super) const COMPARE_WITHIN: Duration = Duration::from_secs(5);

/// The requests of a class.
#[derive(Clone, Debug)]
pub(super) struct WorkClass {
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl WorkClass {
    pub(super) fn new() -> Self {
        WorkClass { places: Arc::new(Semaphore::new(PLACES)), running: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// Waits until the class has room for the request, or refuses it.
pub(super) async fn limited(
    State((class, app)): State<(WorkClass, Arc<App>)>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(place) = Arc::clone(&class.places).try_acquire_owned() else {
        app.metrics.api_refused(ApiRefusal::Rate);
        let error = "too many checks, plans or edits wait already";
        return ApiError::too_many(error, Duration::ZERO).into_response();
    };
    let memory = BodyMemory::of(&request);
    let run = async move {
        let _kept = (place, memory);
        // The semaphore is never closed, so this cannot fail.
        let _running = class.running.acquire_owned().await;
        next.run(request).await
    };
    tokio::spawn(run).await.unwrap_or_else(|error| ApiError::internal(&error).into_response())
}

/// Runs a computation outside the threads that serve requests.
pub(super) async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(&error))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;
    use crate::dataplane::Dataplane;
    use crate::metrics::Metrics;
    use crate::names::Resolver;

    #[tokio::test]
    async fn few_requests_compute_some_wait_and_the_others_are_refused() {
        let (running, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let handler = {
            let (running, gate) = (Arc::clone(&running), Arc::clone(&gate));
            async move || {
                running.fetch_add(1, SeqCst);
                let _ = gate.acquire().await;
                running.fetch_sub(1, SeqCst);
            }
        };
        let app = App::new(Dataplane::new("/nonexistent.sock"), Resolver::default(), Metrics::default());
        let state = (WorkClass::new(), Arc::new(app));
        let route = get(handler).route_layer(from_fn_with_state(state, limited));
        let router = Router::new().route("/", route);
        let send = || tokio::spawn(router.clone().oneshot(Request::new(Body::empty())));
        let first: Vec<_> = (0..PLACES).map(|_| send()).collect();
        while running.load(SeqCst) < AT_ONCE {
            tokio::task::yield_now().await;
        }
        let refused = send().await.unwrap().unwrap();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.headers().contains_key(axum::http::header::RETRY_AFTER));
        assert_eq!(running.load(SeqCst), AT_ONCE);
        // A client that disconnects leaves its request running.
        first[0].abort();
        tokio::task::yield_now().await;
        assert_eq!(send().await.unwrap().unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
        gate.add_permits(PLACES);
        for answer in first.into_iter().skip(1) {
            assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
        }
        while running.load(SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(send().await.unwrap().unwrap().status(), StatusCode::OK);
    }
}
