//! `knockctl history`, `diff` and `rollback`: the rule sets that have run.
//!
//! The dataplane has the revisions. A rollback is an apply of the rules of a revision, with the same checks.

use clap::Args;
use jiff::Timestamp;
use knockplane_policy::rule::{RuleChangeCounts, RuleSet};
use knockplane_policy::time::format_duration;
use knockplane_policy::wire::DataplaneStatus;
use knockplane_policy::wire::history::{History, Revision, RevisionOrigin, RevisionRules};
use knockplane_policy::word::Word as _;
use knockplane_policy::{door, lint};
use similar::TextDiff;

use super::apply::{self, Applying, NewRules};
use super::http::Client;
use super::table::Align::{Left, Right};
use super::table::{Columns, printable, wrapped};
use super::{Failed, decode, document, export};
use crate::json::history::{DiffJson, HistoryJson};
use crate::{Exit, revisions};

/// The number of unchanged lines around a change in a diff, as diff(1) has.
const CONTEXT: usize = 3;

/// The command line of `history`.
#[derive(Debug, Args)]
pub(super) struct ShowHistory {
    /// Maximum number of revisions, the last ones
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

/// The command line of `diff`.
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// A revision of `knockctl history`
    from: u64,
    /// Another revision
    to: u64,
}

/// The command line of `rollback`.
#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// A revision of `knockctl history`; without it, the one before the last
    #[arg(value_name = "REVISION")]
    number: Option<u64>,
    #[command(flatten)]
    applying: Applying,
}

pub(super) async fn show(client: &Client, command: &ShowHistory, json: bool) -> Result<String, Failed> {
    let History { mut revisions, damage } = all(client).await?;
    revisions.drain(..revisions.len().saturating_sub(command.limit));
    let history = History { revisions, damage };
    if json { document(HistoryJson::from(history)) } else { Ok(text(&history)) }
}

pub(super) async fn diff(client: &Client, command: &Diff, json: bool) -> Result<String, Failed> {
    let (from, to) = (revision(client, command.from).await?, revision(client, command.to).await?);
    let text = unified([&from, &to])?;
    let doors_differ = doors(&from.rules) != doors(&to.rules);
    if json {
        let (from, to) = (command.from, command.to);
        return document(DiffJson { from, to, diff: text, doors_differ });
    }
    Ok(match (text.is_empty(), doors_differ) {
        (true, false) => format!("revisions {} and {} have the same rules\n", command.from, command.to),
        (true, true) => format!(
            "revisions {} and {} differ only in the rules of doors, which are in the configuration\n",
            command.from, command.to
        ),
        (false, _) => text,
    })
}

pub(super) async fn rollback(client: &Client, command: &Rollback, json: bool) -> Result<String, Failed> {
    let Rollback { number, applying } = command;
    let (number, based_on) = match number {
        Some(number) => (*number, applying.revision()),
        None => match &all(client).await?.revisions[..] {
            [.., before, last] => {
                check_revision(client, applying.revision(), last.number).await?;
                (before.number, Some(last.number))
            }
            _ => return Err(Failed::new(Exit::Conflict, "there is no revision before the last one; nothing changed")),
        },
    };
    return_to(client, number, RevisionOrigin::Rollback, based_on, applying, json).await
}

/// Applies the rules of a revision again.
pub(super) async fn return_to(
    client: &Client,
    number: u64,
    origin: RevisionOrigin,
    based_on: Option<u64>,
    applying: &Applying,
    json: bool,
) -> Result<String, Failed> {
    let RevisionRules { revision, rules } = revision(client, number).await?;
    let status: DataplaneStatus = decode(&client.get("/api/v1/status").await?)?;
    let rules = door::rules(&status.settings, rules);
    let lints = lint::lint(&rules, &status.settings);
    let new = NewRules { based_on, origin, back_to: Some(number), ..NewRules::new(revision.source, rules, lints) };
    apply::send(client, applying, new, &status.settings, json).await
}

