//! Packets that were decided out of order, and the steps that they missed.

use knockplane_policy::packet::Side;
use knockplane_policy::rule::ConnectionState;
use knockplane_policy::time::Time;

use crate::state::lists::ListSet;

/// Steps that a packet did not take, because it was decided before a packet that arrived earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingSteps {
    /// Whether an addition is pending: a rule did not match only because an address is not in a list.
    pub(super) addition: bool,
    /// The progress lists of the sequences in which the packet is a later step than the next one.
    pub(super) sequences: ListSet,
    /// The connection state that the packet had at its first evaluation.
    pub(in crate::pipeline) state: Option<ConnectionState>,
}

impl PendingSteps {
    /// A pending addition to a list, as most frames in the reorder buffer have.
    pub const ADDITION: PendingSteps = PendingSteps { addition: true, sequences: ListSet::EMPTY, state: None };

    /// Whether a step is pending.
    pub fn is_any(&self) -> bool {
        self.addition || self.sequences != ListSet::default()
    }
}

/// A frame that was decided out of order, for [`Decider::re_evaluate`](crate::pipeline::Decider::re_evaluate).
#[derive(Clone, Copy, Debug)]
pub struct OutOfOrder<'f> {
    /// The side on which the frame arrived.
    pub side: Side,
    /// The bytes of the frame.
    pub frame: &'f [u8],
    /// The time of its arrival.
    pub arrived: Time,
    /// The steps that the packet has not taken yet.
    pub pending: PendingSteps,
    /// Whether no re-evaluation follows. Then a step at a door whose previous step is still missing counts as a wrong
    /// step.
    pub is_last: bool,
}
