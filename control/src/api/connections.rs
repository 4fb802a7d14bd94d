//! Handlers about connections: listed, counted and ended, as a filter selects them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use knockplane_policy::wire::connection_filter::ConnectionFilter;
use knockplane_policy::wire::connections::{ConnectionCount, ConnectionQuery};

use super::answer::Form;
use super::failure::ApiError;
use super::messages::{self, ConnectionTotals, ConnectionWords, ConnectionsEnded, Tracked};
use super::operator::Operator;
use super::{App, checked};
use crate::dataplane::DataplaneError;
use crate::events::change::{OperatorAction, OperatorChange};
use crate::json::connections::{ConnectionTotalsJson, ConnectionsJson, EndedJson};

/// Requests the table of connections from the dataplane part by part.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    form: Form,
    query: Result<Query<messages::ConnectionQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(messages::ConnectionQuery { source, filter, limit }) = query?;
    let limit = checked(limit)?;
    let mut filter = read(&filter)?;
    if let Some(source) = source {
        filter.add(&format!("source={source}")).map_err(ApiError::bad_request)?;
    }
    Ok(form.answer(tracked(&app, filter, limit).await?, ConnectionsJson::from))
}

/// The connections of a filter, up to a limit.
pub(super) async fn tracked(app: &App, filter: ConnectionFilter, limit: usize) -> Result<Tracked, DataplaneError> {
    let table = app.ask(app.dataplane.status()).await?.connections;
    let (mut connections, mut next) = (Vec::new(), table.is_some().then_some(0));
    while let Some(from) = next.filter(|_| connections.len() < limit) {
        let wanted = ConnectionQuery { filter: filter.clone(), from, limit: limit - connections.len() };
        let part = app.ask(app.dataplane.connections(wanted)).await?;
        connections.extend(part.connections);
        // The loop ends for any answer of the dataplane.
        next = part.next.filter(|next| *next > from);
    }
    connections.sort_by_key(|one| (one.source, one.destination, one.protocol));
    Ok(Tracked { table, connections, truncated: next.is_some() })
}

/// Counts the whole table part by part.
pub(super) async fn count(
    State(app): State<Arc<App>>,
    form: Form,
    query: Result<Query<ConnectionWords>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(ConnectionWords { filter }) = query?;
    let filter = read(&filter)?;
    let tracked = app.ask(app.dataplane.status()).await?.connections.is_some();
    let (mut sums, mut next) = (HashMap::new(), tracked.then_some(0));
    while let Some(from) = next {
        let wanted = ConnectionQuery { filter: filter.clone(), from, limit: 0 };
        let part = app.ask(app.dataplane.count_connections(wanted)).await?;
        for ConnectionCount { protocol, state, door, connections } in part.counts {
            *sums.entry((protocol, state, door)).or_default() += connections;
        }
        next = part.next.filter(|next| *next > from);
    }
    let count = |((protocol, state, door), connections)| ConnectionCount { protocol, state, door, connections };
    let mut counts: Vec<_> = sums.into_iter().map(count).collect();
    counts.sort_by(|one, other| {
        let order = |count: &ConnectionCount| (count.protocol, count.state.clone(), count.door.clone());
        other.connections.cmp(&one.connections).then_with(|| order(one).cmp(&order(other)))
    });
    Ok(form.answer(ConnectionTotals { tracked, counts }, ConnectionTotalsJson::from))
}

/// Ends connections. The filter must have a word.
pub(super) async fn end(
    State(app): State<Arc<App>>,
    operator: Operator,
    form: Form,
    query: Result<Query<ConnectionWords>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(ConnectionWords { filter }) = query?;
    let filter = read(&filter)?;
    if filter.is_empty() {
        return Err(ApiError::bad_request("`filter` needs a word, such as source=192.0.2.1"));
    }
    let result = app.ask(app.dataplane.end_connections(filter.clone())).await;
    let words = filter.to_string();
    let change = OperatorChange {
        subject: Some(words.clone()),
        number: result.as_ref().ok().copied(),
        ..OperatorChange::of(OperatorAction::ConnectionRemove, operator.recorded())
    };
    app.events.record(change.ended(&result));
    let answer = ConnectionsEnded { ended: result? };
    Ok(form.answer(answer, |ConnectionsEnded { ended }| EndedJson { filter: words, ended }))
}

/// Parses the words of a filter.
fn read(words: &str) -> Result<ConnectionFilter, ApiError> {
    let mut filter = ConnectionFilter::default();
    words.split_whitespace().try_for_each(|word| filter.add(word)).map_err(ApiError::bad_request)?;
    Ok(filter)
}
