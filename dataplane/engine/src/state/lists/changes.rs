//! Adds and removes dynamic entries.

use std::net::IpAddr;

use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use super::{ListId, Lists};
use crate::state::key::Key;
use crate::state::lists::shard::{EntryScope, EntryTerms};

/// The outcome of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddOutcome {
    /// The address was not in the list, and is now.
    New,
    /// It was in the list; its timeout was set anew.
    Refreshed,
    /// It is in the list for good, by an operator; nothing changed.
    Kept,
    /// It is not in the list: everything is full of higher levels.
    Refused,
}

impl Lists {
    /// Puts the address in the list until `expiry`, or sets its expiry anew. An entry that never expires stays so.
    pub fn add(&self, list: ListId, address: IpAddr, expiry: Time, now: Time) -> AddOutcome {
        self.add_for(list, address, 0, expiry, now)
    }

    /// As [`Lists::add`], for the peer of this tag alone.
    pub fn add_for(&self, list: ListId, address: IpAddr, peer_tag: u32, expiry: Time, now: Time) -> AddOutcome {
        self.in_vlan(Vlan::NONE).add_for(list, address, peer_tag, expiry, now)
    }

    pub(super) fn add_at(&self, scope: EntryScope, key: Key, terms: EntryTerms) -> AddOutcome {
        self.change(key, |shard, hash, key, net| {
            let (key, hash) = net.filter(|_| terms.level == 0).unwrap_or((key, hash));
            let added = shard.add(hash, key, scope, terms);
            (added, added != AddOutcome::Refused)
        })
    }

    /// Takes the address out of the list, for whatever other ends and VLANs it was in it. Whether it was in it.
    pub fn remove(&self, list: ListId, address: IpAddr, now: Time) -> bool {
        self.remove_at(list, address.into(), None, now) | self.remove_in_vlans(list, address, now)
    }

    /// Takes the address out of the list for the peer of this tag alone, in all VLANs together. Whether it was in it
    /// for that.
    pub fn remove_for(&self, list: ListId, address: IpAddr, peer_tag: u32, now: Time) -> bool {
        self.in_vlan(Vlan::NONE).remove_for(list, address, peer_tag, now)
    }

    pub(super) fn remove_at(&self, list: ListId, key: Key, peer_tag: Option<u32>, now: Time) -> bool {
        self.change(key, |shard, hash, key, net| {
            let mut removed = shard.remove(hash, key, list, peer_tag, now);
            if let Some((net, hash)) = net {
                removed |= shard.remove(hash, net, list, peer_tag, now);
            }
            (removed, removed)
        })
    }
}
