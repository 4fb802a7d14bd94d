//! Evaluates the matchers, in their order of evaluation. Longer matchers have their own modules.

use super::address::address_type;
use super::clock;
use super::keyed;
use super::rule_evaluation::RuleEvaluation;
use crate::packet::FragmentPart;
use crate::rule::{AddressType, Condition, Direction, InterfaceKind, Matcher};

/// A matcher of the rule set. Each stateful matcher has its own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MatcherId {
    /// Index of its rule.
    pub(super) rule: usize,
    /// The index among the rule's matchers.
    pub(super) matcher: usize,
}

impl RuleEvaluation<'_, '_> {
    /// Whether the matcher is true.
    pub(super) fn holds(&mut self, id: MatcherId, matcher: &Matcher) -> bool {
        matcher.condition.asks_nothing()
            || !self.evaluator.settings.interfaces.leave_open(matcher, &self.evaluator.rules.interface_lists)
                && matcher.condition.applies(self.packet)
                && self.asks(id, &matcher.condition).is_some_and(|answer| answer != matcher.negated)
    }

    /// The result of a condition that applies to the packet. `None` if a value that the condition needs is missing;
    /// then the matcher is false, negated or not.
    fn asks(&mut self, id: MatcherId, condition: &Condition) -> Option<bool> {
        let (packet, now) = (self.packet, self.now);
        let (src_port, dst_port) = packet.ports.unwrap_or_default();
        Some(match condition {
            Condition::SrcMacAddress(address) => packet.source_mac()? == *address,
            Condition::Interface { direction, kind, name } => self.is_on(*direction, *kind, name)?,
            Condition::SrcAddress(set) => set.contains(packet.source),
            Condition::DstAddress(set) => set.contains(packet.destination),
            Condition::Protocol(number) => packet.protocol == *number,
            Condition::SrcAddressType(types) => types.contains(self.source_type()),
            Condition::DstAddressType(types) => types.contains(self.destination_type()),
            Condition::SrcAddressList(list) => self.is_listed(list, packet.source, packet.destination),
            Condition::DstAddressList(list) => self.is_listed(list, packet.destination, packet.source),
            Condition::Ttl(comparison) | Condition::HopLimit(comparison) => comparison.holds(packet.ttl()?),
            Condition::Dscp(value) => packet.dscp()? == *value,
            Condition::Tos { value, mask } => packet.tos()? & mask == *value,
            Condition::PacketSize(range) => u16::try_from(packet.ip_length).is_ok_and(|size| range.contains(&size)),
            Condition::TlsHost(pattern) => super::tls::fits(pattern, &self.server_name()?),
            Condition::Ipv4Options(option) => option.holds(packet.ipv4_options()?),
            Condition::Headers { headers, exact: true } => packet.extension_headers()? == *headers,
            Condition::Headers { headers, exact: false } => headers.is_subset(packet.extension_headers()?),
            Condition::Fragment(later) => (packet.fragment()? == FragmentPart::Later) == *later,
            Condition::SrcPort(ports) => ports.contains(src_port),
            Condition::DstPort(ports) => ports.contains(dst_port),
            Condition::AnyPort(ports) => ports.contains(src_port) || ports.contains(dst_port),
            Condition::TcpFlags { set, clear } => {
                let flags = packet.tcp_flags()?;
                set.is_subset(flags) && !clear.intersects(flags)
            }
            Condition::TcpMss(range) => range.contains(&packet.tcp_mss()?),
            Condition::IcmpOptions { kind, codes } => {
                let (its_kind, code) = packet.icmp?;
                its_kind == *kind && codes.contains(&code)
            }
            Condition::NoMark(_) => true,
            Condition::Priority(value) | Condition::IngressPriority(value) => {
                packet.vlan_priority().unwrap_or_default() == *value
            }
            Condition::IpsecPolicy { ipsec, .. } => !ipsec,
            Condition::Time { from, to, days } => clock::holds(self.wall_clock(), *from, *to, *days),
            Condition::ConnectionState(states) => states.contains(self.seen?.state),
            Condition::ConnectionNatState(_) => false,
            Condition::ConnectionBytes { from, to } => {
                let bytes = self.flow()?.bytes;
                *from <= bytes && to.is_none_or(|to| bytes <= to)
            }
            Condition::ConnectionRate(range) => range.contains(&self.flow()?.last_second(now).saturating_mul(8)),
            Condition::ConnectionLimit { count, prefix_length } => self.connections(id, *prefix_length)? > *count,
            Condition::Content(bytes) => is_in(&bytes.0, packet.payload),
            Condition::Psd { weight, delay, low_weight, high_weight } => {
                let scan = self.evaluator.matcher_state.scan(id, packet, *delay, [*low_weight, *high_weight], now)?;
                scan >= u64::from(*weight)
            }
            Condition::Layer7(name) => self.matches_pattern(name)?,
            Condition::Random(percent) => self.evaluator.matcher_state.random.percent() < *percent,
            Condition::Nth { every, packet } => self.evaluator.matcher_state.nth(id, *every) == *packet,
            Condition::PerConnectionClassifier { fields, denominator, remainder } => {
                keyed::classifier(self.evaluator.secret, *fields, packet).checked_rem(*denominator)? == *remainder
            }
            Condition::Limit(rate) => self.evaluator.matcher_state.limit(id, rate, packet, now),
            Condition::DstLimit { rate, mode, expire } => {
                self.evaluator.matcher_state.dst_limit(id, rate, *mode, *expire, packet, now)
            }
            Condition::ConnectionDoor(door) => self.flow()?.door.as_ref() == Some(door),
            Condition::Other { .. } => return None,
        })
    }

    /// Whether the packet arrived or leaves on an interface of the matcher. `None` if the side of that interface is not
    /// configured. A packet that arrives on one side always leaves on the other.
    fn is_on(&self, direction: Direction, kind: InterfaceKind, name: &str) -> Option<bool> {
        let sides = self.evaluator.settings.interfaces.sides(kind, name, &self.evaluator.rules.interface_lists)?;
        Some(sides.contains(match direction {
            Direction::In => self.packet.side,
            Direction::Out => self.packet.side.opposite(),
        }))
    }

    pub(super) fn source_type(&self) -> AddressType {
        address_type(self.evaluator.rules, self.evaluator.settings, self.packet.source)
    }

    pub(super) fn destination_type(&self) -> AddressType {
        address_type(self.evaluator.rules, self.evaluator.settings, self.packet.destination)
    }
}

/// `content`: whether the payload contains these bytes.
fn is_in(content: &[u8], payload: &[u8]) -> bool {
    content.is_empty() || payload.windows(content.len()).any(|window| window == content)
}
