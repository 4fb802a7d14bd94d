//! Entries of operators outside the dynamic entries: entries without a timeout, and prefixes and ranges with one.
//!
//! These entries are not in the slots that packets fill, so that no flood affects them. Entries without a timeout are
//! static: a change of them is on disk, in `lists.state`, before it is in force. A restart restores them with their
//! comments. The file grows by a record for each change, and is rewritten when more than half of it is out of date.
//! Prefixes and ranges with a timeout are in the journal instead, which has the times of a boot
//! ([`StaticEntryStore::take_timed_changes`]). Each change is an event, after it is in force.
//!
//! | file          | owns |
//! |---------------|------|
//! | this          | the map of the entries, and changes of it |
//! | `stored.rs`   | the entries as they are stored, read at a start before the map is built, which can wait until frames are forwarded |
//! | `events.rs`   | the events of changes |
//! | `recent.rs`   | the changes that the engine keeps separately until it compiles all entries again |
//! | `record.rs`   | changes as bytes |
//! | `version1.rs` | the file of an earlier version |
//! | `check.rs`    | which entries can be stored |

mod check;
mod events;
mod recent;
mod record;
mod stored;
mod version1;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use knockplane_engine::state::lists::{ListId, Lists, OPERATOR_LEVEL, TooManyListsError};
use knockplane_policy::event::EventKind;
use knockplane_policy::rule::AddressSet;
use knockplane_policy::time::Time;

pub(crate) use self::check::check;
use self::check::{check_comment, check_list_name};
use self::events::{Collected, EntryChange};
use self::recent::{ListEntries, MOST_RECENT, Recent, overlapping_names};
use self::record::{Content, entry_bytes, list_bytes};
pub(crate) use self::stored::StoredEntries;
use crate::state_dir::{ChangeLog, Record};

/// First and last address of an entry, which are unique in a list.
pub(crate) type Bounds = (IpAddr, IpAddr);

/// Minimum number of outdated bytes before the file is rewritten. A start reads this number in a few milliseconds.
const FEW_BYTES: u64 = 64 << 10;

/// The number of bytes of a record in a rewritten file.
const SNAPSHOT_RECORD: usize = 1 << 20;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperatorEntry {
    pub(crate) set: AddressSet,
    pub(crate) comment: String,
    /// Expiry; `None` if the entry is static.
    pub(crate) until: Option<Time>,
}

impl OperatorEntry {
    /// The number of bytes of the entry in the file.
    fn stored_bytes(&self) -> u64 {
        if self.until.is_some() { 0 } else { entry_bytes(&self.set, &self.comment) }
    }
}

/// A change of an entry of a list.
pub(crate) struct OperatorChange {
    pub(crate) list: String,
    pub(crate) bounds: Bounds,
    /// The new entry; `None` removes the entry.
    pub(crate) entry: Option<OperatorEntry>,
}

/// An address that is in a list because a host name resolves to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameEntry {
    pub(crate) list: String,
    pub(crate) bounds: Bounds,
    /// Expiry; `None` if the entry has no timeout.
    pub(crate) until: Option<Time>,
}

/// The entries.
pub(crate) struct StaticEntryStore {
    lists: BTreeMap<String, ListEntries>,
    /// Entries of host names, which the engine compiles with those of operators.
    names: Vec<NameEntry>,
    /// The earliest possible expiry of an entry.
    next_expiry: Time,
    /// The changes that the engine keeps separately; `None` if the engine must compile all entries again.
    recent: Option<Recent>,
    /// Whether the engine has all changes.
    is_installed: bool,
    /// Events of changes that the engine may not have yet.
    unpublished: Vec<EntryChange>,
    /// Changed entries that have a timeout or had one, for the journal.
    timed_changes: Vec<(String, Bounds)>,
    log: ChangeLog,
    /// The size of a file with only these entries, without its headers.
    live_bytes: u64,
    /// The length at which the file is rewritten at the latest, after a failed attempt.
    next_compaction: u64,
    damage: Option<String>,
}

