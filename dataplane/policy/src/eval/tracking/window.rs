//! The sequence numbers of a TCP connection, as somebody knows them who stands between its ends. Arithmetic only: what
//! follows for the connection is in `tcp`.
//!
//! ```text
//!            acknowledged        next             end                      limit
//!                 │               │                │                         │
//! ────────────────┼───────────────┼────────────────┼─────────────────────────┼──────→ numbers of one end
//!   the peer has  │  sent without │ sent, but with │   the peer has room     │
//!   this          │  gaps         │ a gap before   │   for this              │
//! ```
//! A segment is **in the window** if it begins at or before `limit`, and ends not further behind `acknowledged` than the
//! peer's largest window; and if what it acknowledges was sent, and is not further back than its own end's largest window.
//! Nothing but segments in the window moves these numbers, and they only go up. They count modulo 2³²: a number is after
//! another one if it is ahead of it by less than half of that.
//!
//! Of a connection that was taken up in its middle, the window scale is not known: windows are taken to be as large as
//! they can be. What is behind the window is let through there: numbers that were learned from a forged segment must not
//! shut the real ends out.
//!
//! Source: RFC 9293, 3.4 and 3.10; RFC 7323 for window scaling; Guido van Rooij, "Real Stateful TCP Packet Filtering in IP
//! Filter", 2000, for the conditions; RFC 5961, 3 for what resets; RFC 5927, 4.1 for ICMP errors.

use super::segment::{Segment, SegmentKind, SynOptions};

/// How far back a segment may be at least: what was acknowledged just now may still be sent again, or arrive late. About
/// the largest window without scaling. Larger numbers let more forgeries through, smaller ones fewer late segments.
/// Netfilter and pf use about the same.
const SLACK: u32 = 66_000;

/// The largest window scale there is: for what is not known. Source: RFC 7323, 2.3.
const LARGEST_SCALE: u8 = 14;

/// Whether a number is after another one.
pub(super) const fn is_after(number: u32, other: u32) -> bool {
    (other.wrapping_sub(number) as i32) < 0
}

const fn later(number: u32, other: u32) -> u32 {
    if is_after(number, other) { number } else { other }
}

/// What is known of the numbers of one end. Nothing was seen of it as long as its window is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sender {
    /// Everything it has sent is before this.
    end: u32,
    /// Everything before this it has sent without a gap: what its peer expects next, if it has got it.
    next: u32,
    /// Its peer has everything before this.
    acknowledged: u32,
    /// The last number that it may begin a segment at.
    limit: u32,
    /// The largest window that it has offered, in bytes.
    window: u32,
    /// The window scale; of a SYN that is not answered, what that asks for.
    scale: u8,
    flags: u8,
}

/// Flags of a [`Sender`].
mod flag {
    /// Its SYN asks for scaled windows.
    pub(super) const SCALES: u8 = 1;
    /// It reads SACK.
    pub(super) const READS_SACK: u8 = 2;
    /// What is right before its `end` is a FIN.
    pub(super) const FIN: u8 = 4;
    /// Its SYN is not acknowledged.
    pub(super) const SYN: u8 = 8;
}

/// The numbers of both ends: of whoever began, and of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    ends: [Sender; 2],
    /// It was taken up in its middle.
    learned: bool,
}

/// How far the ends are with closing, as far as FINs say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// One end has sent everything, and its FIN.
    One,
    /// And the other has got that.
    OneKnown,
    /// Both have sent everything.
    Both,
    /// And both have got that.
    BothKnown,
}

impl Sender {
    fn opened(segment: &Segment<'_>) -> Sender {
        let sender = Sender::asks(segment.sequence, segment.window, segment.syn_options());
        Sender { end: segment.end, next: segment.end, limit: segment.end, ..sender }
    }

    /// Of an end that has sent a SYN with these values, and nothing else.
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

    /// The window that a segment offers, in bytes. One byte at least, which a probe may fill.
    fn offered(scale: u8, segment: &Segment<'_>) -> u32 {
        (u32::from(segment.window) << scale).max(1)
    }

