//! Handwritten rules, frames that etherparse builds, and an engine with all its state.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use etherparse::{
    IpNumber, PacketBuilder, PacketBuilderStep, SingleVlanHeader, TcpHeader, VlanHeader, VlanId, ether_type,
};
use knockplane_engine::headers::max_frame;
use knockplane_engine::pipeline::counters::RuleCounters;
use knockplane_engine::pipeline::{Context, Decider, Decision};
use knockplane_engine::state::State;
use knockplane_engine::state::events::ListEvent;
use knockplane_engine::state::events::logged::LoggedPackets;
use knockplane_engine::state::events::ring::{Cursor, Received};
use knockplane_engine::state::lists::{DynamicEntry, Lists};
use knockplane_engine::table::Table;
use knockplane_policy::door::Door;
use knockplane_policy::eval::ListedAddress;
use knockplane_policy::packet::{Family, Packet, Side};
use knockplane_policy::rule::{Action, Condition, ListAdd, ListTimeout, Matcher, PortSet, Rule, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::Counter;
use proptest::test_runner::{Config, FailurePersistence, FileFailurePersistence};

/// Seeds of cases that failed in the past, which run before all others. The path is relative to the package's folder,
/// which is the working directory of tests.
const REGRESSIONS: &str = "tests/regressions.txt";

/// A configuration for this many cases times KNOCKPLANE_SOAK. PROPTEST_CASES overrides it if it is set.
pub(crate) fn cases(cases: u32) -> Config {
    let soak = std::env::var("KNOCKPLANE_SOAK").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let failure_persistence =
        Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS)) as Box<dyn FailurePersistence>);
    Config { cases: cases * soak, failure_persistence, ..Config::default() }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn rule(chain: &str, conditions: Vec<Condition>, action: Action) -> Rule {
    let matchers = conditions.into_iter().map(|condition| Matcher { negated: false, condition }).collect();
    Rule { matchers, ..Rule::new(Family::Ipv4, chain, action) }
}

/// A strict door that opens all targets for a minute, and allows ten seconds for each step.
pub(crate) fn door(name: &str, knock: &[&str], close: &[&str]) -> Door {
    let steps = |steps: &[&str]| steps.iter().map(|step| step.parse().unwrap()).collect();
    Door {
        name: name.to_owned(),
        knock: steps(knock),
        close: steps(close),
        within: seconds(10),
        total: seconds(30),
        opens: Vec::new(),
        open_for: seconds(60),
        strict: true,
        hold_off: Duration::ZERO,
        sources: Vec::new(),
        max_attempts: None,
        log: true,
        cut: false,
    }
}

/// A rule set with ids, and lines counted from 1.
pub(crate) fn rule_set(rules: Vec<Rule>) -> RuleSet {
    let mut set = RuleSet { rules, ..RuleSet::default() };
    set.assign_ids();
    for (line, rule) in (1..).zip(&mut set.rules) {
        rule.line = line;
    }
    set
}

pub(crate) fn add_src(list: &str, timeout: u64) -> Action {
    Action::AddSrcToAddressList(ListAdd { list: list.to_owned(), timeout: ListTimeout::After(seconds(timeout)) })
}

pub(crate) fn dst_port(port: u16) -> Condition {
    Condition::DstPort(PortSet(vec![port..=port]))
}

pub(crate) fn src_list(list: &str) -> Condition {
    Condition::SrcAddressList(list.to_owned())
}

/// A packet to build.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
    /// VLAN tags, 0 to 2.
    pub(crate) tags: usize,
    /// Bytes behind the packet that are not part of it.
    pub(crate) padding: usize,
    pub(crate) details: Details,
}

/// The details of a frame that few tests set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Details {
    /// The last byte of the source's Ethernet address.
    pub(crate) mac: u8,
    pub(crate) ttl: u8,
    /// Type of service; IPv4 only.
    pub(crate) tos: u8,
    /// For TCP: flags, sequence number, acknowledgement number, window, and the option that scales the window.
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) window: u16,
    pub(crate) scale: Option<u8>,
    /// Whether the checksum of TCP is wrong.
    pub(crate) broken: bool,
    /// For IPv4: identification, offset in units of 8 bytes, whether more fragments follow.
    pub(crate) fragment: Option<(u16, u16, bool)>,
    /// The VLANs of the tags, the outer one first, and the priority of the outer one.
    pub(crate) vlans: [u16; 2],
    pub(crate) priority: u8,
    /// The PPPoE session; 0 for none.
    pub(crate) session: u16,
}

impl Default for Details {
    fn default() -> Self {
        Details {
            mac: 2,
            ttl: 64,
            tos: 0,
            flags: 2,
            sequence: 1,
            acknowledgement: 0,
            window: 1024,
            scale: None,
            broken: false,
            fragment: None,
            vlans: [7, 8],
            priority: 0,
            session: 0,
        }
    }
}

