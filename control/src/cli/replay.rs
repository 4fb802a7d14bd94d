//! `knockctl replay`: runs a capture through a rule file with the time stamps of the capture. Prints the verdict on each packet, the
//! counters of the rules and the list entries at the end; writes the forwarded packets as a capture.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rsc::wording;
use knockplane_policy::rule::{RuleId, RuleNumber, RuleSet, numbers};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::{Time, format_duration};
use knockplane_policy::wire::Counter;
use schemars::JsonSchema;
use serde::Serialize;

use super::capture::{CaptureRecord, Captured};
use super::explain::seconds;
use super::sources::{self, Given, Inside};
use super::table::Align::{Left, Right};
use super::table::{Columns, count, grouped, line};
use super::{Failed, document};
use crate::Exit;
use crate::bench::{Bench, Decision, Held, Judged};
use crate::json::rules::{ChainDefaultJson, chain_defaults};
use crate::json::{self, rfc_3339};

/// The command line.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Rule file
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,
    /// The capture: pcap or pcapng, of Ethernet, raw IP or the Linux device `any`
    #[arg(long, value_name = "FILE")]
    pcap: PathBuf,
    /// Configuration file, of which the section [policy] is used; without it, the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    inside: Inside,
    #[command(flatten)]
    given: Given,
    /// Write the forwarded packets to this file: the bytes of the capture without the dropped packets
    #[arg(long, value_name = "FILE")]
    forwarded: Option<PathBuf>,
    /// Print only the counters and the lists, not the packets
    #[arg(long)]
    summary: bool,
}

/// The result of a capture.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReplayReport {
    forwarded: u64,
    dropped: u64,
    /// Every packet; empty if only the summary was requested.
    packets: Vec<Decided>,
    rules: Vec<Counted>,
    chain_defaults: Vec<ChainDefaultJson>,
    /// The list entries at the time of the last packet.
    lists: Vec<Held>,
}

/// The verdict on a packet.
#[derive(Debug, Serialize, JsonSchema)]
struct Decided {
    number: usize,
    /// The capture's time, as RFC 3339 writes it.
    time: String,
    /// Seconds since the first packet.
    #[serde(skip)]
    since_first: String,
    from: Side,
    /// The packet in one line; absent if rules did not evaluate the frame.
    packet: Option<String>,
    #[serde(flatten)]
    decision: Decision,
}

/// The counter of a rule.
#[derive(Debug, Serialize, JsonSchema)]
struct Counted {
    /// As in `show rules`.
    number: RuleNumber,
    rule: RuleId,
    /// The line in the rule file; `null` without a file.
    line: Option<u32>,
    chain: String,
    action: String,
    comment: String,
    counter: Counter,
}

/// Runs the command.
pub(super) fn run(command: &Replay, json: bool) -> Result<String, Failed> {
    let settings = sources::settings_of(command.config.as_deref())?;
    let rules = sources::rules_of(&command.rules, &settings, json)?;
    let name = command.pcap.display();
    let broken = |why: String| Failed::new(Exit::Runtime, format!("{name}: {why}"));
    let capture = command.inside.load(&command.pcap)?;
    if command.forwarded.as_deref().is_some_and(|file| is_same(file, &command.pcap)) {
        return Err(Failed::new(Exit::Usage, "--forwarded would overwrite the capture"));
    }

    let begin = capture.begin();
    let mut bench = Bench::new(&rules, &settings, begin);
    command.given.put(&mut bench)?;
    let mut outcome = ReplayReport::of(&rules, &settings);
    let (head, records) = capture.records().map_err(|error| broken(error.to_string()))?;
    let mut forwarded = head.to_vec();
    for record in records {
        match record {
            Ok(CaptureRecord::Other(other)) => forwarded.extend(other.record),
            Ok(CaptureRecord::Packet(captured)) => {
                let judged = judge(&mut bench, &captured, &command.inside);
                if judged.verdict == Verdict::Forward {
                    forwarded.extend(captured.record);
                }
                outcome.note(&captured, judged, begin, (!command.summary).then_some(&bench));
            }
            Err(error) => {
                outcome.lists = bench.lists();
                let error = broken(error.to_string());
                return Err(if json { error.beside(outcome) } else { error.with_output(outcome.text()) });
            }
        }
    }
    outcome.lists = bench.lists();
    if let Some(file) = &command.forwarded {
        let failed = |why: String| Failed::new(Exit::Runtime, format!("{}: {why}", file.display()));
        fs::write(file, forwarded).map_err(|error| failed(format!("it cannot be written: {error}")))?;
    }
    if json { document(outcome) } else { Ok(outcome.text()) }
}

/// Decides about a packet of a capture, with the clock of the capture.
pub(super) fn judge(bench: &mut Bench<'_>, captured: &Captured<'_>, inside: &Inside) -> Judged {
    bench.at(captured.at);
    bench.judge(&captured.frame, |packet| inside.side(captured, packet))
}

