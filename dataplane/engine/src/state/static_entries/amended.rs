//! Compiled entries, and the changes since their compilation.
//!
//! A change of one among a million entries must not cost a compilation of all. Changed entries are compiled separately:
//!
//! ```text
//! compiled    all entries as of the last compilation
//! replaced    lists and addresses for which `compiled` does not count any more
//! recent      new entries, and for `replaced` all entries that are left
//! ```
//! A lookup finds the three parts behind one pointer, so it sees a change as a whole.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use knockplane_policy::time::Time;

use super::{Both, InLists, Ranges, StaticEntries};
use crate::state::key::AddressKey;
use crate::state::list_set::{ListId, ListSet};

/// Static entries with changes since their compilation.
pub(crate) struct AmendedEntries {
    compiled: Arc<StaticEntries>,
    /// `None` without changes since the compilation.
    changes: Option<Changes>,
}

struct Changes {
    recent: StaticEntries,
    /// `None` if all changes are additions.
    replaced: Option<Both<ListSet>>,
}

impl AmendedEntries {
    /// Entries without changes.
    pub(crate) fn new(entries: StaticEntries) -> AmendedEntries {
        AmendedEntries { compiled: Arc::new(entries), changes: None }
    }

    /// These entries with other changes, in place of the present changes.
    pub(crate) fn with_changes(
        &self,
        recent: StaticEntries,
        replaced: impl Iterator<Item = (ListId, (IpAddr, IpAddr))>,
    ) -> AmendedEntries {
        let mut replaced = replaced.peekable();
        let replaced = replaced.peek().is_some().then(|| {
            let mut ranges = Ranges::default();
            replaced.for_each(|(list, (first, last))| ranges.push(first, last, list));
            Both::build::<InLists>(ranges)
        });
        AmendedEntries { compiled: Arc::clone(&self.compiled), changes: Some(Changes { recent, replaced }) }
    }

    /// As [`StaticEntries::find`].
    pub(crate) fn find(&self, key: AddressKey, now: Time) -> (ListSet, Range<Time>) {
        let (mut set, mut time) = self.compiled.find(key, now);
        if let Some(changes) = &self.changes {
            changes.hide(key, &mut set);
            let (recent, recent_time) = changes.recent.find(key, now);
            set.insert_all(recent);
            // Entries that are hidden can make the period shorter than necessary, never longer.
            time = time.start.max(recent_time.start)..time.end.min(recent_time.end);
        }
        (set, time)
    }

    /// As [`StaticEntries::visit_networks`]: of all entries, or of the changes alone.
    pub(crate) fn visit_networks(&self, changes_alone: bool, mut visitor: impl FnMut(IpAddr, IpAddr)) {
        if !changes_alone || self.changes.is_none() {
            self.compiled.visit_networks(&mut visitor);
        }
        self.changes.iter().for_each(|changes| changes.recent.visit_networks(&mut visitor));
    }

    /// As [`StaticEntries::permanent`].
    pub(crate) fn permanent(&self, key: AddressKey) -> ListSet {
        let mut set = self.compiled.permanent(key);
        if let Some(changes) = &self.changes {
            changes.hide(key, &mut set);
            set.insert_all(changes.recent.permanent(key));
        }
        set
    }
}

impl Changes {
    /// Removes the lists whose compiled entries do not count for this address.
    fn hide(&self, key: AddressKey, set: &mut ListSet) {
        if let Some(replaced) = &self.replaced {
            set.remove_all(replaced.find(key));
        }
    }
}
