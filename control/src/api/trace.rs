//! Requests about traces of packets.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use knockplane_log::target;
use knockplane_policy::wire::trace::{TraceBegun, TraceQuery, TracedPackets};
use tracing::info;

use super::App;
use super::failure::ApiError;
use super::messages::BeginTrace;
use super::operator::Operator;
use crate::rules;

pub(super) async fn begin(
    State(app): State<Arc<App>>,
    operator: Operator,
    body: Result<Json<BeginTrace>, JsonRejection>,
) -> Result<Json<TraceBegun>, ApiError> {
    let Json(BeginTrace { filter, time, rate }) = body?;
    let query =
        TraceQuery { filter: filter.clone(), time: rules::timeout(&time).map_err(ApiError::bad_request)?, rate };
    let begun = app.ask(app.dataplane.begin_trace(query)).await?;
    info!(target: target!("operator"), filter, time, operator.by.uid = operator.uid(), operator.by.token = operator.token(), "packets traced");
    Ok(Json(begun))
}

pub(super) async fn read(
    State(app): State<Arc<App>>,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Json<TracedPackets>, ApiError> {
    let Path(trace) = path?;
    Ok(Json(app.ask(app.dataplane.read_trace(trace)).await?))
}

pub(super) async fn end(
    State(app): State<Arc<App>>,
    path: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(trace) = path?;
    app.ask(app.dataplane.end_trace(trace)).await?;
    Ok(StatusCode::NO_CONTENT)
}
