//! Reads the bytes of a frame into the packet that rules evaluate.
//!
//! ```text
//! 0             6            12     14
//! +-------------+-------------+------+--------------------------------------
//! | destination | source      | type | IPv4, IPv6, or a class of frames
//! +-------------+-------------+------+--------------------------------------
//!                             ^ each VLAN tag puts 4 bytes in here: its type, then priority and VLAN number;
//!                               then a PPPoE session 8 bytes, see `pppoe`
//! ```
//!
//! Order: the frame's length, Ethernet, at most two VLAN tags and a PPPoE session; then IP, its fragments and extension
//! headers; then TCP, UDP or ICMP. The reader checks the length of each header once, and then reads its fields by name.
//! The reader copies nothing.
//!
//! The reader validates two protocols completely, because they pass without a rule: ARP and IPv6 neighbour discovery. A
//! frame of these protocols that is not well-formed has no class, and neither a setting nor a rule lets it pass.
//!
//! Promise: the reader returns a packet only if every length in its headers agrees with the frame. A host behind the
//! filter therefore cannot read other ports or another payload than the rules did. The reader refuses ambiguous frames
//! with a reason. It accepts arbitrary bytes and never panics.
//!
//! The readers do not use etherparse, because its slices keep fields that rules never use, which costs time (measured
//! in `bench`). The tests compare these readers with etherparse.

mod arp;
mod classes;
mod discovery;
mod ipv4;
mod ipv6;
mod pppoe;
mod transport;

use std::net::IpAddr;

use etherparse::EtherType;
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::reason::Reason;

pub use self::classes::class_frame;
pub use knockplane_policy::packet::link::{ETHERNET_LENGTH, MAX_VLAN_TAGS, PPPOE_LENGTH, VLAN_LENGTH};

/// The longest frame that interfaces of this MTU forward. A PPPoE header is within the MTU: hosts in a session have an
/// MTU of 1,492 bytes (RFC 2516, 7).
pub const fn max_frame(mtu: usize) -> usize {
    mtu + ETHERNET_LENGTH + MAX_VLAN_TAGS * VLAN_LENGTH
}

/// Ethertypes without a name in etherparse. Source: IEEE 802 Numbers, IANA.
mod ethertype {
    use etherparse::EtherType;

    pub(super) const SLOW_PROTOCOLS: EtherType = EtherType(0x8809);
    pub(super) const EAPOL: EtherType = EtherType(0x888e);
    pub(super) const LLDP: EtherType = EtherType(0x88cc);
    pub(super) const PPPOE_DISCOVERY: EtherType = EtherType(0x8863);
    pub(super) const PPPOE_SESSION: EtherType = EtherType(0x8864);
    /// The maximum value of the field that is a length. Such a frame is IEEE 802.2. Source: IEEE 802.3, 3.2.6.
    pub(super) const MAX_LENGTH: u16 = 1500;
}

/// The destination of spanning tree frames. Source: IEEE 802.1D, 7.12.3.
const BRIDGE_GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00];

/// Reads a frame from this side into the packet that rules evaluate.
///
/// # Errors
/// The reason that rules cannot evaluate the frame: the reason of its [`FrameClass`], about which
/// [`Settings::judge_frame`] decides, or the reason for a malformed frame.
///
/// [`FrameClass`]: knockplane_policy::frames::FrameClass
/// [`Settings::judge_frame`]: knockplane_policy::settings::Settings::judge_frame
#[inline]
pub fn read(side: Side, frame: &[u8], max_frame: usize) -> Result<Packet<'_>, Reason> {
    if frame.len() > max_frame {
        return Err(Reason::FrameTooLong);
    }
    let (header, behind) = frame.split_first_chunk::<ETHERNET_LENGTH>().ok_or(Reason::EthernetTruncated)?;
    let [d0, d1, d2, d3, d4, d5, .., t0, t1] = *header;
    let (ethertype, payload) = untag(EtherType(u16::from_be_bytes([t0, t1])), behind)?;
    match ethertype {
        EtherType::IPV4 => ipv4::read(side, frame, payload),
        EtherType::IPV6 => ipv6::read(side, frame, payload),
        ethertype::PPPOE_SESSION => in_session(side, frame, payload),
        // This arm follows IP, so that a setting that admits bridge frames does not admit IP packets to the bridges'
        // address past the rules.
        _ if [d0, d1, d2, d3, d4, d5] == BRIDGE_GROUP => Err(Reason::SpanningTree),
        EtherType::ARP => Err(arp::reason(header, payload)),
        ethertype::SLOW_PROTOCOLS => Err(Reason::Lacp),
        ethertype::EAPOL => Err(Reason::Eapol),
        ethertype::LLDP => Err(Reason::Lldp),
        ethertype::PPPOE_DISCOVERY => Err(pppoe::discovery(payload)),
        EtherType(length) if length <= ethertype::MAX_LENGTH => Err(logical_link(payload)),
        _ => Err(Reason::UnknownEthertype),
    }
}

