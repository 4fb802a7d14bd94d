//! Rules that break path MTU discovery: they accept TCP connections and drop the ICMP errors about them.
//!
//! A router that cannot forward a full-size packet, because the next link has a smaller MTU, sends an ICMP error to the
//! sender (RFC 1191, RFC 8201). If the filter drops this error, the sender retransmits the same packets, and the
//! connection stalls as soon as either end sends more than a few lines.
//!
//! The lint establishes a connection through some of the accepts in the reference evaluator, and then sends such an
//! error from each side.

use super::probe::{End, Hosts, Probe, hosts};
use super::truth::allowed_ports;
use super::view::{ChainKey, View};
use super::{Code, Lint};
use crate::eval::{Evaluation, Evaluator};
use crate::packet::{Family, Side, TcpFlag, protocol};
use crate::reason::{Reason, Verdict};
use crate::rule::{Action, Condition, ListTimeout, Rule, RuleSet, Table, TrackingMode};
use crate::settings::Settings;
use crate::time::Time;

/// Maximum number of accepts of a family that are tested, and of rules that their packets may have to pass.
const MOST_ACCEPTS: usize = 8;
const MOST_TRIED: usize = 600_000;

/// Packets of a test connection.
const PACKETS: usize = 7;

/// The MTU of the smaller link in bytes, and the payload of a longer packet.
const MTU: u16 = 1_400;
const PAYLOAD: [u8; 1_440] = [b'x'; 1_440];

pub(super) fn lints(view: &View<'_>, lints: &mut Vec<Lint>) {
    for family in [Family::Ipv4, Family::Ipv6] {
        let origins: Vec<&Rule> = view.rules.rules.iter().filter(|rule| rule.runs() && rule.family == family).collect();
        let met: Vec<usize> = (0..origins.len())
            .filter(|place| accepts_tcp(origins[*place]) && is_met_from_outside(view, origins[*place]))
            .take(MOST_ACCEPTS.min(MOST_TRIED / (PACKETS * origins.len().max(1))))
            .collect();
        if met.is_empty() {
            continue;
        }
        let rules = RuleSet {
            rules: origins.iter().map(|rule| Rule { log: None, ..(*rule).clone() }).collect(),
            layer7: view.rules.layer7.clone(),
            tracking: view.rules.tracking.clone(),
            interface_lists: view.rules.interface_lists.clone(),
            local_addresses: view.rules.local_addresses.clone(),
            ..RuleSet::default()
        };
        let settings = Settings { doors: Vec::new(), ..view.settings.clone() };
        let broken = met.into_iter().find_map(|accept| Some((accept, stalled(&rules, &settings, accept, family)?)));
        lints.extend(broken.map(|(accept, stalled)| lint(view, &origins, accept, &stalled)));
    }
}

/// Whether the rule may accept a new TCP connection.
fn accepts_tcp(rule: &Rule) -> bool {
    let is_tcp = rule.matchers.iter().all(|matcher| match &matcher.condition {
        Condition::Protocol(number) => (*number == protocol::TCP) != matcher.negated,
        _ => true,
    });
    rule.table == Table::Filter && rule.action == Action::Accept && is_tcp
}

fn is_met_from_outside(view: &View<'_>, rule: &Rule) -> bool {
    view.chain(ChainKey::of(rule)).is_some_and(|chain| chain.sides.contains(Side::Outside))
}

/// A connection about which an ICMP error is dropped.
struct Stalled {
    /// The side on which the error arrived.
    from: Side,
    /// The chain that the error entered.
    chain: &'static str,
    /// The rule that dropped the error; `None` if no rule decided.
    by: Option<usize>,
}

