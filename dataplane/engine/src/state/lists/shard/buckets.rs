//! The hash table over the slab.

use super::Shard;
use super::entry::SlabEntry;
use crate::state::key::AddressKey;

impl Shard {
    /// Whether the slot's entry has this key.
    #[inline]
    pub(super) fn has_key(&self, slot: u32, entry: &SlabEntry, key: AddressKey) -> bool {
        entry.bits() == key.bits && entry.kind == key.kind && (!key.kind.is_in_vlan() || self.vlan(slot) == key.vlan)
    }

    /// Whether the entry belongs to this address, or to this network, in some VLAN.
    pub(super) fn is_vlan_entry_of(&self, entry: &SlabEntry, address: AddressKey) -> bool {
        entry.kind == address.kind.in_vlan() && entry.kind != address.kind && entry.bits() == address.bits
    }

    /// The entries of an address's bucket with their slots. The secret keeps the bucket short except for entries of one
    /// address, of which there are few for each list.
    pub(super) fn bucket(&self, hash: u64) -> impl Iterator<Item = (u32, &SlabEntry)> {
        let mut slot = self.buckets[bucket_of(hash, self.buckets.len())];
        std::iter::from_fn(move || {
            let entry = self.entries.get(slot as usize)?;
            Some((std::mem::replace(&mut slot, entry.chain), entry))
        })
    }

    /// The first entry in the address's bucket that has this key and matches.
    pub(super) fn find(&self, hash: u64, key: AddressKey, matches: impl Fn(&SlabEntry) -> bool) -> Option<u32> {
        self.bucket(hash).find(|(slot, entry)| matches(entry) && self.has_key(*slot, entry, key)).map(|(slot, _)| slot)
    }
}

/// Maps the lower half of a hash to a bucket; the upper bits select the shard. Source: Lemire, "Fast random integer
/// generation in an interval", which needs no power of two.
pub(super) fn bucket_of(hash: u64, buckets: usize) -> usize {
    ((u64::from(hash as u32) * buckets as u64) >> 32) as usize
}
