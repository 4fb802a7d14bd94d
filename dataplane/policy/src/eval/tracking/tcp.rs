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
pub(super) enum TcpState {
    SynSent,
    SynReceived,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
}

/// What a segment's flags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
}

/// Where a segment leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    To(TcpState),
    /// Another connection of the same addresses and ports begins.
    Anew,
    /// The segment cannot be of the connection.
    Impossible,
}

impl Segment {
    /// None for flags that no segment has: no flag at all, SYN with FIN or RST, FIN without ACK, and so on. PSH and ECN's
    /// two may always be set, URG with what carries data.
    pub(super) fn of(flags: Set<TcpFlag>) -> Option<Segment> {
        use TcpFlag::{Ack, Cwr, Ece, Fin, Psh, Rst, Syn, Urg};
        let said: Vec<TcpFlag> = flags.iter().filter(|flag| ![Psh, Ece, Cwr].contains(flag)).collect();
        Some(match said.as_slice() {
            [Syn] | [Syn, Urg] => Segment::Syn,
            [Syn, Ack] => Segment::SynAck,
            [Fin, Ack] | [Fin, Ack, Urg] => Segment::Fin,
            [Ack] | [Ack, Urg] => Segment::Ack,
            [Rst] | [Rst, Ack] => Segment::Rst,
            _ => return None,
        })
    }
}

impl TcpState {
    /// The state of a connection that begins with this segment. In the middle of one, only an ACK says that there is one.
    pub(super) fn first(segment: Segment, loose: bool) -> Option<TcpState> {
        match segment {
            Segment::Syn => Some(TcpState::SynSent),
            Segment::Ack if loose => Some(TcpState::Established),
            _ => None,
        }
    }

    /// Where a segment leads from here; `back` if it is to whoever sent the first one.
    pub(super) fn after(self, segment: Segment, back: bool) -> Step {
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
