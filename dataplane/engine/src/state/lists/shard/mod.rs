//! One shard of the address lists: a slab of entries, a hash table over it, and a queue per level from oldest to
//! newest. [`Shard::with_memory`] reserves everything; afterwards links change and nothing grows. [`Shard::populate`]
//! writes the memory of slots, or the first use of a slot before that.
//!
//! ```text
//! index     [ 2 · · | 0 1 · | · · · ]    buckets of a cache line each: slots of the addresses with a keyed hash
//!             |       | |
//! slab      [ 0 | 1 | 2 | 3 | … ]        entries of a cache line each; 3 is free, and free slots are chained
//!             |   |   |
//! queues     1 → 2 → 0                   of one level: oldest first; a refresh moves an entry to the end
//! ```
//! A lookup of an address without entries reads one cache line, of an address with an entry two. A new entry that
//! evicts the oldest one takes its slot, and touches two more lines: the bucket of the evicted entry, and the newest
//! entry of the level.
//!
//! An entry counts until its expiry, exclusive. The slot of an expired entry is freed by an addition of the same
//! address, by the search for room, or by a [`Shard::sweep`].
//!
//! When the slab is full, an addition replaces, in this order: an expired entry at the head of a queue; expired entries
//! in the next [`EXPIRY_PROBES`](memory::EXPIRY_PROBES) slots; the oldest entry of the lowest level, unless that level
//! is higher than its own. If there is none, the addition is refused.
//!
//! An entry may count for one peer alone, by a tag: an address can then be in a list up to [`MAX_PEERS`] times.
//!
//! An address in a VLAN has another key than the address alone. The VLANs of entries are beside the slab, in memory
//! that uses no page before the first such entry: networks without VLANs have no cost.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use knockplane_policy::event::EventKind;
use knockplane_policy::strangers::KnownSources;
use knockplane_policy::time::Time;
use zerocopy::FromZeros as _;

use self::entry::{Entry, PeerWords, VlanWords};
pub(crate) use self::entry::{EntryScope, EntryTerms, PEER_BYTES, VLAN_BYTES};
pub(crate) use self::memory::{SLOT_BYTES, ShardMemory};
use self::queue::LevelQueue;
use crate::state::events::Cause;
use crate::state::events::removals::Removals;
use crate::state::events::ring::EventRing;
use crate::state::key::AddressKey;
use crate::state::lists::epochs::AddressEpochs;
use crate::state::lists::quota::PrefixQuota;
use crate::state::lists::{AddOutcome, EndReason, LEVELS, ListId, Lookup, MAX_LISTS};

mod ended;
mod entry;
mod events;
mod index;
mod line;
mod memory;
mod progress;
mod queue;
mod slab;
mod visit;

/// No slot. Slots are counted by `u32` to keep links small.
pub(crate) const NIL: u32 = u32::MAX;

/// Selects entries of an address.
#[derive(Clone, Copy)]
pub(crate) struct RemovalScope {
    pub(crate) list: ListId,
    /// The tag of the only peer; `None` selects the entries of all tags.
    pub(crate) peer_tag: Option<u32>,
}

/// A range of slots, which one visit under the lock covers.
#[derive(Clone, Copy)]
pub(crate) struct SlotRange {
    pub(crate) begin: u32,
    pub(crate) count: u32,
}

impl SlotRange {
    /// The end, exclusive.
    fn end(self) -> u32 {
        self.begin.saturating_add(self.count)
    }
}

/// The counters of one list in this shard.
#[derive(Clone, Copy, Default)]
pub(crate) struct ListCounts {
    pub(crate) entries: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) refused: u64,
}

/// Where the sources of entries are noted, and for which lists.
struct NotedSources {
    sources: KnownSources,
    lists: Arc<[AtomicBool; MAX_LISTS]>,
}

