//! List administration: the changes of lists by operators, and the answers to operators about lists.
//!
//! An entry without a timeout is static, and is stored outside the dynamic entries, as is a prefix or range with a
//! timeout: see [`crate::static_entries`]. An address with a timeout becomes a dynamic entry, but outranks the entries
//! of packets. Operators change the entries of the rules by changing the rules.

mod adding;
mod names;
mod notes;
mod page;

use std::collections::BTreeSet;
use std::sync::Arc;

use knockplane_engine::state::lists::{ListId, Lists as Engine};
use knockplane_log::target;
use knockplane_policy::event::EventKind;
use knockplane_policy::list_names;
use knockplane_policy::rule::{AddressSet, EntryAddress};
use knockplane_policy::time::Time;
use knockplane_policy::wire::{Added, ListPage, ListQuery, MAX_ANSWER_ENTRIES, NameState, NewEntry};

use self::adding::Adding;
use self::notes::Notes;
use self::page::Places;
use super::published::PublishedLists;
use super::{Administration, RequestError};
use crate::generation::Generation;
use crate::journal::Journal;
use crate::names::ResolvedNames;
use crate::shared::Shared;
use crate::static_entries::{OperatorChange, OperatorEntry, StaticEntryStore};

/// The state of list administration.
pub(crate) struct ListAdministration {
    pub(crate) entries: StaticEntryStore,
    pub(crate) names: ResolvedNames,
    pub(super) notes: Notes,
    journal: Arc<Journal>,
}

impl Administration {
    pub(super) fn lists(&self, query: &ListQuery) -> ListPage {
        let now = self.shared.clock.now();
        let generation = self.shared.generation.load();
        let mut lists = self.lists.places(&generation, &self.shared).page(query, MAX_ANSWER_ENTRIES, now);
        if query.after.is_none() {
            lists.names = self.lists.name_states(now);
            lists.names.retain(|name| query.list.as_ref().is_none_or(|only| *only == name.list));
        }
        lists
    }
}

impl ListAdministration {
    /// The administration of a start that has restored these entries and comments.
    pub(crate) fn new(
        entries: StaticEntryStore,
        names: ResolvedNames,
        journal: Arc<Journal>,
        restored: Vec<(String, OperatorEntry)>,
        lists: &Engine,
    ) -> Self {
        let mut notes = Notes::default();
        for (list, OperatorEntry { set, comment, .. }) in restored {
            if let (Some(list), Some(address)) = (lists.id(&list), set.single()) {
                notes.set(list, address, comment);
            }
        }
        ListAdministration { entries, names, notes, journal }
    }

    /// The summary of the lists for the manager.
    pub(super) fn published(&self, now: Time) -> PublishedLists {
        let with_entries = self.entries.lists().filter(|(_, entries)| !entries.is_empty());
        PublishedLists {
            with_entries: with_entries.map(|(name, _)| name.to_owned()).collect(),
            damage: self.entries.damage().map(str::to_owned),
            names: self.name_states(now),
            at: now,
        }
    }

