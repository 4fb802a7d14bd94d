//! One shard of the address lists: a slab of entries, a hash table over it, and a queue per level from oldest to
//! newest. Everything is allocated by [`Shard::new`]; from then on links change and nothing grows. Memory of slots is
//! written by [`Shard::populate`], or when a slot is used before that.
//!
//! ```text
//! buckets   [ 2 | - | 0 | - | … ]        an address's bucket, by its keyed hash; entries of a bucket are chained
//!             |       |                  (no tombstones, so the table never needs to be built anew)
//! entries   [ 0 | 1 | 2 | 3 | … ]        3 is free: free slots are chained too
//!             |   |   |
//! queues     1 → 2 → 0                   of one level: oldest first; a refresh moves an entry to the end
//! ```
//!
//! An entry counts until its expiry and not at it. It is given back when something comes by: an addition of the same
//! address, the search for room, or a [`Shard::sweep`].
//!
//! When the slab is full, an addition takes, in this order: an expired entry at the head of a queue; expired entries
//! among the next [`EXPIRY_PROBES`] slots; the oldest entry of the lowest level, unless that level is higher than its own. If
//! there is none, it is refused.
//!
//! An entry may count for one peer alone, by a tag: then an address is in a list up to [`MAX_PEERS`] times.
//!
//! An address in a VLAN is another key than the address by itself. Which VLAN an entry is of stands beside the slab, in
//! memory that takes no page until such an entry comes: networks without VLANs pay nothing for it.

use std::ops::Range;
use std::sync::Arc;

use knockplane_policy::event::EventKind;
use knockplane_policy::time::Time;

use self::entry::{Entry, PeerWords, VlanWords};
pub(crate) use self::entry::{EntryScope, EntryTerms, PEER_BYTES, SLOT_BYTES, VLAN_BYTES};
use self::queue::Queue;
use crate::state::events::Cause;
use crate::state::events::removals::Removals;
use crate::state::events::ring::EventRing;
use crate::state::key::{Key, Kind, Secret};
use crate::state::lists::quota::PrefixQuota;
use crate::state::lists::{AddOutcome, EndReason, LEVELS, ListId, MAX_LISTS, Membership, boxed};

mod buckets;
mod ended;
mod entry;
mod events;
mod progress;
mod queue;
mod slab;
mod visit;

/// No slot. Slots are counted by `u32` to keep links small.
const NIL: u32 = u32::MAX;

/// Which entries of an address are meant.
#[derive(Clone, Copy)]
pub(crate) struct RemovalScope {
    pub(crate) list: ListId,
    /// Those for the peer of this tag alone; `None` for those of all tags.
    pub(crate) peer_tag: Option<u32>,
}

/// What happened to one list in this shard.
#[derive(Clone, Copy, Default)]
pub(crate) struct ListCounts {
    pub(crate) entries: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) refused: u64,
}

/// One shard of the address lists.
pub(crate) struct Shard {
    secret: Secret,
    /// Of level 0, if there is one.
    quota: Option<Arc<PrefixQuota>>,
    /// Room for all slots. Those that were written once, so that the kernel has given their memory, at least those that
    /// are used.
    entries: Vec<Entry>,
    /// How many slots there are.
    slots: u32,
    buckets: Box<[u32]>,
    /// The VLAN of each slot whose entry is in one; else what was there before.
    vlans: Vec<VlanWords>,
    /// Entries in VLANs.
    in_vlans: u32,
    queues: [Queue; LEVELS],
    /// First slot given back.
    free: u32,
    /// Slots from here on were never used.
    fresh: u32,
    /// Where the next sweep begins.
    cursor: u32,
    counts: Box<[ListCounts; MAX_LISTS]>,
    /// The peer of each slot whose entry is a grant over IPv6, if it is known; else what was there before.
    peers: Vec<PeerWords>,
    /// The one of all shards.
    events: Arc<EventRing>,
    removals: Removals,
}

impl Shard {
    /// An empty shard, its memory reserved; none if there is not enough. [`Shard::populate`] has the kernel give it.
    pub(crate) fn new(slots: u32, secret: Secret, events: Arc<EventRing>, removals: usize) -> Option<Shard> {
        let mut entries = Vec::new();
        entries.try_reserve_exact(slots as usize).ok()?;
        Some(Shard {
            secret,
            quota: None,
            entries,
            slots,
            buckets: boxed(slots as usize, || NIL)?,
            vlans: zeros(slots as usize)?,
            in_vlans: 0,
            queues: [Queue { oldest: NIL, newest: NIL, length: 0 }; LEVELS],
            free: NIL,
            fresh: 0,
            cursor: 0,
            counts: Box::new([ListCounts::default(); MAX_LISTS]),
            peers: zeros(slots as usize)?,
            events,
            removals: Removals::new(removals)?,
        })
    }

    /// Writes at most `slots` slots that were never written. Returns whether there are more.
    pub(crate) fn populate(&mut self, slots: u32) -> bool {
        for _ in 0..slots.min(self.slots - self.entries.len() as u32) {
            self.entries.push(Entry::UNUSED);
        }
        self.entries.len() < self.slots as usize
    }

    /// From now on; nothing was added before.
    pub(crate) fn set_quota(&mut self, quota: Arc<PrefixQuota>) {
        self.quota = Some(quota);
    }

