//! Lengths of the headers before the IP header.

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LENGTH: usize = 14;
/// Bytes of a VLAN tag.
pub const VLAN_LENGTH: usize = 4;
/// Maximum number of VLAN tags of a frame: QinQ.
pub const MAX_VLAN_TAGS: usize = 2;
/// Bytes of a PPPoE session header, with PPP's protocol field.
pub const PPPOE_LENGTH: usize = 8;
/// Maximum length of all of these headers together, in bytes.
pub const MAX_LENGTH: usize = ETHERNET_LENGTH + MAX_VLAN_TAGS * VLAN_LENGTH + PPPOE_LENGTH;
