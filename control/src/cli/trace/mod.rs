//! `knockctl trace`: live packets that fit a filter, each with the rules that it met, and why they did not match.
//!
//! The verdict, the rules that matched and the results at doors are those of the worker that decided. The reasons of the other
//! rules follow from the packet and from the facts that the worker recorded: [`knockplane_policy::eval::recorded`].
//!
//! | file         | owns |
//! |--------------|------|
//! | `mod.rs`     | the command line, and the trace from its begin to its end |
//! | `explain.rs` | the explanation of a packet |
//! | `write.rs`   | the capture file |

mod explain;
mod write;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hyper::Method;
use knockplane_policy::time::format_duration;
use knockplane_policy::trace::TraceFilter;
use knockplane_policy::wire::trace::{TRACE_RATE, TRACE_TIME, TraceBegun, TracedPacket, TracedPackets};

#[cfg(test)]
pub(crate) use self::explain::TracedJson;
use self::explain::{Benches, RuleSets};
use self::write::CaptureFile;
use super::http::Client;
use super::output::{complain, write_part};
use super::signals::EndSignals;
use super::table::count;
use super::{Failed, as_json, decode};
use crate::api::messages::BeginTrace;
use crate::{Exit, rules};

/// The time between two reads.
const PERIOD: Duration = Duration::from_millis(150);

/// The command line.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Command {
    /// The packets, for example `src 198.51.100.7 dst-port 22`; without a filter, all packets
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// End after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time: 1s to 1h
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = time)]
    time: Duration,
    /// Only dropped packets: as `verdict drop` in the filter
    #[arg(long)]
    dropped: bool,
    /// Show at most so many packets a second, up to 2000; further ones are counted
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = rate)]
    rate: u32,
    /// Write the packets to this file, too: pcapng, each packet with its verdict as a comment
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Show all rules that a packet met; otherwise those that matched, and the last 50 others
    #[arg(long)]
    all_rules: bool,
}

/// The syntax of a filter.
const HELP: &str = "\
A filter is a list of terms, all of which must hold. A term is a word and its values; one of several values suffices:
  src, dst            addresses: 198.51.100.7, 198.51.100.0/24, 192.0.2.1-192.0.2.9, 2001:db8::/32
  src-port, dst-port  ports: 22, 80,443, 7000-9000
  protocol            tcp, udp, icmp, icmpv6, or another name or number of rules
  side                the side of arrival: outside or inside
  vlan                10, 10/20 (two tags) or untagged
  verdict             forward or drop
  reason              rule, chain-default, tx-full, and the other reasons of the metrics
`not` before a term reverses it, and `and` may stand between terms.";

fn time(text: &str) -> Result<Duration, String> {
    let time = rules::timeout(text)?;
    match TRACE_TIME.contains(&time) {
        true => Ok(time),
        false => {
            let [shortest, longest] = [TRACE_TIME.start(), TRACE_TIME.end()].map(|time| format_duration(*time));
            Err(format!("packets can be traced for {shortest} to {longest}"))
        }
    }
}

fn rate(text: &str) -> Result<u32, String> {
    let rate = text.parse().ok().filter(|rate| TRACE_RATE.contains(rate));
    rate.ok_or_else(|| format!("a trace shows {} to {} packets a second", TRACE_RATE.start(), TRACE_RATE.end()))
}

/// Runs the command.
pub(super) async fn run(client: &Client, command: &Command, json: bool) -> Result<String, Failed> {
    let mut filter = command.filter.join(" ");
    TraceFilter::parse(&filter).map_err(|error| {
        let place = format!("column {} of the filter", error.column());
        Failed::new(Exit::Usage, error.to_string()).at(Some(place))
    })?;
    if command.dropped {
        filter += " verdict drop";
    }
    let mut signals = EndSignals::new()?;
    // Before the trace begins, because the kernel carries none of its flows meanwhile.
    let file = command.write.as_deref().map(CaptureFile::create).transpose()?;
    let body = as_json(&BeginTrace { filter, time: format_duration(command.time), rate: command.rate })?;
    let begun: TraceBegun = decode(&client.send(Method::POST, "/api/v1/trace", Some(body)).await?)?;
    let mut shown = Shown::default();
    let outcome = tokio::select! {
        () = signals.received() => Ok(()),
        outcome = follow(client, command, (json, file), begun, &mut shown) => outcome,
    };
    // If this fails, the trace ends by itself.
    let _ = client.send(Method::DELETE, &format!("/api/v1/trace/{}", begun.trace), None).await;
    outcome?;
    let missed = match shown.missed {
        0 => String::new(),
        missed => format!("; {missed} more fitted, but were over the rate"),
    };
    complain(format_args!("knockctl: {}{missed}\n", count(shown.packets as usize, "packet")));
    Ok(String::new())
}

/// Shows the packets of a trace until its end.
async fn follow(
    client: &Client,
    command: &Command,
    (json, file): (bool, Option<CaptureFile>),
    begun: TraceBegun,
    shown: &mut Shown,
) -> Result<(), Failed> {
    let kernel = match begun.fast_path {
        true => {
            "; meanwhile, workers decide about the flows that it shows, and the kernel carries and drops none of them"
        }
        false => "",
    };
    complain(format_args!("knockctl: tracing for {}{kernel}\n", format_duration(command.time)));
    let mut sets = RuleSets::default();
    let mut output = TraceOutput { json, all_rules: command.all_rules, file };
    loop {
        tokio::time::sleep(PERIOD).await;
        let read = client.send(Method::POST, &format!("/api/v1/trace/{}/read", begun.trace), None).await?;
        let TracedPackets { packets, missed, is_over } = decode(&read)?;
        shown.missed = missed;
        for packet in &packets {
            sets.need(client, packet.generation).await?;
        }
        let benches = sets.benches(&packets);
        for packet in &packets {
            let is_read = output.show(&benches, packet, shown)?;
            if !is_read || command.count == Some(shown.packets) {
                return Ok(());
            }
        }
        if is_over {
            return Ok(());
        }
    }
}

/// What has been shown so far.
#[derive(Default)]
struct Shown {
    packets: u64,
    /// Packets that fitted, and were not shown.
    missed: u64,
}

/// The places to which packets are written.
struct TraceOutput {
    json: bool,
    all_rules: bool,
    file: Option<CaptureFile>,
}

impl TraceOutput {
    /// Shows a packet. Returns whether the output is still read.
    fn show(&mut self, benches: &Benches<'_>, packet: &TracedPacket, shown: &mut Shown) -> Result<bool, Failed> {
        shown.packets += 1;
        let traced = benches.explain(packet, shown.packets, shown.missed, self.all_rules);
        if let Some(file) = &mut self.file {
            file.write(packet, &traced.conclusion())?;
        }
        let text = if self.json { traced.line()? } else { traced.text() };
        write_part(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_bounded() {
        assert_eq!((time("30s"), rate("2000")), (Ok(Duration::from_secs(30)), Ok(2_000)));
        for wrong in ["0s", "2h", "soon"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "2001", "-1", "x"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
