//! ARP (RFC 826) for IPv4 over Ethernet.
//!
//! ```text
//! 0            2            4        5        6            8        14       18       24       28
//! +------------+------------+--------+--------+------------+--------+--------+--------+--------+---------
//! | hardware 1 | 0x0800     | 6      | 4      | operation  | sender | sender | target | target | padding
//! |            |            |        |        | 1 or 2     | MAC    | IPv4   | MAC    | IPv4   |
//! +------------+------------+--------+--------+------------+--------+--------+--------+--------+---------
//! ```
//! Only what hosts send to resolve and announce addresses is well-formed: what a stranger can say in a frame that passes
//! without a rule is bounded to the addresses.
//!
//! What senders do that RFC 826 leaves open, and is accepted: the target's MAC of a request is zero (RFC 5227), the
//! broadcast address, the Ethernet destination or the sender's own MAC (announcements of several implementations). Padding
//! reaches up to Ethernet's minimum of 46 bytes behind the type (IEEE 802.3, 3.2.7), also behind a VLAN tag, because
//! bridges may tag a frame without taking the padding away (IEEE 802.1Q, G.2.3).

use std::net::Ipv4Addr;

use knockplane_policy::reason::Reason;

use super::{BROADCAST, ETHERNET_LENGTH, Mac, is_group, is_station};

/// Bytes of the packet.
pub(super) const LENGTH: usize = 28;

/// The most bytes behind the Ethernet type, packet and padding. Source: IEEE 802.3, 3.2.7: the minimum.
const MAX_PADDED: usize = 46;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// The reason of the frame's class, or that it is malformed. `payload` is everything behind the type.
///
/// Not in line: packets would pay for its registers.
#[cold]
#[inline(never)]
pub(super) fn reason(ethernet: &[u8; ETHERNET_LENGTH], payload: &[u8]) -> Reason {
    if is_well_formed(ethernet, payload) { Reason::Arp } else { Reason::ArpMalformed }
}

/// Whether this is a request or reply as hosts send them.
fn is_well_formed(ethernet: &[u8; ETHERNET_LENGTH], payload: &[u8]) -> bool {
    let Some(packet) = payload.first_chunk().map(Packet) else { return false };
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
pub(super) struct Packet<'f>(pub(super) &'f [u8; LENGTH]);

impl Packet<'_> {
    fn is_of_ethernet_and_ipv4(&self) -> bool {
        self.0[..6] == [0, 1, 0x08, 0x00, 6, 4]
    }

    /// A host asks who has the target's address. A sender without an address probes whether it is free (RFC 5227).
    fn is_request(&self, destination: Mac) -> bool {
        let sender = self.sender();
        let knows_itself = sender.is_unspecified() || is_host(sender);
        knows_itself && is_host(self.target()) && self.is_usual_target_mac(destination)
    }

    /// A host tells its address. The answer to a probe has no target; one that is sent to all (RFC 3927, 2.5; RFC 5227,
    /// 2.6) may name the host that asked.
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
