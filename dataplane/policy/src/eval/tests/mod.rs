//! Rules built by hand, frames built by etherparse.

mod anything;
mod content;
mod doors;
mod headers;
mod interfaces;
mod levels;
mod lints;
mod memory;
mod rules;
mod scans;

use std::net::IpAddr;
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TcpHeader, TcpSlice, UdpSlice};

use super::{Evaluation, Evaluator};
use crate::packet::{Family, Packet, Side, protocol};
use crate::rule::{Action, Condition, ListAdd, ListTimeout, Matcher, Rule, RuleSet, Table};
use crate::settings::{ChainDefaults, Choice, Settings};
use crate::time::Time;

pub(in crate::eval) const CLIENT: &str = "198.51.100.7";
pub(in crate::eval) const SERVER: &str = "203.0.113.1";
pub(in crate::eval) const CLIENT6: &str = "2001:db8::7";
pub(in crate::eval) const SERVER6: &str = "2001:db8:ff::1";

/// A filter rule for IPv4, in `input`.
pub(in crate::eval) fn rule(conditions: Vec<Condition>, action: Action) -> Rule {
    let matchers = conditions.into_iter().map(|condition| Matcher { negated: false, condition }).collect();
    Rule { matchers, ..Rule::new(Family::Ipv4, "input", action) }
}

pub(in crate::eval) fn in_chain(chain: &str, rule: Rule) -> Rule {
    Rule { chain: chain.to_owned(), ..rule }
}

pub(in crate::eval) fn raw(chain: &str, conditions: Vec<Condition>, action: Action) -> Rule {
    Rule { table: Table::Raw, ..in_chain(chain, rule(conditions, action)) }
}

pub(in crate::eval) fn rules(rules: Vec<Rule>) -> RuleSet {
    RuleSet { rules, ..RuleSet::default() }
}

pub(in crate::eval) fn add_src(list: &str, seconds: u64) -> Action {
    let timeout = ListTimeout::After(Duration::from_secs(seconds));
    Action::AddSrcToAddressList(ListAdd { list: list.to_owned(), timeout })
}

/// Settings that forward packets which no rule decides.
pub(in crate::eval) fn open() -> Settings {
    let chain_default = ChainDefaults { input: Choice::Accept, ..ChainDefaults::default() };
    Settings { chain_default, ..Settings::default() }
}

/// The time `ms` milliseconds after the clock's zero.
pub(in crate::eval) fn ms(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn ip(source: &str, destination: &str) -> PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ethernet.ipv4(source.octets(), destination.octets(), 64),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ethernet.ipv6(source.octets(), destination.octets(), 64),
        _ => panic!("two families in one packet"),
    }
}

