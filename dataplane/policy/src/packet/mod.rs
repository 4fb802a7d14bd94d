//! The packet as rules see it: a small view that borrows the frame.
//!
//! Fields that most rules use are read once and stored in the view. Other fields are read from the frame when a rule
//! needs them, see `bytes`.

mod bytes;
mod checksum;
pub mod link;
pub mod vlan;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub(crate) use self::bytes::options_of;
pub use self::bytes::{ExtensionHeader, FragmentPart, MacAddress, OptionKind, TcpFlag};
pub use self::vlan::Vlan;
use crate::word::Word;

/// One of the two interfaces of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The side of untrusted networks.
    Outside = 0,
    /// The side of protected networks.
    Inside = 1,
}

impl Side {
    /// Both sides, in the order of their indexes.
    pub const ALL: [Side; 2] = [Side::Outside, Side::Inside];

    /// The side on which frames from this side leave.
    pub const fn opposite(self) -> Side {
        match self {
            Side::Outside => Side::Inside,
            Side::Inside => Side::Outside,
        }
    }

    /// 0 for outside, 1 for inside.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in configuration, metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Side::Outside => "outside",
            Side::Inside => "inside",
        }
    }
}

impl Word for Side {
    const ALL: &'static [Side] = &Side::ALL;

    fn name(self) -> &'static str {
        self.name()
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// IPv4 or IPv6. Rules under `/ip firewall` apply only to IPv4, rules under `/ipv6 firewall` only to IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, PartialOrd, Ord)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4, `/ip firewall`.
    Ipv4,
    /// IPv6, `/ipv6 firewall`.
    Ipv6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }
}

/// IP protocol numbers that rules and headers treat by name. Source: IANA, Assigned Internet Protocol Numbers.
pub mod protocol {
    /// ICMP for IPv4 (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
}

/// An IPv4 or IPv6 packet as rules see it. The fields were checked against the frame's length. The methods check each
/// access to the frame, so any bytes and offsets are safe; a field outside the frame is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The side on which it arrived.
    pub side: Side,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The protocol after the IP header and, for IPv6, its extension headers.
    pub protocol: u8,
    /// Source and destination port of TCP and UDP; `None` for other protocols and for later fragments.
    pub ports: Option<(u16, u16)>,
    /// Type and code of ICMP and ICMPv6; `None` for other protocols and for later fragments.
    pub icmp: Option<(u8, u8)>,
    /// Length of the IP packet in bytes: IPv4 total length, IPv6 payload length plus 40. RouterOS counts the same.
    pub ip_length: u32,
    /// The bytes after the TCP, UDP or ICMP header (8 bytes for ICMP), or after the IP header for other protocols.
    /// Empty for later fragments.
    pub payload: &'a [u8],
    /// The whole frame, from the Ethernet destination on. It may end with Ethernet padding.
    pub frame: &'a [u8],
    /// Offset of the IP header in the frame.
    pub network: u16,
    /// Offset in the frame of the bytes after the IP header and, for IPv6, its extension headers.
    pub transport: u16,
}

impl Packet<'_> {
    /// A packet without frame, payload, ports and ICMP header: fields that need the bytes of a frame are not known.
    /// Tests and queries fill in other fields with `..Packet::bare(…)`.
    pub const fn bare(side: Side, source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        Packet {
            side,
            source,
            destination,
            protocol,
            ports: None,
            icmp: None,
            ip_length: if source.is_ipv4() { 20 } else { 40 },
            payload: &[],
            frame: &[],
            network: 0,
            transport: 0,
        }
    }

    /// The family of the packet's source.
    pub const fn family(&self) -> Family {
        Family::of(self.source)
    }
}
