//! Subscribing to the events of entries, and reading what changed since one of them.

use knockplane_policy::event::StartId;

use super::{Lists, STEP, lock};
use crate::state::events::ring::{Cursor, Received};
use crate::state::events::{EventEntry, ListEvent};

/// What a subscriber that has a gap reads from the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// An entry that ended. The number of that event, and the event.
    Ended(u64, ListEvent),
    /// An entry as it is now. The number of its last event.
    Entry(u64, EventEntry),
}

impl Lists {
    /// The id of this start: event numbers mean nothing to another one.
    pub const fn start_id(&self) -> StartId {
        self.start
    }

    /// The number of the last event; 0 if there was none.
    pub fn last_event(&self) -> u64 {
        self.events.last()
    }

    /// The next event for a subscriber, or the gap in its place; `None` if there is nothing yet. No subscriber makes another
    /// one, or a writer, wait.
    pub fn receive(&self, cursor: &mut Cursor) -> Option<Received> {
        self.events.receive(cursor)
    }

    /// Shows what changed after the event of this number: of each part of the lists the entries that ended first, then those
    /// that there are. Returns the number up to which that is complete. Who applies it in this order, and then all events
    /// after that number, has exactly the entries above a first step that the lists have.
    ///
    /// `None` if the lists do not remember removals so far back: then all that was shown is to be forgotten, and everything to
    /// be read, with 0, which always succeeds and shows all entries.
    ///
    /// Workers go on meanwhile, so later changes may be shown as well. A refresh that is no event (see
    /// `EventKind::Refreshed`) is no change, but an entry that is shown has its true expiry.
    pub fn changes_since(&self, number: u64, mut visitor: impl FnMut(Changed)) -> Option<u64> {
        let through = self.events.last();
        let mut found = Vec::with_capacity(STEP as usize);
        for shard in &self.shards {
            // Nothing ended before the first event, as far as a subscriber can know.
            if number > 0 {
                found.extend(
                    lock(&shard.shard).removals_since(number)?.map(|(number, event)| Changed::Ended(number, event)),
                );
                found.drain(..).for_each(&mut visitor);
            }
            let mut next = Some(0);
            while let Some(begin) = next {
                let show = |number, entry| found.push(Changed::Entry(number, entry));
                next = lock(&shard.shard).changed_since(number, (begin, STEP), show);
                // Shown when the lock is free again.
                found.drain(..).for_each(&mut visitor);
            }
        }
        Some(through)
    }
}
