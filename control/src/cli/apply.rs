//! `knockctl apply`: replaces the running rules, also for `rollback`, `undo`, `redo` and all edits.
//!
//! The command asks for a confirmation if the new rules are empty or admit no traffic from outside: an operator who
//! typed the wrong file name would lose access.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use knockplane_policy::lint::Lint;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::format_duration;
use knockplane_policy::wire::history::RevisionOrigin;
use knockplane_policy::wire::{DataplaneStatus, RunningRules};

use super::check;
use super::confirm::reminder;
use super::http::Client;
use super::output::complain;
use super::plan;
use super::question::{self, Question};
use super::table::{count, printable};
use super::{Failed, as_json, change, decode, document};
use crate::api::messages::{Applied, Apply, Unresolved};
use crate::check::How;
use crate::json::changes::AppliedJson;
use crate::plan::loss::loss;
use crate::plan::{Changes, Linted};

/// The question before an apply.
pub(super) const APPLY: Question =
    Question { words: "Apply them?", done: "applied", remains: "the old rules keep running" };

/// The command line of `apply`.
#[derive(Debug, Args)]
pub(super) struct Command {
    /// RouterOS export; `-` is standard input
    file: PathBuf,
    /// Accept rules that can never run, and disable them
    #[arg(long)]
    allow_invalid: bool,
    #[command(flatten)]
    applying: Applying,
}

/// How rules are applied.
#[derive(Debug, Args)]
pub(super) struct Applying {
    /// Apply without a confirmation, even if no rule or no way in from outside is left
    #[arg(long)]
    force: bool,
    /// Return to the rules before after this time, unless `knockctl confirm` arrives: 5s to 1h
    #[arg(long, value_name = "TIME", value_parser = crate::rules::confirm_within)]
    confirm: Option<Duration>,
    /// Text for `knockctl history`
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
    /// Apply only if revision N of `knockctl history` runs; if another one does, end with 6 and list the changes since
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
}

impl Applying {
    /// The revision that must run.
    pub(super) fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// Whether no question is asked.
    pub(super) fn force(&self) -> bool {
        self.force
    }
}

pub(super) async fn run(client: &Client, command: &Command, json: bool) -> Result<String, Failed> {
    let Command { file, allow_invalid, applying } = command;
    // Syntax errors are reported without a request; the other checks depend on the settings of the dataplane.
    let source = check::read(file, json)?;
    let status: DataplaneStatus = decode(&client.get("/api/v1/status").await?)?;
    let how = How { settings: &status.settings, allow_invalid: *allow_invalid, lints: true };
    let (rules, lints) = source.rules_and_lints(&how, json)?;
    let source = match std::path::absolute(file) {
        Ok(path) if !source.is_standard_input() => path.display().to_string(),
        _ => source.name.clone(),
    };
    let new = NewRules { based_on: applying.revision, ..NewRules::new(source, rules, lints) };
    send(client, applying, new, &status.settings, json).await
}

/// Rules to apply.
pub(super) struct NewRules {
    pub(super) source: String,
    pub(super) rules: RuleSet,
    /// The lints about them.
    pub(super) lints: Vec<Lint>,
    /// Whether new lints are reported.
    pub(super) reports_lints: bool,
    /// The revision that must run.
    pub(super) based_on: Option<u64>,
    pub(super) origin: RevisionOrigin,
    /// The revision whose rules they are, for a rollback, an undo and a redo.
    pub(super) back_to: Option<u64>,
    /// The command of an edit.
    pub(super) edit: String,
}

impl NewRules {
    /// Rules of a file, whose lints were reported.
    pub(super) fn new(source: String, rules: RuleSet, lints: Vec<Lint>) -> Self {
        let origin = RevisionOrigin::Apply;
        let (based_on, back_to, edit) = (None, None, String::new());
        NewRules { source, rules, lints, reports_lints: false, based_on, origin, back_to, edit }
    }
}

/// Applies rules, after a confirmation if needed.
pub(super) async fn send(
    client: &Client,
    applying: &Applying,
    NewRules { source, rules, lints, reports_lints, based_on, origin, back_to, edit }: NewRules,
    settings: &Settings,
    json: bool,
) -> Result<String, Failed> {
    let Applying { force, confirm: confirm_within, comment, revision: _ } = applying;
    let running = running(client).await;
    // With `--force`, rules are also applied if the running ones cannot be compared with them.
    let running = if *force { running.ok() } else { Some(running?) };
    if let Some(running) = running.as_ref().filter(|_| !force)
        && let Some(loss) = loss(&running.source, &running.rules, &rules, settings)
    {
        question::ask(&loss, &APPLY)?;
    }
    let changes = running.map(|running| {
        let old = Linted::new(&running.source, &running.rules, settings);
        let changes = Changes::of(&old, &Linted::with(&source, &rules, lints));
        if reports_lints {
            complain(plan::new_lints(&changes));
        }
        changes.counts()
    });
    let apply = Apply {
        source,
        text: None,
        rules: Some(rules),
        confirm_within: confirm_within.map(format_duration),
        comment: comment.clone(),
        based_on,
        origin,
        back_to,
        edit,
        force: *force,
    };
    let applied: Applied = decode(&change(client, "/api/v1/apply", Some(as_json(&apply)?)).await?)?;
    if json {
        return document(AppliedJson::new(applied, changes, *confirm_within));
    }
    let Applied { generation, revision, .. } = applied;
    let mut text = format!("generation {generation} runs, {}; revision {revision}\n", count(applied.rules, "rule"));
    text += &changes.as_ref().map(plan::counts).unwrap_or_default();
    for Unresolved { name, reason } in &applied.unresolved {
        let (name, reason) = (printable(&name.name), printable(reason));
        text +=
            &format!("warning: `{name}` cannot be resolved ({reason}): its lists go by its last addresses, if any\n");
    }
    Ok(text + &confirm_within.map(reminder).unwrap_or_default())
}

async fn running(client: &Client) -> Result<RunningRules, Failed> {
    decode(&client.get("/api/v1/rules").await?)
}
