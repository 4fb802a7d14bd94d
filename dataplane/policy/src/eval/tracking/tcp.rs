//! The state of a TCP connection, as an observer between its ends derives it.
//!
//! ```text
//!            SYN-ACK back          ACK               FIN         it is known          FIN         both known
//! SynSent ───────────→ SynReceived ───→ Established ───→ FinWait ───→ CloseWait ───→ LastAck ───→ TimeWait
//!    │ SYN back            ↑ SYN-ACK
//!    └───────→ BothSyn ────┘          RST anywhere: Close; a SYN in TimeWait or Close: anew
//! ```
//! A segment takes effect only if its numbers are in the window ([`window`](super::window)); otherwise it is invalid
//! and **changes nothing**. By its flags and numbers:
//!
//! | segment | takes effect if | otherwise |
//! |---|---|---|
//! | SYN-ACK, RST that answers a SYN | it acknowledges that SYN | invalid |
//! | RST | it has exactly the number that its receiver expects | ignored inside the window, so that the receiver can challenge it (RFC 5961); invalid outside |
//! | FIN | nothing before it is missing, or it is acknowledged | treated as data until then |
//! | SYN in a connection | the connection has ended | ignored; its number is stored |
//!
//! The two ends may have different states of a connection. A segment that may belong to such a connection is forwarded
//! and ignored: an end with another state sends a RST. The sequence number of a SYN in a known connection is stored:
//! the SYN-ACK that acknowledges it, from the other side of the filter, begins the connection again. So a sender on one
//! side alone can neither end a connection nor occupy its place, before the connection begins or while it lasts. One
//! attack remains for senders outside: only the last SYN from there is stored, so forged SYNs can delay a client
//! outside that begins a connection again from the same port while the old one is still known.
//!
//! Source: RFC 9293, 3.3.2 and 3.10; RFC 5961, 3 and 4; Linux's netfilter for ignored segments. docs/nftables.md
//! describes the comparison with netfilter, and the cases in which this module is stricter.

use super::segment::{Segment, SegmentKind, SynOptions};
use super::timeout;
use super::window::{Closing, WindowNumbers, Windows};
use crate::packet::{Packet, Side, protocol};
use crate::rule::Tracking;
use crate::time::Time;
use crate::word::{Word as _, words};

words! {
    /// The state of a connection. The names are those of the timeouts.
    TcpState {
        /// A SYN has arrived.
        SynSent = "syn-sent",
        /// A SYN has arrived from each end: a simultaneous open.
        BothSyn = "both-syn",
        /// A SYN-ACK has arrived.
        SynReceived = "syn-received",
        /// The ACK of the SYN-ACK has arrived.
        Established = "established",
        /// One end has sent its FIN.
        FinWait = "fin-wait",
        /// The other end has acknowledged the FIN.
        CloseWait = "close-wait",
        /// Both ends have sent their FIN.
        LastAck = "last-ack",
        /// Both FINs are acknowledged.
        TimeWait = "time-wait",
        /// The connection was reset.
        Close = "close",
    }
}

impl TcpState {
    /// Whether both ends have closed the connection, or one end has aborted it.
    pub const fn is_closed(self) -> bool {
        matches!(self, TcpState::TimeWait | TcpState::Close)
    }

    /// Whether the connection may not exist yet.
    pub const fn is_opening(self) -> bool {
        matches!(self, TcpState::SynSent | TcpState::BothSyn | TcpState::SynReceived)
    }
}

/// A connection as a segment of it finds it.
#[derive(Clone, Copy, Debug)]
pub struct SeenConnection {
    /// Whether the responder sent the segment.
    pub is_reply: bool,
    /// Whether the responder has sent a segment before.
    pub both_ways: bool,
    /// The expiry of the connection.
    pub expiry: Time,
}

/// The effect of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpStep {
    /// The connection continues in this state.
    To(TcpState),
    /// The other end opens as well (simultaneous open); the timeout is not renewed.
    Cross,
    /// The segment is ignored.
    Aside,
    /// The segment is ignored. It is a challenge: an end with another connection answers a SYN.
    Challenge,
    /// The segment is ignored, and its number is stored, because the segment may begin the connection again.
    Remember,
    /// The numbers of the segment replace those of a connection that was never answered.
    Learn,
    /// The segment acknowledges the stored SYN: the connection begins again.
    Reopen,
    /// Another connection of the same addresses and ports begins.
    Anew,
    /// The connection ends with this segment and is removed.
    Over,
    /// The segment cannot belong to the connection.
    Impossible,
}

/// A tracked TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConnection {
    state: TcpState,
    /// The sides on which segments of the originator arrived, one bit each. A packet that a router sends back over the
    /// same wire arrives on both sides.
    sides: u8,
    windows: Windows,
    remembered: Option<RememberedSyn>,
}

