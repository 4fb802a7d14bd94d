//! Allocates and frees slots.

use knockplane_policy::packet::Vlan;
use knockplane_policy::strangers::KnownSources;

use super::entry::Entry;
use super::{EntryScope, EntryTerms, NIL, Shard};
use crate::state::key::{AddressKey, KeyKind};

impl Shard {
    #[inline]
    pub(super) fn entry(&self, slot: u32) -> Entry<'_> {
        self.memory.slot(slot)
    }

    /// The key of the slot's entry.
    pub(super) fn key(&self, slot: u32) -> AddressKey {
        let entry = self.entry(slot);
        let kind = entry.kind();
        let vlan = if kind.is_in_vlan() { self.vlan(slot) } else { Vlan::NONE };
        AddressKey { bits: entry.bits(), kind, vlan }
    }

    pub(super) fn vlan(&self, slot: u32) -> Vlan {
        let [high, middle, low] = self.vlans[slot as usize].map(u64::from);
        Vlan::from_bits(high << 32 | middle << 16 | low)
    }

    /// The slot of a new entry; `None` if all slots contain entries of higher levels.
    pub(super) fn insert(&mut self, hash: u64, key: AddressKey, scope: EntryScope, terms: EntryTerms) -> Option<u32> {
        let (list, EntryTerms { level, now, .. }) = (scope.list, terms);
        if self.quota_of(level).is_some_and(|quota| !quota.take(key)) {
            self.counts_mut(list).refused += 1;
            return None;
        }
        let Some(slot) = self.make_room(level, now) else {
            self.quota_of(level).into_iter().for_each(|quota| quota.give_back(key));
            self.counts_mut(list).refused += 1;
            return None;
        };
        if key.is_in_vlan() {
            let bits = key.vlan.bits();
            self.vlans[slot as usize] = [(bits >> 32) as u16, (bits >> 16) as u16, bits as u16];
            self.in_vlans += 1;
        }
        self.entry(slot).write(hash, key, scope, terms);
        self.memory.link(hash, slot);
        self.enqueue(slot);
        self.counts_mut(list).entries += 1;
        self.address_changed(slot);
        self.note_source(slot, KnownSources::add);
        Some(slot)
    }

    /// Takes a free slot.
    pub(super) fn take_free_slot(&mut self) -> Option<u32> {
        if self.free != NIL {
            let slot = self.free;
            self.free = self.entry(slot).next();
            Some(slot)
        } else if self.fresh < self.slots {
            self.fresh += 1;
            self.show_victim();
            Some(self.fresh - 1)
        } else {
            None
        }
    }

    /// Frees a slot: removes it from its bucket, its queue and its list's count.
    pub(super) fn free_slot(&mut self, slot: u32) {
        let entry = self.entry(slot);
        let (list, level, hash, is_in_vlan) = (entry.list(), entry.level(), entry.hash(), entry.kind().is_in_vlan());
        if let Some(quota) = self.quota_of(level) {
            quota.give_back(self.key(slot));
        }
        self.address_changed(slot);
        self.note_source(slot, KnownSources::remove);
        self.in_vlans -= u32::from(is_in_vlan);
        self.memory.unlink(hash, slot);
        self.dequeue(slot);
        self.counts_mut(list).entries -= 1;
        let free = std::mem::replace(&mut self.free, slot);
        let entry = self.entry(slot);
        entry.set_kind(KeyKind::Free);
        entry.set_next(free);
    }
}
