//! The states of a TCP connection, as somebody sees them who stands between its ends.
//!
//! ```text
//!            SYN-ACK back          ACK               FIN           ACK              FIN            ACK
//! SynSent ───────────→ SynReceived ───→ Established ───→ FinWait ───→ CloseWait ───→ LastAck ───→ TimeWait
//!    │ SYN back            ↑ SYN-ACK
//!    └───────→ BothSyn ────┘          RST anywhere: Close; a SYN in TimeWait or Close: anew
//! ```
//! What may belong to a connection that its ends see otherwise than we do is passed by: it counts for nothing, and an
//! end that disagrees says so with a RST.
//!
//! Source: RFC 9293, 3.3.2; Linux's netfilter for what is passed by and what is invalid, which docs/nftables.md tests.

use crate::packet::TcpFlag;
use crate::word::Set;

/// A connection's state. The names are those of the timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// A SYN was seen.
    SynSent,
    /// A SYN was seen from each end: both open at once.
    BothSyn,
    /// A SYN-ACK was seen as well.
    SynReceived,
    /// And an ACK.
    Established,
    /// One end has no more to say.
    FinWait,
    /// And the other knows.
    CloseWait,
    /// Neither has more to say.
    LastAck,
    /// And both know.
    TimeWait,
    /// It was reset.
    Close,
}

/// What a segment's flags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A connection begins.
    Syn,
    /// It is accepted.
    SynAck,
    /// The sender has no more to say.
    Fin,
    /// Everything else within a connection.
    Ack,
    /// There is no such connection, or not any more.
    Rst,
}

/// Where a segment leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The connection goes on, in this state.
    To(TcpState),
    /// It goes on, in this state; the segment does not count for it, nor does its time.
    Aside(TcpState),
    /// Another connection of the same addresses and ports begins.
    Anew,
    /// The connection ends with this segment, and is forgotten.
    Over,
    /// The segment cannot be of the connection.
    Impossible,
}

impl Segment {
    /// None for flags that no segment has: no flag at all, SYN with FIN or RST, FIN without ACK, and so on. PSH and ECN's
    /// two may always be set, URG with what carries data.
    pub fn of(flags: Set<TcpFlag>) -> Option<Segment> {
        use TcpFlag::{Ack, Cwr, Ece, Fin, Psh, Rst, Syn, Urg};
        let is = |said: &[TcpFlag]| {
            let said: Set<TcpFlag> = said.iter().copied().collect();
            let always = [Psh, Ece, Cwr].into_iter().collect::<Set<TcpFlag>>().bits();
            flags.bits() & !always == said.bits()
        };
        Some(if is(&[Ack]) || is(&[Ack, Urg]) {
            Segment::Ack
        } else if is(&[Syn]) || is(&[Syn, Urg]) {
            Segment::Syn
        } else if is(&[Syn, Ack]) {
            Segment::SynAck
        } else if is(&[Fin, Ack]) || is(&[Fin, Ack, Urg]) {
            Segment::Fin
        } else if is(&[Rst]) || is(&[Rst, Ack]) {
            Segment::Rst
        } else {
            return None;
        })
    }
}

impl TcpState {
    /// The state of a connection that begins with this segment. In the middle of one, only an ACK says that there is one.
    pub fn first(segment: Segment, loose: bool) -> Option<TcpState> {
        match segment {
            Segment::Syn => Some(TcpState::SynSent),
            Segment::Ack if loose => Some(TcpState::Established),
            _ => None,
        }
    }

    /// Where a segment leads from here: `back` if it is to whoever sent the first one, `answered` if one was before it.
    pub fn after(self, segment: Segment, back: bool, answered: bool) -> Step {
        use TcpState::{BothSyn, Close, CloseWait, Established, FinWait, LastAck, SynReceived, SynSent, TimeWait};
        Step::To(match (segment, self) {
            (Segment::Syn, TimeWait) => return Step::Anew,
            (Segment::Syn, Close) if !back => return Step::Anew,
            // Else who asks again and again would be remembered for good, unanswered.
            (Segment::Syn, SynSent) if !answered => return Step::Aside(if back { BothSyn } else { SynSent }),
            (Segment::Syn, SynSent | BothSyn) if back => BothSyn,
            (Segment::Syn, SynSent | BothSyn) => self,
            // Who was asked does not ask.
            (Segment::Syn, _) if back => return Step::Impossible,
            (Segment::Syn, _) => return Step::Aside(self),

            (Segment::SynAck, SynSent) if back => SynReceived,
            (Segment::SynAck, BothSyn) => SynReceived,
            (Segment::SynAck, _) if back => return Step::Aside(self),
            (Segment::SynAck, SynReceived) => SynReceived,
            // Who asks does not accept.
            (Segment::SynAck, _) => return Step::Impossible,

            // Half open, at an end that has lost the other.
            (Segment::Ack, SynSent | BothSyn) if back => return Step::Aside(self),
            (Segment::Ack | Segment::Fin, SynSent | BothSyn) => return Step::Impossible,

            (Segment::Fin, SynReceived | Established) => FinWait,
            (Segment::Fin, FinWait | CloseWait | LastAck) => LastAck,
            (Segment::Ack, SynReceived) if !back => Established,
            (Segment::Ack, FinWait) => CloseWait,
            (Segment::Ack, LastAck) => TimeWait,
            (Segment::Fin | Segment::Ack, state) => state,

            // Nobody listens there, or whoever asked has thought better of it.
            (Segment::Rst, _) if !answered => return Step::Over,
            (Segment::Rst, _) => Close,
        })
    }
}
