//! Matchers and actions of rules as an operator wrote them, for explanations.
//!
//! What few rules ask is told by its name and its value as JSON: readable, if not as it was written.

use std::ops::RangeInclusive;

use knockplane_policy::rule::{Action, AddressSet, Condition, ListAdd, ListTimeout, Matcher, PortSet, protocol_name};
use knockplane_policy::time::format_duration;
use knockplane_policy::word::{Set, Word};

/// `dst-port=!22`.
pub(super) fn matcher(matcher: &Matcher) -> String {
    let not = if matcher.negated { "!" } else { "" };
    format!("{}={not}{}", matcher.condition.name(), value(&matcher.condition))
}

/// `add-src-to-address-list temporary 10s`, `jump knock`.
pub(super) fn action(action: &Action) -> String {
    let name = action.name();
    match action {
        Action::AddSrcToAddressList(add) | Action::AddDstToAddressList(add) => format!("{name} {}", list_add(add)),
        Action::Jump(target) => format!("{name} {target}"),
        Action::Reject(with) => format!("{name} {}", with.name()),
        _ => name.to_owned(),
    }
}

fn list_add(add: &ListAdd) -> String {
    match add.timeout {
        ListTimeout::After(time) => format!("{} {}", add.list, format_duration(time)),
        ListTimeout::NoneDynamic | ListTimeout::NoneStatic => add.list.clone(),
    }
}

fn value(condition: &Condition) -> String {
    match condition {
        Condition::SrcMacAddress(mac) => mac.to_string(),
        Condition::Interface { name, .. }
        | Condition::SrcAddressList(name)
        | Condition::DstAddressList(name)
        | Condition::TlsHost(name)
        | Condition::Layer7(name) => name.clone(),
        Condition::SrcAddress(set) | Condition::DstAddress(set) => addresses(set),
        Condition::Protocol(number) => protocol_name(*number),
        Condition::SrcAddressType(types) | Condition::DstAddressType(types) => words(*types),
        Condition::Ttl(comparison) | Condition::HopLimit(comparison) => {
            format!("{}:{}", comparison.relation.name(), comparison.value)
        }
        Condition::Dscp(number) | Condition::Priority(number) | Condition::IngressPriority(number) => {
            number.to_string()
        }
        Condition::PacketSize(sizes) | Condition::TcpMss(sizes) => range(sizes),
        Condition::Ipv4Options(option) => option.name().to_owned(),
        Condition::Fragment(later) => if *later { "yes" } else { "no" }.to_owned(),
        Condition::SrcPort(ports) | Condition::DstPort(ports) | Condition::AnyPort(ports) => port_set(ports),
        Condition::TcpFlags { set, clear } => {
            let clear = clear.iter().map(|flag| format!("!{}", flag.name()));
            set.iter().map(|flag| flag.name().to_owned()).chain(clear).collect::<Vec<_>>().join(",")
        }
        Condition::IcmpOptions { kind, codes } => format!("{kind}:{}", range(codes)),
        Condition::NoMark(_) => "no-mark".to_owned(),
        Condition::ConnectionState(states) => words(*states),
        Condition::ConnectionNatState(states) => words(*states),
        Condition::Content(bytes) => format!("\"{}\"", bytes.0.escape_ascii()),
        Condition::Random(percent) => percent.to_string(),
        Condition::Nth { every, packet } => format!("{every},{packet}"),
        Condition::Other { value, .. } => value.clone(),
        other => inner_json(other),
    }
}

fn addresses(set: &AddressSet) -> String {
    match set {
        AddressSet::Prefix(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        AddressSet::Prefix(net) => net.to_string(),
        AddressSet::Range(first, last) => format!("{first}-{last}"),
    }
}

fn port_set(ports: &PortSet) -> String {
    ports.0.iter().map(range).collect::<Vec<_>>().join(",")
}

fn range<T: PartialEq + ToString>(range: &RangeInclusive<T>) -> String {
    if range.start() == range.end() {
        return range.start().to_string();
    }
    format!("{}-{}", range.start().to_string(), range.end().to_string())
}

fn words<T: Word>(set: Set<T>) -> String {
    set.iter().map(Word::name).collect::<Vec<_>>().join(",")
}

/// The value alone: the name stands before it already.
fn inner_json(condition: &Condition) -> String {
    match serde_json::to_value(condition) {
        Ok(serde_json::Value::Object(object)) => object.into_values().map(|value| value.to_string()).collect(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use knockplane_policy::rsc;

    use super::*;

    #[test]
    fn matchers_and_actions_read_as_they_were_written() {
        let text = "/ip firewall filter\nadd action=add-src-to-address-list address-list=seen address-list-timeout=1m30s \
                    chain=input dst-port=!22,80-90 protocol=tcp src-address=192.0.2.0/24 dst-address=!192.0.2.1 \
                    src-address-list=!friends packet-size=40-1500\n\
                    add chain=input protocol=icmp icmp-options=8:0 action=jump jump-target=ping\nadd chain=ping\n";
        let reading = rsc::read(text.as_bytes());
        assert!(reading.problems.is_empty(), "{:?}", reading.problems);
        let mut written: Vec<_> = reading.rules.rules[0].matchers.iter().map(matcher).collect();
        written.sort();
        assert_eq!(
            written,
            [
                "dst-address=!192.0.2.1",
                "dst-port=!22,80-90",
                "packet-size=40-1500",
                "protocol=tcp",
                "src-address-list=!friends",
                "src-address=192.0.2.0/24"
            ]
        );
        assert_eq!(action(&reading.rules.rules[0].action), "add-src-to-address-list seen 1m30s");
        assert_eq!(matcher(&reading.rules.rules[1].matchers[1]), "icmp-options=8:0");
        assert_eq!(action(&reading.rules.rules[1].action), "jump ping");
    }
}
