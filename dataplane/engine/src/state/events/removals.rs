//! The last removals of a shard, for subscribers that have a gap: an entry that was removed does not contain the number
//! of its last change any more. The record is bounded: a new removal replaces the oldest one. The record contains the
//! number of the last removal that it has dropped. Another such record contains the last changes of static entries,
//! which do not contain the number of their last change either.

use std::collections::VecDeque;

use super::ListEvent;

/// The last removals of a shard, or the last changes of static entries.
pub(crate) struct Removals {
    /// Allocated at start, so that no allocation happens under the lock of a shard.
    events: VecDeque<(u64, ListEvent)>,
    room: usize,
    /// The number of the last removal that was dropped; 0 for none.
    forgotten: u64,
}

impl Removals {
    /// Creates a record for this number of removals; `None` if memory does not suffice.
    pub(crate) fn new(room: usize) -> Option<Removals> {
        let mut events = VecDeque::new();
        events.try_reserve_exact(room).ok()?;
        Some(Removals { events, room, forgotten: 0 })
    }

    /// Adds a removal. Its number is higher than those of earlier removals.
    pub(crate) fn push(&mut self, number: u64, event: ListEvent) {
        if self.events.len() == self.room {
            self.forgotten = self.events.pop_front().map_or(number, |(oldest, _)| oldest);
        }
        if self.room > 0 {
            self.events.push_back((number, event));
        }
    }

    /// Drops all removals up to this number.
    pub(crate) fn forget(&mut self, number: u64) {
        self.events.clear();
        self.forgotten = number;
    }

    /// The removals after this number; `None` if some of them were dropped.
    pub(crate) fn since(&self, number: u64) -> Option<impl Iterator<Item = (u64, ListEvent)>> {
        (self.forgotten <= number).then(|| self.events.iter().copied().filter(move |(other, _)| *other > number))
    }
}