/// The packet in a PPPoE session. The bytes of the frame behind the session's length are no part of the packet.
///
/// Not inlined: other packets would pay for the registers of this function.
#[cold]
#[inline(never)]
fn in_session<'f>(side: Side, frame: &'f [u8], payload: &'f [u8]) -> Result<Packet<'f>, Reason> {
    let (ethertype, packet) = pppoe::session(payload)?;
    let until = frame.len() - payload.len() + PPPOE_LENGTH + packet.len();
    match ethertype {
        EtherType::IPV4 => ipv4::read(side, &frame[..until], packet),
        _ => ipv6::read(side, &frame[..until], packet),
    }
}

/// The ethertype and the bytes of the packet in a frame, behind VLAN tags and in a PPPoE session.
fn network(frame: &[u8]) -> Option<(EtherType, &[u8])> {
    let (header, behind) = frame.split_first_chunk::<ETHERNET_LENGTH>()?;
    let (ethertype, payload) = untag(EtherType(u16::from_be_bytes([header[12], header[13]])), behind).ok()?;
    if ethertype == ethertype::PPPOE_SESSION { pppoe::session(payload).ok() } else { Some((ethertype, payload)) }
}

/// The IP source of a frame that [`read`] refuses, if the frame contains one. The address is not verified.
#[cold]
pub fn source(frame: &[u8]) -> Option<IpAddr> {
    let (ethertype, packet) = network(frame)?;
    source_of(ethertype, packet)
}

/// The source of the packet that [`read`] returns for this frame, if the frame has no VLAN tag and no PPPoE session. For
/// a frame that [`read`] refuses, any address.
#[inline]
pub(crate) fn likely_source(frame: &[u8]) -> Option<IpAddr> {
    let (header, packet) = frame.split_first_chunk::<ETHERNET_LENGTH>()?;
    source_of(EtherType(u16::from_be_bytes([header[12], header[13]])), packet)
}

