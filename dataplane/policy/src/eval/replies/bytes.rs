//! The bytes of replies.
//!
//! ```text
//! IPv4: 20 bytes, no options, don't fragment, identification 0   | ICMP: type, code, checksum, 4 zeros, the packet
//! IPv6: 40 bytes                                                 | TCP: 20 bytes, no options
//! ```

use std::net::IpAddr;

use super::{Answer, Segment};
use crate::packet::{Family, Packet, protocol};

/// Hop limit of replies, the usual value of hosts (IANA, IP Option Numbers: default TTL).
const TTL: u8 = 64;
/// Precedence "internetwork control", which ICMP errors have. Source: RFC 1812, 4.3.2.5.
const CONTROL: u8 = 0xc0;
/// Maximum length of an ICMP error in bytes of the IP packet. It quotes as much of the packet as fits. Source: RFC
/// 1812, 4.3.2.3.
const LONGEST_IPV4: usize = 576;
/// The smallest MTU of IPv6. Source: RFC 4443, 2.4 (c).
const LONGEST_IPV6: usize = 1280;

/// The bytes of an answer; `None` if the packet's bytes are not known.
pub(super) fn of(packet: &Packet<'_>, answer: &Answer) -> Option<Vec<u8>> {
    match answer {
        Answer::IcmpError { kind, code } => icmp_error(packet, *kind, *code),
        Answer::Tcp(segment) => tcp(packet, segment),
    }
}

/// An ICMP error that quotes the packet; `None` if the packet's bytes are not known.
///
/// Source: RFC 792, Destination unreachable; RFC 4443, 3.1.
fn icmp_error(packet: &Packet<'_>, kind: u8, code: u8) -> Option<Vec<u8>> {
    let quoted = packet.network()?;
    let (number, longest) = match packet.family() {
        Family::Ipv4 => (protocol::ICMP, LONGEST_IPV4 - 20),
        Family::Ipv6 => (protocol::ICMPV6, LONGEST_IPV6 - 40),
    };
    let quoted = &quoted[..quoted.len().min(longest - 8)];
    let mut message = [&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat();
    let sum = match packet.family() {
        Family::Ipv4 => 0,
        Family::Ipv6 => pseudo_header(packet, number, message.len()),
    };
    put_checksum(&mut message, 2, sum);
    Some(back(packet, number, CONTROL, &message))
}

/// A TCP segment without data to the packet's sender; `None` if the packet has no ports.
fn tcp(packet: &Packet<'_>, segment: &Segment) -> Option<Vec<u8>> {
    let (source, destination) = packet.ports?;
    let mut header = Vec::with_capacity(20);
    header.extend(destination.to_be_bytes());
    header.extend(source.to_be_bytes());
    header.extend(segment.sequence.to_be_bytes());
    header.extend(segment.acknowledgement.to_be_bytes());
    header.extend([5 << 4, segment.flags.bits() as u8]);
    header.extend(segment.window.to_be_bytes());
    header.extend([0; 4]);
    put_checksum(&mut header, 16, pseudo_header(packet, protocol::TCP, 20));
    Some(back(packet, protocol::TCP, 0, &header))
}

/// An IP packet from the packet's destination to its source. Source: RFC 791; RFC 6864 for the identification; RFC 8200.
fn back(packet: &Packet<'_>, number: u8, service: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u16;
    let mut bytes = match packet.family() {
        Family::Ipv4 => {
            let [high, low] = (length + 20).to_be_bytes();
            let mut header = vec![0x45, service, high, low, 0, 0, 0x40, 0, TTL, number, 0, 0];
            header.extend(octets(packet.destination));
            header.extend(octets(packet.source));
            put_checksum(&mut header, 10, 0);
            header
        }
        Family::Ipv6 => {
            let [high, low] = length.to_be_bytes();
            let mut header = vec![0x60 | service >> 4, service << 4, 0, 0, high, low, number, TTL];
            header.extend(octets(packet.destination));
            header.extend(octets(packet.source));
            header
        }
    };
    bytes.extend(content);
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The checksum of the pseudo header; it does not depend on the order of the two addresses. Source: RFC 9293, 3.1; RFC
/// 8200, 8.1.
fn pseudo_header(packet: &Packet<'_>, number: u8, length: usize) -> u32 {
    sum(&octets(packet.source)) + sum(&octets(packet.destination)) + u32::from(number) + length as u32
}

/// Writes the Internet checksum of the bytes and of `more` into its field. Source: RFC 1071.
fn put_checksum(bytes: &mut [u8], at: usize, more: u32) {
    let mut sum = sum(bytes) + more;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// The sum of the 16-bit words. A last odd byte is the upper half of a word.
fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}
