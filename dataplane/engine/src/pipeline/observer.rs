//! An observer of decisions: it sees the packets that it wants, with the facts of the decisions about them.
//!
//! The decider is compiled for each kind of observer. Without one ([`Unobserved`]) it has no code for observers.

use knockplane_policy::door::What;
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::rule::ConnectionState;
use knockplane_policy::time::Time;

use crate::pipeline::Decision;
use crate::state::list_set::{ListId, ListSet};

/// An observer of the decisions about a batch.
pub trait Observer {
    /// Whether it observes at all.
    const OBSERVES: bool;

    /// Whether it wants the decision about this packet. Called before the decision.
    fn wants(&mut self, packet: &Packet<'_>) -> bool;

    /// The decision about a packet that it wants.
    fn decided(&mut self, frame: usize, packet: &Packet<'_>, observed: &Observed<'_>);

    /// A packet whose decision is that about the packet before it, with the same facts, whether wanted or not.
    fn repeated(&mut self, frame: usize, packet: &Packet<'_>);

    /// The decision about a frame that rules do not see.
    fn unseen(&mut self, frame: usize, side: Side, bytes: &[u8], decision: Decision, arrived: Time);
}

/// The facts of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'d> {
    /// The time of arrival.
    pub arrived: Time,
    /// The decision.
    pub decision: Decision,
    /// The rules that matched, by their position among the declared rules.
    pub rules: &'d [u32],
    /// The last rule that matched, if `rules` does not have all of them.
    pub last: Option<u32>,
    /// The state of the connection; `None` before connection tracking.
    pub state: Option<ConnectionState>,
    /// The lists of the source and of the destination, before the packet.
    pub lists: [ListSet; 2],
    /// The results at doors, by the open list of the door.
    pub knocks: &'d [(ListId, What)],
    /// Whether the sender is answered.
    pub answered: bool,
}

/// No observer.
pub struct Unobserved;

impl Observer for Unobserved {
    const OBSERVES: bool = false;

    fn wants(&mut self, _packet: &Packet<'_>) -> bool {
        false
    }

    fn decided(&mut self, _frame: usize, _packet: &Packet<'_>, _observed: &Observed<'_>) {}

    fn repeated(&mut self, _frame: usize, _packet: &Packet<'_>) {}

    fn unseen(&mut self, _frame: usize, _side: Side, _bytes: &[u8], _decision: Decision, _arrived: Time) {}
}

/// The first results of a packet at doors. They are cleared before each packet that an observer wants, and read for it alone.
pub(super) struct DoorResults {
    results: [(ListId, What); DoorResults::CAPACITY],
    length: usize,
}

impl DoorResults {
    /// Maximum number of recorded results of a packet.
    const CAPACITY: usize = 4;

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    /// Adds a result, if there is room.
    pub(super) fn push(&mut self, open: ListId, what: What) {
        if let Some(place) = self.results.get_mut(self.length) {
            *place = (open, what);
            self.length += 1;
        }
    }

    /// The results since they were cleared.
    pub(super) fn all(&self) -> &[(ListId, What)] {
        &self.results[..self.length]
    }
}

impl Default for DoorResults {
    fn default() -> Self {
        DoorResults { results: [(ListId(0), What::Closed); DoorResults::CAPACITY], length: 0 }
    }
}
