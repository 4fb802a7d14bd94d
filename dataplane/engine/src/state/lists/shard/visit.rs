//! Visits entries.

use knockplane_policy::time::Time;

use super::queue::queue_of;
use super::{Shard, SlotRange};
use crate::state::key::AddressKey;
use crate::state::lists::{DynamicEntry, LEVELS, ListId};

impl Shard {
    /// Visits the unexpired entries in these slots. Returns the slot to continue at, or `None` at the end.
    pub(crate) fn visit(&self, slots: SlotRange, now: Time, mut visitor: impl FnMut(DynamicEntry)) -> Option<u32> {
        let end = self.fresh.min(slots.end());
        for slot in slots.begin..end {
            let entry = self.entry(slot);
            if !entry.is_free() && entry.is_live(now) {
                visitor(self.dynamic_entry(slot));
            }
        }
        (end < self.fresh).then_some(end)
    }

    /// As [`Shard::visit`], for the entries of this address in all VLANs, with their levels.
    pub(crate) fn visit_in_vlans(
        &self,
        address: AddressKey,
        slots: SlotRange,
        now: Time,
        mut visitor: impl FnMut(DynamicEntry, u8),
    ) -> Option<u32> {
        if self.in_vlans == 0 {
            return None;
        }
        let end = self.fresh.min(slots.end());
        for slot in slots.begin.min(end)..end {
            let entry = self.entry(slot);
            if self.is_vlan_entry_of(entry, address) && entry.is_live(now) {
                visitor(self.dynamic_entry(slot), entry.level());
            }
        }
        (end < self.fresh).then_some(end)
    }

    fn dynamic_entry(&self, slot: u32) -> DynamicEntry {
        let (entry, key) = (self.entry(slot), self.key(slot));
        DynamicEntry {
            list: entry.list(),
            address: key.address(),
            vlan: key.vlan(),
            peer_tag: entry.peer_tag(),
            step: entry.mark().step(),
            expiry: entry.expiry(),
        }
    }

    /// Visits the address's unexpired entries, with their levels.
    pub(crate) fn visit_address(
        &self,
        hash: u64,
        key: AddressKey,
        now: Time,
        mut visitor: impl FnMut(DynamicEntry, u8),
    ) {
        for (slot, entry) in self.memory.candidates(hash) {
            if self.has_key(slot, entry, key) && entry.is_live(now) {
                visitor(self.dynamic_entry(slot), entry.level());
            }
        }
    }

    /// The expiry of the address's entry that counts for all peers, and whether it has the highest rank; `None` if
    /// there is no such entry.
    pub(crate) fn standing(&self, hash: u64, key: AddressKey, list: ListId, now: Time) -> Option<(Time, bool)> {
        let slot = self.find(hash, key, |entry| (entry.list(), entry.peer_tag()) == (list, 0))?;
        let entry = self.entry(slot);
        entry.is_live(now).then_some((entry.expiry(), queue_of(entry.level()) == LEVELS - 1))
    }

    /// The number of further entries of the highest rank that would leave a tenth of the slots to others.
    pub(crate) fn room_for_highest(&self) -> usize {
        let slots = self.slots as usize;
        (slots - slots / 10).saturating_sub(self.queues[LEVELS - 1].length as usize)
    }
}
