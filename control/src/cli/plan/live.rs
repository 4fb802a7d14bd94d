//! The packets of a sample of live traffic whose verdict would change.
//!
//! The dataplane samples the headers of packets with its verdicts. A packet that begins a connection or a flow is evaluated
//! by both rule sets, with zeros in place of its payload, and with the lists of the dataplane and the packets of the sample
//! before it as its state. Three kinds of packets are not compared:
//! - Later packets of connections and flows: their verdict depends on state that a sample does not have.
//! - Packets about which a rule or a door decides by their payload.
//! - Packets that the old rules decide otherwise than the dataplane did, because of state that only the dataplane has.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use hyper::Method;
use knockplane_policy::packet::{Packet, TcpFlag, protocol};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::{Time, format_duration};
use knockplane_policy::wire::connections::Connection;
use knockplane_policy::wire::sample::{MAX_SAMPLED, SAMPLE_TIME, SampledPacket, TrafficSample};

use crate::api::messages::{BeginSample, SampleBegun, Tracked};
use crate::bench::{self, Bench};
use crate::cli::explain;
use crate::cli::http::Client;
use crate::cli::output::complain;
use crate::cli::{Failed, as_json, decode};
use crate::json::rfc_3339;
use crate::plan::verdicts::{ChangedPacket, LiveVerdicts, Outcome, PacketRow, UndecidedPacket};
use crate::rules;
use crate::running::now;

/// Parses the time of a sample.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let time = rules::timeout(text)?;
    match SAMPLE_TIME.contains(&time) {
        true => Ok(time),
        false => {
            let [shortest, longest] = [SAMPLE_TIME.start(), SAMPLE_TIME.end()].map(|time| format_duration(*time));
            Err(format!("traffic can be sampled for {shortest} to {longest}"))
        }
    }
}

/// Parses the number of packets of a sample.
pub(super) fn packets(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_SAMPLED).contains(number));
    number.ok_or_else(|| format!("a sample has 1 to {MAX_SAMPLED} packets"))
}

/// Samples live traffic.
pub(super) async fn sample(client: &Client, time: Duration, packets: usize) -> Result<TrafficSample, Failed> {
    let body = as_json(&BeginSample { time: format_duration(time), packets })?;
    let begun = client.send(Method::POST, "/api/v1/sample", Some(body)).await?;
    let SampleBegun { sample } = decode(&begun)?;
    complain(format_args!(
        "knockctl: sampling live traffic for {}, without packets that the kernel carries or drops by earlier verdicts\n",
        format_duration(time)
    ));
    tokio::time::sleep(time).await;
    decode(&client.send(Method::POST, &format!("/api/v1/sample/{sample}/end"), None).await?)
}

/// The time of the first packet, if the sample was read now.
pub(super) fn begin(sample: &TrafficSample) -> Time {
    sample.packets.first().map_or_else(now, |first| arrived(first, now()))
}

fn arrived(packet: &SampledPacket, read: Time) -> Time {
    let age = u64::try_from(packet.age.as_nanos()).unwrap_or(u64::MAX);
    Time::from_nanos(read.as_nanos().saturating_sub(age))
}

