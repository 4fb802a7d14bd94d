//! ARP (RFC 826) for IPv4 over Ethernet.
//!
//! ```text
//! 0            2            4        5        6            8        14       18       24       28
//! +------------+------------+--------+--------+------------+--------+--------+--------+--------+---------
//! | hardware 1 | 0x0800     | 6      | 4      | operation  | sender | sender | target | target | padding
//! |            |            |        |        | 1 or 2     | MAC    | IPv4   | MAC    | IPv4   |
//! +------------+------------+--------+--------+------------+--------+--------+--------+--------+---------
//! ```
//! Only messages that hosts send to resolve and announce addresses are well-formed. These frames pass without a rule,
//! so an attacker can transmit nothing but addresses in them.
//!
//! RFC 826 leaves some fields open. The target's MAC of a request may be zero (RFC 5227), the broadcast address, the
//! Ethernet destination or the sender's own MAC (announcements of several implementations). Padding extends the frame
//! to Ethernet's minimum of 46 bytes behind the type (IEEE 802.3, 3.2.7). The same limit applies behind a VLAN tag,
//! because bridges may tag a frame without removing the padding (IEEE 802.1Q, G.2.3).

use std::net::Ipv4Addr;

use knockplane_policy::reason::Reason;

use super::{BROADCAST, ETHERNET_LENGTH, Mac, is_group, is_station};

/// Bytes of the packet.
pub(super) const LENGTH: usize = 28;

/// The maximum number of bytes behind the Ethernet type, packet and padding. Source: IEEE 802.3, 3.2.7: the minimum.
const MAX_PADDED: usize = 46;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// The reason of the frame's class, or the reason for a malformed frame. `payload` contains all bytes behind the type.
///
/// Not inlined: other packets would pay for the registers of this function.
#[cold]
#[inline(never)]
pub(super) fn reason(ethernet: &[u8; ETHERNET_LENGTH], payload: &[u8]) -> Reason {
    if is_well_formed(ethernet, payload) { Reason::Arp } else { Reason::ArpMalformed }
}

/// Whether this is a request or a reply in the form that hosts send.
fn is_well_formed(ethernet: &[u8; ETHERNET_LENGTH], payload: &[u8]) -> bool {
    let Some(packet) = payload.first_chunk().map(ArpPacket) else { return false };
    let (destination, source) = super::macs(ethernet);
    payload.len() <= MAX_PADDED
        && packet.is_of_ethernet_and_ipv4()
        && is_station(source)
        && packet.sender_mac() == source
        && (destination == BROADCAST || is_station(destination))
        && match packet.operation() {
            REQUEST => packet.is_request(destination),
            REPLY => packet.is_reply(destination),
            _ => false,
        }
}

/// The packet, by field.
pub(super) struct ArpPacket<'f>(pub(super) &'f [u8; LENGTH]);

impl ArpPacket<'_> {
    fn is_of_ethernet_and_ipv4(&self) -> bool {
        self.0[..6] == [0, 1, 0x08, 0x00, 6, 4]
    }

    /// Whether the packet is a request for the MAC of the target's address. A sender without an address probes whether
    /// the address is free (RFC 5227).
    fn is_request(&self, destination: Mac) -> bool {
        let sender = self.sender();
        let knows_itself = sender.is_unspecified() || is_host(sender);
        knows_itself && is_host(self.target()) && self.is_usual_target_mac(destination)
    }

    /// Whether the packet is a reply with the sender's address. The reply to a probe has no target address. A broadcast
    /// reply (RFC 3927, 2.5; RFC 5227, 2.6) may contain the address of the host that sent the request.
    fn is_reply(&self, destination: Mac) -> bool {
        let target = self.target();
        let has_target = target.is_unspecified() || is_host(target);
        let names_a_host = destination == BROADCAST && !is_group(self.target_mac());
        is_host(self.sender()) && has_target && (names_a_host || self.is_usual_target_mac(destination))
    }

    fn is_usual_target_mac(&self, destination: Mac) -> bool {
        [[0; 6], BROADCAST, destination, self.sender_mac()].contains(&self.target_mac())
    }

    fn operation(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    fn sender_mac(&self) -> Mac {
        self.mac::<8>()
    }

    pub(super) fn sender(&self) -> Ipv4Addr {
        self.address::<14>()
    }

    fn target_mac(&self) -> Mac {
        self.mac::<18>()
    }

    pub(super) fn target(&self) -> Ipv4Addr {
        self.address::<24>()
    }

    fn mac<const AT: usize>(&self) -> Mac {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.0[AT..AT + 6]);
        mac
    }

    fn address<const AT: usize>(&self) -> Ipv4Addr {
        let [a, b, c, d] = [0, 1, 2, 3].map(|byte| self.0[AT + byte]);
        Ipv4Addr::new(a, b, c, d)
    }
}

/// Whether a host on an Ethernet can have this address. Source: RFC 1122, 3.2.1.3; RFC 6890.
fn is_host(address: Ipv4Addr) -> bool {
    let is_this_network = address.octets()[0] == 0;
    !(is_this_network || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}
