//! What a worker remembers of the lists, so that packets that come in trains cost one lookup and not one each.
//!
//! A few slots, by the address's own bits. A remembered lookup counts only while it is what the lists would say: every
//! change of a shard changes its version, and an entry's expiry bounds what it says. So another worker's addition is
//! seen by the next packet, as if nothing were remembered. Whoever chooses addresses that meet in a slot makes lookups
//! as slow as they are without.

use knockplane_policy::time::Time;

use crate::state::key::Key;
use crate::state::lists::{Lists, Lookup, Membership};
use crate::state::static_entries::StaticEntries;

/// Enough for the sources of a batch; 12 KiB, so that they stay in the first-level cache beside the batch.
const SLOTS: usize = 128;

/// The lookups of one worker, all of the same lists.
pub(crate) struct Recent {
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy)]
struct Slot {
    key: Key,
    /// The number of the table whose entries are in the lookup.
    table: u32,
    /// The tag of the other end; 0 for tables that do not ask.
    to: u32,
    lookup: Lookup,
}

impl Default for Recent {
    fn default() -> Self {
        let empty = Slot { key: Key::NONE, table: 0, to: 0, lookup: Lookup::default() };
        Recent { slots: vec![empty; SLOTS].into() }
    }
}

impl Recent {
    /// The lists that the address is in now for the other end of this tag, by packets and operators or by the table's
    /// entries.
    pub(crate) fn membership(
        &mut self,
        lists: &Lists,
        (table, entries): (u32, &StaticEntries),
        key: Key,
        to: u32,
        now: Time,
    ) -> Membership {
        let slot = &mut self.slots[slot_of(key, to)];
        if slot.key != key || (slot.table, slot.to) != (table, to) || !lists.is_current(&slot.lookup, now) {
            let mut lookup = lists.lookup(key, to, now);
            let (set, time) = entries.find(key, now);
            lookup.add(set, time);
            *slot = Slot { key, table, to, lookup };
        }
        slot.lookup.membership
    }
}

/// Neighbouring addresses go to different slots. Source of the factor: Knuth, TAOCP volume 3, 6.4.
fn slot_of(key: Key, to: u32) -> usize {
    let folded = key.bits as u64 ^ (key.bits >> 64) as u64 ^ u64::from(to) << 32;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn whatever_changes_the_lists_is_seen_at_once() {
        let lists = Lists::with_secret(16, [1, 2]).unwrap();
        let (one, two) = (lists.bind("one", 0).unwrap(), lists.bind("two", 1).unwrap());
        let address = IpAddr::from([192, 0, 2, 1]);
        let mut recent = Recent::default();
        let mut is_in = |now| {
            let set = recent.membership(&lists, (0, &StaticEntries::default()), address.into(), 0, now).lists;
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
        assert_eq!((is_in(at(8)), is_in(at(10))), ((true, true), (true, false)), "a time ends without anybody's doing");
        lists.set_static_entries(std::iter::empty());
        assert_eq!(is_in(at(8)), (false, false));
    }

    #[test]
    fn each_other_end_is_remembered_by_itself() {
        let lists = Lists::with_secret(16, [1, 2]).unwrap();
        let list = lists.bind("one", 0).unwrap();
        let address = IpAddr::from([192, 0, 2, 1]);
        lists.add_for(list, address, 7, at(5), at(0));
        let mut recent = Recent::default();
        for to in [7, 0, 7, 8, 7] {
            let set = recent.membership(&lists, (0, &StaticEntries::default()), address.into(), to, at(1)).lists;
            assert_eq!(set.contains(list), to == 7, "{to}");
        }
    }

    #[test]
    fn an_eviction_is_seen_at_once() {
        let lists = Lists::with_secret(4, [1, 2]).unwrap();
        let one = lists.bind("one", 0).unwrap();
        let mut recent = Recent::default();
        let address = |number: u32| IpAddr::from(Ipv4Addr::from_bits(number));
        for number in 0..50 {
            lists.add(one, address(number), Time::NEVER, at(0));
            for earlier in 0..=number {
                let (remembered, told) = (
                    recent.membership(&lists, (0, &StaticEntries::default()), address(earlier).into(), 0, at(0)).lists,
                    lists.membership(address(earlier), 0, at(0)),
                );
                assert_eq!(remembered, told, "{earlier} after {number}");
            }
        }
    }
}
