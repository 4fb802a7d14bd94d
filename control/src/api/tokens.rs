//! Requests about tokens. They need a unix socket: a token that leaks cannot make another one.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::App;
use super::answer::Form;
use super::failure::ApiError;
use super::messages::{CreateToken, TokenList};
use super::operator::Operator;
use crate::events::change::{OperatorAction, OperatorChange};
use crate::json::tokens::{NewTokenJson, TokensJson};
use crate::rules;
use crate::tokens::Tokens;

/// The tokens, for an operator who may see them.
fn tokens(app: &App, operator: &Operator) -> Result<Arc<Tokens>, ApiError> {
    if operator.token().is_some() {
        return Err(ApiError::only_at_the_socket());
    }
    app.tokens.clone().ok_or_else(|| {
        ApiError::conflict("the API on TCP is off, so there are no tokens")
            .with_remedy("set `listen` in [control.api], and restart the control process")
    })
}

pub(super) async fn list(State(app): State<Arc<App>>, operator: Operator, form: Form) -> Result<Response, ApiError> {
    let tokens = tokens(&app, &operator)?.list();
    Ok(form.answer(TokenList { tokens }, TokensJson::from))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    form: Form,
    body: Result<Json<CreateToken>, JsonRejection>,
) -> Result<Response, ApiError> {
    let tokens = tokens(&app, &operator)?;
    let Json(CreateToken { name, role, expires }) = body?;
    let valid_for = rules::timeout(&expires).map_err(ApiError::bad_request)?;
    let change = change(OperatorAction::TokenCreate, &operator, name.to_string());
    let made = on_disk(move || tokens.create(name, role, valid_for)).await?;
    app.events.record(change.ended(&made));
    Ok(form.answer(made?, NewTokenJson::from))
}

pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    operator: Operator,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let tokens = tokens(&app, &operator)?;
    let Path(name) = path?;
    let of = name.clone();
    let revoked = on_disk(move || tokens.revoke(&of)).await?;
    app.events.record(change(OperatorAction::TokenRevoke, &operator, name).ended(&revoked));
    revoked?;
    Ok(StatusCode::NO_CONTENT)
}

/// The change of a token, for the audit file.
fn change(action: OperatorAction, operator: &Operator, token: String) -> OperatorChange {
    OperatorChange { subject: Some(token), ..OperatorChange::of(action, operator.recorded()) }
}

/// Runs a change that waits for the disk, and ends also if the client disconnects.
async fn on_disk<T: Send + 'static>(change: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(change).await.map_err(|error| ApiError::internal(&error))
}
