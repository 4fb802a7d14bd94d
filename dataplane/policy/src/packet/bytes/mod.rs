//! The fields that a rule reads from a packet's bytes when it needs them.
//!
//! ```text
//! frame                       network           transport          network + ip_length
//! |                           |                 |                  |
//! v                           v                 v                  v
//! +----------+--------+-------+-----------------+------------------+---------
//! | Ethernet | source | tags… | IP, its options | TCP, UDP, ICMP,… | padding
//! |          | MAC    |       | or extensions   | then the payload |
//! +----------+--------+-------+-----------------+------------------+---------
//! ```
//!
//! Every access is checked; a missing field is `None`.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Family, Packet, protocol};
use crate::word::{Set, words};

/// An Ethernet address. Written `00:11:22:AA:BB:CC`, as RouterOS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

words! {
    /// A flag of the TCP header; its place is its bit in byte 13. Source: RFC 9293, 3.1; RouterOS manual, Filter,
    /// `tcp-flags`.
    TcpFlag {
        /// No more data from the sender.
        Fin = "fin",
        /// A new connection.
        Syn = "syn",
        /// The connection is refused or aborted.
        Rst = "rst",
        /// The receiver passes the data on at once.
        Psh = "psh",
        /// The acknowledgement number counts.
        Ack = "ack",
        /// The urgent pointer counts.
        Urg = "urg",
        /// ECN echo (RFC 3168).
        Ece = "ece",
        /// Congestion window reduced (RFC 3168).
        Cwr = "cwr",
    }
}

words! {
    /// A header of an IPv6 packet after its fixed header. Source: RouterOS manual, IPv6 filter, `headers`; RFC 8200.
    ExtensionHeader {
        /// Hop-by-hop options (0).
        Hop = "hop",
        /// Destination options (60).
        Dst = "dst",
        /// Routing (43).
        Route = "route",
        /// Fragment (44).
        Frag = "frag",
        /// Authentication header (51, RFC 4302).
        Ah = "ah",
        /// Encapsulated security payload (50, RFC 4303).
        Esp = "esp",
        /// Nothing follows (59).
        None = "none",
        /// A protocol that is not an extension header.
        Proto = "proto",
    }
}

words! {
    /// An option of the IPv4 header that rules can match (RFC 791, 3.1). Padding is not one.
    OptionKind {
        /// Strict source and record route (137).
        StrictSourceRouting = "strict-source-routing",
        /// Loose source and record route (131).
        LooseSourceRouting = "loose-source-routing",
        /// Record route (7).
        RecordRoute = "record-route",
        /// Internet timestamp (68).
        Timestamp = "timestamp",
        /// Router alert (148, RFC 2113).
        RouterAlert = "router-alert",
        /// Any other option, or an option with an impossible length.
        Other = "other",
    }
}

/// The part of a datagram that a packet contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentPart {
    /// The whole datagram.
    Whole,
    /// The beginning of the datagram, with the transport header.
    First,
    /// A later part, without the transport header.
    Later,
}

/// Types of VLAN tags. Source: IEEE 802.1Q, 802.1ad, and the earlier type of QinQ.
const VLAN_TYPES: [[u8; 2]; 3] = [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]];

impl<'a> Packet<'a> {
    /// The source address of the Ethernet header.
    pub fn source_mac(&self) -> Option<MacAddress> {
        Some(MacAddress(array(self.frame, 6)?))
    }

    /// The priority (PCP, 0 to 7) of the outer VLAN tag; `None` without a tag. Source: IEEE 802.1Q, 9.6.
    pub fn vlan_priority(&self) -> Option<u8> {
        let [t0, t1, priority] = array(self.frame, 12)?;
        VLAN_TYPES.contains(&[t0, t1]).then_some(priority >> 5)
    }

