//! `knockctl rule`: edits of the running rules, in RouterOS's words.
//!
//! The dataplane refuses an edit if another revision runs meanwhile.

use clap::{Args, Subcommand};
use hyper::Method;
use knockplane_policy::lint;
use knockplane_policy::rsc::wording;
use knockplane_policy::wire::history::RevisionOrigin;
use knockplane_policy::wire::{DataplaneStatus, RunningRules};

use super::apply::{self, Applying, NewRules};
use super::http::Client;
use super::table::printable;
use super::{Failed, as_json, check, completion, decode, document, history};
use crate::Exit;
use crate::api::messages::ResetCounters;
use crate::edit::{self, Edit, EditError, Menu, Refusal};
use crate::json::changes::CountersResetJson;

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(flatten)]
    Edit(EditCommand),
    /// Set the counters of rules in `show rules` to zero; no rule changes, and metrics continue
    ResetCounters {
        /// Numbers or ids, separated by commas; without them, all rules, also those of doors
        #[arg(add = completion::rules())]
        rules: Option<String>,
        #[command(flatten)]
        menu: InMenu,
        /// The numbers are those of revision N of `knockctl history`: end with 6 if another one runs
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
    },
}

/// The commands that change rules.
#[derive(Debug, Subcommand)]
pub(super) enum EditCommand {
    /// Add a rule at the end of its menu, or before another rule
    ///
    /// `knockctl rule add chain=input action=accept src-address-list=secured place-before=3 comment="ssh for the office"`
    Add {
        /// Properties of RouterOS: chain=input action=accept …; `place-before=RULE` names a rule as other commands do
        #[arg(required = true, value_name = "PROPERTY", add = completion::properties())]
        properties: Vec<String>,
        #[command(flatten)]
        editing: Editing,
    },
    /// Change properties of rules; `!dst-port` removes one
    Set {
        #[command(flatten)]
        rules: Rules,
        /// Properties of RouterOS: action=drop dst-port=22 …
        #[arg(required = true, value_name = "PROPERTY", add = completion::properties())]
        properties: Vec<String>,
        #[command(flatten)]
        editing: Editing,
    },
    /// Remove rules
    Remove {
        #[command(flatten)]
        rules: Rules,
        #[command(flatten)]
        editing: Editing,
    },
    /// Move rules before another rule, or to the end of their menu
    Move {
        #[command(flatten)]
        rules: Rules,
        /// The rule before which they are placed
        #[arg(add = completion::rules())]
        destination: Option<String>,
        #[command(flatten)]
        editing: Editing,
    },
    /// Enable rules
    Enable {
        #[command(flatten)]
        rules: Rules,
        #[command(flatten)]
        editing: Editing,
    },
    /// Disable rules: they are kept and shown, and do not run
    Disable {
        #[command(flatten)]
        rules: Rules,
        #[command(flatten)]
        editing: Editing,
    },
    /// Replace the comment of rules
    Comment {
        #[command(flatten)]
        rules: Rules,
        /// The comment
        text: String,
        #[command(flatten)]
        editing: Editing,
    },
}

/// The rules that a command changes.
#[derive(Debug, Args)]
pub(super) struct Rules {
    /// Numbers as `show rules` prints them, or ids as `show rules --stats` does, separated by commas; or `[find …]`
    #[arg(add = completion::rules())]
    rules: String,
}

/// The menu of numbers.
#[derive(Debug, Args)]
pub(super) struct InMenu {
    /// The menu of new rules and of numbers; ids need none
    #[arg(long, value_enum, default_value_t = Menu::IpFilter)]
    menu: Menu,
}

/// The options of all edits.
#[derive(Debug, Args)]
pub(super) struct Editing {
    #[command(flatten)]
    menu: InMenu,
    #[command(flatten)]
    applying: Applying,
}

/// Runs the command.
pub(super) async fn run(client: &Client, command: Command, json: bool) -> Result<String, Failed> {
    match command {
        Command::Edit(command) => Given::from(command).run(client, json).await,
        Command::ResetCounters { rules, menu: InMenu { menu }, revision } => {
            reset_counters(client, rules.as_deref(), menu, revision, json).await
        }
    }
}

/// An edit on the command line.
struct Given {
    verb: &'static str,
    /// The rules that it names first.
    rules: Option<String>,
    arguments: Vec<String>,
    editing: Editing,
}

