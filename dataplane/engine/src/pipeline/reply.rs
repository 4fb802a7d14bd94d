//! The replies of `reject` and `tarpit`: frames that leave on the side on which the packet arrived.
//!
//! ```text
//! the Ethernet header of the packet with its addresses exchanged, its VLAN tags and its PPPoE header
//! IPv4: 20 bytes, no options, don't fragment, identification 0   | ICMP: type, code, checksum, 4 zeros, the packet
//! IPv6: 40 bytes                                                 | TCP: 20 bytes, no options
//! ```
//! The source of a reply is the destination of the packet, because an inline filter has no address.
//! [`knockplane_policy::eval::replies`] defines the packets that get no reply.

use std::net::IpAddr;

use knockplane_policy::eval::replies::{Answer, Segment};
use knockplane_policy::packet::{Family, Packet, protocol};

use crate::headers::{ETHERNET_LENGTH, MAX_VLAN_TAGS, PPPOE_LENGTH, VLAN_LENGTH};

/// Maximum length of an ICMP error, in bytes of the IP packet. The error quotes as much of the packet as fits. Source:
/// RFC 1812, 4.3.2.3; RFC 4443, 2.4 (c).
const LONGEST_IPV4: usize = 576;
const LONGEST_IPV6: usize = 1280;

/// Maximum length of a reply, in bytes of its frame.
pub const LONGEST: usize = ETHERNET_LENGTH + MAX_VLAN_TAGS * VLAN_LENGTH + PPPOE_LENGTH + LONGEST_IPV6;

/// The TTL of replies, which is the default of hosts (IANA, IP Option Numbers: default TTL).
const TTL: u8 = 64;
/// The type of service of ICMP errors: precedence "internetwork control". Source: RFC 1812, 4.3.2.5.
const CONTROL: u8 = 0xc0;

/// The frame of a reply.
pub struct Reply {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Default for Reply {
    fn default() -> Self {
        Reply { bytes: [0; LONGEST], length: 0 }
    }
}

impl Reply {
    /// The whole frame.
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Writes the reply to this packet. Returns false if the bytes of the packet allow no reply.
    pub(crate) fn write(&mut self, packet: &Packet<'_>, answer: &Answer) -> bool {
        self.length = 0;
        self.try_write(packet, answer).is_some()
    }

    fn try_write(&mut self, packet: &Packet<'_>, answer: &Answer) -> Option<()> {
        let network = usize::from(packet.network);
        let (ethernet, _) = packet.frame.split_at_checked(network)?;
        let (addresses, tags_and_type) = ethernet.split_at_checked(12)?;
        let (to, from) = addresses.split_at(6);
        self.put(&[from, to, tags_and_type])?;
        self.put_packet(packet, answer)?;
        if packet.vlan().session().is_some() {
            // The length includes the PPP protocol.
            let length = (self.length - network + 2) as u16;
            self.bytes.get_mut(network - 4..network - 2)?.copy_from_slice(&length.to_be_bytes());
        }
        Some(())
    }

    /// Appends the IP packet.
    fn put_packet(&mut self, packet: &Packet<'_>, answer: &Answer) -> Option<()> {
        match answer {
            Answer::IcmpError { kind, code } => {
                let (number, longest, header) = match packet.family() {
                    Family::Ipv4 => (protocol::ICMP, LONGEST_IPV4, 20),
                    Family::Ipv6 => (protocol::ICMPV6, LONGEST_IPV6, 40),
                };
                let quoted = packet.network()?;
                let quoted = &quoted[..quoted.len().min(longest - header - 8)];
                let length = 8 + quoted.len();
                self.ip(packet, number, CONTROL, length)?;
                self.put(&[&[*kind, *code, 0, 0, 0, 0, 0, 0], quoted])?;
                let pseudo = match packet.family() {
                    Family::Ipv4 => 0,
                    Family::Ipv6 => pseudo_header(packet, number, length),
                };
                self.checksum(length, 2, pseudo)
            }
            Answer::Tcp(Segment { flags, sequence, acknowledgement, window }) => {
                let (source, destination) = packet.ports?;
                self.ip(packet, protocol::TCP, 0, 20)?;
                self.put(&[
                    &destination.to_be_bytes(),
                    &source.to_be_bytes(),
                    &sequence.to_be_bytes(),
                    &acknowledgement.to_be_bytes(),
                    &[5 << 4, flags.bits() as u8],
                    &window.to_be_bytes(),
                    &[0; 4],
                ])?;
                self.checksum(20, 16, pseudo_header(packet, protocol::TCP, 20))
            }
        }
    }

    /// Appends the IP header of a packet from the destination of `packet` to its source. Source: RFC 791; RFC 6864 for the
    /// identification; RFC 8200.
    fn ip(&mut self, packet: &Packet<'_>, number: u8, service: u8, content: usize) -> Option<()> {
        match (packet.source, packet.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let [high, low] = (content as u16 + 20).to_be_bytes();
                self.put(&[
                    &[0x45, service, high, low, 0, 0, 0x40, 0, TTL, number, 0, 0],
                    &destination.octets(),
                    &source.octets(),
                ])?;
                self.checksum(20, 10, 0)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let [high, low] = (content as u16).to_be_bytes();
                self.put(&[
                    &[0x60 | service >> 4, service << 4, 0, 0, high, low, number, TTL],
                    &destination.octets(),
                    &source.octets(),
                ])
            }
            _ => None,
        }
    }

    fn put(&mut self, parts: &[&[u8]]) -> Option<()> {
        for part in parts {
            self.bytes.get_mut(self.length..self.length + part.len())?.copy_from_slice(part);
            self.length += part.len();
        }
        Some(())
    }

    /// Writes the Internet checksum of the last `last` bytes and of other words with the sum `more` to offset `at` of these
    /// bytes. Source: RFC 1071.
    fn checksum(&mut self, last: usize, at: usize, more: u32) -> Option<()> {
        let bytes = self.bytes.get_mut(self.length.checked_sub(last)?..self.length)?;
        let mut sum = sum(bytes) + more;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        bytes.get_mut(at..at + 2)?.copy_from_slice(&(!(sum as u16)).to_be_bytes());
        Some(())
    }
}

/// The sum of the words of the pseudo-header, which transport checksums include. The order of the addresses is
/// irrelevant. Source: RFC 9293, 3.1; RFC 8200, 8.1.
fn pseudo_header(packet: &Packet<'_>, number: u8, length: usize) -> u32 {
    let address = |address| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    address(packet.source) + address(packet.destination) + u32::from(number) + length as u32
}

/// The sum of 16-bit words. A last odd byte is the upper half of a word.
fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}
