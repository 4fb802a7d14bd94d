//! Verifies TCP checksums, and detects packets whose sender left the checksum to its interface.

use std::net::IpAddr;

use super::{ExtensionHeader, Family, FragmentPart, OptionKind, Packet, protocol};

impl Packet<'_> {
    /// Whether the checksum of a TCP segment is right. `None` if that cannot be verified: for fragments, for other
    /// protocols, and for packets whose real addresses differ from those of the IP header (source routes of IPv4;
    /// routing headers and home addresses of IPv6), because the checksum covers the real ones.
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

    /// Whether the sender of a TCP or UDP packet left the checksum to its interface, and no interface has computed it:
    /// the field contains only the sum of the pseudo header, as Linux writes it, and is wrong. For most packets one
    /// comparison of the field is enough; the sum is computed for one other packet in 65,536.
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

/// The sum of 16-bit words. A last odd byte is the upper half of a word.
fn words(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let sum: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    sum + rest.first().map_or(0, |last| u64::from(*last) << 8)
}

/// The sum in ones' complement: 0xffff if the checksum is right.
const fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
