//! Allocates and frees slots.

use knockplane_policy::packet::Vlan;

use super::buckets::bucket_of;
use super::entry::{Mark, SlabEntry};
use super::{EntryScope, EntryTerms, NIL, Shard};
use crate::state::key::{AddressKey, KeyKind};

impl Shard {
    pub(super) fn entry(&self, slot: u32) -> &SlabEntry {
        &self.entries[slot as usize]
    }

    pub(super) fn entry_mut(&mut self, slot: u32) -> &mut SlabEntry {
        &mut self.entries[slot as usize]
    }

    /// The key of the slot's entry.
    pub(super) fn key(&self, slot: u32) -> AddressKey {
        let entry = self.entry(slot);
        let vlan = if entry.kind.is_in_vlan() { self.vlan(slot) } else { Vlan::NONE };
        AddressKey { bits: entry.bits(), kind: entry.kind, vlan }
    }

    pub(super) fn vlan(&self, slot: u32) -> Vlan {
        let [high, middle, low] = self.vlans[slot as usize].map(u64::from);
        Vlan::from_bits(high << 32 | middle << 16 | low)
    }

    /// The slot of a new entry; `None` if all slots contain entries of higher levels.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        key: AddressKey,
        EntryScope { list, peer_tag }: EntryScope,
        terms: EntryTerms,
    ) -> Option<u32> {
        let EntryTerms { level, expiry, now, cause } = terms;
        if self.quota_of(level).is_some_and(|quota| !quota.take(key)) {
            self.counts_mut(list).refused += 1;
            return None;
        }
        let Some(slot) = self.make_room(level, now) else {
            self.quota_of(level).into_iter().for_each(|quota| quota.give_back(key));
            self.counts_mut(list).refused += 1;
            return None;
        };
        let bucket = bucket_of(hash, self.buckets.len());
        let chain = std::mem::replace(&mut self.buckets[bucket], slot);
        let AddressKey { bits, kind, vlan } = key;
        if kind.is_in_vlan() {
            let bits = vlan.bits();
            self.vlans[slot as usize] = [(bits >> 32) as u16, (bits >> 16) as u16, bits as u16];
            self.in_vlans += 1;
        }
        *self.entry_mut(slot) = SlabEntry {
            high: (bits >> 64) as u64,
            low: bits as u64,
            since: now,
            expiry,
            peer_tag,
            begun_ms: 0,
            changed: 0,
            chain,
            older: NIL,
            newer: NIL,
            list,
            level,
            kind,
            mark: Mark::new(0, cause.origin),
        };
        self.enqueue(slot);
        self.counts_mut(list).entries += 1;
        Some(slot)
    }

    /// Takes a free slot.
    pub(super) fn take_free_slot(&mut self) -> Option<u32> {
        if self.free != NIL {
            let slot = self.free;
            self.free = self.entry(slot).chain;
            Some(slot)
        } else if self.fresh < self.slots {
            if self.fresh as usize == self.entries.len() {
                // The capacity is sufficient: the vector does not move.
                self.entries.push(SlabEntry::UNUSED);
            }
            self.fresh += 1;
            Some(self.fresh - 1)
        } else {
            None
        }
    }

    /// Frees a slot: removes it from its bucket, its queue and its list's count.
    pub(super) fn free_slot(&mut self, slot: u32) {
        let SlabEntry { chain, list, level, .. } = *self.entry(slot);
        let key = self.key(slot);
        self.in_vlans -= u32::from(key.is_in_vlan());
        self.quota_of(level).into_iter().for_each(|quota| quota.give_back(key));
        let bucket = bucket_of(self.secret.hash(key), self.buckets.len());
        let mut before = self.buckets[bucket];
        if before == slot {
            self.buckets[bucket] = chain;
        } else {
            while self.entry(before).chain != slot {
                before = self.entry(before).chain;
            }
            self.entry_mut(before).chain = chain;
        }
        self.dequeue(slot);
        self.counts_mut(list).entries -= 1;
        let free = std::mem::replace(&mut self.free, slot);
        let entry = self.entry_mut(slot);
        (entry.kind, entry.chain) = (KeyKind::Free, free);
    }
}
