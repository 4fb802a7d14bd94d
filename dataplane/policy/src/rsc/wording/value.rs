//! The values of properties as RouterOS writes them, without quotes.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::super::encoding;

use crate::rule::{AddressSet, Condition, EntryAddress, ListTimeout, PortSet, Rate, RateUnit, protocol_name};
use crate::time::format_duration;
use crate::word::{Set, Word};

/// A value and its kind in RouterOS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rsc) enum Value {
    /// Text of an operator: names, comments, contents.
    Text(Vec<u8>),
    /// Words and numbers of the language. In these, `,` and `!` need no quotes.
    Code(Vec<u8>),
}

impl Value {
    pub(in crate::rsc) fn text(text: &str) -> Self {
        Value::Text(encoding::bytes(text).into_owned())
    }

    pub(in crate::rsc) fn code(text: impl Into<String>) -> Self {
        Value::Code(encoding::bytes(&text.into()).into_owned())
    }
}

/// The value of a matcher, without its `!`.
pub(super) fn of_condition(condition: &Condition) -> Value {
    let text = match condition {
        Condition::Interface { name, .. }
        | Condition::SrcAddressList(name)
        | Condition::DstAddressList(name)
        | Condition::TlsHost(name)
        | Condition::Layer7(name)
        | Condition::ConnectionDoor(name) => return Value::text(name),
        Condition::Content(bytes) => return Value::Text(bytes.0.clone()),
        Condition::Other { value, .. } => value.clone(),
        Condition::SrcMacAddress(address) => address.to_string(),
        Condition::SrcAddress(set) | Condition::DstAddress(set) => addresses(set),
        Condition::Protocol(number) => protocol_name(*number),
        Condition::SrcAddressType(types) | Condition::DstAddressType(types) => words(*types),
        Condition::Ttl(comparison) | Condition::HopLimit(comparison) => {
            format!("{}:{}", comparison.relation.name(), comparison.value)
        }
        Condition::Dscp(number) | Condition::Priority(number) | Condition::IngressPriority(number) => {
            number.to_string()
        }
        Condition::Tos { value, mask: u8::MAX } => value.to_string(),
        Condition::Tos { value, mask } => format!("{value}/{mask}"),
        Condition::PacketSize(sizes) | Condition::TcpMss(sizes) => range(sizes),
        Condition::Ipv4Options(option) => option.name().to_owned(),
        Condition::Headers { headers, exact } => {
            format!("{}:{}", words(*headers), if *exact { "exact" } else { "contains" })
        }
        Condition::Fragment(later) => if *later { "yes" } else { "no" }.to_owned(),
        Condition::SrcPort(ports) | Condition::DstPort(ports) | Condition::AnyPort(ports) => port_set(ports),
        Condition::TcpFlags { set, clear } => {
            let clear = clear.iter().map(|flag| format!("!{}", flag.name()));
            join(set.iter().map(|flag| flag.name().to_owned()).chain(clear))
        }
        Condition::IcmpOptions { kind, codes } => format!("{kind}:{}", range(codes)),
        Condition::NoMark(_) => "no-mark".to_owned(),
        Condition::IpsecPolicy { direction, ipsec } => {
            format!("{},{}", direction.name(), if *ipsec { "ipsec" } else { "none" })
        }
        Condition::Time { from, to, days } => {
            format!("{}-{},{}", format_duration(*from), format_duration(*to), words(*days))
        }
        Condition::ConnectionState(states) => words(*states),
        Condition::ConnectionNatState(states) => words(*states),
        Condition::ConnectionBytes { from, to } => format!("{from}-{}", to.unwrap_or(0)),
        Condition::ConnectionRate(rates) => format!("{}-{}", scaled(*rates.start()), scaled(*rates.end())),
        Condition::ConnectionLimit { count, prefix_length } => format!("{count},{prefix_length}"),
        Condition::Psd { weight, delay, low_weight, high_weight } => {
            format!("{weight},{},{low_weight},{high_weight}", format_duration(*delay))
        }
        Condition::Random(percent) => percent.to_string(),
        Condition::Nth { every, packet } => format!("{every},{packet}"),
        Condition::PerConnectionClassifier { fields, denominator, remainder } => {
            format!("{}:{denominator}/{remainder}", fields.name())
        }
        Condition::Limit(rate) => format!("{}:{}", rate_and_burst(rate), rate.unit.name()),
        Condition::DstLimit { rate, mode, expire } => {
            format!("{},{}/{}", rate_and_burst(rate), mode.name(), format_duration(*expire))
        }
    };
    Value::code(text)
}

