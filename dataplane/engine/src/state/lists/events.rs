//! Subscriptions to the events of entries, and reads of the changes since an event.

use std::net::IpAddr;
use std::sync::PoisonError;

use knockplane_policy::event::{EventKind, Origin, StartId};
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use super::{ListId, Lists, OPERATOR_LEVEL, STEP, lock};
use crate::state::events::ring::{Cursor, Received};
use crate::state::events::{Cause, EventEntry, ListEvent};
use crate::state::lists::shard::SlotRange;

/// A change that a subscriber with a gap reads from the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// An entry that ended: the number of that event, and the event.
    Ended(u64, ListEvent),
    /// An entry in its present state: the number of its last event, and the entry.
    Entry(u64, EventEntry),
}

/// A change of a static entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticChange {
    /// The change. With [`EventKind::Bulk`], many entries within `bounds` changed.
    pub kind: EventKind,
    /// The list.
    pub list: ListId,
    /// The first and the last address.
    pub bounds: (IpAddr, IpAddr),
    /// The expiry after the change; for an entry that ended, before it. `None` if the entry has no timeout.
    pub until: Option<Time>,
}

impl Lists {
    /// The id of this start. Event numbers are valid only together with this id.
    pub const fn start_id(&self) -> StartId {
        self.start
    }

    /// The number of the last event; 0 if there was none.
    pub fn last_event(&self) -> u64 {
        self.events.last()
    }

    /// The next event for a subscriber, or the gap in its place; `None` if there is no new event. A subscriber never
    /// delays another subscriber or a writer.
    pub fn receive(&self, cursor: &mut Cursor) -> Option<Received> {
        self.events.receive(cursor)
    }

    /// Publishes a change of a static entry by an operator, or its expiry, after the change is in force. Returns the
    /// number of the event.
    pub fn publish_static(&self, change: StaticChange, now: Time) -> u64 {
        let StaticChange { kind, list, bounds: (first, last), until } = change;
        let entry = EventEntry {
            list,
            level: OPERATOR_LEVEL,
            address: first,
            last: Some(last).filter(|last| *last != first),
            is_static: true,
            by_network: false,
            vlan: Vlan::NONE,
            peer_tag: 0,
            peer: None,
            step: 0,
            origin: Origin::Operator,
            since: now,
            expiry: until.unwrap_or(Time::NEVER),
        };
        let cause = (kind != EventKind::Expired).then_some(Cause::of(Origin::Operator));
        let event = ListEvent { kind, entry, cause, at: now };
        // Under the lock, so that the changes are in the order of their numbers.
        let mut changes = self.static_changes.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.events.push(event);
        match kind {
            EventKind::Bulk => changes.forget(number),
            _ => changes.push(number, event),
        }
        number
    }

    /// The events of static entries after this number; `None` if some of them are not kept, or if one is a
    /// [`EventKind::Bulk`]: the subscriber must then read all static entries, which their owner has.
    pub fn static_changes_since(&self, number: u64) -> Option<Vec<(u64, ListEvent)>> {
        let changes = self.static_changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.since(number).map(Iterator::collect)
    }

    /// Calls the visitor with the changes of dynamic entries after the event of this number: for each part of the
    /// lists, first the entries that ended, then the present entries. Returns the number up to which these changes are
    /// complete. A subscriber that applies them in this order, and then all events after that number, has exactly the
    /// dynamic entries above a first step that the lists have. [`Lists::static_changes_since`] has the changes of
    /// static entries.
    ///
    /// `None` if the lists no longer have the removals since this number. The subscriber must then discard all changes
    /// and read everything with 0, which always succeeds and visits all entries.
    ///
    /// Workers continue during the call, so the visitor may also see later changes. A refresh that is no event (see
    /// `EventKind::Refreshed`) is no change, but an entry that the visitor sees has its true expiry.
    pub fn changes_since(&self, number: u64, mut visitor: impl FnMut(Changed)) -> Option<u64> {
        let through = self.events.last();
        let mut found = Vec::with_capacity(STEP as usize);
        for shard in &self.shards {
            // For a subscriber, nothing ended before the first event.
            if number > 0 {
                found.extend(
                    lock(&shard.shard).removals_since(number)?.map(|(number, event)| Changed::Ended(number, event)),
                );
                found.drain(..).for_each(&mut visitor);
            }
            let mut next = Some(0);
            while let Some(begin) = next {
                let show = |number, entry| found.push(Changed::Entry(number, entry));
                next = lock(&shard.shard).changed_since(number, SlotRange { begin, count: STEP }, show);
                // The visitor runs without the lock.
                found.drain(..).for_each(&mut visitor);
            }
        }
        Some(through)
    }
}
