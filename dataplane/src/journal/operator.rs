//! Entries of operators whose terms no event contains: prefixes and ranges with a timeout, and the comments of addresses
//! with one.
//!
//! The administration reports each change before it publishes the event. So a writer that has received the event also
//! finds the change.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::static_entries::{Bounds, OperatorChange, OperatorEntry};

/// A list, and the first and the last address.
pub(super) type OperatorKey = (String, Bounds);

/// The present entries, and those whose last change is not in the file. An entry of one address has only a comment: its
/// expiry is that of the lists.
#[derive(Debug, Default)]
pub(super) struct OperatorEntries {
    present: BTreeMap<OperatorKey, OperatorEntry>,
    /// The number of the last change, by entry.
    changed: BTreeMap<OperatorKey, u64>,
    /// The number of the last change of all.
    last: u64,
}

impl OperatorEntries {
    pub(super) fn new(entries: &[(String, OperatorEntry)]) -> OperatorEntries {
        let present = entries.iter().map(|(list, entry)| ((list.clone(), entry.set.bounds()), entry.clone()));
        OperatorEntries { present: present.collect(), ..OperatorEntries::default() }
    }

    pub(super) fn change(&mut self, change: OperatorChange) {
        let OperatorChange { list, bounds, entry } = change;
        let key = (list, bounds);
        if self.present.get(&key) == entry.as_ref() {
            return;
        }
        match entry {
            Some(entry) => _ = self.present.insert(key.clone(), entry),
            None => _ = self.present.remove(&key),
        }
        self.last += 1;
        self.changed.insert(key, self.last);
    }

    /// The number of the last change.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The changes that are not in the file: the present entries, or their removal.
    pub(super) fn changes(&self) -> Vec<OperatorChange> {
        self.changed.keys().map(|key| change(key, self.present.get(key))).collect()
    }

    /// The present entries after this one, at most `count`.
    pub(super) fn after(&self, key: Option<&OperatorKey>, count: usize) -> Vec<OperatorChange> {
        let begin = key.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.present.range((begin, Bound::Unbounded)).take(count);
        entries.map(|(key, entry)| change(key, Some(entry))).collect()
    }

    /// Notes that the file has the changes up to this number.
    pub(super) fn are_stored(&mut self, through: u64) {
        self.changed.retain(|_, number| *number > through);
    }
}

fn change((list, bounds): &OperatorKey, entry: Option<&OperatorEntry>) -> OperatorChange {
    OperatorChange { list: list.clone(), bounds: *bounds, entry: entry.cloned() }
}

#[cfg(test)]
mod tests {
    use knockplane_policy::rule::AddressSet;

    use super::*;

    #[test]
    fn a_change_during_a_write_is_in_the_next_one() {
        let change = |comment: Option<&str>| {
            let set: AddressSet = "192.0.2.1".parse().unwrap();
            let bounds = set.bounds();
            let entry = comment.map(|comment| OperatorEntry { set, comment: comment.to_owned(), until: None });
            OperatorChange { list: "friends".to_owned(), bounds, entry }
        };
        let mut entries = OperatorEntries::default();
        let comments = |entries: &OperatorEntries| -> Vec<_> {
            entries.changes().into_iter().map(|change| change.entry.map(|entry| entry.comment)).collect()
        };
        entries.change(change(None));
        assert!(comments(&entries).is_empty(), "there was no comment");
        entries.change(change(Some("Ada")));
        let written = entries.last();
        entries.change(change(Some("Bob")));
        entries.are_stored(written);
        assert_eq!(comments(&entries), [Some("Bob".to_owned())]);
        entries.change(change(None));
        assert_eq!(comments(&entries), [None]);
        entries.are_stored(entries.last());
        assert!(comments(&entries).is_empty());
    }
}
