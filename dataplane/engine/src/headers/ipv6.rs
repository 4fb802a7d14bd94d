//! IPv6 (RFC 8200) and its extension headers.
//!
//! ```text
//! 0                 4                 6          7          8            24            40
//! +-----------------+-----------------+----------+----------+------------+-------------+----
//! | 6, class, label | payload length  | next     | hop      | source     | destination | …
//! +-----------------+-----------------+----------+----------+------------+-------------+----
//! ```
//! A chain of extension headers follows. Each names the next header. The first header that is not an extension header
//! is the packet's protocol. Jumbograms (payload length 0 behind a hop-by-hop header) are refused, because they do not
//! fit Ethernet.

use std::net::Ipv6Addr;

use etherparse::IpNumber;
use knockplane_policy::frames::FrameClass;
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::reason::Reason;

use super::discovery::{self, Message};
use super::transport::{self, Fragment, Part};

const LENGTH: usize = 40;

/// Maximum number of extension headers that the reader follows. RFC 8504 lets hosts stop at 8. Packets with more than 3
/// do not occur in practice. Each header is additional work that a sender can cause.
const MAX_EXTENSIONS: usize = 8;

/// Reads the packet in an Ethernet frame. `bytes` are the last bytes of the frame.
pub(super) fn read<'f>(side: Side, frame: &'f [u8], bytes: &'f [u8]) -> Result<Packet<'f>, Reason> {
    let header = Header(bytes.first_chunk().ok_or(Reason::Ipv6Malformed)?);
    if header.version() != 6 {
        return Err(Reason::Ipv6Malformed);
    }
    let data = bytes.get(LENGTH..LENGTH + header.payload_length()).ok_or(Reason::Ipv6Malformed)?;
    let upper = walk(header.next(), data)?;
    let network = frame.len() - bytes.len();
    let transport = transport::read(upper.protocol, upper.data, upper.part)?;
    if upper.protocol == IpNumber::IPV6_ICMP && transport.icmp.is_some_and(is_neighbour_discovery) {
        return Err(neighbour_discovery(frame, bytes, data));
    }
    Ok(Packet {
        side,
        source: header.source().into(),
        destination: header.destination().into(),
        protocol: upper.protocol.0,
        ports: transport.ports,
        icmp: transport.icmp,
        ip_length: (LENGTH + data.len()) as u32,
        payload: transport.payload,
        frame,
        network: network as u16,
        transport: (network + LENGTH + data.len() - upper.data.len()) as u16,
    })
}

/// Whether hosts process messages of this type as neighbour discovery. They do not check the code.
fn is_neighbour_discovery((kind, _): (u8, u8)) -> bool {
    discovery::Kind::of(kind).is_some()
}

/// The reason of the message's class. The reader refuses a message that is not well-formed, or that has extension
/// headers before it or bytes after it. Rules do not decide such a message, because no sender has a good reason
/// to send it.
#[cold]
#[inline(never)]
fn neighbour_discovery(frame: &[u8], bytes: &[u8], message: &[u8]) -> Reason {
    let class = || {
        let header = Header(bytes.first_chunk()?);
        let is_alone = header.next() == IpNumber::IPV6_ICMP && bytes.len() == LENGTH + message.len();
        let message = Message {
            ethernet: frame.first_chunk()?,
            hop_limit: header.hop_limit(),
            source: header.source(),
            destination: header.destination(),
            bytes: message,
        };
        message.class().filter(|_| is_alone)
    };
    class().map_or(Reason::NeighbourDiscoveryMalformed, FrameClass::reason)
}

/// The header behind the extension headers.
struct Upper<'f> {
    protocol: IpNumber,
    data: &'f [u8],
    part: Part,
}

/// Follows the chain of extension headers from `protocol`, the first. The chain ends at a number that is not one of the
/// extension headers that hosts follow. The chain also ends at ESP, because the bytes behind ESP cannot be read.
fn walk(mut protocol: IpNumber, payload: &[u8]) -> Result<Upper<'_>, Reason> {
    let (mut data, mut part) = (payload, Part::Whole);
    let mut fragmented = false;
    for position in 0..=MAX_EXTENSIONS {
        let unit = match protocol {
            IpNumber::IPV6_HEADER_HOP_BY_HOP if position > 0 => return Err(Reason::Ipv6Extensions),
            IpNumber::IPV6_FRAGMENTATION_HEADER if fragmented => return Err(Reason::Ipv6Extensions),
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS
            | IpNumber::IPV6_FRAGMENTATION_HEADER
            | IpNumber::AUTHENTICATION_HEADER => data.first_chunk::<8>().ok_or(Reason::Ipv6Extensions)?,
            _ => return Ok(Upper { protocol, data, part }),
        };
        let (this, next) = (protocol, IpNumber(unit[0]));
        let behind = data.get(extension_length(this, unit)..).ok_or(Reason::Ipv6Extensions)?;
        if this == IpNumber::IPV6_FRAGMENTATION_HEADER {
            let field = u16::from_be_bytes([unit[2], unit[3]]);
            let before = payload.len() - data.len();
            let fragment = Fragment { before, offset: usize::from(field & !7), more: field & 1 != 0 };
            (fragmented, part) = (true, fragment.part(next, behind)?);
        }
        (protocol, data) = (next, behind);
        if part == Part::Later {
            // The data of a later fragment begins inside another header or the payload.
            return Ok(Upper { protocol, data, part });
        }
    }
    Err(Reason::Ipv6Extensions)
}

/// The length of an extension header in bytes, from its first eight bytes. The length exceeds any packet if an
/// authentication header is too short for its own fields (RFC 4302, 2.2).
fn extension_length(header: IpNumber, unit: &[u8; 8]) -> usize {
    let length = usize::from(unit[1]);
    match header {
        IpNumber::IPV6_FRAGMENTATION_HEADER => 8,
        IpNumber::AUTHENTICATION_HEADER if length == 0 => usize::MAX,
        IpNumber::AUTHENTICATION_HEADER => (length + 2) * 4,
        _ => (length + 1) * 8,
    }
}

/// The fixed header, by field.
struct Header<'f>(&'f [u8; LENGTH]);

impl Header<'_> {
    fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    fn payload_length(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[4], self.0[5]]))
    }

    fn next(&self) -> IpNumber {
        IpNumber(self.0[6])
    }

    fn hop_limit(&self) -> u8 {
        self.0[7]
    }

    fn source(&self) -> Ipv6Addr {
        address::<8>(self.0)
    }

    fn destination(&self) -> Ipv6Addr {
        address::<24>(self.0)
    }
}

fn address<const AT: usize>(header: &[u8; LENGTH]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[AT..AT + 16]);
    octets.into()
}
