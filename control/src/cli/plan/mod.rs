//! `knockctl plan`: what would change if the rules of a file replaced the running ones, or those of another file. Changes nothing.
//!
//! | file          | owns |
//! |---------------|------|
//! | `mod.rs`      | the command: both rule sets, and the exit code |
//! | `changes.rs`  | changes of rules, other menus and lints |
//! | `verdicts.rs` | packets of a capture whose verdict would change |
//! | `text.rs`     | the plan as text |

mod changes;
mod text;
mod verdicts;

use std::path::{Path, PathBuf};

use clap::Args;
use knockplane_policy::rule::{EntryAddress, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::{ListEntry, ListPage};
use schemars::JsonSchema;
use serde::Serialize;

pub(super) use self::changes::{Changes, Linted};
pub(super) use self::text::counts;
use self::verdicts::CaptureVerdicts;
use super::bench::Bench;
use super::check::{self, How};
use super::http::Client;
use super::sources::{self, Given, Inside, Running};
use super::{Failed, document};
use crate::Exit;

/// The command line.
#[derive(Debug, Args)]
#[command(mut_arg("inside", |arg| arg.requires("pcap")))]
#[command(mut_arg("in_list", |arg| arg.requires("pcap")))]
#[command(mut_arg("lists", |arg| arg.requires("pcap")))]
pub(super) struct Command {
    /// The new rules: a RouterOS export; `-` is standard input
    file: PathBuf,
    /// The old rules; without it, the running rules
    #[arg(long, value_name = "OLD")]
    rules: Option<PathBuf>,
    /// Configuration file, of which [policy] and the doors are read; without it, the defaults
    #[arg(long, value_name = "TOML", requires = "rules")]
    config: Option<PathBuf>,
    /// Accept rules that can never run, and disable them, as `apply --allow-invalid`
    #[arg(long)]
    allow_invalid: bool,
    /// A capture (pcap or pcapng): the packets whose verdict would change are named
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    #[command(flatten)]
    inside: Inside,
    #[command(flatten)]
    given: Given,
    /// Maximum number of rows in each part of the text; JSON has all
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

/// What would change.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Plan {
    /// Whether a rule, another command of the rule file, a lint or a verdict would change. The exit code is 5 if so.
    would_change: bool,
    /// The origin of the old rules.
    old: String,
    /// The file with the new rules.
    new: String,
    #[serde(flatten)]
    changes: Changes,
    /// The packets of the capture whose verdict would change; `null` without a capture.
    verdicts: Option<CaptureVerdicts>,
}

/// The rules that are compared, and the settings of both.
struct Compared {
    old_name: String,
    old: RuleSet,
    new_name: String,
    new: RuleSet,
    settings: Settings,
    /// The list entries of the dataplane; `None` if the old rules come from a file.
    lists: Option<ListPage>,
}

/// Runs the command.
pub(super) async fn run(client: &Client, command: &Command, json: bool) -> Result<String, Failed> {
    if command.rules.as_deref() == Some(&command.file) && command.file == Path::new("-") {
        return Err(Failed::new(
            Exit::Usage,
            "standard input can have the new or the old rules, not both: name a file",
        ));
    }
    // Errors of the files and the command line are reported without a request.
    let source = check::read(&command.file, json)?;
    let capture = command.pcap.as_ref().map(|file| command.inside.load(file)).transpose()?;
    let how = |settings| How { settings, allow_invalid: command.allow_invalid, lints: false };
    let new_name = source.name().to_owned();
    let compared = match &command.rules {
        Some(file) => {
            let settings = sources::settings_of(command.config.as_deref())?;
            let other = check::read(file, json)?;
            let [old, new] = [&other, &source].map(|source| source.rules(&how(&settings), json));
            Compared { old_name: other.name().to_owned(), old: old?, new_name, new: new?, settings, lists: None }
        }
        None => {
            let Running { source: origin, rules, settings, lists } = sources::running(client).await?;
            let new = source.rules(&how(&settings), json)?;
            let old_name = format!("the running rules, from {origin}");
            Compared { old_name, old: rules, new_name, new, settings, lists: Some(lists) }
        }
    };
    let Compared { old_name, old, new_name, new, settings, .. } = &compared;
    let linted = [(old_name, old), (new_name, new)].map(|(name, rules)| Linted::new(name, rules, settings));
    let mut plan = Plan {
        would_change: false,
        old: old_name.clone(),
        new: new_name.clone(),
        changes: Changes::of(&linted[0], &linted[1]),
        verdicts: None,
    };
    let mut broken = None;
    if let (Some(capture), Some(file)) = (capture, &command.pcap) {
        sources::note_unknown_lists(&[old, new], |list, name| compared.is_resolved(list, name));
        let rules = compared.for_benches();
        let benches = compared.benches(&rules, capture.begin(), &command.given)?;
        let (verdicts, read) = verdicts::compare(&capture, &command.inside, benches);
        let failed = |why: &dyn std::fmt::Display| Failed::new(Exit::Runtime, format!("{}: {why}", file.display()));
        broken = match read {
            Err(error) => Some(failed(&error)),
            Ok(()) if verdicts.packets == 0 => {
                let remedy = "capture at a neighbour of the filter (docs/capture.md)";
                let message = format!("the capture has no packets, so no verdict can be compared: {remedy}");
                Some(Failed { remedy: Some(remedy.to_owned()), ..failed(&message) })
            }
            Ok(()) => None,
        };
        plan.verdicts = Some(verdicts);
    }
    let of_verdicts = plan.verdicts.as_ref().is_some_and(|verdicts| !verdicts.changed.is_empty());
    plan.would_change = of_verdicts || !plan.changes.is_empty();
    let text = || text::text(&plan, command.limit);
    match broken {
        Some(failed) if json => Err(failed.beside(&plan)),
        Some(failed) => Err(failed.with_output(text())),
        None => {
            let output = if json { document(&plan)? } else { text() };
            if plan.would_change { Err(Failed::new(Exit::Unconfirmed, "").with_output(output)) } else { Ok(output) }
        }
    }
}

impl Compared {
    /// Both rule sets as benches need them.
    fn for_benches(&self) -> [RuleSet; 2] {
        let old = match &self.lists {
            Some(_) => sources::for_bench(&self.old),
            None => self.old.clone(),
        };
        [old, self.new.clone()]
    }

    /// Benches with both rule sets and the entries at the start: those of the dataplane, and those of the command line.
    fn benches<'r>(
        &'r self,
        [old, new]: &'r [RuleSet; 2],
        begin: Time,
        given: &Given,
    ) -> Result<[Bench<'r>; 2], Failed> {
        let [mut before, mut after] = [old, new].map(|rules| Bench::new(rules, &self.settings, begin));
        if let Some(lists) = &self.lists {
            sources::put_all(&lists.entries, &mut before);
            let stay = lists.entries.iter().filter(|entry| self.stays(entry));
            sources::put_all(stay, &mut after);
        }
        given.put(&mut before)?;
        given.put(&mut after)?;
        Ok([before, after])
    }

    /// Whether the addresses of a host name in a list are among the entries of the dataplane.
    fn is_resolved(&self, list: &str, name: &str) -> bool {
        let names = self.lists.iter().flat_map(|lists| &lists.names);
        names.into_iter().any(|state| state.list == list && state.name.name == name)
    }

    /// Whether an entry of the dataplane would be in its list with the new rules. Addresses of a host name stay if the new rules
    /// have the name in the same list.
    fn stays(&self, entry: &ListEntry) -> bool {
        let Some(name) = &entry.name else { return true };
        let is_it = |address: &EntryAddress| matches!(address, EntryAddress::Name(other) if other == name);
        let entries = self.new.address_lists.iter().filter(|other| !other.disabled && other.list == entry.list);
        entries.into_iter().any(|other| is_it(&other.address))
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
