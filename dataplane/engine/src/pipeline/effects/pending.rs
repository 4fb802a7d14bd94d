//! Packets that were decided out of order, and the steps that they missed.

use knockplane_policy::packet::Side;
use knockplane_policy::rule::ConnectionState;
use knockplane_policy::time::Time;

use crate::state::lists::ListSet;

/// Steps that a packet did not take, because it was decided before a packet that arrived before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingSteps {
    /// A rule adds to a list only sources that are in another list.
    pub(super) addition: bool,
    /// The progress lists of the doors' sequences that have the packet as a later step than the next one.
    pub(super) sequences: ListSet,
    /// The connection state that the packet had at its first evaluation.
    pub(in crate::pipeline) state: Option<ConnectionState>,
}

impl PendingSteps {
    /// An addition to a list: pending for most frames.
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
    /// No re-evaluation follows: a step at a door that still has no forerunner counts as a wrong step.
    pub is_last: bool,
}
