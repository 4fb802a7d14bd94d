//! Actions of rules.

use serde::{Deserialize, Serialize};

use super::list::ListAdd;
use crate::packet::Family;
use crate::word::words;

/// The action of a rule on a packet that it matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Forwards the packet; no further rule is evaluated. This is RouterOS's default. In `raw`: continues with tracking
    /// and the filter.
    #[default]
    Accept,
    /// Drops the packet; no further rule is evaluated.
    Drop,
    /// Drops the packet and answers its sender; no further rule is evaluated.
    Reject(RejectWith),
    /// Drops the packet and keeps the sender's TCP connection open without accepting data; no further rule is
    /// evaluated.
    Tarpit,
    /// Counts the packet and continues.
    Passthrough,
    /// Logs the packet and continues. The prefix is the rule's [`Log`](super::Log).
    Log,
    /// Adds the source to a list, or renews its timeout, and continues.
    AddSrcToAddressList(ListAdd),
    /// Adds the destination to a list, or renews its timeout, and continues.
    AddDstToAddressList(ListAdd),
    /// Evaluates the rules of another chain, then continues.
    Jump(String),
    /// Continues after the jump; in a built-in chain, applies the chain's default.
    Return,
    /// Lets later packets of the connection bypass the rules, and continues.
    FasttrackConnection,
    /// Exempts the packet from tracking, and continues. In `raw` only.
    Notrack,
    /// `knock`: tests the packet against the knock of the door with this name, and continues. Not an action of
    /// RouterOS: only doors generate such rules.
    Knock(String),
    /// `accept` with a `door`: as [`Action::Accept`], and assigns the connection that the packet begins to the door.
    /// Only doors generate such rules.
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
    /// The answer to the sender of a rejected packet. Some answers exist for one family only. Source: RouterOS manual,
    /// Filter, `reject-with`.
    RejectWith {
        /// Network unreachable. IPv4, and its default.
        NetworkUnreachable = "icmp-network-unreachable",
        /// Host unreachable. IPv4.
        HostUnreachable = "icmp-host-unreachable",
        /// Protocol unreachable. IPv4.
        ProtocolUnreachable = "icmp-protocol-unreachable",
        /// Port unreachable. Both families.
        PortUnreachable = "icmp-port-unreachable",
        /// Network prohibited. IPv4.
        NetProhibited = "icmp-net-prohibited",
        /// Host prohibited. IPv4.
        HostProhibited = "icmp-host-prohibited",
        /// Administratively prohibited. Both families.
        AdminProhibited = "icmp-admin-prohibited",
        /// No route. IPv6, and its default.
        NoRoute = "icmp-no-route",
        /// Beyond the scope of the source address. IPv6.
        NotNeighbour = "icmp-not-neighbour",
        /// Address unreachable. IPv6.
        AddressUnreachable = "icmp-address-unreachable",
        /// A TCP reset. Both families, for TCP only.
        TcpReset = "tcp-reset",
    }
}

impl RejectWith {
    /// The default of a rule without `reject-with`.
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

    /// ICMP type and code of the answer; `None` for a TCP reset and for answers that the family does not have. Source:
    /// RFC 792 and RFC 1122, 3.2.2.1, RFC 1812, 5.2.7.1; RFC 4443, 3.1.
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
