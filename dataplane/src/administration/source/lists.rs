//! The lists that contain an address, the origin of each entry, and the rules that use each list.

use std::net::IpAddr;

use knockplane_engine::state::lists::{AddressEntry, OPERATOR_LEVEL};
use knockplane_policy::door::Door;
use knockplane_policy::packet::Vlan;
use knockplane_policy::rule::{Action, AddressSet, Condition, EntryAddress, Rule};
use knockplane_policy::time::Time;
use knockplane_policy::wire::ListEntry;
use knockplane_policy::wire::source::{Origin, RuleRef, SourceList};

use super::{network, rule_ref};
use crate::administration::Administration;
use crate::generation::Generation;
use crate::names::Names;

/// The maximum number of rules of each kind in the answer for one list.
const RULES: usize = 5;

impl Administration {
    /// All lists that contain the address, in the order of lists. Dynamic entries are found by the address; the entries
    /// of operators and rules are searched one by one.
    pub(super) fn lists_of(&self, address: IpAddr, generation: &Generation, now: Time) -> Vec<SourceList> {
        let mut lists = self.added(address, generation, now);
        lists.extend(self.by_operators(address, now));
        lists.extend(of_rules(address, &self.lists.names, generation, now));
        lists.sort_by(|one, other| one.entry.list.cmp(&other.entry.list));
        for list in &mut lists {
            let name = &list.entry.list;
            list.added_by = rules(generation, |rule| adds_to(rule) == Some(name));
            list.used_by = rules(generation, |rule| asks_for(rule, name));
            list.door = door(&generation.table.settings().doors, name);
        }
        lists
    }

    /// The entries of packets and knocks, and the addresses that operators added with a timeout.
    fn added(&self, address: IpAddr, generation: &Generation, now: Time) -> Vec<SourceList> {
        let lists = &self.shared.state.lists;
        let entry = |AddressEntry { entry: seen, level, by_network }: AddressEntry| {
            let list = lists.name(seen.list)?;
            let line = single_of_rules(address, &list, seen.expiry, generation);
            let origin = match level {
                _ if seen.peer_tag != 0 => Origin::Door,
                _ if line.is_some() => Origin::Rules,
                OPERATOR_LEVEL => Origin::Operator,
                _ => Origin::Packet,
            };
            let set = match network(address).filter(|_| by_network) {
                Some(network) => AddressSet::Prefix(network),
                None => address.into(),
            };
            let entry = ListEntry {
                list,
                address: set,
                vlan: seen.vlan,
                name: None,
                to: seen.peer(),
                steps: seen.step,
                time_left: (seen.expiry != Time::NEVER).then(|| seen.expiry.since(now)),
                dynamic: true,
                line,
                comment: self.lists.notes.comment(seen.list, seen.address).to_owned(),
            };
            Some(found(entry, origin))
        };
        lists.entries_of(address, now).into_iter().filter_map(entry).collect()
    }

    /// Entries of operators: those without a timeout, and prefixes and ranges with one.
    fn by_operators(&self, address: IpAddr, now: Time) -> impl Iterator<Item = SourceList> {
        let entries =
            self.lists.entries.lists().flat_map(|(list, entries)| entries.values().map(move |entry| (list, entry)));
        let live = entries
            .filter(move |(_, entry)| entry.set.contains(address) && entry.until.is_none_or(|until| now < until));
        live.map(move |(list, entry)| {
            let entry = ListEntry {
                list: list.to_owned(),
                address: entry.set.clone(),
                vlan: Vlan::NONE,
                name: None,
                to: None,
                steps: 0,
                time_left: entry.until.map(|until| until.since(now)),
                dynamic: entry.until.is_some(),
                line: None,
                comment: entry.comment.clone(),
            };
            found(entry, Origin::Operator)
        })
    }
}

fn found(entry: ListEntry, origin: Origin) -> SourceList {
    SourceList { entry, origin, door: None, added_by: Vec::new(), used_by: Vec::new() }
}

/// The entries of the rules outside the dynamic entries: those without a timeout, prefixes and ranges with one, and
/// host names.
fn of_rules(address: IpAddr, names: &Names, generation: &Generation, now: Time) -> impl Iterator<Item = SourceList> {
    let since = generation.table.begun();
    generation.rules().address_lists.iter().filter(|entry| !entry.disabled).filter_map(move |entry| {
        let (set, name) = match &entry.address {
            EntryAddress::Set(set) => (set.clone(), None),
            EntryAddress::Name(name) if names.addresses(entry).contains(&address) => {
                (address.into(), Some(name.clone()))
            }
            EntryAddress::Name(_) | EntryAddress::None => return None,
        };
        let until = entry.timeout.map(|timeout| since + timeout);
        let stays = until.is_none() || set.single().is_none() || name.is_some();
        if !stays || !set.contains(address) || until.is_some_and(|until| until <= now) {
            return None;
        }
        let entry = ListEntry {
            list: entry.list.clone(),
            address: set,
            vlan: Vlan::NONE,
            name,
            to: None,
            steps: 0,
            time_left: until.map(|until| until.since(now)),
            dynamic: until.is_some(),
            line: Some(entry.line),
            comment: entry.comment.clone(),
        };
        Some(found(entry, Origin::Rules))
    })
}

/// The line of the rules' entry that added a single address with this expiry; `None` if a packet or an operator set the
/// expiry.
fn single_of_rules(address: IpAddr, list: &str, expiry: Time, generation: &Generation) -> Option<u32> {
    let since = generation.table.begun();
    let mut entries = generation.rules().address_lists.iter().filter(|entry| !entry.disabled && entry.list == list);
    let entry = entries.find(|entry| {
        let is_it = matches!(&entry.address, EntryAddress::Set(set) if set.single() == Some(address));
        is_it && entry.timeout.is_some_and(|timeout| since + timeout == expiry)
    });
    entry.map(|entry| entry.line)
}

/// The first few running rules that match the predicate.
fn rules(generation: &Generation, is_so: impl Fn(&Rule) -> bool) -> Vec<RuleRef> {
    let wanted = generation.rules().rules.iter().enumerate().filter(|(_, rule)| rule.runs() && is_so(rule));
    wanted.filter_map(|(position, _)| rule_ref(generation, position)).take(RULES).collect()
}

fn adds_to(rule: &Rule) -> Option<&str> {
    match &rule.action {
        Action::AddSrcToAddressList(add) | Action::AddDstToAddressList(add) => Some(&add.list),
        _ => None,
    }
}

fn asks_for(rule: &Rule, list: &str) -> bool {
    rule.matchers.iter().any(|matcher| match &matcher.condition {
        Condition::SrcAddressList(name) | Condition::DstAddressList(name) => name == list,
        _ => false,
    })
}

/// The door that the list belongs to.
fn door(doors: &[Door], list: &str) -> Option<String> {
    doors.iter().find(|door| door.lists().iter().any(|name| name == list)).map(|door| door.name.clone())
}