/// Establishes a connection through the rule; `None` if that fails, or if no error is dropped.
fn stalled(rules: &RuleSet, settings: &Settings, accept: usize, family: Family) -> Option<Stalled> {
    let hosts = hosts(family);
    let (client, server) = ends(&rules.rules[accept], settings, &hosts, family);
    let mut evaluator = Evaluator::new(rules, settings, 7);
    for matcher in rules.rules[accept].matchers.iter().filter(|matcher| !matcher.negated) {
        let (list, address) = match &matcher.condition {
            Condition::SrcAddressList(list) => (list, client.0),
            Condition::DstAddressList(list) => (list, server.0),
            _ => continue,
        };
        evaluator.lists_mut().add(list, address, ListTimeout::NoneDynamic, Time::default());
    }
    let mut now = 0;
    let mut send = |probe: &Probe| {
        now += 1_000_000;
        evaluator.evaluate(&probe.packet(), Time::from_nanos(now))
    };
    let [out, back] = [(client, server), (server, client)];
    let flags = |flags: &[TcpFlag], side, (from, to): (End, End), numbers, payload: &[u8]| {
        Probe::tcp(side, from, to, flags, numbers, payload)
    };
    let syn = send(&flags(&[TcpFlag::Syn], Side::Outside, out, (1_000, 0), &[]));
    if syn.verdict != Verdict::Forward || syn.matched.last() != Some(&accept) {
        return None;
    }
    let (answer, download) = (
        flags(&[TcpFlag::Syn, TcpFlag::Ack], Side::Inside, back, (5_000, 1_001), &[]),
        flags(&[TcpFlag::Ack], Side::Inside, back, (5_001, 1_001), &PAYLOAD),
    );
    let upload = flags(&[TcpFlag::Ack], Side::Outside, out, (1_001, 5_001), &PAYLOAD);
    if [&answer, &upload, &download].into_iter().any(|probe| send(probe).verdict != Verdict::Forward) {
        return None;
    }
    [(Side::Outside, &download), (Side::Inside, &upload)].into_iter().find_map(|(from, about)| {
        let error = Probe::too_big(from, hosts.router, about, MTU);
        let Evaluation { verdict, reason, matched, .. } = send(&error);
        let by = matched.last().copied().filter(|_| reason == Reason::Rule);
        (verdict == Verdict::Drop).then(|| Stalled { from, chain: settings.chain(&error.packet()).name(), by })
    })
}

/// A client and a server that match the addresses of the rule.
fn ends(rule: &Rule, settings: &Settings, hosts: &Hosts, family: Family) -> (End, End) {
    let protected = settings.protect.iter().find(|net| Family::of(net.addr()) == family && net.prefix_len() > 0);
    let mut server: End = (protected.and_then(|net| net.hosts().next()).unwrap_or(hosts.server), 443);
    let mut client: End = (hosts.strangers[0], 40_077);
    for matcher in &rule.matchers {
        match (&matcher.condition, matcher.negated) {
            (Condition::SrcAddress(set), false) if !set.bounds().0.is_unspecified() => client.0 = set.bounds().1,
            (Condition::DstAddress(set), false) if !set.bounds().0.is_unspecified() => server.0 = set.bounds().1,
            (Condition::DstPort(set) | Condition::AnyPort(set), negated) => {
                server.1 = allowed_ports(set, negated).ends().map_or(server.1, |(_, highest)| highest);
            }
            _ => {}
        }
    }
    (client, server)
}

fn lint(view: &View<'_>, origins: &[&Rule], accept: usize, stalled: &Stalled) -> Lint {
    let rule = origins[accept];
    let (error, only) = match rule.family {
        Family::Ipv4 => ("fragmentation needed", "protocol=icmp icmp-options=3:4"),
        Family::Ipv6 => ("packet too big", "protocol=icmpv6 icmp-options=2:0-255"),
    };
    let sentence = format!(
        "TCP connections that this rule accepts stall if a link on their path has a smaller MTU: the ICMP error \"{error}\" \
         about them, which path MTU discovery needs, is dropped when it arrives from {}",
        stalled.from
    );
    let remedy = match view.rules.tracking.enabled {
        TrackingMode::No => format!("add `chain={} {only} action=accept` before the rule that drops it", stalled.chain),
        _ => format!(
            "begin the chain with `add chain={} connection-state=established,related action=accept`; open connections \
             then outlive the entry or grant that accepted them",
            stalled.chain
        ),
    };
    let lint = Lint::new(Code::NoPathMtu, rule, sentence, remedy);
    match stalled.by {
        Some(by) if by != accept => lint.also(origins[by], "this drops the error"),
        _ => lint,
    }
}
