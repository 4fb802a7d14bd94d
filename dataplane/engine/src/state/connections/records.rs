//! The records of the fast path for the slots of one set.

use knockplane_policy::carried::{CarriedConnection, CarriedConnections};

/// The records of the slots of one set.
#[derive(Clone)]
pub(super) struct SetRecords {
    all: CarriedConnections,
    /// The record of the first slot.
    first: usize,
}

impl SetRecords {
    pub(super) fn new(all: CarriedConnections, first: usize) -> SetRecords {
        SetRecords { all, first }
    }

    /// The record of this slot of the set.
    pub(super) fn of(&self, place: usize) -> Option<&CarriedConnection> {
        (*self.all).as_ref().get(self.first + place)
    }
}
