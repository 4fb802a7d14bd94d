//! The table of the routes: method, path, role, handler, and what the API document says about them. The router and the document
//! are both made from it.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{self, MethodRouter};
use knockplane_policy::wire::sample::TrafficSample;
use knockplane_policy::wire::trace::TraceBegun;
use knockplane_policy::wire::{KernelQuery, KernelVerdict};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use tokio::sync::Semaphore;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use super::counted::counted;
use super::gate::{self, Gate, Guard, Required};
use super::messages::{
    Apply, BeginSample, BeginTrace, CandidateRules, ConnectionQuery, ConnectionWords, CreateLink, CreateToken,
    DoorQuery, EditRules, ExplainPacket, FlushQuery, ListAddition, ListImport, ListQuery, RatedSources, ReloadQuery,
    ResetCounters, ReturnToRevision, RuleCountersQuery, SampleBegun, SessionInfo, SignIn, SourceLimit, TrafficQuery,
    WatchQuery,
};
use super::work::{self, WorkClass};
use super::{App, connections, counters, edits, evaluation, links, openapi, sessions, tokens, trace, traffic};
use crate::check::Checked;
use crate::events::filter::EventsQuery;
use crate::explain::Single;
use crate::json::Document;
use crate::json::changes::{
    AddedJson, AppliedJson, CancelledJson, ConfirmedJson, FlushedJson, ImportedJson, ReloadedJson,
};
use crate::json::connections::{ConnectionTotalsJson, ConnectionsJson, EndedJson};
use crate::json::doors::DoorsJson;
use crate::json::edits::{EditedJson, ExportTextJson, RuleLintsJson};
use crate::json::events::EventJson;
use crate::json::history::{HistoryJson, RevisionExportJson};
use crate::json::links::{LinkSessionsEndedJson, NewLinkJson};
use crate::json::lists::ListsJson;
use crate::json::rules::{RuleCountersJson, RulesJson};
use crate::json::source::SourceJson;
use crate::json::status::{StatusJson, WorkersJson};
use crate::json::tokens::{NewTokenJson, TokensJson};
use crate::json::top::{SourcesJson, TopJson};
use crate::json::traffic::TrafficHistoryJson;
use crate::plan::Plan;
use crate::server::body::{self, Bodies};
use crate::tokens::Role::{self, Administer, Operate, Read};

/// Makes the schema of a type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A route.
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) role: Role,
    /// A sentence for the document.
    pub(super) about: &'static str,
    handler: MethodRouter<Arc<App>>,
    /// The parameters of the query, as an object.
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<SchemaOf>,
    /// The answer; `None` if it has no body, with the status 204.
    pub(super) answer: Option<SchemaOf>,
    /// The media type of the answer.
    pub(super) media_type: &'static str,
    /// Whether it computes for long, so that few such requests run at once.
    computes: bool,
}

