//! The values of a packet that made a matcher false, for explanations.

use std::net::IpAddr;

use super::rule_evaluation::RuleEvaluation;
use super::{clock, keyed};
use crate::packet::FragmentPart;
use crate::rule::{Condition, Direction, Matcher, protocol_name};
use crate::word::{Set, Word};

impl RuleEvaluation<'_, '_> {
    /// The packet's value, if there is one: "dst-port is 80". Changes no state.
    pub(super) fn observed(&self, matcher: &Matcher) -> String {
        let condition = &matcher.condition;
        let name = condition.name();
        // The matcher was false, so this is the result of the condition.
        let answer = matcher.negated;
        let either = |yes: &str, no: &str| if answer { yes.to_owned() } else { no.to_owned() };
        match condition {
            Condition::SrcAddressList(list) => listed(self.packet.source, list, answer),
            Condition::DstAddressList(list) => listed(self.packet.destination, list, answer),
            Condition::ConnectionLimit { .. } if self.flow().is_some() => {
                either("connection-limit is exceeded", "connection-limit is not exceeded")
            }
            Condition::Content(_) => either("content is in the payload", "content is not in the payload"),
            Condition::Psd { .. } if self.packet.ports.is_some() => {
                either("the source has tried too many ports", "the source has not tried too many ports")
            }
            Condition::Layer7(pattern) => match self.evaluator.rules.pattern(pattern) {
                Some(_) => either(&format!("{pattern} has matched"), &format!("{pattern} has not matched")),
                None => format!("there is no pattern {pattern}"),
            },
            Condition::ConnectionDoor(_) => match self.flow().map(|flow| &flow.door) {
                Some(Some(door)) => format!("the connection belongs to door {door}"),
                Some(None) => "the connection belongs to no door".to_owned(),
                None => "the packet has no connection".to_owned(),
            },
            Condition::Random(_) => either("the packet was chosen", "the packet was not chosen"),
            Condition::Nth { .. } => either("it was the packet's turn", "it was not the packet's turn"),
            Condition::Limit(_) | Condition::DstLimit { .. } => {
                either(&format!("{name} is not used up"), &format!("{name} is used up"))
            }
            _ => match self.value(condition) {
                Some(value) => format!("{name} is {value}"),
                None => self.absent(condition),
            },
        }
    }

    /// The reason that there is no value.
    fn absent(&self, condition: &Condition) -> String {
        let name = condition.name();
        match condition {
            Condition::SrcPort(_) | Condition::DstPort(_) | Condition::AnyPort(_) | Condition::Psd { .. } => {
                "the packet has no ports".to_owned()
            }
            Condition::IcmpOptions { .. } => "the packet is not ICMP".to_owned(),
            Condition::TcpFlags { .. } => "the packet has no TCP header".to_owned(),
            Condition::ConnectionBytes { .. } | Condition::ConnectionRate(_) | Condition::ConnectionLimit { .. } => {
                "the packet has no connection".to_owned()
            }
            Condition::ConnectionState(_) => "the packet is not tracked yet".to_owned(),
            Condition::Interface { name: interface, .. } => format!("the side of {interface} is not configured"),
            Condition::Other { .. } => format!("{name} is not supported"),
            _ => format!("the packet has no {name}"),
        }
    }

    /// The packet's value.
    fn value(&self, condition: &Condition) -> Option<String> {
        let packet = self.packet;
        Some(match condition {
            Condition::SrcMacAddress(_) => packet.source_mac()?.to_string(),
            Condition::Interface { direction, kind, name } => {
                self.evaluator.settings.interfaces.sides(*kind, name, &self.evaluator.rules.interface_lists)?;
                match direction {
                    Direction::In => packet.side.to_string(),
                    Direction::Out => packet.side.opposite().to_string(),
                }
            }
            Condition::SrcAddress(_) => packet.source.to_string(),
            Condition::DstAddress(_) => packet.destination.to_string(),
            Condition::Protocol(_) => protocol_name(packet.protocol),
            Condition::SrcAddressType(_) => self.source_type().name().to_owned(),
            Condition::DstAddressType(_) => self.destination_type().name().to_owned(),
            Condition::Ttl(_) | Condition::HopLimit(_) => packet.ttl()?.to_string(),
            Condition::Dscp(_) => packet.dscp()?.to_string(),
            Condition::Tos { .. } => packet.tos()?.to_string(),
            Condition::PacketSize(_) => packet.ip_length.to_string(),
            Condition::TlsHost(_) => self.server_name()?,
            Condition::Ipv4Options(_) => words(packet.ipv4_options()?),
            Condition::Headers { .. } => words(packet.extension_headers()?),
            Condition::Fragment(_) => if packet.fragment()? == FragmentPart::Later { "yes" } else { "no" }.to_owned(),
            Condition::SrcPort(_) => packet.ports?.0.to_string(),
            Condition::DstPort(_) => packet.ports?.1.to_string(),
            Condition::AnyPort(_) => packet.ports.map(|(source, destination)| format!("{source} or {destination}"))?,
            Condition::TcpFlags { .. } => words(packet.tcp_flags()?),
            Condition::TcpMss(_) => packet.tcp_mss()?.to_string(),
            Condition::IcmpOptions { .. } => packet.icmp.map(|(kind, code)| format!("{kind}:{code}"))?,
            Condition::NoMark(_) => "no-mark".to_owned(),
            Condition::Priority(_) | Condition::IngressPriority(_) => {
                packet.vlan_priority().unwrap_or_default().to_string()
            }
            Condition::IpsecPolicy { .. } => "none".to_owned(),
            Condition::Time { .. } => clock::told(self.wall_clock()),
            Condition::ConnectionState(_) => self.seen?.state.name().to_owned(),
            Condition::ConnectionNatState(_) => "none".to_owned(),
            Condition::ConnectionBytes { .. } => self.flow()?.bytes.to_string(),
            Condition::ConnectionRate(_) => self.flow()?.last_second(self.now).saturating_mul(8).to_string(),
            Condition::PerConnectionClassifier { fields, denominator, .. } => {
                let hash = keyed::classifier(self.evaluator.secret, *fields, packet);
                hash.checked_rem(*denominator)?.to_string()
            }
            _ => return None,
        })
    }
}

fn listed(address: IpAddr, list: &str, is: bool) -> String {
    format!("{address} is {}in {list}", if is { "" } else { "not " })
}

fn words<T: Word>(set: Set<T>) -> String {
    if set.is_empty() {
        return "none".to_owned();
    }
    set.iter().map(Word::name).collect::<Vec<_>>().join(",")
}
