//! Whether a TCP segment is as its sender sent it, and whether the sender has computed a checksum at all.

use std::net::IpAddr;

use super::{ExtensionHeader, Family, FragmentPart, OptionKind, Packet, protocol};

impl Packet<'_> {
    /// Whether the checksum of a TCP segment is right. None if that cannot be known: of a fragment, of another protocol,
    /// and of what is sent to or from other addresses than the IP header names (source routes of IPv4; routing headers
    /// and home addresses of IPv6), as the checksum covers those.
    ///
    /// Source: RFC 9293, 3.1; RFC 8200, 8.1; RFC 6275, 11.3.1; RFC 1071 for the sum.
    pub fn tcp_checksum(&self) -> Option<bool> {
        if self.fragment()? != FragmentPart::Whole {
            return None;
        }
        let segment = self.tcp()?;
        let pseudo = address(self.source) + address(self.destination) + u64::from(protocol::TCP) + segment.len() as u64;
        if fold(pseudo + words(segment)) == 0xffff { Some(true) } else { self.is_direct()?.then_some(false) }
    }

    /// Whether the sender of TCP or UDP has left the checksum to its interface, and no interface has computed it: the field
    /// has the sum of the pseudo header alone, as Linux leaves it there, and is wrong. Most packets take a look at the
    /// field; only one in 65,536 of the others is summed up.
    ///
    /// Source: Linux, `include/linux/skbuff.h`, `CHECKSUM_PARTIAL`.
    pub fn lacks_checksum(&self) -> bool {
        let place = match self.protocol {
            protocol::TCP => 16,
            protocol::UDP => 6,
            _ => return false,
        };
        let Some(segment) = self.transport().filter(|_| self.fragment() == Some(FragmentPart::Whole)) else {
            return false;
        };
        let Some(field) = segment.get(place..).and_then(|rest| rest.first_chunk::<2>()) else { return false };
        let length = segment.len() as u64;
        let pseudo = address(self.source) + address(self.destination) + u64::from(self.protocol) + length;
        u64::from(u16::from_be_bytes(*field)) == fold(pseudo) && fold(pseudo + words(segment)) != 0xffff
    }

    /// Whether the addresses of the IP header are those of the ends.
    fn is_direct(&self) -> Option<bool> {
        Some(match self.family() {
            Family::Ipv4 => {
                let options = self.ipv4_options()?;
                ![OptionKind::LooseSourceRouting, OptionKind::StrictSourceRouting, OptionKind::Other]
                    .into_iter()
                    .any(|kind| options.contains(kind))
            }
            Family::Ipv6 => {
                let headers = self.extension_headers()?;
                !headers.contains(ExtensionHeader::Route) && !headers.contains(ExtensionHeader::Dst)
            }
        })
    }
}

fn address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => words(&address.octets()),
        IpAddr::V6(address) => words(&address.octets()),
    }
}

/// The sum of 16-bit words; a last odd byte is the upper half of one.
fn words(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let sum: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    sum + rest.first().map_or(0, |last| u64::from(*last) << 8)
}

/// In ones' complement: 0xffff if the checksum is right.
const fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
