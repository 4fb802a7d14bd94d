//! What operators do to the lists by hand.
//!
//! An entry without a timeout is static, and held apart from what packets add, as is a prefix or range with one: see
//! [`crate::held`]. An address with a timeout goes where packets put addresses, but outranks them. What the rules hold
//! is changed by changing the rules.

use std::collections::BTreeSet;

use knockplane_engine::state::lists::{ListId, Lists as Engine};
use knockplane_log::target;
use knockplane_policy::list_names;
use knockplane_policy::rule::{AddressSet, EntryAddress};
use knockplane_policy::time::Time;
use knockplane_policy::wire::{Added, ListQuery, Lists, MAX_ANSWER_ENTRIES, NameState, NewEntry};

use super::Manager;
use super::adding::Adding;
use super::answer::Problem;
use super::page::Places;
use crate::generation::Generation;
use crate::held::{Change, Held};

impl Manager {
    pub(super) fn lists(&self, query: &ListQuery) -> Lists {
        let generation = self.shared.generation.load();
        let mut lists = self.places(&generation).page(query, MAX_ANSWER_ENTRIES, self.shared.clock.now());
        if query.after.is_none() {
            lists.names = self.names();
            lists.names.retain(|name| query.list.as_ref().is_none_or(|only| *only == name.list));
        }
        lists
    }

    /// Where entries are found while this generation runs.
    pub(super) fn places<'m>(&'m self, generation: &'m Generation) -> Places<'m> {
        Places {
            lists: &self.shared.state.lists,
            held: &self.held,
            names: &self.names,
            notes: &self.notes,
            rules: generation.rules(),
            named: &generation.lists,
            doors: &self.config.settings.doors,
            since: generation.table.begun(),
        }
    }

    /// Puts entries in lists, all or none; says how many are in for good already, and were left as they were, and which of
    /// the lists no rule matches.
    pub(super) fn list_add(&mut self, entries: Vec<NewEntry>) -> Result<Added, Problem> {
        match &entries[..] {
            [NewEntry { list, address, .. }] => {
                tracing::info!(target: target!("operator"), %address, list, "to be listed by request")
            }
            entries => tracing::info!(target: target!("operator"), entries = entries.len(), "to be listed by request"),
        }
        let now = self.shared.clock.now();
        let generation = self.shared.generation.load();
        let adding = Adding {
            lists: &self.shared.state.lists,
            held: &mut self.held,
            notes: &mut self.notes,
            rules: generation.rules(),
            source: &generation.source,
        };
        let mut unused: BTreeSet<String> = entries.iter().map(|entry| entry.list.clone()).collect();
        for list in list_names::matched(generation.rules()) {
            unused.remove(list);
        }
        Ok(Added { left: adding.add(entries, now)?, unused: unused.into_iter().collect() })
    }

    /// Changes what is held, on disk and for the workers.
    fn change_held(&mut self, changes: Vec<Change>) -> Result<(), Problem> {
        change_held(&mut self.held, &self.shared.state.lists, changes)
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
            tracing::info!(target: target!("operator"), %set, list, "removed by request");
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
        if let Some(name) = self.name_of(list, set) {
            return format!(
                "{set} is in {list} as an address of {name}: remove the name from the rules, and apply them"
            );
        }
        match by_hand.or(by_rules) {
            Some((other, remedy)) => format!("{set} is no entry of {list}, but within {other}: {remedy}"),
            None => format!("{set} is not in the list {list}"),
        }
    }

    /// A host name that puts this address in this list.
    fn name_of(&self, list: &str, set: &AddressSet) -> Option<String> {
        let is_this =
            |name: &NameState| name.list == list && name.addresses.iter().any(|address| set.single() == Some(*address));
        self.names().into_iter().find(is_this).map(|state| state.name.name)
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
        removed += lists.flush(id, now);
        tracing::info!(target: target!("operator"), list, removed, "flushed by request");
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

/// Changes what is held, on disk and for the workers; if that fails, nothing changed.
pub(super) fn change_held(held: &mut Held, lists: &Engine, changes: Vec<Change>) -> Result<(), Problem> {
    if changes.is_empty() {
        return Ok(());
    }
    held.change(changes).map_err(|error| {
        let kept = held.path();
        Problem::Ours(format!("cannot keep the entries in {}: {error}; nothing changed", kept.display()))
    })?;
    held.install(lists).map_err(|error| Problem::Ours(error.to_string()))
}
