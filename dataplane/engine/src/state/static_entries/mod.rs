//! What address lists hold from the start: the entries of a rule file, compiled with its rules; and, in the same form,
//! what operators hold.
//!
//! Addresses, prefixes and ranges become a map of where the answer changes, whose cost is the same whatever the entries
//! say, and a million of them are swapped in one pointer. Those with a timeout have a map for each list, of when the
//! address leaves it, which is not looked at any more once all of it has expired.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::ops;

use hashbrown::HashMap;
use knockplane_policy::rule::{EntryAddress, RuleSet};
use knockplane_policy::time::Time;

use self::map::{Covering, Map, Range};
use crate::state::key::Key;
use crate::state::list_set::{ListId, ListSet, MAX_LISTS};

mod map;

/// See the module.
#[derive(Default)]
pub(crate) struct StaticEntries {
    permanent: Both<ListSet>,
    timed: Vec<Timed>,
}

/// A map for each family.
struct Both<V> {
    v4: Map<u32, V>,
    v6: Map<u128, V>,
}

impl<V> Default for Both<V> {
    fn default() -> Self {
        Both { v4: Map::default(), v6: Map::default() }
    }
}

/// What is in one list for some time.
struct Timed {
    list: ListId,
    /// When an address leaves the list; for those that are not in it, long ago.
    expiries: Both<Time>,
    /// When the last one does.
    last: Time,
}

/// Ranges of both families, while they are collected.
struct Ranges<I> {
    v4: Vec<Range<u32, I>>,
    v6: Vec<Range<u128, I>>,
}

impl<I> Default for Ranges<I> {
    fn default() -> Self {
        Ranges { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<I: Copy> Ranges<I> {
    fn items(&self) -> impl Iterator<Item = I> {
        self.v4.iter().map(|(_, _, item)| *item).chain(self.v6.iter().map(|(_, _, item)| *item))
    }

    /// A range that goes from one family to the other has no address in it.
    fn push(&mut self, bounds: (IpAddr, IpAddr), item: I) {
        match bounds {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.v4.push((first.to_bits(), last.to_bits(), item)),
            (IpAddr::V6(first), IpAddr::V6(last)) => self.v6.push((first.to_bits(), last.to_bits(), item)),
            _ => {}
        }
    }
}

/// Addresses, and until when lists are to hold them.
pub(crate) type SingleTimed = Vec<(ListId, IpAddr, Time)>;

impl StaticEntries {
    /// All entries that are not disabled, as of now. Single addresses with a timeout are handed back, unless what
    /// lasts covers them: they go where packets put addresses.
    pub(crate) fn build(rules: &RuleSet, lists: &HashMap<String, ListId>, now: Time) -> (StaticEntries, SingleTimed) {
        let mut single_timed = Vec::new();
        let others = rules.address_lists.iter().filter(|entry| !entry.disabled).filter_map(|entry| {
            let EntryAddress::Set(set) = &entry.address else { return None };
            let (list, until) = (lists[entry.list.as_str()], entry.timeout.map(|timeout| now + timeout));
            match until {
                Some(until) if set.single().is_some() => {
                    single_timed.extend(set.single().map(|address| (list, address, until)));
                    None
                }
                _ => Some((list, set.bounds(), until)),
            }
        });
        let entries = StaticEntries::of(others);
        // The longest that the file says counts.
        single_timed.sort_by_key(|(_, _, expiry)| *expiry);
        single_timed.retain(|(list, address, _)| !entries.permanent((*address).into()).contains(*list));
        (entries, single_timed)
    }

    /// StaticEntries, from the first address to the last, each until then; for good if none.
    pub(crate) fn of(entries: impl Iterator<Item = (ListId, (IpAddr, IpAddr), Option<Time>)>) -> StaticEntries {
        let (mut permanent, mut timed) = (Ranges::default(), BTreeMap::<ListId, Ranges<Time>>::new());
        for (list, bounds, until) in entries {
            match until {
                Some(until) => timed.entry(list).or_default().push(bounds, until),
                None => permanent.push(bounds, list),
            }
        }
        let timed = timed.into_iter().map(|(list, ranges)| {
            let last = ranges.items().max().unwrap_or_default();
            Timed { list, expiries: Both::build::<Latest>(ranges), last }
        });
        StaticEntries { timed: timed.collect(), permanent: Both::build::<InLists>(permanent) }
    }

    /// The lists that the address is in now, and from when until when that is so.
    pub(crate) fn find(&self, key: Key, now: Time) -> (ListSet, ops::Range<Time>) {
        let (mut from, mut until) = (Time::default(), Time::NEVER);
        let mut set = self.permanent(key);
        for Timed { list, expiries, last } in &self.timed {
            let expiry = if now < *last { expiries.find(key) } else { *last };
            if now < expiry {
                set.insert(*list);
                until = until.min(expiry);
            } else {
                from = from.max(expiry);
            }
        }
        (set, from..until)
    }

    /// The lists that the address is in by an entry without a timeout.
    pub(crate) fn permanent(&self, key: Key) -> ListSet {
        self.permanent.find(key)
    }
}

/// How many ranges put an address in each list, and so in which it is.
struct InLists {
    counts: [u32; MAX_LISTS],
    set: ListSet,
}

impl Default for InLists {
    fn default() -> Self {
        InLists { counts: [0; MAX_LISTS], set: ListSet::default() }
    }
}

impl Covering for InLists {
    type Item = ListId;
    type Value = ListSet;

    fn change(&mut self, list: ListId, begins: bool) {
        let count = &mut self.counts[list.index()];
        if begins {
            *count += 1;
            self.set.insert(list);
        } else {
            *count -= 1;
            if *count == 0 {
                self.set.remove(list);
            }
        }
    }

    fn value(&self) -> ListSet {
        self.set
    }
}

/// How many ranges end at each time; the latest counts.
#[derive(Default)]
struct Latest(BTreeMap<Time, u32>);

impl Covering for Latest {
    type Item = Time;
    type Value = Time;

    fn change(&mut self, expiry: Time, begins: bool) {
        let count = self.0.entry(expiry).or_default();
        if begins {
            *count += 1;
        } else {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&expiry);
            }
        }
    }

    fn value(&self) -> Time {
        self.0.last_key_value().map_or(Time::default(), |(expiry, _)| *expiry)
    }
}

impl<V: Copy + Default + Eq + Hash> Both<V> {
    fn build<C: Covering<Value = V>>(Ranges { v4, v6 }: Ranges<C::Item>) -> Both<V> {
        Both { v4: Map::build::<C>(v4), v6: Map::build::<C>(v6) }
    }

    fn find(&self, key: Key) -> V {
        match key.address() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }
    }
}
