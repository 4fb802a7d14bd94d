//! The connections and sources that the dataplane knows, and whether the verdicts on their first packets would change.
//!
//! A packet of a connection is the one that began it, as far as the table of connections shows it: a TCP SYN, an ICMP echo
//! request, an empty packet of another protocol. A source in a list sends a packet to each [`Target`]: the responders of the
//! connections, and the protocols, ports and addresses that the rules of either set name.
//!
//! Each packet is evaluated as `explain` does: with the list entries of the dataplane and no other state. The lookup of lists asks
//! for two addresses of a packet alone, so a bench gets only the entries that contain one of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use knockplane_policy::packet::{Family, Side, Vlan, protocol};
use knockplane_policy::rule::{AddressSet, Condition, EntryAddress, Rule, RuleSet, protocol_name};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::ListEntry;
use knockplane_policy::wire::connections::Connection;
use schemars::JsonSchema;
use serde::Serialize;

use super::verdicts::Outcome;
use crate::api::messages::Tracked;
use crate::bench::{self, Bench, Judged};
use crate::packet;

/// Maximum number of packets that each listed source sends.
const MOST_TARGETS: usize = 64;

/// Maximum number of packets of listed sources, which bounds the time of a plan with many rules.
const MOST_PACKETS: usize = 10_000;

/// The highest port that is not ephemeral. Source: RFC 6335, 6.
const LAST_PORT: u16 = 49_151;

/// Destinations if nothing names one: addresses for documentation. Source: RFC 5737, RFC 3849.
const SERVER: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(203, 0, 113, 9), Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 9, 0, 0, 0, 0x4d));

/// The limits of a comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum number of listed sources.
    sources: usize,
    /// The time at which the comparison ends; `None` if only numbers limit it.
    until: Option<Instant>,
}

impl Limits {
    /// This number of listed sources.
    pub(crate) const fn of(sources: usize) -> Limits {
        Limits { sources, until: None }
    }

    /// The same, and this time from now.
    pub(crate) fn within(self, time: Duration) -> Limits {
        Limits { until: Instant::now().checked_add(time), ..self }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// The comparison for connections and sources that the dataplane knows.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct KnownVerdicts {
    /// Number of connections whose first packet was compared.
    pub(crate) connections: usize,
    /// Number of addresses in lists whose packets were compared.
    pub(crate) sources: usize,
    /// Number of packets.
    pub(crate) packets: usize,
    /// Whether there are more connections, addresses or packets that were not compared, because of a limit on numbers or time.
    pub(crate) truncated: bool,
    /// Every packet whose verdict would change.
    pub(crate) changed: Vec<ChangedKnown>,
}

/// A packet of a known connection or source whose verdict would change.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChangedKnown {
    /// The lists that contain the source; `null` for the packet of a connection.
    pub(crate) lists: Option<BTreeSet<String>>,
    /// The host names in these lists by which they contain the source.
    pub(crate) names: BTreeSet<String>,
    pub(crate) from: Side,
    /// The packet in one line.
    pub(crate) packet: Option<String>,
    pub(crate) old: Outcome,
    pub(crate) new: Outcome,
}

/// One rule set for the comparison.
pub(crate) struct RulesWithEntries {
    /// The rules without entries of lists.
    rules: RuleSet,
    entries: Entries,
}

/// Entries of lists, by address.
#[derive(Default)]
struct Entries {
    singles: HashMap<IpAddr, Vec<Entry>>,
    sets: Vec<(AddressSet, Entry)>,
}

/// An entry of a list.
#[derive(Clone)]
enum Entry {
    /// List, address and timeout of an entry of the rules.
    OfRules(String, AddressSet, Option<Duration>),
    /// An entry of the dataplane.
    OfDataplane(Box<ListEntry>),
}

impl RulesWithEntries {
    /// Rules as a bench needs them, and the dataplane's entries that are in their lists.
    pub(crate) fn new<'e>(mut rules: RuleSet, of_dataplane: impl IntoIterator<Item = &'e ListEntry>) -> Self {
        let mut entries = Entries::default();
        for entry in std::mem::take(&mut rules.address_lists).into_iter().filter(|entry| !entry.disabled) {
            if let EntryAddress::Set(set) = entry.address {
                entries.add(set.clone(), Entry::OfRules(entry.list, set, entry.timeout));
            }
        }
        for entry in of_dataplane {
            entries.add(entry.address.clone(), Entry::OfDataplane(Box::new(entry.clone())));
        }
        RulesWithEntries { rules, entries }
    }

    /// A bench as this one of the rules, with the entries for these addresses.
    fn bench<'r>(&self, empty: &Bench<'r>, addresses: [IpAddr; 2]) -> Bench<'r> {
        let mut bench = empty.anew();
        for entry in self.entries.of(addresses) {
            match entry {
                Entry::OfRules(list, set, timeout) => bench.put(list, set, *timeout),
                Entry::OfDataplane(entry) => bench::put_all([&**entry], &mut bench),
            }
        }
        bench
    }
}

