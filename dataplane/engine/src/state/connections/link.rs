//! The link header of a connection's first packet.

use knockplane_policy::packet::Packet;
use knockplane_policy::packet::link::{ETHERNET_LENGTH, MAX_LENGTH};

/// The Ethernet header of a connection's first packet, with its VLAN tags and its PPPoE header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkHeader {
    bytes: [u8; MAX_LENGTH],
    /// The number of bytes; 0 if the header is not known.
    length: u8,
}

impl LinkHeader {
    pub(super) const NONE: LinkHeader = LinkHeader { bytes: [0; MAX_LENGTH], length: 0 };

    /// The link header of this packet. The header is not known if other headers precede the IP header.
    pub(super) fn of(packet: &Packet<'_>) -> LinkHeader {
        let mut link = LinkHeader::NONE;
        let header = packet.frame.get(..usize::from(packet.network)).filter(|header| header.len() >= ETHERNET_LENGTH);
        if let Some((header, room)) = header.and_then(|header| Some((header, link.bytes.get_mut(..header.len())?))) {
            room.copy_from_slice(header);
            link.length = header.len() as u8;
        }
        link
    }

    /// The bytes of the header; empty if the header is not known.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The header with source and destination address swapped.
    pub(crate) fn reversed(&self) -> LinkHeader {
        let mut link = *self;
        link.bytes[..12].rotate_left(6);
        link
    }
}
