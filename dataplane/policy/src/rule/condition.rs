//! What rules ask of packets.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::value::{AddressSet, PortSet};
use crate::packet::Packet;

/// One condition of a rule, perhaps negated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// Written with `!`.
    pub negated: bool,
    /// What is asked.
    pub condition: Condition,
}

/// What a matcher asks of a packet. The order of the variants is the order in which RouterOS evaluates them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// `src-address`.
    SrcAddress(AddressSet),
    /// `dst-address`.
    DstAddress(AddressSet),
    /// `protocol`.
    Protocol(u8),
    /// `src-address-list`: a list no one ever fills is an empty list.
    SrcAddressList(String),
    /// `dst-address-list`.
    DstAddressList(String),
    /// `packet-size`, in bytes of the IP packet.
    PacketSize(RangeInclusive<u16>),
    /// `src-port`. False, also when negated, for packets without ports.
    SrcPort(PortSet),
    /// `dst-port`. As above.
    DstPort(PortSet),
    /// `port`: either of the two. As above.
    AnyPort(PortSet),
    /// `icmp-options`: type and codes. False, also when negated, for packets that are not ICMP.
    IcmpOptions {
        /// ICMP type.
        kind: u8,
        /// ICMP codes.
        codes: RangeInclusive<u8>,
    },
    /// `layer7-protocol`, by the pattern's name.
    Layer7(String),
}

impl Condition {
    /// The name in rules.
    pub const fn name(&self) -> &'static str {
        match self {
            Condition::SrcAddress(_) => "src-address",
            Condition::DstAddress(_) => "dst-address",
            Condition::Protocol(_) => "protocol",
            Condition::SrcAddressList(_) => "src-address-list",
            Condition::DstAddressList(_) => "dst-address-list",
            Condition::PacketSize(_) => "packet-size",
            Condition::SrcPort(_) => "src-port",
            Condition::DstPort(_) => "dst-port",
            Condition::AnyPort(_) => "port",
            Condition::IcmpOptions { .. } => "icmp-options",
            Condition::Layer7(_) => "layer7-protocol",
        }
    }

    /// Position in the order of evaluation.
    pub const fn rank(&self) -> u8 {
        match self {
            Condition::SrcAddress(_) => 0,
            Condition::DstAddress(_) => 1,
            Condition::Protocol(_) => 2,
            Condition::SrcAddressList(_) => 3,
            Condition::DstAddressList(_) => 4,
            Condition::PacketSize(_) => 5,
            Condition::SrcPort(_) => 6,
            Condition::DstPort(_) => 7,
            Condition::AnyPort(_) => 8,
            Condition::IcmpOptions { .. } => 9,
            Condition::Layer7(_) => 10,
        }
    }

    /// Whether the question makes sense for this packet. If not, the matcher is false, negated or not: a rule about
    /// ports must not match a packet that has none.
    pub fn applies(&self, packet: &Packet<'_>) -> bool {
        match self {
            Condition::SrcPort(_) | Condition::DstPort(_) | Condition::AnyPort(_) => packet.ports.is_some(),
            Condition::IcmpOptions { .. } => packet.icmp.is_some(),
            _ => true,
        }
    }
}
