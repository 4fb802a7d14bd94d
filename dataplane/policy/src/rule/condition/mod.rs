//! Matchers of rules.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{
    AddressSet, AddressType, Bytes, ClassifierFields, Comparison, ConnectionState, Direction, InterfaceKind,
    Ipv4Option, LimitMode, Mark, NatState, PortSet, Rate, Weekday,
};
use crate::packet::{ExtensionHeader, Family, MacAddress, Packet, TcpFlag, protocol};
use crate::word::{Set, Word};

/// One condition of a rule, possibly negated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// Whether the matcher has a `!`.
    pub negated: bool,
    /// The condition.
    pub condition: Condition,
}

/// The condition of a matcher. Source: RouterOS manual, Filter. The order of the variants is RouterOS's order of
/// evaluation, see [`MATCHERS`].
///
/// Ranges include both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// `src-mac-address`: of the Ethernet header.
    SrcMacAddress(MacAddress),
    /// `in-interface`, `out-bridge-port-list` and so on. `Interfaces::sides` maps the name to sides of the filter.
    Interface {
        /// The side of arrival or of departure.
        direction: Direction,
        /// Whether the name is that of an interface or of a list.
        kind: InterfaceKind,
        /// The name on the router.
        name: String,
    },
    /// `src-address`.
    SrcAddress(AddressSet),
    /// `dst-address`.
    DstAddress(AddressSet),
    /// `protocol`.
    Protocol(u8),
    /// `src-address-type`: one of these types. Exports may have an empty set, which is always true.
    SrcAddressType(Set<AddressType>),
    /// `dst-address-type`: as `src-address-type`.
    DstAddressType(Set<AddressType>),
    /// `src-address-list`: a list that no rule and no entry fills is empty.
    SrcAddressList(String),
    /// `dst-address-list`.
    DstAddressList(String),
    /// `ttl`, IPv4.
    Ttl(Comparison),
    /// `hop-limit`, IPv6.
    HopLimit(Comparison),
    /// `dscp`, 0 to 63.
    Dscp(u8),
    /// `tos`: the masked bits have this value.
    Tos {
        /// The value.
        value: u8,
        /// The mask; all bits if none was written.
        mask: u8,
    },
    /// `packet-size`, in bytes of the IP packet.
    PacketSize(RangeInclusive<u16>),
    /// `tls-host`: the server name in a TLS ClientHello, with `*` and `?`.
    TlsHost(String),
    /// `ipv4-options`, IPv4.
    Ipv4Options(Ipv4Option),
    /// `headers`, IPv6.
    Headers {
        /// The headers that must be present.
        headers: Set<ExtensionHeader>,
        /// Whether no other header may be present.
        exact: bool,
    },
    /// `fragment`: whether the packet is a later fragment. IPv4.
    Fragment(bool),
    /// `src-port`. False, also when negated, for packets without ports.
    SrcPort(PortSet),
    /// `dst-port`: as `src-port`.
    DstPort(PortSet),
    /// `port`: the source or the destination port. As `src-port`.
    AnyPort(PortSet),
    /// `tcp-flags`. Exports may have an empty set, which is always true. False, also when negated, for packets without
    /// a TCP header.
    TcpFlags {
        /// Flags that must be set.
        set: Set<TcpFlag>,
        /// Flags that must be clear, each written with `!`.
        clear: Set<TcpFlag>,
    },
    /// `tcp-mss`, in bytes. False, also when negated, for packets without this option: only SYNs have it.
    TcpMss(RangeInclusive<u16>),
    /// `icmp-options`: type and codes. False, also when negated, for packets that are not ICMP.
    IcmpOptions {
        /// ICMP type.
        kind: u8,
        /// ICMP codes.
        codes: RangeInclusive<u8>,
    },
    /// `connection-mark=no-mark` and similar. The filter sets no marks, so the condition is true.
    NoMark(Mark),
    /// `priority`, 0 to 63: the priority of the VLAN tag, because the filter sets no other priority; 0 without a tag.
    Priority(u8),
    /// `ingress-priority`: as `priority`.
    IngressPriority(u8),
    /// `ipsec-policy`. The filter has no IPsec, so `none` is true and `ipsec` false.
    IpsecPolicy {
        /// Before or after IPsec.
        direction: Direction,
        /// Whether the value is `ipsec` and not `none`.
        ipsec: bool,
    },
    /// `time`: the time of arrival, on the clock of `Settings::time_zone`.
    Time {
        /// The first time of day, since midnight.
        from: Duration,
        /// The last time of day, since midnight, up to 24 h. If it is before `from`, it is on the next day.
        to: Duration,
        /// The days on which the time begins.
        days: Set<Weekday>,
    },
    /// `connection-state`: one of these states. Exports may have an empty set, which is always true.
    ConnectionState(Set<ConnectionState>),
    /// `connection-nat-state`: one of these states. The filter translates no addresses, so the condition is false.
    ConnectionNatState(Set<NatState>),
    /// `connection-bytes`: IP bytes of the connection so far, in both directions. Untracked packets have no connection.
    ConnectionBytes {
        /// At least this number.
        from: u64,
        /// At most this number; `None` without a limit.
        to: Option<u64>,
    },
    /// `connection-rate`: the rate in both directions in the last whole second, in bits per second.
    ConnectionRate(RangeInclusive<u64>),
    /// `connection-limit`: more than this number of connections of the source's prefix have reached this rule. False,
    /// also when negated, for untracked packets.
    ConnectionLimit {
        /// The highest number that does not match.
        count: u32,
        /// Length of the prefix: 32 or 128 for single addresses.
        prefix_length: u8,
    },
    /// `content`: the payload contains these bytes, case-sensitive.
    Content(Bytes),
    /// `psd`: port scan detection. The ports that a source tries have weights. The condition is true from the threshold
    /// on, until the source pauses for the delay. False, also when negated, for packets without ports.
    Psd {
        /// The threshold.
        weight: u32,
        /// Longest time between two ports of one scan.
        delay: Duration,
        /// Weight of each port below 1024.
        low_weight: u32,
        /// Weight of each other port.
        high_weight: u32,
    },
    /// `layer7-protocol`, by the pattern's name.
    Layer7(String),
    /// `random`: this percentage of packets, 1 to 99.
    Random(u8),
    /// `nth`: one packet of every `every` that reach this rule.
    Nth {
        /// Length of the cycle.
        every: u32,
        /// Position in the cycle, from 1.
        packet: u32,
    },
    /// `per-connection-classifier`: whether a keyed hash of the fields has this remainder.
    PerConnectionClassifier {
        /// The hashed fields.
        fields: ClassifierFields,
        /// The divisor, more than zero.
        denominator: u32,
        /// The remainder, less than the divisor.
        remainder: u32,
    },
    /// `limit`: whether the rule's bucket contains a token, which the condition then removes.
    Limit(Rate),
    /// `dst-limit`: as `limit`, with one bucket for each address or flow.
    DstLimit {
        /// The rate of each bucket; in packets.
        rate: Rate,
        /// The key of a bucket.
        mode: LimitMode,
        /// The lifetime of a bucket after its last packet.
        expire: Duration,
    },
    /// `connection-door`: whether the packet's connection began through the door with this name. This is not a matcher
    /// of RouterOS, and so not in [`MATCHERS`]: only doors generate such rules.
    ConnectionDoor(String),
    /// A matcher that is not supported, such as `p2p`, `hotspot`, or a mark other than `no-mark`. It is stored so that
    /// the rule can be shown and exported. The rule is invalid and never runs. The matcher is false, also when negated.
    Other {
        /// The name in rules.
        name: String,
        /// The value as written, without the `!`.
        value: String,
    },
}

