//! What must leave the worker: small events in bounded queues to the manager.
//!
//! A worker never waits for the manager. When a queue is full, an event is dropped and counted; nothing about packets
//! depends on events. Each kind of event has a queue of its own, so that none displaces another: a flood of packets that
//! rules log fills its own queue alone.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use knockplane_policy::door::What;
use knockplane_policy::eval::log::LoggedPacket;
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use crate::state::lists::{EndedEntry, ListId};

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
        /// The only VLAN that it counts in; [`Vlan::NONE`] if it counts in all.
        vlan: Vlan,
        /// The address.
        address: IpAddr,
        /// When it leaves the list, if it is not added again.
        expiry: Time,
    },
    /// A grant, or another entry that took more than a first step to get, is gone, and not by request.
    Gone(EndedEntry),
    /// A door was opened or closed by a knock.
    Door {
        /// Its open list.
        open: ListId,
        /// The VLAN of the packet, whatever the settings say of VLANs.
        vlan: Vlan,
        /// Who knocked.
        source: IpAddr,
        /// What was knocked at.
        destination: IpAddr,
        /// [`What::Opened`] or [`What::Closed`].
        what: What,
    },
    /// A packet matched a rule that logs.
    Logged {
        /// The number of the table that the rule is of, see `Table::number`.
        table: u32,
        /// The rule's position among the declared ones.
        rule: u32,
        /// What is told of the packet.
        entry: LoggedPacket,
    },
}

/// A kind of event, which has a queue of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// [`Event::Door`], and [`Event::Gone`] of a grant.
    Door,
    /// [`Event::Listed`], and [`Event::Gone`] of other entries.
    List,
    /// [`Event::Logged`].
    Packet,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [EventKind; 3] = [EventKind::Door, EventKind::List, EventKind::Packet];
}

impl Event {
    /// The kind of the event.
    pub const fn kind(&self) -> EventKind {
        match self {
            Event::Door { .. } => EventKind::Door,
            Event::Gone(gone) if gone.is_grant => EventKind::Door,
            Event::Listed { .. } | Event::Gone(_) => EventKind::List,
            Event::Logged { .. } => EventKind::Packet,
        }
    }
}

/// The queues from workers to the manager. When one is full, its new events are dropped.
pub struct EventQueues {
    queues: [ArrayQueue<Event>; EventKind::ALL.len()],
    lost: [AtomicU64; EventKind::ALL.len()],
}

impl EventQueues {
    /// Empty queues with room for `capacity` events each, at least one.
    pub fn new(capacity: usize) -> EventQueues {
        EventQueues {
            queues: EventKind::ALL.map(|_| ArrayQueue::new(capacity.max(1))),
            lost: EventKind::ALL.map(|_| AtomicU64::new(0)),
        }
    }

    /// Appends an event, or counts it as lost. Whether there was room.
    #[inline]
    pub fn push(&self, event: Event) -> bool {
        let kind = event.kind();
        let fits = self.queues[kind as usize].push(event).is_ok();
        if !fits {
            self.count_lost(kind, 1);
        }
        fits
    }

    /// Takes the oldest event of this kind.
    pub fn pop(&self, kind: EventKind) -> Option<Event> {
        self.queues[kind as usize].pop()
    }

    /// Counts events as lost that were taken and that nobody is told of.
    pub fn count_lost(&self, kind: EventKind, events: u64) {
        self.lost[kind as usize].fetch_add(events, Ordering::Relaxed);
    }

    /// How many events of this kind were lost since start.
    pub fn lost(&self, kind: EventKind) -> u64 {
        self.lost[kind as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use knockplane_policy::door::What;

    use super::*;

    fn listed(last: u8) -> Event {
        let address = IpAddr::from([192, 0, 2, last]);
        Event::Listed { list: ListId(0), level: 0, vlan: Vlan::NONE, address, expiry: Time::NEVER }
    }

    fn door() -> Event {
        let [source, destination] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        Event::Door { open: ListId(0), vlan: Vlan::NONE, source, destination, what: What::Opened }
    }

    #[test]
    fn a_full_queue_loses_the_newest_and_counts_it_and_other_kinds_have_room() {
        let queues = EventQueues::new(1);
        assert!(queues.push(listed(1)) && !queues.push(listed(2)));
        assert!(queues.push(door()));
        assert_eq!(queues.pop(EventKind::List), Some(listed(1)));
        assert_eq!(queues.pop(EventKind::List), None);
        assert_eq!(queues.pop(EventKind::Door), Some(door()));
        assert_eq!(EventKind::ALL.map(|kind| queues.lost(kind)), [0, 1, 0]);
        queues.count_lost(EventKind::Packet, 3);
        assert_eq!(queues.lost(EventKind::Packet), 3);
    }
}
