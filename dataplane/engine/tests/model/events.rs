//! Models of events: writers that take a number and a slot, and a subscriber that is too slow.

use std::collections::BTreeMap;

use knockplane_policy::event::{EventKind, Gap, Origin};
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;
use shuttle::sync::Arc;
use shuttle::thread;

use super::{OTHER, SOURCE, at};
use crate::state::events::ring::{Cursor, EventRing, Received};
use crate::state::events::{EventEntry, EventRoom, ListEvent};
use crate::state::lists::{Changed, ListId, Lists};

/// An event with the same number in several fields, so that the model detects a torn event.
fn event(number: u64) -> ListEvent {
    let entry = EventEntry {
        list: ListId(0),
        level: 1,
        address: SOURCE,
        last: None,
        is_static: false,
        by_network: false,
        vlan: Vlan::NONE,
        peer_tag: number as u32,
        peer: None,
        step: 0,
        origin: Origin::Packet,
        since: at(number),
        expiry: at(number),
    };
    ListEvent { kind: EventKind::Listed, entry, cause: None, at: at(number) }
}

/// Reads once, and checks that the received number is the next one.
fn receive(ring: &EventRing, cursor: &mut Cursor) -> Option<Received> {
    let next = cursor.last() + 1;
    let received = ring.receive(cursor);
    match received {
        Some(Received::Event(number, read)) => {
            assert_eq!(number, next, "numbers have no gap");
            assert_eq!(read, event(read.at.as_nanos()), "it is not torn");
        }
        Some(Received::Gap(Gap { first, last })) => assert!(first == next && last >= first, "the gap is exact"),
        None => {}
    }
    received
}

/// Two writers of one event each, and a subscriber that reads `reads` times meanwhile. In the end, the subscriber has
/// received all events, or a gap for the events that it missed.
fn write_and_read(slots: usize, reads: usize) {
    let ring = Arc::new(EventRing::new(slots).expect("little memory"));
    let writers = [10, 20].map(|written| {
        let ring = Arc::clone(&ring);
        thread::spawn(move || (ring.push(event(written)), written))
    });
    let mut cursor = Cursor::after(0);
    let mut received: Vec<_> = (0..reads).filter_map(|_| receive(&ring, &mut cursor)).collect();
    let written: BTreeMap<u64, u64> = writers.map(|writer| writer.join().expect("no panic")).into_iter().collect();
    received.extend(std::iter::from_fn(|| receive(&ring, &mut cursor)));
    assert_eq!(cursor.last(), 2, "all numbers were read or missed");
    assert_eq!(written.len(), 2, "each number is of one event");
    for received in received {
        if let Received::Event(number, event) = received {
            assert_eq!(written[&number], event.at.as_nanos(), "under its number");
        }
    }
}

pub(super) fn a_ring_with_room() {
    write_and_read(4, 2);
}

pub(super) fn a_ring_that_is_too_small() {
    write_and_read(1, 2);
}

/// A subscriber that keeps the addresses in the lists, and the numbers of their last changes.
#[derive(Default)]
struct Follower {
    next: u64,
    numbers: BTreeMap<std::net::IpAddr, u64>,
}

impl Follower {
    fn apply(&mut self, changed: Changed) {
        match changed {
            Changed::Ended(_, event) => _ = self.numbers.remove(&event.entry.address),
            Changed::Entry(number, entry) => _ = self.numbers.insert(entry.address, number),
        }
    }

    fn read_changes(&mut self, lists: &Lists, since: u64) -> bool {
        let mut changes = Vec::new();
        let is_complete = lists.changes_since(since, |changed| changes.push(changed)).is_some();
        if is_complete {
            changes.into_iter().for_each(|changed| self.apply(changed));
        }
        is_complete
    }

    /// Reads once. Returns whether there was an event.
    fn follow(&mut self, lists: &Lists) -> bool {
        let mut cursor = Cursor::after(self.next);
        match lists.receive(&mut cursor) {
            Some(Received::Event(number, event)) => self.apply(match event.kind.is_end() {
                true => Changed::Ended(number, event),
                false => Changed::Entry(number, event.entry),
            }),
            Some(Received::Gap(gap)) => {
                if !self.read_changes(lists, gap.first - 1) {
                    self.numbers.clear();
                    assert!(self.read_changes(lists, 0));
                }
            }
            None => return false,
        }
        self.next = cursor.last();
        true
    }
}

/// Two threads change lists of these sizes, and one of them reads events in between. In the end, its entries equal
/// those of the lists.
fn follow(
    room: EventRoom,
    capacity: usize,
    before: fn(&Lists, ListId),
    one: fn(&Lists, ListId),
    other: fn(&Lists, ListId),
) {
    let lists = Arc::new(Lists::with_room(capacity, [1, 2], room).expect("little memory"));
    let list = lists.bind("list", 1).expect("room for one");
    before(&lists, list);
    let mine = Arc::clone(&lists);
    let changer = thread::spawn(move || one(&mine, list));
    let mut follower = Follower::default();
    follower.follow(&lists);
    other(&lists, list);
    follower.follow(&lists);
    changer.join().expect("no panic");
    while follower.follow(&lists) {}
    assert_eq!(follower.next, lists.last_event());
    let mut state = Follower::default();
    assert!(state.read_changes(&lists, 0));
    assert_eq!(follower.numbers, state.numbers, "the entries, and the numbers of their last changes");
}

const TIME: Time = Time::from_nanos(1);

fn add(lists: &Lists, list: ListId) {
    lists.add(list, SOURCE, at(100), TIME);
}

fn remove(lists: &Lists, list: ListId) {
    lists.remove(list, SOURCE, TIME);
}

fn add_other(lists: &Lists, list: ListId) {
    lists.add(list, OTHER, at(100), TIME);
}

pub(super) fn one_entry_is_followed() {
    follow(EventRoom { ring: 4, removals: 2 }, 4, |_, _| {}, add, remove);
}

pub(super) fn one_entry_is_followed_with_gaps() {
    follow(EventRoom { ring: 1, removals: 1 }, 4, add, remove, add);
}

pub(super) fn eviction_is_followed_with_gaps() {
    follow(EventRoom { ring: 1, removals: 1 }, 1, add, add_other, remove);
}

pub(super) fn forgotten_removals_are_read_anew() {
    follow(EventRoom { ring: 1, removals: 0 }, 4, add, remove, add_other);
}
