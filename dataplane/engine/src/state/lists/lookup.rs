//! Lookups: the lists that contain an address, and the period in which the answer is valid.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;

use knockplane_policy::door::progress;
use knockplane_policy::time::Time;

use super::{AddressHash, ListSet, Lists, LockedShard, lock};
use crate::state::key::AddressKey;

/// The lists that contain an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) lists: ListSet,
    /// Whether the address has entries that do not count here: for other peers, or from packets that arrived later.
    pub(crate) has_other_entries: bool,
}

/// The result of a lookup, and the period in which it is valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookup {
    pub(crate) membership: Membership,
    /// The begin of the period. An entry of the set does not exist before this time.
    pub(super) from: Time,
    /// The end of the period. At this time an entry of the set expires, or another entry begins.
    pub(crate) until: Time,
    /// The version of the shard at the lookup.
    pub(crate) version: ShardVersion,
}

/// The shard of an address, and the version that a lookup read. Every change of a shard that can change the result of a
/// lookup changes the version. Expiry does not change the version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardVersion {
    shard: usize,
    version: u64,
}

impl Lookup {
    /// No list, always valid.
    pub(crate) const EMPTY: Lookup = Lookup {
        membership: Membership { lists: ListSet::EMPTY, has_other_entries: false },
        from: Time::from_nanos(0),
        until: Time::NEVER,
        version: ShardVersion { shard: 0, version: 0 },
    };

    /// Adds lists that contain the address by other sources, valid in this period.
    pub(crate) fn add(&mut self, set: ListSet, time: Range<Time>) {
        self.membership.lists.insert_all(set);
        self.from = self.from.max(time.start);
        self.until = self.until.min(time.end);
    }
}

impl Lists {
    /// The tag of a peer in entries that count for this peer alone; never 0. The tag of an IPv4 address is the address,
    /// except that 0.0.0.0 and 0.0.0.1 share a tag.
    pub fn peer_tag(&self, peer: IpAddr) -> u32 {
        progress::tag(self.secret.0, peer).max(1)
    }

    /// The lists that contain the address now, for the peer of this tag; with 0, for all peers. An entry has expired at
    /// its expiry, not after it.
    pub fn membership(&self, address: IpAddr, peer_tag: u32, now: Time) -> ListSet {
        self.lookup(address.into(), peer_tag, now).membership.lists
    }

    /// As [`Lists::membership`], with the period in which the result is valid.
    pub(crate) fn lookup(&self, within: AddressKey, peer_tag: u32, now: Time) -> Lookup {
        let mut lookup = Lookup::EMPTY;
        self.lookup_into(within, self.hash(within), peer_tag, now, &mut lookup, || {});
        lookup
    }

    /// As [`Lists::lookup`], in place, because a result is large. For a key in a VLAN: the entries of the VLAN for the
    /// peer of this tag, and the entries that count in all VLANs for all peers. Calls `also` while the lock is held.
    #[inline]
    pub(crate) fn lookup_into(
        &self,
        within: AddressKey,
        hash: AddressHash,
        peer_tag: u32,
        now: Time,
        lookup: &mut Lookup,
        also: impl FnOnce(),
    ) {
        let (key, to_all) = if within.is_in_vlan() { (within.without_vlan(), 0) } else { (within, peer_tag) };
        let index = self.shard_of(hash.scope());
        let LockedShard { version, shard, .. } = &*self.shards[index];
        *lookup = Lookup::EMPTY;
        let shard = lock(shard);
        lookup.version = ShardVersion { shard: index, version: version.load(Ordering::Relaxed) };
        shard.add_to_lookup(hash.own, key, to_all, now, lookup);
        if let Some((net, hash)) = key.net().zip(hash.net) {
            shard.add_to_lookup(hash, net, to_all, now, lookup);
        }
        if within.is_in_vlan() {
            shard.add_to_lookup(self.secret.hash(within), within, peer_tag, now, lookup);
            if let Some((net, hash)) = self.net(within) {
                shard.add_to_lookup(hash, net, peer_tag, now, lookup);
            }
        }
        // Read under the lock that a change of the static entries takes: a lookup with the version after the change
        // sees the new entries.
        if let Some((set, time)) = self.in_static_entries(|entries| entries.find(key, now)) {
            lookup.add(set, time);
        }
        also();
    }

    /// Whether a new lookup of these lists would have the same result now.
    pub(crate) fn is_current(&self, lookup: &Lookup, now: Time) -> bool {
        let is_unchanged = self.is_current_version(lookup.version);
        (lookup.from..lookup.until).contains(&now) && is_unchanged
    }

    /// Whether the shard is unchanged since this version.
    #[inline]
    pub fn is_current_version(&self, ShardVersion { shard, version }: ShardVersion) -> bool {
        self.shards.get(shard).map(|shard| shard.version.load(Ordering::Acquire)) == Some(version)
    }
}
