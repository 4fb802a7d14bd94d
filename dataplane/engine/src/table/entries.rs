//! What address lists hold from the start: the entries of a rule file, compiled with its rules.
//!
//! Addresses, prefixes and ranges become one sorted array of where the answer changes, so that a lookup is a binary
//! search whatever the entries say, and a million of them are swapped in one pointer. What has a timeout is apart.

use std::net::IpAddr;

use hashbrown::HashMap;
use knockplane_policy::packet::Family;
use knockplane_policy::rule::{AddressSet, EntryAddress, RuleSet};
use knockplane_policy::time::Time;

use super::question::address_range;
use crate::lists::{ListId, ListSet, MAX_LISTS};
use crate::shard::Key;

/// See the module.
#[derive(Default)]
pub(crate) struct Entries {
    v4: Map<u32>,
    v6: Map<u128>,
    /// The sets that the maps name.
    sets: Vec<ListSet>,
    timed: Vec<Timed>,
}

/// Where the lists of an address change, in order, and the position of their set from there on.
#[derive(Default)]
struct Map<T> {
    starts: Vec<T>,
    sets: Vec<u32>,
}

/// A prefix or range that is in a list for some time.
struct Timed {
    set: AddressSet,
    list: ListId,
    expiry: Time,
}

impl Entries {
    /// All entries that are not disabled, as of now. Single addresses with a timeout are handed back, unless what
    /// lasts covers them: they go where packets put addresses.
    pub(super) fn build(
        rules: &RuleSet,
        lists: &HashMap<&str, ListId>,
        now: Time,
    ) -> (Entries, Vec<(ListId, IpAddr, Time)>) {
        let (mut v4, mut v6, mut timed, mut single_timed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for entry in rules.address_lists.iter().filter(|entry| !entry.disabled) {
            let EntryAddress::Set(set) = &entry.address else { continue };
            let list = lists[entry.list.as_str()];
            match entry.timeout {
                Some(timeout) if single(set).is_some() => single_timed.push((list, first(set), now + timeout)),
                Some(timeout) => timed.push(Timed { set: set.clone(), list, expiry: now + timeout }),
                None => push(&mut v4, &mut v6, set, list),
            }
        }
        let entries = Entries { timed, ..Entries::of_ranges(&v4, &v6) };
        // The longest that the file says counts.
        single_timed.sort_by_key(|(_, _, expiry)| *expiry);
        single_timed.retain(|(list, address, _)| !entries.lasting((*address).into()).contains(*list));
        (entries, single_timed)
    }

    /// Entries that all last.
    pub(crate) fn of_lasting<'e>(lasting: impl Iterator<Item = (ListId, &'e AddressSet)>) -> Entries {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        lasting.for_each(|(list, set)| push(&mut v4, &mut v6, set, list));
        Entries::of_ranges(&v4, &v6)
    }

    fn of_ranges(v4: &[Range], v6: &[Range]) -> Entries {
        let mut known = HashMap::from([(ListSet::default(), 0)]);
        let mut sets = vec![ListSet::default()];
        let v4 = Map::build(v4, u32::MAX.into(), |start| start as u32, &mut known, &mut sets);
        let v6 = Map::build(v6, u128::MAX, |start| start, &mut known, &mut sets);
        Entries { v4, v6, sets, timed: Vec::new() }
    }

    /// The lists that the address is in by an entry without a timeout.
    pub(crate) fn lasting(&self, key: Key) -> ListSet {
        let set = match key.address() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        };
        self.sets.get(set as usize).copied().unwrap_or_default()
    }

    /// Adds the lists that the address is in for some time yet.
    pub(crate) fn add_timed(&self, set: &mut ListSet, address: IpAddr, now: Time) {
        for timed in &self.timed {
            if now < timed.expiry && timed.set.contains(address) {
                set.insert(timed.list);
            }
        }
    }

    /// Whether there is nothing with a timeout.
    pub(crate) fn are_lasting(&self) -> bool {
        self.timed.is_empty()
    }
}

/// First address, last address, and the list that they and all between are in.
type Range = (u128, u128, ListId);

/// Puts a set among the ranges of its family.
fn push(v4: &mut Vec<Range>, v6: &mut Vec<Range>, set: &AddressSet, list: ListId) {
    let (family, ranges) = match first(set) {
        IpAddr::V4(_) => (Family::Ipv4, v4),
        IpAddr::V6(_) => (Family::Ipv6, v6),
    };
    let (first, last) = address_range(set, family);
    ranges.push((first, last, list));
}

fn first(set: &AddressSet) -> IpAddr {
    match set {
        AddressSet::Prefix(net) => net.network(),
        AddressSet::Range(first, _) => *first,
    }
}

/// The address, if it is the only one.
fn single(set: &AddressSet) -> Option<IpAddr> {
    match set {
        AddressSet::Prefix(net) => (net.network() == net.broadcast()).then(|| net.network()),
        AddressSet::Range(first, last) => (first == last).then_some(*first),
    }
}

impl<T: Ord + Copy> Map<T> {
    fn build(
        ranges: &[Range],
        last_address: u128,
        to: impl Fn(u128) -> T,
        known: &mut HashMap<ListSet, u32>,
        sets: &mut Vec<ListSet>,
    ) -> Map<T> {
        let mut changes: Vec<(u128, ListId, bool)> = Vec::with_capacity(2 * ranges.len());
        for (first, last, list) in ranges.iter().filter(|(first, last, _)| first <= last) {
            changes.push((*first, *list, true));
            if *last < last_address {
                changes.push((*last + 1, *list, false));
            }
        }
        changes.sort_unstable();
        let mut map = Map { starts: Vec::new(), sets: Vec::new() };
        let mut covering = [0_u32; MAX_LISTS];
        let mut current = ListSet::default();
        let mut changes = changes.into_iter().peekable();
        while let Some((at, list, begins)) = changes.next() {
            let count = &mut covering[list.index()];
            *count = if begins { *count + 1 } else { *count - 1 };
            if *count == 0 {
                current.remove(list)
            } else {
                current.insert(list)
            }
            if changes.peek().is_some_and(|(next, ..)| *next == at) {
                continue;
            }
            let set = *known.entry(current).or_insert_with(|| {
                sets.push(current);
                sets.len() as u32 - 1
            });
            if map.sets.last().copied().unwrap_or_default() != set {
                map.starts.push(to(at));
                map.sets.push(set);
            }
        }
        map
    }

    /// The position of the address's set; 0 is the empty one.
    fn find(&self, address: T) -> u32 {
        let behind = self.starts.partition_point(|start| *start <= address);
        behind.checked_sub(1).map_or(0, |place| self.sets[place])
    }
}
