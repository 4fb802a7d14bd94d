//! IPv4 (RFC 791).
//!
//! ```text
//! 0        1        2                 4                 6                 8        9
//! +--------+--------+-----------------+-----------------+-----------------+--------+----------+----
//! | 4, IHL | TOS    | total length    | identification  | flags, offset   | TTL    | protocol | …
//! +--------+--------+-----------------+-----------------+-----------------+--------+----------+----
//! ```
//! Bytes 12 to 15 are the source, 16 to 19 the destination. Options follow, up to the header's length. The bytes of the
//! frame behind the total length are Ethernet's padding and no part of the packet.

use std::net::Ipv4Addr;

use etherparse::IpNumber;
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::reason::Reason;

use super::transport::{self, Fragment};

const LENGTH: usize = 20;

/// Reads the packet in an Ethernet frame. `bytes` are the last bytes of the frame.
#[inline]
pub(super) fn read<'f>(side: Side, frame: &'f [u8], bytes: &'f [u8]) -> Result<Packet<'f>, Reason> {
    let header = Ipv4Header(bytes.first_chunk().ok_or(Reason::Ipv4Malformed)?);
    if header.version() != 4 || header.length() < LENGTH {
        return Err(Reason::Ipv4Malformed);
    }
    let data = bytes.get(header.length()..header.total_length()).ok_or(Reason::Ipv4Malformed)?;
    let part = header.fragment().part(header.protocol(), data)?;
    let network = frame.len() - bytes.len();
    let transport = transport::read(header.protocol(), data, part)?;
    Ok(Packet {
        side,
        source: header.source().into(),
        destination: header.destination().into(),
        protocol: header.protocol().0,
        ports: transport.ports,
        icmp: transport.icmp,
        ip_length: header.total_length() as u32,
        payload: transport.payload,
        frame,
        network: network as u16,
        transport: (network + header.length()) as u16,
    })
}

/// The fixed part of the header, by field.
struct Ipv4Header<'f>(&'f [u8; LENGTH]);

impl Ipv4Header<'_> {
    fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    fn length(&self) -> usize {
        usize::from(self.0[0] & 0xf) * 4
    }

    fn total_length(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[2], self.0[3]]))
    }

    fn fragment(&self) -> Fragment {
        let field = u16::from_be_bytes([self.0[6], self.0[7]]);
        Fragment { before: self.length(), offset: usize::from(field & 0x1fff) * 8, more: field & 0x2000 != 0 }
    }

    fn protocol(&self) -> IpNumber {
        IpNumber(self.0[9])
    }

    fn source(&self) -> Ipv4Addr {
        let [.., a, b, c, d, _, _, _, _] = *self.0;
        Ipv4Addr::new(a, b, c, d)
    }

    fn destination(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.0;
        Ipv4Addr::new(a, b, c, d)
    }
}
