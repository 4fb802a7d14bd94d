//! The index of a shard: a hash table over the slab, of buckets with a cache line each.
//!
//! ```text
//! bucket   [ tags of 8 entries | their 8 slots | overflow ]      64 bytes, four entries on average in a full shard
//! ```
//! A tag is a byte of the hash, so an address without entries is seldom compared with an entry of another address. A
//! full bucket chains further entries. Buckets have no tombstones, so the index never needs to be built anew.

use std::sync::atomic::Ordering::Relaxed;

use super::entry::Entry;
use super::line::Line;
use super::memory::ShardMemory;
use super::{NIL, Shard};
use crate::state::key::AddressKey;
use crate::state::lanes::{LANES_OF_8, equal_lanes, store_bits};

/// The number of entries in a bucket before it overflows.
const WAYS: usize = 8;

/// A bucket: a line of the index. Zeros are an empty bucket.
#[derive(Clone, Copy)]
pub(super) struct Bucket<'m>(pub(super) &'m Line);

/// The words of a bucket: the tags, a byte each and 0 for a free place; two slots in each of four words; the first slot
/// of the overflow chain, plus 1.
const TAGS: usize = 0;
const SLOTS: usize = 1;
const OVERFLOW: usize = SLOTS + WAYS / 2;

/// Places of a bucket: the highest bit of a byte each.
#[derive(Clone, Copy)]
struct Places(u64);

impl Places {
    /// Takes one place.
    #[inline]
    fn take(&mut self) -> Option<usize> {
        let bit = (self.0 != 0).then_some(self.0.trailing_zeros() as usize)?;
        self.0 &= self.0 - 1;
        Some(bit / 8)
    }
}

impl Bucket<'_> {
    /// The places with this tag.
    #[inline]
    fn with_tag(self, tag: u8) -> Places {
        Places(equal_lanes(self.0[TAGS].load(Relaxed), tag.into(), LANES_OF_8))
    }

    #[inline]
    fn slot(self, place: usize) -> u32 {
        (self.0[SLOTS + place / 2 % (WAYS / 2)].load(Relaxed) >> (32 * (place % 2))) as u32
    }

    /// The first slot of the overflow chain.
    #[inline]
    fn overflow(self) -> u32 {
        (self.0[OVERFLOW].load(Relaxed) as u32).wrapping_sub(1)
    }

    fn set_overflow(self, slot: u32) {
        self.0[OVERFLOW].store(slot.wrapping_add(1).into(), Relaxed);
    }

    #[inline]
    fn set_tag(self, place: usize, tag: u8) {
        store_bits(&self.0[TAGS], 8 * (place % WAYS) as u32, u8::MAX.into(), tag.into());
    }

    #[inline]
    fn set(self, place: usize, tag: u8, slot: u32) {
        self.set_tag(place, tag);
        store_bits(&self.0[SLOTS + place / 2 % (WAYS / 2)], 32 * (place % 2) as u32, u32::MAX.into(), slot.into());
    }
}

/// The tag of a hash. Bits that hardly influence the bucket.
fn tag_of(hash: u32) -> u8 {
    (hash as u8).max(1)
}

/// Maps the lower half of a hash to a bucket; the upper bits select the shard. Source: Lemire, "Fast random integer
/// generation in an interval", which needs no power of two.
#[inline]
pub(super) fn bucket_of(hash: u32, buckets: usize) -> usize {
    ((u64::from(hash) * buckets as u64) >> 32) as usize
}

/// The entries of a bucket whose tags are those of a hash, and those in its overflow chain, with their slots.
pub(super) struct Candidates<'m> {
    memory: &'m ShardMemory,
    bucket: Bucket<'m>,
    places: Places,
    overflow: u32,
}

impl<'m> Iterator for Candidates<'m> {
    type Item = (u32, Entry<'m>);

    #[inline]
    fn next(&mut self) -> Option<(u32, Entry<'m>)> {
        if let Some(place) = self.places.take() {
            let slot = self.bucket.slot(place);
            return Some((slot, self.memory.slot(slot)));
        }
        if self.overflow == NIL {
            return None;
        }
        let entry = self.memory.slot(self.overflow);
        Some((std::mem::replace(&mut self.overflow, entry.next()), entry))
    }
}

impl ShardMemory {
    #[inline]
    pub(super) fn bucket(&self, hash: u32) -> Bucket<'_> {
        Bucket(self.index.line(bucket_of(hash, self.index.len())))
    }

