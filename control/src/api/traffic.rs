//! The handler for the traffic of the last ten minutes.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};

use super::App;
use super::failure::ApiError;
use super::messages::TrafficQuery;
use super::sessions::page_is_off;
use crate::json::Document;
use crate::json::traffic::TrafficHistoryJson;

/// `GET /api/v1/traffic`. The samples are kept while the page is on.
pub(super) async fn traffic(
    State(app): State<Arc<App>>,
    query: Result<Query<TrafficQuery>, QueryRejection>,
) -> Result<Json<Document<TrafficHistoryJson>>, ApiError> {
    let Query(TrafficQuery { since }) = query?;
    let traffic = app.traffic.as_ref().ok_or_else(page_is_off)?;
    Ok(Json(Document::new(traffic.since(since))))
}