/// Runs the sample through both rule sets, the old one first. `tracked` are the connections before the sample.
pub(super) fn compare(
    sample: &TrafficSample,
    begin: Time,
    tracked: &Tracked,
    settings: &Settings,
    [mut old, mut new]: [Bench<'_>; 2],
) -> LiveVerdicts {
    let mut verdicts = LiveVerdicts { packets: sample.packets.len(), missed: sample.missed, ..LiveVerdicts::default() };
    let mut flows = Flows::before(tracked, settings);
    let first_age = sample.packets.first().map_or(Duration::ZERO, |first| first.age);
    for (index, sampled) in sample.packets.iter().enumerate() {
        let since_first = first_age.saturating_sub(sampled.age);
        let (at, frame) = (begin + since_first, sampled.frame());
        if !bench::parse(&frame).is_some_and(|packet| flows.begin(&packet)) {
            verdicts.later += 1;
            continue;
        }
        let [(before, old_reads), (after, new_reads)] = [&mut old, &mut new].map(|bench| {
            bench.at(at);
            bench.judge_by_headers(&frame, sampled.side)
        });
        let row = PacketRow {
            number: index + 1,
            time: rfc_3339(at),
            since_first: explain::seconds(Time::default() + since_first),
            from: before.from,
            packet: before.packet.clone(),
        };
        let payload = [("old", old_reads), ("new", new_reads)].into_iter().find_map(|(what, rule)| {
            Some(format!("by the {what} rules, its payload counts: {}; a sample has headers only", rule?))
        });
        let state = (before.verdict != sampled.verdict).then(|| {
            let (verdict, conclusion) = (sampled.verdict, old.conclusion(&before));
            format!("the dataplane decided {verdict} by state that is not in a sample; without it: {conclusion}")
        });
        if let Some(because) = payload.or(state) {
            verdicts.undecided.push(UndecidedPacket { packet: row, because });
            continue;
        }
        verdicts.compared += 1;
        if before.verdict != after.verdict {
            let [old, new] = [Outcome::new(&old, &before), Outcome::new(&new, &after)];
            verdicts.changed.push(ChangedPacket { packet: row, old, new });
        }
    }
    verdicts
}

/// An end of a flow: address, and port or ICMP identifier.
type End = (IpAddr, u16);

/// The flows that have begun: network, protocol and both ends, the lesser one first.
struct Flows<'s> {
    settings: &'s Settings,
    known: HashSet<(u64, u8, End, End)>,
    /// Whether there are flows that are not known.
    is_partial: bool,
}

impl<'s> Flows<'s> {
    fn before(tracked: &Tracked, settings: &'s Settings) -> Flows<'s> {
        let known = tracked.connections.iter().map(|connection| {
            let Connection { vlan, protocol, source, destination, .. } = connection;
            key(vlan.bits(), *protocol, *source, *destination)
        });
        Flows { settings, known: known.collect(), is_partial: tracked.truncated }
    }

    /// Whether a packet begins a flow: a TCP SYN, an echo request, or a packet of another protocol in a flow that was not
    /// there. If not all flows are known, only TCP tells.
    fn begin(&mut self, packet: &Packet<'_>) -> bool {
        let number = packet.protocol;
        if number == protocol::TCP {
            return packet.tcp_flags().is_some_and(|f| f.contains(TcpFlag::Syn) && !f.contains(TcpFlag::Ack));
        }
        let (source, destination) = match packet.icmp {
            None => packet.ports.unwrap_or_default(),
            Some((8 | 128, 0)) => {
                let place = usize::from(packet.transport) + 4;
                let identifier = packet.frame.get(place..place + 2).map_or(0, |id| u16::from_be_bytes([id[0], id[1]]));
                (identifier, identifier)
            }
            Some(_) => return false,
        };
        let vlan = self.settings.vlans.of(packet.vlan()).bits();
        let key = key(vlan, number, (packet.source, source), (packet.destination, destination));
        self.known.insert(key) && !self.is_partial
    }
}

fn key(vlan: u64, protocol: u8, source: End, destination: End) -> (u64, u8, End, End) {
    // The destination of an echo request in the table of connections may have no identifier.
    let destination = match protocol {
        protocol::ICMP | protocol::ICMPV6 => (destination.0, source.1),
        _ => destination,
    };
    (vlan, protocol, source.min(destination), source.max(destination))
}

#[cfg(test)]
mod tests {
    use knockplane_policy::packet::Side;
    use knockplane_policy::reason::Verdict;
    use knockplane_policy::rsc;
    use knockplane_policy::rule::RuleSet;
    use serde_json::Value;

    use super::*;
    use crate::cli::tests::frame;

    /// A packet that arrived `age` seconds before the sample was read.
    fn sampled(age: u64, side: Side, text: &str, verdict: Verdict) -> SampledPacket {
        let frame = frame(text);
        let length = frame.len() - bench::parse(&frame).expect("a packet").payload.len();
        let (headers, rest) = (frame[..length].to_vec(), frame.len() - length);
        SampledPacket { age: Duration::from_secs(age), side, verdict, headers, rest }
    }

