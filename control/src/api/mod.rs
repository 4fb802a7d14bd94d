//! The HTTP API: routers and handlers.
//!
//! Four routers over one [`App`]. [`open`] is served on the TCP address for metrics: metrics and health, read-only, without addresses
//! and rules. The others add `/api/v1/…`: [`whole`] and [`read_only`] for the unix sockets, whose file modes restrict the users that
//! may connect, and [`with_tokens`] for the API on TCP, whose requests have tokens. [`routes`] has all paths of `/api/v1` with the role
//! that each requires. Bodies and failures are JSON, see [`messages`] and [`failure`]; [`answer`] has the two forms of answers.
//!
//! | file          | owns |
//! |---------------|------|
//! | `mod.rs`      | the shared state, and the handlers |
//! | `routes.rs`   | the table of routes, and the router |
//! | `connections.rs` | the handlers for connections |
//! | `counters.rs` | the handlers for live rates |
//! | `edits.rs`    | the handlers for edits of rules, and returns to revisions |
//! | `evaluation.rs` | the handlers for checks, plans, explanations and lints |
//! | `work.rs`     | limits on requests that compute for long |
//! | `gate.rs`     | who may send which request |
//! | `operator.rs` | the operator of a request |
//! | `answer.rs`   | documents and messages |
//! | `messages.rs` | bodies of requests and answers |
//! | `failure.rs`  | failures |
//! | `counted.rs`  | counts of requests |
//! | `events.rs`   | the stream of events |
//! | `sessions.rs` | the handlers for sessions of the web page |
//! | `links.rs`    | the handlers for links that begin such a session |
//! | `tokens.rs`   | the handlers for tokens |
//! | `trace.rs`    | the handlers for traces of packets |
//! | `traffic.rs`  | the handler for the traffic of the last ten minutes |
//! | `openapi/`    | the document of the API |

pub mod answer;
mod connections;
mod counted;
mod counters;
mod edits;
mod evaluation;
mod events;
pub mod failure;
pub mod gate;
mod links;
pub mod messages;
mod openapi;
pub mod operator;
mod routes;
mod sessions;
#[cfg(test)]
mod sweep;
mod tokens;
mod trace;
mod traffic;
mod work;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use knockplane_log::target;
use knockplane_policy::packet::Vlan;
use knockplane_policy::rsc;
use knockplane_policy::rule::{AddressSet, RuleSet};
use knockplane_policy::wire::history::{ApplyNote, RevisionOrigin};
use knockplane_policy::wire::sample::{SampleQuery, TrafficSample};
use knockplane_policy::wire::source::{MAX_SOURCE_ITEMS, SourceQuery};
use knockplane_policy::wire::{
    self, ApplyRequest, DataplaneStatus, KernelQuery, KernelVerdict, MAX_ANSWER_ENTRIES, NewEntry,
};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{info, warn};

use self::answer::Form;
use self::counted::counted;
use self::failure::ApiError;
use self::gate::{Gate, PageGate};
use self::messages::{
    Applied, Apply, BeginSample, Cancelled, Confirmed, Control, DEFAULT_SOURCE_LIMIT, DoorQuery, FlushQuery, Flushed,
    ListAddition, ListImport, ListQuery, Overview, ReloadQuery, ResetCounters, SampleBegun, SourceLimit, Unresolved,
    WatchQuery, Workers,
};
use self::operator::{Access, Operator};
use self::routes::WorkLimits;
use self::work::compute;
use crate::audit::AuditState;
use crate::dataplane::{Dataplane, DataplaneError};
use crate::events::Events;
use crate::events::change::{OperatorAction, OperatorChange};
use crate::json::changes::{
    AddedJson, AppliedJson, CancelledJson, ConfirmedJson, FlushedJson, ImportedJson, ReloadedJson,
};
use crate::json::doors::DoorsJson;
use crate::json::history::{HistoryJson, RevisionExportJson};
use crate::json::lists::ListsJson;
use crate::json::rules::RulesJson;
use crate::json::source::SourceJson;
use crate::json::status::{StatusJson, WorkersJson};
use crate::metrics::{self, EventNumbers, Metrics};
use crate::names::Resolver;
use crate::page::{self, browser::Browser};
use crate::plan::loss::loss;
use crate::server::body::{Bodies, BodyMemory};
use crate::server::latest::Latest;
use crate::server::tls::Certificates;
use crate::sessions::Sessions;
use crate::tokens::{Role, Tokens};
use crate::traffic::TrafficHistory;
use crate::{address, json, log_status, ready, rules};

