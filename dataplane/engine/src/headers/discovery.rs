//! Neighbour discovery (RFC 4861): ICMPv6 messages of types 133 to 137.
//!
//! ```text
//! 0      1      2          4             8
//! +------+------+----------+-------------+-----------------------------+---------------------------
//! | type | 0    | checksum | flags,      | router adv.: timers         | options: type, length in
//! |      |      |          | reserved    | neighbour: target, redirect:| 8 bytes, content
//! |      |      |          |             | target, destination         |
//! +------+------+----------+-------------+-----------------------------+---------------------------
//! ```
//! A message is well-formed if RFC 4861 lets receivers accept it (6.1, 7.1, 8.1) and if hosts and routers send such
//! messages. These frames pass without a rule, so the bytes that an attacker can transmit in them must be bounded. The
//! reader is stricter than receivers:
//!
//! - the message directly follows the IPv6 header (RFC 6980 forbids fragments), and no bytes follow the message: the
//!   shortest message fills Ethernet's minimum, so there is no padding;
//! - reserved bits are zero, as senders must set them. Router advertisements are exempt, because new flags are still
//!   defined;
//! - the IPv6 and Ethernet destinations are those of RFC 4861, RFC 9131 and RFC 2464. A multicast packet may go to one
//!   station (RFC 6085);
//! - the options together have a bounded length. Within it, unknown options pass, because RFC 4861 requires receivers
//!   to ignore them.

use std::net::Ipv6Addr;

use etherparse::checksum::Sum16BitWords;
use knockplane_policy::frames::FrameClass;

use super::{ETHERNET_LENGTH, Mac, is_station};

/// Maximum number of bytes of options in solicitations and neighbour advertisements. Options carry a link-layer address
/// (8 bytes) and, for duplicate address detection, a nonce (8; RFC 7527). The rest has room for one more option, such
/// as the 16 bytes of an address registration (RFC 8505). A smaller limit would drop messages that RFC 4861 allows. A
/// larger limit would let an attacker transmit more bytes inwards. The signatures of SEND (RFC 3971) do not fit.
const MAX_OPTIONS: usize = 32;

/// Maximum length of a packet with a router advertisement or redirect: IPv6's minimum MTU. A redirect must not exceed
/// this MTU (RFC 4861, 4.5). A router keeps advertisements within this MTU, because they must not be fragmented (RFC
/// 6980).
const MAX_PACKET: usize = 1280;

const IPV6_HEADER: usize = 40;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Options with a known length over Ethernet. Source: RFC 2464, 6; RFC 4861, 4.6.
mod option {
    pub(super) const SOURCE_LINK_LAYER: u8 = 1;
    pub(super) const TARGET_LINK_LAYER: u8 = 2;
    pub(super) const PREFIX: u8 = 3;
    pub(super) const REDIRECTED: u8 = 4;
    pub(super) const MTU: u8 = 5;
}

/// The messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    RouterSolicitation,
    RouterAdvertisement,
    NeighbourSolicitation,
    NeighbourAdvertisement,
    Redirect,
}

impl Kind {
    /// The message of this ICMPv6 type.
    pub(super) const fn of(kind: u8) -> Option<Kind> {
        match kind {
            133 => Some(Kind::RouterSolicitation),
            134 => Some(Kind::RouterAdvertisement),
            135 => Some(Kind::NeighbourSolicitation),
            136 => Some(Kind::NeighbourAdvertisement),
            137 => Some(Kind::Redirect),
            _ => None,
        }
    }

    const fn class(self) -> FrameClass {
        match self {
            Kind::RouterAdvertisement => FrameClass::RouterAdvertisement,
            Kind::Redirect => FrameClass::Redirect,
            _ => FrameClass::NeighbourDiscovery,
        }
    }

    /// The number of bytes in front of the options.
    const fn fixed_length(self) -> usize {
        match self {
            Kind::RouterSolicitation => 8,
            Kind::RouterAdvertisement => 16,
            Kind::NeighbourSolicitation | Kind::NeighbourAdvertisement => 24,
            Kind::Redirect => 40,
        }
    }

    const fn max_options(self) -> usize {
        match self {
            Kind::RouterAdvertisement | Kind::Redirect => MAX_PACKET - IPV6_HEADER - self.fixed_length(),
            _ => MAX_OPTIONS,
        }
    }
}

/// A message directly behind the IPv6 header, with nothing behind it.
pub(super) struct Message<'f> {
    pub(super) ethernet: &'f [u8; ETHERNET_LENGTH],
    pub(super) hop_limit: u8,
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) bytes: &'f [u8],
}

