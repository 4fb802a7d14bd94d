//! The sequence numbers of a TCP connection, as an observer between its ends derives them. This module is arithmetic
//! only; `tcp` derives the effects.
//!
//! ```text
//!            acknowledged        next             end                      limit
//!                 │               │                │                         │
//! ────────────────┼───────────────┼────────────────┼─────────────────────────┼──────→ numbers of one end
//!   the peer has  │  sent without │ sent, but with │   the peer has room     │
//!   this          │  gaps         │ a gap before   │   for this              │
//! ```
//! A segment is **in the window** under two conditions. It begins at or before `limit`, and ends at most the peer's
//! largest window before `acknowledged`. And the number that it acknowledges was sent, and is at most its own end's
//! largest window before the last acknowledgement. Only segments in the window change these numbers, and the numbers
//! only increase. They count modulo 2³²: a number is after another one if it is ahead by less than half of 2³².
//!
//! If tracking begins in the middle of a connection, the window scale is not known: the largest possible windows are
//! assumed. Such a connection accepts data after the window, because numbers from a forged segment must not lock out
//! the real ends.
//!
//! Source: RFC 9293, 3.4 and 3.10; RFC 7323 for window scaling; Guido van Rooij, "Real Stateful TCP Packet Filtering in
//! IP Filter", 2000, for the conditions; RFC 5961, 3 for resets; RFC 5927, 4.1 for ICMP errors.

use super::segment::{Segment, SegmentKind, SynOptions};

/// Minimum distance by which a segment may be in the past, because recently acknowledged data may be retransmitted or
/// arrive late. It is about the largest window without scaling. A larger value would accept more forgeries, a smaller
/// one fewer late segments. Netfilter and pf use a similar value.
const SLACK: u32 = 66_000;

/// The largest window scale: assumed if the scale is not known. Source: RFC 7323, 2.3.
const LARGEST_SCALE: u8 = 14;

/// Whether a number is after another one.
pub(super) const fn is_after(number: u32, other: u32) -> bool {
    (other.wrapping_sub(number) as i32) < 0
}

const fn later(number: u32, other: u32) -> u32 {
    if is_after(number, other) { number } else { other }
}

/// The known numbers of one end. Its window is 0 until one of its segments arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sender {
    /// The number after all data that this end has sent.
    end: u32,
    /// The number after all data that this end has sent without a gap. The peer expects it next, if it received all
    /// data.
    next: u32,
    /// The number up to which the peer has acknowledged data.
    acknowledged: u32,
    /// The highest number at which this end may begin a segment.
    limit: u32,
    /// The largest window that this end has offered, in bytes.
    window: u32,
    /// The window scale; for an unanswered SYN, the offered one.
    scale: u8,
    flags: u8,
}

/// Flags of a [`Sender`].
mod flag {
    /// The SYN of this end offers window scaling.
    pub(super) const SCALES: u8 = 1;
    /// This end supports SACK.
    pub(super) const READS_SACK: u8 = 2;
    /// The byte before `end` is a FIN.
    pub(super) const FIN: u8 = 4;
    /// The SYN of this end is not acknowledged.
    pub(super) const SYN: u8 = 8;
}

/// The numbers of both ends: the originator's, then the responder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    ends: [Sender; 2],
    /// Whether tracking began in the middle of the connection.
    learned: bool,
}

/// The numbers of both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowNumbers {
    /// The largest window that each end has offered. They seldom change.
    pub windows: [u32; 2],
    /// `end`, `next`, `acknowledged` and `limit` of both ends. Segments with data change them.
    pub sequences: [u32; 8],
}

/// Progress of closing, by the FINs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// One end has sent all data and its FIN.
    One,
    /// The other end has acknowledged the FIN.
    OneKnown,
    /// Both ends have sent all data and their FINs.
    Both,
    /// Both ends have acknowledged the FINs.
    BothKnown,
}

impl Sender {
    fn opened(segment: &Segment<'_>) -> Sender {
        let sender = Sender::asks(segment.sequence, segment.window, segment.syn_options());
        Sender { end: segment.end, next: segment.end, limit: segment.end, ..sender }
    }

    /// The numbers of an end that has sent only a SYN with these values.
    fn asks(sequence: u32, window: u16, options: SynOptions) -> Sender {
        let end = sequence.wrapping_add(1);
        let mut flags = flag::SYN;
        flags |= if options.scale.is_some() { flag::SCALES } else { 0 };
        flags |= if options.reads_sack { flag::READS_SACK } else { 0 };
        Sender {
            end,
            next: end,
            acknowledged: sequence,
            limit: end,
            window: u32::from(window).max(1),
            scale: options.scale.unwrap_or_default(),
            flags,
        }
    }