impl Details {
    fn is_later(&self) -> bool {
        self.fragment.is_some_and(|(_, offset, _)| offset > 0)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Tcp(u16, u16),
    Udp(u16, u16),
    /// ICMP or ICMPv6, by the family: type and code.
    Icmp(u8, u8),
    Other(u8),
}

impl Spec {
    pub(crate) fn new(source: &str, transport: Transport, payload: &[u8]) -> Spec {
        let source: IpAddr = source.parse().unwrap();
        let inside = if source.is_ipv4() { "203.0.113.1" } else { "2001:db8:ff::1" };
        let destination = inside.parse().unwrap();
        Spec {
            source,
            destination,
            transport,
            payload: payload.to_vec(),
            tags: 0,
            padding: 0,
            details: Details::default(),
        }
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let vlan = |id: u16| SingleVlanHeader { vlan_id: VlanId::try_new(id).unwrap(), ..Default::default() };
        let ip = match (self.tags, self.source, self.destination) {
            (0, IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet.ipv4(source.octets(), destination.octets(), 64)
            }
            (0, IpAddr::V6(source), IpAddr::V6(destination)) => {
                ethernet.ipv6(source.octets(), destination.octets(), 64)
            }
            (tags, source, destination) => {
                let [outer, inner] = self.details.vlans;
                let tagged = match tags {
                    1 => ethernet.vlan(VlanHeader::Single(vlan(outer))),
                    _ => ethernet.double_vlan(VlanId::try_new(outer).unwrap(), VlanId::try_new(inner).unwrap()),
                };
                match (source, destination) {
                    (IpAddr::V4(source), IpAddr::V4(destination)) => {
                        tagged.ipv4(source.octets(), destination.octets(), 64)
                    }
                    (IpAddr::V6(source), IpAddr::V6(destination)) => {
                        tagged.ipv6(source.octets(), destination.octets(), 64)
                    }
                    _ => panic!("two families in one packet"),
                }
            }
        };
        let mut frame = self.transported(ip);
        if self.tags > 0 {
            frame[14] |= self.details.priority << 5;
        }
        if self.details.session != 0 {
            frame = in_session(frame, 12 + 4 * self.tags, self.details.session);
        }
        let (network, transport) = self.offsets();
        frame[11] = self.details.mac;
        frame[network + if self.source.is_ipv4() { 8 } else { 7 }] = self.details.ttl;
        if self.source.is_ipv4() {
            frame[network + 1] = self.details.tos;
            if let Some((identification, offset, more)) = self.details.fragment {
                frame[network + 4..network + 6].copy_from_slice(&identification.to_be_bytes());
                let field = offset | if more { 0x2000 } else { 0 };
                frame[network + 6..network + 8].copy_from_slice(&field.to_be_bytes());
            }
        }
        if let (Transport::Tcp(..), true) = (self.transport, self.details.broken) {
            frame[transport + 16] ^= 1;
        }
        frame.resize(frame.len() + self.padding, 0xee);
        frame
    }

    /// The places where the IP header and the transport header begin.
    fn offsets(&self) -> (usize, usize) {
        let network = 14 + 4 * self.tags + if self.details.session == 0 { 0 } else { 8 };
        (network, network + if self.source.is_ipv4() { 20 } else { 40 })
    }

    fn transported(&self, ip: PacketBuilderStep<etherparse::IpHeaders>) -> Vec<u8> {
        let mut frame = Vec::new();
        match self.transport {
            Transport::Tcp(..) => ip.tcp_header(self.tcp_header()).write(&mut frame, &self.payload),
            Transport::Udp(source, destination) => ip.udp(source, destination).write(&mut frame, &self.payload),
            Transport::Icmp(kind, code) if self.source.is_ipv4() => {
                ip.icmpv4_raw(kind, code, [0; 4]).write(&mut frame, &self.payload)
            }
            Transport::Icmp(kind, code) => ip.icmpv6_raw(kind, code, [0; 4]).write(&mut frame, &self.payload),
            Transport::Other(number) => ip.write(&mut frame, IpNumber(number), &self.payload),
        }
        .unwrap();
        frame
    }

    fn tcp_header(&self) -> TcpHeader {
        let Transport::Tcp(source, destination) = self.transport else { panic!("not TCP") };
        let Details { flags, sequence, acknowledgement, window, scale, .. } = self.details;
        let has = |bit: u8| flags >> bit & 1 == 1;
        let mut header = TcpHeader::new(source, destination, sequence, window);
        header.acknowledgment_number = acknowledgement;
        (header.fin, header.syn, header.rst, header.psh) = (has(0), has(1), has(2), has(3));
        (header.ack, header.urg, header.ece, header.cwr) = (has(4), has(5), has(6), has(7));
        if let Some(scale) = scale {
            header.set_options_raw(&[1, 3, 3, scale]).unwrap();
        }
        header
    }

