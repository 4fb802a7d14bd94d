//! A TCP connection, as somebody sees it who stands between its ends.
//!
//! ```text
//!            SYN-ACK back          ACK               FIN         it is known          FIN         both known
//! SynSent ───────────→ SynReceived ───→ Established ───→ FinWait ───→ CloseWait ───→ LastAck ───→ TimeWait
//!    │ SYN back            ↑ SYN-ACK
//!    └───────→ BothSyn ────┘          RST anywhere: Close; a SYN in TimeWait or Close: anew
//! ```
//! A segment leads on only if its numbers are in the window ([`window`](super::window)), else it is invalid and **changes
//! nothing**. By its flags and numbers:
//!
//! | segment | counts if | else |
//! |---|---|---|
//! | SYN-ACK, RST that answers a SYN | it acknowledges that SYN | invalid |
//! | RST | it has exactly the number that its receiver expects | in the window passed by, for the receiver to challenge it (RFC 5961); invalid outside |
//! | FIN | nothing before it is missing, or it is acknowledged | as data until then |
//! | SYN in a connection | the connection is over | passed by, and remembered |
//!
//! What may be of a connection that its ends see otherwise than we do is passed by: it counts for nothing, and an end that
//! disagrees says so with a RST. Of a SYN in a connection the number is kept: the SYN-ACK that acknowledges it, from the
//! other side of the filter, begins the connection anew. So whoever sends segments from one side alone can neither end a
//! connection nor keep its place: neither before the connection begins nor while it lasts. One thing is left to the outside:
//! of SYNs from there only the last one is remembered, so forged ones can delay that a client from there begins a connection
//! anew which is known still, from the same port.
//!
//! Source: RFC 9293, 3.3.2 and 3.10; RFC 5961, 3 and 4; Linux's netfilter for what is passed by, which docs/nftables.md
//! tests, and says where this is stricter.

use super::segment::{Segment, SegmentKind, SynOptions};
use super::timeout;
use super::window::{Closing, Windows};
use crate::packet::{Packet, Side, protocol};
use crate::rule::Tracking;
use crate::time::Time;
use crate::word::words;

words! {
    /// A connection's state. The names are those of the timeouts.
    TcpState {
        /// A SYN was seen.
        SynSent = "syn-sent",
        /// A SYN was seen from each end: both open at once.
        BothSyn = "both-syn",
        /// A SYN-ACK was seen as well.
        SynReceived = "syn-received",
        /// And an ACK.
        Established = "established",
        /// One end has no more to say.
        FinWait = "fin-wait",
        /// And the other knows.
        CloseWait = "close-wait",
        /// Neither has more to say.
        LastAck = "last-ack",
        /// And both know.
        TimeWait = "time-wait",
        /// It was reset.
        Close = "close",
    }
}

/// Where a segment leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The connection goes on, in this state.
    To(TcpState),
    /// The other end begins as well; the connection's time does not go on.
    Cross,
    /// The segment is passed by.
    Aside,
    /// It is passed by, as an answer: an end that remembers another connection challenges a SYN.
    Challenge,
    /// It is passed by, but its number is remembered: the connection might begin anew.
    Remember,
    /// It says other numbers of a connection that nobody has answered.
    Learn,
    /// It acknowledges the SYN that is remembered: the connection begins anew.
    Reopen,
    /// Another connection of the same addresses and ports begins.
    Anew,
    /// The connection ends with this segment, and is forgotten.
    Over,
    /// The segment cannot be of the connection.
    Impossible,
}

/// What is known of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConnection {
    state: TcpState,
    /// The sides, a bit each, that segments of the end that began came in on. A packet that a router sends back over the
    /// same wire comes in on both.
    sides: u8,
    windows: Windows,
    remembered: Option<Remembered>,
}

/// A SYN that was passed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remembered {
    sequence: u32,
    window: u16,
    options: SynOptions,
    /// It came from the end that was to answer.
    back: bool,
    side: Side,
}

impl TcpConnection {
    /// The connection that begins with this segment. In the middle of one, only an ACK says that there is one.
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