    /// The IP packet, without Ethernet padding.
    pub fn network(&self) -> Option<&'a [u8]> {
        let start = usize::from(self.network);
        self.frame.get(start..start.checked_add(self.ip_length as usize)?)
    }

    /// The transport header and the bytes after it; for later fragments, their data.
    pub fn transport(&self) -> Option<&'a [u8]> {
        self.network()?.get(self.header_length()?..)
    }

    /// Time to live (IPv4) or hop limit (IPv6).
    pub fn ttl(&self) -> Option<u8> {
        let at = match self.family() {
            Family::Ipv4 => 8,
            Family::Ipv6 => 7,
        };
        self.network()?.get(at).copied()
    }

    /// Type of service (IPv4, RFC 791) or traffic class (IPv6).
    pub fn tos(&self) -> Option<u8> {
        let [b0, b1] = array(self.network()?, 0)?;
        Some(match self.family() {
            Family::Ipv4 => b1,
            Family::Ipv6 => b0 << 4 | b1 >> 4,
        })
    }

    /// Differentiated services code point, 0 to 63 (RFC 2474).
    pub fn dscp(&self) -> Option<u8> {
        Some(self.tos()? >> 2)
    }

    /// The part of a datagram that the packet contains.
    pub fn fragment(&self) -> Option<FragmentPart> {
        let (offset, more) = match self.family() {
            Family::Ipv4 => {
                let field = u16::from_be_bytes(array(self.network()?, 6)?);
                (field & 0x1fff, field & 0x2000 != 0)
            }
            Family::Ipv6 => match self.extensions()?.find(|(header, _)| *header == FRAGMENT) {
                None => (0, false),
                Some((_, header)) => {
                    let field = u16::from_be_bytes(array(header, 2)?);
                    (field >> 3, field & 1 != 0)
                }
            },
        };
        Some(match (offset, more) {
            (0, false) => FragmentPart::Whole,
            (0, true) => FragmentPart::First,
            _ => FragmentPart::Later,
        })
    }

    /// The options of the IPv4 header; `None` for IPv6.
    pub fn ipv4_options(&self) -> Option<Set<OptionKind>> {
        if self.family() != Family::Ipv4 {
            return None;
        }
        let options = self.network()?.get(20..self.header_length()?)?;
        Some(
            options_of(options).map(|option| option.map_or(OptionKind::Other, |(kind, _)| option_kind(kind))).collect(),
        )
    }

    /// The extension headers of an IPv6 packet, and the protocol after them; `None` for IPv4.
    pub fn extension_headers(&self) -> Option<Set<ExtensionHeader>> {
        let last = match self.protocol {
            50 => ExtensionHeader::Esp,
            59 => ExtensionHeader::None,
            _ => ExtensionHeader::Proto,
        };
        let kind = |(number, _)| match number {
            0 => ExtensionHeader::Hop,
            43 => ExtensionHeader::Route,
            FRAGMENT => ExtensionHeader::Frag,
            AUTHENTICATION => ExtensionHeader::Ah,
            _ => ExtensionHeader::Dst,
        };
        Some(self.extensions()?.map(kind).chain([last]).collect())
    }

    /// The flags of the TCP header; `None` without one.
    pub fn tcp_flags(&self) -> Option<Set<TcpFlag>> {
        let [flags] = array(self.tcp()?, 13)?;
        Some(Set::from_bits(flags.into()))
    }

    /// Sequence number of the TCP header.
    pub fn tcp_sequence(&self) -> Option<u32> {
        Some(u32::from_be_bytes(array(self.tcp()?, 4)?))
    }

    /// Acknowledgement number of the TCP header, whether the ACK flag is set or not.
    pub fn tcp_acknowledgement(&self) -> Option<u32> {
        Some(u32::from_be_bytes(array(self.tcp()?, 8)?))
    }

    /// Window of the TCP header, not scaled.
    pub fn tcp_window(&self) -> Option<u16> {
        Some(u16::from_be_bytes(array(self.tcp()?, 14)?))
    }

    /// Maximum segment size that a TCP SYN offers (RFC 9293, 3.2); `None` for other packets.
    pub fn tcp_mss(&self) -> Option<u16> {
        if !self.tcp_flags()?.contains(TcpFlag::Syn) {
            return None;
        }
        let tcp = self.tcp()?;
        let length = usize::from(*tcp.get(12)? >> 4) * 4;
        let mut options = options_of(tcp.get(20..length)?);
        let (_, value) = options.find_map(|option| option.filter(|(kind, _)| *kind == 2))?;
        Some(u16::from_be_bytes(value.try_into().ok()?))
    }

    /// The fixed part of the TCP header (RFC 9293, 3.1).
    pub fn tcp_header(&self) -> Option<&'a [u8; 20]> {
        self.tcp()?.first_chunk()
    }

    /// The options of the TCP header, padding included.
    pub fn tcp_options(&self) -> Option<&'a [u8]> {
        let tcp = self.tcp()?;
        tcp.get(20..usize::from(*tcp.get(12)? >> 4) * 4)
    }

    /// The end of a fragment's data in its datagram: offset and length, in bytes.
    pub fn fragment_end(&self) -> Option<u32> {
        let units = match self.family() {
            Family::Ipv4 => u16::from_be_bytes(array(self.network()?, 6)?) & 0x1fff,
            Family::Ipv6 => {
                let (_, header) = self.extensions()?.find(|(header, _)| *header == FRAGMENT)?;
                u16::from_be_bytes(array(header, 2)?) >> 3
            }
        };
        Some(u32::from(units) * 8 + self.transport()?.len() as u32)
    }

    /// The bytes from the TCP header on. Later fragments have none.
    pub(super) fn tcp(&self) -> Option<&'a [u8]> {
        self.ports?;
        if self.protocol == protocol::TCP { self.transport() } else { None }
    }

    /// The length from the IP header to the transport header, in bytes.
    fn header_length(&self) -> Option<usize> {
        self.transport.checked_sub(self.network).map(usize::from)
    }

    /// The extension headers of an IPv6 packet: the number and the bytes of each.
    pub(super) fn extensions(&self) -> Option<impl Iterator<Item = (u8, &'a [u8])>> {
        if self.family() != Family::Ipv6 {
            return None;
        }
        let packet = self.network()?;
        let mut number = *packet.get(6)?;
        let mut rest = packet.get(40..self.header_length()?)?;
        Some(std::iter::from_fn(move || {
            let (next, units) = (*rest.first()?, usize::from(*rest.get(1)?));
            let length = match number {
                FRAGMENT => 8,
                AUTHENTICATION => (units + 2) * 4,
                _ => (units + 1) * 8,
            };
            let (header, behind) = rest.split_at_checked(length)?;
            rest = behind;
            Some((std::mem::replace(&mut number, next), header))
        }))
    }
}