/// The seconds from the first packet to this one.
pub(super) fn since_first(captured: &Captured<'_>, first: Time) -> String {
    seconds(Time::from_nanos(captured.at.as_nanos().saturating_sub(first.as_nanos())))
}

/// Whether both names refer to the same file.
fn is_same(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

impl ReplayReport {
    /// The outcome before the first packet.
    fn of(rules: &RuleSet, settings: &Settings) -> ReplayReport {
        let numbered = rules.rules.iter().zip(numbers(&rules.rules));
        let rules = numbered.map(|(rule, number)| Counted {
            number,
            rule: rule.id.clone(),
            line: json::line(rule.line),
            chain: rule.chain.clone(),
            action: wording::action(&rule.action),
            comment: rule.comment.clone(),
            counter: Counter::default(),
        });
        ReplayReport {
            forwarded: 0,
            dropped: 0,
            packets: Vec::new(),
            rules: rules.collect(),
            chain_defaults: chain_defaults(&[Counter::default(); 3], settings),
            lists: Vec::new(),
        }
    }

    /// Counts a packet. Adds its verdict if the bench is given.
    fn note(&mut self, captured: &Captured<'_>, judged: Judged, first: Time, bench: Option<&Bench<'_>>) {
        match judged.verdict {
            Verdict::Forward => self.forwarded += 1,
            Verdict::Drop => self.dropped += 1,
        }
        let add = |counter: &mut Counter| {
            counter.packets += 1;
            counter.bytes += u64::from(judged.ip_length);
        };
        for index in &judged.matched {
            add(&mut self.rules[*index].counter);
        }
        if let (Reason::ChainDefault, Some(chain)) = (judged.reason, judged.chain) {
            add(&mut self.chain_defaults[chain as usize].counter);
        }
        let Some(bench) = bench else { return };
        self.packets.push(Decided {
            number: captured.number,
            time: rfc_3339(captured.at),
            since_first: since_first(captured, first),
            from: judged.from,
            decision: bench.decision(&judged),
            packet: judged.packet,
        });
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for table in [self.packet_table(), Some(self.rule_table()), Some(self.default_table()), self.list_table()] {
            text += &table.map(|table| table + "\n").unwrap_or_default();
        }
        let packets = (self.forwarded + self.dropped) as usize;
        text + &format!("{}: {} forwarded, {} dropped\n", count(packets, "packet"), self.forwarded, self.dropped)
    }

    fn packet_table(&self) -> Option<String> {
        let mut table = Columns::new(&[
            ("NR", Right),
            ("SECONDS", Right),
            ("FROM", Left),
            ("VERDICT", Left),
            ("REASON", Left),
            ("RULE", Left),
            ("LINE", Right),
            ("PACKET", Left),
        ]);
        for packet in &self.packets {
            table.row([
                packet.number.to_string(),
                packet.since_first.clone(),
                packet.from.to_string(),
                packet.decision.verdict.to_string(),
                packet.decision.reason.to_string(),
                packet.decision.rule_number.map(|number| number.to_string()).unwrap_or_default(),
                packet.decision.line.map(line).unwrap_or_default(),
                packet.packet.clone().unwrap_or_default(),
            ]);
        }
        (!self.packets.is_empty()).then(|| table.text())
    }

    fn rule_table(&self) -> String {
        let mut table = Columns::new(&[
            ("RULE", Left),
            ("LINE", Right),
            ("CHAIN", Left),
            ("ACTION", Left),
            ("BYTES", Right),
            ("PACKETS", Right),
            ("COMMENT", Left),
        ]);
        for rule in &self.rules {
            table.row([
                rule.number.to_string(),
                rule.line.map(line).unwrap_or_default(),
                rule.chain.clone(),
                rule.action.clone(),
                grouped(rule.counter.bytes),
                grouped(rule.counter.packets),
                rule.comment.clone(),
            ]);
        }
        table.text()
    }

    fn default_table(&self) -> String {
        let mut table =
            Columns::new(&[("NO RULE DECIDED", Left), ("VERDICT", Left), ("BYTES", Right), ("PACKETS", Right)]);
        for default in &self.chain_defaults {
            table.row([
                default.chain.clone(),
                default.verdict.to_string(),
                grouped(default.counter.bytes),
                grouped(default.counter.packets),
            ]);
        }
        table.text()
    }

    fn list_table(&self) -> Option<String> {
        let mut table = Columns::new(&[("LIST", Left), ("ADDRESS", Left), ("TIME LEFT", Right)]);
        for held in &self.lists {
            let left = held.time_left.map_or_else(|| "-".to_owned(), format_duration);
            table.row([held.list.clone(), held.vlan.behind(held.address), left]);
        }
        (!self.lists.is_empty()).then(|| table.text())
    }
}