/// A connection without its stored SYN, in numbers: the form in which a large table stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedTcp {
    /// The state of the connection, and the flags of both ends: [`PackedTcp::FLAG_BITS`] bits.
    pub flags: u32,
    /// The sequence numbers and windows of both ends.
    pub numbers: WindowNumbers,
}

/// A stored SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RememberedSyn {
    sequence: u32,
    window: u16,
    options: SynOptions,
    /// Whether the responder sent the SYN.
    back: bool,
    side: Side,
}

/// The flags of a [`PackedTcp`]: the state in the lowest bits, and these fields.
mod packed {
    pub(super) const STATE: u32 = 0xf;
    /// Position of the sides.
    pub(super) const SIDES: u32 = 4;
    pub(super) const BOTH_SIDES: u8 = 0b11;
    /// Whether there is a stored SYN.
    pub(super) const REMEMBERS: u32 = 1 << 6;
    /// Position of the flags of the windows.
    pub(super) const WINDOWS: u32 = 7;
}

impl PackedTcp {
    /// The number of bits of the flags.
    pub const FLAG_BITS: u32 = packed::WINDOWS + Windows::FLAG_BITS;

    /// The state of the connection with these flags.
    #[inline]
    pub fn state(flags: u32) -> TcpState {
        // Other numbers do not occur.
        TcpState::ALL.get((flags & packed::STATE) as usize).copied().unwrap_or(TcpState::Close)
    }
}

impl TcpConnection {
    /// The connection that begins with this segment. If the connection is already in progress, the segment must be an
    /// ACK.
    pub fn begin(segment: &Segment<'_>, loose: bool) -> Option<TcpConnection> {
        let (state, windows) = match segment.kind {
            SegmentKind::Syn => (TcpState::SynSent, Windows::opened(segment)),
            SegmentKind::Ack if loose => (TcpState::Established, Windows::learned(segment)),
            _ => return None,
        };
        Some(TcpConnection { state, sides: bit(segment.side), windows, remembered: None })
    }

    /// The state.
    pub const fn state(&self) -> TcpState {
        self.state
    }

    /// The numbers and the window scale of each end, if the connection is established and every further segment without
    /// SYN, FIN and RST is judged by the windows of both ends alone. The kernel's fast path can carry such a connection.
    pub fn settled(&self) -> Option<(WindowNumbers, [u8; 2])> {
        let is_established = self.state == TcpState::Established && self.remembered.is_none();
        self.windows.settled().filter(|_| is_established)
    }

    /// Whether both ends have closed the connection, or one end has aborted it.
    pub const fn is_closed(&self) -> bool {
        self.state.is_closed()
    }

    /// The connection in numbers, and its stored SYN.
    #[inline]
    pub fn pack(&self) -> (PackedTcp, Option<RememberedSyn>) {
        let (numbers, windows) = self.windows.pack();
        let remembers = if self.remembered.is_some() { packed::REMEMBERS } else { 0 };
        let sides = u32::from(self.sides) << packed::SIDES;
        let flags = self.state as u32 | sides | remembers | windows << packed::WINDOWS;
        (PackedTcp { flags, numbers }, self.remembered)
    }

    /// The inverse of [`TcpConnection::pack`]. `remembered` is called if the connection has a stored SYN.
    #[inline]
    pub fn unpack(packed: &PackedTcp, remembered: impl FnOnce() -> Option<RememberedSyn>) -> TcpConnection {
        let PackedTcp { flags, numbers } = packed;
        TcpConnection {
            state: PackedTcp::state(*flags),
            sides: (flags >> packed::SIDES) as u8 & packed::BOTH_SIDES,
            windows: Windows::unpack(numbers, flags >> packed::WINDOWS),
            remembered: if flags & packed::REMEMBERS == 0 { None } else { remembered() },
        }
    }

    /// The effect of a segment that may be forged. A segment that shortens the time until the connection expires must
    /// have the right checksum. With a wrong checksum the segment is impossible. If the checksum cannot be verified,
    /// the segment is ignored. Checksums of other segments are not computed.
    #[inline]
    pub fn step(
        &self,
        packet: &Packet<'_>,
        segment: &Segment<'_>,
        seen: SeenConnection,
        now: Time,
        settings: &Tracking,
    ) -> TcpStep {
        let SeenConnection { is_reply, both_ways, expiry } = seen;
        let step = self.unverified(segment, is_reply, both_ways);
        let shortens = match step {
            TcpStep::Over | TcpStep::Anew | TcpStep::Reopen => true,
            TcpStep::To(_) if matches!(segment.kind, SegmentKind::Rst | SegmentKind::Fin) => true,
            TcpStep::To(state) => now + timeout(settings, protocol::TCP, Some(state), true) < expiry,
            TcpStep::Learn => now + timeout(settings, protocol::TCP, Some(TcpState::Established), true) < expiry,
            _ => false,
        };
        if shortens { verified(packet, step) } else { step }
    }