impl Endpoint {
    fn new<H, T>(method: Method, path: &'static str, role: Role, handler: H, about: &'static str) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let handler = match method {
            Method::POST => routing::post(handler),
            Method::DELETE => routing::delete(handler),
            _ => routing::get(handler),
        };
        Endpoint {
            method,
            path,
            role,
            about,
            handler,
            query: None,
            body: None,
            answer: None,
            media_type: "application/json",
            computes: false,
        }
    }

    fn get<H: Handler<T, Arc<App>>, T: 'static>(
        path: &'static str,
        role: Role,
        handler: H,
        about: &'static str,
    ) -> Self {
        Endpoint::new(Method::GET, path, role, handler, about)
    }

    fn post<H: Handler<T, Arc<App>>, T: 'static>(
        path: &'static str,
        role: Role,
        handler: H,
        about: &'static str,
    ) -> Self {
        Endpoint::new(Method::POST, path, role, handler, about)
    }

    fn delete<H: Handler<T, Arc<App>>, T: 'static>(
        path: &'static str,
        role: Role,
        handler: H,
        about: &'static str,
    ) -> Self {
        Endpoint::new(Method::DELETE, path, role, handler, about)
    }

    /// It computes for long.
    fn computes(self) -> Self {
        Endpoint { computes: true, ..self }
    }

    /// Its answer is large: gzip, if the client accepts it. Not for answers that have text of strangers beside secrets.
    fn compresses(self) -> Self {
        let gzip = CompressionLayer::new().quality(CompressionLevel::Fastest);
        Endpoint { handler: self.handler.layer(gzip), ..self }
    }

    /// The parameters of its query.
    fn query<T: JsonSchema>(self) -> Self {
        Endpoint { query: Some(T::json_schema), ..self }
    }

    /// The body of its requests.
    fn takes<T: JsonSchema>(self) -> Self {
        Endpoint { body: Some(SchemaGenerator::subschema_for::<T>), ..self }
    }

    /// Its answer is a message.
    fn answers<T: JsonSchema>(self) -> Self {
        Endpoint { answer: Some(SchemaGenerator::subschema_for::<T>), ..self }
    }

    /// Its answer is a stream of server-sent events, each with a document of `knockctl --json`.
    fn streams<T: JsonSchema>(self) -> Self {
        Endpoint { media_type: "text/event-stream", ..self.shows::<T>() }
    }

    /// Its answer is a document of `knockctl --json`.
    fn shows<T: JsonSchema>(self) -> Self {
        Endpoint { answer: Some(<Document<T>>::json_schema), ..self }
    }
}

