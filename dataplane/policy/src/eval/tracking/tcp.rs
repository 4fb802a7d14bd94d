//! The states of a TCP connection, as somebody sees them who stands between its ends.
//!
//! ```text
//!            SYN-ACK back          ACK               FIN           ACK              FIN            ACK
//! SynSent ───────────→ SynReceived ───→ Established ───→ FinWait ───→ CloseWait ───→ LastAck ───→ TimeWait
//!    RST anywhere: Close; a SYN in TimeWait or Close: anew
//! ```
//!
//! Source: RFC 9293, 3.3.2; Linux's netfilter for what is ignored and what is invalid.

use crate::packet::TcpFlag;
use crate::word::Set;

/// A connection's state. The names are those of the timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// A SYN was seen.
    SynSent,
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
    /// Another connection of the same addresses and ports begins.
    Anew,
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

    /// Where a segment leads from here; `back` if it is to whoever sent the first one.
    pub fn after(self, segment: Segment, back: bool) -> Step {
        use TcpState::{Close, CloseWait, Established, FinWait, LastAck, SynReceived, SynSent, TimeWait};
        Step::To(match (segment, self) {
            (Segment::Syn, TimeWait | Close) => return Step::Anew,
            // Both ends open at once.
            (Segment::Syn | Segment::SynAck, SynSent) if back => SynReceived,
            (Segment::Syn, state) => state,

            (Segment::SynAck | Segment::Fin | Segment::Ack, SynSent) => return Step::Impossible,
            (Segment::SynAck, state) => state,

            (Segment::Fin, SynReceived | Established) => FinWait,
            (Segment::Fin, FinWait | CloseWait | LastAck) => LastAck,
            (Segment::Fin, state) => state,

            (Segment::Ack, SynReceived) if !back => Established,
            (Segment::Ack, FinWait) => CloseWait,
            (Segment::Ack, LastAck) => TimeWait,
            (Segment::Ack, state) => state,

            (Segment::Rst, _) => Close,
        })
    }
}
