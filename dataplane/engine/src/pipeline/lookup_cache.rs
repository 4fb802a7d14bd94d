//! A cache of address lookups in the lists, one for each worker: consecutive packets often have the same source.
//!
//! The bits of the address select one of a few slots. A cached lookup is valid only while the lists would return the
//! same result: every change of a shard changes its version, and the expiry of an entry limits the time. So the next
//! packet sees the addition of another worker, as without a cache. Addresses that share a slot are looked up each time,
//! which is not slower than without a cache.

use knockplane_policy::time::Time;

use crate::state::key::AddressKey;
use crate::state::lists::{AddressHash, Lists, Lookup};
use crate::state::static_entries::StaticEntries;

/// Number of slots. It suffices for the sources of a batch. The slots take 12 KiB, which stay in the first-level cache
/// beside the batch.
const SLOTS: usize = 128;

/// The cache of one worker, for lookups in the same lists.
pub(crate) struct LookupCache {
    slots: Box<[CachedLookup]>,
}

/// The static entries of the rules.
#[derive(Clone, Copy)]
pub(crate) struct TableEntries<'t> {
    /// The number of the table with these entries.
    pub(crate) table: u32,
    pub(crate) entries: &'t StaticEntries,
}

/// An address that is looked up.
#[derive(Clone, Copy)]
pub(crate) struct AddressQuery {
    pub(crate) key: AddressKey,
    /// The tag of the peer; 0 for tables without doors, whose lists have no entries for a single peer.
    pub(crate) peer_tag: u32,
    pub(crate) now: Time,
    /// The hash of the address, if it is known.
    pub(crate) hash: Option<AddressHash>,
}

#[derive(Clone, Copy)]
struct CachedLookup {
    key: AddressKey,
    /// The number of the table whose entries the lookup includes.
    table: u32,
    peer_tag: u32,
    lookup: Lookup,
}

impl Default for LookupCache {
    fn default() -> Self {
        let empty = CachedLookup { key: AddressKey::NONE, table: 0, peer_tag: 0, lookup: Lookup::EMPTY };
        LookupCache { slots: vec![empty; SLOTS].into() }
    }
}

impl CachedLookup {
    /// Whether a new lookup would have the same result.
    #[inline]
    fn answers(&self, lists: &Lists, table: u32, query: &AddressQuery) -> bool {
        self.key == query.key
            && (self.table, self.peer_tag) == (table, query.peer_tag)
            && lists.is_current(&self.lookup, query.now)
    }
}

impl LookupCache {
    /// Whether the last lookup in the slot of this address, for all peers, was of the same address. Its memory is then
    /// in the processor's cache, also if the result is not current any more.
    #[inline]
    pub(crate) fn remembers(&self, key: AddressKey) -> bool {
        self.slots[slot_of(key, 0)].key == key
    }

    /// The lists that contain the address now, by entries of packets, of operators, or of the table.
    #[inline]
    pub(crate) fn look_up(&mut self, lists: &Lists, entries: TableEntries<'_>, query: AddressQuery) -> &Lookup {
        let TableEntries { table, entries } = entries;
        let AddressQuery { key, peer_tag, now, hash } = query;
        let slot = &mut self.slots[slot_of(key, peer_tag)];
        if !slot.answers(lists, table, &query) {
            // Written in place, because a lookup is large.
            (slot.key, slot.table, slot.peer_tag) = (key, table, peer_tag);
            let hash = hash.unwrap_or_else(|| lists.hash(key));
            lists.lookup_into(key, hash, peer_tag, now, &mut slot.lookup, || {});
            if !entries.is_empty() {
                let (set, time) = entries.find(key, now);
                slot.lookup.add(set, time);
            }
        }
        &slot.lookup
    }
}

/// The slot of a key. Neighbouring addresses have different slots. Source of the factor: Knuth, TAOCP volume 3, 6.4.
#[inline]
fn slot_of(key: AddressKey, peer_tag: u32) -> usize {
    let folded = key.bits as u64 ^ (key.bits >> 64) as u64 ^ u64::from(peer_tag) << 32;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::state::lists::ListSet;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    fn listed(cache: &mut LookupCache, lists: &Lists, address: IpAddr, peer_tag: u32, now: Time) -> ListSet {
        let entries = TableEntries { table: 0, entries: &StaticEntries::default() };
        cache.look_up(lists, entries, AddressQuery { key: address.into(), peer_tag, now, hash: None }).membership.lists
    }

    #[test]
    fn the_next_lookup_sees_every_change_of_the_lists() {
        let lists = Lists::with_secret(16, [1, 2]).unwrap();
        let (one, two) = (lists.bind("one", 0).unwrap(), lists.bind("two", 1).unwrap());
        let address = IpAddr::from([192, 0, 2, 1]);
        let mut cache = LookupCache::default();
        let mut is_in = |now| {
            let set = listed(&mut cache, &lists, address, 0, now);
            assert_eq!(set, lists.membership(address, 0, now), "as the lists say");
            (set.contains(one), set.contains(two))
        };
        assert_eq!(is_in(at(0)), (false, false));
        lists.add(one, address, at(5), at(0));
        assert_eq!(is_in(at(0)), (true, false));
        lists.add(two, address, at(9), at(1));
        assert_eq!(is_in(at(4)), (true, true));
        assert_eq!(is_in(at(5)), (false, true));
        lists.add(two, address, at(7), at(6));
        assert_eq!((is_in(at(6)), is_in(at(7))), ((false, true), (false, false)));
        lists.add(two, address, Time::NEVER, at(8));
        assert_eq!(is_in(at(8)), (false, true));
        lists.remove(two, address, at(8));
        assert_eq!(is_in(at(8)), (false, false));
        lists
            .set_static_entries([(one, (address, address), None), (two, (address, address), Some(at(10)))].into_iter());
        assert_eq!((is_in(at(8)), is_in(at(10))), ((true, true), (true, false)), "expiry changes no version");
        lists.set_static_entries(std::iter::empty());
        assert_eq!(is_in(at(8)), (false, false));
    }

    #[test]
    fn lookups_for_different_peers_are_cached_separately() {
        let lists = Lists::with_secret(16, [1, 2]).unwrap();
        let list = lists.bind("one", 0).unwrap();
        let address = IpAddr::from([192, 0, 2, 1]);
        lists.add_for(list, address, 7, at(5), at(0));
        let mut cache = LookupCache::default();
        for to in [7, 0, 7, 8, 7] {
            let set = listed(&mut cache, &lists, address, to, at(1));
            assert_eq!(set.contains(list), to == 7, "{to}");
        }
    }

    #[test]
    fn the_next_lookup_sees_an_eviction() {
        let lists = Lists::with_secret(4, [1, 2]).unwrap();
        let one = lists.bind("one", 0).unwrap();
        let mut cache = LookupCache::default();
        let address = |number: u32| IpAddr::from(Ipv4Addr::from_bits(number));
        for number in 0..50 {
            lists.add(one, address(number), Time::NEVER, at(0));
            for earlier in 0..=number {
                let (cached, expected) = (
                    listed(&mut cache, &lists, address(earlier), 0, at(0)),
                    lists.membership(address(earlier), 0, at(0)),
                );
                assert_eq!(cached, expected, "{earlier} after {number}");
            }
        }
    }
}
