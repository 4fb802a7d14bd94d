//! Handlers that evaluate rules and change nothing: checks, plans, explanations and lints.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::{Extension, Json};
use knockplane_policy::rule::{AddressSet, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::connection_filter::ConnectionFilter;
use knockplane_policy::wire::{DataplaneStatus, KernelQuery, ListPage, ListQuery, MAX_ANSWER_ENTRIES, RunningRules};
use knockplane_policy::{lint, rsc};

use super::failure::ApiError;
use super::messages::{CandidateRules, DEFAULT_LIMIT, ExplainPacket, Tracked};
use super::operator::Access;
use super::work::{COMPARE_WITHIN, compute};
use super::{App, connections};
use crate::bench::{self, Bench, parse};
use crate::check::{Checked, CheckedFile, How};
use crate::dataplane::DataplaneError;
use crate::explain::{Single, explain as explained};
use crate::json::Document;
use crate::json::edits::{ExportTextJson, RuleLintsJson, rule_lints};
use crate::packet;
use crate::plan::known::Limits;
use crate::plan::{Compared, Plan};
use crate::running::{EXPORT_HEADER, Running, for_bench};
use crate::tokens::Role;

/// Maximum number of list entries that a plan considers.
const MAX_ENTRIES: usize = 100_000;

/// The findings about a rule file, with the settings of the dataplane.
pub(super) async fn check(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    body: Result<Json<CandidateRules>, JsonRejection>,
) -> Result<Json<Document<Checked>>, ApiError> {
    let Json(CandidateRules { text, source, allow_invalid }) = body?;
    let settings = app.settings(access.role).await?;
    let judgement = compute(move || {
        let how = How { settings: &settings, allow_invalid, lints: true };
        CheckedFile::of(&source, text.as_bytes()).judge(&how).0
    });
    Ok(Json(Document::new(Checked { files: vec![judgement.await?] })))
}

/// What would change if these rules replaced the running ones.
pub(super) async fn plan(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    body: Result<Json<CandidateRules>, JsonRejection>,
) -> Result<Json<Document<Plan>>, ApiError> {
    let Json(CandidateRules { text, source, allow_invalid }) = body?;
    let RunningRules { source: origin, rules, .. } = app.ask(app.dataplane.rules()).await?;
    let state = app.state(access.role, origin, rules).await?;
    let plan = compute(move || {
        let StateOfPlan { running, tracked } = state;
        let how = How { settings: &running.settings, allow_invalid, lints: true };
        let (judgement, new) = CheckedFile::of(&source, text.as_bytes()).judge(&how);
        if !judgement.valid {
            return Err(ApiError::invalid_rules(judgement.problems()));
        }
        let compared = Compared::with_running(running, source, new);
        let compared = Compared { new_lints: Some(judgement.findings.all_lints), ..compared };
        Ok(Plan::of_running(&compared, &tracked, limits()))
    });
    Ok(Json(Document::new(plan.await??)))
}

/// The running rules that are tried on a packet, and the verdict.
pub(super) async fn explain(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    body: Result<Json<ExplainPacket>, JsonRejection>,
) -> Result<Json<Document<Single>>, ApiError> {
    let Json(ExplainPacket { packet, from }) = body?;
    let described = packet::describe(&packet).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let RunningRules { rules, .. } = app.ask(app.dataplane.rules()).await?;
    let settings = app.settings(access.role).await?;
    let from = bench::side(from, described.interface.as_deref(), &settings).map_err(ApiError::bad_request)?;
    let addresses = parse(&described.frame).map(|packet| [packet.source, packet.destination]);
    let mut entries = Vec::new();
    if let Some([source, destination]) = addresses {
        entries = app.entries(Some(source.into()), MAX_ENTRIES).await?.entries;
        let others = app.entries(Some(destination.into()), MAX_ENTRIES).await?.entries;
        entries.extend(others.into_iter().filter(|entry| !entry.address.contains(source)));
    }
    let kernel = KernelQuery { side: from, frame: described.frame.clone() };
    let kernel = app.ask(app.dataplane.kernel(kernel)).await.ok();
    let single = compute(move || {
        let rules = for_bench(&rules);
        let fill = |bench: &mut Bench<'_>| -> Result<(), Infallible> {
            bench::put_all(&entries, bench);
            Ok(())
        };
        let Ok(mut single) = explained(&described.frame, from, &rules, &settings, fill);
        single.lists.retain(|held| addresses.is_some_and(|addresses| addresses.contains(&held.address)));
        if let Some(verdict) = kernel {
            single.explained.note_kernel(verdict);
        }
        single
    });
    Ok(Json(Document::new(single.await?)))
}

