//! The progress of a source in a sequence of steps.

use std::net::IpAddr;

use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use super::{AddOutcome, ListId, Lists, VlanLists};

/// The progress of a source in a sequence of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceProgress {
    /// Steps taken.
    pub step: u8,
    /// The tag of the peer.
    pub peer_tag: u32,
    /// When the sequence began. Kept in milliseconds before `since`, and rounded down.
    pub begun: Time,
    /// When the packet arrived that took the last step.
    pub since: Time,
    /// When the progress expires.
    pub expiry: Time,
}

impl SequenceProgress {
    /// Whether a packet that arrived now was overtaken, on another queue, by the one that took the last step.
    pub fn is_ahead_of(&self, now: Time) -> bool {
        now < self.since
    }
}

/// A change of a source's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressChange {
    /// Nothing.
    Keep,
    /// This takes the place of what there was, and is as old as the packet that is looked at now.
    Set {
        /// Steps taken.
        step: u8,
        /// The tag of the only peer that the entry counts for; 0 for all.
        peer_tag: u32,
        /// When the sequence began.
        begun: Time,
        /// The level from now on, lower ones too.
        level: u8,
        /// When it is over.
        expiry: Time,
    },
    /// The progress is removed.
    Clear,
}

impl Lists {
    /// [`VlanLists::progress`], in all VLANs together.
    pub fn progress(
        &self,
        list: ListId,
        address: IpAddr,
        now: Time,
        decide: impl FnOnce(Option<SequenceProgress>) -> ProgressChange,
    ) -> Option<AddOutcome> {
        self.in_vlan(Vlan::NONE).progress(list, address, now, decide)
    }
}

impl VlanLists<'_> {
    /// Shows how far the address is in the sequence that the list holds the steps of, and does what is decided about it,
    /// in one: nobody else looks or changes in between, so no step is lost and none is taken twice. Tells what came of
    /// [`ProgressChange::Set`]; with [`AddOutcome::Refused`], nothing is known of the address.
    ///
    /// Such a list holds an address once in each VLAN, whatever the other end. `decide` is called once, under a lock that
    /// other workers may wait for: it must be short, and not ask the lists.
    pub fn progress(
        &self,
        list: ListId,
        address: IpAddr,
        now: Time,
        decide: impl FnOnce(Option<SequenceProgress>) -> ProgressChange,
    ) -> Option<AddOutcome> {
        self.lists.change(self.key(address), |shard, hash, key, _| {
            let (change, added) = shard.progress(hash, key, list, (&self.cause, now), decide);
            (added, change != ProgressChange::Keep && added != Some(AddOutcome::Refused))
        })
    }
}
