//! `knockctl rule`: edits of the running rules, in RouterOS's words.
//!
//! An edit is a command behind the export of the running rules. The reader of rule files executes it, so that it has the
//! meaning that it has on a router, and the result is checked and applied as a rule file. The dataplane refuses it if
//! another revision runs meanwhile.
//!
//! | file         | owns |
//! |--------------|------|
//! | `mod.rs`     | the command line, and the requests |
//! | `select.rs`  | the rules that a command names, by number or by id |
//! | `rewrite.rs` | the rules after a command |

mod rewrite;
mod select;

use clap::{Args, Subcommand};
use hyper::Method;
use knockplane_policy::lint;
use knockplane_policy::rsc::wording;
use knockplane_policy::wire::history::{MAX_APPLY_COMMENT, RevisionOrigin};
use knockplane_policy::wire::{DataplaneStatus, RunningRules};

pub(super) use self::rewrite::{edited, with_file_lines};
use self::select::{Menu, Selection};
use super::apply::{self, Applying, NewRules};
use super::http::Client;
use super::{Failed, as_json, completion, decode, document, history};
use crate::Exit;
use crate::api::messages::ResetCounters;
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
        Command::Edit(command) => Edit::from(command).run(client, json).await,
        Command::ResetCounters { rules, menu: InMenu { menu }, revision } => {
            reset_counters(client, rules.as_deref(), menu, revision, json).await
        }
    }
}

/// An edit of rules.
struct Edit {
    verb: &'static str,
    /// The rules that it names first.
    rules: Option<String>,
    arguments: Vec<String>,
    editing: Editing,
}

impl From<EditCommand> for Edit {
    fn from(command: EditCommand) -> Edit {
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
        Edit { verb, rules: rules.map(|Rules { rules }| rules), arguments, editing }
    }
}

impl Edit {
    async fn run(self, client: &Client, json: bool) -> Result<String, Failed> {
        let running: RunningRules = decode(&client.get("/api/v1/rules").await?)?;
        history::check_revision(client, self.editing.applying.revision(), running.revision).await?;
        let status: DataplaneStatus = decode(&client.get("/api/v1/status").await?)?;
        let Written { menu, command } = self.written(&running)?;
        let rules = edited(&running.rules, menu, &command, &status.settings, json)?;
        let lints = lint::lint(&rules, &status.settings);
        let new = NewRules {
            based_on: Some(running.revision),
            origin: RevisionOrigin::Edit,
            edit: self.summary(),
            reports_lints: true,
            ..NewRules::new(running.source, rules, lints)
        };
        apply::send(client, &self.editing.applying, new, &status.settings, json).await
    }

    /// The command for the export of the running rules.
    fn written(&self, running: &RunningRules) -> Result<Written, Failed> {
        let named = self.arguments.iter().map(|argument| match (self.verb, argument.split_once('=')) {
            ("add", Some(("place-before", rule))) => (argument, Some(rule)),
            ("move", _) => (argument, Some(argument.strip_prefix("destination=").unwrap_or(argument))),
            _ => (argument, None),
        });
        let named: Vec<(&String, Option<&str>)> = named.collect();
        let selectors = self.rules.as_deref().into_iter().chain(named.iter().filter_map(|(_, rule)| *rule));
        let (menu, selections) = Selection::read(running, self.editing.menu.menu, selectors)?;
        let mut selections = selections.into_iter();
        let mut next = || selections.next().map(Selection::written).transpose();
        let mut words = vec![self.verb.to_owned()];
        if self.rules.is_some() {
            words.extend(next()?);
        }
        for (argument, rule) in named {
            match (self.verb, rule) {
                ("add", Some(_)) => words.extend(next()?.map(|rule| format!("place-before={rule}"))),
                (_, Some(_)) => words.extend(next()?),
                ("comment", None) => words.push(format!("comment={}", wording::quoted(argument.as_bytes()))),
                (_, None) => words.push(property(argument)?),
            }
        }
        Ok(Written { menu, command: words.join(" ") })
    }

    /// The command for the history, as it was given.
    fn summary(&self) -> String {
        let rules = self.rules.iter().cloned();
        let argument = |argument: &String| match self.verb {
            "comment" => wording::quoted(argument.as_bytes()),
            _ => property(argument).unwrap_or_else(|_| argument.clone()),
        };
        let words = ["rule".to_owned(), self.verb.to_owned()].into_iter().chain(rules);
        let text = words.chain(self.arguments.iter().map(argument)).collect::<Vec<_>>().join(" ");
        let menu = self.editing.menu.menu;
        let mut text = if menu == Menu::IpFilter { text } else { format!("{text} --menu {}", menu.name()) };
        let end = (0..=MAX_APPLY_COMMENT).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text
    }
}

/// A command in the text of a rule file.
struct Written {
    menu: Menu,
    command: String,
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
    let ids = rules.map(|rules| select::ids(&running, menu, rules)).transpose()?.unwrap_or_default();
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
