//! Events of static entries: one for each changed entry, or a few for a change of many.
//!
//! An import of a million entries must not displace the events of packets from the ring of events. If one command
//! changes more than [`MOST_EVENTS`] entries, there is one event for each list and family, which contains the first and
//! the last changed address. A reader of events then reads the static entries of the list.

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

/// The kind of a change between two expiries; each is `None` if the list does not contain the entry. `end` is the kind
/// of a removal.
pub(super) fn kind(before: Option<Option<Time>>, now: Option<Option<Time>>, end: EventKind) -> Option<EventKind> {
    match (before, now) {
        (None, Some(_)) => Some(EventKind::Listed),
        (Some(_), None) => Some(end),
        (Some(before), Some(now)) if before != now => Some(EventKind::Refreshed),
        _ => None,
    }
}

/// The changes of a command, during collection. The memory does not depend on their number.
#[derive(Default)]
pub(super) struct Collected {
    number: usize,
    /// The first [`MOST_EVENTS`] changes.
    each: Vec<EntryChange>,
    /// The first and the last changed address of each list, for IPv4 and IPv6.
    all: BTreeMap<String, [Option<Bounds>; 2]>,
}

impl Collected {
    pub(super) fn push(&mut self, kind: EventKind, list: &str, bounds: Bounds, until: Option<Time>) {
        self.number += 1;
        if self.number <= MOST_EVENTS {
            self.each.push(EntryChange { kind, list: list.to_owned(), bounds, until });
        }
        if !self.all.contains_key(list) {
            self.all.insert(list.to_owned(), [None; 2]);
        }
        let family = self.all.get_mut(list).map(|families| &mut families[usize::from(bounds.0.is_ipv6())]);
        if let Some(all) = family {
            let (first, last) = all.unwrap_or(bounds);
            *all = Some((first.min(bounds.0), last.max(bounds.1)));
        }
    }

    /// The events.
    pub(super) fn events(self) -> Vec<EntryChange> {
        if self.number <= MOST_EVENTS {
            return self.each;
        }
        let of_list = |(list, families): (String, [Option<Bounds>; 2])| {
            let bulk = move |bounds| EntryChange { kind: EventKind::Bulk, list: list.clone(), bounds, until: None };
            families.into_iter().flatten().map(bulk)
        };
        self.all.into_iter().flat_map(of_list).collect()
    }
}

/// Publishes the events. The engine has bound the lists already.
pub(super) fn publish(changes: Vec<EntryChange>, lists: &Lists, now: Time) {
    for EntryChange { kind, list, bounds, until } in changes {
        if let Some(list) = lists.id(&list) {
            lists.publish_static(StaticChange { kind, list, bounds, until }, now);
        }
    }
}