    /// The window that a segment offers, in bytes; at least one byte, which a probe may fill.
    #[inline]
    fn offered(scale: u8, segment: &Segment<'_>) -> u32 {
        (u32::from(segment.window) << scale).max(1)
    }

    /// Records data that this end sent in its window.
    #[inline]
    fn send(&mut self, segment: &Segment<'_>) {
        if segment.is_empty() {
            return;
        }
        if is_after(segment.end, self.end) {
            self.end = segment.end;
            self.flags &= !flag::FIN;
            self.flags |= if segment.kind == SegmentKind::Fin { flag::FIN } else { 0 };
        }
        if !is_after(segment.sequence, self.next) {
            self.next = later(segment.end, self.next);
        }
    }

    /// Records that the peer acknowledges this number and offers this window.
    #[inline]
    fn hear(&mut self, acknowledgement: u32, room: u32) {
        self.acknowledged = later(acknowledgement, self.acknowledged);
        self.next = later(self.next, acknowledgement);
        if is_after(acknowledgement, self.end) {
            self.end = acknowledgement;
            self.flags &= !flag::FIN;
        }
        self.limit = later(acknowledgement.wrapping_add(room), self.limit);
        self.flags &= !flag::SYN;
    }

    /// Whether this end has sent all data and its FIN.
    const fn has_finished(&self) -> bool {
        self.flags & flag::FIN != 0 && self.next == self.end
    }
}

impl Windows {
    /// The number of bits of the flags in [`Windows::pack`]: scale and flags of each end, 4 bits each, and `learned`.
    pub(super) const FLAG_BITS: u32 = 17;

    /// The numbers, and the rest in bits.
    #[inline]
    pub(super) fn pack(&self) -> (WindowNumbers, u32) {
        let Windows { ends: [one, other], learned } = self;
        let bits = |sender: &Sender| u32::from(sender.scale) | u32::from(sender.flags) << 4;
        let windows = [one.window, other.window];
        let sequences =
            [one.end, one.next, one.acknowledged, one.limit, other.end, other.next, other.acknowledged, other.limit];
        (WindowNumbers { windows, sequences }, bits(one) | bits(other) << 8 | u32::from(*learned) << 16)
    }

    /// The inverse of [`Windows::pack`]. Ignores other bits.
    #[inline]
    pub(super) const fn unpack(numbers: &WindowNumbers, bits: u32) -> Windows {
        const fn sender(window: u32, sequences: [u32; 4], bits: u32) -> Sender {
            let [end, next, acknowledged, limit] = sequences;
            Sender { end, next, acknowledged, limit, window, scale: bits as u8 & 0xf, flags: (bits >> 4) as u8 & 0xf }
        }
        let WindowNumbers { windows: [one, other], sequences: [a, b, c, d, e, f, g, h] } = *numbers;
        let ends = [sender(one, [a, b, c, d], bits), sender(other, [e, f, g, h], bits >> 8)];
        Windows { ends, learned: bits >> 16 & 1 == 1 }
    }

    /// The numbers of a connection that begins with this SYN.
    pub(super) fn opened(segment: &Segment<'_>) -> Windows {
        Windows { ends: [Sender::opened(segment), Sender::default()], learned: false }
    }

    /// The numbers of a connection that began with a SYN of these values.
    pub(super) fn reopened(sequence: u32, window: u16, options: SynOptions) -> Windows {
        Windows { ends: [Sender::asks(sequence, window, options), Sender::default()], learned: false }
    }

    /// The numbers of a connection whose tracking begins at this segment.
    pub(super) fn learned(segment: &Segment<'_>) -> Windows {
        let (window, ack) = (Sender::offered(LARGEST_SCALE, segment), segment.acknowledgement);
        let known = Sender { scale: LARGEST_SCALE, flags: flag::READS_SACK, ..Sender::default() };
        let sender = Sender {
            end: segment.end,
            next: segment.end,
            acknowledged: segment.sequence,
            limit: segment.end.wrapping_add(window),
            window,
            ..known
        };
        let peer = Sender { end: ack, next: ack, acknowledged: ack, limit: ack.wrapping_add(window), ..known };
        Windows { ends: [sender, peer], learned: true }
    }

    /// Records the SYN of the responder in a simultaneous open.
    pub(super) fn cross(&mut self, segment: &Segment<'_>) {
        self.ends[1] = Sender::opened(segment);
        self.ends[1].limit = segment.end.wrapping_add(self.ends[0].window);
        self.ends[0].limit = later(self.ends[0].limit, self.ends[0].end.wrapping_add(self.ends[1].window));
    }