/// All routes of `/api/v1`.
pub(super) fn table() -> Vec<Endpoint> {
    type E = Endpoint;
    vec![
        E::get("/api/v1/status", Read, super::status, "The state of both processes.").shows::<StatusJson>(),
        E::get("/api/v1/workers", Read, super::workers, "The workers, with their counters.").shows::<WorkersJson>(),
        E::get("/api/v1/rules", Read, super::running_rules, "The running rules, with counters.")
            .shows::<RulesJson>()
            .compresses(),
        E::get(
            "/api/v1/rules/counters",
            Read,
            counters::of_rules,
            "The counters of the running rules in columns, for a read each second.",
        )
        .query::<RuleCountersQuery>()
        .shows::<RuleCountersJson>()
        .compresses(),
        E::post("/api/v1/rules/reset-counters", Operate, super::reset_counters, "Sets counters of rules to zero.")
            .takes::<ResetCounters>(),
        E::post(
            "/api/v1/rules/edit",
            Administer,
            edits::edit,
            "Edits the running rules with commands of RouterOS, or plans it.",
        )
        .takes::<EditRules>()
        .shows::<EditedJson>()
        .computes(),
        E::get("/api/v1/export", Read, evaluation::export, "The running rules as RouterOS exports them.")
            .shows::<ExportTextJson>()
            .computes(),
        E::get("/api/v1/lints", Read, evaluation::lints, "The lints of the running rules.")
            .shows::<RuleLintsJson>()
            .computes(),
        E::post("/api/v1/plan", Read, evaluation::plan, "What would change if these rules replaced the running ones.")
            .takes::<CandidateRules>()
            .shows::<Plan>()
            .computes(),
        E::post("/api/v1/check", Read, evaluation::check, "The findings about a rule file, which may have errors.")
            .takes::<CandidateRules>()
            .shows::<Checked>()
            .computes(),
        E::post("/api/v1/explain", Read, evaluation::explain, "The verdict on a packet, rule by rule.")
            .takes::<ExplainPacket>()
            .shows::<Single>()
            .computes(),
        E::get("/api/v1/lists", Read, super::lists, "Address lists with their entries.")
            .query::<ListQuery>()
            .shows::<ListsJson>(),
        E::post("/api/v1/lists", Operate, super::list_import, "Adds entries to lists, all or none.")
            .takes::<ListImport>()
            .shows::<ImportedJson>(),
        E::post("/api/v1/lists/{list}", Operate, super::list_add, "Adds an entry to a list.")
            .takes::<ListAddition>()
            .shows::<AddedJson>(),
        E::delete(
            "/api/v1/lists/{list}",
            Operate,
            super::list_flush,
            "Removes the entries of a list, except those of rules.",
        )
        .query::<FlushQuery>()
        .shows::<FlushedJson>(),
        E::delete("/api/v1/lists/{list}/{address}", Operate, super::list_remove, "Removes an entry from a list."),
        E::get("/api/v1/doors", Read, super::doors, "Doors, and the sources at them.")
            .query::<DoorQuery>()
            .shows::<DoorsJson>(),
        E::get("/api/v1/connections", Read, connections::list, "Tracked connections.")
            .query::<ConnectionQuery>()
            .shows::<ConnectionsJson>(),
        E::delete(
            "/api/v1/connections",
            Operate,
            connections::end,
            "Ends the tracked connections of a filter, which must have a word.",
        )
        .query::<ConnectionWords>()
        .shows::<EndedJson>(),
        E::get("/api/v1/connections/count", Read, connections::count, "The numbers of tracked connections.")
            .query::<ConnectionWords>()
            .shows::<ConnectionTotalsJson>(),
        E::get("/api/v1/counters", Read, counters::counters, "All counters of `knockctl top`, without rates.")
            .shows::<TopJson>(),
        E::get(
            "/api/v1/traffic",
            Read,
            traffic::traffic,
            "The traffic of the last ten minutes, one sample a second; while the web page is on.",
        )
        .query::<TrafficQuery>()
        .shows::<TrafficHistoryJson>(),
        E::get("/api/v1/sources", Read, counters::sources, "The busiest sources since the last such request.")
            .query::<RatedSources>()
            .shows::<SourcesJson>(),
        E::get("/api/v1/sources/{address}", Read, super::source, "The state of one source.")
            .query::<SourceLimit>()
            .shows::<SourceJson>(),
        E::post(
            "/api/v1/sources/{address}/watch",
            Operate,
            super::watch_source,
            "Counts all dropped packets of a source.",
        )
        .takes::<WatchQuery>()
        .shows::<SourceJson>(),
        E::post("/api/v1/kernel", Read, super::kernel, "The kernel's verdict on frames of this kind.")
            .takes::<KernelQuery>()
            .answers::<KernelVerdict>(),
        E::post("/api/v1/sample", Read, super::begin_sample, "Begins a sample of live traffic.")
            .takes::<BeginSample>()
            .answers::<SampleBegun>(),
        E::post(
            "/api/v1/sample/{id}/end",
            Read,
            super::end_sample,
            "Ends a sample, and returns the headers of its packets.",
        )
        .answers::<TrafficSample>(),
        E::post("/api/v1/trace", Operate, trace::begin, "Begins a trace of packets, one at a time.")
            .takes::<BeginTrace>()
            .answers::<TraceBegun>(),
        E::post(
            "/api/v1/trace/{id}/read",
            Operate,
            trace::read,
            "The packets of a trace since the last read; a trace that is not read for two seconds ends.",
        )
        .answers::<trace::DescribedPackets>(),
        E::delete("/api/v1/trace/{id}", Operate, trace::end, "Ends a trace."),
        E::post("/api/v1/apply", Administer, super::apply, "Replaces the running rules, all or nothing.")
            .takes::<Apply>()
            .shows::<AppliedJson>(),
        E::post("/api/v1/reload", Administer, super::reload, "Reads the configuration file again.")
            .query::<ReloadQuery>()
            .shows::<ReloadedJson>(),
        E::post("/api/v1/confirm", Operate, super::confirm, "Confirms an apply or a reload that waits for it.")
            .shows::<ConfirmedJson>(),
        E::post(
            "/api/v1/cancel",
            Operate,
            super::cancel,
            "Rolls an apply or a reload back that waits for its confirmation.",
        )
        .shows::<CancelledJson>(),
        E::get(
            "/api/v1/events",
            Read,
            super::events::events,
            "Events as they happen, as server-sent events: each `data` is a document.",
        )
        .query::<EventsQuery>()
        .streams::<EventJson>(),
        E::get("/api/v1/history", Read, super::history, "The rule sets that have run.").shows::<HistoryJson>(),
        E::get("/api/v1/history/{number}", Read, super::revision, "A rule set that has run, as RouterOS exports it.")
            .shows::<RevisionExportJson>(),
        E::post(
            "/api/v1/history/{number}/rollback",
            Administer,
            edits::rollback,
            "Applies the rules of a revision again, or plans it.",
        )
        .takes::<ReturnToRevision>()
        .shows::<EditedJson>()
        .computes(),
        E::post(
            "/api/v1/undo",
            Administer,
            edits::undo,
            "Returns to the rules before the last change that was not undone, or plans it.",
        )
        .takes::<ReturnToRevision>()
        .shows::<EditedJson>()
        .computes(),
        E::post(
            "/api/v1/redo",
            Administer,
            edits::redo,
            "Reverses the last undo, if no other change followed, or plans it.",
        )
        .takes::<ReturnToRevision>()
        .shows::<EditedJson>()
        .computes(),
        E::get("/api/v1/tokens", Administer, tokens::list, "The tokens, without secrets; at a unix socket only.")
            .shows::<TokensJson>(),
        E::post("/api/v1/tokens", Administer, tokens::create, "Creates a token; at a unix socket only.")
            .takes::<CreateToken>()
            .shows::<NewTokenJson>(),
        E::delete("/api/v1/tokens/{name}", Administer, tokens::revoke, "Revokes a token; at a unix socket only."),
        E::post(
            "/api/v1/session-links",
            Read,
            links::create,
            "Makes a link that signs a browser in once, with at most the role of the socket; at a unix socket only.",
        )
        .takes::<CreateLink>()
        .shows::<NewLinkJson>(),
        E::delete(
            "/api/v1/session-links",
            Administer,
            links::end,
            "Ends all sessions that began with a link, and all links; at a unix socket only.",
        )
        .shows::<LinkSessionsEndedJson>(),
        E::post(
            gate::SIGN_IN,
            Read,
            sessions::sign_in,
            "Signs a browser in with a token or the secret of a link in the body; over TCP only.",
        )
        .takes::<SignIn>()
        .answers::<SessionInfo>(),
        E::get(gate::SIGN_IN, Read, sessions::session, "The session of the browser; 204 if there is none.")
            .answers::<SessionInfo>(),
        E::delete(gate::SIGN_IN, Read, sessions::sign_out, "Signs the browser out."),
        E::get("/api/v1/openapi.json", Read, openapi::page, "The OpenAPI document of these requests.")
            .answers::<serde_json::Value>(),
    ]
}