    fn outside(age: u64, text: &str, verdict: Verdict) -> SampledPacket {
        sampled(age, Side::Outside, text, verdict)
    }

    fn compared(old: &str, new: &str, settings: &Settings, packets: Vec<SampledPacket>) -> LiveVerdicts {
        let rules = |text: &str| -> RuleSet {
            let reading = rsc::read(format!("/ip firewall filter\n{text}").as_bytes());
            assert_eq!(reading.problems, [], "{text}");
            reading.rules
        };
        let sets = [rules(old), rules(new)];
        let sample = TrafficSample { packets, missed: 0 };
        let begin = begin(&sample);
        let benches = [&sets[0], &sets[1]].map(|rules| Bench::new(rules, settings, begin));
        compare(&sample, begin, &tracked(), settings, benches)
    }

    /// A connection from before the sample.
    fn tracked() -> Tracked {
        let sample = crate::sample::tracked().connections.remove(0);
        let ends = [("192.0.2.9", 9), ("203.0.113.5", 123)].map(|(address, port)| (address.parse().unwrap(), port));
        let udp = Connection { protocol: protocol::UDP, source: ends[0], destination: ends[1], tcp: None, ..sample };
        Tracked { table: None, connections: vec![udp], truncated: false }
    }

    fn numbers(packets: impl Iterator<Item = usize>) -> Vec<usize> {
        packets.collect()
    }

    fn changed(verdicts: &LiveVerdicts) -> Vec<usize> {
        numbers(verdicts.changed.iter().map(|changed| changed.packet.number))
    }

    fn undecided(verdicts: &LiveVerdicts) -> Vec<usize> {
        numbers(verdicts.undecided.iter().map(|undecided| undecided.packet.number))
    }

    const SSH: &str = "add chain=input protocol=tcp dst-port=22\nadd chain=input action=drop\n";

    #[test]
    fn packets_that_begin_a_connection_are_compared() {
        let https = SSH.replace("=22", "=443");
        let packets = vec![
            outside(9, "tcp 192.0.2.1:4000 > 203.0.113.5:22 syn", Verdict::Forward),
            sampled(8, Side::Inside, "tcp 203.0.113.5:22 > 192.0.2.1:4000 syn ack", Verdict::Forward),
            outside(7, "tcp 192.0.2.1:4000 > 203.0.113.5:22 ack payload \"x\"", Verdict::Forward),
            outside(6, "tcp 192.0.2.1:4001 > 203.0.113.5:443 syn", Verdict::Drop),
            outside(5, "icmp 192.0.2.1 > 203.0.113.5", Verdict::Drop),
            outside(4, "udp 192.0.2.1:4000 > 203.0.113.5:53", Verdict::Drop),
            outside(3, "udp 192.0.2.1:4000 > 203.0.113.5:53", Verdict::Drop),
        ];
        let verdicts = compared(SSH, &https, &Settings::default(), packets);
        assert_eq!((changed(&verdicts), undecided(&verdicts)), (vec![1, 4], vec![]));
        assert_eq!((verdicts.packets, verdicts.compared, verdicts.later), (7, 4, 3));
        let first = &verdicts.changed[0].packet;
        assert_eq!(first.packet.as_deref(), Some("tcp 192.0.2.1:4000 > 203.0.113.5:22 syn, 40 bytes"));
        assert_eq!(verdicts.changed[1].packet.since_first, "3.000000000");
        assert!(verdicts.changed[0].new.conclusion.starts_with("drop: a rule decided"));
    }

    /// A connection of the dataplane goes on; the lists follow the packets of the sample.
    #[test]
    fn flows_from_before_the_sample_are_not_compared_and_knocks_count() {
        let knock = "add chain=input protocol=tcp dst-port=7 action=add-src-to-address-list address-list=a \
             address-list-timeout=1m\n";
        let old = format!("{knock}add chain=input src-address-list=a protocol=tcp dst-port=22\n");
        let packets = vec![
            outside(9, "tcp 192.0.2.1:4000 > 203.0.113.5:7 syn", Verdict::Drop),
            outside(8, "tcp 192.0.2.1:4000 > 203.0.113.5:22 syn", Verdict::Forward),
            sampled(7, Side::Inside, "udp 203.0.113.5:123 > 192.0.2.9:9", Verdict::Forward),
        ];
        let verdicts = compared(&old, knock, &Settings::default(), packets);
        assert_eq!((changed(&verdicts), undecided(&verdicts)), (vec![2], vec![]));
        assert_eq!((verdicts.compared, verdicts.later), (2, 1));
    }

