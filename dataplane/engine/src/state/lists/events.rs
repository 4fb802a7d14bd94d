//! Subscriptions to the events of entries, and reads of the changes since an event.

use knockplane_policy::event::StartId;

use super::{Lists, STEP, lock};
use crate::state::events::ring::{Cursor, Received};
use crate::state::events::{EventEntry, ListEvent};
use crate::state::lists::shard::SlotRange;

/// A change that a subscriber with a gap reads from the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// An entry that ended: the number of that event, and the event.
    Ended(u64, ListEvent),
    /// An entry in its present state: the number of its last event, and the entry.
    Entry(u64, EventEntry),
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

    /// Calls the visitor with the changes after the event of this number: for each part of the lists, first the entries
    /// that ended, then the present entries. Returns the number up to which these changes are complete. A subscriber
    /// that applies them in this order, and then all events after that number, has exactly the entries above a first
    /// step that the lists have.
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
