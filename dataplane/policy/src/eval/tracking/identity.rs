//! Finds the connection that a packet's headers identify, and the connection that an ICMP error reports about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{Family, Packet, Vlan, protocol};

/// An end of a connection: its address, and its port, its ICMP identifier, or 0.
pub type End = (IpAddr, u16);

/// The key of a connection, the same for both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The network of the connection.
    pub vlan: Vlan,
    /// The IP protocol.
    pub protocol: u8,
    /// Type and code of an ICMP query.
    pub query: (u8, u8),
    /// Both ends, in order; for ICMP, the end that sends the query is first.
    pub ends: [End; 2],
}

/// The relation of a packet to a connection, by its headers.
pub enum Identity {
    /// The packet belongs to this connection and came from this end.
    Connection {
        /// The connection's key.
        key: FlowKey,
        /// The end that sent the packet.
        source: End,
        /// Whether the packet may begin the connection.
        opens: bool,
    },
    /// An ICMP error, with the quoted packet if that can be parsed.
    Error {
        /// The quoted packet.
        about: Option<Quoted>,
    },
    /// The packet has no connection and needs none.
    Untracked,
    /// The packet does not contain the fields that identify its connection.
    Unknown,
}

/// The packet in an ICMP error.
#[derive(Clone, Copy, Debug)]
pub struct Quoted {
    /// The key of its connection.
    pub key: FlowKey,
    /// The end that sent the packet.
    pub source: End,
    /// The sequence number, for TCP only.
    pub sequence: Option<u32>,
}

/// The headers of a packet, or of a packet that an error quotes.
struct Headers {
    vlan: Vlan,
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    ports: Option<(u16, u16)>,
    /// ICMP type, code and identifier.
    icmp: Option<(u8, u8, u16)>,
    /// For a quoted TCP segment.
    sequence: Option<u32>,
}

impl Identity {
    /// The identity of a packet that is not a later fragment, in the network that connections use.
    #[inline]
    pub fn of(packet: &Packet<'_>, vlan: Vlan) -> Identity {
        let identifier = || packet.transport().map_or(0, |bytes| two(bytes, 4).unwrap_or_default());
        let headers = Headers {
            vlan,
            protocol: packet.protocol,
            source: packet.source,
            destination: packet.destination,
            ports: packet.ports,
            icmp: packet.icmp.map(|(kind, code)| (kind, code, identifier())),
            sequence: None,
        };
        if headers.is_error() {
            // An error is sent to the source of the packet that it is about. Source: RFC 1122, 3.2.2.
            let quoted = Headers::quoted(packet.payload, vlan).filter(|quoted| quoted.source == packet.destination);
            let about = quoted.and_then(|quoted| {
                let (key, source, _) = quoted.connection()?;
                Some(Quoted { key, source, sequence: quoted.sequence })
            });
            return Identity::Error { about };
        }
        match headers.connection() {
            Some((key, source, opens)) => Identity::Connection { key, source, opens },
            None if headers.has_no_connection() => Identity::Untracked,
            None => Identity::Unknown,
        }
    }
}

impl Headers {
    /// ICMP's type, code and identifier, if this is the ICMP of the addresses' family.
    #[inline]
    fn icmp(&self) -> Option<(Family, u8, u8, u16)> {
        let (kind, code, identifier) = self.icmp?;
        let family = Family::of(self.source);
        let own = match family {
            Family::Ipv4 => protocol::ICMP,
            Family::Ipv6 => protocol::ICMPV6,
        };
        (self.protocol == own).then_some((family, kind, code, identifier))
    }

