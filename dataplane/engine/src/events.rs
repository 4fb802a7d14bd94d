//! What must leave the worker: small events in a bounded queue to the manager.
//!
//! A worker never waits for the manager. When the queue is full, an event is dropped and counted; nothing about
//! packets depends on events.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use knockplane_policy::door::What;
use knockplane_policy::eval::log::Entry;
use knockplane_policy::time::Time;

use crate::lists::{Gone, ListId};

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An address got into a list that it was not in, and that takes more than a first step. Refreshed timeouts are not
    /// told.
    Listed {
        /// The list.
        list: ListId,
        /// The list's level: how many earlier proofs it takes to get in.
        level: u8,
        /// The address.
        address: IpAddr,
        /// When it leaves the list, if it is not added again.
        expiry: Time,
    },
    /// An entry that took more than a first step to get is gone, and not by request.
    Gone(Gone),
    /// A door was opened or closed by a knock.
    Door {
        /// Its open list.
        open: ListId,
        /// Who knocked.
        source: IpAddr,
        /// What was knocked at.
        destination: IpAddr,
        /// [`What::Opened`] or [`What::Closed`].
        what: What,
    },
    /// A packet matched a rule that logs.
    Logged {
        /// The number of the table that the rule is of, see [`Table::number`](crate::table::Table::number).
        table: u32,
        /// The rule's position among the declared ones.
        rule: u32,
        /// What is told of the packet.
        entry: Entry,
    },
}

/// The queue from workers to the manager. When full, new events are dropped.
pub struct EventQueue {
    events: ArrayQueue<Event>,
    lost: AtomicU64,
}

impl EventQueue {
    /// An empty queue with room for `capacity` events, at least one.
    pub fn new(capacity: usize) -> EventQueue {
        EventQueue { events: ArrayQueue::new(capacity.max(1)), lost: AtomicU64::new(0) }
    }

    /// Appends an event, or counts it as lost.
    pub fn push(&self, event: Event) {
        if self.events.push(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the oldest event.
    pub fn pop(&self) -> Option<Event> {
        self.events.pop()
    }

    /// Takes the oldest events away unseen, and counts them as lost: `count` of them at most.
    pub fn discard(&self, count: usize) {
        let lost = (0..count).take_while(|_| self.events.pop().is_some()).count();
        self.lost.fetch_add(lost as u64, Ordering::Relaxed);
    }

    /// How many events did not fit since start, or were discarded.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_loses_the_newest_and_counts_it() {
        let queue = EventQueue::new(1);
        let event = |address| Event::Listed { list: ListId(0), level: 0, address, expiry: Time::NEVER };
        let [first, second] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|octets| event(IpAddr::from(octets)));
        queue.push(first);
        queue.push(second);
        assert_eq!((queue.pop(), queue.pop(), queue.lost()), (Some(first), None, 1));
    }
}