/// The names of all of RouterOS's matchers in their order of evaluation. The order is relevant for stateful matchers: a
/// limit takes a token only if all matchers before it are true.
#[rustfmt::skip]
pub const MATCHERS: &[&str] = &[
    "src-mac-address", "in-interface", "in-interface-list", "out-interface", "out-interface-list", "in-bridge-port",
    "in-bridge-port-list", "out-bridge-port", "out-bridge-port-list", "src-address", "dst-address", "protocol",
    "src-address-type", "dst-address-type", "src-address-list", "dst-address-list", "ttl", "hop-limit", "dscp", "tos",
    "packet-size", "tls-host", "ipv4-options", "headers", "fragment", "src-port", "dst-port", "port", "tcp-flags",
    "tcp-mss", "icmp-options", "connection-mark", "packet-mark", "routing-mark", "priority", "ingress-priority",
    "ipsec-policy", "time", "connection-state", "connection-nat-state", "connection-bytes", "connection-rate",
    "connection-limit", "content", "psd", "layer7-protocol", "random", "nth", "per-connection-classifier", "limit",
    "dst-limit",
];

impl Condition {
    /// The name in rules.
    pub fn name(&self) -> &str {
        match self {
            Condition::SrcMacAddress(_) => "src-mac-address",
            Condition::Interface { direction, kind, .. } => match (direction, kind) {
                (Direction::In, InterfaceKind::Interface) => "in-interface",
                (Direction::In, InterfaceKind::List) => "in-interface-list",
                (Direction::In, InterfaceKind::BridgePort) => "in-bridge-port",
                (Direction::In, InterfaceKind::BridgePortList) => "in-bridge-port-list",
                (Direction::Out, InterfaceKind::Interface) => "out-interface",
                (Direction::Out, InterfaceKind::List) => "out-interface-list",
                (Direction::Out, InterfaceKind::BridgePort) => "out-bridge-port",
                (Direction::Out, InterfaceKind::BridgePortList) => "out-bridge-port-list",
            },
            Condition::SrcAddress(_) => "src-address",
            Condition::DstAddress(_) => "dst-address",
            Condition::Protocol(_) => "protocol",
            Condition::SrcAddressType(_) => "src-address-type",
            Condition::DstAddressType(_) => "dst-address-type",
            Condition::SrcAddressList(_) => "src-address-list",
            Condition::DstAddressList(_) => "dst-address-list",
            Condition::Ttl(_) => "ttl",
            Condition::HopLimit(_) => "hop-limit",
            Condition::Dscp(_) => "dscp",
            Condition::Tos { .. } => "tos",
            Condition::PacketSize(_) => "packet-size",
            Condition::TlsHost(_) => "tls-host",
            Condition::Ipv4Options(_) => "ipv4-options",
            Condition::Headers { .. } => "headers",
            Condition::Fragment(_) => "fragment",
            Condition::SrcPort(_) => "src-port",
            Condition::DstPort(_) => "dst-port",
            Condition::AnyPort(_) => "port",
            Condition::TcpFlags { .. } => "tcp-flags",
            Condition::TcpMss(_) => "tcp-mss",
            Condition::IcmpOptions { .. } => "icmp-options",
            Condition::NoMark(mark) => mark.name(),
            Condition::Priority(_) => "priority",
            Condition::IngressPriority(_) => "ingress-priority",
            Condition::IpsecPolicy { .. } => "ipsec-policy",
            Condition::Time { .. } => "time",
            Condition::ConnectionState(_) => "connection-state",
            Condition::ConnectionNatState(_) => "connection-nat-state",
            Condition::ConnectionBytes { .. } => "connection-bytes",
            Condition::ConnectionRate(_) => "connection-rate",
            Condition::ConnectionLimit { .. } => "connection-limit",
            Condition::Content(_) => "content",
            Condition::Psd { .. } => "psd",
            Condition::Layer7(_) => "layer7-protocol",
            Condition::Random(_) => "random",
            Condition::Nth { .. } => "nth",
            Condition::PerConnectionClassifier { .. } => "per-connection-classifier",
            Condition::Limit(_) => "limit",
            Condition::DstLimit { .. } => "dst-limit",
            Condition::ConnectionDoor(_) => "connection-door",
            Condition::Other { name, .. } => name,
        }
    }

