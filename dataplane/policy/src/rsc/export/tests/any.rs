//! Generates rule sets that a file can have, in the order in which they are read.
//!
//! Conditions come from [`super::conditions`]. The relations that a rule set needs are established here: ports have a
//! protocol, jumps lead to later chains with rules, names exist and are unique.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::conditions::{addresses, condition};
use super::text::{comment, list_name, name, prefix};
use crate::packet::Family;
use crate::rsc::PropertyReference;
use crate::rsc::filter::PROPERTIES;
use crate::rsc::property::describe;
use crate::rule::{
    Action, Condition, EntryAddress, Inert, InterfaceList, InterfaceMember, Layer7Pattern, ListAdd, ListEntry,
    ListTimeout, LocalAddress, Log, Matcher, RejectWith, Rule, RuleSet, Table, Tracking, TrackingMode,
};
use crate::time::LONGEST_TIMEOUT;
use crate::word::Word;

/// Chains in order. Jumps lead only to later chains, so there is no cycle.
const CHAINS: [&str; 5] = ["input", "knock", "two words", "a,b;\"$c\"", "caf\u{e9}!"];

/// Matchers that RouterOS cannot negate, or whose items have their own `!`.
const PLAIN: [&str; 12] = [
    "ttl",
    "hop-limit",
    "fragment",
    "ipv4-options",
    "headers",
    "ipsec-policy",
    "connection-bytes",
    "psd",
    "random",
    "nth",
    "dst-limit",
    "tcp-flags",
];

pub(super) fn timeout() -> impl Strategy<Value = Duration> {
    prop_oneof![1..100_u64, 1..=LONGEST_TIMEOUT.as_secs()].prop_map(Duration::from_secs)
}

/// Jumps to any chain.
fn action() -> impl Strategy<Value = Action> {
    let timeout = prop_oneof![
        4 => timeout().prop_map(ListTimeout::After),
        1 => Just(ListTimeout::NoneDynamic),
        1 => Just(ListTimeout::NoneStatic),
    ];
    let add = (list_name(), timeout).prop_map(|(list, timeout)| ListAdd { list, timeout }).boxed();
    let simple = [
        Action::Accept,
        Action::Drop,
        Action::Tarpit,
        Action::Passthrough,
        Action::Log,
        Action::Return,
        Action::FasttrackConnection,
        Action::Notrack,
    ];
    prop_oneof![
        4 => select(simple.to_vec()),
        1 => select(RejectWith::ALL.to_vec()).prop_map(Action::Reject),
        1 => add.clone().prop_map(Action::AddSrcToAddressList),
        1 => add.prop_map(Action::AddDstToAddressList),
        1 => select(CHAINS.to_vec()).prop_map(|target| Action::Jump(target.to_owned())),
    ]
}

/// Rules of either family. Each strategy is built once, because regular expressions and lists of words take time.
fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![rule_of(Family::Ipv4), rule_of(Family::Ipv6)]
}