    /// The lists the address is in for the other end of this tag, and from when until when that is so if nothing is
    /// changed. `hash` is the secret's of the key, here and below.
    pub(crate) fn membership(&self, hash: u64, key: Key, peer_tag: u32, now: Time) -> (Membership, Range<Time>) {
        let (mut membership, mut from, mut until) = (Membership::default(), Time::default(), Time::NEVER);
        for (slot, entry) in self.bucket(hash) {
            if !self.has_key(slot, entry, key) {
                continue;
            }
            if !entry.is_live(now) {
                from = from.max(entry.expiry);
                continue;
            }
            if !entry.counts_for_peer(peer_tag) {
                membership.has_other_entries = true;
                continue;
            }
            // A packet that arrived before the one that got the address in is looked at later than that one only
            // because another worker was faster.
            if now < { entry.since } {
                until = until.min(entry.since);
                membership.has_other_entries = true;
            } else {
                membership.lists.insert(entry.list);
                from = from.max(entry.since);
                until = until.min(entry.expiry);
            }
        }
        (membership, from..until)
    }

    /// Puts the address in the list until `expiry`, or sets its expiry anew.
    pub(crate) fn add(&mut self, hash: u64, key: Key, scope: EntryScope, terms: EntryTerms) -> AddOutcome {
        if let Some(slot) = self.find(hash, key, |entry| (entry.list, entry.peer_tag) == (scope.list, scope.peer_tag)) {
            if self.entry(slot).is_live(terms.now) {
                self.refresh(slot, terms);
                return AddOutcome::Refreshed;
            }
            self.end_entry(slot, EndReason::Expired, terms.now);
        }
        if scope.peer_tag != 0 && !self.make_room_for_peer(hash, key, scope.list, terms) {
            self.counts_mut(scope.list).refused += 1;
            return AddOutcome::Refused;
        }
        let Some(slot) = self.insert(hash, key, scope, terms) else { return AddOutcome::Refused };
        self.note_peer(slot, terms.cause);
        if self.entry(slot).is_event() {
            let kind = if scope.peer_tag == 0 { EventKind::Listed } else { EventKind::Granted };
            self.publish(slot, kind, Some(terms.cause), terms.now);
        }
        AddOutcome::New
    }

    /// Takes the address out of the list, for the other end of this tag or for all. Whether it was in it.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        key: Key,
        RemovalScope { list, peer_tag }: RemovalScope,
        cause: &Cause,
        now: Time,
    ) -> bool {
        let mut was_in_it = false;
        let matches = |entry: &Entry| entry.list == list && peer_tag.is_none_or(|peer_tag| peer_tag == entry.peer_tag);
        while let Some(slot) = self.find(hash, key, matches) {
            was_in_it |= self.entry(slot).is_live(now);
            self.remove_slot(slot, EventKind::Removed, cause, now);
        }
        was_in_it
    }

    /// Takes the address out of the list in all VLANs, of the slots from `begin` on, at most `slots` of them. Whether it
    /// was in it, and where to go on.
    pub(crate) fn remove_in_vlans(
        &mut self,
        address: Key,
        list: ListId,
        (begin, slots): (u32, u32),
        cause: &Cause,
        now: Time,
    ) -> (bool, Option<u32>) {
        if self.in_vlans == 0 {
            return (false, None);
        }
        let end = self.fresh.min(begin.saturating_add(slots));
        let mut was_in_it = false;
        for slot in begin.min(end)..end {
            let entry = self.entry(slot);
            if entry.list == list && self.is_vlan_entry_of(entry, address) {
                was_in_it |= entry.is_live(now);
                self.remove_slot(slot, EventKind::Removed, cause, now);
            }
        }
        (was_in_it, (end < self.fresh).then_some(end))
    }

    /// Takes all entries of a list out of the slots from `begin` on, at most `slots` of them. How many live ones, and where to go
    /// on.
    pub(crate) fn flush(
        &mut self,
        list: ListId,
        (begin, slots): (u32, u32),
        cause: &Cause,
        now: Time,
    ) -> (u64, Option<u32>) {
        let end = self.fresh.min(begin.saturating_add(slots));
        let mut flushed = 0;
        for slot in begin.min(end)..end {
            let entry = self.entry(slot);
            if entry.kind != Kind::Free && entry.list == list {
                flushed += u64::from(entry.is_live(now));
                self.remove_slot(slot, EventKind::Flushed, cause, now);
            }
        }
        (flushed, (end < self.fresh).then_some(end))
    }

    /// What happened to a list here.
    pub(crate) fn counts(&self, list: ListId) -> ListCounts {
        self.counts[list.index()]
    }

    fn counts_mut(&mut self, list: ListId) -> &mut ListCounts {
        &mut self.counts[list.index()]
    }

    /// The quota that entries of this level count for, if there is one.
    fn quota_of(&self, level: u8) -> Option<&PrefixQuota> {
        self.quota.as_deref().filter(|_| level == 0)
    }
}

/// So many zeros, or none if there is no memory for them. Their pages are given when they are first written.
fn zeros<const N: usize, T: Copy + Default>(length: usize) -> Option<Vec<[T; N]>> {
    // Whether there is room is only asked here: to fill what was reserved would write it.
    Vec::<[T; N]>::new().try_reserve_exact(length).ok()?;
    Some(vec![[T::default(); N]; length])
}

#[cfg(test)]
mod tests;