impl From<EditCommand> for Given {
    fn from(command: EditCommand) -> Given {
        let (verb, rules, arguments, editing) = match command {
            EditCommand::Add { properties, editing } => ("add", None, properties, editing),
            EditCommand::Set { rules, properties, editing } => ("set", Some(rules), properties, editing),
            EditCommand::Remove { rules, editing } => ("remove", Some(rules), Vec::new(), editing),
            EditCommand::Move { rules, destination, editing } => {
                ("move", Some(rules), destination.into_iter().collect(), editing)
            }
            EditCommand::Enable { rules, editing } => ("enable", Some(rules), Vec::new(), editing),
            EditCommand::Disable { rules, editing } => ("disable", Some(rules), Vec::new(), editing),
            EditCommand::Comment { rules, text, editing } => ("comment", Some(rules), vec![text], editing),
        };
        Given { verb, rules: rules.map(|Rules { rules }| rules), arguments, editing }
    }
}

impl Given {
    /// The command in RouterOS's words.
    fn edit(&self) -> Result<Edit, Failed> {
        let mut words = vec![self.verb.to_owned()];
        words.extend(self.rules.as_deref().map(selector));
        for argument in &self.arguments {
            words.push(match (self.verb, argument.split_once('=')) {
                ("add", Some(("place-before", rule))) => format!("place-before={}", selector(rule)),
                ("move", _) => selector(argument),
                ("comment", _) => wording::quoted(argument.as_bytes()),
                _ => property(argument)?,
            });
        }
        Ok(Edit { menu: self.editing.menu.menu, command: words.join(" ") })
    }

    async fn run(self, client: &Client, json: bool) -> Result<String, Failed> {
        let running: RunningRules = decode(&client.get("/api/v1/rules").await?)?;
        history::check_revision(client, self.editing.applying.revision(), running.revision).await?;
        let status: DataplaneStatus = decode(&client.get("/api/v1/status").await?)?;
        let edits = [self.edit()?];
        let rules = edit::edited(&running, &edits, &status.settings).map_err(|error| refused(error, json))?;
        let lints = lint::lint(&rules, &status.settings);
        let new = NewRules {
            based_on: Some(running.revision),
            origin: RevisionOrigin::Edit,
            edit: edit::summary(&edits),
            reports_lints: true,
            ..NewRules::new(running.source, rules, lints)
        };
        apply::send(client, &self.editing.applying, new, &status.settings, json).await
    }
}

/// Rules on the command line as one word.
fn selector(rules: &str) -> String {
    if rules.contains(['[', '(']) { rules.to_owned() } else { rules.split_whitespace().collect() }
}

/// A refused edit. Problems of the rules are printed unless the output is JSON.
fn refused(error: EditError, json: bool) -> Failed {
    let of =
        |exit, Refusal { message, remedy, place }: Refusal| Failed { remedy, ..Failed::new(exit, message) }.at(place);
    match error {
        EditError::Usage(refusal) => of(Exit::Usage, refusal),
        EditError::Conflict(refusal) => of(Exit::Conflict, refusal),
        EditError::Syntax(problems) => {
            let lines = problems.iter().map(|problem| {
                let expected = problem.expected.iter().map(|expected| format!("; expected {expected}"));
                printable(&problem.message) + &expected.collect::<String>()
            });
            Failed::new(Exit::Usage, lines.collect::<Vec<_>>().join("\n"))
        }
        EditError::Invalid(invalid) => check::refused(&invalid.text, invalid.judgement, json),
    }
}

/// A property as a word of a rule file. The shell has removed the quotes of the value.
fn property(argument: &str) -> Result<String, Failed> {
    let is_name = |name: &str| {
        let name = name.strip_prefix('!').unwrap_or(name);
        !name.is_empty() && name.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric())
    };
    match argument.split_once('=') {
        Some((name, value)) if is_name(name) => Ok(format!("{name}={}", wording::typed(value.as_bytes()))),
        None if is_name(argument) => Ok(argument.to_owned()),
        _ => {
            let remedy = "write properties as in RouterOS: `chain=input`, `dst-port=22`, or `!dst-port` in `set`";
            let message = format!("`{}` is no property: {remedy}", argument.escape_debug());
            Err(Failed { remedy: Some(remedy.to_owned()), ..Failed::new(Exit::Usage, message) })
        }
    }
}

async fn reset_counters(
    client: &Client,
    rules: Option<&str>,
    menu: Menu,
    revision: Option<u64>,
    json: bool,
) -> Result<String, Failed> {
    let running: RunningRules = decode(&client.get("/api/v1/rules").await?)?;
    history::check_revision(client, revision, running.revision).await?;
    let ids = rules
        .map(|rules| edit::ids(&running, menu, rules))
        .transpose()
        .map_err(|error| refused(error, json))?
        .unwrap_or_default();
    let number = if ids.is_empty() { running.rules.rules.len() } else { ids.len() };
    let body = as_json(&ResetCounters { rules: ids })?;
    client.send(Method::POST, "/api/v1/rules/reset-counters", Some(body)).await?;
    if json {
        return document(CountersResetJson { rules: number });
    }
    Ok(format!("the counters of {} begin at zero\n", super::table::count(number, "rule")))
}

#[cfg(test)]
mod tests;
