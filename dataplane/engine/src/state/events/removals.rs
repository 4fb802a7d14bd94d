//! The last removals of a shard, for subscribers that have a gap: an entry that is in no list any more cannot say that it
//! changed. Bounded; the oldest is forgotten, and the record knows how far back it reaches.

use std::collections::VecDeque;

use super::ListEvent;

/// See the module.
pub(crate) struct Removals {
    /// Allocated whole, so that nothing is allocated under the lock of a shard.
    events: VecDeque<(u64, ListEvent)>,
    room: usize,
    /// The number of the last one that was forgotten; 0 for none.
    forgotten: u64,
}

impl Removals {
    /// With room for so many; none if there is no memory for it.
    pub(crate) fn new(room: usize) -> Option<Removals> {
        let mut events = VecDeque::new();
        events.try_reserve_exact(room).ok()?;
        Some(Removals { events, room, forgotten: 0 })
    }

    /// Remembers a removal. Numbers rise.
    pub(crate) fn push(&mut self, number: u64, event: ListEvent) {
        if self.events.len() == self.room {
            self.forgotten = self.events.pop_front().map_or(number, |(oldest, _)| oldest);
        }
        if self.room > 0 {
            self.events.push_back((number, event));
        }
    }

    /// The removals after this number; `None` if some of them were forgotten.
    pub(crate) fn since(&self, number: u64) -> Option<impl Iterator<Item = (u64, ListEvent)>> {
        (self.forgotten <= number).then(|| self.events.iter().copied().filter(move |(other, _)| *other > number))
    }
}
