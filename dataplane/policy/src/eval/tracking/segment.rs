//! The fields of a TCP segment that tracking uses.

use super::window::is_after;
use crate::packet::{Packet, Side, TcpFlag, options_of};
use crate::word::Set;

/// Kinds of TCP options. Source: IANA, TCP Option Kind Numbers.
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;

/// The options of most segments with options: two padding options, then timestamps. Source: RFC 7323, appendix A.
const TIMESTAMPS_ALONE: [u8; 4] = [1, 1, 8, 10];

/// The kind of a segment, by its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// SYN: a connection begins.
    Syn,
    /// SYN-ACK: the connection is accepted.
    SynAck,
    /// FIN: the sender has no more data.
    Fin,
    /// ACK: all other segments of a connection.
    Ack,
    /// RST: the connection does not exist, or not any more.
    Rst,
}

/// The fields of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'p> {
    pub(super) kind: SegmentKind,
    /// The side on which the segment arrived.
    pub(super) side: Side,
    pub(super) sequence: u32,
    /// The sequence number after its data. A SYN and a FIN count one each. For a first fragment only its own data
    /// counts.
    pub(super) end: u32,
    /// The acknowledgement number; 0 without the ACK flag.
    pub(super) acknowledgement: u32,
    pub(super) acknowledges: bool,
    /// The window field, not scaled.
    pub(super) window: u16,
    options: &'p [u8],
    /// Bytes of the header, with options.
    header: u32,
}

/// The options of a SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SynOptions {
    /// The window scale, if its sender offers window scaling. Source: RFC 7323, 2.2.
    pub(super) scale: Option<u8>,
    /// Whether its sender supports SACK. Source: RFC 2018, 2.
    pub(super) reads_sack: bool,
}

impl SegmentKind {
    /// The kind of these flags; `None` for impossible flags: no flag at all, SYN with FIN or RST, FIN without ACK, and
    /// so on. PSH and the two ECN flags may always be set, URG with segments that carry data.
    #[inline]
    pub fn of(flags: Set<TcpFlag>) -> Option<SegmentKind> {
        const FIN: u16 = bit(TcpFlag::Fin);
        const SYN: u16 = bit(TcpFlag::Syn);
        const RST: u16 = bit(TcpFlag::Rst);
        const ACK: u16 = bit(TcpFlag::Ack);
        const URG: u16 = bit(TcpFlag::Urg);
        const ALWAYS: u16 = bit(TcpFlag::Psh) | bit(TcpFlag::Ece) | bit(TcpFlag::Cwr);
        // Numbers instead of sets, because this runs for every segment.
        let said = flags.bits() & !ALWAYS;
        Some(if said & !URG == ACK {
            SegmentKind::Ack
        } else if said & !URG == SYN {
            SegmentKind::Syn
        } else if said == SYN | ACK {
            SegmentKind::SynAck
        } else if said & !URG == FIN | ACK {
            SegmentKind::Fin
        } else if said & !ACK == RST {
            SegmentKind::Rst
        } else {
            return None;
        })
    }
}

/// A flag's bit in a set.
const fn bit(flag: TcpFlag) -> u16 {
    1 << flag as u16
}

impl<'p> Segment<'p> {
    /// Parses the TCP header of a packet, which is whole or a first fragment. `None` if there is no header, or its
    /// flags are impossible.
    #[inline]
    pub fn of(packet: &Packet<'p>, is_fragment: bool) -> Option<Segment<'p>> {
        let header = packet.tcp_header()?;
        let flags = Set::from_bits(header[13].into());
        let kind = match SegmentKind::of(flags)? {
            // Only the last fragment shows where the FIN is.
            SegmentKind::Fin if is_fragment => SegmentKind::Ack,
            kind => kind,
        };
        let four = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let marks = matches!(kind, SegmentKind::Syn | SegmentKind::SynAck | SegmentKind::Fin);
        let acknowledges = flags.contains(TcpFlag::Ack);
        let sequence = four(4);
        let length = u32::from(header[12] >> 4) * 4;
        Some(Segment {
            kind,
            side: packet.side,
            sequence,
            end: sequence.wrapping_add(packet.payload.len() as u32 + u32::from(marks)),
            acknowledgement: if acknowledges { four(8) } else { 0 },
            acknowledges,
            window: u16::from_be_bytes([header[14], header[15]]),
            options: if length > 20 { packet.tcp_options().unwrap_or_default() } else { &[] },
            header: length,
        })
    }

    /// The sequence number of the datagram's first byte, from which the end of a later fragment's data follows.
    pub fn base(&self) -> u32 {
        let syn = matches!(self.kind, SegmentKind::Syn | SegmentKind::SynAck);
        self.sequence.wrapping_add(u32::from(syn)).wrapping_sub(self.header)
    }

    /// Whether the segment has neither data nor a FIN.
    pub(super) const fn is_empty(&self) -> bool {
        self.sequence == self.end
    }

    /// The highest number that the sender acknowledges: the acknowledgement number, or a later right edge of a SACK
    /// block. Source: RFC 2018, 3.
    pub(super) fn highest(&self) -> u32 {
        if self.options.is_empty() || self.options.len() == 12 && self.options.starts_with(&TIMESTAMPS_ALONE) {
            return self.acknowledgement;
        }
        let mut options = options_of(self.options);
        let blocks = options.find_map(|option| option.filter(|(kind, _)| *kind == SACK));
        let (edges, rest) = blocks.map_or_else(Default::default, |(_, value)| value.as_chunks::<8>());
        if !rest.is_empty() {
            return self.acknowledgement;
        }
        edges.iter().fold(self.acknowledgement, |highest, [_, _, _, _, a, b, c, d]| {
            let edge = u32::from_be_bytes([*a, *b, *c, *d]);
            if is_after(edge, highest) { edge } else { highest }
        })
    }

    /// Parses the options of a SYN.
    pub(super) fn syn_options(&self) -> SynOptions {
        let mut said = SynOptions::default();
        for (kind, value) in options_of(self.options).flatten() {
            match (kind, value) {
                // Source: RFC 7323, 2.3: more than 14 means 14.
                (WINDOW_SCALE, [scale]) => said.scale = Some((*scale).min(14)),
                (SACK_PERMITTED, []) => said.reads_sack = true,
                _ => {}
            }
        }
        said
    }
}