    /// It sent this, in its window.
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

    /// Its peer acknowledges this, and has room for so much more.
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

    /// It has sent everything, and its FIN.
    const fn has_finished(&self) -> bool {
        self.flags & flag::FIN != 0 && self.next == self.end
    }
}

impl Windows {
    /// Of a connection that begins with this SYN.
    pub(super) fn opened(segment: &Segment<'_>) -> Windows {
        Windows { ends: [Sender::opened(segment), Sender::default()], learned: false }
    }

    /// Of a connection that began with a SYN of these values.
    pub(super) fn reopened(sequence: u32, window: u16, options: SynOptions) -> Windows {
        Windows { ends: [Sender::asks(sequence, window, options), Sender::default()], learned: false }
    }

    /// Of a connection that this segment is in the middle of.
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

    /// Both ends begin: this is the SYN of the one that was to answer.
    pub(super) fn cross(&mut self, segment: &Segment<'_>) {
        self.ends[1] = Sender::opened(segment);
        self.ends[1].limit = segment.end.wrapping_add(self.ends[0].window);
        self.ends[0].limit = later(self.ends[0].limit, self.ends[0].end.wrapping_add(self.ends[1].window));
    }

    /// Whether a segment from this end acknowledges the other's SYN, which nobody has before.
    pub(super) fn acknowledges_syn(&self, from: usize, segment: &Segment<'_>) -> bool {
        let (peer, ack) = (&self.ends[1 - from], segment.acknowledgement);
        segment.acknowledges
            && peer.flags & flag::SYN != 0
            && is_after(ack, peer.acknowledged)
            && !is_after(ack, peer.end)
    }

    /// Whether a SYN-ACK is one more answer to the same SYN, of an end that begins at another number now: what servers do
    /// that keep no state until they are answered (SYN cookies).
    pub(super) fn accepts_anew(&self, from: usize, segment: &Segment<'_>) -> bool {
        let (sender, peer) = (&self.ends[from], &self.ends[1 - from]);
        segment.acknowledgement == peer.acknowledged
            && sender.flags & flag::SYN != 0
            && sender.acknowledged != segment.sequence
    }

    /// This end accepts with a SYN-ACK. Windows are scaled only if both want that. Source: RFC 7323, 2.2.
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

    /// Whether a SYN from this end could be one of the connection that comes late: its number was used.
    pub(super) const fn has_used(&self, from: usize, sequence: u32) -> bool {
        let sender = &self.ends[from];
        !is_after(sequence, sender.end) && !is_after(sender.acknowledged.wrapping_sub(SLACK), sequence)
    }

    /// Whether a segment from this end, which is no SYN and no RST, is in the window.
    #[inline]
    pub(super) fn holds(&self, from: usize, segment: &Segment<'_>) -> bool {
        let (sender, peer) = (&self.ends[from], &self.ends[1 - from]);
        let is_ahead = is_after(segment.sequence, sender.limit)
            // Nothing is behind a FIN.
            || sender.has_finished() && is_after(segment.end, sender.end);
        let back = sender.acknowledged.wrapping_sub(peer.window).wrapping_sub(SLACK);
        let is_behind = !self.learned && is_after(back, segment.end);
        !is_ahead && !is_behind && self.may_acknowledge(from, segment)
    }

    /// Whether an end may acknowledge what this segment from it does.
    #[inline]
    fn may_acknowledge(&self, from: usize, segment: &Segment<'_>) -> bool {
        let (sender, peer) = (&self.ends[from], &self.ends[1 - from]);
        let highest = if peer.flags & flag::READS_SACK != 0 { segment.highest() } else { segment.acknowledgement };
        if self.learned {
            // What its peer had sent before anything was seen of that is within the window that this end has offered.
            return !is_after(highest, peer.end.wrapping_add(sender.window));
        }
        let back = if peer.flags & flag::SYN != 0 {
            // Nothing of the peer was acknowledged yet, and this must do so.
            peer.acknowledged.wrapping_add(1)
        } else {
            peer.acknowledged.wrapping_sub(if sender.window > SLACK { sender.window } else { SLACK })
        };
        !is_after(highest, peer.end) && !is_after(back, segment.acknowledgement)
    }

