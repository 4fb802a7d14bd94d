//! `knockctl plan`: what would change if the rules of a file replaced the running ones, or those of another file. Changes nothing.
//!
//! | file          | owns |
//! |---------------|------|
//! | `mod.rs`      | the command: both rule sets, and the exit code |
//! | `changes.rs`  | changes of rules, other menus and lints |
//! | `verdicts.rs` | packets of a capture whose verdict would change |
//! | `live.rs`     | packets of a sample of live traffic whose verdict would change |
//! | `known.rs`    | connections and sources of the dataplane whose verdict would change |
//! | `text.rs`     | the plan as text |

mod changes;
mod known;
mod live;
mod text;
mod verdicts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use knockplane_policy::rule::{EntryAddress, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::connection_filter::ConnectionFilter;
use knockplane_policy::wire::{ListEntry, ListPage, MAX_ANSWER_ENTRIES};
use schemars::JsonSchema;
use serde::Serialize;

pub(super) use self::changes::{Changes, Linted};
use self::known::{KnownVerdicts, RulesWithEntries};
use self::live::LiveVerdicts;
pub(super) use self::text::{counts, new_lints};
use self::verdicts::CaptureVerdicts;
use super::bench::Bench;
use super::capture::Capture;
use super::check::{self, CheckedFile, How};
use super::http::Client;
use super::sources::{self, Given, Inside, Running};
use super::{Failed, connections, document, explain};
use crate::Exit;
use crate::api::messages::{DEFAULT_LIMIT, Tracked};

/// Default maximum number of rows in each part of the text.
const DEFAULT_ROWS: usize = 20;

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
    /// Sample the headers of live traffic for this time, 1s to 1m: the packets whose verdict would change are named
    ///
    /// Packets that begin a connection or a flow are compared. Those about which rules decide by their payload are named, and
    /// not decided.
    #[arg(long, value_name = "TIME", value_parser = live::time, conflicts_with_all = ["rules", "pcap"])]
    live: Option<Duration>,
    /// Maximum number of packets in the sample, at most 10000
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = live::packets, requires = "live")]
    live_packets: usize,
    /// Without --rules, --pcap and --live: the maximum number of connections, and of addresses in lists, whose first packets are
    /// compared
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT, conflicts_with_all = ["rules", "pcap", "live"])]
    known: usize,
    /// Maximum number of rows in each part of the text; JSON has all
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ROWS)]
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
    /// The packets of a sample of live traffic whose verdict would change; `null` without a sample.
    live: Option<LiveVerdicts>,
    /// The first packets of connections and sources of the dataplane whose verdict would change; `null` with a capture or a
    /// sample, or if the old rules come from a file.
    known: Option<KnownVerdicts>,
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
    let compared = Compared::read(client, command, &source, json).await?;
    let mut plan = Plan::new(&compared);
    let mut broken = None;
    if let (Some(capture), Some(file)) = (capture, &command.pcap) {
        let (verdicts, read) = compared.on_capture(&capture, command)?;
        broken = read
            .and_then(|()| has_packets(&verdicts))
            .err()
            .map(|failed| Failed { message: format!("{}: {}", file.display(), failed.message), ..failed });
        plan.verdicts = Some(verdicts);
    } else if let Some(time) = command.live {
        let verdicts = compared.on_live(client, time, command).await?;
        broken = (verdicts.packets == 0).then(no_traffic);
        plan.live = Some(verdicts);
    } else if let Some(lists) = &compared.lists {
        let tracked = connections::tracked(client, &ConnectionFilter::default(), command.known).await?;
        plan.known = Some(compared.on_known(lists, &tracked, command.known));
    }
    plan.would_change = plan.changes_something();
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

/// The text of the plan for rules that would replace the running ones.
pub(super) async fn of_running(client: &Client, new_name: &str, new: &RuleSet) -> Result<String, Failed> {
    let Running { source: origin, rules: old, settings, lists } = sources::running(client).await?;
    let (old_name, new_name, new) = (format!("the running rules, from {origin}"), new_name.to_owned(), new.clone());
    let tracked = connections::tracked(client, &ConnectionFilter::default(), DEFAULT_LIMIT).await?;
    let compared = Compared { old_name, old, new_name, new, settings, lists: Some(lists) };
    let mut plan = Plan::new(&compared);
    plan.known = compared.lists.as_ref().map(|lists| compared.on_known(lists, &tracked, DEFAULT_LIMIT));
    plan.would_change = plan.changes_something();
    Ok(text::text(&plan, DEFAULT_ROWS))
}

