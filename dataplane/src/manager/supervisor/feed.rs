//! The answer to a reader of events outside this process.
//!
//! The reader sends its position with each request, so no state of it is kept. It gets the events up to the last one that
//! the log has read, so that the ids of logged packets are in order with the ids of events. A reader with a gap makes the
//! manager read all slots of the lists, so this happens at most once a second for all readers together.

use std::sync::atomic::Ordering::Relaxed;

use knockplane_engine::state::events::ring::{Cursor, Received};
use knockplane_policy::event::Gap;
use knockplane_policy::time::Time;
use knockplane_policy::wire::events::{EventBatch, EventItem, EventQuery, MAX_EVENTS, MAX_FOUND_EVENTS};

use super::Supervisor;
use super::event_names::EventNames;
use super::events::{MissedEvents, RECOVERY, missed_changes};

impl Supervisor {
    /// The events after the position of a reader.
    pub(in crate::manager) fn events(&mut self, query: &EventQuery) -> EventBatch {
        let lists = &self.shared.state.lists;
        let (start, last) = (lists.start_id(), self.event_log.last());
        // The generations are read after the number of the last event, as for the log.
        let generations = self.generations();
        let now = self.shared.clock.now();
        let names = EventNames { lists, generations: &generations, now, wall: self.shared.wall.load(Relaxed) };
        let is_same = query.start == start;
        let position = |number: u64| if is_same { number } else { 0 };
        let mut cursor = Cursor::after(position(query.after));
        let mut read = if is_same { Time::from_nanos(query.after_ns) } else { Time::default() };
        let (mut items, mut more) = (Vec::new(), false);
        while cursor.last() < last {
            if items.len() >= MAX_EVENTS {
                more = true;
                break;
            }
            match lists.receive(&mut cursor) {
                Some(Received::Event(number, event)) => {
                    read = event.at;
                    items.push(EventItem::Event(Box::new(names.published(number, &event))));
                }
                Some(Received::Gap(missed)) if !query.recover => items.push(EventItem::Gap { missed, found: 0 }),
                // The reader repeats its request.
                Some(Received::Gap(_)) if now < self.next_recovery => break,
                Some(Received::Gap(missed)) => {
                    self.next_recovery = now + RECOVERY;
                    let mut missed = Gap { last: missed.last.min(last), ..missed };
                    let gaps = [MissedEvents { gap: missed, after: read }];
                    let mut found = missed_changes(lists, &gaps, MAX_FOUND_EVENTS + 1);
                    if found.len() > MAX_FOUND_EVENTS {
                        found.pop_last();
                        missed.last = found.last_key_value().map_or(missed.last, |(number, _)| *number);
                    } else {
                        read = found.values().map(|event| event.at).max().map_or(read, |latest| latest.max(read));
                    }
                    cursor = Cursor::after(missed.last);
                    items.push(EventItem::Gap { missed, found: found.len() as u64 });
                    let published = |(number, event)| EventItem::Event(Box::new(names.published(number, &event)));
                    items.extend(found.into_iter().map(published));
                }
                None => break,
            }
        }
        let (totals, stamp) = match query.packets_after {
            Some(_) => self.packet_feed.totals_since(position(query.stamp)),
            None => (Vec::new(), 0),
        };
        EventBatch {
            start,
            last,
            restored: self.restored_events,
            items,
            after_ns: read.as_nanos(),
            more,
            packets: query.packets_after.map_or_else(Vec::new, |number| self.packet_feed.lines_after(position(number))),
            totals,
            stamp,
            own: self.published.own_changes(position(query.own_after)),
        }
    }
}
