//! Entries are added and removed.

use std::net::IpAddr;

use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use super::{ListId, Lists};
use crate::state::key::Key;
use crate::state::lists::shard::{Place, Terms};

/// What came of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
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
    pub fn add(&self, list: ListId, address: IpAddr, expiry: Time, now: Time) -> Added {
        self.add_for(list, address, 0, expiry, now)
    }

    /// As [`Lists::add`], for the other end of this tag alone.
    pub fn add_for(&self, list: ListId, address: IpAddr, to: u32, expiry: Time, now: Time) -> Added {
        self.within(Vlan::NONE).add_for(list, address, to, expiry, now)
    }

    pub(super) fn add_at(&self, place: Place, key: Key, terms: Terms) -> Added {
        self.change(key, |shard, hash, key, net| {
            let (key, hash) = net.filter(|_| terms.level == 0).unwrap_or((key, hash));
            let added = shard.add(hash, key, place, terms);
            (added, added != Added::Refused)
        })
    }

    /// Takes the address out of the list, for whatever other ends and VLANs it was in it. Whether it was in it.
    pub fn remove(&self, list: ListId, address: IpAddr, now: Time) -> bool {
        self.remove_at(list, address.into(), None, now) | self.remove_in_vlans(list, address, now)
    }

    /// Takes the address out of the list for the other end of this tag alone, in all VLANs together. Whether it was in it
    /// for that.
    pub fn remove_for(&self, list: ListId, address: IpAddr, to: u32, now: Time) -> bool {
        self.within(Vlan::NONE).remove_for(list, address, to, now)
    }

    pub(super) fn remove_at(&self, list: ListId, key: Key, to: Option<u32>, now: Time) -> bool {
        self.change(key, |shard, hash, key, net| {
            let mut removed = shard.remove(hash, key, list, to, now);
            if let Some((net, hash)) = net {
                removed |= shard.remove(hash, net, list, to, now);
            }
            (removed, removed)
        })
    }
}