/// One shard of the address lists.
pub(crate) struct Shard {
    /// The quota of level 0, if there is one.
    quota: Option<Arc<PrefixQuota>>,
    /// The epochs of addresses, if there is a fast path.
    epochs: Option<Arc<AddressEpochs>>,
    /// Notes the sources of entries, if there is a fast path.
    sources: Option<NotedSources>,
    /// The slab and the index.
    memory: Arc<ShardMemory>,
    /// The number of slots.
    slots: u32,
    /// The number of slots whose memory the kernel has allocated.
    populated: u32,
    /// The VLAN of each slot whose entry is in one; otherwise a previous value.
    vlans: Vec<VlanWords>,
    /// The number of entries in VLANs.
    in_vlans: u32,
    queues: [LevelQueue; LEVELS],
    /// The first slot that was freed.
    free: u32,
    /// The first slot that was never used.
    fresh: u32,
    /// The first slot of the next sweep.
    cursor: u32,
    counts: Box<[ListCounts; MAX_LISTS]>,
    /// The peer of each slot whose entry is a grant over IPv6, if it is known; otherwise a previous value.
    peers: Vec<PeerWords>,
    /// The ring of all shards.
    events: Arc<EventRing>,
    removals: Removals,
}

impl Shard {
    /// An empty shard with reserved memory; `None` if there is not enough.
    #[cfg(test)]
    pub(crate) fn new(slots: u32, events: Arc<EventRing>, removals: usize) -> Option<Shard> {
        Shard::with_memory(ShardMemory::new(slots)?, slots, events, removals)
    }

    /// An empty shard with the memory for these slots; `None` if there is not enough for the rest. The kernel allocates
    /// the memory in [`Shard::populate`].
    pub(crate) fn with_memory(
        memory: ShardMemory,
        slots: u32,
        events: Arc<EventRing>,
        removals: usize,
    ) -> Option<Shard> {
        Some(Shard {
            quota: None,
            epochs: None,
            sources: None,
            memory: Arc::new(memory),
            slots,
            populated: 0,
            vlans: VlanWords::new_vec_zeroed(slots as usize).ok()?,
            in_vlans: 0,
            queues: [LevelQueue { oldest: NIL, newest: NIL, length: 0 }; LEVELS],
            free: NIL,
            fresh: 0,
            cursor: 0,
            counts: Box::new([ListCounts::default(); MAX_LISTS]),
            peers: PeerWords::new_vec_zeroed(slots as usize).ok()?,
            events,
            removals: Removals::new(removals)?,
        })
    }

    /// The slab and the index.
    pub(crate) fn memory(&self) -> Arc<ShardMemory> {
        Arc::clone(&self.memory)
    }

    /// Writes the memory of at most `slots` slots that were never written. Returns whether there are more.
    pub(crate) fn populate(&mut self, slots: u32) -> bool {
        let end = self.populated.saturating_add(slots).min(self.slots);
        self.memory.populate(self.populated..end);
        self.populated = end;
        end < self.slots
    }

    /// Sets the quota. The caller must not have added any entry before.
    pub(crate) fn set_quota(&mut self, quota: Arc<PrefixQuota>) {
        self.quota = Some(quota);
    }

    /// Sets the epochs that changes bump.
    pub(crate) fn set_epochs(&mut self, epochs: Arc<AddressEpochs>) {
        self.epochs = Some(epochs);
    }

    /// Notes the sources of entries of these lists from now on.
    pub(crate) fn set_sources(&mut self, sources: KnownSources, lists: Arc<[AtomicBool; MAX_LISTS]>) {
        self.sources = Some(NotedSources { sources, lists });
        let used = (0..self.fresh).filter(|slot| !self.entry(*slot).is_free());
        used.for_each(|slot| self.note_source(slot, KnownSources::add));
    }

    /// Notes that the entry in this slot begins or ends.
    #[inline]
    fn note_source(&self, slot: u32, note: impl Fn(&KnownSources, IpAddr)) {
        if let Some(NotedSources { sources, lists }) = &self.sources
            && lists[self.entry(slot).list().index()].load(Relaxed)
        {
            note(sources, self.key(slot).address());
        }
    }

