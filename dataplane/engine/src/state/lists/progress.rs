//! The progress of a source in a sequence of steps.

use std::net::IpAddr;

use knockplane_policy::time::Time;

use super::{AddOutcome, ListId, VlanLists};

/// The progress of a source in a sequence of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceProgress {
    /// The number of steps taken.
    pub step: u8,
    /// The tag of the peer.
    pub peer_tag: u32,
    /// The time when the sequence began. Stored as milliseconds before `since`, rounded down.
    pub begun: Time,
    /// The arrival time of the packet that took the last step.
    pub since: Time,
    /// Expiry.
    pub expiry: Time,
}

impl SequenceProgress {
    /// Whether the packet that took the last step, on another queue, overtook a packet that arrived now.
    pub fn is_ahead_of(&self, now: Time) -> bool {
        now < self.since
    }
}

/// A change of a source's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressChange {
    /// No change.
    Keep,
    /// Replaces the progress. The new progress has the arrival time of the current packet.
    Set {
        /// The number of steps taken.
        step: u8,
        /// The tag of the only peer that the entry counts for; 0 for all.
        peer_tag: u32,
        /// The time when the sequence began.
        begun: Time,
        /// The new level, which may be lower.
        level: u8,
        /// Expiry.
        expiry: Time,
    },
    /// The progress is removed.
    Clear,
}

impl VlanLists<'_> {
    /// Passes the progress of the address in the sequence of this list to `decide`, and stores its decision, under one
    /// lock. No other worker reads or writes the progress in between, so no step is lost and no step is taken twice.
    /// Returns the outcome of [`ProgressChange::Set`]. After [`AddOutcome::Refused`], the list has no entry of the
    /// address.
    ///
    /// Such a list contains an address once in each VLAN, for all peers. `decide` is called once, under a lock that
    /// other workers may wait for: it must be short, and must not use the lists.
    pub fn progress(
        &self,
        list: ListId,
        address: IpAddr,
        now: Time,
        decide: impl FnOnce(Option<SequenceProgress>) -> ProgressChange,
    ) -> Option<AddOutcome> {
        self.lists.change(self.key(address), self.hash, |shard, hash, key, _| {
            let (change, added) = shard.progress(hash, key, list, self.cause, now, decide);
            (added, change != ProgressChange::Keep && added != Some(AddOutcome::Refused))
        })
    }
}
