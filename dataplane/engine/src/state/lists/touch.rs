//! Hashes of addresses, and loads of the lists' memory into the cache before it is needed.
//!
//! A worker calls these functions for a group of packets before it decides the first of them: see
//! [`ShardMemory`](super::shard::ShardMemory). They take no lock, so they see no consistent state. Their results only
//! select the memory to load.

use super::shard::{NIL, ShardMemory};
use super::{Lists, MAX_SHARDS};
use crate::state::key::AddressKey;

/// The keyed hashes of an address outside VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressHash {
    /// The hash of the address.
    pub(super) own: u64,
    /// The hash of its network, if first steps count for the network.
    pub(super) net: Option<u64>,
}

impl AddressHash {
    /// A value without a meaning.
    pub(crate) const NONE: AddressHash = AddressHash { own: 0, net: None };

    /// The hash that selects the shard. All addresses of a network are in one shard.
    #[inline]
    pub(super) fn scope(self) -> u64 {
        self.net.unwrap_or(self.own)
    }
}

/// Lists with fewer slots fit into the caches of a core: 1.3 MB. There is nothing to gain from loads in advance.
const CACHED_SLOTS: usize = 16_384;

impl Lists {
    /// Whether loads in advance save time.
    #[inline]
    pub(crate) fn exceed_caches(&self) -> bool {
        self.capacity > CACHED_SLOTS
    }

    /// The hashes of an address. A VLAN of the key has no influence.
    #[inline]
    pub(crate) fn hash(&self, key: AddressKey) -> AddressHash {
        let key = key.without_vlan();
        AddressHash { own: self.secret.hash(key), net: self.net(key).map(|(_, hash)| hash) }
    }

    fn memory_of(&self, hash: AddressHash) -> &ShardMemory {
        &self.shards[self.shard_of(hash.scope())].memory
    }

    /// Loads the buckets of an address and of its network.
    #[inline]
    pub(crate) fn touch_buckets(&self, hash: AddressHash) {
        let memory = self.memory_of(hash);
        memory.touch_bucket(hash.own);
        hash.net.into_iter().for_each(|net| memory.touch_bucket(net));
    }

    /// Loads the entries of an address and of its network. Waits for their buckets.
    #[inline]
    pub(crate) fn touch_entries(&self, hash: AddressHash) {
        let memory = self.memory_of(hash);
        memory.touch_entries(hash.own);
        hash.net.into_iter().for_each(|net| memory.touch_entries(net));
    }

    /// Loads the neighbours of an address's entries in their queues. Waits for the entries.
    #[inline]
    pub(crate) fn touch_neighbours(&self, hash: AddressHash) {
        self.memory_of(hash).touch_neighbours(hash.own);
    }
}

/// The entries that the first steps of a group of `N` packets would evict.
pub(crate) struct Victims<const N: usize> {
    /// The last victim of each shard.
    last: [u32; MAX_SHARDS],
    /// The shard and the slot of each victim.
    found: [(u32, u32); N],
    count: usize,
}

impl<const N: usize> Victims<N> {
    #[inline]
    pub(crate) const fn new() -> Victims<N> {
        Victims { last: [NIL; MAX_SHARDS], found: [(0, NIL); N], count: 0 }
    }

    /// Loads the entry that a first step of this address would evict, after those of the addresses before.
    #[inline]
    pub(crate) fn touch_next(&mut self, lists: &Lists, hash: AddressHash) {
        let shard = lists.shard_of(hash.scope());
        let memory = &lists.shards[shard].memory;
        let last = &mut self.last[shard];
        let victim = if *last == NIL { memory.victim() } else { memory.next_victim(*last) };
        *last = victim;
        if victim != NIL
            && let Some(found) = self.found.get_mut(self.count)
        {
            *found = (shard as u32, victim);
            self.count += 1;
            memory.touch_victim(victim);
        }
    }

    /// Loads the buckets of these entries. Waits for the entries.
    #[inline]
    pub(crate) fn touch_buckets(&self, lists: &Lists) {
        for (shard, victim) in &self.found[..self.count] {
            lists.shards[*shard as usize].memory.touch_bucket_of(*victim);
        }
    }
}
