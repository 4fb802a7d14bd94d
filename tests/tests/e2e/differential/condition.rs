//! Translates single matchers to nftables.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use knockplane_policy::packet::{ExtensionHeader, Family, Side};
use knockplane_policy::rule::{
    AddressSet, Comparison, Condition, Direction, Ipv4Option, LimitMode, Matcher, PortSet, Rate, RateUnit, Relation,
    Rule,
};
use knockplane_policy::word::Set;

use super::nft::{SIDE_BITS, ip, set_of, side_mark};

/// The translation of a matcher.
#[derive(Default)]
pub(super) struct Asked {
    /// Expressions. A packet for which one of them is true gets the bit.
    pub(super) either: Vec<String>,
    /// The expressions of the rule itself.
    pub(super) expression: String,
    /// The named set with its state.
    pub(super) set: String,
}

/// TCP or UDP, and not a later fragment.
const HAS_PORTS: &str = "meta l4proto { 6, 17 }";

/// Translates a matcher of a rule. `bit` is an unused bit of the mark, `memory` an unused name.
pub(super) fn ask(matcher: &Matcher, rule: &Rule, bit: u32, memory: &str) -> anyhow::Result<Asked> {
    let family = rule.family;
    let ip = ip(family);
    let negated = matcher.negated;
    let not = if negated { "!= " } else { "" };
    let plainly =
        |text: &str| if negated { bail!("`!` before {}", matcher.condition.name()) } else { Ok(text.to_owned()) };
    let expression = match &matcher.condition {
        Condition::SrcMacAddress(mac) => format!("ether saddr {not}{mac}"),
        Condition::Interface { direction, name, .. } => {
            let side = [Side::Outside, Side::Inside].into_iter().find(|side| side.name() == name);
            let side = side.context("an interface that is no side")?;
            let came_in = if *direction == Direction::In { side } else { side.opposite() };
            format!("meta mark & {SIDE_BITS} {} {}", if negated { "!=" } else { "==" }, side_mark(came_in))
        }
        Condition::SrcAddress(set) => format!("{ip} saddr {not}{}", literal(set)),
        Condition::DstAddress(set) => format!("{ip} daddr {not}{}", literal(set)),
        Condition::Protocol(number) => format!("meta l4proto {not}{number}"),
        Condition::SrcAddressList(list) => format!("{ip} saddr {not}@{}", set_of(list, family)),
        Condition::DstAddressList(list) => format!("{ip} daddr {not}@{}", set_of(list, family)),
        Condition::Ttl(comparison) => compare("ip ttl", *comparison, negated),
        Condition::HopLimit(comparison) => compare("ip6 hoplimit", *comparison, negated),
        Condition::Dscp(value) => format!("{ip} dscp {not}{value}"),
        Condition::Tos { value, mask } if family == Family::Ipv4 => {
            format!("@nh,8,8 & {mask:#x} {} {value:#x}", if negated { "!=" } else { "==" })
        }
        Condition::PacketSize(sizes) => format!("meta length {not}{}", range(sizes)),
        Condition::Ipv4Options(option) => ipv4_option(*option, negated)?,
        Condition::Headers { headers, exact } => plainly(&extension_headers(*headers, *exact)?)?,
        Condition::Fragment(later) => {
            format!("ip frag-off & 0x1fff {} 0", if *later == negated { "==" } else { "!=" })
        }
        Condition::SrcPort(ports) => format!("{HAS_PORTS} th sport {not}{}", port_set(ports)),
        Condition::DstPort(ports) => format!("{HAS_PORTS} th dport {not}{}", port_set(ports)),
        Condition::AnyPort(ports) => {
            let half = |field| format!("{HAS_PORTS} th {field} {}", port_set(ports));
            let expression = format!("{HAS_PORTS} th sport 0-65535 {}", has_bit(bit, negated));
            return Ok(Asked { either: vec![half("sport"), half("dport")], expression, ..Asked::default() });
        }
        Condition::TcpFlags { set, clear } => {
            let (set, clear) = (set.bits(), clear.bits());
            ensure!(set | clear != 0, "a question about no flag");
            format!("tcp flags & {:#x} {} {set:#x}", set | clear, if negated { "!=" } else { "==" })
        }
        Condition::TcpMss(sizes) => format!("tcp flags & syn == syn tcp option maxseg size {not}{}", range(sizes)),
        Condition::IcmpOptions { kind, codes } => {
            let icmp = if family == Family::Ipv4 { "icmp" } else { "icmpv6" };
            let both = format!("{icmp} type {kind} {icmp} code {}", range(codes));
            let expression = format!("{icmp} type 0-255 {}", has_bit(bit, negated));
            return Ok(Asked { either: vec![both], expression, ..Asked::default() });
        }
        Condition::NoMark(_) => plainly("")?,
        Condition::IpsecPolicy { ipsec: false, .. } => plainly("")?,
        Condition::ConnectionState(states) => {
            let names: Vec<String> = states.iter().map(|state| format!("{state:?}").to_lowercase()).collect();
            ensure!(!names.is_empty(), "a question about no state");
            format!("ct state {not}{{ {} }}", names.join(", "))
        }
        Condition::ConnectionBytes { from, to } => match to {
            Some(to) => plainly(&format!("ct bytes {from}-{to}"))?,
            None => plainly(&format!("ct bytes >= {from}"))?,
        },
        Condition::ConnectionLimit { count, prefix_length } => {
            ensure!(family == Family::Ipv4, "a mask for IPv6");
            let mask = std::net::Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(*prefix_length)).unwrap_or(0));
            let over = if negated { "" } else { "over " };
            let expression = format!("add @{memory} {{ ip saddr & {mask} ct count {over}{count} }}");
            return Ok(Asked { expression, set: set_for(memory, "ip saddr"), ..Asked::default() });
        }
        Condition::Nth { every, packet } => plainly(&format!("numgen inc mod {every} {}", packet - 1))?,
        Condition::Limit(rate) => limit(rate, negated)?,
        Condition::DstLimit { rate, mode, .. } => {
            let (source, destination) = (format!("{ip} saddr"), format!("{ip} daddr"));
            let key = match mode {
                LimitMode::DstAddress => destination,
                LimitMode::SrcAddress => source,
                LimitMode::SrcAndDstAddresses => format!("{source} . {destination}"),
                LimitMode::DstAddressAndPort => format!("{destination} . th dport"),
                LimitMode::AddressesAndDstPort => format!("{source} . {destination} . th dport"),
            };
            let expression = format!("update @{memory} {{ {key} {} }}", limit(rate, negated)?);
            return Ok(Asked { expression, set: set_for(memory, &key), ..Asked::default() });
        }
        other => bail!("{}", other.name()),
    };
    Ok(Asked { expression, ..Asked::default() })
}