impl Entries {
    fn add(&mut self, set: AddressSet, entry: Entry) {
        match set.single() {
            Some(address) => self.singles.entry(address).or_default().push(entry),
            None => self.sets.push((set, entry)),
        }
    }

    /// The entries that contain one of the addresses.
    fn of(&self, addresses: [IpAddr; 2]) -> impl Iterator<Item = &Entry> {
        let [one, other] = addresses;
        let distinct = [Some(one), Some(other).filter(|other| *other != one)].into_iter().flatten();
        let singles = distinct.filter_map(|address| self.singles.get(&address)).flatten();
        let sets = self.sets.iter().filter(move |(set, _)| set.contains(one) || set.contains(other));
        singles.chain(sets.map(|(_, entry)| entry))
    }
}

/// The first packet of a flow.
struct FirstPacket {
    protocol: u8,
    source: (IpAddr, Option<u16>),
    destination: (IpAddr, Option<u16>),
    vlan: Vlan,
    side: Side,
}

impl FirstPacket {
    fn of(connection: &Connection) -> FirstPacket {
        let Connection { protocol, source, destination, vlan, side, .. } = connection;
        let port = |port: u16| has_ports(*protocol).then_some(port);
        FirstPacket {
            protocol: *protocol,
            source: (source.0, port(source.1)),
            destination: (destination.0, port(destination.1)),
            vlan: *vlan,
            side: *side,
        }
    }

    /// The packet as a line, as `explain` reads it.
    fn line(&self) -> String {
        let end = |(address, port): (IpAddr, Option<u16>)| match port {
            Some(port) => SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        };
        let ends = format!("{} > {}", end(self.source), end(self.destination));
        self.vlan.behind(format!("{} {ends}", protocol_name(self.protocol)))
    }
}

const fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP)
}

/// A packet that a listed source sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    destination: IpAddr,
    protocol: u8,
    port: Option<u16>,
}

/// Compares the first packets of the connections, and those of listed sources, up to the limits.
pub(crate) fn compare(
    sets: &[RulesWithEntries; 2],
    settings: &Settings,
    now: Time,
    tracked: &Tracked,
    entries: &[ListEntry],
    limits: Limits,
) -> KnownVerdicts {
    let mut verdicts = KnownVerdicts { truncated: tracked.truncated, ..KnownVerdicts::default() };
    let empty = sets.each_ref().map(|set| Bench::new(&set.rules, settings, now));
    let comparison = Comparison { sets, empty };
    for connection in &tracked.connections {
        if limits.is_over() {
            verdicts.truncated = true;
            return verdicts;
        }
        verdicts.connections += 1;
        verdicts.note(&comparison, &FirstPacket::of(connection), None);
    }
    let targets = targets(sets, settings, &tracked.connections);
    verdicts.truncated |= targets.len() > MOST_TARGETS;
    let targets: Vec<_> = targets.into_iter().take(MOST_TARGETS).collect();
    let sources = listed(entries);
    for (place, ((source, vlan), listed)) in sources.into_iter().enumerate() {
        let are_too_many = verdicts.packets + targets.len() > tracked.connections.len() + MOST_PACKETS;
        if place >= limits.sources || are_too_many || limits.is_over() {
            verdicts.truncated = true;
            break;
        }
        verdicts.sources += 1;
        let side = if is_inside(settings, source) { Side::Inside } else { Side::Outside };
        let fits =
            |target: &&Target| Family::of(target.destination) == Family::of(source) && target.destination != source;
        for target in targets.iter().filter(fits) {
            let Target { destination, protocol, port } = *target;
            let (source, destination) = ((source, None), (destination, port));
            let packet = FirstPacket { protocol, source, destination, vlan: Vlan::from_bits(vlan), side };
            verdicts.note(&comparison, &packet, Some(&listed));
        }
    }
    verdicts
}

/// Both rule sets with their state.
struct Comparison<'r> {
    sets: &'r [RulesWithEntries; 2],
    /// A bench of each set without entries.
    empty: [Bench<'r>; 2],
}

impl KnownVerdicts {
    /// Compares the verdicts on a packet. A packet that cannot be built, of a protocol whose headers are unknown, is not counted.
    fn note(&mut self, comparison: &Comparison<'_>, packet: &FirstPacket, source: Option<&Listed>) {
        let Comparison { sets: [old, new], empty: [old_bench, new_bench] } = comparison;
        let Ok(described) = packet::describe(&packet.line()) else {
            self.truncated = true;
            return;
        };
        self.packets += 1;
        let addresses = [packet.source.0, packet.destination.0];
        let judge = |set: &RulesWithEntries, empty| {
            let mut bench = set.bench(empty, addresses);
            let judged = bench.judge(&described.frame, |_| packet.side);
            (Outcome::new(&bench, &judged), judged)
        };
        let ((old, before), (new, after)) = (judge(old, old_bench), judge(new, new_bench));
        if before.verdict != after.verdict {
            let Judged { from, packet, .. } = after;
            let names = source.map(|source| source.names.clone()).unwrap_or_default();
            let lists = source.map(|source| source.lists.clone());
            self.changed.push(ChangedKnown { lists, names, from, packet, old, new });
        }
    }
}