/// The source address of a packet of this ethertype, if that is IP.
#[inline]
fn source_of(ethertype: EtherType, packet: &[u8]) -> Option<IpAddr> {
    match ethertype {
        EtherType::IPV4 => Some(IpAddr::from(*packet.get(12..)?.first_chunk::<4>()?)),
        EtherType::IPV6 => Some(IpAddr::from(*packet.get(8..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// An Ethernet address.
type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];

/// The destination and the source.
fn macs(header: &[u8; ETHERNET_LENGTH]) -> (Mac, Mac) {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *header;
    ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5])
}

/// Whether the address is a group address. Source: IEEE 802.3, 3.2.3.
fn is_group(mac: Mac) -> bool {
    mac[0] & 1 == 1
}

/// Whether the address can be the address of a station.
fn is_station(mac: Mac) -> bool {
    !is_group(mac) && mac != [0; 6]
}

/// The ethertype and the payload behind the VLAN tags.
fn untag(mut ethertype: EtherType, mut payload: &[u8]) -> Result<(EtherType, &[u8]), Reason> {
    let mut tags = 0;
    while let EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING | EtherType::VLAN_DOUBLE_TAGGED_FRAME =
        ethertype
    {
        if tags == MAX_VLAN_TAGS {
            return Err(Reason::VlanTooDeep);
        }
        let (tag, behind) = payload.split_first_chunk::<VLAN_LENGTH>().ok_or(Reason::EthernetTruncated)?;
        let [_, _, t0, t1] = *tag;
        (ethertype, payload) = (EtherType(u16::from_be_bytes([t0, t1])), behind);
        tags += 1;
    }
    Ok((ethertype, payload))
}

/// The class of an IEEE 802.2 frame: spanning tree, unless a SNAP header indicates an ethertype, which could be IP (RFC
/// 1042). Cisco's own SNAP frames carry its spanning tree and stay in the class.
fn logical_link(payload: &[u8]) -> Reason {
    match payload {
        [0xaa, 0xaa, 0x03, 0x00, 0x00, 0x0c, ..] => Reason::SpanningTree,
        [0xaa, 0xaa, ..] => Reason::UnknownEthertype,
        _ => Reason::SpanningTree,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(destination: [u8; 6], behind: &[u8]) -> Reason {
        let frame = [&destination[..], &[2; 6], behind].concat();
        read(Side::Outside, &frame, 1522).expect_err("it is not IP")
    }

    #[test]
    fn frames_that_are_not_ip_have_their_class() {
        let host = [2, 0, 0, 0, 0, 1];
        let cases: [(&[u8], Reason); 12] = [
            (&[0x08, 0x06], Reason::ArpMalformed),
            (&[0x88, 0xcc], Reason::Lldp),
            (&[0x88, 0x09], Reason::Lacp),
            (&[0x88, 0x8e], Reason::Eapol),
            (&[0x88, 0x64], Reason::PppoeMalformed),
            (&[0x05, 0xdd], Reason::UnknownEthertype),
            (&[0x00, 0x26, 0x42, 0x42, 0x03], Reason::SpanningTree),
            (&[0x00, 0x26, 0xaa, 0xaa, 0x03, 0x00, 0x00, 0x0c, 0x01, 0x0b], Reason::SpanningTree),
            (&[0x00, 0x26, 0xaa, 0xaa, 0x03, 0x00, 0x00, 0x00, 0x08, 0x00], Reason::UnknownEthertype),
            (&[0x81, 0x00, 0, 1, 0x08, 0x06], Reason::ArpMalformed),
            (&[0x88, 0xa8, 0, 1, 0x91, 0x00, 0, 1, 0x88, 0xcc], Reason::Lldp),
            (&[0x81, 0x00, 0, 1, 0x81, 0x00, 0, 1, 0x81, 0x00, 0, 1, 0x08, 0x06], Reason::VlanTooDeep),
        ];
        for (behind, reason) in cases {
            assert_eq!(class(host, behind), reason, "{behind:02x?}");
        }
    }

    #[test]
    fn everything_to_the_bridges_is_theirs_but_ip() {
        assert_eq!(class(BRIDGE_GROUP, &[0x08, 0x06]), Reason::SpanningTree);
        assert_eq!(class(BRIDGE_GROUP, &[0x12, 0x34]), Reason::SpanningTree);
        assert_eq!(class(BRIDGE_GROUP, &[0x08, 0x00]), Reason::Ipv4Malformed);
        assert_eq!(class(BRIDGE_GROUP, &[0x86, 0xdd]), Reason::Ipv6Malformed);
    }

    #[test]
    fn a_frame_that_is_refused_may_still_have_a_source() {
        let v4 = [&[2; 12][..], &[0x08, 0x00, 0x4f], &[0; 11], &[192, 0, 2, 7], &[203, 0, 113, 5]].concat();
        assert_eq!(source(&v4), Some([192, 0, 2, 7].into()));
        assert_eq!(read(Side::Outside, &v4, 1522), Err(Reason::Ipv4Malformed));
        let tagged = [&[2; 12][..], &[0x81, 0, 0, 1, 0x86, 0xdd], &[0; 8], &[0x20; 16]].concat();
        assert_eq!(source(&tagged), Some([0x20; 16].into()));
        assert_eq!((source(&v4[..29]), source(&tagged[..33]), source(&[8; 60])), (None, None, None));
    }

    #[test]
    fn the_likely_source_is_that_of_the_packet() {
        let v4 =
            [&[2; 12][..], &[0x08, 0x00, 0x45, 0, 0, 28], &[0; 4], &[64, 17, 0, 0], &[192, 0, 2, 7, 203, 0, 113, 5]];
        let v4 = [&v4.concat()[..], &[0, 9, 0, 9, 0, 8, 0, 0]].concat();
        let v6 = [&[2; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 59, 64], &[0x20; 16], &[0x21; 16]].concat();
        for frame in [&v4, &v6] {
            let packet = read(Side::Outside, frame, 1522).expect("an IP packet");
            assert_eq!(likely_source(frame), Some(packet.source));
        }
        for short in [&v4[..29], &v6[..37], &[8; 13]] {
            assert_eq!(likely_source(short), None);
        }
    }

    #[test]
    fn lengths_come_first() {
        let cases = [(0, Reason::EthernetTruncated), (13, Reason::EthernetTruncated), (1523, Reason::FrameTooLong)];
        for (length, reason) in cases {
            assert_eq!(read(Side::Inside, &vec![0x81; length], max_frame(1500)), Err(reason), "{length} bytes");
        }
        assert_eq!(class([0; 6], &[0x81, 0x00, 0, 1, 8]), Reason::EthernetTruncated);
    }
}