    /// The packet that rules should see in its frame.
    pub(crate) fn packet<'f>(&'f self, side: Side, frame: &'f [u8]) -> Packet<'f> {
        let (network, transport) = self.offsets();
        let is_later = self.details.is_later() && self.source.is_ipv4();
        let v4 = self.source.is_ipv4();
        let (protocol, header) = match self.transport {
            Transport::Tcp(..) => (6, self.tcp_header().header_len()),
            Transport::Udp(..) => (17, 8),
            Transport::Icmp(..) if v4 => (1, 8),
            Transport::Icmp(..) => (58, 8),
            Transport::Other(number) => (number, 0),
        };
        Packet {
            side,
            source: self.source,
            destination: self.destination,
            protocol,
            ports: match self.transport {
                Transport::Tcp(source, destination) | Transport::Udp(source, destination) if !is_later => {
                    Some((source, destination))
                }
                _ => None,
            },
            icmp: match self.transport {
                Transport::Icmp(kind, code) if !is_later => Some((kind, code)),
                _ => None,
            },
            ip_length: (if v4 { 20 } else { 40 } + header + self.payload.len()) as u32,
            payload: if is_later { &[] } else { &self.payload },
            frame,
            network: network as u16,
            transport: transport as u16,
        }
    }
}

/// The frame in a PPPoE session (RFC 2516); its ethertype is at this place.
pub(crate) fn in_session(frame: Vec<u8>, ethertype_at: usize, session: u16) -> Vec<u8> {
    let (front, rest) = frame.split_at(ethertype_at);
    let (ethertype, packet) = rest.split_at(2);
    let protocol: u16 = if ethertype == ether_type::IPV4.0.to_be_bytes() { 0x0021 } else { 0x0057 };
    let length = u16::try_from(packet.len() + 2).unwrap();
    let header = [0x8864, 0x1100, session, length, protocol].map(u16::to_be_bytes).concat();
    [front, &header, packet].concat()
}

/// An Ethernet header in front of a handwritten packet.
pub(crate) fn ethernet(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|byte| byte >> 4 == 6) { ether_type::IPV6 } else { ether_type::IPV4 };
    [&[2; 12], &ethertype.0.to_be_bytes()[..], packet].concat()
}

/// The secret of all keyed hashes; the reference uses it as its seed.
pub(crate) const SECRET: [u64; 2] = [7, !7];

/// One worker's engine and its state.
pub(crate) struct Engine {
    pub(crate) table: Table,
    pub(crate) state: State,
    pub(crate) counters: RuleCounters,
    pub(crate) logged: LoggedPackets,
    pub(crate) decider: Decider,
}

impl Engine {
    pub(crate) fn new(rules: RuleSet, settings: &Settings) -> Engine {
        Engine::with_room(rules, settings, 1000)
    }

    /// Creates an engine with room for `room` list entries and about `room` connections.
    pub(crate) fn with_room(rules: RuleSet, settings: &Settings, room: usize) -> Engine {
        let state = State::with_secret(room, room, SECRET).unwrap();
        let mut table = Table::compile(Arc::new(rules), settings, &state, Time::default()).unwrap();
        table.begin(&state, Time::default());
        let counters = RuleCounters::new(table.rules().rules.len());
        let (logged, decider) = (LoggedPackets::new(1000), Decider::new(max_frame(1500), SECRET[0]));
        Engine { table, state, counters, logged, decider }
    }

    pub(crate) fn decide(&mut self, side: Side, frames: &[&[u8]], now: Time) -> &[Decision] {
        self.with(|decider, context| {
            decider.decide(side, frames, now, context);
        });
        self.decider.decisions()
    }

    /// Runs the work with the state of a worker.
    pub(crate) fn with<T>(&mut self, work: impl FnOnce(&mut Decider, Context<'_>) -> T) -> T {
        let Engine { table, state, counters, logged, decider } = self;
        work(decider, Context { table, state, counters, logged, wall: 0 })
    }

    /// The number of packets that each rule counted.
    pub(crate) fn rule_packets(&self) -> Vec<u64> {
        let mut counters = vec![Counter::default(); self.table.rules().rules.len()];
        self.counters.add_rules_to(&mut counters);
        counters.iter().map(|counter| counter.packets).collect()
    }
}

/// The events after the cursor. Panics on a gap.
pub(crate) fn events(lists: &Lists, cursor: &mut Cursor) -> Vec<ListEvent> {
    let event = |received| match received {
        Received::Event(_, event) => event,
        Received::Gap(gap) => panic!("{gap:?}"),
    };
    std::iter::from_fn(|| lists.receive(cursor).map(event)).collect()
}

/// The added entries, in the form of the plain lists.
pub(crate) fn live(lists: &Lists, now: Time) -> Vec<ListedAddress> {
    let names = |list| lists.name(list).unwrap();
    let mut live = Vec::new();
    lists.visit(now, |DynamicEntry { list, address, vlan, expiry, .. }| {
        let time_left = (expiry != Time::NEVER).then(|| expiry.since(now));
        live.push(ListedAddress { list: names(list), address, vlan, time_left });
    });
    live.sort();
    live
}
