//! The ring of events: several writers and several subscribers. No writer waits for a subscriber.
//!
//! ```text
//! numbers      …  41   42   43   44   45 (last)
//! slots         [ 41 | 42 | 43 | 44 ][ 45 overwrites 41 ]
//!                      ▲ oldest that can still be read
//! ```
//!
//! A writer takes the next number. The number determines the slot, number modulo size, so the numbers have no gaps. The
//! writer then writes under the slot's lock, which another thread holds only while it copies one event. If the slot
//! contains a later event, other writers have overtaken this writer by a whole ring, and it leaves the later event in
//! place.
//!
//! A subscriber reads under the same lock, so it never reads a torn event. The slot contains the number, so a
//! subscriber never confuses two events. If the number in the slot is later than the wanted number, the subscriber
//! receives a gap with the numbers that it missed. If it is earlier, a writer has not finished the wanted event, and
//! the subscriber tries again later. The events and gaps that a subscriber receives are together all numbers, in order,
//! each once.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use knockplane_policy::event::Gap;

use super::ListEvent;
use crate::state::sync::{AtomicU64, Mutex, MutexGuard};

/// The ring of events.
pub(crate) struct EventRing {
    /// The last number taken; 0 for none.
    last: AtomicU64,
    slots: Box<[Mutex<EventSlot>]>,
}

struct EventSlot {
    /// 0 until the first write.
    number: u64,
    event: Option<ListEvent>,
}

/// The position of a subscriber in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    next: u64,
}

impl Cursor {
    /// A cursor for the events after this number.
    pub const fn after(number: u64) -> Cursor {
        Cursor { next: number + 1 }
    }

    /// The last number that was read or missed.
    pub const fn last(&self) -> u64 {
        self.next - 1
    }
}

/// The result of a read by a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The next event, and its number.
    Event(u64, ListEvent),
    /// Events that were overwritten before the subscriber read them.
    Gap(Gap),
}

impl EventRing {
    /// Creates an empty ring of at least this number of slots; `None` if memory does not suffice.
    pub(crate) fn new(slots: usize) -> Option<EventRing> {
        let count = slots.max(1).checked_next_power_of_two()?;
        let mut slots = Vec::new();
        slots.try_reserve_exact(count).ok()?;
        slots.extend((0..count).map(|_| Mutex::new(EventSlot { number: 0, event: None })));
        Some(EventRing { last: AtomicU64::new(0), slots: slots.into_boxed_slice() })
    }

    /// Publishes an event, and returns its number.
    pub(crate) fn push(&self, event: ListEvent) -> u64 {
        let number = self.last.fetch_add(1, Relaxed) + 1;
        let mut slot = self.slot(number);
        if slot.number < number {
            *slot = EventSlot { number, event: Some(event) };
        }
        number
    }

    /// The last number taken. The change of the entry with this number may be in progress, under the lock of its shard.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Acquire)
    }

    /// The next event or gap for a subscriber; `None` if there is none yet.
    pub(crate) fn receive(&self, cursor: &mut Cursor) -> Option<Received> {
        let (wanted, size) = (cursor.next, self.slots.len() as u64);
        let last = self.last();
        if wanted > last {
            return None;
        }
        let mut newest = last;
        if last - wanted < size {
            let slot = self.slot(wanted);
            if let Some(event) = slot.event.filter(|_| slot.number == wanted) {
                cursor.next = wanted + 1;
                return Some(Received::Event(wanted, event));
            }
            if slot.number < wanted {
                return None;
            }
            newest = slot.number;
        }
        // Events that are a whole ring older than the newest one are overwritten, or will be at once.
        let gap = Gap { first: wanted, last: newest - size };
        cursor.next = gap.last + 1;
        Some(Received::Gap(gap))
    }

    fn slot(&self, number: u64) -> MutexGuard<'_, EventSlot> {
        // The number of slots is a power of two.
        let slot = &self.slots[number as usize & (self.slots.len() - 1)];
        slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use knockplane_policy::event::{EventKind, Origin};
    use knockplane_policy::packet::Vlan;
    use knockplane_policy::time::Time;

    use super::*;
    use crate::state::events::EventEntry;
    use crate::state::list_set::ListId;

    /// An event that is recognized by its time.
    fn event(at: u64) -> ListEvent {
        let entry = EventEntry {
            list: ListId(0),
            level: 1,
            address: IpAddr::from([192, 0, 2, 1]),
            last: None,
            is_static: false,
            by_network: false,
            vlan: Vlan::NONE,
            peer_tag: 0,
            peer: None,
            step: 0,
            origin: Origin::Packet,
            since: Time::default(),
            expiry: Time::NEVER,
        };
        ListEvent { kind: EventKind::Listed, entry, cause: None, at: Time::from_nanos(at) }
    }

    #[test]
    fn subscribers_read_all_events_by_themselves() {
        let ring = EventRing::new(4).unwrap();
        let [mut first, mut second] = [Cursor::after(0); 2];
        assert_eq!(ring.receive(&mut first), None);
        for number in 1..=3 {
            assert_eq!(ring.push(event(number)), number);
            assert_eq!(ring.receive(&mut first), Some(Received::Event(number, event(number))));
        }
        let read: Vec<_> = std::iter::from_fn(|| ring.receive(&mut second)).collect();
        assert_eq!(read, [1, 2, 3].map(|number| Received::Event(number, event(number))));
    }

    #[test]
    fn a_slow_subscriber_gets_a_gap_and_then_the_rest() {
        let ring = EventRing::new(4).unwrap();
        let mut cursor = Cursor::after(0);
        (1..=7).for_each(|number| _ = ring.push(event(number)));
        assert_eq!(ring.receive(&mut cursor), Some(Received::Gap(Gap { first: 1, last: 3 })));
        let read: Vec<_> = std::iter::from_fn(|| ring.receive(&mut cursor)).collect();
        assert_eq!(read, [4, 5, 6, 7].map(|number| Received::Event(number, event(number))));
        assert_eq!(cursor.last(), 7);
    }

    #[test]
    fn four_writers_and_a_slow_subscriber_miss_nothing_silently() {
        const EACH: u64 = 20_000;
        let ring = EventRing::new(8).unwrap();
        let (mut next, mut gaps) = (1, 0);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let ring = &ring;
                scope.spawn(move || (0..EACH).for_each(|turn| _ = ring.push(event(writer * EACH + turn))));
            }
            let mut cursor = Cursor::after(0);
            let mut latest = [None; 4];
            while next <= 4 * EACH {
                match ring.receive(&mut cursor) {
                    Some(Received::Event(number, event)) => {
                        assert_eq!(number, next);
                        let at = event.at.as_nanos();
                        let latest = &mut latest[(at / EACH) as usize];
                        assert!(latest.is_none_or(|before| before < at), "a writer's events are in its order");
                        *latest = Some(at);
                        next += 1;
                    }
                    Some(Received::Gap(gap)) => {
                        assert!(gap.first == next && gap.last >= next, "{gap:?} at {next}");
                        next = gap.last + 1;
                        gaps += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
            assert_eq!(ring.receive(&mut cursor), None);
        });
        assert_eq!((next, ring.last()), (4 * EACH + 1, 4 * EACH));
        assert!(gaps > 0, "the ring is small");
    }
}
