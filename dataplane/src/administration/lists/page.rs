//! Pages of lists: the first entries that a query requests, in order.
//!
//! Entries come from three sources: dynamic entries, which packets or operators with a timeout added; static entries;
//! and the rules. A client that needs more than one page sends another query for the entries after the last one.

use std::collections::{BinaryHeap, HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};

use knockplane_engine::state::lists::{DynamicEntry, Lists as Engine, MAX_LISTS};
use knockplane_policy::door::Door;
use knockplane_policy::level;
use knockplane_policy::packet::Vlan;
use knockplane_policy::rule::{self, AddressSet, EntryAddress, RuleSet};
use knockplane_policy::time::Time;
use knockplane_policy::wire::{After, ListEntry, ListOverview, ListQuery, ListSummary, Lists};

use super::Notes;
use crate::names::Names;
use crate::static_entries::{Bounds, Entry, StaticEntries};

/// The sources of entries.
pub(in crate::administration) struct Places<'m> {
    pub(super) lists: &'m Engine,
    pub(super) static_entries: &'m StaticEntries,
    pub(super) names: &'m Names,
    pub(super) notes: &'m Notes,
    pub(super) rules: &'m RuleSet,
    /// The lists in the rules and the doors.
    pub(super) named: &'m HashSet<String>,
    pub(super) doors: &'m [Door],
    /// The start of the timeouts of the rules' entries.
    pub(super) since: Time,
}

/// An entry with its source. Of two entries of the same addresses, the static one comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Static,
    /// The position in the rules.
    OfRules(usize),
    /// An address of a host name, by the position of the name in the rules.
    OfName(usize),
    /// The expiry, and the number of steps of a knock.
    Added(Time, u8),
}

/// The order of entries: list, first and last address, the only VLAN that the entry counts in, and the tag of the only
/// peer that the entry counts for.
type PageKey = (usize, IpAddr, IpAddr, Vlan, u32);

/// Keeps the first `limit` of all entries.
struct First {
    limit: usize,
    after: Option<PageKey>,
    entries: BinaryHeap<(PageKey, Found)>,
    truncated: bool,
}

impl First {
    fn offer(&mut self, key: PageKey, found: Found) {
        if self.after.is_some_and(|after| key <= after) {
            return;
        }
        if self.entries.len() >= self.limit {
            self.truncated = true;
            if self.entries.peek().is_none_or(|last| *last <= (key, found)) {
                return;
            }
            self.entries.pop();
        }
        self.entries.push((key, found));
    }
}

/// The entries that a query requests.
struct Wanted<'q> {
    query: &'q ListQuery,
    /// The latest expiry of the entry.
    by: Option<Time>,
}

impl Wanted<'_> {
    fn wants(&self, (first, last): Bounds, expiry: Option<Time>, dynamic: bool, comment: &str) -> bool {
        let ListQuery { address, dynamic: only, comment: part, .. } = self.query;
        only.is_none_or(|only| only == dynamic)
            && self.by.is_none_or(|by| expiry.is_some_and(|expiry| expiry <= by))
            && part.as_ref().is_none_or(|part| comment.contains(part))
            && address.as_ref().is_none_or(|set| set.overlaps(&AddressSet::Range(first, last)))
    }
}

