//! The events of the dataplane and the changes of operators, for any number of readers: streams of operators and the audit
//! file.
//!
//! ```text
//!  dataplane ── one connection, by number ──► follow ──┐
//!  requests of operators ── record ────────────────────┤
//!                                                      ▼
//!                          rings: entries | operators | packets
//!                                                      │ each reader has its own position
//!                                       stream ◄───────┼───────► audit file
//!                                                      ▼ too slow
//!                                   the dataplane's ring, then its lists
//! ```
//! No reader has a queue of its own, so a slow one needs no memory and delays no other. Each kind has a ring of its own, so
//! logged packets displace no event. A reader that is behind a ring reads the dataplane itself until it has caught up, and
//! is told about what it cannot have any more. Logged packets are counted by their rule: a reader is told how many lines it did
//! not get.
//!
//! | file        | owns |
//! |-------------|------|
//! | `mod.rs`    | the rings |
//! | `change.rs` | changes by operators |
//! | `filter.rs` | the events that a reader wants |
//! | `follow.rs` | the connection to the dataplane |
//! | `reader.rs` | a reader, from its position to the present |
//! | `ring.rs`   | a bounded queue with ordinals |

pub(crate) mod change;
pub mod filter;
pub(crate) mod follow;
pub(crate) mod reader;
mod ring;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use knockplane_policy::event::{EventId, StartId};
use knockplane_policy::rule::{RuleId, RuleNumber};
use knockplane_policy::wire::events::{
    EventBatch, EventItem, EventQuery, OwnAction, OwnChange, PacketLine, PublishedEvent, RuleTotal,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use self::change::{OperatorAction, OperatorChange, RecordedOperator};
use self::ring::ItemRing;
use crate::dataplane::Dataplane;

/// Maximum number of kept events of entries: about 5 MB. The dataplane keeps more.
const ENTRIES: usize = 8_192;

/// Maximum number of kept changes by operators.
const OPERATORS: usize = 1_024;

/// Maximum number of kept lines about packets: those of some seconds at the highest rate.
const PACKETS: usize = 4_096;

/// Maximum number of streams at once. A user may have 32 connections, so that some are left for commands.
pub(crate) const MAX_STREAMS: usize = 24;

/// The rings, in the order of their numbers.
const RINGS: usize = 3;
const ENTRY_RING: usize = 0;
const OPERATOR_RING: usize = 1;
const PACKET_RING: usize = 2;

/// All events that the control process knows.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dataplane: Dataplane,
    state: Mutex<EventState>,
    /// The number of the last item. Its receivers wake up when there are new items, and when it is dropped.
    news: Mutex<Option<watch::Sender<u64>>>,
    /// Whether streams end.
    streams_end: watch::Sender<bool>,
    streams: Arc<Semaphore>,
    /// Gaps that streams were told about.
    gaps: AtomicU64,
}

#[derive(Debug)]
struct EventState {
    rings: [ItemRing<Arc<EventEntry>>; RINGS],
    /// The number of the last item.
    last: u64,
    /// The position in the events of the dataplane; the start is `None` before the first answer.
    start: Option<StartId>,
    query: EventQuery,
    /// Events of this start up to this number are not in the ring.
    not_kept: u64,
    totals: HashMap<Option<RuleId>, u64>,
    /// The number of the last one of them.
    past_until: u64,
    /// The number of the last change by an operator: see [`knockplane_policy::event::BehindEvent::Operator`].
    last_change: u64,
}

/// An item of a ring.
#[derive(Debug)]
pub(crate) struct EventEntry {
    /// The order of all items.
    sequence: u64,
    id: Option<EventId>,
    /// Nanoseconds since 1970.
    time_ns: u64,
    /// Whether it was before the first answer of the dataplane to this process: only a reader that continues, or that is
    /// older, gets it.
    is_past: bool,
    body: EventBody,
}

/// A rule that logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoggedRule {
    pub(crate) id: Option<RuleId>,
    pub(crate) number: Option<RuleNumber>,
}

/// The content of an item.
#[derive(Debug)]
pub(crate) enum EventBody {
    Entry(Box<PublishedEvent>),
    Gap(MissedNumbers),
    /// The dataplane has started. `is_new` is false for the first answer to this process.
    Start {
        start: StartId,
        restored: u64,
        is_new: bool,
    },
    Operator(Box<OperatorChange>),
    /// Packets of a rule. All but the last one have no line, and neither has the last one if `line` is `None`.
    Packet {
        rule: LoggedRule,
        /// The number of packets of the rule before these.
        before: u64,
        /// The number of packets of the rule up to the last one of these.
        total: u64,
        line: Option<Box<PacketLine>>,
    },
}

