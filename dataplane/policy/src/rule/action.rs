//! What rules do.

use serde::{Deserialize, Serialize};

use super::list::ListAdd;
use crate::packet::Family;
use crate::word::words;

/// What a rule does with a packet that it matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Forward the packet; no further rule is tried. RouterOS's default. In `raw`: go on with tracking and the filter.
    #[default]
    Accept,
    /// Drop the packet; no further rule is tried.
    Drop,
    /// Drop it and tell the sender; no further rule is tried.
    Reject(RejectWith),
    /// Drop it and keep the sender's TCP connection open without ever taking data; no further rule is tried.
    Tarpit,
    /// Count it and go on.
    Passthrough,
    /// Log it and go on. The prefix is the rule's [`Log`](super::Log).
    Log,
    /// Put the source in a list, or set its timeout anew, and go on.
    AddSrcToAddressList(ListAdd),
    /// Put the destination in a list, or set its timeout anew, and go on.
    AddDstToAddressList(ListAdd),
    /// Try the rules of another chain, then go on.
    Jump(String),
    /// Go back behind the jump; in a built-in chain, to the chain's default.
    Return,
    /// Take the connection's next packets past the rules, and go on.
    FasttrackConnection,
    /// Do not track the packet, and go on. In `raw` only.
    Notrack,
    /// `knock`: hold the packet against the knock of the door of this name, and go on. No word of RouterOS's: only doors
    /// make such rules.
    Knock(String),
    /// `accept` with a `door`: as [`Action::Accept`], and the connection that the packet begins is known as the door's. As
    /// above.
    AcceptDoor(String),
}

impl Action {
    /// The name in rules and tables.
    pub const fn name(&self) -> &'static str {
        match self {
            Action::Accept | Action::AcceptDoor(_) => "accept",
            Action::Drop => "drop",
            Action::Reject(_) => "reject",
            Action::Tarpit => "tarpit",
            Action::Passthrough => "passthrough",
            Action::Log => "log",
            Action::AddSrcToAddressList(_) => "add-src-to-address-list",
            Action::AddDstToAddressList(_) => "add-dst-to-address-list",
            Action::Jump(_) => "jump",
            Action::Return => "return",
            Action::FasttrackConnection => "fasttrack-connection",
            Action::Notrack => "notrack",
            Action::Knock(_) => "knock",
        }
    }
}

words! {
    /// What a rejected packet's sender is told. Some answers exist for one family only. Source: RouterOS manual, Filter,
    /// `reject-with`.
    RejectWith {
        /// The network cannot be reached. IPv4, and its default.
        NetworkUnreachable = "icmp-network-unreachable",
        /// The host cannot be reached. IPv4.
        HostUnreachable = "icmp-host-unreachable",
        /// The host does not have this protocol. IPv4.
        ProtocolUnreachable = "icmp-protocol-unreachable",
        /// Nobody listens on the port. Both families.
        PortUnreachable = "icmp-port-unreachable",
        /// The network may not be reached. IPv4.
        NetProhibited = "icmp-net-prohibited",
        /// The host may not be reached. IPv4.
        HostProhibited = "icmp-host-prohibited",
        /// An administrator forbids it. Both families.
        AdminProhibited = "icmp-admin-prohibited",
        /// There is no route. IPv6, and its default.
        NoRoute = "icmp-no-route",
        /// Beyond the scope of the source address. IPv6.
        NotNeighbour = "icmp-not-neighbour",
        /// The address cannot be reached. IPv6.
        AddressUnreachable = "icmp-address-unreachable",
        /// A TCP reset. Both families, for TCP only.
        TcpReset = "tcp-reset",
    }
}

impl RejectWith {
    /// What a rule without `reject-with` says.
    pub const fn default_of(family: Family) -> RejectWith {
        match family {
            Family::Ipv4 => RejectWith::NetworkUnreachable,
            Family::Ipv6 => RejectWith::NoRoute,
        }
    }

    /// Whether the family has this answer.
    pub const fn exists_for(self, family: Family) -> bool {
        matches!(self, RejectWith::TcpReset) || self.icmp(family).is_some()
    }

    /// ICMP type and code of the answer; none for a TCP reset and for answers the family does not have.
    /// Source: RFC 792 and RFC 1122, 3.2.2.1, RFC 1812, 5.2.7.1; RFC 4443, 3.1.
    pub const fn icmp(self, family: Family) -> Option<(u8, u8)> {
        Some(match (family, self) {
            (Family::Ipv4, RejectWith::NetworkUnreachable) => (3, 0),
            (Family::Ipv4, RejectWith::HostUnreachable) => (3, 1),
            (Family::Ipv4, RejectWith::ProtocolUnreachable) => (3, 2),
            (Family::Ipv4, RejectWith::PortUnreachable) => (3, 3),
            (Family::Ipv4, RejectWith::NetProhibited) => (3, 9),
            (Family::Ipv4, RejectWith::HostProhibited) => (3, 10),
            (Family::Ipv4, RejectWith::AdminProhibited) => (3, 13),
            (Family::Ipv6, RejectWith::NoRoute) => (1, 0),
            (Family::Ipv6, RejectWith::AdminProhibited) => (1, 1),
            (Family::Ipv6, RejectWith::NotNeighbour) => (1, 2),
            (Family::Ipv6, RejectWith::AddressUnreachable) => (1, 3),
            (Family::Ipv6, RejectWith::PortUnreachable) => (1, 4),
            _ => return None,
        })
    }
}
