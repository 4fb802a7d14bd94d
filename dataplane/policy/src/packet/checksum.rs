//! Whether a TCP segment is as its sender sent it.

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