/// The limits of a listener on the work of its requests.
#[derive(Debug)]
pub(super) struct WorkLimits {
    /// Requests to the dataplane at once.
    pub(super) turns: usize,
    pub(super) bodies: Bodies,
}

/// The router of all routes behind a gate.
pub(super) fn router(app: Arc<App>, gate: Gate, limits: WorkLimits) -> Router {
    let turns = Arc::new(Semaphore::new(limits.turns));
    let bodies = Arc::new(limits.bodies);
    let guard = Guard { gate: Arc::new(gate), app: Arc::clone(&app) };
    let mut router = Router::new();
    let classes = [WorkClass::new(), WorkClass::new()];
    for Endpoint { path, role, handler, computes, .. } in table() {
        let required = Required { role, app: Arc::clone(&app) };
        // The last layer runs first: the body of a request without the role is not read, and a body is read before the request waits for
        // its turn.
        let mut handler = handler.route_layer(from_fn_with_state(Arc::clone(&turns), super::in_turn));
        if computes {
            let class = classes[usize::from(role > Read)].clone();
            handler = handler.route_layer(from_fn_with_state((class, Arc::clone(&app)), work::limited));
        }
        let handler = handler
            .route_layer(from_fn_with_state(Arc::clone(&bodies), body::bounded))
            .route_layer(from_fn_with_state(required, gate::require));
        router = router.route(path, handler);
    }
    router
        .merge(super::open_routes())
        .fallback(super::not_found)
        .method_not_allowed_fallback(super::method_not_allowed)
        .layer(from_fn_with_state(guard, gate::admit))
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(&app), counted))
        .with_state(app)
}