fn rule_of(family: Family) -> impl Strategy<Value = Rule> {
    let place = (select(vec![Table::Filter, Table::Filter, Table::Raw]), 0..CHAINS.len());
    let protocol = option::weighted(0.8, (select(vec![6, 17, 1, 58, 132, 47]), prop::bool::weighted(0.1)));
    let conditions = vec((prop::bool::weighted(0.3), condition(family)), 0..8);
    let log = (option::weighted(0.3, prefix()), prefix());
    let free = (comment(), prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    (place, action(), protocol, conditions, log, free).prop_map(
        move |((table, chain), action, protocol, conditions, (log, kept), (comment, disabled, offload))| {
            let is_ahead = |target: &String| CHAINS[chain + 1..].contains(&target.as_str());
            let action = match action {
                Action::Jump(target) if !is_ahead(&target) => Action::Return,
                action => action,
            };
            let log = log.or((action == Action::Log).then(String::new));
            let log = log.map(|prefix| Log { prefix });
            let mut inert = Inert::new();
            if log.is_none() && !kept.is_empty() {
                inert.insert("log-prefix".to_owned(), kept);
            }
            if offload && table == Table::Filter {
                inert.insert("hw-offload".to_owned(), "yes".to_owned());
            }
            let rule = Rule { table, comment, disabled, log, inert, ..Rule::new(family, CHAINS[chain], action) };
            fitted(rule, protocol, conditions)
        },
    )
}

/// The rule with the matchers that its menu and protocol allow, in the order of the reader, and with an action of its
/// menu.
fn fitted(mut rule: Rule, protocol: Option<(u8, bool)>, conditions: Vec<(bool, Condition)>) -> Rule {
    let mut matchers = HashMap::new();
    if let Some((number, negated)) = protocol {
        matchers.insert("protocol".to_owned(), Matcher { negated, condition: Condition::Protocol(number) });
    }
    let only = protocol.filter(|(_, negated)| !negated).map(|(number, _)| number);
    for (negated, condition) in conditions {
        let name = condition.name().to_owned();
        if in_menu(&name, &rule)
            && needs(&condition, rule.family).is_none_or(|of| only.is_some_and(|it| of.contains(&it)))
        {
            let negated = negated && may_be_negated(&condition);
            matchers.entry(name).or_insert(Matcher { negated, condition });
        }
    }
    rule.matchers = matchers.into_values().collect();
    rule.matchers.sort_by_key(|matcher| (matcher.condition.rank(), matcher.condition.name().to_owned()));
    let wrong = match &rule.action {
        Action::Reject(RejectWith::TcpReset) => rule.table == Table::Raw || only != Some(6),
        Action::Reject(with) => rule.table == Table::Raw || !with.exists_for(rule.family),
        Action::Tarpit => rule.table == Table::Raw || rule.family == Family::Ipv6 || only != Some(6),
        Action::FasttrackConnection => rule.table == Table::Raw,
        Action::Notrack => rule.table == Table::Filter,
        _ => false,
    };
    if wrong {
        rule.action = Action::Accept;
    }
    rule
}

/// Whether the rule's menu has the matcher.
fn in_menu(name: &str, rule: &Rule) -> bool {
    static ROWS: LazyLock<Vec<PropertyReference>> = LazyLock::new(|| describe(PROPERTIES));
    let row = ROWS.iter().find(|row| row.name == name).unwrap();
    row.family.is_none_or(|only| only == rule.family) && row.table.is_none_or(|only| only == rule.table)
}

/// The protocols of which the rule must have one for this matcher; `None` if it needs none.
fn needs(condition: &Condition, family: Family) -> Option<&'static [u8]> {
    match condition {
        Condition::SrcPort(_) | Condition::DstPort(_) | Condition::AnyPort(_) => Some(&[6, 17, 132]),
        Condition::TcpFlags { set, clear } if set.is_empty() && clear.is_empty() => None,
        Condition::TcpFlags { .. } | Condition::TcpMss(_) => Some(&[6]),
        Condition::IcmpOptions { .. } if family == Family::Ipv4 => Some(&[1]),
        Condition::IcmpOptions { .. } => Some(&[58]),
        _ => None,
    }
}

fn may_be_negated(condition: &Condition) -> bool {
    let says_something = match condition {
        Condition::SrcAddressType(types) | Condition::DstAddressType(types) => !types.is_empty(),
        Condition::ConnectionState(states) => !states.is_empty(),
        Condition::Other { value, .. } => !value.is_empty(),
        _ => true,
    };
    says_something && !PLAIN.contains(&condition.name())
}

fn patterns() -> impl Strategy<Value = Vec<Layer7Pattern>> {
    let regexp = select(vec!["a", "^supersecretpassword1$", "\\x13b?\\?\"", "x y|\\.", "[a-z ]{3}#'\n\t\\xE1"]);
    vec((name(), regexp, comment()), 0..4).prop_map(|patterns| {
        let mut names = HashSet::new();
        let patterns = patterns.into_iter().filter(|(name, ..)| names.insert(name.clone()));
        patterns
            .map(|(name, regexp, comment)| Layer7Pattern { name, regexp: regexp.to_owned(), comment, line: 0 })
            .collect()
    })
}

fn entry_of(family: Family) -> impl Strategy<Value = ListEntry> {
    let set = addresses(family).prop_map(EntryAddress::Set);
    let host = select(vec!["example.com", "a-b.example", "x1"]);
    let host = host.prop_map(|host| EntryAddress::Name(host.to_owned()));
    let address = prop_oneof![6 => set, 1 => host, 1 => Just(EntryAddress::None)];
    let rest = (option::of(timeout()), any::<bool>(), comment());
    (address, list_name(), rest).prop_map(move |(address, list, (timeout, disabled, comment))| ListEntry {
        family,
        list,
        address,
        timeout,
        disabled,
        comment,
        line: 0,
    })
}

fn entries() -> impl Strategy<Value = Vec<ListEntry>> {
    let entry = prop_oneof![entry_of(Family::Ipv4), entry_of(Family::Ipv6)];
    vec(entry, 0..6).prop_map(|mut entries| {
        let mut known: Vec<ListEntry> = Vec::new();
        entries.retain(|entry| {
            let same = |other: &ListEntry| {
                (&other.list, &other.address, other.family) == (&entry.list, &entry.address, entry.family)
            };
            let is_new = entry.address == EntryAddress::None || !known.iter().any(same);
            known.push(entry.clone());
            is_new
        });
        entries.sort_by_key(|entry| entry.family == Family::Ipv6);
        entries
    })
}