impl Places<'_> {
    /// At most `most` of the requested entries, the first ones.
    pub(super) fn page(&self, query: &ListQuery, most: usize, now: Time) -> Lists {
        self.page_of(query, |name| query.list.as_ref().is_none_or(|only| only == name), most, now)
    }

    /// As [`Places::page`], for the lists that `asked` selects. Ignores the lists that the query names.
    pub(in crate::administration) fn page_of(
        &self,
        query: &ListQuery,
        asked: impl Fn(&str) -> bool,
        most: usize,
        now: Time,
    ) -> Lists {
        let lists = self.overview();
        let ranks: HashMap<&str, usize> =
            lists.iter().enumerate().map(|(rank, list)| (list.summary.list.as_str(), rank)).collect();
        let mut rank_of = [None; MAX_LISTS];
        for (name, rank) in &ranks {
            if let Some(id) = self.lists.id(name) {
                rank_of[id.index()] = Some(*rank);
            }
        }
        let asked_rank: Vec<bool> = lists.iter().map(|list| asked(&list.summary.list)).collect();
        let after = query.after.as_ref().and_then(|after| {
            let (first, last) = after.address.bounds();
            // If the list does not exist any more, the search continues at its neighbours.
            let rank = lists.partition_point(|list| list.summary.list < after.list);
            if ranks.contains_key(after.list.as_str()) {
                Some((rank, first, last, after.vlan, after.tag))
            } else {
                rank.checked_sub(1).map(|rank| (rank, END, END, LAST_VLAN, u32::MAX))
            }
        });
        let wanted = Wanted { query, by: query.expires_within.map(|time| now + time) };
        let mut page = First { limit: query.limit.min(most), after, entries: BinaryHeap::new(), truncated: false };

        for (name, entries) in self.static_entries.lists().filter(|(name, _)| asked(name)) {
            let Some(rank) = ranks.get(name) else { continue };
            for (bounds, Entry { comment, until, .. }) in entries {
                let is_live = until.is_none_or(|until| now < until);
                if is_live && wanted.wants(*bounds, *until, until.is_some(), comment) {
                    page.offer((*rank, bounds.0, bounds.1, Vlan::NONE, 0), Found::Static);
                }
            }
        }
        for (place, (entry, set)) in self.of_rules().filter(|(_, (entry, _))| asked(&entry.list)) {
            let (bounds, expiry) = (set.bounds(), entry.timeout.map(|timeout| self.since + timeout));
            let is_live = expiry.is_none_or(|expiry| now < expiry);
            if let Some(rank) = ranks.get(entry.list.as_str())
                && is_live
                && wanted.wants(bounds, expiry, expiry.is_some(), &entry.comment)
            {
                page.offer((*rank, bounds.0, bounds.1, Vlan::NONE, 0), Found::OfRules(place));
            }
        }
        for (place, entry) in self.rules.address_lists.iter().enumerate().filter(|(_, entry)| asked(&entry.list)) {
            let expiry = entry.timeout.map(|timeout| self.since + timeout);
            let Some(rank) = ranks.get(entry.list.as_str()).filter(|_| expiry.is_none_or(|expiry| now < expiry)) else {
                continue;
            };
            for address in self.names.addresses(entry) {
                if wanted.wants((*address, *address), expiry, expiry.is_some(), &entry.comment) {
                    page.offer((*rank, *address, *address, Vlan::NONE, 0), Found::OfName(place));
                }
            }
        }
        if query.dynamic != Some(false) {
            self.lists.visit(now, |DynamicEntry { list, address, vlan, peer_tag: to, step, expiry }| {
                let Some(rank) = rank_of[list.index()].filter(|rank| asked_rank[*rank]) else { return };
                let comment = if query.comment.is_some() { self.notes.comment(list, address) } else { "" };
                let timeout = Some(expiry).filter(|expiry| *expiry != Time::NEVER);
                if wanted.wants((address, address), timeout, true, comment) {
                    page.offer((rank, address, address, vlan, to), Found::Added(expiry, step));
                }
            });
        }

        let First { entries, truncated, .. } = page;
        let mut entries = entries.into_sorted_vec();
        entries.dedup_by_key(|(key, _)| *key);
        let next = entries.last().filter(|_| truncated).map(|((rank, first, last, vlan, tag), _)| After {
            list: lists[*rank].summary.list.clone(),
            address: AddressSet::Range(*first, *last),
            vlan: *vlan,
            tag: *tag,
        });
        let entries = entries.into_iter().filter_map(|(key, found)| self.entry(&lists, key, found, now)).collect();
        Lists { lists, entries, names: Vec::new(), truncated, next }
    }

    /// Every list, and the origins of its entries.
    fn overview(&self) -> Vec<ListOverview> {
        let mut by_rules = HashMap::<&str, u64>::new();
        for (_, (entry, _)) in self.of_rules().filter(|(_, (entry, _))| entry.timeout.is_none()) {
            *by_rules.entry(&entry.list).or_default() += 1;
        }
        for entry in self.rules.address_lists.iter().filter(|entry| entry.timeout.is_none()) {
            let addresses = self.names.addresses(entry).len() as u64;
            if addresses > 0 {
                *by_rules.entry(&entry.list).or_default() += addresses;
            }
        }
        let by_packets = level::levels(self.rules, self.doors);
        let overview = |summary: ListSummary| ListOverview {
            by_packets: by_packets.contains_key(&summary.list),
            by_rules: by_rules.get(summary.list.as_str()).copied().unwrap_or_default(),
            by_operators: self.static_entries.list(&summary.list).map_or(0, |entries| entries.len() as u64),
            summary,
        };
        self.lists.summaries().into_iter().filter(|list| self.exists(list)).map(overview).collect()
    }

    /// Whether the list exists now: rules or doors use its name, or it has an entry. The engine keeps every list that
    /// existed since start.
    pub(super) fn exists(&self, list: &ListSummary) -> bool {
        let has_static = || self.static_entries.list(&list.list).is_some_and(|entries| !entries.is_empty());
        list.entries > 0 || self.named.contains(&list.list) || has_static()
    }

    /// The entries of the rules that are not dynamic entries: those without a timeout, and prefixes with one.
    fn of_rules(&self) -> impl Iterator<Item = (usize, (&rule::ListEntry, &AddressSet))> {
        self.rules.address_lists.iter().enumerate().filter_map(|(place, entry)| match &entry.address {
            EntryAddress::Set(set) if !entry.disabled && (entry.timeout.is_none() || set.single().is_none()) => {
                Some((place, (entry, set)))
            }
            _ => None,
        })
    }

    fn entry(&self, lists: &[ListOverview], key: PageKey, found: Found, now: Time) -> Option<ListEntry> {
        let (rank, first, last, vlan, to) = key;
        let list = lists.get(rank)?.summary.list.clone();
        Some(match found {
            Found::Static => {
                let Entry { set, comment, until } = self.static_entries.list(&list)?.get(&(first, last))?.clone();
                let time_left = until.map(|until| until.since(now));
                ListEntry {
                    list,
                    address: set,
                    vlan,
                    name: None,
                    to: None,
                    steps: 0,
                    time_left,
                    dynamic: until.is_some(),
                    line: None,
                    comment,
                }
            }
            Found::OfRules(place) | Found::OfName(place) => {
                let entry = self.rules.address_lists.get(place)?;
                let (address, name) = match &entry.address {
                    EntryAddress::Set(set) => (set.clone(), None),
                    EntryAddress::Name(name) => (first.into(), Some(name.clone())),
                    EntryAddress::None => return None,
                };
                let time_left = entry.timeout.map(|timeout| (self.since + timeout).since(now));
                let (dynamic, comment) = (time_left.is_some(), entry.comment.clone());
                let line = Some(entry.line);
                ListEntry { list, address, vlan, name, to: None, steps: 0, time_left, dynamic, line, comment }
            }
            Found::Added(expiry, steps) => {
                let time_left = (expiry != Time::NEVER).then(|| expiry.since(now));
                let id = self.lists.id(&list)?;
                let to = DynamicEntry { list: id, address: first, vlan, peer_tag: to, step: steps, expiry }.peer();
                let comment = self.notes.comment(id, first).to_owned();
                let (address, name, line) = (first.into(), None, None);
                ListEntry { list, address, vlan, name, to, steps, time_left, dynamic: true, line, comment }
            }
        })
    }
}

