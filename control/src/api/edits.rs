//! Handlers that edit the running rules, and that return to those of another revision.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::{Extension, Json};
use knockplane_policy::door;
use knockplane_policy::lint::{self, Lint};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::history::{ApplyNote, History, RevisionOrigin, RevisionRules};
use knockplane_policy::wire::{ApplyRequest, RunningRules};

use super::evaluation::{StateOfPlan, limits};
use super::failure::ApiError;
use super::messages::{EditRules, ReturnToRevision};
use super::operator::{Access, Operator};
use super::work::compute;
use super::{App, confirmation_time, hand_over};
use crate::edit::{self, Edit, EditError, MAX_COMMANDS};
use crate::json::Document;
use crate::json::changes::{AppliedJson, ChangeCountsJson};
use crate::json::edits::{EditedJson, rule_lints};
use crate::plan::loss::loss;
use crate::plan::{Changes, Compared, Linted, Plan};
use crate::revisions;

/// Edits the running rules, or shows what would change.
pub(super) async fn edit(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    body: Result<Json<EditRules>, JsonRejection>,
) -> Result<Json<Document<EditedJson>>, ApiError> {
    let Json(EditRules { base, commands, menu, dry_run, confirm_within, comment, force }) = body?;
    let confirm_within = confirmation_time(confirm_within)?;
    if commands.is_empty() || commands.len() > MAX_COMMANDS {
        return Err(ApiError::bad_request(format!("give 1 to {MAX_COMMANDS} `commands`")));
    }
    let edits: Vec<Edit> = commands.into_iter().map(|command| Edit { menu, command }).collect();
    let running = app.ask(app.dataplane.rules()).await?;
    check_base(&app, base, running.revision).await?;
    let settings = app.settings(access.role).await?;
    let summary = edit::summary(&edits);
    let candidate = compute(move || {
        let rules = edit::edited(&running, &edits, &settings)?;
        Ok(Candidate::new(running, settings, rules))
    });
    let candidate = candidate.await?.map_err(ApiError::from_edit)?;
    if dry_run {
        let new = "the rules with this edit".to_owned();
        return Ok(Json(Document::new(planned(&app, &access, candidate, new).await?)));
    }
    let note = ApplyNote { comment, edit: summary, ..access.operator.note() };
    let change = Change { base, origin: RevisionOrigin::Edit, note, confirm_within, force };
    let applied = candidate.apply(app, access.operator, change).await?;
    Ok(Json(Document::new(EditedJson::applied(applied))))
}

/// Returns to the rules before the last change that was not undone.
pub(super) async fn undo(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    body: Result<Json<ReturnToRevision>, JsonRejection>,
) -> Result<Json<Document<EditedJson>>, ApiError> {
    let Json(wanted) = body?;
    step(app, access, RevisionOrigin::Undo, wanted).await
}

/// Reverses the last undo.
pub(super) async fn redo(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    body: Result<Json<ReturnToRevision>, JsonRejection>,
) -> Result<Json<Document<EditedJson>>, ApiError> {
    let Json(wanted) = body?;
    step(app, access, RevisionOrigin::Redo, wanted).await
}

/// Applies the rules of a revision again.
pub(super) async fn rollback(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    path: Result<Path<u64>, PathRejection>,
    body: Result<Json<ReturnToRevision>, JsonRejection>,
) -> Result<Json<Document<EditedJson>>, ApiError> {
    let (Path(number), Json(wanted)) = (path?, body?);
    return_to(app, access, RevisionOrigin::Rollback, |_| Ok(number), wanted).await
}

async fn step(
    app: Arc<App>,
    access: Access,
    origin: RevisionOrigin,
    wanted: ReturnToRevision,
) -> Result<Json<Document<EditedJson>>, ApiError> {
    return_to(app, access, origin, |history| revisions::target(history, origin), wanted).await
}

