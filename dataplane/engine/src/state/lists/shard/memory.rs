//! The memory of a shard: the slab of entries, and the index over it.
//!
//! It is reserved at once, and never grows. All of it is read and written under the lock of the shard, except by
//! [`ShardMemory::touch_bucket`] and the other functions that load lines into a cache. A worker calls them for a group
//! of packets before it decides the first of them. The cache misses of these packets then overlap. Under the lock they
//! could not overlap, because the processor finishes all loads before it takes a lock. Therefore the words are atomic.

use std::hint::black_box;
use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::NIL;
use super::entry::Entry;
use super::line::{Line, Lines};

/// Slots for each bucket of the index. One bucket in fifty overflows in a full shard.
const SLOTS_PER_BUCKET: usize = 4;

/// Bytes for each slot: an entry and its share of the index.
pub(crate) const SLOT_BYTES: usize = size_of::<Line>() + size_of::<Line>() / SLOTS_PER_BUCKET;

/// The number of slots that a full shard checks for expired entries before it evicts an unexpired one: the slots behind
/// that entry. In a flood, these are the next entries to be evicted, because a new entry takes the slot of the oldest
/// one. The check therefore reads one new cache line for each eviction, and the line is needed soon.
pub(super) const EXPIRY_PROBES: u32 = 4;

/// The number of buckets for this number of slots.
pub(super) const fn buckets(slots: usize) -> usize {
    slots.div_ceil(SLOTS_PER_BUCKET)
}

/// The slab and the index of one shard.
pub(crate) struct ShardMemory {
    slab: Lines,
    pub(super) index: Lines,
    /// The slot of the oldest first step if the shard is full; otherwise [`NIL`].
    victim: AtomicU32,
}

impl ShardMemory {
    /// The addresses of the slab and of the index.
    pub(crate) fn regions(&self) -> [Range<usize>; 2] {
        [self.slab.region(), self.index.region()]
    }

    /// Reserves memory for this number of slots; `None` if there is not enough.
    pub(crate) fn new(slots: u32) -> Option<ShardMemory> {
        let slots = slots as usize;
        let victim = AtomicU32::new(NIL);
        Some(ShardMemory { slab: Lines::new(slots)?, index: Lines::new(buckets(slots))?, victim })
    }

    /// The entry in this slot.
    #[inline]
    pub(super) fn slot(&self, slot: u32) -> Entry<'_> {
        Entry(self.slab.line(slot as usize))
    }

    /// The entry in this slot, if there is such a slot: for slots that were read without the lock.
    #[inline]
    fn slot_if_valid(&self, slot: u32) -> Option<Entry<'_>> {
        ((slot as usize) < self.slab.len()).then(|| self.slot(slot))
    }

    /// The entries in these slots.
    #[inline]
    pub(super) fn slots(&self, slots: Range<u32>) -> impl Iterator<Item = Entry<'_>> {
        self.slab.lines(slots.start as usize..slots.end as usize).iter().map(Entry)
    }

    /// Writes the memory of these slots and of their buckets without changing it.
    pub(super) fn populate(&self, slots: Range<u32>) {
        let range = |share: usize| slots.start as usize / share..(slots.end as usize).div_ceil(share);
        for line in self.slab.lines(range(1)).iter().chain(self.index.lines(range(SLOTS_PER_BUCKET))) {
            line[0].store(line[0].load(Relaxed), Relaxed);
        }
    }

    pub(super) fn set_victim(&self, slot: u32) {
        self.victim.store(slot, Relaxed);
    }

    /// Loads the bucket of an address.
    #[inline]
    pub(crate) fn touch_bucket(&self, hash: u64) {
        black_box(self.bucket(hash as u32).0[0].load(Relaxed));
    }

    /// Loads the entries that may belong to an address.
    #[inline]
    pub(crate) fn touch_entries(&self, hash: u64) {
        for slot in self.slots_of_tag(hash as u32) {
            self.touch_slot(slot);
        }
    }

    /// Loads the neighbours of these entries in their queues, which a refresh changes.
    #[inline]
    pub(crate) fn touch_neighbours(&self, hash: u64) {
        for slot in self.slots_of_tag(hash as u32) {
            if let Some(entry) = self.slot_if_valid(slot) {
                self.touch_slot(entry.older());
                self.touch_slot(entry.newer());
            }
        }
    }

    /// The slot of the entry that the next addition to the full shard evicts; [`NIL`] if the shard is not full.
    #[inline]
    pub(crate) fn victim(&self) -> u32 {
        self.victim.load(Relaxed)
    }

    /// The slot of the entry that is evicted after this one.
    #[inline]
    pub(crate) fn next_victim(&self, slot: u32) -> u32 {
        self.slot_if_valid(slot).map_or(NIL, Entry::newer)
    }

    /// Loads the entry in this slot, and the last one of those that are checked for expiry before it is evicted.
    #[inline]
    pub(crate) fn touch_victim(&self, slot: u32) {
        self.touch_slot(slot);
        self.touch_slot(slot.wrapping_add(EXPIRY_PROBES));
    }

    /// Loads the bucket of the entry in this slot.
    #[inline]
    pub(crate) fn touch_bucket_of(&self, slot: u32) {
        if let Some(entry) = self.slot_if_valid(slot) {
            self.touch_bucket(entry.hash().into());
        }
    }

    #[inline]
    fn touch_slot(&self, slot: u32) {
        if let Some(entry) = self.slot_if_valid(slot) {
            black_box(entry.hash());
        }
    }
}
