//! Static entries of address lists: the entries of a rule file, compiled with its rules, and the static entries of
//! operators, in the same form.
//!
//! Addresses, prefixes and ranges become one map of the addresses where the lists change. The cost of a lookup does not
//! depend on the entries. One pointer swap replaces a million entries. Each list has a separate map for its entries
//! with a timeout, which contains the expiry of each address. Lookups skip this map when all of its entries have
//! expired.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops;

use hashbrown::HashMap;
use knockplane_policy::rule::{EntryAddress, RuleSet};
use knockplane_policy::time::Time;

pub(crate) use self::amended::AmendedEntries;
use self::map::{Covering, Map, Range};
use crate::state::key::AddressKey;
use crate::state::list_set::{ListId, ListSet, MAX_LISTS};

mod amended;
mod map;

/// Static entries of address lists, in compiled form.
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

/// The entries of one list that have a timeout.
struct Timed {
    list: ListId,
    /// The expiry of each address in the list; a time long ago for other addresses.
    expiries: Both<Time>,
    /// The latest expiry.
    last: Time,
}

/// Ranges of both families, during collection.
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

    /// A range from one family to the other contains no address.
    fn push(&mut self, first: IpAddr, last: IpAddr, item: I) {
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.v4.push((first.to_bits(), last.to_bits(), item)),
            (IpAddr::V6(first), IpAddr::V6(last)) => self.v6.push((first.to_bits(), last.to_bits(), item)),
            _ => {}
        }
    }
}

/// Addresses, the lists that contain them, and the expiries of these entries.
pub(crate) type SingleTimed = Vec<(ListId, IpAddr, Time)>;

impl StaticEntries {
    /// Compiles all entries that are not disabled, as of `now`. The function returns single addresses with a timeout
    /// separately, unless a permanent entry covers them: the caller stores these addresses as dynamic entries.
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
        // The longest timeout in the file counts.
        single_timed.sort_by_key(|(_, _, expiry)| *expiry);
        single_timed.retain(|(list, address, _)| !entries.permanent((*address).into()).contains(*list));
        (entries, single_timed)
    }

    /// Compiles static entries: the first and last address, and the expiry, which is `None` if the entry has no
    /// timeout.
    pub(crate) fn of(entries: impl Iterator<Item = (ListId, (IpAddr, IpAddr), Option<Time>)>) -> StaticEntries {
        let (mut permanent, mut timed) = (Ranges::default(), BTreeMap::<ListId, Ranges<Time>>::new());
        for (list, (first, last), until) in entries {
            match until {
                Some(until) => timed.entry(list).or_default().push(first, last, until),
                None => permanent.push(first, last, list),
            }
        }
        let timed = timed.into_iter().map(|(list, ranges)| {
            let last = ranges.items().max().unwrap_or_default();
            Timed { list, expiries: Both::build::<Latest>(ranges), last }
        });
        StaticEntries { timed: timed.collect(), permanent: Both::build::<InLists>(permanent) }
    }

    /// Calls `visitor` with the first and the last address of each range of entries, expired ones included.
    pub(crate) fn visit_networks(&self, mut visitor: impl FnMut(IpAddr, IpAddr)) {
        self.permanent.visit(&mut visitor);
        self.timed.iter().for_each(|timed| timed.expiries.visit(&mut visitor));
    }

    /// Whether there are no entries. Most rule files have none, and a lookup need not search for them.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.timed.is_empty() && self.permanent.v4.is_empty() && self.permanent.v6.is_empty()
    }

    /// The lists that contain the address now, and the period in which this answer is valid.
    pub(crate) fn find(&self, key: AddressKey, now: Time) -> (ListSet, ops::Range<Time>) {
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

    /// The lists that contain the address by an entry without a timeout.
    pub(crate) fn permanent(&self, key: AddressKey) -> ListSet {
        self.permanent.find(key)
    }
}

/// The number of ranges that put an address in each list, and the lists with such a range.
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

/// The number of ranges that end at each time. The latest time is the expiry.
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

    /// Calls `visitor` with the first and the last address of each range with a value.
    fn visit(&self, mut visitor: impl FnMut(IpAddr, IpAddr)) {
        for (first, end) in self.v4.ranges() {
            let last = end.map_or(u32::MAX, |end| end - 1);
            visitor(Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into());
        }
        for (first, end) in self.v6.ranges() {
            let last = end.map_or(u128::MAX, |end| end - 1);
            visitor(Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into());
        }
    }

    fn find(&self, key: AddressKey) -> V {
        match key.address() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }
    }
}
