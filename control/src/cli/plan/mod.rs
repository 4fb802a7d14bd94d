//! `knockctl plan`: what would change if the rules of a file replaced the running ones, or those of another file. Changes nothing.
//!
//! | file          | owns |
//! |---------------|------|
//! | `mod.rs`      | the command: both rule sets, and the exit code |
//! | `capture.rs`  | compares the verdicts on the packets of a capture |
//! | `live.rs`     | compares the verdicts on a sample of live traffic |
//! | `text.rs`     | the plan as text |

mod capture;
mod live;
mod text;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::MAX_ANSWER_ENTRIES;
use knockplane_policy::wire::connection_filter::ConnectionFilter;

pub(super) use self::text::{counts, new_lints};
use super::capture::Capture;
use super::http::Client;
use super::sources::{self, Given, Inside};
use super::{Failed, check, connections, document};
use crate::Exit;
use crate::api::messages::DEFAULT_LIMIT;
use crate::bench::{self, Bench};
use crate::check::{CheckedFile, How};
use crate::plan::known::Limits;
use crate::plan::verdicts::{CaptureVerdicts, LiveVerdicts};
use crate::plan::{Compared, Plan};

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
    let compared = read(client, command, &source, json).await?;
    let mut plan = Plan::new(&compared);
    let mut broken = None;
    if let (Some(capture), Some(file)) = (capture, &command.pcap) {
        let (verdicts, read) = on_capture(&compared, &capture, command)?;
        broken = read
            .and_then(|()| has_packets(&verdicts))
            .err()
            .map(|failed| Failed { message: format!("{}: {}", file.display(), failed.message), ..failed });
        plan.verdicts = Some(verdicts);
    } else if let Some(time) = command.live {
        let verdicts = on_live(&compared, client, time, command).await?;
        broken = (verdicts.packets == 0).then(no_traffic);
        plan.live = Some(verdicts);
    } else if compared.lists.is_some() {
        let tracked = connections::tracked(client, &ConnectionFilter::default(), command.known).await?;
        note_unknown_lists(&compared);
        plan.known = compared.known(&tracked, Limits::of(command.known));
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
    let compared = Compared::with_running(sources::running(client).await?, new_name.to_owned(), new.clone());
    let tracked = connections::tracked(client, &ConnectionFilter::default(), DEFAULT_LIMIT).await?;
    note_unknown_lists(&compared);
    Ok(text::text(&Plan::of_running(&compared, &tracked, Limits::of(DEFAULT_LIMIT)), DEFAULT_ROWS))
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

/// Checks both rule sets. The old one comes from a file or from the dataplane.
async fn read(client: &Client, command: &Command, source: &CheckedFile, json: bool) -> Result<Compared, Failed> {
    let Command { rules: old_file, config, allow_invalid, .. } = command;
    let rules = |source: &CheckedFile, settings: &Settings| {
        source.rules(&How { settings, allow_invalid: *allow_invalid, lints: false }, json)
    };
    let new_name = source.name.clone();
    let Some(old_file) = old_file else {
        let running = sources::running(client).await?;
        let new = rules(source, &running.settings)?;
        return Ok(Compared::with_running(running, new_name, new));
    };
    let settings = sources::settings_of(config.as_deref())?;
    let other = check::read(old_file, json)?;
    let (old, new) = (rules(&other, &settings)?, rules(source, &settings)?);
    Ok(Compared { old_name: other.name, old, new_name, new, new_lints: None, settings, lists: None, loss: None })
}

/// The comparison for a capture, and the error of the capture.
fn on_capture(
    compared: &Compared,
    capture: &Capture,
    command: &Command,
) -> Result<(CaptureVerdicts, Result<(), Failed>), Failed> {
    note_unknown_lists(compared);
    let rules = compared.for_benches();
    let benches = benches(compared, &rules, capture.begin(), &command.given)?;
    let (verdicts, read) = capture::compare(capture, &command.inside, benches);
    Ok((verdicts, read.map_err(|error| Failed::new(Exit::Runtime, error.to_string()))))
}

/// The comparison for a sample of live traffic.
async fn on_live(
    compared: &Compared,
    client: &Client,
    time: Duration,
    command: &Command,
) -> Result<LiveVerdicts, Failed> {
    note_unknown_lists(compared);
    let tracked = connections::tracked(client, &ConnectionFilter::default(), MAX_ANSWER_ENTRIES).await?;
    let sample = live::sample(client, time, command.live_packets).await?;
    let (rules, begin) = (compared.for_benches(), live::begin(&sample));
    let benches = benches(compared, &rules, begin, &command.given)?;
    let verdicts = live::compare(&sample, begin, &tracked, &compared.settings, benches);
    Ok(LiveVerdicts { seconds: time.as_secs(), ..verdicts })
}

fn note_unknown_lists(compared: &Compared) {
    sources::note_unknown_lists(&[&compared.old, &compared.new], |list, name| compared.is_resolved(list, name));
}

/// Benches with both rule sets and the entries at the start: those of the dataplane, and those of the command line.
fn benches<'r>(
    compared: &'r Compared,
    [old, new]: &'r [RuleSet; 2],
    begin: Time,
    given: &Given,
) -> Result<[Bench<'r>; 2], Failed> {
    let [mut before, mut after] = [old, new].map(|rules| Bench::new(rules, &compared.settings, begin));
    if let Some(lists) = &compared.lists {
        bench::put_all(&lists.entries, &mut before);
        bench::put_all(lists.entries.iter().filter(|entry| compared.stays(entry)), &mut after);
    }
    given.put(&mut before)?;
    given.put(&mut after)?;
    Ok([before, after])
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