/// The value of `address-list-timeout`.
pub(super) fn list_timeout(timeout: ListTimeout) -> String {
    match timeout {
        ListTimeout::NoneDynamic => "none-dynamic".to_owned(),
        ListTimeout::NoneStatic => "none-static".to_owned(),
        ListTimeout::After(time) => format_duration(time),
    }
}

/// The address of an entry.
pub(in crate::rsc) fn entry_address(address: &EntryAddress) -> String {
    match address {
        EntryAddress::Set(set) => addresses(set),
        EntryAddress::Name(name) => name.clone(),
        EntryAddress::None => String::new(),
    }
}

/// RouterOS omits the length of a single IPv4 address, and writes that of an IPv6 address.
fn addresses(set: &AddressSet) -> String {
    match set {
        AddressSet::Prefix(IpNet::V4(net)) if net.prefix_len() == 32 => IpAddr::V4(net.addr()).to_string(),
        AddressSet::Prefix(net) => net.to_string(),
        AddressSet::Range(first, last) => format!("{first}-{last}"),
    }
}

fn port_set(ports: &PortSet) -> String {
    join(ports.0.iter().map(range))
}

/// Writes `5` or `5-9`.
fn range<T: PartialEq + ToString>(range: &RangeInclusive<T>) -> String {
    if range.start() == range.end() {
        return range.start().to_string();
    }
    format!("{}-{}", range.start().to_string(), range.end().to_string())
}

fn words<T: Word>(set: Set<T>) -> String {
    join(set.iter().map(|word| word.name().to_owned()))
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

/// Writes `10,5` or `10/1m,5`. A time of one second is omitted.
fn rate_and_burst(rate: &Rate) -> String {
    let number = |number: u64| match rate.unit {
        RateUnit::Packet => number.to_string(),
        RateUnit::Bit => scaled(number),
    };
    let per = if rate.per.as_secs() == 1 { String::new() } else { format!("/{}", format_duration(rate.per)) };
    format!("{}{per},{}", number(rate.count), number(rate.burst))
}

/// Writes a number in the largest unit that gives a whole number.
fn scaled(number: u64) -> String {
    let scales = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    match scales.into_iter().find(|(scale, _)| number > 0 && number.is_multiple_of(*scale)) {
        Some((scale, unit)) => format!("{}{unit}", number / scale),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_units() {
        let cases =
            [(0, "0"), (999, "999"), (1_000, "1k"), (6_500_000, "6500k"), (20_000_000, "20M"), (1_000_000_000, "1G")];
        for (number, text) in cases {
            assert_eq!(scaled(number), text);
        }
    }

    #[test]
    fn single_addresses_have_a_length_in_ipv6_only() {
        let prefix = |text: &str| addresses(&AddressSet::Prefix(text.parse().unwrap()));
        assert_eq!(prefix("192.0.2.1/32"), "192.0.2.1");
        assert_eq!((prefix("192.0.2.0/24"), prefix("0.0.0.0/0")), ("192.0.2.0/24".to_owned(), "0.0.0.0/0".to_owned()));
        assert_eq!((prefix("2001:db8::1/128"), prefix("::/0")), ("2001:db8::1/128".to_owned(), "::/0".to_owned()));
    }
}