/// The state that the handlers share.
#[derive(Debug)]
pub struct App {
    /// The client of the dataplane.
    pub dataplane: Dataplane,
    /// Resolves host names.
    resolver: Resolver,
    /// The counters of the control process.
    pub metrics: Metrics,
    /// The events of the dataplane and of operators.
    pub events: Events,
    /// The state of the audit file.
    pub audit: AuditState,
    /// The page for concurrent requests for metrics.
    page: Latest<Bytes>,
    /// The answer for concurrent requests for readiness.
    ready: Latest<Result<String, String>>,
    /// The tokens of the API on TCP; `None` if it is off.
    pub tokens: Option<Arc<Tokens>>,
    /// The web page; `None` if it is off.
    pub web_page: Option<WebPage>,
    /// The traffic of the last ten minutes, for the web page; `None` if it is off.
    pub traffic: Option<Arc<TrafficHistory>>,
    /// Its certificate; `None` without TLS.
    pub(crate) certificates: Option<Arc<Certificates>>,
}

/// The web page, and who has signed in there.
#[derive(Debug)]
pub struct WebPage {
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// The address for browsers, with a `/` at the end.
    pub address: String,
}

/// Limit on concurrent requests of operators to the dataplane; others wait. The dataplane accepts 32 connections of one user, and
/// metrics, health and the watch need one each.
const MAX_TURNS: usize = 16;

/// The same limit for the API on TCP, which does not make operators at the unix socket wait.
const MAX_API_TURNS: usize = 8;

/// The same limit for the read-only socket.
const MAX_READER_TURNS: usize = 4;

/// The longest body of rules and list entries over TCP, and the memory of all bodies: an operator with more uses the unix socket.
const API_BODY: usize = 16 << 20;
const API_BODIES: usize = 32 << 20;

/// Time limit of a readiness probe: a common timeout of probes is one second.
const READY_WITHIN: Duration = Duration::from_millis(800);

/// Time limit of the dataplane for metrics. The default timeout of Prometheus is 10 s, or a shorter scrape interval.
const METRICS_WITHIN: Duration = Duration::from_secs(3);

/// The router for metrics and health.
pub fn open(app: Arc<App>) -> Router {
    let counted = from_fn_with_state(Arc::clone(&app), counted);
    open_routes().fallback(not_found).layer(counted).with_state(app)
}

/// The router for operators at the unix socket, with all rights.
pub fn whole(app: Arc<App>) -> Router {
    let limits = WorkLimits { turns: MAX_TURNS, bodies: Bodies::default() };
    routes::router(app, Gate::Socket(Role::Administer), limits)
}

/// The router for the read-only socket.
pub fn read_only(app: Arc<App>) -> Router {
    let limits = WorkLimits { turns: MAX_READER_TURNS, bodies: Bodies::new(API_BODY, API_BODIES) };
    routes::router(app, Gate::Socket(Role::Read), limits)
}

/// The router for the API on TCP, and for the web page if it is on.
pub fn with_tokens(app: Arc<App>, tokens: Arc<Tokens>) -> Router {
    let limits = WorkLimits { turns: MAX_API_TURNS, bodies: Bodies::new(API_BODY, API_BODIES) };
    let Some(sessions) = app.web_page.as_ref().map(|page| Arc::clone(&page.sessions)) else {
        return routes::router(app, Gate::tokens(tokens, None), limits);
    };
    let browser = Browser { with_tls: app.certificates.is_some() };
    let gate = Gate::tokens(tokens, Some(PageGate { sessions, browser }));
    page::with_headers(page::router(browser).merge(routes::router(app, gate, limits)))
}

/// The routes for metrics and health.
fn open_routes() -> Router<Arc<App>> {
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(readyz)).route("/metrics", get(scrape))
}

/// Waits until the number of running requests is below the limit. A request that may change something runs in its own task, so
/// that it is logged and recorded even if the client disconnects.
async fn in_turn(State(turns): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let only_reads = request.method().is_safe();
    // The semaphore is never closed, so this cannot fail.
    let turn = turns.acquire_owned().await;
    let memory = BodyMemory::of(&request);
    let run = async move {
        let _kept = (turn, memory);
        next.run(request).await
    };
    if only_reads {
        return run.await;
    }
    tokio::spawn(run).await.unwrap_or_else(|error| ApiError::internal(&error).into_response())
}

