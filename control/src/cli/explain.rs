//! `knockctl explain`: the rules that are tried on a packet, the reason why each did not match, its effects on lists, and the
//! verdict. The packet is given as a line of text, or the packets come from a capture.

use std::path::PathBuf;

use clap::Args;
use hyper::Method;
use knockplane_policy::packet::Side;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::{KernelQuery, KernelVerdict};
use schemars::JsonSchema;
use serde::Serialize;

use super::capture::{Capture, CaptureRecord};
use super::http::Client;
use super::sources::{self, Given, Inside};
use super::table::Align::{Left, Right};
use super::table::{Columns, line, named, printable, wrapped};
use super::{Failed, decode, document};
use crate::bench::{self, Bench, Explained, Held, KernelJson, KernelVerdictJson, OTHER_FAMILY, side};
use crate::explain::explain;
use crate::json::rfc_3339;
use crate::running::for_bench;
use crate::{Exit, packet};

/// The command line.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Explain {
    /// The packet, for example `tcp 198.51.100.7:4000 > 203.0.113.5:22 syn`
    #[arg(required_unless_present = "pcap", conflicts_with_all = ["pcap", "inside"])]
    packet: Option<String>,
    /// A capture (pcap or pcapng) whose packets are explained in order, with its time stamps
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Rule file; without it, the running rules
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Configuration file, of which the section [policy] is used; without it, the defaults
    #[arg(long, value_name = "FILE", requires = "rules")]
    config: Option<PathBuf>,
    /// The side that the packet comes from: outside or inside
    #[arg(long, value_name = "SIDE", value_parser = parse_side, conflicts_with = "pcap")]
    from: Option<Side>,
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    inside: Inside,
}

/// The syntax of the description of a packet.
const HELP: &str = "\
A packet is: PROTOCOL SOURCE[:PORT] > DESTINATION[:PORT] [WORDS]
  PROTOCOL  tcp, udp, icmp, icmpv6, or another name or number of rules; icmp 3:4 says type and code
  WORDS     syn ack fin rst psh urg ece cwr none (TCP flags; syn if none is named), mss N,
            payload \"text\" (\\xHH is any byte), length N (of the IP packet), ttl N, tos N, dscp N, fragment,
            mac 00:11:22:AA:BB:CC (source), vlan N or N/M (two tags), pppoe N (session), priority N (of the tag), in INTERFACE";

/// The indentation of continuation lines.
const INDENT: &str = "    ";

/// A packet of a capture, for `--json`.
#[derive(Serialize, JsonSchema)]
struct Numbered {
    /// The number in the capture, from 1.
    number: usize,
    /// The time in the capture, in the form of RFC 3339.
    time: String,
    #[serde(flatten)]
    explained: Explained,
}

/// The packets of a capture, for `--json`.
#[derive(Serialize, JsonSchema)]
pub(crate) struct All {
    packets: Vec<Numbered>,
    /// The list entries after the last packet.
    lists: Vec<Held>,
}

/// Runs the command.
pub(super) async fn run(client: &Client, command: Explain, json: bool) -> Result<String, Failed> {
    let (rules, settings, lists) = match &command.rules {
        Some(file) => {
            let settings = sources::settings_of(command.config.as_deref())?;
            (sources::rules_of(file, &settings, json)?, settings, None)
        }
        None => {
            let running = sources::running(client).await?;
            (for_bench(&running.rules), running.settings, Some(running.lists))
        }
    };
    let fill = |bench: &mut Bench<'_>| {
        if let Some(lists) = &lists {
            bench::put_all(&lists.entries, bench);
        }
        command.given.put(bench)
    };
    match (&command.packet, &command.pcap) {
        (Some(text), _) => {
            let usage = |why: String| Failed::new(Exit::Usage, why);
            let described = packet::describe(text).map_err(|error| usage(error.to_string()))?;
            let from = side(command.from, described.interface.as_deref(), &settings).map_err(usage)?;
            let mut single = explain(&described.frame, from, &rules, &settings, fill)?;
            if command.rules.is_none()
                && let Some(verdict) = kernel_verdict(client, from, described.frame).await
            {
                single.explained.note_kernel(verdict);
            }
            if json { document(single) } else { Ok(single.explained.text()) }
        }
        (None, Some(file)) => {
            let capture = command.inside.load(file)?;
            all(&capture, &command.inside, &rules, &settings, fill, json)
                .map_err(|failed| Failed { message: format!("{}: {}", file.display(), failed.message), ..failed })
        }
        (None, None) => Err(Failed::new(Exit::Usage, "describe a packet, or name a capture with --pcap")),
    }
}