fn interface_lists() -> impl Strategy<Value = Vec<InterfaceList>> {
    let member = (name(), prop::bool::weighted(0.2), comment());
    let list = (list_name(), vec(member, 0..3), vec(0..8_usize, 0..3), vec(0..8_usize, 0..2), comment());
    vec(list, 0..4).prop_map(|lists| {
        let mut names: Vec<String> = ["all", "none", "dynamic", "static"].map(str::to_owned).to_vec();
        let lists: Vec<_> = lists
            .into_iter()
            .filter(|(name, ..)| {
                let is_new = !names.contains(name);
                names.push(name.clone());
                is_new
            })
            .collect();
        let of = |places: Vec<usize>| places.into_iter().map(|place| names[place % names.len()].clone()).collect();
        lists
            .into_iter()
            .map(|(name, members, include, exclude, comment)| InterfaceList {
                name,
                members: members
                    .into_iter()
                    .map(|(interface, disabled, comment)| InterfaceMember { interface, disabled, comment, line: 0 })
                    .collect(),
                include: of(include),
                exclude: of(exclude),
                comment,
            })
            .collect()
    })
}

fn tracking() -> impl Strategy<Value = Tracking> {
    (select(TrackingMode::ALL.to_vec()), any::<bool>(), vec(option::of(timeout()), 14)).prop_map(
        |(enabled, loose_tcp, timeouts)| {
            let mut tracking = Tracking { enabled, loose_tcp, ..Tracking::default() };
            let places = [
                &mut tracking.tcp_syn_sent,
                &mut tracking.tcp_syn_received,
                &mut tracking.tcp_established,
                &mut tracking.tcp_fin_wait,
                &mut tracking.tcp_close_wait,
                &mut tracking.tcp_last_ack,
                &mut tracking.tcp_time_wait,
                &mut tracking.tcp_close,
                &mut tracking.tcp_max_retrans,
                &mut tracking.tcp_unacked,
                &mut tracking.udp,
                &mut tracking.udp_stream,
                &mut tracking.icmp,
                &mut tracking.generic,
            ];
            for (place, timeout) in places.into_iter().zip(timeouts) {
                *place = timeout.unwrap_or(*place);
            }
            tracking
        },
    )
}

fn local(address: impl Strategy<Value = ipnet::IpNet>) -> impl Strategy<Value = LocalAddress> {
    let inert = vec((select(vec!["interface", "comment", "vrf"]), name()), 0..3);
    (address, prop::bool::weighted(0.2), inert).prop_map(|(address, disabled, inert)| LocalAddress {
        address: Some(address),
        disabled,
        inert: inert.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    })
}

/// A rule set with ids. Reasons of invalid rules are not included.
pub(super) fn rule_set() -> impl Strategy<Value = RuleSet> {
    let v4 =
        (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(address, length)| ipnet::IpNet::new(address.into(), length).unwrap());
    let v6 = (any::<[u8; 16]>(), 0..=128_u8)
        .prop_map(|(address, length)| ipnet::IpNet::new(address.into(), length).unwrap());
    let local_addresses = (vec(local(v4), 0..3), vec(local(v6), 0..3)).prop_map(|(v4, v6)| [v4, v6].concat());
    let tracking = prop_oneof![Just(Tracking::default()), tracking()];
    (vec(rule(), 0..7), patterns(), entries(), interface_lists(), tracking, local_addresses).prop_map(
        |(rules, layer7, address_lists, interface_lists, tracking, local_addresses)| {
            let mut rules = RuleSet { rules, layer7, address_lists, interface_lists, tracking, local_addresses };
            connect(&mut rules);
            rules.assign_ids();
            rules
        },
    )
}

/// Adds the chains and patterns that rules reference, and sorts the rules by menu.
fn connect(set: &mut RuleSet) {
    for place in 0..set.rules.len() {
        let rule = &set.rules[place];
        let Action::Jump(target) = &rule.action else { continue };
        let there = |other: &Rule| (other.table, other.family, &other.chain) == (rule.table, rule.family, target);
        if !set.rules.iter().any(there) {
            let last = Rule { table: rule.table, ..Rule::new(rule.family, target, Action::Return) };
            set.rules.push(last);
        }
    }
    set.rules.sort_by_key(|rule| (rule.family == Family::Ipv6, rule.table == Table::Raw));
    let names = set.rules.iter().flat_map(|rule| &rule.matchers).filter_map(|matcher| match &matcher.condition {
        Condition::Layer7(name) => Some(name.clone()),
        _ => None,
    });
    for name in names.collect::<Vec<_>>() {
        if set.pattern(&name).is_none() {
            set.layer7.push(Layer7Pattern { name, regexp: "x".to_owned(), comment: String::new(), line: 0 });
        }
    }
}
