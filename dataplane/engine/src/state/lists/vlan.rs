//! Entries that count in one VLAN alone.
//!
//! They are found by the address and the VLAN together, so that a network with the same addresses in many VLANs fills no
//! bucket. Whoever asks for an address in all VLANs, an operator, has its shard gone through, if that has any such entry.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use knockplane_policy::event::Origin;
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use super::{AddOutcome, ListId, ListSet, Lists, LockedShard, STEP, lock};
use crate::state::events::Cause;
use crate::state::key::Key;
use crate::state::lists::shard::{EntryScope, EntryTerms, RemovalScope};

/// The lists as one VLAN sees and changes them.
#[derive(Clone, Copy)]
pub struct VlanLists<'l> {
    pub(super) lists: &'l Lists,
    vlan: Vlan,
    /// What changes are caused by.
    pub(super) cause: Cause,
}

impl<'l> VlanLists<'l> {
    /// Changes have this cause from now on, instead of a packet of which nothing is said.
    #[inline]
    #[must_use]
    pub const fn by(self, cause: Cause) -> VlanLists<'l> {
        VlanLists { cause, ..self }
    }
}

impl Lists {
    /// The lists as seen from this VLAN. What is changed there counts in it alone; with [`Vlan::NONE`], in all.
    #[inline]
    pub const fn in_vlan(&self, vlan: Vlan) -> VlanLists<'_> {
        VlanLists { lists: self, vlan, cause: Cause::of(Origin::Packet) }
    }

    /// Takes the address out of the list in all VLANs. Whether it was in it.
    pub(super) fn remove_in_vlans(&self, list: ListId, address: IpAddr, cause: &Cause, now: Time) -> bool {
        let key = Key::from(address);
        let LockedShard { version, shard } = &*self.shards[self.shard_of_address(key)];
        let mut removed = false;
        for key in [Some(key), key.net().filter(|_| self.v6_by_prefix)].into_iter().flatten() {
            let mut next = Some(0);
            while let Some(begin) = next {
                let mut shard = lock(shard);
                let was_in_it;
                (was_in_it, next) = shard.remove_in_vlans(key, list, (begin, STEP), cause, now);
                if was_in_it {
                    version.store(version.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
                }
                removed |= was_in_it;
            }
        }
        removed
    }
}

impl VlanLists<'_> {
    pub(super) fn key(&self, address: IpAddr) -> Key {
        Key::from(address).in_vlan(self.vlan)
    }

    /// As [`Lists::membership`]: by entries of this VLAN, and by those that count in all VLANs for all other ends.
    pub fn membership(&self, address: IpAddr, peer_tag: u32, now: Time) -> ListSet {
        self.lists.lookup(self.key(address), peer_tag, now).membership.lists
    }

    /// As [`Lists::add_for`].
    pub fn add_for(&self, list: ListId, address: IpAddr, peer_tag: u32, expiry: Time, now: Time) -> AddOutcome {
        if self.lists.permanent_static_lists(address.into()).contains(list) {
            return AddOutcome::Kept;
        }
        let terms = EntryTerms { level: self.lists.level(list), expiry, now, cause: &self.cause };
        self.lists.add_at(EntryScope { list, peer_tag }, self.key(address), terms)
    }

    /// Takes the address out of the list, for whatever other ends it was in it here. Whether it was in it.
    pub fn remove(&self, list: ListId, address: IpAddr, now: Time) -> bool {
        self.lists.remove_at(RemovalScope { list, peer_tag: None }, self.key(address), &self.cause, now)
    }

    /// Takes the address out of the list for the other end of this tag alone. Whether it was in it for that.
    pub fn remove_for(&self, list: ListId, address: IpAddr, peer_tag: u32, now: Time) -> bool {
        self.lists.remove_at(RemovalScope { list, peer_tag: Some(peer_tag) }, self.key(address), &self.cause, now)
    }
}