/// IPv6's fragment header.
const FRAGMENT: u8 = 44;
/// The authentication header.
const AUTHENTICATION: u8 = 51;

/// `N` bytes from offset `at` on; `None` if there are fewer.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The options of an IPv4 or TCP header: kind and value of each, without padding. An option with an impossible length
/// has no value, and is the last.
pub(crate) fn options_of(mut rest: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    std::iter::from_fn(move || {
        while let [1, behind @ ..] = rest {
            rest = behind;
        }
        let (kind, option) = match rest {
            [] | [0, ..] => return None,
            [kind, length, ..] => (*kind, rest.split_at_checked(usize::from(*length))),
            [kind] => (*kind, None),
        };
        let value = option.and_then(|(option, behind)| {
            rest = behind;
            option.get(2..)
        });
        if value.is_none() {
            rest = &[];
        }
        Some(value.map(|value| (kind, value)))
    })
}

fn option_kind(number: u8) -> OptionKind {
    match number {
        7 => OptionKind::RecordRoute,
        68 => OptionKind::Timestamp,
        131 => OptionKind::LooseSourceRouting,
        137 => OptionKind::StrictSourceRouting,
        148 => OptionKind::RouterAlert,
        _ => OptionKind::Other,
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

impl FromStr for MacAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "expected six pairs of hexadecimal digits, such as `00:11:22:AA:BB:CC`";
        let mut parts = text.split(':');
        let mut octets = [0; 6];
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
            *octet = u8::from_str_radix(part.ok_or(WRONG)?, 16).map_err(|_| WRONG)?;
        }
        if parts.next().is_some() { Err(WRONG) } else { Ok(MacAddress(octets)) }
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(Error::custom)
    }
}

#[cfg(test)]
mod tests;