pub(in crate::eval) fn udp(source: (&str, u16), destination: (&str, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ip(source.0, destination.0).udp(source.1, destination.1).write(&mut frame, payload).unwrap();
    frame
}

/// A TCP segment; flags as letters of `SAFRPUEC`, sequence and acknowledgement numbers.
pub(in crate::eval) fn tcp(
    source: (&str, u16),
    destination: (&str, u16),
    flags: &str,
    numbers: (u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    let mut header = TcpHeader::new(source.1, destination.1, numbers.0, 1024);
    header.acknowledgment_number = numbers.1;
    for flag in flags.chars() {
        *match flag {
            'S' => &mut header.syn,
            'A' => &mut header.ack,
            'F' => &mut header.fin,
            'R' => &mut header.rst,
            'P' => &mut header.psh,
            'U' => &mut header.urg,
            'E' => &mut header.ece,
            _ => &mut header.cwr,
        } = true;
    }
    let mut frame = Vec::new();
    ip(source.0, destination.0).tcp_header(header).write(&mut frame, payload).unwrap();
    frame
}

/// ICMP or ICMPv6, by the addresses' family: type, code, the four bytes after the checksum, the rest.
pub(in crate::eval) fn icmp(source: &str, destination: &str, kind: (u8, u8), four: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let (mut frame, ip) = (Vec::new(), ip(source, destination));
    match source.contains(':') {
        true => ip.icmpv6_raw(kind.0, kind.1, four).write(&mut frame, payload),
        false => ip.icmpv4_raw(kind.0, kind.1, four).write(&mut frame, payload),
    }
    .unwrap();
    frame
}

pub(in crate::eval) fn echo(source: &str, destination: &str, kind: u8, id: u8) -> Vec<u8> {
    icmp(source, destination, (kind, 0), [0, id, 0, 1], b"ping")
}

/// Any other protocol.
pub(in crate::eval) fn other(source: &str, destination: &str, number: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    ip(source, destination).write(&mut frame, etherparse::IpNumber(number), b"data").unwrap();
    frame
}

/// Makes an IPv4 frame a fragment: its offset in units of 8 bytes, and whether more fragments follow.
pub(in crate::eval) fn fragment(mut frame: Vec<u8>, id: u16, offset: u16, more: bool) -> Vec<u8> {
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame[20..22].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
    frame
}

/// The packet as rules see it.
pub(in crate::eval) fn view(side: Side, frame: &[u8]) -> Packet<'_> {
    let place = |part: &[u8]| (part.as_ptr() as usize - frame.as_ptr() as usize) as u16;
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (header, payload, source, destination): (_, _, IpAddr, IpAddr) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            (ip.header().slice(), ip.payload(), ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().slice(), ip.payload(), ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Arp(_) => panic!("not IP"),
    };
    let (number, data) = (payload.ip_number.0, payload.payload);
    let (network, transport) = (place(header), place(data));
    let ip_length = u32::from(transport - network) + data.len() as u32;
    let bare = Packet { ip_length, frame, network, transport, ..Packet::bare(side, source, destination, number) };
    if bare.fragment() == Some(crate::packet::FragmentPart::Later) {
        return bare;
    }
    match number {
        protocol::TCP => {
            let tcp = TcpSlice::from_slice(data).unwrap();
            Packet { ports: Some((tcp.source_port(), tcp.destination_port())), payload: tcp.payload(), ..bare }
        }
        protocol::UDP => {
            let udp = UdpSlice::from_slice_lax(data).unwrap();
            Packet { ports: Some((udp.source_port(), udp.destination_port())), payload: udp.payload(), ..bare }
        }
        protocol::ICMP | protocol::ICMPV6 => Packet { icmp: Some((data[0], data[1])), payload: &data[8..], ..bare },
        _ => Packet { payload: data, ..bare },
    }
}

impl Evaluator<'_> {
    /// A frame that arrives from outside.
    pub(in crate::eval) fn outside(&mut self, frame: &[u8], now: Time) -> Evaluation {
        self.evaluate(&view(Side::Outside, frame), now)
    }

    /// A frame that arrives from inside.
    pub(in crate::eval) fn inside(&mut self, frame: &[u8], now: Time) -> Evaluation {
        self.evaluate(&view(Side::Inside, frame), now)
    }
}

/// The result of a stateless condition for a frame from outside; `None` if the condition is false also when negated.
pub(in crate::eval) fn answer(condition: Condition, frame: &[u8]) -> Option<bool> {
    answer_with(&RuleSet::default(), &Settings::default(), condition, frame)
}

/// As [`answer`], with further configuration.
pub(in crate::eval) fn answer_with(
    rules: &RuleSet,
    settings: &Settings,
    condition: Condition,
    frame: &[u8],
) -> Option<bool> {
    let packet = view(Side::Outside, frame);
    let [plain, negated] = [false, true].map(|negated| {
        let matchers = vec![Matcher { negated, condition: condition.clone() }];
        let one = Rule { matchers, ..Rule::new(packet.family(), "input", Action::Accept) };
        let rules = RuleSet { rules: vec![one], ..rules.clone() };
        let matched = Evaluator::new(&rules, settings, 1).evaluate(&packet, ms(0)).matched;
        matched == [0]
    });
    assert!(!(plain && negated), "{condition:?} is true either way");
    (plain || negated).then_some(plain)
}
