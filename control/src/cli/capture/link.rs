//! Converts packets of a link type to Ethernet frames. Source: <https://www.tcpdump.org/linktypes.html>.

use std::borrow::Cow;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// The header at the start of the packets of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// An Ethernet header.
    Ethernet,
    /// An IP header.
    Raw,
    /// Linux's header for captures on `any`.
    Sll,
    /// The second version of that header.
    Sll2,
}

impl Link {
    pub(super) fn of(number: u16) -> Result<Self, String> {
        Ok(match number {
            1 => Link::Ethernet,
            // Some systems write 12 and 14 instead of 101; 228 and 229 are IPv4 and IPv6 alone.
            12 | 14 | 101 | 228 | 229 => Link::Raw,
            113 => Link::Sll,
            276 => Link::Sll2,
            other => {
                return Err(format!("its link type, {other}, is not known here: capture on an Ethernet interface"));
            }
        })
    }

    /// The packet as an Ethernet frame. If another link header is replaced, the destination is not known, and zero.
    pub(super) fn ethernet(self, data: &[u8]) -> Result<Cow<'_, [u8]>, String> {
        let short = || "it is shorter than its link's header".to_owned();
        Ok(match self {
            Link::Ethernet => Cow::Borrowed(data),
            Link::Raw => {
                let ethertype = if data.first().is_some_and(|byte| byte >> 4 == 6) { IPV6 } else { IPV4 };
                with_header([0; 6], ethertype, data).into()
            }
            Link::Sll => {
                let (header, packet) = data.split_first_chunk::<16>().ok_or_else(short)?;
                with_header(mac(header, 6), [header[14], header[15]], packet).into()
            }
            Link::Sll2 => {
                let (header, packet) = data.split_first_chunk::<20>().ok_or_else(short)?;
                with_header(mac(header, 12), [header[0], header[1]], packet).into()
            }
        })
    }
}

/// The sender's address, if it is an Ethernet address.
fn mac(header: &[u8], at: usize) -> [u8; 6] {
    header.get(at..at + 6).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

fn with_header(source: [u8; 6], ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&[0; 6][..], &source, &ethertype, packet].concat()
}