    #[inline]
    fn unverified(&self, segment: &Segment<'_>, back: bool, answered: bool) -> TcpStep {
        let from = usize::from(back);
        match (segment.kind, self.state) {
            (SegmentKind::Ack, TcpState::Established) if answered && self.windows.is_open() => {
                if self.windows.holds(from, segment) { TcpStep::To(TcpState::Established) } else { TcpStep::Impossible }
            }
            (SegmentKind::Syn, _) => self.after_syn(segment, back, answered),
            (SegmentKind::SynAck, _) => self.after_syn_ack(segment, back),
            (SegmentKind::Rst, _) => self.after_rst(segment, back, answered),
            // A half-open connection: one end has lost its state.
            (SegmentKind::Ack, TcpState::SynSent | TcpState::BothSyn) if back => TcpStep::Challenge,
            (SegmentKind::Ack | SegmentKind::Fin, TcpState::SynSent | TcpState::BothSyn) => TcpStep::Impossible,
            (SegmentKind::Ack | SegmentKind::Fin, _) if back && !answered => {
                // An answer must arrive from the other side: a sender on one side alone cannot answer itself.
                let answers = self.may_send(segment, back) && self.windows.answers(from, segment);
                if answers { self.after_text(segment, from) } else { TcpStep::Aside }
            }
            (SegmentKind::Ack | SegmentKind::Fin, _) if self.windows.holds(from, segment) => {
                self.after_text(segment, from)
            }
            (SegmentKind::Ack, _) if !answered => TcpStep::Learn,
            (SegmentKind::Ack | SegmentKind::Fin, _) => TcpStep::Impossible,
        }
    }

    fn after_syn(&self, segment: &Segment<'_>, back: bool, answered: bool) -> TcpStep {
        match self.state {
            TcpState::TimeWait => TcpStep::Anew,
            TcpState::Close if !back => TcpStep::Anew,
            TcpState::SynSent | TcpState::BothSyn if back && self.may_send(segment, back) => TcpStep::Cross,
            TcpState::SynSent | TcpState::BothSyn if back => TcpStep::Aside,
            // The responder does not send a SYN.
            _ if back && answered => TcpStep::Impossible,
            // A repeated SYN does not renew an unanswered connection; otherwise it would stay without end.
            _ if self.windows.has_used(usize::from(back), segment.sequence) => TcpStep::Aside,
            _ => TcpStep::Remember,
        }
    }

    fn after_syn_ack(&self, segment: &Segment<'_>, back: bool) -> TcpStep {
        let from = usize::from(back);
        match self.state {
            TcpState::SynSent | TcpState::BothSyn | TcpState::SynReceived
                if (back || self.state != TcpState::SynSent)
                    && self.may_send(segment, back)
                    && self.windows.acknowledges_syn(from, segment) =>
            {
                TcpStep::To(TcpState::SynReceived)
            }
            TcpState::SynReceived
                if back && self.may_send(segment, back) && self.windows.accepts_anew(from, segment) =>
            {
                TcpStep::To(TcpState::SynReceived)
            }
            _ if self.acknowledges_remembered(segment, back) => TcpStep::Reopen,
            TcpState::SynReceived => TcpStep::Aside,
            TcpState::SynSent | TcpState::BothSyn => TcpStep::Impossible,
            _ if back => TcpStep::Aside,
            // The originator does not send a SYN-ACK.
            _ => TcpStep::Impossible,
        }
    }

    fn after_rst(&self, segment: &Segment<'_>, back: bool, answered: bool) -> TcpStep {
        let from = usize::from(back);
        let refuses = || self.windows.acknowledges_syn(from, segment) || self.acknowledges_remembered(segment, back);
        let (counts, is_aside) = match self.state {
            // No process listens on the port.
            TcpState::SynSent if back => (refuses(), false),
            // The originator withdraws its SYN, or was challenged and resets the old connection.
            TcpState::SynSent => (self.windows.takes_back(segment), true),
            // The responder's SYN may be forged, and its number with it.
            TcpState::BothSyn => (refuses() || !back && self.windows.resets(from, segment), false),
            _ => (
                self.windows.resets(from, segment) || self.acknowledges_remembered(segment, back),
                self.windows.challenges(from, segment),
            ),
        };
        match counts {
            true if answered => TcpStep::To(TcpState::Close),
            true => TcpStep::Over,
            false if is_aside => TcpStep::Aside,
            false => TcpStep::Impossible,
        }
    }

