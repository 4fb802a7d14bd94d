//! The changes that the engine keeps separately from the entries that it has compiled, and the search for entries that
//! overlap a removed one.
//!
//! A removal hides the compiled entries of its list for its addresses. Of the other entries of the list, those that
//! overlap it must still count there, so they are compiled with the changes. The invariant: for each of `replaced`,
//! `entries` contains all entries of that list that overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use knockplane_engine::state::lists::{ListId, Lists, StaticEntry};
use knockplane_policy::rule::AddressSet;
use knockplane_policy::time::Time;

use super::{Bounds, NameEntry, OperatorEntry};

/// The maximum number of changes until all entries are compiled again. The compilation of this number takes some 100
/// µs, that of a million a good part of a second: the cost of a change hardly depends on the number of existing
/// entries.
pub(super) const MOST_RECENT: usize = 1_024;

/// An entry of any list.
type EntryKey = (String, Bounds);

/// The changes since the last compilation.
#[derive(Default)]
pub(super) struct Recent {
    entries: BTreeMap<EntryKey, Option<Time>>,
    replaced: BTreeSet<EntryKey>,
}

impl Recent {
    /// The number of entries to compile.
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.replaced.len()
    }

    /// Adds a new entry.
    pub(super) fn add(&mut self, key: EntryKey, until: Option<Time>) {
        // An address may be an entry of an operator and of a host name: the longer one counts.
        let longest = |known: Option<Time>| known.zip(until).map(|(known, until)| known.max(until));
        self.entries.entry(key).and_modify(|known| *known = longest(*known)).or_insert(until);
    }

    /// Hides the compiled form of an entry that was removed or changed, and adds the entries that overlap it. A changed
    /// entry is among them.
    pub(super) fn replace(&mut self, key: EntryKey, overlapping: Vec<(Bounds, Option<Time>)>) {
        self.entries.remove(&key);
        for (bounds, until) in overlapping {
            self.add((key.0.clone(), bounds), until);
        }
        self.replaced.insert(key);
    }

    /// Passes the changes to the engine, which has bound the lists already.
    pub(super) fn install(&self, lists: &Lists) {
        let entry = |((list, bounds), until): (&EntryKey, &Option<Time>)| -> Option<StaticEntry> {
            Some((lists.id(list)?, *bounds, *until))
        };
        let replaced = |(list, bounds): &EntryKey| -> Option<(ListId, Bounds)> { Some((lists.id(list)?, *bounds)) };
        lists.change_static_entries(self.entries.iter().filter_map(entry), self.replaced.iter().filter_map(replaced));
    }
}

/// The entries of a list, and the bound of a search for overlapping entries.
#[derive(Default)]
pub(super) struct ListEntries {
    pub(super) entries: BTreeMap<Bounds, OperatorEntry>,
    /// The size of the largest range that was ever in the list, less one. A range that overlaps an address begins at
    /// most this far before it.
    longest_range: u32,
}

impl ListEntries {
    pub(super) fn new(entries: BTreeMap<Bounds, OperatorEntry>) -> ListEntries {
        let longest_range = entries.values().map(range_length).max().unwrap_or_default();
        ListEntries { entries, longest_range }
    }

    pub(super) fn insert(&mut self, bounds: Bounds, entry: OperatorEntry) -> Option<OperatorEntry> {
        self.longest_range = self.longest_range.max(range_length(&entry));
        self.entries.insert(bounds, entry)
    }

    /// The entries that overlap these addresses; `None` if there are more than `most`.
    ///
    /// Prefixes are nested or separate, so those that begin before the addresses are the prefixes of each length around
    /// the first address. Ranges are found by their longest length.
    pub(super) fn overlapping(&self, (first, last): Bounds, most: usize) -> Option<Vec<(Bounds, Option<Time>)>> {
        let end = IpAddr::from(Ipv6Addr::from_bits(u128::MAX));
        let within = self.entries.range((first, first)..=(last, end)).map(|(bounds, entry)| (*bounds, entry));
        let around = (0..IpNet::from(first).prefix_len()).filter_map(|length| {
            let bounds = AddressSet::Prefix(IpNet::new(first, length).ok()?.trunc()).bounds();
            Some((bounds, self.entries.get(&bounds)?))
        });
        let around = around.filter(|((begin, _), _)| *begin < first);
        let before = match first {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().saturating_sub(self.longest_range)).into(),
            IpAddr::V6(_) => first,
        };
        let ranges = self.entries.range((before, before)..(first, first)).map(|(bounds, entry)| (*bounds, entry));
        let ranges = ranges.filter(|((_, end), entry)| *end >= first && matches!(entry.set, AddressSet::Range(..)));
        let found: Vec<_> =
            within.chain(around).chain(ranges).map(|(bounds, entry)| (bounds, entry.until)).take(most + 1).collect();
        (found.len() <= most).then_some(found)
    }
}

/// The entries of host names in this list that overlap these addresses.
pub(super) fn overlapping_names<'n>(
    names: &'n [NameEntry],
    list: &'n str,
    (first, last): Bounds,
) -> impl Iterator<Item = (Bounds, Option<Time>)> + 'n {
    let overlaps = move |entry: &&NameEntry| entry.list == list && entry.bounds.0 <= last && first <= entry.bounds.1;
    names.iter().filter(overlaps).map(|entry| (entry.bounds, entry.until))
}

/// The size of a range, less one; 0 for a prefix.
fn range_length(entry: &OperatorEntry) -> u32 {
    match entry.set {
        AddressSet::Range(IpAddr::V4(first), IpAddr::V4(last)) => last.to_bits() - first.to_bits(),
        _ => 0,
    }
}