    #[test]
    fn payloads_and_unknown_state_are_told_and_not_guessed() {
        let old =
            "add chain=input protocol=udp dst-port=53 content=\"open\"\nadd chain=input protocol=udp dst-port=54\n";
        let new = "add chain=input protocol=udp dst-port=53-54 content=\"open\"\n";
        let packets = vec![
            outside(9, "udp 192.0.2.1:1 > 203.0.113.5:53 payload \"open\"", Verdict::Forward),
            outside(8, "udp 192.0.2.1:2 > 203.0.113.5:53 payload \"shut\"", Verdict::Drop),
            outside(7, "udp 192.0.2.1:3 > 203.0.113.5:54 payload \"open\"", Verdict::Forward),
            outside(6, "udp 192.0.2.1:4 > 203.0.113.5:55 payload \"open\"", Verdict::Drop),
            // Without payload there is nothing to guess.
            outside(5, "udp 192.0.2.1:5 > 203.0.113.5:54", Verdict::Forward),
            // A limit or a list entry of which only the dataplane knows.
            outside(4, "udp 192.0.2.1:6 > 203.0.113.5:56", Verdict::Forward),
        ];
        let verdicts = compared(old, new, &Settings::default(), packets);
        assert_eq!((changed(&verdicts), undecided(&verdicts)), (vec![5], vec![1, 2, 3, 6]));
        assert_eq!(verdicts.compared, 2);
        let because = |at: usize| &*verdicts.undecided[at].because;
        assert!(because(0).starts_with("by the old rules, its payload counts: ip filter 0"), "{}", because(0));
        assert!(because(2).starts_with("by the new rules, its payload counts: ip filter 0"), "{}", because(2));
        assert!(because(3).starts_with("the dataplane decided forward by state that is not"), "{}", because(3));
    }

    #[test]
    fn the_passphrase_of_a_door_is_payload() {
        let door = serde_json::from_str(r#"{"name":"ssh","knock":["udp/9 \"sesame\""],"opens":["tcp/22"]}"#);
        let settings = Settings { doors: vec![door.expect("a door")], ..Settings::default() };
        let rules = knockplane_policy::door::rules(&settings, RuleSet::default());
        let sets = [rules.clone(), rules];
        let packets = vec![
            outside(9, "udp 192.0.2.1:1 > 203.0.113.5:9 payload \"sesame\"", Verdict::Drop),
            outside(8, "udp 192.0.2.1:1 > 203.0.113.5:8 payload \"sesame\"", Verdict::Drop),
        ];
        let sample = TrafficSample { packets, missed: 3 };
        let begin = begin(&sample);
        let benches = [&sets[0], &sets[1]].map(|rules| Bench::new(rules, &settings, begin));
        let verdicts = compare(&sample, begin, &tracked(), &settings, benches);
        assert_eq!((undecided(&verdicts), verdicts.compared, verdicts.missed), (vec![1], 1, 3));
        let json: Value = serde_json::to_value(&verdicts).expect("plain data");
        assert!(json["undecided"][0]["because"].is_string() && json["undecided"][0]["number"] == 1, "{json}");
    }

    #[test]
    fn a_sample_is_bounded() {
        for (text, seconds) in [("1s", 1), ("5s", 5), ("1m", 60)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)));
        }
        assert!(["0s", "61s", "soon"].iter().all(|text| time(text).is_err()));
        assert!(packets("1") == Ok(1) && packets("10000") == Ok(MAX_SAMPLED));
        assert!(["0", "10001", "-1", "x"].iter().all(|text| packets(text).is_err()));
    }
}