fn has_bit(bit: u32, negated: bool) -> String {
    format!("meta mark & {bit:#x} {} 0", if negated { "==" } else { "!=" })
}

fn set_for(name: &str, key: &str) -> String {
    format!("set {name} {{\ntypeof {key}\nsize 1000\nflags dynamic\n}}\n")
}

/// Addresses in nftables' form.
pub(super) fn literal(set: &AddressSet) -> String {
    match set {
        AddressSet::Prefix(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        AddressSet::Prefix(net) => net.to_string(),
        AddressSet::Range(first, last) => format!("{first}-{last}"),
    }
}

fn range<T: PartialEq + std::fmt::Display>(range: &RangeInclusive<T>) -> String {
    match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

fn port_set(ports: &PortSet) -> String {
    format!("{{ {} }}", ports.0.iter().map(range).collect::<Vec<_>>().join(", "))
}

fn compare(field: &str, Comparison { relation, value }: Comparison, negated: bool) -> String {
    let operator = match (relation, negated) {
        (Relation::Equal, false) | (Relation::NotEqual, true) => "==",
        (Relation::NotEqual, false) | (Relation::Equal, true) => "!=",
        (Relation::LessThan, false) => "<",
        (Relation::LessThan, true) => ">=",
        (Relation::GreaterThan, false) => ">",
        (Relation::GreaterThan, true) => "<=",
    };
    format!("{field} {operator} {value}")
}

fn ipv4_option(option: Ipv4Option, negated: bool) -> anyhow::Result<String> {
    let (name, there) = match option {
        Ipv4Option::StrictSourceRouting => ("ssrr", true),
        Ipv4Option::LooseSourceRouting => ("lsrr", true),
        Ipv4Option::RecordRoute => ("rr", true),
        Ipv4Option::NoRecordRoute => ("rr", false),
        Ipv4Option::RouterAlert => ("ra", true),
        Ipv4Option::NoRouterAlert => ("ra", false),
        other => bail!("ipv4-options={other:?}"),
    };
    Ok(format!("ip option {name} {}", if there == negated { "missing" } else { "exists" }))
}

fn extension_headers(headers: Set<ExtensionHeader>, exact: bool) -> anyhow::Result<String> {
    use ExtensionHeader::{Dst, Frag, Hop, Proto, Route};
    let known = [(Hop, "hbh"), (Dst, "dst"), (Route, "rt"), (Frag, "frag")];
    let sayable: Set<ExtensionHeader> = known.iter().map(|(header, _)| *header).chain([Proto]).collect();
    ensure!(headers.is_subset(sayable), "headers={headers:?}");
    ensure!(!exact || headers.contains(Proto), "headers that lead to nothing");
    let mut asked = Vec::new();
    for (header, name) in known {
        match (headers.contains(header), exact) {
            (true, _) => asked.push(format!("exthdr {name} exists")),
            (false, true) => asked.push(format!("exthdr {name} missing")),
            (false, false) => {}
        }
    }
    if headers.contains(Proto) {
        // Encapsulated payload and "nothing follows" are headers too.
        asked.push("meta l4proto != { 50, 59 }".to_owned());
    }
    Ok(asked.join(" "))
}

/// Buckets that refill too slowly to matter during the test: refill times are not compared.
fn limit(rate: &Rate, negated: bool) -> anyhow::Result<String> {
    ensure!(rate.unit == RateUnit::Packet && rate.burst > 0, "a limit that counts bits, or has no burst");
    ensure!(rate.per == Duration::from_secs(86_400), "a limit that is refilled during the test");
    let over = if negated { "over " } else { "" };
    Ok(format!("limit rate {over}{}/day burst {} packets", rate.count, rate.burst))
}