/// All revisions.
pub(super) async fn all(client: &Client) -> Result<History, Failed> {
    decode(&client.get("/api/v1/history").await?)
}

/// Checks that the revision of the command line is the one that was found to run.
pub(super) async fn check_revision(client: &Client, wanted: Option<u64>, running: u64) -> Result<(), Failed> {
    let Some(wanted) = wanted.filter(|wanted| *wanted != running) else { return Ok(()) };
    Err(Failed::new(Exit::Conflict, revisions::stale(&all(client).await?, wanted)))
}

async fn revision(client: &Client, number: u64) -> Result<RevisionRules, Failed> {
    decode(&client.get(&format!("/api/v1/history/{number}")).await?)
}

/// The rules of doors, which no export has.
fn doors(rules: &RuleSet) -> RuleSet {
    let doors = rules.rules.iter().filter(|rule| rule.dynamic).cloned().collect();
    RuleSet { rules: doors, ..RuleSet::default() }.without_lines()
}

/// The differences of the exports of two revisions.
fn unified(revisions: [&RevisionRules; 2]) -> Result<String, Failed> {
    let export = |revision: &RevisionRules| {
        let number = revision.revision.number;
        export::text(&revision.rules, &format!(" of revision {number}"))
    };
    let texts = [export(revisions[0])?, export(revisions[1])?];
    let names = revisions.map(|RevisionRules { revision, .. }| {
        format!("revision {}\t{}\t{}", revision.number, time(revision), printable(&revision.source))
    });
    let diff = TextDiff::from_lines(&texts[0], &texts[1]);
    Ok(diff.unified_diff().context_radius(CONTEXT).header(&names[0], &names[1]).to_string())
}

/// The revisions as a table, the last one first.
fn text(history: &History) -> String {
    let mut table = Columns::new(&[
        ("REVISION", Right),
        ("TIME", Left),
        ("USER", Left),
        ("ORIGIN", Left),
        ("RULES", Right),
        ("CHANGES", Left),
        ("SOURCE OR COMMAND", Left),
        ("COMMENT", Left),
    ]);
    for revision in history.revisions.iter().rev() {
        table.row([
            revision.number.to_string(),
            time(revision),
            operator(revision),
            origin(revision),
            revision.rules.to_string(),
            changes(&revision.changes),
            revision.what().to_owned(),
            revision.note.comment.clone(),
        ]);
    }
    let damage = history.damage.iter().map(|damage| wrapped(&format!("warning: {}", printable(damage)), "  "));
    table.text() + &damage.collect::<String>()
}

/// The user id, or the name of the API token; names of tokens do not begin with a digit. ` (page)` follows for the web page.
fn operator(Revision { note, .. }: &Revision) -> String {
    let user = || note.uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string());
    note.token.clone().unwrap_or_else(user) + if note.page { " (page)" } else { "" }
}

/// The time of a revision, to the second, in UTC.
fn time(revision: &Revision) -> String {
    let seconds = i64::try_from(revision.time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).strftime("%FT%TZ").to_string()
}

fn origin(revision: &Revision) -> String {
    let back_to = revision.note.back_to.map_or_else(String::new, |number| format!(" to {number}"));
    let confirm =
        revision.confirm_within.map_or_else(String::new, |time| format!(", confirm {}", format_duration(time)));
    format!("{}{back_to}{confirm}", revision.origin.name())
}

/// The numbers of changes: `+2 -1 ~3`, and those of other menus.
fn changes(counts: &RuleChangeCounts) -> String {
    let RuleChangeCounts { added, removed, changed, other_added, other_removed } = counts;
    let other = match (other_added, other_removed) {
        (0, 0) => String::new(),
        (added, removed) => format!(", other +{added} -{removed}"),
    };
    format!("+{added} -{removed} ~{changed}{other}")
}
