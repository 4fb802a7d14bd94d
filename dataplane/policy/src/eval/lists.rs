//! Address lists of the reference evaluator: an entry counts until its expiry.
//!
//! Lists contain addresses, from rules and from entries of the file, and sets (prefixes and ranges), from entries of
//! the file alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::packet::Vlan;
use crate::rule::{AddressSet, EntryAddress, ListEntry, ListTimeout};
use crate::time::Time;

/// The address lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlainLists {
    /// Entries with [`Vlan::NONE`] count in all networks.
    entries: HashMap<(String, IpAddr, Vlan), Time>,
    sets: Vec<ListedSet>,
}

/// A prefix or range in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ListedSet {
    list: String,
    set: AddressSet,
    expiry: Time,
}

/// An address in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedAddress {
    /// The list.
    pub list: String,
    /// The address.
    pub address: IpAddr,
    /// The network in which the entry counts; [`Vlan::NONE`] for all.
    pub vlan: Vlan,
    /// The time until the entry expires; `None` if it does not expire.
    pub time_left: Option<Duration>,
}

/// The result of adding an address to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The address got a new entry.
    New,
    /// The address had an entry, whose timeout was renewed.
    Refreshed,
    /// Nothing changed: the address has an entry that never expires, or a prefix or range in the list contains it.
    Kept,
}

impl PlainLists {
    /// Whether the address is in the list now, for all networks. An entry is expired at its expiry, not after it.
    pub fn contains(&self, list: &str, address: IpAddr, now: Time) -> bool {
        self.contains_within(Vlan::NONE, list, address, now)
    }

    /// Whether the address is in the list now, for this network or for all.
    pub fn contains_within(&self, vlan: Vlan, list: &str, address: IpAddr, now: Time) -> bool {
        [vlan, Vlan::NONE].iter().any(|vlan| self.expiry(list, address, *vlan, now).is_some())
            || self.covered(list, address, now)
    }

    /// Adds the address to the list, or renews its timeout: the rule's timeout from now. An entry that never expires is
    /// not changed: a static entry never becomes dynamic. An address that a prefix or range in the list contains gets
    /// no separate entry, even if the prefix or range expires soon. Source: RouterOS's kernel modules.
    pub fn add(&mut self, list: &str, address: IpAddr, timeout: ListTimeout, now: Time) -> Added {
        self.add_within(Vlan::NONE, list, address, timeout, now)
    }

    /// As [`PlainLists::add`], for this network alone. An entry for all networks that never expires is not changed.
    pub fn add_within(&mut self, vlan: Vlan, list: &str, address: IpAddr, timeout: ListTimeout, now: Time) -> Added {
        if self.covered(list, address, now) || self.expiry(list, address, Vlan::NONE, now) == Some(Time::NEVER) {
            return Added::Kept;
        }
        let expiry = match timeout {
            ListTimeout::After(duration) => now + duration,
            ListTimeout::NoneDynamic | ListTimeout::NoneStatic => Time::NEVER,
        };
        match self.expiry(list, address, vlan, now) {
            Some(Time::NEVER) => Added::Kept,
            before => {
                self.entries.insert((list.to_owned(), address, vlan), expiry);
                if before.is_some() { Added::Refreshed } else { Added::New }
            }
        }
    }

    /// Adds an entry of the file, unless it is disabled. Its timeout begins now. A host name adds nothing: the resolver
    /// adds the addresses. An entry without an address adds nothing.
    pub fn add_entry(&mut self, entry: &ListEntry, now: Time) {
        let EntryAddress::Set(set) = &entry.address else { return };
        if entry.disabled {
            return;
        }
        match single(set) {
            Some(address) => {
                // The address gets a separate entry even if a set contains it, with the latest expiry of the file's
                // entries.
                let expiry = entry.timeout.map_or(Time::NEVER, |timeout| now + timeout);
                let known = self.entries.entry((entry.list.clone(), address, Vlan::NONE)).or_insert(expiry);
                *known = expiry.max(*known);
            }
            None => self.sets.push(ListedSet {
                list: entry.list.clone(),
                set: set.clone(),
                expiry: entry.timeout.map_or(Time::NEVER, |timeout| now + timeout),
            }),
        }
    }

    /// Removes the address's own entry. Returns whether there was one.
    pub fn remove(&mut self, list: &str, address: IpAddr, now: Time) -> bool {
        self.entries.remove(&(list.to_owned(), address, Vlan::NONE)).is_some_and(|expiry| now < expiry)
    }