/// Events without a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MissedNumbers {
    pub(crate) start: StartId,
    pub(crate) first: u64,
    /// `None` if the start has ended, so that the number is not known.
    pub(crate) last: Option<u64>,
    /// The number of events that replace them, from the lists.
    pub(crate) found: u64,
    /// Changes of operators that were missed; then there are no other ones.
    pub(crate) operator_changes: u64,
}

impl Events {
    /// No events yet.
    pub fn new(dataplane: Dataplane) -> Self {
        let rings = [ENTRIES, OPERATORS, PACKETS].map(ItemRing::new);
        let state = EventState {
            rings,
            last: 0,
            start: None,
            query: EventQuery { packets_after: Some(0), ..EventQuery::default() },
            not_kept: 0,
            totals: HashMap::new(),
            past_until: 0,
            last_change: 0,
        };
        Events(Arc::new(Shared {
            dataplane,
            state: Mutex::new(state),
            news: Mutex::new(Some(watch::Sender::new(0))),
            streams_end: watch::Sender::new(false),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            gaps: AtomicU64::new(0),
        }))
    }

    /// Publishes and logs a change by an operator. Returns its id.
    pub(crate) fn record(&self, change: OperatorChange) -> EventId {
        let change = change.shortened();
        let id = {
            let mut state = self.lock();
            let id = state.record(change.clone(), now_ns());
            self.tell(state.last);
            id
        };
        change.log(id);
        id
    }