async fn readyz(State(app): State<Arc<App>>) -> Result<String, (StatusCode, String)> {
    let asked = app.ready.get(async || match app.ask(app.dataplane.status()).await {
        Ok(status) => ready::check(&status).map(|()| ready::text(&status)),
        Err(error) => Err(error.to_string()),
    });
    let ready = timeout(READY_WITHIN, asked).await.unwrap_or_else(|_| Err(app.silent(READY_WITHIN).to_string()));
    ready.map_err(|reason| (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")))
}

async fn scrape(State(app): State<Arc<App>>) -> impl IntoResponse {
    let page = |answer: Option<&wire::MetricsReport>| {
        let events = EventNumbers { streams: app.events.streams(), gaps: app.events.gaps(), audit: app.audit.status() };
        Bytes::from(app.metrics.render(answer, &log_status(), &events, SystemTime::now()))
    };
    let asked = app.page.get(async || page(app.ask(app.dataplane.metrics()).await.ok().as_ref()));
    let text = timeout(METRICS_WITHIN, asked).await.unwrap_or_else(|_| {
        app.silent(METRICS_WITHIN);
        page(None)
    });
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}

async fn status(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    form: Form,
) -> Result<Response, ApiError> {
    let mut dataplane = app.ask(app.dataplane.status()).await?;
    // Whoever has a passphrase can open the door.
    if access.role == Role::Read {
        dataplane.settings.hide_passphrases();
    }
    let ready = ready::check(&dataplane);
    let overview = Overview {
        dataplane,
        control: Control { log: log_status(), audit: app.audit.status(), event_streams: app.events.streams() },
    };
    Ok(form.answer(overview, |overview| StatusJson::new(overview, ready)))
}

async fn workers(State(app): State<Arc<App>>, form: Form) -> Result<Response, ApiError> {
    let status = app.ask(app.dataplane.status()).await?;
    let DataplaneStatus { uptime, workers, fast_path, .. } = status;
    Ok(form.answer(Workers { uptime, workers, fast_path }, WorkersJson::from))
}

async fn kernel(
    State(app): State<Arc<App>>,
    query: Result<Json<KernelQuery>, JsonRejection>,
) -> Result<Json<KernelVerdict>, ApiError> {
    let Json(query) = query?;
    Ok(Json(app.ask(app.dataplane.kernel(query)).await?))
}

async fn running_rules(State(app): State<Arc<App>>, form: Form) -> Result<Response, ApiError> {
    let rules = app.ask(app.dataplane.rules()).await?;
    if form == Form::Message {
        return Ok(Json(rules).into_response());
    }
    let settings = app.ask(app.dataplane.status()).await?.settings;
    // Behind the rules, so that it has their revision.
    let history = app.ask(app.dataplane.history()).await?;
    Ok(form.answer(rules, |rules| RulesJson::new(&rules, &history, &settings)))
}

async fn lists(
    State(app): State<Arc<App>>,
    form: Form,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let limit = checked(query.limit)?;
    let query = wire::ListQuery { limit, ..asked(query).map_err(ApiError::bad_request)? };
    Ok(form.answer(app.ask(app.dataplane.lists(query)).await?, ListsJson::from))
}

async fn doors(
    State(app): State<Arc<App>>,
    form: Form,
    query: Result<Query<DoorQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let limit = checked(query.limit)?;
    Ok(form.answer(app.ask(app.dataplane.doors(query.door, limit)).await?, DoorsJson::from))
}

async fn source(
    State(app): State<Arc<App>>,
    form: Form,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<SourceLimit>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (Path(address), Query(SourceLimit { limit })) = (path?, query?);
    if limit > MAX_SOURCE_ITEMS {
        return Err(ApiError::bad_request(format!("`limit` is at most {MAX_SOURCE_ITEMS}")));
    }
    let address = address::single(&address).map_err(ApiError::bad_request)?;
    let source = app.ask(app.dataplane.source(SourceQuery { address, limit, watch: None })).await?;
    Ok(form.answer(source, SourceJson::from))
}

async fn watch_source(
    State(app): State<Arc<App>>,
    operator: Operator,
    form: Form,
    path: Result<Path<String>, PathRejection>,
    body: Result<Json<WatchQuery>, JsonRejection>,
) -> Result<Response, ApiError> {
    let (Path(address), Json(WatchQuery { time })) = (path?, body?);
    let address = address::single(&address).map_err(ApiError::bad_request)?;
    let watch = Some(rules::timeout(&time).map_err(ApiError::bad_request)?);
    let query = SourceQuery { address, limit: DEFAULT_SOURCE_LIMIT, watch };
    let source = app.ask(app.dataplane.source(query)).await?;
    info!(target: target!("operator"), source = %address, time, operator.by.uid = operator.uid(), operator.by.token = operator.token(), operator.by.page = operator.is_at_page().then_some(true), "source watched");
    Ok(form.answer(source, SourceJson::from))
}

async fn begin_sample(
    State(app): State<Arc<App>>,
    operator: Operator,
    body: Result<Json<BeginSample>, JsonRejection>,
) -> Result<Json<SampleBegun>, ApiError> {
    let Json(BeginSample { time, packets }) = body?;
    let query = SampleQuery { time: rules::timeout(&time).map_err(ApiError::bad_request)?, packets };
    let sample = app.ask(app.dataplane.begin_sample(query)).await?;
    info!(target: target!("operator"), time, packets, operator.by.uid = operator.uid(), operator.by.token = operator.token(), operator.by.page = operator.is_at_page().then_some(true), "traffic sampled");
    Ok(Json(SampleBegun { sample }))
}

async fn end_sample(
    State(app): State<Arc<App>>,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Json<TrafficSample>, ApiError> {
    let Path(sample) = path?;
    Ok(Json(app.ask(app.dataplane.end_sample(sample)).await?))
}

fn checked(limit: usize) -> Result<usize, ApiError> {
    if limit > MAX_ANSWER_ENTRIES {
        Err(ApiError::bad_request(format!("`limit` is at most {MAX_ANSWER_ENTRIES}")))
    } else {
        Ok(limit)
    }
}

/// Parses the parameters of a query.
fn asked(query: ListQuery) -> Result<wire::ListQuery, String> {
    let address = |text: Option<String>| text.map(|text| text.parse::<AddressSet>()).transpose();
    let after = match (query.after_list, address(query.after_address)?) {
        (Some(list), Some(address)) => {
            let vlan = Vlan::from_bits(query.after_vlan);
            Some(wire::After { list, address, vlan, tag: query.after_tag })
        }
        (None, None) => None,
        _ => return Err("give both `after-list` and `after-address`, or neither".to_owned()),
    };
    Ok(wire::ListQuery {
        list: query.list,
        address: address(query.address)?,
        dynamic: query.dynamic,
        expires_within: query.expires_within.map(|text| rules::timeout(&text)).transpose()?,
        comment: query.comment,
        after,
        limit: query.limit,
    })
}

async fn apply(
    State(app): State<Arc<App>>,
    Extension(Access { operator, role, .. }): Extension<Access>,
    form: Form,
    body: Result<Json<Apply>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(Apply { source, text, rules, confirm_within, comment, based_on, origin, back_to, edit, force }) = body?;
    let confirm_within = confirmation_time(confirm_within)?;
    let note = ApplyNote { comment, back_to, edit, ..operator.note() };
    let rules = match (text, rules) {
        (Some(text), None) => {
            let rules = read(&text).inspect_err(|_| {
                app.metrics.apply_was_invalid();
                warn!(
                    target: target!("operator"),
                    { operator.by.uid = operator.uid(), operator.by.token = operator.token(), operator.by.page = operator.is_at_page().then_some(true), operator.rules_source = source },
                    "rules refused: they cannot be read"
                );
            })?;
            if !force {
                let running = app.ask(app.dataplane.rules()).await?;
                let settings = app.settings(role).await?;
                let new = rules.clone();
                // Some seconds with many rules: not on the thread of all other requests.
                let lost = compute(move || loss(&running.source, &running.rules, &new, &settings)).await?;
                if let Some(loss) = lost {
                    return Err(ApiError::unconfirmed(&loss));
                }
            }
            rules
        }
        (None, Some(mut rules)) => {
            rules.assign_ids();
            rules
        }
        _ => return Err(ApiError::bad_request("give either `text` or `rules`")),
    };
    let request = ApplyRequest { rules, source, names: Vec::new(), confirm_within, based_on, origin, note };
    let applied = hand_over(app, operator, request).await?;
    Ok(form.answer(applied, |applied| AppliedJson::new(applied, None, confirm_within)))
}

/// The time within which a change must be confirmed.
fn confirmation_time(text: Option<String>) -> Result<Option<Duration>, ApiError> {
    text.map(|text| rules::confirm_within(&text)).transpose().map_err(ApiError::bad_request)
}

fn read(text: &str) -> Result<RuleSet, ApiError> {
    let reading = rsc::read(text.as_bytes());
    if reading.problems.is_empty() { Ok(reading.rules) } else { Err(ApiError::invalid_rules(reading.problems)) }
}

/// Adds the addresses of host names, and sends the request to the dataplane.
async fn hand_over(app: Arc<App>, operator: Operator, mut request: ApplyRequest) -> Result<Applied, DataplaneError> {
    let (rules, patterns) = (request.rules.rules.len(), request.rules.layer7.len());
    request.names = app.resolver.resolve_rules(&request.rules).await;
    let unresolved = request.names.iter().filter_map(Unresolved::of).collect();
    let change = change_of(&request, &operator);
    let result = app.timed(app.dataplane.apply(request)).await;
    let (generation, revision) = result.as_ref().map(|(generation, revision)| (*generation, *revision)).ok().unzip();
    app.events.record(OperatorChange { generation, revision, ..change.ended(&result) });
    let (generation, revision) = result?;
    Ok(Applied { generation, revision, rules, patterns, unresolved })
}

/// The change by an operator that an apply makes.
fn change_of(request: &ApplyRequest, operator: &Operator) -> OperatorChange {
    let action = match request.origin {
        RevisionOrigin::Rollback => OperatorAction::Rollback,
        RevisionOrigin::Edit => OperatorAction::Edit,
        RevisionOrigin::Undo => OperatorAction::Undo,
        RevisionOrigin::Redo => OperatorAction::Redo,
        _ => OperatorAction::Apply,
    };
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    OperatorChange {
        rules_source: text(&request.source),
        edit: text(&request.note.edit),
        comment: text(&request.note.comment),
        confirm_within_seconds: request.confirm_within.map(json::seconds),
        ..OperatorChange::of(action, operator.recorded())
    }
}

async fn reset_counters(
    State(app): State<Arc<App>>,
    operator: Operator,
    body: Result<Json<ResetCounters>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Json(ResetCounters { rules }) = body?;
    let number = rules.len();
    let change = OperatorChange::of(OperatorAction::ResetCounters, operator.recorded());
    let change = OperatorChange { number: Some(number as u64), ..change };
    app.change(change, app.dataplane.reset_counters(rules)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn confirm(State(app): State<Arc<App>>, operator: Operator, form: Form) -> Result<Response, ApiError> {
    let result = app.ask(app.dataplane.confirm()).await;
    let change = OperatorChange::of(OperatorAction::Confirm, operator.recorded());
    let generation = result.as_ref().ok().copied();
    app.events.record(OperatorChange { generation, ..change.ended(&result) });
    Ok(form.answer(Confirmed { generation: result? }, ConfirmedJson::from))
}

async fn cancel(State(app): State<Arc<App>>, operator: Operator, form: Form) -> Result<Response, ApiError> {
    let result = app.ask(app.dataplane.cancel(operator.note())).await;
    let change = OperatorChange::of(OperatorAction::Cancel, operator.recorded());
    let (generation, revision) = result.as_ref().ok().copied().unzip();
    app.events.record(OperatorChange { generation, revision, ..change.ended(&result) });
    let (generation, revision) = result?;
    Ok(form.answer(Cancelled { generation, revision }, CancelledJson::from))
}

async fn history(State(app): State<Arc<App>>, form: Form) -> Result<Response, ApiError> {
    Ok(form.answer(app.ask(app.dataplane.history()).await?, HistoryJson::from))
}

async fn revision(
    State(app): State<Arc<App>>,
    form: Form,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(number) = path?;
    Ok(form.answer(app.ask(app.dataplane.revision(number)).await?, RevisionExportJson::from))
}

async fn reload(
    State(app): State<Arc<App>>,
    operator: Operator,
    form: Form,
    query: Result<Query<ReloadQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(ReloadQuery { confirm_within }) = query?;
    let confirm_within = confirmation_time(confirm_within)?;
    app.reload_certificates().await;
    let result = app.timed(app.dataplane.reload(operator.note(), confirm_within)).await;
    let change = OperatorChange::of(OperatorAction::Reload, operator.recorded()).ended(&result);
    app.events.record(OperatorChange {
        generation: result.as_ref().ok().map(|reloaded| reloaded.generation),
        confirm_within_seconds: confirm_within.map(json::seconds),
        ..change
    });
    Ok(form.answer(result?, |reloaded| ReloadedJson::new(reloaded, confirm_within)))
}

async fn list_add(
    State(app): State<Arc<App>>,
    operator: Operator,
    form: Form,
    path: Result<Path<String>, PathRejection>,
    body: Result<Json<ListAddition>, JsonRejection>,
) -> Result<Response, ApiError> {
    let (Path(list), Json(ListAddition { address, timeout, comment })) = (path?, body?);
    let timeout = match timeout {
        Some(text) => Some(rules::timeout(&text).map_err(ApiError::bad_request)?),
        None => None,
    };
    let entry = NewEntry { list: list.clone(), address: address.clone(), timeout, comment };
    let change = OperatorChange {
        timeout_seconds: timeout.map(json::seconds),
        ..OperatorChange::at(OperatorAction::ListAdd, operator.recorded(), &list, Some(&address))
    };
    let added = app.change(change, app.dataplane.list_add(vec![entry])).await?;
    Ok(form.answer(added, |added| AddedJson {
        list,
        address: address.to_string(),
        timeout_seconds: timeout.map(json::seconds),
        unused_lists: added.unused,
    }))
}

async fn list_import(
    State(app): State<Arc<App>>,
    operator: Operator,
    form: Form,
    body: Result<Json<ListImport>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(ListImport { entries }) = body?;
    let count = entries.len();
    let change = OperatorChange::of(OperatorAction::ListImport, operator.recorded());
    let change = OperatorChange { number: Some(count as u64), ..change };
    let added = app.change(change, app.dataplane.list_add(entries)).await?;
    Ok(form.answer(added, |wire::Added { left, unused }| ImportedJson {
        entries: count,
        unchanged: left,
        unused_lists: unused,
    }))
}

async fn list_flush(
    State(app): State<Arc<App>>,
    operator: Operator,
    form: Form,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<FlushQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (Path(list), Query(FlushQuery { dynamic })) = (path?, query?);
    let result = app.ask(app.dataplane.list_flush(list.clone(), dynamic)).await;
    let change = OperatorChange::at(OperatorAction::ListFlush, operator.recorded(), &list, None);
    app.events.record(OperatorChange { number: result.as_ref().ok().copied(), ..change.ended(&result) });
    let removed = result?;
    Ok(form.answer(Flushed { removed }, |Flushed { removed }| FlushedJson { list, removed }))
}

async fn list_remove(
    State(app): State<Arc<App>>,
    operator: Operator,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path((list, address)) = path?;
    let address: AddressSet = address.parse().map_err(ApiError::bad_request)?;
    let change = OperatorChange::at(OperatorAction::ListRemove, operator.recorded(), &list, Some(&address));
    app.change(change, app.dataplane.list_remove(list.clone(), address.clone())).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::not_found(uri.path())
}

async fn method_not_allowed() -> ApiError {
    ApiError::method_not_allowed()
}

impl App {
    /// The state for this dataplane.
    pub fn new(dataplane: Dataplane, resolver: Resolver, metrics: Metrics) -> Self {
        let events = Events::new(dataplane.clone());
        App {
            dataplane,
            resolver,
            metrics,
            events,
            audit: AuditState::default(),
            page: Latest::default(),
            ready: Latest::default(),
            tokens: None,
            web_page: None,
            traffic: None,
            certificates: None,
        }
    }

    /// The same with an audit file.
    pub fn with_audit(self, audit: AuditState) -> Self {
        App { audit, ..self }
    }

    /// Reads the files of the certificate again, if there is one and they have changed.
    async fn reload_certificates(&self) {
        if let Some(certificates) = self.certificates.clone() {
            let _ = tokio::task::spawn_blocking(move || certificates.reload()).await;
        }
    }

    /// Counts a request that had no answer within this time.
    fn silent(&self, within: Duration) -> DataplaneError {
        let error = DataplaneError::Silent(within);
        self.metrics.request_failed(&error);
        error
    }

    /// Waits for the answer of the dataplane, and counts a missing one.
    async fn ask<T>(&self, answer: impl Future<Output = Result<T, DataplaneError>>) -> Result<T, DataplaneError> {
        let result = answer.await;
        match &result {
            Ok(_)
            | Err(
                DataplaneError::Conflict(_)
                | DataplaneError::NoEntry(_)
                | DataplaneError::Refused(_)
                | DataplaneError::Failed(_),
            ) => self.metrics.answered(),
            Err(error) => self.metrics.request_failed(error),
        }
        result
    }

    /// As [`App::ask`], for a change by an operator, which is recorded with its outcome.
    async fn change<T>(
        &self,
        change: OperatorChange,
        answer: impl Future<Output = Result<T, DataplaneError>>,
    ) -> Result<T, DataplaneError> {
        let result = self.ask(answer).await;
        self.events.record(change.ended(&result));
        result
    }

    /// As [`App::ask`], for rules or a configuration to apply: also measures the time.
    async fn timed<T>(&self, answer: impl Future<Output = Result<T, DataplaneError>>) -> Result<T, DataplaneError> {
        let began = Instant::now();
        let result = self.ask(answer).await;
        self.metrics.apply_ended(began.elapsed(), result.is_ok());
        result
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Method, Request};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    /// A control process without a dataplane.
    fn app() -> Arc<App> {
        Arc::new(App::new(Dataplane::new("/nonexistent/dataplane.sock"), Resolver::default(), Metrics::default()))
    }

    async fn send(router: Router, method: Method, path: &str, body: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let status = answer.status();
        let body: Bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get_of(router: Router, path: &str) -> (StatusCode, String) {
        send(router, Method::GET, path, "").await
    }

    /// A dataplane that accepts connections and never answers.
    fn silent() -> (tempfile::TempDir, tokio::net::UnixListener, Arc<App>) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("dataplane.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        (dir, listener, Arc::new(App::new(Dataplane::new(socket), Resolver::default(), Metrics::default())))
    }

    #[tokio::test]
    async fn concurrent_requests_lead_to_one_request_to_the_dataplane() {
        let (_dir, listener, app) = silent();
        for path in ["/metrics", "/readyz"].repeat(100) {
            tokio::spawn(send(open(app.clone()), Method::GET, path, ""));
        }
        let mut held = Vec::new();
        let pause = Duration::from_millis(300);
        while let Ok(caller) = timeout(pause, listener.accept()).await {
            held.push(caller.unwrap());
        }
        assert_eq!(held.len(), 2, "once for each page");
    }

    #[tokio::test]
    async fn the_number_of_concurrent_requests_of_operators_is_limited() {
        let (_dir, listener, app) = silent();
        let whole = whole(app);
        for _ in 0..3 * MAX_TURNS {
            tokio::spawn(send(whole.clone(), Method::GET, "/api/v1/status", ""));
        }
        let mut held = Vec::new();
        let pause = Duration::from_millis(300);
        while let Ok(caller) = timeout(pause, listener.accept()).await {
            held.push(caller.unwrap());
        }
        assert_eq!(held.len(), MAX_TURNS);
    }

    #[tokio::test]
    async fn readiness_does_not_wait_for_a_dataplane_that_hangs() {
        let (_dir, _listener, app) = silent();
        let began = Instant::now();
        let (status, reason) = get_of(open(app.clone()), "/readyz").await;
        assert!(began.elapsed() < METRICS_WITHIN, "{:?}", began.elapsed());
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(reason.starts_with("the dataplane did not answer within 0.8 s"), "{reason}");
        let text = app.metrics.render(None, &log_status(), &EventNumbers::default(), SystemTime::now());
        assert!(text.contains("failures_total{reason=\"silent\"} 1\n"), "{text}");
    }

    #[tokio::test]
    async fn alive_is_not_ready() {
        assert_eq!(get_of(open(app()), "/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
        let (status, reason) = get_of(open(app()), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(reason.contains("/nonexistent/dataplane.sock") && reason.lines().count() == 1, "{reason}");
    }

    #[tokio::test]
    async fn a_scrape_succeeds_without_the_dataplane_and_counts_its_absence() {
        let app = app();
        let (status, text) = get_of(open(app.clone()), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("\nknockplane_dataplane_up 0\n"), "{text}");
        assert!(text.contains("failures_total{reason=\"unreachable\"} 1\n"), "{text}");
    }

    #[tokio::test]
    async fn the_open_router_has_no_api() {
        for path in ["status", "rules", "lists", "doors", "workers", "sources/192.0.2.1"] {
            assert_eq!(get_of(open(app()), &format!("/api/v1/{path}")).await.0, StatusCode::NOT_FOUND);
        }
        for path in ["apply", "reload", "sources/192.0.2.1/watch"] {
            let path = format!("/api/v1/{path}");
            assert_eq!(send(open(app()), Method::POST, &path, "{}").await.0, StatusCode::NOT_FOUND);
        }
    }

    #[tokio::test]
    async fn each_path_reports_a_missing_dataplane_with_a_remedy() {
        for path in ["status", "rules", "lists", "doors", "workers", "sources/192.0.2.1"] {
            let (status, body) = get_of(whole(app()), &format!("/api/v1/{path}")).await;
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(body["message"].as_str().unwrap().contains("systemctl start"), "{body}");
            assert!(body["code"] == "unavailable" && body["remedy"].is_string(), "{body}");
        }
    }

    #[tokio::test]
    async fn a_request_that_is_too_long_is_refused_with_a_remedy() {
        let body = " ".repeat(wire::MAX_SHORT_LINE + 1);
        for path in ["/api/v1/lists/a", "/api/v1/reload"] {
            let (status, answer) = send(whole(app()), Method::POST, path, &body).await;
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
            assert!(answer.contains("more than 65536 bytes") && answer.contains("split the file"), "{answer}");
        }
        let (status, answer) = send(whole(app()), Method::POST, "/api/v1/lists", &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "entries may be long: {answer}");
    }

    #[tokio::test]
    async fn invalid_requests_are_refused_in_json() {
        let cases = [
            (Method::GET, "/api/v1/lists?limit=1000000", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/lists?limti=1", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/rules/counters", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/rules/counters?revision=1", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/doors?limit=1000000", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/sources/192.0.2.1?limit=1000000", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/sources/nobody", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/sources/192.0.2.0%2F24", "", StatusCode::BAD_REQUEST),
            (Method::POST, "/api/v1/sources/192.0.2.1/watch", r#"{"time":"soon"}"#, StatusCode::BAD_REQUEST),
            (Method::POST, "/api/v1/sources/192.0.2.1/watch", "{}", StatusCode::UNPROCESSABLE_ENTITY),
            (Method::GET, "/api/v1/nothing", "", StatusCode::NOT_FOUND),
            (Method::GET, "/api/v1/connections?filter=port%3D0", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/connections/count?filter=state%3Dopen", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/sources?limit=1000000", "", StatusCode::BAD_REQUEST),
            (Method::DELETE, "/api/v1/connections", "", StatusCode::BAD_REQUEST),
            (Method::DELETE, "/api/v1/connections?filter=nobody", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/history/last", "", StatusCode::BAD_REQUEST),
            (Method::POST, "/api/v1/apply", r#"{"source":"x"}"#, StatusCode::BAD_REQUEST),
            (Method::POST, "/api/v1/apply", "not JSON", StatusCode::BAD_REQUEST),
            (
                Method::POST,
                "/api/v1/apply",
                r#"{"source":"x","text":"","confirm_within":"4s"}"#,
                StatusCode::BAD_REQUEST,
            ),
            (Method::POST, "/api/v1/reload?confirm-within=2h", "", StatusCode::BAD_REQUEST),
            (Method::POST, "/api/v1/reload?confirm=60s", "", StatusCode::BAD_REQUEST),
            (Method::POST, "/api/v1/lists/a", r#"{"address":"nobody"}"#, StatusCode::UNPROCESSABLE_ENTITY),
            (Method::POST, "/api/v1/lists/a", r#"{"address":"::1","timeout":"soon"}"#, StatusCode::BAD_REQUEST),
            (Method::DELETE, "/api/v1/lists/a/nobody", "", StatusCode::BAD_REQUEST),
            (Method::DELETE, "/api/v1/lists/a?dynamci=true", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/lists?after-list=a", "", StatusCode::BAD_REQUEST),
            (Method::GET, "/api/v1/lists?expires-within=soon", "", StatusCode::BAD_REQUEST),
            (Method::POST, "/api/v1/lists", r#"{"entries":[{"list":"a"}]}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ];
        for (method, path, body, expected) in cases {
            let (status, answer) = send(whole(app()), method, path, body).await;
            assert_eq!(status, expected, "{path} {body}: {answer}");
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert!(answer["message"].is_string() && answer["code"].is_string(), "{answer}");
        }
    }

    #[tokio::test]
    async fn invalid_rules_are_answered_with_their_places_and_counted() {
        let app = app();
        let body = r#"{"source":"x","text":"/ip firewall filter\nadd chain=input dst-port=XX action=drop\n"}"#;
        let (status, answer) = send(whole(app.clone()), Method::POST, "/api/v1/apply", body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["problems"][0]["line"], 2, "{answer}");
        let text = app.metrics.render(None, &log_status(), &EventNumbers::default(), SystemTime::now());
        assert!(text.contains("reloads_total{result=\"invalid\"} 1\n"), "{text}");
    }
}
