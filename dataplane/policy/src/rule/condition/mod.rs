//! What rules ask of packets.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{
    AddressSet, AddressType, Bytes, ClassifierFields, Comparison, ConnectionState, Direction, InterfaceKind,
    Ipv4Option, LimitMode, Mark, NatState, PortSet, Rate, Weekday,
};
use crate::packet::{ExtensionHeader, Family, MacAddress, Packet, TcpFlag, protocol};
use crate::word::{Set, Word};

/// One condition of a rule, perhaps negated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// Written with `!`.
    pub negated: bool,
    /// What is asked.
    pub condition: Condition,
}

/// What a matcher asks of a packet. Source: RouterOS manual, Filter. The order of the variants is the order in which
/// RouterOS evaluates them, see [`MATCHERS`].
///
/// Ranges include both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// `src-mac-address`: of the Ethernet header.
    SrcMacAddress(MacAddress),
    /// `in-interface`, `out-bridge-port-list` and so on. `Interfaces::sides` says which sides of the filter are meant.
    Interface {
        /// Whether it asks where the packet came in or where it goes out.
        direction: Direction,
        /// Whether the name is an interface's or a list's.
        kind: InterfaceKind,
        /// The name, as the router has it.
        name: String,
    },
    /// `src-address`.
    SrcAddress(AddressSet),
    /// `dst-address`.
    DstAddress(AddressSet),
    /// `protocol`.
    Protocol(u8),
    /// `src-address-type`: one of these. Exports may hold none, which asks nothing.
    SrcAddressType(Set<AddressType>),
    /// `dst-address-type`. As above.
    DstAddressType(Set<AddressType>),
    /// `src-address-list`: a list no one ever fills is an empty list.
    SrcAddressList(String),
    /// `dst-address-list`.
    DstAddressList(String),
    /// `ttl`, IPv4.
    Ttl(Comparison),
    /// `hop-limit`, IPv6.
    HopLimit(Comparison),
    /// `dscp`, 0 to 63.
    Dscp(u8),
    /// `tos`: the bits of the mask have this value.
    Tos {
        /// What they must be.
        value: u8,
        /// Which bits are compared; all if none was written.
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
        /// What must be there.
        headers: Set<ExtensionHeader>,
        /// And nothing else.
        exact: bool,
    },
    /// `fragment`: whether it is a fragment behind the first. IPv4.
    Fragment(bool),
    /// `src-port`. False, also when negated, for packets without ports.
    SrcPort(PortSet),
    /// `dst-port`. As above.
    DstPort(PortSet),
    /// `port`: either of the two. As above.
    AnyPort(PortSet),
    /// `tcp-flags`. Exports may hold none, which asks nothing. False, also when negated, for packets without a TCP header.
    TcpFlags {
        /// All of these are set…
        set: Set<TcpFlag>,
        /// …and none of these. `!` stands before each of them.
        clear: Set<TcpFlag>,
    },
    /// `tcp-mss`, in bytes. False, also when negated, for packets that offer none: only SYNs do.
    TcpMss(RangeInclusive<u16>),
    /// `icmp-options`: type and codes. False, also when negated, for packets that are not ICMP.
    IcmpOptions {
        /// ICMP type.
        kind: u8,
        /// ICMP codes.
        codes: RangeInclusive<u8>,
    },
    /// `connection-mark=no-mark` and the like. Nothing here sets marks, so it is true.
    NoMark(Mark),
    /// `priority`, 0 to 63: of the VLAN tag, since nothing here sets another one; 0 without a tag.
    Priority(u8),
    /// `ingress-priority`. As above.
    IngressPriority(u8),
    /// `ipsec-policy`. Nothing here is encrypted, so `none` is true and `ipsec` false.
    IpsecPolicy {
        /// Before or after IPsec.
        direction: Direction,
        /// `ipsec` rather than `none`.
        ipsec: bool,
    },
    /// `time`: when the packet arrives, by the clock of `Settings::time_zone`.
    Time {
        /// Time of day it begins at, since midnight.
        from: Duration,
        /// Time of day it ends at, since midnight, up to 24 h. Before `from`: on the next day.
        to: Duration,
        /// Days it begins on.
        days: Set<Weekday>,
    },
    /// `connection-state`: one of these. Exports may hold none, which asks nothing.
    ConnectionState(Set<ConnectionState>),
    /// `connection-nat-state`: one of these. Nothing here translates addresses, so it is false.
    ConnectionNatState(Set<NatState>),
    /// `connection-bytes`: IP bytes of the connection so far, both ways. Untracked packets have no connection.
    ConnectionBytes {
        /// At least so many.
        from: u64,
        /// At most so many, or without a limit.
        to: Option<u64>,
    },
    /// `connection-rate`, in bits per second, both ways: those of the last whole second.
    ConnectionRate(RangeInclusive<u64>),
    /// `connection-limit`: more than so many connections from the source's prefix, of those that reached this rule.
    /// False, also when negated, for untracked packets.
    ConnectionLimit {
        /// How many are not too many.
        count: u32,
        /// Bits of the source address that are compared: 32 or 128 for each address by itself.
        prefix_length: u8,
    },
    /// `content`: bytes somewhere in the payload, case-sensitive.
    Content(Bytes),
    /// `psd`: port scan detection. A source's ports are weighed; it matches from the threshold on, until the source has
    /// been quiet for the delay. False, also when negated, for packets without ports.
    Psd {
        /// The threshold.
        weight: u32,
        /// How soon one port must come after the other to count together.
        delay: Duration,
        /// Weight of each port below 1024.
        low_weight: u32,
        /// Weight of each other port.
        high_weight: u32,
    },
    /// `layer7-protocol`, by the pattern's name.
    Layer7(String),
    /// `random`: so many packets of a hundred, 1 to 99.
    Random(u8),
    /// `nth`: of every so many packets that reach this rule, one.
    Nth {
        /// How many.
        every: u32,
        /// Which of them, counted from 1.
        packet: u32,
    },
    /// `per-connection-classifier`: whether a keyed hash of the fields leaves this remainder.
    PerConnectionClassifier {
        /// What is hashed.
        fields: ClassifierFields,
        /// What the hash is divided by, more than zero.
        denominator: u32,
        /// Less than the denominator.
        remainder: u32,
    },
    /// `limit`: whether the rule's bucket holds a token, which it then takes.
    Limit(Rate),
    /// `dst-limit`: as `limit`, with a bucket for each address or flow.
    DstLimit {
        /// Of each bucket; in packets.
        rate: Rate,
        /// What has a bucket of its own.
        mode: LimitMode,
        /// How long a bucket is kept after its last packet.
        expire: Duration,
    },
    /// `connection-door`: whether the packet's connection began through the door of this name. No word of RouterOS's, so
    /// not among [`MATCHERS`]: only doors make such rules.
    ConnectionDoor(String),
    /// Anything that is not honoured here, such as `p2p`, `hotspot`, or a mark other than `no-mark`. It is kept so that
    /// the rule can be shown and exported. The rule is invalid and never run; the matcher is false, also when negated.
    Other {
        /// The name in rules.
        name: String,
        /// The value as it was written, without the `!`.
        value: String,
    },
}