    /// Whether a segment from this end is the first to acknowledge the other end's SYN.
    pub(super) fn acknowledges_syn(&self, from: usize, segment: &Segment<'_>) -> bool {
        let (peer, ack) = (&self.ends[1 - from], segment.acknowledgement);
        segment.acknowledges
            && peer.flags & flag::SYN != 0
            && is_after(ack, peer.acknowledged)
            && !is_after(ack, peer.end)
    }

    /// Whether a SYN-ACK answers the same SYN with another initial number: servers that use SYN cookies do that.
    pub(super) fn accepts_anew(&self, from: usize, segment: &Segment<'_>) -> bool {
        let (sender, peer) = (&self.ends[from], &self.ends[1 - from]);
        segment.acknowledgement == peer.acknowledged
            && sender.flags & flag::SYN != 0
            && sender.acknowledged != segment.sequence
    }

    /// Records that this end accepts the connection with a SYN-ACK. Windows are scaled only if both ends offer it.
    /// Source: RFC 7323, 2.2.
    pub(super) fn accept(&mut self, from: usize, segment: &Segment<'_>) {
        let mut sender = Sender::opened(segment);
        let peer = &mut self.ends[1 - from];
        if sender.flags & peer.flags & flag::SCALES == 0 {
            (sender.scale, peer.scale) = (0, 0);
        }
        sender.limit = sender.end.wrapping_add(peer.window);
        peer.hear(segment.acknowledgement, sender.window);
        self.ends[from] = sender;
    }

    /// Whether a SYN from this end could be a late segment of this connection, because its number was used.
    pub(super) const fn has_used(&self, from: usize, sequence: u32) -> bool {
        let sender = &self.ends[from];
        !is_after(sequence, sender.end) && !is_after(sender.acknowledged.wrapping_sub(SLACK), sequence)
    }

    /// Whether a segment from this end that is neither SYN nor RST is in the window.
    #[inline]
    pub(super) fn holds(&self, from: usize, segment: &Segment<'_>) -> bool {
        let (sender, peer) = (&self.ends[from], &self.ends[1 - from]);
        let is_ahead = is_after(segment.sequence, sender.limit)
            // No data follows a FIN.
            || sender.has_finished() && is_after(segment.end, sender.end);
        let back = sender.acknowledged.wrapping_sub(peer.window).wrapping_sub(SLACK);
        let is_behind = !self.learned && is_after(back, segment.end);
        !is_ahead && !is_behind && self.may_acknowledge(from, segment)
    }

    /// Whether an end may acknowledge the number that this segment acknowledges.
    #[inline]
    fn may_acknowledge(&self, from: usize, segment: &Segment<'_>) -> bool {
        let (sender, peer) = (&self.ends[from], &self.ends[1 - from]);
        let highest = if peer.flags & flag::READS_SACK != 0 { segment.highest() } else { segment.acknowledgement };
        if self.learned {
            // Data of the peer from before the first received segment is within the window that this end offered.
            return !is_after(highest, peer.end.wrapping_add(sender.window));
        }
        let back = if peer.flags & flag::SYN != 0 {
            // No data of the peer was acknowledged yet, so this must be a first acknowledgement.
            peer.acknowledged.wrapping_add(1)
        } else {
            peer.acknowledged.wrapping_sub(if sender.window > SLACK { sender.window } else { SLACK })
        };
        !is_after(highest, peer.end) && !is_after(back, segment.acknowledgement)
    }

    /// Updates the numbers after a segment from this end in the window.
    #[inline]
    pub(super) fn take(&mut self, from: usize, segment: &Segment<'_>) {
        if self.ends[from].window == 0 {
            return self.learn_answer(from, segment);
        }
        let sender = &mut self.ends[from];
        let room = Sender::offered(sender.scale, segment);
        sender.window = sender.window.max(room);
        sender.send(segment);
        self.ends[1 - from].hear(segment.acknowledgement, room);
    }

    /// Whether the first segment of the other end fits the numbers learned from one end.
    pub(super) fn answers(&self, from: usize, segment: &Segment<'_>) -> bool {
        let (sender, peer) = (&self.ends[from], &self.ends[1 - from]);
        let window = Sender::offered(LARGEST_SCALE, segment);
        let ack = segment.acknowledgement;
        !is_after(segment.sequence, sender.limit)
            && !is_after(sender.acknowledged.wrapping_sub(peer.window).wrapping_sub(SLACK), segment.end)
            && !is_after(ack, peer.end.wrapping_add(window))
            && !is_after(peer.acknowledged.wrapping_sub(window.max(SLACK)), ack)
    }

