//! Which lists an address is in, and how long that counts.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;

use knockplane_policy::door::progress;
use knockplane_policy::time::Time;

use super::{ListSet, Lists, LockedShard, lock};
use crate::state::key::Key;

/// Where an address is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) lists: ListSet,
    /// It has entries that do not count here: for other ends, or of packets that arrived later.
    pub(crate) has_other_entries: bool,
}

/// What a lookup found, and how long that counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lookup {
    pub(crate) membership: Membership,
    /// Before it, an entry of the set was not there yet.
    from: Time,
    /// From here on an entry of the set is gone, or another one there.
    pub(crate) until: Time,
    /// The shard when it was looked up.
    pub(crate) version: ShardVersion,
}

/// The shard that holds an address, in the version that a lookup read. Every change of a shard that a lookup can tell
/// changes its version. Expiry changes no version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardVersion {
    shard: usize,
    version: u64,
}

impl Lookup {
    /// Puts in lists that the address is in from other sources, from then until then.
    pub(crate) fn add(&mut self, set: ListSet, time: Range<Time>) {
        self.membership.lists.insert_all(set);
        self.from = self.from.max(time.start);
        self.until = self.until.min(time.end);
    }

    fn add_all(&mut self, (membership, time): (Membership, Range<Time>)) {
        self.add(membership.lists, time);
        self.membership.has_other_entries |= membership.has_other_entries;
    }
}

impl Lists {
    /// What another end is known by in entries that count for it alone; never 0. IPv4 addresses stand for themselves,
    /// but nothing can be said to 0.0.0.0 that is not said to 0.0.0.1.
    pub fn peer_tag(&self, peer: IpAddr) -> u32 {
        progress::tag(self.secret.0, peer).max(1)
    }

    /// The lists that the address is in now, for the other end of this tag; with 0, for all others. An entry is gone at
    /// its expiry, not after it.
    pub fn membership(&self, address: IpAddr, peer_tag: u32, now: Time) -> ListSet {
        self.lookup(address.into(), peer_tag, now).membership.lists
    }

    /// As [`Lists::membership`], with how long it counts. For a key in a VLAN: the VLAN's own entries for the other end of
    /// this tag, and those that count in all VLANs for all other ends.
    pub(crate) fn lookup(&self, within: Key, peer_tag: u32, now: Time) -> Lookup {
        let (key, to_all) = if within.is_in_vlan() { (within.without_vlan(), 0) } else { (within, peer_tag) };
        let hash = self.secret.hash(key);
        let net = self.net(key);
        let index = self.shard_of(net.map_or(hash, |(_, hash)| hash));
        let LockedShard { version, shard } = &*self.shards[index];
        let shard = lock(shard);
        let (membership, time) = shard.membership(hash, key, to_all, now);
        let version = version.load(Ordering::Relaxed);
        let mut lookup =
            Lookup { membership, from: time.start, until: time.end, version: ShardVersion { shard: index, version } };
        if let Some((net, hash)) = net {
            lookup.add_all(shard.membership(hash, net, to_all, now));
        }
        if within.is_in_vlan() {
            lookup.add_all(shard.membership(self.secret.hash(within), within, peer_tag, now));
            if let Some((net, hash)) = self.net(within) {
                lookup.add_all(shard.membership(hash, net, peer_tag, now));
            }
        }
        // Under the lock that a change of them takes: whoever sees the version from after it sees what it holds.
        self.for_static_entries(|entries| {
            let (set, time) = entries.find(key, now);
            lookup.add(set, time);
        });
        lookup
    }

    /// Whether a lookup of these lists says what it would say now.
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
