//! The flow of a frame: the key of a verdict. `read_flow` of `bpf/fast_path.h` reads the same flows.
//!
//! A frame has a flow only if one comparison of fields identifies all packets that rules cannot tell apart, except by
//! length and by fields for a closer look: TCP and UDP, without fragments, options and extension headers, and with at
//! most one VLAN tag.

use std::net::IpAddr;

use knockplane_policy::packet::Side;
use knockplane_policy::strangers::{PacketKind, mix};

/// Ethertypes. Source: IEEE 802 Numbers, IANA.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;

/// IP protocols. Source: Assigned Internet Protocol Numbers, IANA.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The flag SYN alone. Source: RFC 9293, 3.1.
const SYN: u8 = 0x02;

/// The number of words of the two families.
pub(super) const WORDS: [usize; 2] = [2, 5];

/// The flow of a frame from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Addresses and ports as in the packet, then `kind` of `bpf/fast_path.h`.
    words: [u64; 5],
    /// The family: 0 for IPv4, 1 for IPv6.
    family: usize,
    side: Side,
}

impl Flow {
    /// The flow of a frame from this side; `None` if it has none.
    pub fn of(side: Side, frame: &[u8]) -> Option<Flow> {
        Flow::with_kind(side, frame).map(|(flow, _)| flow)
    }

    /// The flow of a frame, and its kind among the packets of the flow.
    pub(super) fn with_kind(side: Side, frame: &[u8]) -> Option<(Flow, PacketKind)> {
        let (header, mut bytes) = frame.split_first_chunk::<14>()?;
        let mut ethertype = u16::from_be_bytes([header[12], header[13]]);
        let mut vlan = 0;
        if ethertype == VLAN {
            let (tag, behind) = bytes.split_first_chunk::<4>()?;
            vlan = u16::from_be_bytes([tag[0], tag[1]]) & 0xfff;
            ethertype = u16::from_be_bytes([tag[2], tag[3]]);
            bytes = behind;
            if vlan == 0 {
                return None;
            }
        }
        let kind = |protocol: u8| u64::from(protocol) | (side.index() as u64) << 8 | u64::from(vlan) << 16;
        match ethertype {
            IPV4 => {
                let header = bytes.first_chunk::<20>()?;
                let is_fragment = header[6] & 0x3f != 0 || header[7] != 0;
                if header[0] != 0x45 || is_fragment {
                    return None;
                }
                let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
                let (ports, packet_kind) = transport(header[9], bytes.get(20..length)?)?;
                let addresses = u64::from_ne_bytes(*header[12..].first_chunk()?);
                let words = [addresses, ports | kind(header[9]) << 32, 0, 0, 0];
                Some((Flow { words, family: 0, side }, packet_kind))
            }
            IPV6 => {
                let header = bytes.first_chunk::<40>()?;
                if header[0] >> 4 != 6 {
                    return None;
                }
                let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
                let (ports, packet_kind) = transport(header[6], bytes.get(40..40 + length)?)?;
                let mut words = [0; 5];
                for (word, bytes) in words.iter_mut().zip(header[8..].as_chunks().0) {
                    *word = u64::from_ne_bytes(*bytes);
                }
                words[4] = ports | kind(header[6]) << 32;
                Some((Flow { words, family: 1, side }, packet_kind))
            }
            _ => None,
        }
    }

    /// A hash for tables that any sender may fill: it is not keyed.
    pub fn short_hash(&self) -> u64 {
        self.hash(0)
    }

    /// The destination port.
    pub(super) fn destination_port(&self) -> u16 {
        u16::from_be((self.words()[WORDS[self.family] - 1] >> 16) as u16)
    }

    /// The source and the destination.
    pub(super) fn addresses(&self) -> [IpAddr; 2] {
        match self.family {
            0 => [0, 32].map(|shift: u32| IpAddr::from(((self.words[0] >> shift) as u32).to_ne_bytes())),
            _ => [0, 2].map(|at: usize| {
                let halves = [self.words[at], self.words[at + 1]].map(u64::from_be);
                IpAddr::from((u128::from(halves[0]) << 64 | u128::from(halves[1])).to_be_bytes())
            }),
        }
    }

    /// 0 for IPv4, 1 for IPv6.
    pub(super) const fn family(&self) -> usize {
        self.family
    }

    /// The words of the key.
    pub(super) fn words(&self) -> &[u64] {
        &self.words[..WORDS[self.family]]
    }

    /// The hash that selects the first place of the flow within its region.
    pub(super) fn hash(&self, secret: u64) -> u64 {
        self.words().iter().fold(secret, |hash, word| mix(hash, *word))
    }

    /// The hash of the address on the outside.
    pub(super) fn outer_hash(&self, secret: u64) -> u64 {
        let secret = secret ^ 0x6a09_e667_f3bc_c908;
        let is_source = self.side == Side::Outside;
        match self.family {
            0 => mix(secret, if is_source { self.words[0] & u64::from(u32::MAX) } else { self.words[0] >> 32 }),
            _ => {
                let first = if is_source { 0 } else { 2 };
                mix(mix(secret, self.words[first]), self.words[first + 1])
            }
        }
    }
}

/// The ports, as in the packet, and the kind of packet, if the transport header is complete. `data` are the bytes behind the IP
/// header.
fn transport(protocol: u8, data: &[u8]) -> Option<(u64, PacketKind)> {
    let (is_complete, kind) = match protocol {
        TCP => {
            let (offset, flags) = (usize::from(*data.get(12)? >> 4) * 4, *data.get(13)?);
            let kind = if flags == SYN { PacketKind::Syn } else { PacketKind::Segment };
            (data.len() >= 20 && (20..=data.len()).contains(&offset), kind)
        }
        UDP => {
            let length = usize::from(u16::from_be_bytes([*data.get(4)?, *data.get(5)?]));
            (data.len() >= 8 && (8..=data.len()).contains(&length), PacketKind::Datagram)
        }
        _ => return None,
    };
    let ports = data.first_chunk().filter(|_| is_complete)?;
    Some((u32::from_ne_bytes(*ports).into(), kind))
}
