//! Events of static entries: one for each changed entry, or a few for a change of many.
//!
//! An import of a million entries must not displace the events of packets from the ring of events. If one command changes
//! more than [`MOST_EVENTS`] entries, there is one event for each list and family, which contains the first and the last
//! changed address. A reader of events then reads the static entries of the list.

use std::collections::BTreeMap;

use knockplane_engine::state::lists::{Lists, StaticChange};
use knockplane_policy::event::EventKind;
use knockplane_policy::time::Time;

use super::Bounds;

/// The maximum number of entries of a command that have an event each: a small part of the 16,384 events of the ring.
pub(super) const MOST_EVENTS: usize = 256;

/// A change that is not published yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryChange {
    pub(super) kind: EventKind,
    pub(super) list: String,
    pub(super) bounds: Bounds,
    pub(super) until: Option<Time>,
}

/// The kind of a change between two expiries; each is `None` if the list does not contain the entry. `end` is the kind of
/// a removal.
pub(super) fn kind(before: Option<Option<Time>>, now: Option<Option<Time>>, end: EventKind) -> Option<EventKind> {
    match (before, now) {
        (None, Some(_)) => Some(EventKind::Listed),
        (Some(_), None) => Some(end),
        (Some(before), Some(now)) if before != now => Some(EventKind::Refreshed),
        _ => None,
    }
}

/// The events for these changes of a command.
pub(super) fn summarized(changes: Vec<EntryChange>) -> Vec<EntryChange> {
    if changes.len() <= MOST_EVENTS {
        return changes;
    }
    let mut all = BTreeMap::<(String, bool), Bounds>::new();
    for EntryChange { list, bounds: (first, last), .. } in changes {
        let (begin, end) = all.entry((list, first.is_ipv6())).or_insert((first, last));
        (*begin, *end) = ((*begin).min(first), (*end).max(last));
    }
    let bulk = |((list, _), bounds)| EntryChange { kind: EventKind::Bulk, list, bounds, until: None };
    all.into_iter().map(bulk).collect()
}

/// Publishes the events. The engine has bound the lists already.
pub(super) fn publish(changes: Vec<EntryChange>, lists: &Lists, now: Time) {
    for EntryChange { kind, list, bounds, until } in changes {
        if let Some(list) = lists.id(&list) {
            lists.publish_static(StaticChange { kind, list, bounds, until }, now);
        }
    }
}