impl StaticEntryStore {
    fn new(
        lists: BTreeMap<String, BTreeMap<Bounds, OperatorEntry>>,
        names: Vec<NameEntry>,
        log: ChangeLog,
        damage: Option<String>,
    ) -> StaticEntryStore {
        let entries = || lists.values().flat_map(BTreeMap::values);
        let next_expiry = entries().filter_map(|entry| entry.until).min().unwrap_or(Time::NEVER);
        let live_bytes = entries().map(OperatorEntry::stored_bytes).sum::<u64>()
            + lists.keys().map(|name| list_bytes(name)).sum::<u64>();
        StaticEntryStore {
            lists: lists.into_iter().map(|(name, entries)| (name, ListEntries::new(entries))).collect(),
            names,
            next_expiry,
            recent: Some(Recent::default()),
            is_installed: true,
            unpublished: Vec::new(),
            timed_changes: Vec::new(),
            log,
            live_bytes,
            next_compaction: 0,
            damage,
        }
    }

    /// Loads the stored entries into a map.
    ///
    /// # Errors
    /// As [`StoredEntries::load`] and [`StoredEntries::into_map`].
    #[cfg(test)]
    pub(crate) fn load(state: &std::sync::Arc<crate::state_dir::StateDir>) -> anyhow::Result<StaticEntryStore> {
        StoredEntries::load(state)?.into_map(Vec::new(), &[])
    }

    /// Installs the present entries in the engine.
    ///
    /// # Errors
    /// If the engine has too many list names already; then nothing changed.
    pub(crate) fn install(&mut self, lists: &Lists) -> Result<(), TooManyListsError> {
        let unknown = self.lists.keys().filter(|name| lists.id(name).is_none());
        let unknown: Vec<_> = unknown.map(|name| (name.as_str(), OPERATOR_LEVEL)).collect();
        lists.bind_all(&unknown)?;
        match &self.recent {
            Some(_) if self.is_installed => {}
            Some(recent) => recent.install(lists),
            None => {
                let of_operators = self.lists().flat_map(|(name, entries)| {
                    let list = lists.id(name);
                    entries.values().filter_map(move |entry| Some((list?, entry.set.bounds(), entry.until)))
                });
                lists.set_static_entries(of_operators.chain(of_names(lists, &self.names)));
                self.recent = Some(Recent::default());
            }
        }
        self.is_installed = true;
        Ok(())
    }

    /// Replaces the entries of host names. They are in force after the next [`StaticEntryStore::install`].
    pub(crate) fn set_names(&mut self, names: Vec<NameEntry>) {
        if names != self.names {
            (self.recent, self.is_installed) = (None, false);
            self.names = names;
        }
    }

    /// As [`StaticEntryStore::change_with`]; removals are no flush.
    ///
    /// # Errors
    /// As [`StaticEntryStore::change_with`].
    #[cfg(test)]
    pub(crate) fn change(&mut self, changes: Vec<OperatorChange>) -> io::Result<()> {
        self.change_with(changes, EventKind::Removed)
    }

    /// Changes entries, all or none. The changes are in force after the next [`StaticEntryStore::install`]. The events
    /// of removals have this kind.
    ///
    /// # Errors
    /// If static entries cannot be stored for the next start; then nothing changed.
    pub(crate) fn change_with(&mut self, changes: Vec<OperatorChange>, end: EventKind) -> io::Result<()> {
        let before: Vec<OperatorChange> = changes.into_iter().map(|change| self.put(change)).collect();
        if let Err(error) = self.store(&before) {
            before.into_iter().rev().for_each(|change| _ = self.put(change));
            return Err(error);
        }
        self.note_events(&before, end);
        self.is_installed = false;
        if let Some(recent) = self.recent.take().filter(|_| before.len() <= MOST_RECENT) {
            self.recent = before.into_iter().try_fold(recent, |recent, undo| self.with_change(recent, undo));
        }
        Ok(())
    }

    /// Notes the events of changes that `undo` would undo.
    fn note_events(&mut self, undo: &[OperatorChange], end: EventKind) {
        let mut changes = Collected::default();
        for OperatorChange { list, bounds, entry: before } in first_of_each(undo) {
            let until = |entry: &OperatorEntry| entry.until;
            let before = before.as_ref().map(until);
            let now = self.list(list).and_then(|entries| entries.get(bounds)).map(until);
            if before.flatten().or(now.flatten()).is_some() {
                self.timed_changes.push((list.clone(), *bounds));
            }
            if let Some(kind) = events::kind(before, now, end) {
                changes.push(kind, list, *bounds, now.or(before).flatten());
            }
        }
        self.unpublished.extend(changes.events());
    }