    /// Records the first segment of an end whose numbers were known only from the peer's acknowledgements.
    fn learn_answer(&mut self, from: usize, segment: &Segment<'_>) {
        let room = Sender::offered(LARGEST_SCALE, segment);
        let sender = &mut self.ends[from];
        sender.window = room;
        // The data in between was sent before the first received segment.
        sender.next = later(segment.sequence, sender.next);
        sender.end = sender.next;
        sender.send(segment);
        let peer = &mut self.ends[1 - from];
        peer.acknowledged = segment.acknowledgement;
        peer.hear(segment.acknowledgement, room);
    }

    /// Whether a RST from this end has a number that the peer may expect: after the data that the peer acknowledged, or
    /// after the data that was sent to the peer. Source: RFC 5961, 3.2.
    pub(super) fn resets(&self, from: usize, segment: &Segment<'_>) -> bool {
        let sender = &self.ends[from];
        (segment.sequence == sender.next || segment.sequence == sender.acknowledged)
            && self.reset_acknowledges(from, segment)
    }

    /// The number that the peer of this end has acknowledged, and the number after all data that was sent to the peer
    /// without a gap. The peer expects one of the two next.
    pub(super) const fn expected(&self, from: usize) -> [u32; 2] {
        [self.ends[from].acknowledged, self.ends[from].next]
    }

    /// Whether the peer challenges a RST from this end: the number of the RST is in the window, but not exactly the
    /// next one. Source: RFC 5961, 3.2.
    pub(super) fn challenges(&self, from: usize, segment: &Segment<'_>) -> bool {
        let sender = &self.ends[from];
        !is_after(sender.acknowledged, segment.sequence)
            && !is_after(segment.sequence, sender.limit)
            && self.reset_acknowledges(from, segment)
    }

    /// Whether the acknowledgement number of a RST is valid: a number that the end may acknowledge, or 0, because many
    /// stacks set the ACK flag of a RST and acknowledge nothing.
    fn reset_acknowledges(&self, from: usize, segment: &Segment<'_>) -> bool {
        segment.acknowledgement == 0 || self.may_acknowledge(from, segment)
    }

    /// Whether a RST from the originator has the number after its SYN, and so withdraws the SYN.
    pub(super) const fn takes_back(&self, segment: &Segment<'_>) -> bool {
        segment.sequence == self.ends[0].end
    }

    /// Whether a segment with this number from this end can be in flight, so that an ICMP error could be about it:
    /// unacknowledged data, a keep-alive, or the next acknowledgement. Source: RFC 5927, 4.1.
    pub(super) const fn is_on_its_way(&self, from: usize, sequence: u32) -> bool {
        let sender = &self.ends[from];
        (sender.window > 0 || self.learned)
            && !is_after(sequence, sender.end)
            && !is_after(sender.acknowledged.wrapping_sub(1), sequence)
    }

    /// Records that later fragments of a segment from this end reach this number.
    pub(super) fn extend(&mut self, from: usize, end: u32) {
        let sender = &mut self.ends[from];
        if is_after(end, sender.end) && !sender.has_finished() {
            sender.end = end;
            sender.flags &= !flag::FIN;
        }
    }

    /// The numbers and the window scale of each end, if every further segment without SYN, FIN and RST is judged by the
    /// windows of both ends alone.
    pub(super) fn settled(&self) -> Option<(WindowNumbers, [u8; 2])> {
        let [one, other] = &self.ends;
        let is_settled = |end: &Sender| end.flags & (flag::FIN | flag::SYN) == 0 && end.window > 0;
        (!self.learned && is_settled(one) && is_settled(other)).then(|| (self.pack().0, [one.scale, other.scale]))
    }

    /// Whether neither end has sent a FIN.
    pub(super) const fn is_open(&self) -> bool {
        (self.ends[0].flags | self.ends[1].flags) & flag::FIN == 0
    }

    /// Progress of closing; `None` if neither end has sent everything.
    pub(super) const fn closing(&self) -> Option<Closing> {
        let [one, other] = &self.ends;
        Some(match (one.has_finished(), other.has_finished()) {
            (false, false) => return None,
            (true, true) if one.acknowledged == one.end && other.acknowledged == other.end => Closing::BothKnown,
            (true, true) => Closing::Both,
            (true, false) if one.acknowledged == one.end => Closing::OneKnown,
            (false, true) if other.acknowledged == other.end => Closing::OneKnown,
            _ => Closing::One,
        })
    }
}