/// The lints of the running rules.
pub(super) async fn lints(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
) -> Result<Json<Document<RuleLintsJson>>, ApiError> {
    let RunningRules { generation, revision, source, rules, .. } = app.ask(app.dataplane.rules()).await?;
    let settings = app.settings(access.role).await?;
    let lints = compute(move || rule_lints(&source, &rules, &lint::lint(&rules, &settings))).await?;
    Ok(Json(Document::new(RuleLintsJson { generation, revision, lints })))
}

/// The running rules as RouterOS exports them.
pub(super) async fn export(State(app): State<Arc<App>>) -> Result<Json<Document<ExportTextJson>>, ApiError> {
    let RunningRules { generation, revision, rules, .. } = app.ask(app.dataplane.rules()).await?;
    let text = compute(move || rsc::export(&rules)).await?.map_err(|what| {
        ApiError::conflict(format!("RouterOS's language has no form for {what}"))
            .with_remedy("`knockctl export --json` writes everything as it is")
    })?;
    Ok(Json(Document::new(ExportTextJson { generation, revision, text: EXPORT_HEADER.to_owned() + &text })))
}

/// The limits of the comparison of verdicts in a plan.
pub(super) fn limits() -> Limits {
    Limits::of(DEFAULT_LIMIT).within(COMPARE_WITHIN)
}

/// The state of the dataplane that a plan compares.
pub(super) struct StateOfPlan {
    pub(super) running: Running,
    pub(super) tracked: Tracked,
}

impl App {
    /// The settings of the dataplane, as operators with this role may know them.
    pub(super) async fn settings(&self, role: Role) -> Result<Settings, DataplaneError> {
        let DataplaneStatus { mut settings, .. } = self.ask(self.dataplane.status()).await?;
        // Whoever has a passphrase can open the door.
        if role == Role::Read {
            settings.hide_passphrases();
        }
        Ok(settings)
    }

    /// The state for a plan with these running rules.
    pub(super) async fn state(
        &self,
        role: Role,
        source: String,
        rules: RuleSet,
    ) -> Result<StateOfPlan, DataplaneError> {
        let settings = self.settings(role).await?;
        let lists = self.entries(None, MAX_ENTRIES).await?;
        let tracked = connections::tracked(self, ConnectionFilter::default(), DEFAULT_LIMIT).await?;
        Ok(StateOfPlan { running: Running { source, rules, settings, lists }, tracked })
    }

    /// List entries that overlap an address, or all, up to a limit, from as many answers as needed.
    async fn entries(&self, address: Option<AddressSet>, limit: usize) -> Result<ListPage, DataplaneError> {
        let mut query = ListQuery { address, limit: limit.min(MAX_ANSWER_ENTRIES), ..ListQuery::default() };
        let mut lists = self.ask(self.dataplane.lists(query.clone())).await?;
        while let Some(after) = lists.next.take().filter(|_| lists.entries.len() < limit) {
            query.limit = (limit - lists.entries.len()).min(MAX_ANSWER_ENTRIES);
            query.after = Some(after);
            let part = self.ask(self.dataplane.lists(query.clone())).await?;
            lists.entries.extend(part.entries);
            (lists.next, lists.truncated) = (part.next, part.truncated);
        }
        Ok(lists)
    }
}