impl Message<'_> {
    /// The class of a well-formed message.
    pub(super) fn class(&self) -> Option<FrameClass> {
        let kind = Kind::of(*self.bytes.first()?)?;
        let (fixed, options) = self.bytes.split_at_checked(kind.fixed_length())?;
        let is_local = self.hop_limit == 255 && fixed[1] == 0;
        let is_well_formed = is_local
            && self.is_addressed()
            && self.means(kind, fixed)
            && options.len() <= kind.max_options()
            && self.are_well_formed(options)
            && self.checksum_is_right();
        is_well_formed.then_some(kind.class())
    }

    /// Whether the Ethernet addresses match the addresses of the packet.
    fn is_addressed(&self) -> bool {
        let (to, from) = super::macs(self.ethernet);
        is_station(from)
            && match multicast_mac(self.destination) {
                Some(mac) => to == mac || is_station(to),
                None => is_host(self.destination) && is_station(to),
            }
    }

    /// Whether addresses and fixed fields are valid for this kind of message. `fixed` has the kind's fixed length.
    fn means(&self, kind: Kind, fixed: &[u8]) -> bool {
        let Message { source, destination, .. } = *self;
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        let is_to = |group: &[Ipv6Addr]| group.contains(&destination) || is_host(destination);
        match kind {
            Kind::RouterSolicitation => {
                (source.is_unspecified() || is_host(source)) && is_to(&[ALL_ROUTERS]) && is_zero(&fixed[4..8])
            }
            Kind::RouterAdvertisement => source.is_unicast_link_local() && is_to(&[ALL_NODES]),
            Kind::NeighbourSolicitation => {
                let target = address(fixed, 8);
                let to_group = destination == solicited_node(target);
                let who = if source.is_unspecified() { to_group } else { is_host(source) };
                who && (to_group || destination == target) && is_host(target) && is_zero(&fixed[4..8])
            }
            Kind::NeighbourAdvertisement => {
                let is_solicited = fixed[4] & 0x40 != 0;
                let reserved = [fixed[4] & 0x1f, fixed[5], fixed[6], fixed[7]];
                is_host(source)
                    && is_host(address(fixed, 8))
                    && is_to(if is_solicited { &[] } else { &[ALL_NODES, ALL_ROUTERS] })
                    && is_zero(&reserved)
            }
            Kind::Redirect => {
                let (target, of) = (address(fixed, 8), address(fixed, 24));
                source.is_unicast_link_local()
                    && is_host(destination)
                    && is_host(of)
                    && (target == of || target.is_unicast_link_local())
                    && is_zero(&fixed[4..8])
            }
        }
    }

    /// Whether every option is complete and has its known length, if any. A message without a source address must have
    /// no source link-layer address (RFC 4861, 6.1.1 and 7.1.1).
    fn are_well_formed(&self, mut options: &[u8]) -> bool {
        while let Some([number, units]) = options.first_chunk().copied() {
            let Some((option, behind)) = options.split_at_checked(usize::from(units) * 8) else { return false };
            let is_well_formed = match number {
                _ if units == 0 => false,
                option::SOURCE_LINK_LAYER if self.source.is_unspecified() => false,
                option::SOURCE_LINK_LAYER | option::TARGET_LINK_LAYER => {
                    units == 1 && is_station([2, 3, 4, 5, 6, 7].map(|byte| option[byte]))
                }
                option::PREFIX => units == 4,
                // The option contains at least the header of the redirected packet.
                option::REDIRECTED => units >= 6,
                option::MTU => units == 1,
                _ => true,
            };
            if !is_well_formed {
                return false;
            }
            options = behind;
        }
        options.is_empty()
    }

    /// Source: RFC 4443, 2.3; RFC 8200, 8.1.
    fn checksum_is_right(&self) -> bool {
        let sum = Sum16BitWords::new()
            .add_16bytes(self.source.octets())
            .add_16bytes(self.destination.octets())
            .add_4bytes((self.bytes.len() as u32).to_be_bytes())
            .add_4bytes([0, 0, 0, etherparse::IpNumber::IPV6_ICMP.0]);
        sum.add_slice(self.bytes).ones_complement() == 0
    }
}

/// The address at this offset of a message's fixed part. The fixed part must contain the whole address.
fn address(fixed: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&fixed[at..at + 16]);
    octets.into()
}

/// The target of a message and, in a redirect, the destination; `None` if the message has no such field or is too
/// short.
pub(super) fn targets(message: &[u8]) -> [Option<Ipv6Addr>; 2] {
    let kind = message.first().and_then(|kind| Kind::of(*kind));
    let fixed = kind.and_then(|kind| message.get(..kind.fixed_length()));
    match (kind, fixed) {
        (Some(Kind::NeighbourSolicitation | Kind::NeighbourAdvertisement), Some(fixed)) => {
            [Some(address(fixed, 8)), None]
        }
        (Some(Kind::Redirect), Some(fixed)) => [Some(address(fixed, 8)), Some(address(fixed, 24))],
        _ => [None; 2],
    }
}

/// The solicited-node multicast address of this target. Source: RFC 4291, 2.7.1.
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet destination of a multicast packet. Source: RFC 2464, 7.
fn multicast_mac(destination: Ipv6Addr) -> Option<Mac> {
    let [.., a, b, c, d] = destination.octets();
    destination.is_multicast().then_some([0x33, 0x33, a, b, c, d])
}

/// Whether a host on an Ethernet can have this address. Source: RFC 4291, 2.5.
fn is_host(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
}