    /// The changes of entries with a timeout since the last call: their present state, or their end.
    pub(crate) fn take_timed_changes(&mut self) -> Vec<OperatorChange> {
        let changes = std::mem::take(&mut self.timed_changes).into_iter().map(|(list, bounds)| {
            let entry = self.list(&list).and_then(|entries| entries.get(&bounds));
            let entry = entry.filter(|entry| entry.until.is_some()).cloned();
            OperatorChange { list, bounds, entry }
        });
        changes.collect()
    }

    /// Publishes the events of changes that are in force.
    pub(crate) fn publish(&mut self, lists: &Lists, now: Time) {
        if self.is_installed {
            events::publish(std::mem::take(&mut self.unpublished), lists, now);
        }
    }

    /// Adds a change that was made to the recent changes; `None` if there are too many.
    fn with_change(&self, mut recent: Recent, undo: OperatorChange) -> Option<Recent> {
        let OperatorChange { list, bounds, entry: before } = undo;
        let entries = self.lists.get(&list);
        let now = entries.and_then(|entries| entries.entries.get(&bounds)).map(|entry| entry.until);
        match (before.map(|before| before.until), now) {
            (None, None) => {}
            (None, Some(until)) => recent.add((list, bounds), until),
            // Only the comment changed.
            (Some(before), Some(until)) if before == until => {}
            (Some(_), _) => {
                let mut overlapping = match entries {
                    Some(entries) => entries.overlapping(bounds, MOST_RECENT)?,
                    None => Vec::new(),
                };
                overlapping.extend(overlapping_names(&self.names, &list, bounds));
                recent.replace((list, bounds), overlapping);
            }
        }
        Some(recent).filter(|recent| recent.len() <= MOST_RECENT)
    }

    /// Makes a change and returns the one that undoes it.
    fn put(&mut self, OperatorChange { list, bounds, entry }: OperatorChange) -> OperatorChange {
        if let Some(until) = entry.as_ref().and_then(|entry| entry.until) {
            self.next_expiry = self.next_expiry.min(until);
        }
        self.live_bytes += entry.as_ref().map_or(0, OperatorEntry::stored_bytes);
        let before = match entry {
            Some(entry) => match self.lists.get_mut(&list) {
                Some(entries) => entries.insert(bounds, entry),
                None => {
                    self.live_bytes += list_bytes(&list);
                    self.lists.entry(list.clone()).or_default().insert(bounds, entry)
                }
            },
            None => self.lists.get_mut(&list).and_then(|entries| entries.entries.remove(&bounds)),
        };
        self.live_bytes -= before.as_ref().map_or(0, OperatorEntry::stored_bytes);
        if self.lists.get(&list).is_some_and(|entries| entries.entries.is_empty()) {
            self.live_bytes -= list_bytes(&list);
            self.lists.remove(&list);
        }
        OperatorChange { list, bounds, entry: before }
    }

    /// Stores the static entries that `undo` would change.
    fn store(&mut self, undo: &[OperatorChange]) -> io::Result<()> {
        let mut content = Content::default();
        for OperatorChange { list, bounds, entry: before } in first_of_each(undo) {
            let is_static = |entry: &&OperatorEntry| entry.until.is_none();
            let now = self.list(list).and_then(|entries| entries.get(bounds)).filter(is_static);
            match (before.as_ref().filter(is_static), now) {
                (Some(before), None) => content.push(list, &before.set, None),
                (None, None) => {}
                (before, Some(now)) if before == Some(now) => {}
                (_, Some(now)) => content.push(list, &now.set, Some(&now.comment)),
            }
        }
        if content.len() == 0 {
            return Ok(());
        }
        let record = content.into_record();
        if self.log.is_broken() { self.write_anew() } else { self.log.append(&record) }
    }

