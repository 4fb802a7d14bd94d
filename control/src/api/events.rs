//! The stream of events, as server-sent events.
//!
//! The `id` of an event is its id, so that a client that connects again continues with `Last-Event-ID`. Each event is a
//! document of one line. A comment every ten seconds shows that the connection works.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{Stream, poll_fn, unfold};

use super::App;
use super::failure::ApiError;
use crate::events::MAX_STREAMS;
use crate::events::filter::{EventFilter, EventsQuery, WantedEvents};
use crate::json::Document;
use crate::json::events::EventJson;
use crate::server::ConnectionSlot;

/// Time without an event after which a comment is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// `GET /api/v1/events`.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Arc<ConnectionSlot>>>,
    headers: HeaderMap,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let Query(query) = query?;
    let filter = EventFilter::Wanted(Box::new(WantedEvents::read(&query).map_err(ApiError::bad_request)?));
    // A client that connects again sends its first query again.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let since =
        last.or(query.since.as_deref()).map(|id| app.events.id(id)).transpose().map_err(ApiError::bad_request)?;
    let place = app.events.stream().ok_or_else(|| {
        ApiError::unavailable(format!("there are {MAX_STREAMS} streams of events already: end one, and try again"))
    })?;
    let reader = match since {
        Some(id) => app.events.reader_after(id, filter),
        None => app.events.reader(filter),
    };
    let slot = peer.map(|Extension(slot)| slot);
    slot.iter().for_each(|slot| slot.begin_stream());
    let end = app.events.streams_end();
    let mut stream = Box::pin(unfold((reader, place, end), |(mut reader, place, mut end)| async move {
        let event = tokio::select! {
            biased;
            event = reader.next() => event?,
            _ = end.wait_for(|end| *end) => return None,
        };
        Some((Ok(encoded(event)), (reader, place, end)))
    }));
    let stream = poll_fn(move |context| {
        slot.iter().for_each(|slot| slot.note_read());
        stream.as_mut().poll_next(context)
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn encoded(event: EventJson) -> Event {
    let id = event.id.clone();
    // Documents are plain data.
    let data = serde_json::to_string(&Document::new(event)).unwrap_or_default();
    let event = Event::default().data(data);
    match id {
        Some(id) => event.id(id),
        None => event,
    }
}
