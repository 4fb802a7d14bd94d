//! Entries that count in one VLAN alone.
//!
//! The address and the VLAN together select the bucket of an entry, so that a network with the same addresses in many
//! VLANs fills no bucket. A lookup of an address in all VLANs, for an operator, visits all slots of the address's
//! shard, if the shard contains such an entry.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use knockplane_policy::event::Origin;
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use super::{AddOutcome, AddressHash, ListId, ListSet, Lists, LockedShard, STEP, lock};
use crate::state::events::Cause;
use crate::state::key::AddressKey;
use crate::state::lists::shard::{EntryScope, EntryTerms, RemovalScope, SlotRange};

/// The lists in the view of one VLAN.
#[derive(Clone, Copy)]
pub struct VlanLists<'l> {
    pub(super) lists: &'l Lists,
    vlan: Vlan,
    /// The hash of the address that the next call changes, if it is known.
    pub(super) hash: Option<AddressHash>,
    /// The cause of changes.
    pub(super) cause: &'l Cause,
}

impl<'l> VlanLists<'l> {
    /// Sets the cause of changes, in place of a packet without details.
    #[inline]
    #[must_use]
    pub const fn by(self, cause: &'l Cause) -> VlanLists<'l> {
        VlanLists { cause, ..self }
    }

    /// Sets the hash of the address that the next call changes, if it is known.
    #[inline]
    #[must_use]
    pub(crate) const fn with_hash(self, hash: Option<AddressHash>) -> VlanLists<'l> {
        VlanLists { hash, ..self }
    }
}

impl Lists {
    /// The lists in the view of this VLAN. Changes count in this VLAN alone; with [`Vlan::NONE`], in all.
    #[inline]
    pub const fn in_vlan(&self, vlan: Vlan) -> VlanLists<'_> {
        VlanLists { lists: self, vlan, hash: None, cause: const { &Cause::of(Origin::Packet) } }
    }

    /// Removes the address from the list in all VLANs. Returns whether the list contained the address.
    pub(super) fn remove_in_vlans(&self, list: ListId, address: IpAddr, cause: &Cause, now: Time) -> bool {
        let key = AddressKey::from(address);
        let LockedShard { version, shard, .. } = &*self.shards[self.shard_of_address(key)];
        let mut removed = false;
        for key in [Some(key), key.net().filter(|_| self.v6_by_prefix)].into_iter().flatten() {
            let mut next = Some(0);
            while let Some(begin) = next {
                let mut shard = lock(shard);
                let was_in_it;
                (was_in_it, next) = shard.remove_in_vlans(key, list, SlotRange { begin, count: STEP }, cause, now);
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
    pub(super) fn key(&self, address: IpAddr) -> AddressKey {
        AddressKey::from(address).in_vlan(self.vlan)
    }

    /// As [`Lists::membership`]: by entries of this VLAN, and by entries that count in all VLANs for all peers.
    pub fn membership(&self, address: IpAddr, peer_tag: u32, now: Time) -> ListSet {
        self.lists.lookup(self.key(address), peer_tag, now).membership.lists
    }

    /// As [`Lists::add_for`].
    pub fn add_for(&self, list: ListId, address: IpAddr, peer_tag: u32, expiry: Time, now: Time) -> AddOutcome {
        if self.lists.permanent_static_lists(address.into()).contains(list) {
            return AddOutcome::Kept;
        }
        let terms = EntryTerms { level: self.lists.level(list), expiry, now, cause: self.cause };
        self.lists.add_at(EntryScope { list, peer_tag }, self.key(address), self.hash, terms)
    }

    /// Removes the address from the list in this VLAN, for all peers. Returns whether the list contained the address.
    pub fn remove(&self, list: ListId, address: IpAddr, now: Time) -> bool {
        self.lists.remove_at(RemovalScope { list, peer_tag: None }, self.key(address), self.cause, now)
    }

    /// Removes the address from the list for the peer of this tag alone. Returns whether the list contained the address
    /// for this peer.
    pub fn remove_for(&self, list: ListId, address: IpAddr, peer_tag: u32, now: Time) -> bool {
        self.lists.remove_at(RemovalScope { list, peer_tag: Some(peer_tag) }, self.key(address), self.cause, now)
    }
}