    fn write_anew(&mut self) -> io::Result<()> {
        let lists = self.lists.iter();
        let entries = lists.flat_map(|(name, list)| list.entries.values().map(move |entry| (name.as_str(), entry)));
        let entries = entries.filter(|(_, entry)| entry.until.is_none());
        self.log.replace(snapshot(entries.map(|(name, entry)| (name, &entry.set, entry.comment.as_str()))))
    }

    /// Rewrites the file if more than half of it is out of date. A failure is logged: the file continues to grow, and
    /// the next attempt follows when its size has doubled.
    pub(crate) fn compact(&mut self) {
        let length = self.log.length();
        if self.log.is_broken() || length < self.next_compaction.max(2 * self.live_bytes + FEW_BYTES) {
            return;
        }
        self.next_compaction = 0;
        if let Err(error) = self.write_anew() {
            tracing::warn!("{} cannot be written anew, and goes on to grow: {error}", self.path().display());
            self.next_compaction = 2 * length;
        }
    }

    /// Removes expired entries. Returns whether there were any. Expired entries are not in force: this call only frees
    /// their memory, and the engine frees theirs when it compiles all entries again.
    pub(crate) fn expire(&mut self, now: Time) -> bool {
        if now < self.next_expiry {
            return false;
        }
        let mut expired = Collected::default();
        for (name, list) in &mut self.lists {
            list.entries.retain(|bounds, entry| {
                let is_live = entry.until.is_none_or(|until| now < until);
                if !is_live {
                    expired.push(EventKind::Expired, name, *bounds, entry.until);
                    self.timed_changes.push((name.clone(), *bounds));
                }
                is_live
            });
        }
        self.unpublished.extend(expired.events());
        let live_bytes = &mut self.live_bytes;
        self.lists.retain(|name, list| {
            *live_bytes -= if list.entries.is_empty() { list_bytes(name) } else { 0 };
            !list.entries.is_empty()
        });
        let left = self.lists().flat_map(|(_, entries)| entries.values()).filter_map(|entry| entry.until);
        self.next_expiry = left.min().unwrap_or(Time::NEVER);
        true
    }

    /// The lists that have an entry.
    pub(crate) fn lists(&self) -> impl Iterator<Item = (&str, &BTreeMap<Bounds, OperatorEntry>)> {
        self.lists.iter().map(|(name, list)| (name.as_str(), &list.entries))
    }

    /// The number of entries.
    pub(crate) fn number(&self) -> usize {
        self.lists().map(|(_, entries)| entries.len()).sum()
    }

    /// The entries of a list.
    pub(crate) fn list(&self, name: &str) -> Option<&BTreeMap<Bounds, OperatorEntry>> {
        self.lists.get(name).map(|list| &list.entries)
    }

    /// The path of the file, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.log.path()
    }

    /// Damage of the file that the start found and that lost entries.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
}

/// The first change of each entry, in the order of entries: it undoes all changes of the entry.
fn first_of_each(undo: &[OperatorChange]) -> Vec<&OperatorChange> {
    let mut changes: Vec<&OperatorChange> = undo.iter().collect();
    // A stable sort.
    changes.sort_by(|one, other| (&one.list, one.bounds).cmp(&(&other.list, other.bounds)));
    changes.dedup_by(|later, first| (&later.list, later.bounds) == (&first.list, first.bounds));
    changes
}

/// Entries of host names in the form of the engine. The engine has their lists already, because rules name them.
fn of_names<'n>(lists: &'n Lists, names: &'n [NameEntry]) -> impl Iterator<Item = (ListId, Bounds, Option<Time>)> + 'n {
    names.iter().filter_map(|entry| Some((lists.id(&entry.list)?, entry.bounds, entry.until)))
}

/// Records that contain these entries, which are in order.
fn snapshot<'e>(entries: impl Iterator<Item = (&'e str, &'e AddressSet, &'e str)>) -> impl Iterator<Item = Record> {
    let mut entries = entries.peekable();
    std::iter::from_fn(move || {
        entries.peek()?;
        let mut content = Content::default();
        while content.len() < SNAPSHOT_RECORD
            && let Some((list, set, comment)) = entries.next()
        {
            content.push(list, set, Some(comment));
        }
        Some(content.into_record())
    })
}

#[cfg(test)]
mod tests;