    /// A segment from this end is in the window: what follows from its numbers.
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

    /// Whether the first segment from the other end fits what was learned from one end.
    pub(super) fn answers(&self, from: usize, segment: &Segment<'_>) -> bool {
        let (sender, peer) = (&self.ends[from], &self.ends[1 - from]);
        let window = Sender::offered(LARGEST_SCALE, segment);
        let ack = segment.acknowledgement;
        !is_after(segment.sequence, sender.limit)
            && !is_after(sender.acknowledged.wrapping_sub(peer.window).wrapping_sub(SLACK), segment.end)
            && !is_after(ack, peer.end.wrapping_add(window))
            && !is_after(peer.acknowledged.wrapping_sub(window.max(SLACK)), ack)
    }

    /// The first segment from an end of which only the other's acknowledgements are known.
    fn learn_answer(&mut self, from: usize, segment: &Segment<'_>) {
        let room = Sender::offered(LARGEST_SCALE, segment);
        let sender = &mut self.ends[from];
        sender.window = room;
        // What is between was sent before anything was seen.
        sender.next = later(segment.sequence, sender.next);
        sender.end = sender.next;
        sender.send(segment);
        let peer = &mut self.ends[1 - from];
        peer.acknowledged = segment.acknowledgement;
        peer.hear(segment.acknowledgement, room);
    }

    /// Whether a RST from this end has the number that its peer expects: behind what that has acknowledged, or behind what
    /// was sent to it. Source: RFC 5961, 3.2.
    pub(super) fn resets(&self, from: usize, segment: &Segment<'_>) -> bool {
        let sender = &self.ends[from];
        (segment.sequence == sender.next || segment.sequence == sender.acknowledged)
            && self.reset_acknowledges(from, segment)
    }

    /// What the peer of this end has acknowledged, and what was sent to it without a gap: it expects one of the two next.
    pub(super) const fn expected(&self, from: usize) -> [u32; 2] {
        [self.ends[from].acknowledged, self.ends[from].next]
    }

    /// Whether its peer answers a RST from this end with a challenge: it is in the window, but not exactly the next one.
    /// Source: RFC 5961, 3.2.
    pub(super) fn challenges(&self, from: usize, segment: &Segment<'_>) -> bool {
        let sender = &self.ends[from];
        !is_after(sender.acknowledged, segment.sequence)
            && !is_after(segment.sequence, sender.limit)
            && self.reset_acknowledges(from, segment)
    }

    /// Many stacks set the ACK flag of a RST and acknowledge nothing.
    fn reset_acknowledges(&self, from: usize, segment: &Segment<'_>) -> bool {
        segment.acknowledgement == 0 || self.may_acknowledge(from, segment)
    }

    /// Whether a RST from the end that began takes its SYN back.
    pub(super) const fn takes_back(&self, segment: &Segment<'_>) -> bool {
        segment.sequence == self.ends[0].end
    }

    /// Whether this end may have a segment with this number on its way, which an ICMP error could be about: one that is
    /// not acknowledged, a keep-alive, or the next acknowledgement. Source: RFC 5927, 4.1.
    pub(super) const fn is_on_its_way(&self, from: usize, sequence: u32) -> bool {
        let sender = &self.ends[from];
        (sender.window > 0 || self.learned)
            && !is_after(sequence, sender.end)
            && !is_after(sender.acknowledged.wrapping_sub(1), sequence)
    }

    /// Later fragments of a segment from this end reach to this number.
    pub(super) fn extend(&mut self, from: usize, end: u32) {
        let sender = &mut self.ends[from];
        if is_after(end, sender.end) && !sender.has_finished() {
            sender.end = end;
            sender.flags &= !flag::FIN;
        }
    }

    /// Whether neither end has sent a FIN.
    pub(super) const fn is_open(&self) -> bool {
        (self.ends[0].flags | self.ends[1].flags) & flag::FIN == 0
    }

    /// How far closing is; none if neither end has sent everything.
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
