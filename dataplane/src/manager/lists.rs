//! What operators do to the lists by hand.
//!
//! An entry without a timeout is static, and held apart from what packets add, as is a prefix or range with one: see
//! [`crate::held`]. An address with a timeout goes where packets put addresses, but outranks them. What the rules hold
//! is changed by changing the rules.

use std::collections::HashSet;
use std::net::IpAddr;

use knockplane_engine::lists::{Added, ListId, OPERATOR_LEVEL};
use knockplane_policy::rule::{self, AddressSet, EntryAddress};
use knockplane_policy::time::Time;
use knockplane_policy::wire::{ListQuery, Lists, NewEntry};

use super::Manager;
use super::answer::Problem;
use super::page::Places;
use crate::generation::Generation;
use crate::held::{Bounds, Change, Entry};

/// Entries in one answer at most, so that it fits a line, and is found in a fraction of a second.
pub(super) const MAX_ENTRIES: usize = 100_000;

/// Bytes of a comment at most, so that an answer of so many entries fits a line.
const MAX_COMMENT: usize = 1_000;

impl Manager {
    pub(super) fn lists(&self, query: &ListQuery) -> Lists {
        let generation = self.shared.generation.load();
        self.places(&generation).page(query, MAX_ENTRIES, self.shared.clock.now())
    }

    /// Where entries are found while this generation runs.
    pub(super) fn places<'m>(&'m self, generation: &'m Generation) -> Places<'m> {
        Places {
            lists: &self.shared.state.lists,
            held: &self.held,
            notes: &self.notes,
            rules: generation.rules(),
            doors: &self.config.settings.doors,
            since: generation.table.begun(),
        }
    }

    /// Puts entries in lists, all or none.
    pub(super) fn list_add(&mut self, entries: Vec<NewEntry>) -> Result<(), Problem> {
        let now = self.shared.clock.now();
        for entry in &entries {
            check(entry).map_err(Problem::Theirs)?;
        }
        match &entries[..] {
            [NewEntry { list, address, .. }] => tracing::info!(%address, list, "to be listed by request"),
            entries => tracing::info!(entries = entries.len(), "to be listed by request"),
        }
        let entries = self.without_what_rules_hold(entries);
        let names: HashSet<&str> = entries.iter().map(|entry| entry.list.as_str()).collect();
        let lists = &self.shared.state.lists;
        let unknown: Vec<_> =
            names.into_iter().filter(|name| lists.id(name).is_none()).map(|name| (name, OPERATOR_LEVEL)).collect();
        lists.bind_all(&unknown).map_err(|error| Problem::Theirs(error.to_string()))?;

        let (mut added, mut held) = (Vec::new(), Vec::new());
        for NewEntry { list, address, timeout, comment } in entries {
            let until = timeout.map(|timeout| now + timeout);
            let known = self.held.list(&list).and_then(|entries| entries.get(&address.bounds()));
            if until.is_some() && known.is_some_and(|known| known.until.is_none()) {
                // What is static stays so.
                continue;
            }
            match (until, address.single()) {
                (Some(until), Some(single)) => added.push((list, single, until, comment)),
                _ => {
                    let entry = Entry { comment, until, set: address };
                    held.push(Change { bounds: entry.set.bounds(), list, entry: Some(entry) });
                }
            }
        }
        let held_now: Vec<_> = held.iter().map(|change| (change.list.clone(), change.bounds)).collect();
        self.add_for_a_time(added, now, |manager| manager.change_held(held))?;
        for (list, (first, last)) in &held_now {
            if let (Some(id), true) = (self.shared.state.lists.id(list), first == last) {
                self.shared.state.lists.remove(id, *first, now);
            }
        }
        Ok(())
    }

    /// Those that the rules do not hold for good already.
    fn without_what_rules_hold(&self, mut entries: Vec<NewEntry>) -> Vec<NewEntry> {
        let generation = self.shared.generation.load();
        let wanted: HashSet<(&str, Bounds)> =
            entries.iter().map(|entry| (entry.list.as_str(), entry.address.bounds())).collect();
        let of_rules = generation.rules().address_lists.iter().filter_map(|entry| {
            let bounds = bounds_of(entry).filter(|_| entry.timeout.is_none())?;
            wanted.contains(&(entry.list.as_str(), bounds)).then_some((entry.list.as_str(), bounds))
        });
        let of_rules: HashSet<(&str, Bounds)> = of_rules.collect();
        if !of_rules.is_empty() {
            entries.retain(|entry| !of_rules.contains(&(entry.list.as_str(), entry.address.bounds())));
        }
        entries
    }

    /// Adds addresses with a timeout, then does the rest; if either fails, neither was done.
    fn add_for_a_time(
        &mut self,
        entries: Vec<(String, IpAddr, Time, String)>,
        now: Time,
        rest: impl FnOnce(&mut Manager) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let mut new = Vec::new();
        let lists = &self.shared.state.lists;
        let mut result = Ok(());
        for (list, address, until, _) in &entries {
            let Some(id) = lists.id(list) else { continue };
            match lists.add_by_operator(id, *address, *until, now) {
                Added::New => new.push((id, *address)),
                Added::Refreshed | Added::Kept => {}
                Added::Refused => {
                    let full = "the lists are full of entries of the same rank; raise `list-capacity`";
                    result = Err(Problem::Theirs(format!("there is no room for {address}: {full}; nothing was added")));
                    break;
                }
            }
        }
        if let Err(problem) = result.and_then(|()| rest(self)) {
            let lists = &self.shared.state.lists;
            new.into_iter().for_each(|(id, address)| _ = lists.remove(id, address, now));
            return Err(problem);
        }
        for (list, address, _, comment) in entries {
            if let Some(id) = self.shared.state.lists.id(&list) {
                self.notes.set(id, address, comment);
            }
        }
        Ok(())
    }