/// What the kernel does now with frames like this one. `None` if that is not known: the explanation by the rules is still useful.
async fn kernel_verdict(client: &Client, side: Side, frame: Vec<u8>) -> Option<KernelVerdict> {
    let query = serde_json::to_vec(&KernelQuery { side, frame }).ok()?;
    let answer = client.send(Method::POST, "/api/v1/kernel", Some(query)).await.ok()?;
    decode(&answer).ok()
}

/// Explains the packets of a capture in order.
fn all(
    capture: &Capture,
    inside: &Inside,
    rules: &RuleSet,
    settings: &Settings,
    fill: impl FnOnce(&mut Bench<'_>) -> Result<(), Failed>,
    json: bool,
) -> Result<String, Failed> {
    let (mut text, mut packets) = (String::new(), Vec::new());
    let mut bench = Bench::new(rules, settings, capture.begin());
    fill(&mut bench)?;
    let (_, records) = capture.records().map_err(|broken| Failed::new(Exit::Runtime, broken.to_string()))?;
    for record in records {
        let captured = match record {
            Ok(CaptureRecord::Packet(captured)) => captured,
            Ok(CaptureRecord::Other(_)) => continue,
            Err(broken) => {
                let error = Failed::new(Exit::Runtime, broken.to_string());
                let lists = bench.lists();
                return Err(if json { error.beside(All { packets, lists }) } else { error.with_output(text) });
            }
        };
        bench.at(captured.at);
        let explained = bench.explain(&captured.frame, |packet| inside.side(&captured, packet));
        if json {
            packets.push(Numbered { number: captured.number, time: rfc_3339(captured.at), explained });
        } else {
            text += &format!("packet {}, {}\n{}\n", captured.number, seconds(captured.at), explained.text());
        }
    }
    if json { document(All { packets, lists: bench.lists() }) } else { Ok(text) }
}

impl Explained {
    /// The explanation as text.
    pub(super) fn text(&self) -> String {
        let mut text = match (&self.packet, self.chain) {
            (Some(packet), Some(chain)) => wrapped(&format!("{packet}, from {}: chain {chain}", self.from), INDENT),
            _ => format!("a frame that rules cannot see, from {}\n", self.from),
        };
        if !self.rules.is_empty() {
            text += &self.table();
        }
        for (what, lines) in [("logs", &self.logged), ("answers", &self.replies)] {
            for line in lines {
                text += &wrapped(&format!("{what}: {}", printable(line)), INDENT);
            }
        }
        text += &wrapped(&self.conclusion(), INDENT);
        if let Some(line) = self.kernel.as_ref().and_then(KernelJson::line) {
            text += &wrapped(&printable(&line), INDENT);
        }
        text
    }

    fn table(&self) -> String {
        let mut table = Columns::new(&[("RULE", Left), ("LINE", Right), ("CHAIN", Left), ("ACTION", Left), ("", Left)]);
        for step in self.rules.iter().filter(|step| step.outcome != OTHER_FAMILY) {
            let outcome = match &step.because {
                Some(because) => format!("{}: {because}", step.outcome),
                None => step.outcome.to_owned(),
            };
            let comment = if step.comment.is_empty() { String::new() } else { format!(" ;;; {}", step.comment) };
            table.row([
                step.number.to_string(),
                line(step.line),
                "  ".repeat(step.depth) + &step.chain,
                step.action.clone(),
                outcome + &comment,
            ]);
        }
        table.text()
    }

    /// `drop: a rule decided, ip filter 4, line 5 (comment)`.
    pub(super) fn conclusion(&self) -> String {
        let rule = self.decided_by.and_then(|position| self.rules.get(position));
        let named = rule.map(|step| named(step.number, step.line, &step.comment));
        bench::conclusion(self.verdict, self.reason, named)
    }
}

impl KernelJson {
    /// The sentence for operators; `None` if there is nothing to say.
    fn line(&self) -> Option<String> {
        match self.verdict {
            KernelVerdictJson::Off => None,
            KernelVerdictJson::Carries => {
                let until = self.time_left_seconds.map_or_else(
                    || "until something changes".to_owned(),
                    |seconds| format!("for another {seconds:.0} s if nothing changes"),
                );
                Some(format!("kernel: it carries this flow, without a worker, {until}"))
            }
            KernelVerdictJson::Drops => {
                Some("kernel: it drops such frames, without a worker, while many arrive".to_owned())
            }
            KernelVerdictJson::Passes => {
                let because = self.because.as_ref()?;
                Some(format!("kernel: workers decide about each packet of this flow; {because}"))
            }
        }
    }
}

/// Seconds since 1970, with nine decimal places.
pub(super) fn seconds(time: Time) -> String {
    let ns = time.as_nanos();
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn parse_side(text: &str) -> Result<Side, &'static str> {
    Side::ALL.into_iter().find(|side| side.name() == text).ok_or("write `outside` or `inside`")
}