    /// The addresses in the lists now, in order, without prefixes and ranges. An address in a list for several networks
    /// appears once for each.
    pub fn live(&self, now: Time) -> Vec<ListedAddress> {
        let mut live: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, expiry)| now < **expiry)
            .map(|((list, address, vlan), expiry)| ListedAddress {
                list: list.clone(),
                address: *address,
                vlan: *vlan,
                time_left: (*expiry != Time::NEVER).then(|| expiry.since(now)),
            })
            .collect();
        live.sort();
        live
    }

    /// Removes expired entries.
    pub(super) fn sweep(&mut self, now: Time) {
        self.entries.retain(|_, expiry| now < *expiry);
        self.sets.retain(|listed| now < listed.expiry);
    }

    /// The expiry of the address's own entry for this network, if there is one now.
    fn expiry(&self, list: &str, address: IpAddr, vlan: Vlan, now: Time) -> Option<Time> {
        self.entries.get(&(list.to_owned(), address, vlan)).copied().filter(|expiry| now < *expiry)
    }

    /// Whether a prefix or range in the list contains the address now.
    fn covered(&self, list: &str, address: IpAddr, now: Time) -> bool {
        let covers = |listed: &ListedSet| listed.list == list && now < listed.expiry && listed.set.contains(address);
        self.sets.iter().any(covers)
    }
}

/// The address of a set with only one address.
fn single(set: &AddressSet) -> Option<IpAddr> {
    match set {
        AddressSet::Prefix(net) => (net.prefix_len() == net.max_prefix_len()).then(|| net.addr()),
        AddressSet::Range(first, last) => (first == last).then_some(*first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Family;

    const NOW: Time = Time::from_nanos(1_000_000_000);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn seconds(seconds: u64) -> ListTimeout {
        ListTimeout::After(Duration::from_secs(seconds))
    }

    fn entry(list: &str, address: EntryAddress, timeout: Option<u64>) -> ListEntry {
        ListEntry {
            family: Family::Ipv4,
            list: list.to_owned(),
            address,
            timeout: timeout.map(Duration::from_secs),
            disabled: false,
            comment: String::new(),
            line: 0,
        }
    }

    fn prefix(text: &str) -> EntryAddress {
        EntryAddress::Set(AddressSet::Prefix(text.parse().unwrap()))
    }

    #[test]
    fn adding_again_renews_the_timeout_also_with_a_shorter_one() {
        let (mut lists, knocker) = (PlainLists::default(), address("192.0.2.1"));
        assert_eq!(lists.add("a", knocker, seconds(10), NOW), Added::New);
        assert_eq!(lists.add("a", knocker, seconds(3), NOW + Duration::from_secs(1)), Added::Refreshed);
        assert!(lists.contains("a", knocker, NOW + Duration::from_nanos(3_999_999_999)));
        assert!(!lists.contains("a", knocker, NOW + Duration::from_secs(4)));
        assert_eq!(lists.add("a", knocker, seconds(1), NOW + Duration::from_secs(4)), Added::New);
        assert!(!lists.contains("b", knocker, NOW) && !lists.contains("a", address("192.0.2.2"), NOW));
    }

    #[test]
    fn an_entry_that_never_expires_stays_as_it_is() {
        let (mut lists, server) = (PlainLists::default(), address("192.0.2.1"));
        lists.add_entry(&entry("a", prefix("192.0.2.1/32"), None), NOW);
        assert_eq!(lists.add("a", server, seconds(1), NOW), Added::Kept);
        assert_eq!(
            lists.live(NOW + Duration::from_secs(100)),
            [ListedAddress { list: "a".to_owned(), address: server, vlan: Vlan::NONE, time_left: None }]
        );
        assert!(lists.remove("a", server, NOW) && !lists.remove("a", server, NOW));
        assert!(!lists.contains("a", server, NOW));
    }

    #[test]
    fn an_address_in_a_prefix_or_range_gets_no_entry_of_its_own() {
        let mut lists = PlainLists::default();
        lists.add_entry(&entry("a", prefix("192.0.2.128/25"), None), NOW);
        let range = AddressSet::Range(address("10.0.0.5"), address("10.0.0.7"));
        lists.add_entry(&entry("a", EntryAddress::Set(range), Some(5)), NOW);
        for covered in ["192.0.2.200", "10.0.0.6"] {
            assert_eq!(lists.add("a", address(covered), seconds(60), NOW), Added::Kept);
            assert!(lists.contains("a", address(covered), NOW));
        }
        assert_eq!(lists.live(NOW), []);
        assert_eq!(lists.add("b", address("192.0.2.200"), seconds(60), NOW), Added::New);
        let later = NOW + Duration::from_secs(5);
        assert!(lists.contains("a", address("192.0.2.200"), later) && !lists.contains("a", address("10.0.0.6"), later));
        lists.sweep(later);
        assert_eq!(lists.sets.len(), 1);
    }

    #[test]
    fn names_disabled_entries_and_entries_without_an_address_add_nothing() {
        let mut lists = PlainLists::default();
        lists.add_entry(&entry("a", EntryAddress::None, None), NOW);
        lists.add_entry(&entry("a", EntryAddress::Name("example.com".to_owned()), None), NOW);
        lists.add_entry(&ListEntry { disabled: true, ..entry("a", prefix("0.0.0.0/0"), None) }, NOW);
        assert_eq!(lists, PlainLists::default());
    }
}
