//! The lengths of what a frame has in front of its IP header.

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LENGTH: usize = 14;
/// Bytes of a VLAN tag.
pub const VLAN_LENGTH: usize = 4;
/// How many VLAN tags a frame may have: QinQ.
pub const MAX_VLAN_TAGS: usize = 2;
/// Bytes of a PPPoE session's header, with PPP's protocol.
pub const PPPOE_LENGTH: usize = 8;
/// The longest of all of it together.
pub const MAX_LENGTH: usize = ETHERNET_LENGTH + MAX_VLAN_TAGS * VLAN_LENGTH + PPPOE_LENGTH;