/// The error if a capture is empty: a comparison of no packets would look like one without a change.
fn has_packets(verdicts: &CaptureVerdicts) -> Result<(), Failed> {
    if verdicts.packets > 0 {
        return Ok(());
    }
    let remedy = "capture at a neighbour of the filter (docs/capture.md)";
    let message = format!("the capture has no packets, so no verdict can be compared: {remedy}");
    Err(Failed { remedy: Some(remedy.to_owned()), ..Failed::new(Exit::Runtime, message) })
}

/// The error if no packet arrived during a sample.
fn no_traffic() -> Failed {
    let remedy = "sample for a longer time";
    let message = format!("no packet arrived that rules evaluate, so no verdict can be compared: {remedy}");
    Failed { remedy: Some(remedy.to_owned()), ..Failed::new(Exit::Runtime, message) }
}

impl Plan {
    /// The plan without verdicts.
    fn new(compared: &Compared) -> Plan {
        let Compared { old_name, old, new_name, new, settings, .. } = compared;
        let [before, after] =
            [(old_name, old), (new_name, new)].map(|(name, rules)| Linted::new(name, rules, settings));
        let changes = Changes::of(&before, &after);
        let (old, new) = (old_name.clone(), new_name.clone());
        Plan { would_change: false, old, new, changes, verdicts: None, live: None, known: None }
    }

    fn changes_something(&self) -> bool {
        !self.changes.is_empty()
            || self.verdicts.as_ref().is_some_and(|verdicts| !verdicts.changed.is_empty())
            || self.live.as_ref().is_some_and(|live| !live.changed.is_empty())
            || self.known.as_ref().is_some_and(|known| !known.changed.is_empty())
    }
}

impl Compared {
    /// Checks both rule sets. The old one comes from a file or from the dataplane.
    async fn read(client: &Client, command: &Command, source: &CheckedFile, json: bool) -> Result<Compared, Failed> {
        let Command { rules: old_file, config, allow_invalid, .. } = command;
        let rules = |source: &CheckedFile, settings: &Settings| {
            source.rules(&How { settings, allow_invalid: *allow_invalid, lints: false }, json)
        };
        let new_name = source.name().to_owned();
        let Some(old_file) = old_file else {
            let Running { source: origin, rules: old, settings, lists } = sources::running(client).await?;
            let new = rules(source, &settings)?;
            let old_name = format!("the running rules, from {origin}");
            return Ok(Compared { old_name, old, new_name, new, settings, lists: Some(lists) });
        };
        let settings = sources::settings_of(config.as_deref())?;
        let other = check::read(old_file, json)?;
        let (old, new) = (rules(&other, &settings)?, rules(source, &settings)?);
        Ok(Compared { old_name: other.name().to_owned(), old, new_name, new, settings, lists: None })
    }

    /// The comparison for a capture, and the error of the capture.
    fn on_capture(
        &self,
        capture: &Capture,
        command: &Command,
    ) -> Result<(CaptureVerdicts, Result<(), Failed>), Failed> {
        self.note_unknown_lists();
        let rules = self.for_benches();
        let benches = self.benches(&rules, capture.begin(), &command.given)?;
        let (verdicts, read) = verdicts::compare(capture, &command.inside, benches);
        Ok((verdicts, read.map_err(|error| Failed::new(Exit::Runtime, error.to_string()))))
    }

    /// The comparison for a sample of live traffic.
    async fn on_live(&self, client: &Client, time: Duration, command: &Command) -> Result<LiveVerdicts, Failed> {
        self.note_unknown_lists();
        let tracked = connections::tracked(client, &ConnectionFilter::default(), MAX_ANSWER_ENTRIES).await?;
        let sample = live::sample(client, time, command.live_packets).await?;
        let (rules, begin) = (self.for_benches(), live::begin(&sample));
        let benches = self.benches(&rules, begin, &command.given)?;
        let verdicts = live::compare(&sample, begin, &tracked, &self.settings, benches);
        Ok(LiveVerdicts { seconds: time.as_secs(), ..verdicts })
    }

    /// The comparison for the connections and sources that the dataplane knows.
    fn on_known(&self, lists: &ListPage, tracked: &Tracked, limit: usize) -> KnownVerdicts {
        self.note_unknown_lists();
        let [old, new] = self.for_benches();
        let stay = lists.entries.iter().filter(|entry| self.stays(entry));
        let sets = [RulesWithEntries::new(old, &lists.entries), RulesWithEntries::new(new, stay)];
        known::compare(&sets, &self.settings, explain::now(), tracked, &lists.entries, limit)
    }

    fn note_unknown_lists(&self) {
        sources::note_unknown_lists(&[&self.old, &self.new], |list, name| self.is_resolved(list, name));
    }

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
