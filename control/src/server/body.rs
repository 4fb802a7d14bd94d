//! Bodies of requests: a length limit for each path, a memory limit for all requests together, and a time limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use knockplane_limits::admission::Activity;
use knockplane_limits::refusal::Refusal;
use knockplane_policy::wire::{MAX_LINE, MAX_SHORT_LINE};
use tokio::time::timeout;

use super::ConnectionSlot;
use crate::api::failure::ApiError;

/// Time limit for the arrival of a body: 256 MiB at 4 MiB/s.
const WITHIN: Duration = Duration::from_secs(60);

/// Bytes of all bodies in memory: one limit for root and the process's own user together, the same for all other users
/// together. It is the length of the longest body.
const MEMORY: usize = MAX_LINE;

/// The memory of all bodies of a router.
#[derive(Debug)]
pub(crate) struct Bodies {
    /// Length limit of a body with rules or list entries.
    longest: usize,
    /// Limit of the memory of each class.
    memory: usize,
    privileged: AtomicUsize,
    others: AtomicUsize,
}

impl Bodies {
    pub(crate) const fn new(longest: usize, memory: usize) -> Self {
        Bodies { longest, memory, privileged: AtomicUsize::new(0), others: AtomicUsize::new(0) }
    }
}

impl Default for Bodies {
    fn default() -> Self {
        Bodies::new(MAX_LINE, MEMORY)
    }
}

/// The memory of a body, which is in the extensions of its request. A task that handles the request keeps it: so it is released when
/// the last part of the request ends, also if the client has disconnected.
#[derive(Clone, Debug)]
pub(crate) struct BodyMemory {
    _held: Arc<Held>,
}

impl BodyMemory {
    /// That of a request, if it has a body.
    pub(crate) fn of(request: &Request) -> Option<BodyMemory> {
        request.extensions().get().cloned()
    }
}

/// The memory of one body, released on drop.
#[derive(Debug)]
struct Held {
    bodies: Arc<Bodies>,
    is_privileged: bool,
    bytes: usize,
}

impl Held {
    fn pool(&self) -> &AtomicUsize {
        if self.is_privileged { &self.bodies.privileged } else { &self.bodies.others }
    }

    fn add(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes += bytes;
        match self.pool().fetch_add(bytes, Relaxed) + bytes > self.bodies.memory {
            true => Err(Refusal::Memory),
            false => Ok(()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pool().fetch_sub(self.bytes, Relaxed);
    }
}

/// Length limit in bytes for the body of a path: only rules and list entries may be long.
fn longest(path: &str, bodies: &Bodies) -> usize {
    match path {
        "/api/v1/apply" | "/api/v1/check" | "/api/v1/plan" | "/api/v1/rules/edit" | "/api/v1/lists" => bodies.longest,
        _ => MAX_SHORT_LINE,
    }
}

/// Reads the body before the request is handled.
pub(crate) async fn bounded(State(bodies): State<Arc<Bodies>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let place = parts.extensions.get::<Arc<ConnectionSlot>>().cloned();
    let is_privileged = place.as_ref().is_none_or(|place| place.is_privileged());
    let mut held = Held { bodies: Arc::clone(&bodies), is_privileged, bytes: 0 };
    let note = |activity| {
        if let Some(place) = &place {
            place.set(activity);
        }
    };
    note(Activity::Transfer);
    let longest = longest(parts.uri.path(), &bodies);
    let body = timeout(WITHIN, collect(body, longest, &mut held)).await.unwrap_or(Err(Refusal::SlowRequest));
    note(Activity::Work);
    match body {
        Ok(body) => {
            let memory = BodyMemory { _held: Arc::new(held) };
            parts.extensions.insert(memory.clone());
            let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
            drop(memory);
            answer
        }
        Err(refusal) => {
            if let Some(place) = &place {
                place.refuse(refusal);
            }
            match refusal {
                Refusal::TooLong => ApiError::too_long(longest).into_response(),
                _ => ApiError::refused(refusal).into_response(),
            }
        }
    }
}

async fn collect(mut body: Body, longest: usize, held: &mut Held) -> Result<Bytes, Refusal> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        // An incomplete body is not valid JSON: the handler reports it.
        let Ok(data) = frame.map(|frame| frame.into_data().unwrap_or_default()) else { break };
        if bytes.len() + data.len() > longest {
            return Err(Refusal::TooLong);
        }
        held.add(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use hyper::body::Frame;
    use tower::ServiceExt;

    use super::*;

    /// A body whose next byte never arrives.
    struct Stalled;

    impl hyper::body::Body for Stalled {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    async fn send(bodies: &Arc<Bodies>, path: &str, body: Body) -> (StatusCode, String) {
        let length = async |body: Bytes| body.len().to_string();
        let pages = Router::new().route("/api/v1/apply", post(length)).route("/api/v1/reload", post(length));
        let pages = pages.layer(axum::extract::DefaultBodyLimit::disable());
        let pages = pages.layer(from_fn_with_state(Arc::clone(bodies), bounded));
        let request = Request::builder().method(Method::POST).uri(path).body(body).unwrap();
        let answer = pages.oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_given_up_at_the_limit() {
        let began = tokio::time::Instant::now();
        let (status, answer) = send(&Arc::default(), "/api/v1/apply", Body::new(Stalled)).await;
        assert_eq!((status, began.elapsed().as_secs()), (StatusCode::REQUEST_TIMEOUT, WITHIN.as_secs()), "{answer}");
    }

    #[tokio::test]
    async fn memory_is_reserved_until_a_task_of_a_disconnected_client_ends() {
        let (bodies, gate) = (Arc::<Bodies>::default(), Arc::new(tokio::sync::Semaphore::new(0)));
        let in_task = {
            let gate = Arc::clone(&gate);
            move |request: Request, next: Next| {
                let (memory, gate) = (BodyMemory::of(&request), Arc::clone(&gate));
                let run = async move {
                    let _memory = memory;
                    let _ = gate.acquire().await;
                    next.run(request).await
                };
                async { tokio::spawn(run).await.unwrap() }
            }
        };
        let pages = Router::new().route("/api/v1/apply", post(async |_: Bytes| ()));
        let pages =
            pages.layer(axum::middleware::from_fn(in_task)).layer(from_fn_with_state(Arc::clone(&bodies), bounded));
        let request = Request::builder().method(Method::POST).uri("/api/v1/apply").body(Body::from("12345")).unwrap();
        let client = tokio::spawn(pages.oneshot(request));
        while bodies.privileged.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        client.abort();
        let _ = client.await;
        assert_eq!(bodies.privileged.load(Relaxed), 5);
        gate.add_permits(1);
        while bodies.privileged.load(Relaxed) != 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn memory_is_shared_and_released() {
        let bodies = Arc::<Bodies>::default();
        let others = 8 << 20;
        bodies.privileged.store(MEMORY - others, Relaxed);
        for (length, expected) in [(others, StatusCode::OK), (others + 1, StatusCode::SERVICE_UNAVAILABLE)] {
            let (status, answer) = send(&bodies, "/api/v1/apply", Body::from(vec![b' '; length])).await;
            assert_eq!(status, expected, "{answer}");
            assert_eq!(bodies.privileged.load(Relaxed), MEMORY - others, "{length}");
        }
        let (status, answer) = send(&bodies, "/api/v1/reload", Body::from(vec![b' '; MAX_SHORT_LINE + 1])).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    }
}