    /// Ends all readers, after the items that they have not read.
    pub(crate) fn close(&self) {
        self.0.news.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Ends the streams of clients. The events go on.
    pub(crate) fn end_streams(&self) {
        self.0.streams_end.send_replace(true);
    }

    /// Whether streams end.
    pub(crate) fn streams_end(&self) -> watch::Receiver<bool> {
        self.0.streams_end.subscribe()
    }

    /// Waits for a time. Returns whether the events have ended.
    pub(crate) async fn ended_within(&self, time: Duration) -> bool {
        let news = self.0.news.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(watch::Sender::subscribe);
        let Some(mut news) = news else { return true };
        timeout(time, async { while news.changed().await.is_ok() {} }).await.is_ok()
    }

    /// The place of a stream; `None` if there are [`MAX_STREAMS`].
    pub(crate) fn stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.streams).try_acquire_owned().ok()
    }

    /// The number of streams.
    pub(crate) fn streams(&self) -> usize {
        MAX_STREAMS - self.0.streams.available_permits()
    }

    /// The number of gaps that streams and the audit file were told about.
    pub(crate) fn gaps(&self) -> u64 {
        self.0.gaps.load(Ordering::Relaxed)
    }

    fn query(&self) -> EventQuery {
        self.lock().query
    }

    /// Adds an answer of the dataplane.
    fn add(&self, batch: EventBatch) {
        let mut state = self.lock();
        state.add(batch, now_ns());
        self.tell(state.last);
    }

    fn tell(&self, last: u64) {
        if let Some(news) = &*self.0.news.lock().unwrap_or_else(PoisonError::into_inner) {
            news.send_replace(last);
        }
    }

    fn lock(&self) -> MutexGuard<'_, EventState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventState {
    /// Whether the events that were there at the first answer are read. From then on, the dataplane looks for the changes
    /// that replace a gap.
    fn has_past(&self) -> bool {
        self.query.recover
    }

    fn push(&mut self, ring: usize, id: Option<EventId>, time_ns: u64, is_past: bool, body: EventBody) {
        self.last += 1;
        let entry = EventEntry { sequence: self.last, id, time_ns, is_past, body };
        let Some(replaced) = self.rings[ring].push(Arc::new(entry)) else { return };
        self.not_kept = match &replaced.body {
            EventBody::Entry(published) if Some(published.event.start) == self.start => published.event.number,
            EventBody::Gap(missed) if Some(missed.start) == self.start => missed.last.unwrap_or_default(),
            _ => self.not_kept,
        };
    }

    fn record(&mut self, change: OperatorChange, now_ns: u64) -> EventId {
        self.last_change = (now_ns / 1_000).max(self.last_change + 1);
        let id = EventId::operator(self.start.unwrap_or_default(), self.query.after, self.last_change);
        self.push(OPERATOR_RING, Some(id), now_ns, false, EventBody::Operator(Box::new(change)));
        id
    }

    fn add(&mut self, batch: EventBatch, now_ns: u64) {
        let EventBatch { start, last, restored, items, after_ns, more, packets, totals, stamp, own } = batch;
        if self.start != Some(start) {
            self.past_until = if self.start.is_none() { last } else { 0 };
            self.begin(start, restored, now_ns);
        }
        let is_first = !self.has_past();
        let mut packets = packets.into_iter().peekable();
        for item in items {
            let number = match &item {
                EventItem::Event(published) => published.event.number,
                EventItem::Gap { missed, .. } => missed.first,
            };
            while let Some(line) = packets.next_if(|line| line.after < number) {
                self.add_packet(line, is_first);
            }
            match item {
                EventItem::Event(published) => {
                    let (id, time_ns) = (published.event.id(), published.event.time_ns);
                    // Those that replace a gap have numbers within it.
                    self.query.after = self.query.after.max(number);
                    let is_past = number <= self.past_until;
                    self.push(ENTRY_RING, Some(id), time_ns, is_past, EventBody::Entry(published));
                }
                EventItem::Gap { missed, found } => {
                    self.query.after = missed.last;
                    let missed = MissedNumbers {
                        start,
                        first: missed.first,
                        last: Some(missed.last),
                        found,
                        operator_changes: 0,
                    };
                    // Nothing of the past was found: a reader that needs it asks the dataplane.
                    if is_first {
                        self.not_kept = missed.last.unwrap_or_default();
                    } else {
                        self.push(ENTRY_RING, None, now_ns, false, EventBody::Gap(missed));
                    }
                }
            }
        }
        self.query.after_ns = after_ns;
        if more {
            return;
        }
        for line in packets {
            self.add_packet(line, is_first);
        }
        for RuleTotal { rule, rule_number, total } in totals {
            // Before the first answer, nobody was told about packets.
            let before = self.totals.get(&rule).copied().unwrap_or(if is_first { total } else { 0 });
            self.add_packets(LoggedRule { id: rule, number: rule_number }, before, total, None, now_ns, is_first);
        }
        self.query.stamp = stamp;
        for change in own {
            self.query.own_after = change.number;
            if !is_first {
                self.record_own(change);
            }
        }
        self.query.recover = true;
    }

    /// The dataplane has another start than before.
    fn begin(&mut self, start: StartId, restored: u64, now_ns: u64) {
        if let Some(ended) = self.start {
            let first = self.query.after + 1;
            let missed = MissedNumbers { start: ended, first, last: None, found: 0, operator_changes: 0 };
            self.push(ENTRY_RING, None, now_ns, false, EventBody::Gap(missed));
        }
        let is_new = self.start.is_some();
        self.start = Some(start);
        self.query = EventQuery { start, packets_after: Some(0), recover: self.query.recover, ..EventQuery::default() };
        self.not_kept = 0;
        self.totals.clear();
        let id = EventId::of(start, 0);
        self.push(ENTRY_RING, Some(id), now_ns, false, EventBody::Start { start, restored, is_new });
    }

    fn add_packet(&mut self, line: PacketLine, is_first: bool) {
        self.query.packets_after = Some(line.number);
        let rule = LoggedRule { id: Some(line.rule.clone()), number: Some(line.rule_number) };
        let before = self.totals.get(&rule.id).copied().unwrap_or(if is_first { line.total - 1 } else { 0 });
        let (total, time_ns) = (line.total, line.time_ns);
        self.add_packets(rule, before, total, Some(line), time_ns, is_first);
    }

    fn add_packets(
        &mut self,
        rule: LoggedRule,
        before: u64,
        total: u64,
        line: Option<PacketLine>,
        time_ns: u64,
        is_past: bool,
    ) {
        self.totals.insert(rule.id.clone(), total);
        if total <= before {
            return;
        }
        let id = line.as_ref().map(|line| EventId::packet(self.start.unwrap_or_default(), line.after, line.number));
        self.push(
            PACKET_RING,
            id,
            time_ns,
            is_past,
            EventBody::Packet { rule, before, total, line: line.map(Box::new) },
        );
    }

    /// Publishes a change that the dataplane made itself.
    fn record_own(&mut self, change: OwnChange) {
        let OwnChange { time_ns, action, generation, error, .. } = change;
        let action = match action {
            OwnAction::RolledBack => OperatorAction::NotConfirmed,
            OwnAction::Reloaded => OperatorAction::Reload,
        };
        let change = OperatorChange {
            error,
            generation: Some(generation),
            ..OperatorChange::of(action, RecordedOperator::default())
        };
        let id = self.record(change, time_ns);
        tracing::debug!(%id, "the dataplane changed its rules or settings itself");
    }
}

/// The wall clock in nanoseconds since 1970.
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