    /// Whether both sides have closed it, or one has aborted it.
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, TcpState::TimeWait | TcpState::Close)
    }

    /// Whether it is not known yet that there is one.
    pub const fn is_opening(&self) -> bool {
        matches!(self.state, TcpState::SynSent | TcpState::BothSyn | TcpState::SynReceived)
    }

    /// Where a segment leads that may be forged: `back` if it is to whoever sent the first one, `answered` if one was before
    /// it. What shortens the time for which the connection is known must have the right checksum: if it is wrong, the
    /// segment is impossible, and if it cannot be known, the segment is passed by. Others are not summed up.
    #[inline]
    pub fn step(
        &self,
        (packet, segment): (&Packet<'_>, &Segment<'_>),
        (back, answered): (bool, bool),
        (now, expiry): (Time, Time),
        settings: &Tracking,
    ) -> Step {
        let step = self.unverified(segment, back, answered);
        let shortens = match step {
            Step::Over | Step::Anew | Step::Reopen => true,
            Step::To(_) if matches!(segment.kind, SegmentKind::Rst | SegmentKind::Fin) => true,
            Step::To(state) => now + timeout(settings, protocol::TCP, Some(state), true) < expiry,
            Step::Learn => now + timeout(settings, protocol::TCP, Some(TcpState::Established), true) < expiry,
            _ => false,
        };
        if shortens { verified(packet, step) } else { step }
    }

    #[inline]
    fn unverified(&self, segment: &Segment<'_>, back: bool, answered: bool) -> Step {
        let from = usize::from(back);
        match (segment.kind, self.state) {
            (SegmentKind::Ack, TcpState::Established) if answered && self.windows.is_open() => {
                if self.windows.holds(from, segment) { Step::To(TcpState::Established) } else { Step::Impossible }
            }
            (SegmentKind::Syn, _) => self.after_syn(segment, back, answered),
            (SegmentKind::SynAck, _) => self.after_syn_ack(segment, back),
            (SegmentKind::Rst, _) => self.after_rst(segment, back, answered),
            // Half open, at an end that has lost the other.
            (SegmentKind::Ack, TcpState::SynSent | TcpState::BothSyn) if back => Step::Challenge,
            (SegmentKind::Ack | SegmentKind::Fin, TcpState::SynSent | TcpState::BothSyn) => Step::Impossible,
            (SegmentKind::Ack | SegmentKind::Fin, _) if back && !answered => {
                // Whoever sends from one side alone does not answer itself.
                let answers = self.may_send(segment, back) && self.windows.answers(from, segment);
                if answers { self.after_text(segment, from) } else { Step::Aside }
            }
            (SegmentKind::Ack | SegmentKind::Fin, _) if self.windows.holds(from, segment) => {
                self.after_text(segment, from)
            }
            (SegmentKind::Ack, _) if !answered => Step::Learn,
            (SegmentKind::Ack | SegmentKind::Fin, _) => Step::Impossible,
        }
    }

    fn after_syn(&self, segment: &Segment<'_>, back: bool, answered: bool) -> Step {
        match self.state {
            TcpState::TimeWait => Step::Anew,
            TcpState::Close if !back => Step::Anew,
            TcpState::SynSent | TcpState::BothSyn if back && self.may_send(segment, back) => Step::Cross,
            TcpState::SynSent | TcpState::BothSyn if back => Step::Aside,
            // Who was asked does not ask.
            _ if back && answered => Step::Impossible,
            // One that comes again keeps no connection that is not answered, else it would be kept for good.
            _ if self.windows.has_used(usize::from(back), segment.sequence) => Step::Aside,
            _ => Step::Remember,
        }
    }

    fn after_syn_ack(&self, segment: &Segment<'_>, back: bool) -> Step {
        let from = usize::from(back);
        match self.state {
            TcpState::SynSent | TcpState::BothSyn | TcpState::SynReceived
                if (back || self.state != TcpState::SynSent)
                    && self.may_send(segment, back)
                    && self.windows.acknowledges_syn(from, segment) =>
            {
                Step::To(TcpState::SynReceived)
            }
            TcpState::SynReceived
                if back && self.may_send(segment, back) && self.windows.accepts_anew(from, segment) =>
            {
                Step::To(TcpState::SynReceived)
            }
            _ if self.acknowledges_remembered(segment, back) => Step::Reopen,
            TcpState::SynReceived => Step::Aside,
            TcpState::SynSent | TcpState::BothSyn => Step::Impossible,
            _ if back => Step::Aside,
            // Who asks does not accept.
            _ => Step::Impossible,
        }
    }

    fn after_rst(&self, segment: &Segment<'_>, back: bool, answered: bool) -> Step {
        let from = usize::from(back);
        let refuses = || self.windows.acknowledges_syn(from, segment) || self.acknowledges_remembered(segment, back);
        let (counts, is_aside) = match self.state {
            // Nobody listens there.
            TcpState::SynSent if back => (refuses(), false),
            // Whoever asked has thought better of it; or was challenged, and clears that away.
            TcpState::SynSent => (self.windows.takes_back(segment), true),
            // The SYN of the end that was to answer may be forged, and its number with it.
            TcpState::BothSyn => (refuses() || !back && self.windows.resets(from, segment), false),
            _ => (
                self.windows.resets(from, segment) || self.acknowledges_remembered(segment, back),
                self.windows.challenges(from, segment),
            ),
        };
        match counts {
            true if answered => Step::To(TcpState::Close),
            true => Step::Over,
            false if is_aside => Step::Aside,
            false => Step::Impossible,
        }
    }

    /// After a segment in the window that is no SYN and no RST.
    fn after_text(&self, segment: &Segment<'_>, from: usize) -> Step {
        let mut windows = self.windows;
        windows.take(from, segment);
        Step::To(match (self.state, windows.closing()) {
            (TcpState::Close | TcpState::TimeWait, _) => self.state,
            (_, Some(Closing::One)) => TcpState::FinWait,
            (_, Some(Closing::OneKnown)) => TcpState::CloseWait,
            (_, Some(Closing::Both)) => TcpState::LastAck,
            (_, Some(Closing::BothKnown)) => TcpState::TimeWait,
            (TcpState::SynReceived, None) if from == 0 => TcpState::Established,
            (state, None) => state,
        })
    }

    /// Whether an end may send a segment from the side that it came in on: the end that began, where it was seen before; the
    /// other one, from another side. Whoever sends from one side alone does not answer itself.
    fn may_send(&self, segment: &Segment<'_>, back: bool) -> bool {
        let here = bit(segment.side);
        if back { self.sides & !here != 0 } else { self.sides & here != 0 }
    }

    /// Whether it answers the SYN that is remembered, and came from the other side than that.
    fn acknowledges_remembered(&self, segment: &Segment<'_>, back: bool) -> bool {
        self.remembered.is_some_and(|syn| {
            segment.acknowledges
                && syn.back != back
                && syn.side != segment.side
                && segment.acknowledgement == syn.sequence.wrapping_add(1)
        })
    }

    /// Takes a step. Whether the ends have changed places: the one that was to answer has begun.
    #[inline]
    pub fn take(&mut self, segment: &Segment<'_>, back: bool, step: Step) -> bool {
        let from = usize::from(back);
        match (step, segment.kind) {
            (Step::To(state), SegmentKind::Ack | SegmentKind::Fin) => {
                self.windows.take(from, segment);
                self.state = state;
            }
            (Step::To(state), SegmentKind::SynAck) => {
                self.windows.accept(from, segment);
                self.state = state;
            }
            (Step::To(state), _) => self.state = state,
            (Step::Cross, _) => {
                self.windows.cross(segment);
                self.state = TcpState::BothSyn;
            }
            (Step::Learn, _) => {
                (self.windows, self.sides, self.state) =
                    (Windows::learned(segment), bit(segment.side), TcpState::Established);
            }
            // The outside does not take the place of a SYN from inside.
            (Step::Remember, _)
                if segment.side == Side::Outside && self.remembered.is_some_and(|syn| syn.side == Side::Inside) => {}
            (Step::Remember, _) => {
                let (options, window, side) = (segment.syn_options(), segment.window, segment.side);
                self.remembered = Some(Remembered { sequence: segment.sequence, window, options, back, side });
            }
            (Step::Reopen, _) => return self.reopen(segment, from),
            (Step::Over, _) => self.state = TcpState::Close,
            // The same SYN on its way back.
            (Step::Aside, SegmentKind::Syn) if !back => self.sides |= bit(segment.side),
            (Step::Aside | Step::Challenge | Step::Anew | Step::Impossible, _) => {}
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

    /// Whether an ICMP error may be about a segment with this number: to the end that began, if `back`.
    pub fn may_have_sent(&self, back: bool, sequence: u32) -> bool {
        let remembered = self.remembered.is_some_and(|syn| syn.back == back && syn.sequence == sequence);
        remembered || self.windows.is_on_its_way(usize::from(back), sequence)
    }

    /// The connection is over, whatever its ends think.
    pub fn close(&mut self) {
        self.state = TcpState::Close;
    }

    /// The numbers of which one is what the peer of this end expects next: what the peer has acknowledged, and what was sent to
    /// it without a gap.
    pub fn reset_numbers(&self, back: bool) -> [u32; 2] {
        self.windows.expected(usize::from(back))
    }

    /// A later fragment of a segment reaches to this number.
    pub fn extend(&mut self, back: bool, end: u32) {
        self.windows.extend(usize::from(back), end);
    }
}

/// The bit of a side.
const fn bit(side: Side) -> u8 {
    1 << side.index()
}

/// A step that shortens the time for which a connection is known, or what becomes of it by the checksum.
#[cold]
fn verified(packet: &Packet<'_>, step: Step) -> Step {
    match packet.tcp_checksum() {
        Some(true) => step,
        Some(false) => Step::Impossible,
        None => Step::Aside,
    }
}
