//! Handlers for live rates: counters at one time of the dataplane. No worker is messaged for them.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::source_rates::MAX_RATED_SOURCES;

use super::App;
use super::answer::Form;
use super::failure::ApiError;
use super::messages::{RatedSources, RuleCountersQuery};
use crate::json::rules::RuleCountersJson;
use crate::json::top::{Reading, SourcesJson, TopJson};

/// All counters.
pub(super) async fn counters(State(app): State<Arc<App>>, form: Form) -> Result<Response, ApiError> {
    let mut counters = app.ask(app.dataplane.metrics()).await?;
    // Rates need no settings, which have the passphrases of doors.
    counters.status.settings = Settings::default();
    Ok(form.answer(counters, |counters| TopJson::between(None, &Reading { counters, sources: None })))
}

/// The counters of the running rules.
pub(super) async fn of_rules(
    State(app): State<Arc<App>>,
    form: Form,
    query: Result<Query<RuleCountersQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(RuleCountersQuery { order }) = query?;
    let counters = app.ask(app.dataplane.rule_counters()).await?;
    match counters.order == order {
        true => Ok(form.answer(counters, RuleCountersJson::from)),
        false => Err(ApiError::other_rules()),
    }
}

/// The busiest sources since the last such request.
pub(super) async fn sources(
    State(app): State<Arc<App>>,
    form: Form,
    query: Result<Query<RatedSources>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(RatedSources { limit }) = query?;
    if limit > MAX_RATED_SOURCES {
        return Err(ApiError::bad_request(format!("`limit` is at most {MAX_RATED_SOURCES}")));
    }
    Ok(form.answer(app.ask(app.dataplane.source_rates(limit)).await?, |rates| SourcesJson::from(&rates)))
}
