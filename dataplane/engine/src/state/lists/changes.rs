//! Adds and removes dynamic entries.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use knockplane_policy::event::Origin;
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use super::{AddressHash, ListId, Lists, LockedShard, STEP, lock};
use crate::state::events::Cause;
use crate::state::key::AddressKey;
use crate::state::lists::shard::{EntryScope, EntryTerms, RemovalScope, SlotRange};

/// The outcome of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddOutcome {
    /// The address was not in the list. The entry is new.
    New,
    /// The address was in the list. The entry has a new expiry.
    Refreshed,
    /// An operator's static entry puts the address in the list; nothing changed.
    Kept,
    /// The address is not in the list: all slots contain entries of higher levels.
    Refused,
}

impl Lists {
    /// Adds the address to the list until `expiry`, or sets the expiry of its entry. A permanent entry stays permanent.
    pub fn add(&self, list: ListId, address: IpAddr, expiry: Time, now: Time) -> AddOutcome {
        self.add_for(list, address, 0, expiry, now)
    }

    /// As [`Lists::add`], for the peer of this tag alone.
    pub fn add_for(&self, list: ListId, address: IpAddr, peer_tag: u32, expiry: Time, now: Time) -> AddOutcome {
        self.in_vlan(Vlan::NONE).add_for(list, address, peer_tag, expiry, now)
    }

    pub(super) fn add_at(
        &self,
        scope: EntryScope,
        key: AddressKey,
        address: Option<AddressHash>,
        terms: EntryTerms<'_>,
    ) -> AddOutcome {
        self.change(key, address, |shard, hash, key, net| {
            let (key, hash) = net.filter(|_| terms.level == 0).unwrap_or((key, hash));
            let added = shard.add(hash, key, scope, terms);
            (added, added != AddOutcome::Refused)
        })
    }

    /// Removes the address from the list for an operator, for all peers and VLANs. Returns whether the list contained
    /// the address.
    pub fn remove(&self, list: ListId, address: IpAddr, now: Time) -> bool {
        let cause = &Cause::of(Origin::Operator);
        self.remove_at(RemovalScope { list, peer_tag: None }, address.into(), cause, now)
            | self.remove_in_vlans(list, address, cause, now)
    }

    /// Removes all dynamic entries from the list, for an operator. Returns the number of entries that had not expired.
    pub fn flush(&self, list: ListId, now: Time) -> u64 {
        let cause = &Cause::of(Origin::Operator);
        let mut flushed = 0;
        for LockedShard { version, shard, .. } in self.shards.iter().map(|shard| &**shard) {
            let mut next = Some(0);
            while let Some(begin) = next {
                let mut shard = lock(shard);
                let found;
                (found, next) = shard.flush(list, SlotRange { begin, count: STEP }, cause, now);
                flushed += found;
                if found > 0 {
                    version.store(version.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
                }
            }
        }
        flushed
    }

    pub(super) fn remove_at(&self, ends: RemovalScope, key: AddressKey, cause: &Cause, now: Time) -> bool {
        self.change(key, None, |shard, hash, key, net| {
            let mut removed = shard.remove(hash, key, ends, cause, now);
            if let Some((net, hash)) = net {
                removed |= shard.remove(hash, net, ends, cause, now);
            }
            (removed, removed)
        })
    }
}