    /// Source: RFC 1122, 3.2.2; RFC 4443, 2.1.
    fn is_error(&self) -> bool {
        match self.icmp() {
            Some((Family::Ipv4, kind, ..)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            Some((Family::Ipv6, kind, ..)) => kind < 128,
            None => false,
        }
    }

    /// Neighbour discovery (RFC 4861) and multicast listener discovery (RFC 2710, RFC 3810) send to groups, and any
    /// host may answer.
    fn has_no_connection(&self) -> bool {
        matches!(self.icmp(), Some((Family::Ipv6, 130..=136 | 143, ..)))
    }

    /// The connection, the end that sent the packet, and whether the packet may begin the connection.
    #[inline]
    fn connection(&self) -> Option<(FlowKey, End, bool)> {
        let sorted = |source: End, destination: End| {
            let ends = if is_sorted(&source, &destination) { [source, destination] } else { [destination, source] };
            (FlowKey { vlan: self.vlan, protocol: self.protocol, query: (0, 0), ends }, source, true)
        };
        if let Some((family, kind, code, identifier)) = self.icmp() {
            let (query, answers) = query(family, kind)?;
            let (source, destination) = ((self.source, identifier), (self.destination, identifier));
            let ends = if answers { [destination, source] } else { [source, destination] };
            let key = FlowKey { vlan: self.vlan, protocol: self.protocol, query: (query, code), ends };
            return Some((key, source, !answers));
        }
        match (self.protocol, self.ports) {
            (protocol::TCP | protocol::UDP, None) => None,
            (_, ports) => {
                let (source, destination) = ports.unwrap_or_default();
                Some(sorted((self.source, source), (self.destination, destination)))
            }
        }
    }

    /// The headers that an ICMP error quotes: the IP header of the packet, and at least the 8 bytes after it, which for
    /// TCP contain ports and sequence number. `None` for a later fragment. The quoted packet is in the error's own
    /// network.
    fn quoted(bytes: &[u8], vlan: Vlan) -> Option<Headers> {
        let (number, source, destination, transport): (u8, IpAddr, IpAddr, &[u8]) = match bytes.first()? >> 4 {
            4 => {
                if two(bytes, 6)? & 0x1fff != 0 {
                    return None;
                }
                let address = |at| Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?).into());
                let length = usize::from(bytes[0] & 0xf) * 4;
                (*bytes.get(9)?, address(12)?, address(16)?, bytes.get(length..)?)
            }
            6 => {
                let address = |at| Some(Ipv6Addr::from(*bytes.get(at..)?.first_chunk::<16>()?).into());
                let (number, transport) = behind_extensions(*bytes.get(6)?, bytes.get(40..)?)?;
                (number, address(8)?, address(24)?, transport)
            }
            _ => return None,
        };
        let ports =
            matches!(number, protocol::TCP | protocol::UDP).then(|| Some((two(transport, 0)?, two(transport, 2)?)));
        let icmp = matches!(number, protocol::ICMP | protocol::ICMPV6);
        let icmp = icmp.then(|| Some((*transport.first()?, *transport.get(1)?, two(transport, 4)?)));
        let sequence = transport.get(4..).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_be_bytes(*bytes));
        let sequence = sequence.filter(|_| number == protocol::TCP);
        let (ports, icmp) = (ports.flatten(), icmp.flatten());
        Some(Headers { vlan, protocol: number, source, destination, ports, icmp, sequence })
    }
}

/// Whether two ends are in order: `one <= other`, in fewer instructions.
#[inline]
fn is_sorted(one: &End, other: &End) -> bool {
    match (one.0, other.0) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits(), one.1) <= (b.to_bits(), other.1),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), one.1) <= (b.to_bits(), other.1),
        _ => one <= other,
    }
}

/// The type of the query that an ICMP message sends or answers, and whether the message is an answer. Source: RFC 792,
/// RFC 950, RFC 4443.
const fn query(family: Family, kind: u8) -> Option<(u8, bool)> {
    Some(match (family, kind) {
        (Family::Ipv4, 8) => (8, false),
        (Family::Ipv4, 0) => (8, true),
        (Family::Ipv4, 13 | 15 | 17) | (Family::Ipv6, 128) => (kind, false),
        (Family::Ipv4, 14 | 16 | 18) | (Family::Ipv6, 129) => (kind - 1, true),
        _ => return None,
    })
}

/// The protocol after IPv6's extension headers. `None` after the fragment header of a later fragment.
fn behind_extensions(mut number: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    while let 0 | 43 | 44 | 51 | 60 = number {
        if number == 44 && two(rest, 2)? & !7 != 0 {
            return None;
        }
        let (next, length) = (*rest.first()?, extension_length(number, *rest.get(1)?));
        (number, rest) = (next, rest.get(length..)?);
    }
    Some((number, rest))
}

/// Source: RFC 8200, 4; RFC 4302, 2.2 for the authentication header.
fn extension_length(number: u8, units: u8) -> usize {
    match number {
        44 => 8,
        51 => (usize::from(units) + 2) * 4,
        _ => (usize::from(units) + 1) * 8,
    }
}

/// The identification of a fragment's datagram (RFC 791; RFC 8200, 4.5). `None` for IPv6 without a fragment header.
pub fn identification(packet: &Packet<'_>) -> Option<u32> {
    let bytes = packet.network()?;
    if packet.family() == Family::Ipv4 {
        return two(bytes, 4).map(u32::from);
    }
    let (mut number, mut rest) = (*bytes.get(6)?, bytes.get(40..)?);
    while let 0 | 43 | 51 | 60 = number {
        let (next, length) = (*rest.first()?, extension_length(number, *rest.get(1)?));
        (number, rest) = (next, rest.get(length..)?);
    }
    if number == 44 { Some(u32::from_be_bytes(*rest.get(4..)?.first_chunk()?)) } else { None }
}

fn two(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