    /// Changes what is held, on disk and for the workers.
    fn change_held(&mut self, changes: Vec<Change>) -> Result<(), Problem> {
        if changes.is_empty() {
            return Ok(());
        }
        self.held.change(changes).map_err(|error| {
            let kept = self.held.path().display();
            Problem::Ours(format!("cannot keep the entries in {kept}: {error}; nothing changed"))
        })?;
        self.held.install(&self.shared.state.lists).map_err(|error| Problem::Ours(error.to_string()))
    }

    /// Takes an entry out of a list, wherever it is held.
    pub(super) fn list_remove(&mut self, list: &str, set: &AddressSet) -> Result<(), Problem> {
        let now = self.shared.clock.now();
        let id = self.shared.state.lists.id(list);
        let bounds = set.bounds();
        let held = self.held.list(list).is_some_and(|entries| entries.contains_key(&bounds));
        if held {
            self.change_held(vec![Change { list: list.to_owned(), bounds, entry: None }])?;
        }
        let added = |id: ListId| set.single().is_some_and(|address| self.shared.state.lists.remove(id, address, now));
        if id.is_some_and(added) || held {
            tracing::info!(%set, list, "removed by request");
            return Ok(());
        }
        Err(Problem::Theirs(self.why_not_removed(list, set)))
    }

    /// Why an entry is not there to be removed.
    fn why_not_removed(&self, list: &str, set: &AddressSet) -> String {
        let generation = self.shared.generation.load();
        let of_rules = |wanted: &dyn Fn(&AddressSet) -> bool| {
            let entries = generation.rules().address_lists.iter().filter(|entry| entry.list == list && !entry.disabled);
            let mut sets = entries.filter_map(|entry| match &entry.address {
                EntryAddress::Set(set) if wanted(set) => Some((entry.line, set.clone())),
                _ => None,
            });
            sets.next()
        };
        if let Some((line, _)) = of_rules(&|other| other.bounds() == set.bounds()) {
            let source = &generation.source;
            return format!(
                "{set} is in {list} by line {line} of the rules ({source}): remove it there, and apply them"
            );
        }
        let covers = |other: &AddressSet| other.bounds().0 <= set.bounds().0 && set.bounds().1 <= other.bounds().1;
        let held = self.held.list(list).and_then(|entries| entries.values().find(|entry| covers(&entry.set)));
        let by_hand = held.map(|entry| (entry.set.clone(), "remove that, or leave it".to_owned()));
        let by_rules = of_rules(&|other| covers(other)).map(|(line, other)| {
            (
                other,
                format!("which is line {line} of the rules ({}): change it there, and apply them", generation.source),
            )
        });
        match by_hand.or(by_rules) {
            Some((other, remedy)) => format!("{set} is no entry of {list}, but within {other}: {remedy}"),
            None => format!("{set} is not in the list {list}"),
        }
    }

    /// Takes everything out of a list that the rules do not hold; says how many entries that were.
    pub(super) fn list_flush(&mut self, list: &str, dynamic: bool) -> Result<u64, Problem> {
        let now = self.shared.clock.now();
        let Some(id) = self.shared.state.lists.id(list) else {
            return Err(Problem::Theirs(format!("there is no list {list}: `knockctl show lists` names them")));
        };
        let held = self.held.list(list).into_iter().flatten().filter(|(_, entry)| !dynamic || entry.until.is_some());
        let changes: Vec<_> =
            held.map(|(bounds, _)| Change { list: list.to_owned(), bounds: *bounds, entry: None }).collect();
        let mut removed = changes.len() as u64;
        self.change_held(changes)?;
        let lists = &self.shared.state.lists;
        let mut addresses = Vec::new();
        lists.visit(now, |seen| {
            if seen.list == id {
                addresses.push(seen.address);
            }
        });
        removed += addresses.into_iter().filter(|address| lists.remove(id, *address, now)).count() as u64;
        tracing::info!(list, removed, "flushed by request");
        Ok(removed)
    }

    /// Lets go of what operators hold for a time, and of comments without an entry.
    pub(super) fn expire_held(&mut self, now: Time) {
        if self.held.expire(now)
            && let Err(error) = self.held.install(&self.shared.state.lists)
        {
            tracing::error!(%error, "what operators hold cannot be renewed");
        }
        self.notes.forget(&self.shared.state.lists, now);
    }
}

/// The addresses of an entry of the rules, if it is in its list.
fn bounds_of(entry: &rule::ListEntry) -> Option<Bounds> {
    match &entry.address {
        EntryAddress::Set(set) if !entry.disabled => Some(set.bounds()),
        _ => None,
    }
}

/// Whether an entry can be kept and shown.
fn check(entry: &NewEntry) -> Result<(), String> {
    let NewEntry { list, address, comment, .. } = entry;
    if list.is_empty() || list.starts_with('!') || list.contains(|char: char| char.is_control() || char == ',') {
        return Err(format!("`{}` is no name of a list: write printable characters without `,`", list.escape_debug()));
    }
    if matches!(address, AddressSet::Range(first, _) if first.is_ipv6()) {
        return Err(format!("{address} is a range, and ranges exist for IPv4 only: write prefixes"));
    }
    if comment.len() > MAX_COMMENT {
        return Err(format!("the comment of {address} has {} bytes: write at most {MAX_COMMENT}", comment.len()));
    }
    Ok(())
}