/// The lists that contain an address, and the host names by which they contain it.
#[derive(Default)]
struct Listed {
    lists: BTreeSet<String>,
    names: BTreeSet<String>,
}

/// The addresses in lists, each in the network in which its entry counts.
fn listed(entries: &[ListEntry]) -> BTreeMap<(IpAddr, u64), Listed> {
    let mut sources: BTreeMap<_, Listed> = BTreeMap::new();
    for entry in entries {
        if let Some(address) = entry.address.single() {
            let source = sources.entry((address, entry.vlan.bits())).or_default();
            source.lists.insert(entry.list.clone());
            source.names.extend(entry.name.clone());
        }
    }
    sources
}

/// Whether an address is behind the filter. If all addresses are protected, the settings do not tell.
fn is_inside(settings: &Settings, address: IpAddr) -> bool {
    settings.protect.iter().any(|net| net.prefix_len() > 0 && net.contains(&address))
}

/// The packets of listed sources, in order.
fn targets(sets: &[RulesWithEntries; 2], settings: &Settings, connections: &[Connection]) -> BTreeSet<Target> {
    let from_outside = connections.iter().filter(|connection| connection.side == Side::Outside);
    let mut targets: BTreeSet<Target> = from_outside
        .map(|Connection { protocol, destination: (destination, port), .. }| Target {
            destination: *destination,
            protocol: *protocol,
            port: has_ports(*protocol).then_some(*port),
        })
        .collect();
    let rules = || sets.iter().flat_map(|set| &set.rules.rules).filter(|rule| rule.runs());
    let server = |family: Family| {
        let of_family = |address: &IpAddr| Family::of(*address) == family;
        let nets = settings.protect.iter().filter(|net| net.prefix_len() > 0);
        let protected = nets.filter_map(|net| net.hosts().next()).find(of_family);
        let responder = targets.iter().map(|target| target.destination).find(of_family);
        let documented = if family == Family::Ipv4 { SERVER.0.into() } else { SERVER.1.into() };
        protected.or(responder).unwrap_or(documented)
    };
    let servers = [Family::Ipv4, Family::Ipv6].map(|family| (family, server(family)));
    let other = unnamed_port(rules().flat_map(ports));
    for (family, server) in servers {
        targets.insert(Target { destination: server, protocol: protocol::TCP, port: Some(other) });
        for rule in rules().filter(|rule| rule.family == family) {
            targets.extend(of_rule(rule, server, other));
        }
    }
    targets
}

/// A port that no rule names. A range of most ports names none in particular.
fn unnamed_port<'r>(ranges: impl Iterator<Item = &'r RangeInclusive<u16>>) -> u16 {
    let mut is_named = vec![false; 1 << 16];
    for range in ranges.filter(|range| range.len() < 1 << 15) {
        is_named[usize::from(*range.start())..=usize::from(*range.end())].fill(true);
    }
    (1..=LAST_PORT).rev().find(|port| !is_named[usize::from(*port)]).unwrap_or(LAST_PORT)
}

/// The ports that a rule names as destinations.
fn ports(rule: &Rule) -> impl Iterator<Item = &RangeInclusive<u16>> {
    rule.matchers.iter().flat_map(|matcher| match &matcher.condition {
        Condition::DstPort(ports) | Condition::AnyPort(ports) => &ports.0[..],
        _ => &[],
    })
}

/// A packet for each destination port of a rule, by the first address and the protocol that the rule names.
fn of_rule(rule: &Rule, server: IpAddr, other: u16) -> Vec<Target> {
    let (mut destination, mut number) = (server, protocol::TCP);
    for matcher in rule.matchers.iter().filter(|matcher| !matcher.negated) {
        match &matcher.condition {
            Condition::Protocol(protocol) => number = *protocol,
            Condition::DstAddress(set) => destination = first(set),
            _ => {}
        }
    }
    let of = |port| Target { destination, protocol: number, port };
    if !has_ports(number) {
        return vec![of(None)];
    }
    let mut all: Vec<_> = ports(rule).map(|range| of(Some(*range.start()))).collect();
    if all.is_empty() {
        all.push(of(Some(other)));
    }
    all
}

/// The first address of a host in a set.
fn first(set: &AddressSet) -> IpAddr {
    match set {
        AddressSet::Prefix(net) => net.hosts().next().unwrap_or(net.addr()),
        AddressSet::Range(first, _) => *first,
    }
}