    /// The effect of a segment in the window that is neither SYN nor RST.
    fn after_text(&self, segment: &Segment<'_>, from: usize) -> TcpStep {
        let mut windows = self.windows;
        windows.take(from, segment);
        TcpStep::To(match (self.state, windows.closing()) {
            (TcpState::Close | TcpState::TimeWait, _) => self.state,
            (_, Some(Closing::One)) => TcpState::FinWait,
            (_, Some(Closing::OneKnown)) => TcpState::CloseWait,
            (_, Some(Closing::Both)) => TcpState::LastAck,
            (_, Some(Closing::BothKnown)) => TcpState::TimeWait,
            (TcpState::SynReceived, None) if from == 0 => TcpState::Established,
            (state, None) => state,
        })
    }

    /// Whether an end may send a segment from the side on which the segment arrived: the originator from a side where
    /// it has sent before, the responder from another side. So a sender on one side alone cannot answer itself.
    fn may_send(&self, segment: &Segment<'_>, back: bool) -> bool {
        let here = bit(segment.side);
        if back { self.sides & !here != 0 } else { self.sides & here != 0 }
    }

    /// Whether the segment answers the stored SYN and arrived from the other side.
    fn acknowledges_remembered(&self, segment: &Segment<'_>, back: bool) -> bool {
        self.remembered.is_some_and(|syn| {
            segment.acknowledges
                && syn.back != back
                && syn.side != segment.side
                && segment.acknowledgement == syn.sequence.wrapping_add(1)
        })
    }

    /// Applies an effect. Returns whether the ends have changed roles: the responder has become the originator.
    #[inline]
    pub fn take(&mut self, segment: &Segment<'_>, back: bool, step: TcpStep) -> bool {
        let from = usize::from(back);
        match (step, segment.kind) {
            (TcpStep::To(state), SegmentKind::Ack | SegmentKind::Fin) => {
                self.windows.take(from, segment);
                self.state = state;
            }
            (TcpStep::To(state), SegmentKind::SynAck) => {
                self.windows.accept(from, segment);
                self.state = state;
            }
            (TcpStep::To(state), _) => self.state = state,
            (TcpStep::Cross, _) => {
                self.windows.cross(segment);
                self.state = TcpState::BothSyn;
            }
            (TcpStep::Learn, _) => {
                (self.windows, self.sides, self.state) =
                    (Windows::learned(segment), bit(segment.side), TcpState::Established);
            }
            // A SYN from outside does not replace one from inside.
            (TcpStep::Remember, _)
                if segment.side == Side::Outside && self.remembered.is_some_and(|syn| syn.side == Side::Inside) => {}
            (TcpStep::Remember, _) => {
                let (options, window, side) = (segment.syn_options(), segment.window, segment.side);
                self.remembered = Some(RememberedSyn { sequence: segment.sequence, window, options, back, side });
            }
            (TcpStep::Reopen, _) => return self.reopen(segment, from),
            (TcpStep::Over, _) => self.state = TcpState::Close,
            // A router has sent the same SYN back over the wire.
            (TcpStep::Aside, SegmentKind::Syn) if !back => self.sides |= bit(segment.side),
            (TcpStep::Aside | TcpStep::Challenge | TcpStep::Anew | TcpStep::Impossible, _) => {}
        }
        false
    }

    fn reopen(&mut self, segment: &Segment<'_>, from: usize) -> bool {
        let Some(syn) = self.remembered.take() else { return false };
        self.windows = Windows::reopened(syn.sequence, syn.window, syn.options);
        self.windows.accept(1, segment);
        self.sides = bit(syn.side);
        self.state = TcpState::SynReceived;
        from == 0
    }

    /// Whether an ICMP error may report about a segment with this number. `back` means that the responder sent the
    /// segment.
    pub fn may_have_sent(&self, back: bool, sequence: u32) -> bool {
        let remembered = self.remembered.is_some_and(|syn| syn.back == back && syn.sequence == sequence);
        remembered || self.windows.is_on_its_way(usize::from(back), sequence)
    }

    /// Sets the state to closed, independent of the states of the ends.
    pub fn close(&mut self) {
        self.state = TcpState::Close;
    }

    /// Two numbers, one of which the peer of this end expects next: the number that the peer has acknowledged, and the
    /// number after all data that was sent to the peer without a gap.
    pub fn reset_numbers(&self, back: bool) -> [u32; 2] {
        self.windows.expected(usize::from(back))
    }

    /// Records that a later fragment of a segment ends at this number.
    pub fn extend(&mut self, back: bool, end: u32) {
        self.windows.extend(usize::from(back), end);
    }
}

/// The bit of a side.
const fn bit(side: Side) -> u8 {
    1 << side.index()
}

/// Applies the checksum to an effect that shortens the time until the connection expires.
#[cold]
fn verified(packet: &Packet<'_>, step: TcpStep) -> TcpStep {
    match packet.tcp_checksum() {
        Some(true) => step,
        Some(false) => TcpStep::Impossible,
        None => TcpStep::Aside,
    }
}