/// The names of all of RouterOS's matchers in the order in which they are evaluated. It matters for those with a memory: a token is
/// taken only if everything before it matched.
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

    /// Position in the order of evaluation: the place of its name in [`MATCHERS`], or behind all of them.
    pub fn rank(&self) -> usize {
        let name = self.name();
        MATCHERS.iter().position(|matcher| *matcher == name).unwrap_or(MATCHERS.len())
    }

    /// Whether it is an empty set, which exports may hold. That is no question: every packet will do, also if it is
    /// negated.
    pub fn asks_nothing(&self) -> bool {
        match self {
            Condition::SrcAddressType(types) | Condition::DstAddressType(types) => types.is_empty(),
            Condition::ConnectionState(states) => states.is_empty(),
            Condition::ConnectionNatState(states) => states.is_empty(),
            _ => false,
        }
    }

    /// Whether the question makes sense for this packet. If not, the matcher is false, negated or not: a rule about
    /// ports must not match a packet that has none. (`connection-limit` and untracked packets are not decided here: it
    /// takes the connection to know.)
    pub fn applies(&self, packet: &Packet<'_>) -> bool {
        match self {
            Condition::SrcPort(_) | Condition::DstPort(_) | Condition::AnyPort(_) | Condition::Psd { .. } => {
                packet.ports.is_some()
            }
            Condition::IcmpOptions { .. } => packet.icmp.is_some(),
            Condition::TcpFlags { .. } => packet.tcp_flags().is_some(),
            Condition::TcpMss(_) => packet.tcp_mss().is_some(),
            Condition::TlsHost(_) => packet.protocol == protocol::TCP && packet.ports.is_some(),
            Condition::Ttl(_) => packet.family() == Family::Ipv4 && packet.ttl().is_some(),
            Condition::HopLimit(_) => packet.family() == Family::Ipv6 && packet.ttl().is_some(),
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