/// Applies the rules of the revision that `target` chooses, or shows what would change.
async fn return_to(
    app: Arc<App>,
    access: Access,
    origin: RevisionOrigin,
    target: impl FnOnce(&History) -> Result<u64, String>,
    ReturnToRevision { base, dry_run, confirm_within, comment, force }: ReturnToRevision,
) -> Result<Json<Document<EditedJson>>, ApiError> {
    let confirm_within = confirmation_time(confirm_within)?;
    let running = app.ask(app.dataplane.rules()).await?;
    let base = base.unwrap_or(running.revision);
    check_base(&app, base, running.revision).await?;
    let number = target(&app.ask(app.dataplane.history()).await?).map_err(ApiError::conflict)?;
    let RevisionRules { revision, rules } = app.ask(app.dataplane.revision(number)).await?;
    let settings = app.settings(access.role).await?;
    let candidate = compute(move || {
        let rules = door::rules(&settings, rules);
        let candidate = Candidate::new(running, settings, rules);
        Candidate { source: revision.source, ..candidate }
    });
    let candidate = candidate.await?;
    if dry_run {
        let new = format!("the rules of revision {number}");
        return Ok(Json(Document::new(planned(&app, &access, candidate, new).await?)));
    }
    let note = ApplyNote { comment, back_to: Some(number), ..access.operator.note() };
    let change = Change { base, origin, note, confirm_within, force };
    let applied = candidate.apply(app, access.operator, change).await?;
    Ok(Json(Document::new(EditedJson::applied(applied))))
}

/// Checks that the revision of a request is the one that runs.
async fn check_base(app: &App, base: u64, running: u64) -> Result<(), ApiError> {
    if base == running {
        return Ok(());
    }
    let history = app.ask(app.dataplane.history()).await?;
    Err(ApiError::conflict(revisions::stale(&history, base)))
}

/// What a change of the running rules would change. `new` are the words for its rules.
async fn planned(app: &App, access: &Access, candidate: Candidate, new: String) -> Result<EditedJson, ApiError> {
    let Candidate { running, rules, lints, loss, .. } = candidate;
    let RunningRules { source, rules: old, .. } = running;
    let StateOfPlan { running, tracked } = app.state(access.role, source.clone(), old).await?;
    compute(move || {
        let all = rule_lints(&source, &rules, &lints);
        let compared = Compared::with_running(running, new, rules);
        let compared = Compared { new_lints: Some(lints), ..compared };
        let plan = Plan::of_running(&compared, &tracked, limits());
        EditedJson { applied: None, plan: Some(plan), lints: Some(all), loss }
    })
    .await
}

/// Rules that can replace the running ones.
struct Candidate {
    running: RunningRules,
    /// The origin of the rules.
    source: String,
    rules: RuleSet,
    settings: Settings,
    lints: Vec<Lint>,
    /// What would be lost.
    loss: Option<String>,
}

/// A change of the running rules by an operator.
struct Change {
    /// The revision that must run.
    base: u64,
    origin: RevisionOrigin,
    note: ApplyNote,
    confirm_within: Option<Duration>,
    force: bool,
}

impl Candidate {
    fn new(running: RunningRules, settings: Settings, rules: RuleSet) -> Candidate {
        let source = running.source.clone();
        let lints = lint::lint(&rules, &settings);
        let loss = loss(&source, &running.rules, &rules, &settings);
        Candidate { running, source, rules, settings, lints, loss }
    }

    /// The numbers of changes.
    fn changes(&self) -> ChangeCountsJson {
        let Candidate { running, source, rules, settings, lints, .. } = self;
        let old = Linted::new(source, &running.rules, settings);
        Changes::of(&old, &Linted::with(source, rules, lints.clone())).counts()
    }

    async fn apply(self, app: Arc<App>, operator: Operator, change: Change) -> Result<AppliedJson, ApiError> {
        let Change { base, origin, note, confirm_within, force } = change;
        if let Some(loss) = self.loss.as_ref().filter(|_| !force) {
            return Err(ApiError::unconfirmed(loss));
        }
        let (changes, Candidate { source, rules, .. }) = compute(move || (self.changes(), self)).await?;
        let names = Vec::new();
        let request = ApplyRequest { rules, source, names, confirm_within, based_on: Some(base), origin, note };
        let applied = hand_over(app, operator, request).await?;
        Ok(AppliedJson::new(applied, Some(changes), confirm_within))
    }
}

impl ApiError {
    /// The refusal of an edit.
    fn from_edit(error: EditError) -> ApiError {
        match error {
            EditError::Usage(refusal) => ApiError::bad_request(refusal.message).ends_with(refusal.remedy),
            EditError::Conflict(refusal) => ApiError::conflict(refusal.message).ends_with(refusal.remedy),
            EditError::Syntax(problems) => ApiError::invalid_rules(problems),
            EditError::Invalid(invalid) => ApiError::invalid_rules(invalid.problems()),
        }
    }
}