    /// The sources of entries while this generation runs.
    pub(super) fn places<'m>(&'m self, generation: &'m Generation, shared: &'m Shared) -> Places<'m> {
        Places {
            lists: &shared.state.lists,
            static_entries: &self.entries,
            names: &self.names,
            notes: &self.notes,
            rules: generation.rules(),
            named: &generation.lists,
            doors: &generation.table.settings().doors,
            since: generation.table.begun(),
        }
    }

    /// Adds entries, all or none. Returns the number of entries that were permanent already and did not change, and the
    /// lists that no rule matches.
    pub(super) fn add(&mut self, entries: Vec<NewEntry>, shared: &Shared) -> Result<Added, RequestError> {
        match &entries[..] {
            [NewEntry { list, address, .. }] => {
                tracing::info!(target: target!("operator"), %address, list, "to be listed by request")
            }
            entries => tracing::info!(target: target!("operator"), entries = entries.len(), "to be listed by request"),
        }
        let now = shared.clock.now();
        let generation = shared.generation.load();
        let adding = Adding {
            lists: &shared.state.lists,
            entries: &mut self.entries,
            notes: &mut self.notes,
            journal: &self.journal,
            rules: generation.rules(),
            source: &generation.source,
        };
        let mut unused: BTreeSet<String> = entries.iter().map(|entry| entry.list.clone()).collect();
        for list in list_names::matched(generation.rules()) {
            unused.remove(list);
        }
        Ok(Added { left: adding.add(entries, now)?, unused: unused.into_iter().collect() })
    }

    /// Removes an entry from a list, the static one and the dynamic one.
    pub(super) fn remove(&mut self, list: &str, set: &AddressSet, shared: &Shared) -> Result<(), RequestError> {
        let now = shared.clock.now();
        let id = shared.state.lists.id(list);
        let bounds = set.bounds();
        let is_static = self.entries.list(list).is_some_and(|entries| entries.contains_key(&bounds));
        if is_static {
            let removal = OperatorChange { list: list.to_owned(), bounds, entry: None };
            change(&mut self.entries, &shared.state.lists, &self.journal, vec![removal], EventKind::Removed, now)?;
        }
        let added = |id: ListId| set.single().is_some_and(|address| shared.state.lists.remove(id, address, now));
        if id.is_some_and(added) || is_static {
            tracing::info!(target: target!("operator"), %set, list, "removed by request");
            return Ok(());
        }
        Err(self.why_not_removed(list, set, shared))
    }

    /// The reason that an entry cannot be removed.
    fn why_not_removed(&self, list: &str, set: &AddressSet, shared: &Shared) -> RequestError {
        let generation = shared.generation.load();
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
            return RequestError::Theirs(format!(
                "{set} is in {list} by line {line} of the rules ({source}): remove it there, and apply them"
            ));
        }
        let covers = |other: &AddressSet| other.bounds().0 <= set.bounds().0 && set.bounds().1 <= other.bounds().1;
        let around = self.entries.list(list).and_then(|entries| entries.values().find(|entry| covers(&entry.set)));
        let by_operator = around.map(|entry| (entry.set.clone(), "remove that, or leave it".to_owned()));
        let by_rules = of_rules(&|other| covers(other)).map(|(line, other)| {
            (
                other,
                format!("which is line {line} of the rules ({}): change it there, and apply them", generation.source),
            )
        });
        if let Some(name) = self.name_of(list, set, shared.clock.now()) {
            return RequestError::Theirs(format!(
                "{set} is in {list} as an address of {name}: remove the name from the rules, and apply them"
            ));
        }
        match by_operator.or(by_rules) {
            Some((other, remedy)) => {
                RequestError::Theirs(format!("{set} is no entry of {list}, but within {other}: {remedy}"))
            }
            None => RequestError::NoEntry(format!("{set} is not in the list {list}")),
        }
    }

    /// A host name that puts this address in this list.
    fn name_of(&self, list: &str, set: &AddressSet, now: Time) -> Option<String> {
        let is_this =
            |name: &NameState| name.list == list && name.addresses.iter().any(|address| set.single() == Some(*address));
        self.name_states(now).into_iter().find(is_this).map(|state| state.name.name)
    }

    /// Removes all entries from a list except those of the rules. Returns the number of removed entries.
    pub(super) fn flush(&mut self, list: &str, dynamic: bool, shared: &Shared) -> Result<u64, RequestError> {
        let now = shared.clock.now();
        let Some(id) = shared.state.lists.id(list) else {
            return Err(RequestError::Theirs(format!("there is no list {list}: `knockctl show lists` names them")));
        };
        let own = self.entries.list(list).into_iter().flatten().filter(|(_, entry)| !dynamic || entry.until.is_some());
        let changes: Vec<_> =
            own.map(|(bounds, _)| OperatorChange { list: list.to_owned(), bounds: *bounds, entry: None }).collect();
        let mut removed = changes.len() as u64;
        let lists = &shared.state.lists;
        change(&mut self.entries, lists, &self.journal, changes, EventKind::Flushed, now)?;
        removed += lists.flush(id, now);
        tracing::info!(target: target!("operator"), list, removed, "flushed by request");
        Ok(removed)
    }

    /// Removes expired entries of operators, and comments without an entry.
    pub(super) fn keep_house(&mut self, shared: &Shared) {
        self.entries.compact();
        let now = shared.clock.now();
        self.entries.expire(now);
        let lists = &shared.state.lists;
        publish(&mut self.entries, lists, &self.journal, now);
        let forgotten = self.notes.forget(lists, now).into_iter();
        let forgotten = forgotten.filter_map(|(list, address)| Some(notes::change(lists.name(list)?, address, "")));
        self.journal.change(forgotten.collect());
    }
}

/// Changes entries, on disk and for the workers, and publishes the events. If that fails, nothing changes.
fn change(
    entries: &mut StaticEntryStore,
    lists: &Engine,
    journal: &Journal,
    changes: Vec<OperatorChange>,
    end: EventKind,
    now: Time,
) -> Result<(), RequestError> {
    if changes.is_empty() {
        return Ok(());
    }
    entries.change_with(changes, end).map_err(|error| {
        let kept = entries.path();
        RequestError::Ours(format!("cannot keep the entries in {}: {error}; nothing changed", kept.display()))
    })?;
    entries.install(lists).map_err(|error| RequestError::Ours(error.to_string()))?;
    publish(entries, lists, journal, now);
    Ok(())
}

/// Publishes the events of changes that are in force, after the journal has those of entries with a timeout.
fn publish(entries: &mut StaticEntryStore, lists: &Engine, journal: &Journal, now: Time) {
    journal.change(entries.take_timed_changes());
    entries.publish(lists, now);
}