/// The last address.
const END: IpAddr = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));
const LAST_VLAN: Vlan = Vlan::from_bits(u64::MAX);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use knockplane_policy::rsc;

    use super::*;
    use crate::state_dir::StateDir;
    use crate::static_entries::Change;
    use knockplane_limits::predecessor::Deadline;

    const RULES: &str = "\
/ip firewall address-list
add list=friends address=192.0.2.0/24 comment=\"the office\"
add list=friends address=198.51.100.0/24 timeout=1m
add list=friends address=203.0.113.9 disabled=yes
/ip firewall filter
add chain=input src-address-list=friends action=add-src-to-address-list address-list=knocked
";

    struct House {
        lists: Engine,
        static_entries: StaticEntries,
        names: Names,
        notes: Notes,
        rules: RuleSet,
        _folder: tempfile::TempDir,
    }

    fn at(seconds: u64) -> Time {
        Time::default() + Duration::from_secs(seconds)
    }

    /// Rules and operators fill `friends`, packets and an operator `knocked`.
    fn house() -> House {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(&folder.path().join("state"), Deadline::over()).unwrap());
        let names = Names::load(&state).unwrap();
        let rules = rsc::read(RULES.as_bytes()).rules;
        let (lists, mut static_entries, mut notes) =
            (Engine::new(100).unwrap(), StaticEntries::load(&state).unwrap(), Notes::default());
        lists.bind_all(&[("friends", u8::MAX), ("knocked", 0), ("empty", u8::MAX)]).unwrap();
        let knocked = lists.id("knocked").unwrap();
        for host in 1..=3 {
            lists.add(knocked, [10, 0, 0, host].into(), at(10 * u64::from(host)), at(0));
        }
        notes.set(knocked, [10, 0, 0, 2].into(), "the printer".to_owned());
        let set: AddressSet = "192.0.2.7".parse().unwrap();
        let entry = Entry { comment: "Bob".to_owned(), until: None, set };
        // Expired but not removed yet.
        let over = Entry { comment: String::new(), until: Some(at(5)), set: "192.0.2.0/25".parse().unwrap() };
        let change =
            |entry: Entry| Change { list: "friends".to_owned(), bounds: entry.set.bounds(), entry: Some(entry) };
        static_entries.change(vec![change(entry), change(over)]).unwrap();
        // A packet also added this address before it became static. The page contains it once, as static.
        lists.add(lists.id("friends").unwrap(), [192, 0, 2, 7].into(), at(99), at(0));
        static_entries.install(&lists).unwrap();
        House { lists, static_entries, names, notes, rules, _folder: folder }
    }

    impl House {
        fn page(&self, query: &ListQuery, most: usize) -> Lists {
            let House { lists, static_entries, names, notes, rules, .. } = self;
            let named =
                knockplane_policy::list_names::named(rules, &[]).into_iter().map(|list| list.into_owned()).collect();
            Places { lists, static_entries, names, notes, rules, named: &named, doors: &[], since: at(0) }.page(
                query,
                most,
                at(5),
            )
        }

        fn told(&self, query: ListQuery) -> Vec<String> {
            let query = ListQuery { limit: 100, ..query };
            let told = |entry: ListEntry| {
                let left = entry.time_left.map_or(0, |left| left.as_secs());
                let flags = if entry.dynamic { "D" } else { "" };
                format!("{flags} {} {} {left} {:?} {}", entry.list, entry.address, entry.line, entry.comment)
            };
            self.page(&query, 100).entries.into_iter().map(told).collect()
        }
    }

    #[test]
    fn entries_of_all_places_are_in_one_order() {
        let all = [
            " friends 192.0.2.0/24 0 Some(2) the office",
            " friends 192.0.2.7 0 None Bob",
            "D friends 198.51.100.0/24 55 Some(3) ",
            "D knocked 10.0.0.1 5 None ",
            "D knocked 10.0.0.2 15 None the printer",
            "D knocked 10.0.0.3 25 None ",
        ];
        let house = house();
        assert_eq!(house.told(ListQuery::default()), all);
        let only = |query| house.told(query);
        let list = Some("friends".to_owned());
        assert_eq!(only(ListQuery { list, ..ListQuery::default() }), all[..3]);
        assert_eq!(only(ListQuery { dynamic: Some(true), ..ListQuery::default() })[1..], all[2..]);
        assert_eq!(only(ListQuery { dynamic: Some(false), ..ListQuery::default() }), all[..2]);
        let expires_within = Some(Duration::from_secs(15));
        assert_eq!(only(ListQuery { expires_within, ..ListQuery::default() }), all[3..5]);
        let comment = |part: &str| Some(part.to_owned());
        assert_eq!(only(ListQuery { comment: comment("print"), ..ListQuery::default() }), all[4..5]);
        assert_eq!(only(ListQuery { comment: comment("office"), ..ListQuery::default() }), all[..1]);
        let address = |text: &str| Some(text.parse().unwrap());
        assert_eq!(only(ListQuery { address: address("192.0.2.7"), ..ListQuery::default() }), all[..2]);
        assert_eq!(only(ListQuery { address: address("10.0.0.2/31"), ..ListQuery::default() }), all[4..]);
    }

    #[test]
    fn pages_behind_each_other_are_everything_once() {
        let house = house();
        let knocked = house.lists.id("knocked").unwrap();
        for end in [[203, 0, 113, 5], [203, 0, 113, 6]] {
            let to = house.lists.peer_tag(end.into());
            house.lists.add_for(knocked, [10, 0, 0, 2].into(), to, at(99), at(0));
            for vlan in ["10", "10/20"] {
                let vlan = house.lists.in_vlan(vlan.parse().unwrap());
                vlan.add_for(knocked, [10, 0, 0, 2].into(), to, at(99), at(0));
            }
        }
        let all = house.told(ListQuery::default());
        for most in 1..=all.len() + 1 {
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let Lists { entries, next, .. } =
                    house.page(&ListQuery { after, limit: 100, ..ListQuery::default() }, most);
                seen.extend(entries.into_iter().map(|entry| (entry.list, entry.address, entry.to)));
                after = next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen.len(), all.len(), "{most} at a time: {seen:?}");
        }
        let gone = After { list: "g".to_owned(), address: "::".parse().unwrap(), vlan: Vlan::NONE, tag: 0 };
        let behind = house.page(&ListQuery { after: Some(gone), limit: 1, ..ListQuery::default() }, 1);
        assert_eq!(behind.entries[0].list, "knocked", "behind a list that is gone");
    }

    #[test]
    fn it_is_said_who_fills_a_list_and_one_that_nothing_names_and_nobody_is_in_is_not_told() {
        let lists = house().page(&ListQuery::default(), 0);
        let told: Vec<_> = lists
            .lists
            .iter()
            .map(|list| (list.summary.list.as_str(), list.by_packets, list.by_rules, list.by_operators))
            .collect();
        assert_eq!(told, [("friends", false, 1, 2), ("knocked", true, 0, 0)]);
        assert!(lists.truncated);
    }
}