    /// The entries that may have this hash. The secret keeps their number small, except for entries of one address, of
    /// which there are few for each list.
    #[inline]
    pub(super) fn candidates(&self, hash: u64) -> Candidates<'_> {
        let bucket = self.bucket(hash as u32);
        let places = bucket.with_tag(tag_of(hash as u32));
        Candidates { memory: self, bucket, places, overflow: bucket.overflow() }
    }

    /// The slots whose tags are those of a hash, without those in the overflow chain.
    #[inline]
    pub(super) fn slots_of_tag(&self, hash: u32) -> impl Iterator<Item = u32> {
        let bucket = self.bucket(hash);
        let mut places = bucket.with_tag(tag_of(hash));
        std::iter::from_fn(move || Some(bucket.slot(places.take()?)))
    }

    /// Adds the entry in this slot, with the lower half of this hash, to its bucket.
    #[inline]
    pub(super) fn link(&self, hash: u64, slot: u32) {
        let hash = hash as u32;
        let bucket = self.bucket(hash);
        match bucket.with_tag(0).take() {
            Some(place) => bucket.set(place, tag_of(hash), slot),
            None => {
                self.slot(slot).set_next(bucket.overflow());
                bucket.set_overflow(slot);
            }
        }
    }

    /// Removes the entry in this slot, which has this hash, from its bucket.
    #[inline]
    pub(super) fn unlink(&self, hash: u32, slot: u32) {
        let bucket = self.bucket(hash);
        let mut places = bucket.with_tag(tag_of(hash));
        while let Some(place) = places.take() {
            if bucket.slot(place) == slot {
                bucket.set_tag(place, 0);
                if bucket.overflow() != NIL {
                    self.move_from_overflow(bucket, place);
                }
                return;
            }
        }
        self.unlink_from_overflow(bucket, slot);
    }

    /// Moves the first entry of the overflow chain to a free place, so that the chain stays short.
    #[cold]
    fn move_from_overflow(&self, bucket: Bucket<'_>, place: usize) {
        let first = bucket.overflow();
        let entry = self.slot(first);
        bucket.set_overflow(entry.next());
        bucket.set(place, tag_of(entry.hash()), first);
    }

    #[cold]
    fn unlink_from_overflow(&self, bucket: Bucket<'_>, slot: u32) {
        let after = self.slot(slot).next();
        let mut before = bucket.overflow();
        if before == slot {
            bucket.set_overflow(after);
            return;
        }
        while self.slot(before).next() != slot {
            before = self.slot(before).next();
        }
        self.slot(before).set_next(after);
    }
}

#[cfg(test)]
impl ShardMemory {
    /// The number of entries in a bucket.
    pub(super) fn len_of(&self, bucket: usize) -> usize {
        let bucket = Bucket(self.index.line(bucket));
        let (mut free, mut places) = (0, bucket.with_tag(0));
        while places.take().is_some() {
            free += 1;
        }
        let mut slot = bucket.overflow();
        let chained = std::iter::from_fn(|| {
            let chained = (slot != NIL).then_some(slot)?;
            slot = self.slot(chained).next();
            Some(chained)
        });
        WAYS - free + chained.count()
    }
}

impl Shard {
    /// Whether the slot's entry has this key.
    #[inline]
    pub(super) fn has_key(&self, slot: u32, entry: Entry<'_>, key: AddressKey) -> bool {
        entry.bits() == key.bits && entry.has_kind(key.kind) && (!key.kind.is_in_vlan() || self.vlan(slot) == key.vlan)
    }

    /// Whether the entry belongs to this address, or to this network, in some VLAN.
    pub(super) fn is_vlan_entry_of(&self, entry: Entry<'_>, address: AddressKey) -> bool {
        entry.has_kind(address.kind.in_vlan()) && !entry.has_kind(address.kind) && entry.bits() == address.bits
    }

    /// The first entry that has this key and matches.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: AddressKey, matches: impl Fn(Entry<'_>) -> bool) -> Option<u32> {
        let found = |(slot, entry): &(u32, Entry<'_>)| matches(*entry) && self.has_key(*slot, *entry, key);
        self.memory.candidates(hash).find(found).map(|(slot, _)| slot)
    }
}