    /// Position in the order of evaluation: the index of its name in [`MATCHERS`], or after all of them.
    pub fn rank(&self) -> usize {
        let name = self.name();
        MATCHERS.iter().position(|matcher| *matcher == name).unwrap_or(MATCHERS.len())
    }

    /// The family whose packets the condition applies to, if it is only one.
    pub fn family(&self) -> Option<Family> {
        match self {
            Condition::Ttl(_) | Condition::Ipv4Options(_) => Some(Family::Ipv4),
            Condition::HopLimit(_) | Condition::Headers { .. } => Some(Family::Ipv6),
            _ => None,
        }
    }

    /// Whether the condition reads a header field that can differ between packets of this family with the same side,
    /// addresses, protocol, ports, and ICMP type and code. A fragment is none of these packets.
    pub fn reads_packet_header(&self, family: Family) -> bool {
        let reads = matches!(
            self,
            Condition::SrcMacAddress(_)
                | Condition::Ttl(_)
                | Condition::HopLimit(_)
                | Condition::Dscp(_)
                | Condition::Tos { .. }
                | Condition::PacketSize(_)
                | Condition::Ipv4Options(_)
                | Condition::Headers { .. }
                | Condition::TcpFlags { .. }
                | Condition::TcpMss(_)
                | Condition::Priority(_)
                | Condition::IngressPriority(_)
        );
        reads && self.family().is_none_or(|its| its == family)
    }

    /// Whether the condition is an empty set, which exports may have. Such a matcher is true for every packet, also if
    /// it is negated.
    pub fn asks_nothing(&self) -> bool {
        match self {
            Condition::SrcAddressType(types) | Condition::DstAddressType(types) => types.is_empty(),
            Condition::ConnectionState(states) => states.is_empty(),
            Condition::ConnectionNatState(states) => states.is_empty(),
            _ => false,
        }
    }

    /// Whether the condition applies to this packet. If not, the matcher is false, negated or not: a rule about ports
    /// must not match a packet without ports. The evaluators handle `connection-limit` for untracked packets, because
    /// this check needs the connection.
    pub fn applies(&self, packet: &Packet<'_>) -> bool {
        if self.family().is_some_and(|its| its != packet.family()) {
            return false;
        }
        match self {
            Condition::SrcPort(_) | Condition::DstPort(_) | Condition::AnyPort(_) | Condition::Psd { .. } => {
                packet.ports.is_some()
            }
            Condition::IcmpOptions { .. } => packet.icmp.is_some(),
            Condition::TcpFlags { .. } => packet.tcp_flags().is_some(),
            Condition::TcpMss(_) => packet.tcp_mss().is_some(),
            Condition::TlsHost(_) => packet.protocol == protocol::TCP && packet.ports.is_some(),
            Condition::Ttl(_) | Condition::HopLimit(_) => packet.ttl().is_some(),
            Condition::Dscp(_) | Condition::Tos { .. } => packet.tos().is_some(),
            Condition::Ipv4Options(_) => packet.ipv4_options().is_some(),
            Condition::Headers { .. } => packet.extension_headers().is_some(),
            Condition::Fragment(_) => packet.fragment().is_some(),
            Condition::SrcMacAddress(_) => packet.source_mac().is_some(),
            Condition::Other { .. } => false,
            _ => true,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