    /// Ends the verdicts of the fast path that depend on the address of this entry.
    #[inline]
    fn address_changed(&self, slot: u32) {
        if let Some(epochs) = &self.epochs {
            let entry = self.entry(slot);
            epochs.changed(entry.list(), || self.key(slot), entry.kind(), entry.hash());
        }
    }

    /// Adds the lists that contain the address for the peer of this tag to a lookup, and bounds the period in which the
    /// lookup is valid without changes. `hash` is the secret's hash of the key, here and below.
    pub(crate) fn add_to_lookup(&self, hash: u64, key: AddressKey, peer_tag: u32, now: Time, lookup: &mut Lookup) {
        let Lookup { membership, from, until, .. } = lookup;
        for (slot, entry) in self.memory.candidates(hash) {
            if !self.has_key(slot, entry, key) {
                continue;
            }
            if !entry.is_live(now) {
                *from = (*from).max(entry.expiry());
                continue;
            }
            if !entry.counts_for_peer(peer_tag) {
                membership.has_other_entries = true;
                continue;
            }
            // A packet that arrived before the packet that added the address is processed later only because another
            // worker was faster.
            let since = entry.since();
            if now < since {
                *until = (*until).min(since);
                membership.has_other_entries = true;
            } else {
                membership.lists.insert(entry.list());
                *from = (*from).max(since);
                *until = (*until).min(entry.expiry());
            }
        }
    }

    /// Adds the address to the list until `expiry`, or sets the expiry of its entry.
    pub(crate) fn add(&mut self, hash: u64, key: AddressKey, scope: EntryScope, terms: EntryTerms) -> AddOutcome {
        if let Some(slot) =
            self.find(hash, key, |entry| (entry.list(), entry.peer_tag()) == (scope.list, scope.peer_tag))
        {
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

    /// Removes the address from the list, for the peer of this tag or for all. Returns whether the list contained the
    /// address.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        key: AddressKey,
        RemovalScope { list, peer_tag }: RemovalScope,
        cause: &Cause,
        now: Time,
    ) -> bool {
        let mut was_in_it = false;
        let matches =
            |entry: Entry<'_>| entry.list() == list && peer_tag.is_none_or(|peer_tag| peer_tag == entry.peer_tag());
        while let Some(slot) = self.find(hash, key, matches) {
            was_in_it |= self.entry(slot).is_live(now);
            self.remove_slot(slot, EventKind::Removed, cause, now);
        }
        was_in_it
    }

    /// Removes the address from the list in all VLANs, in these slots. Returns whether the list contained the address,
    /// and the slot to continue at.
    pub(crate) fn remove_in_vlans(
        &mut self,
        address: AddressKey,
        list: ListId,
        slots: SlotRange,
        cause: &Cause,
        now: Time,
    ) -> (bool, Option<u32>) {
        if self.in_vlans == 0 {
            return (false, None);
        }
        let end = self.fresh.min(slots.end());
        let mut was_in_it = false;
        for slot in slots.begin.min(end)..end {
            let entry = self.entry(slot);
            if entry.list() == list && self.is_vlan_entry_of(entry, address) {
                was_in_it |= entry.is_live(now);
                self.remove_slot(slot, EventKind::Removed, cause, now);
            }
        }
        (was_in_it, (end < self.fresh).then_some(end))
    }

    /// Removes all entries of a list from these slots. Returns the number of entries that had not expired, and the slot
    /// to continue at.
    pub(crate) fn flush(&mut self, list: ListId, slots: SlotRange, cause: &Cause, now: Time) -> (u64, Option<u32>) {
        let end = self.fresh.min(slots.end());
        let mut flushed = 0;
        for slot in slots.begin.min(end)..end {
            let entry = self.entry(slot);
            if !entry.is_free() && entry.list() == list {
                flushed += u64::from(entry.is_live(now));
                self.remove_slot(slot, EventKind::Flushed, cause, now);
            }
        }
        (flushed, (end < self.fresh).then_some(end))
    }

    /// The counters of a list in this shard.
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

#[cfg(test)]
mod tests;
