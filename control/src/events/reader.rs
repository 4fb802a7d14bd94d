//! A reader of events: its position, and the way from there to the present.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use knockplane_policy::event::{BehindEvent, EventId, StartId};
use knockplane_policy::rule::{RuleId, RuleNumber};
use knockplane_policy::wire::events::{EventBatch, EventItem, EventQuery};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::filter::EventFilter;
use super::{
    ENTRY_RING, EventBody, EventEntry, EventState, Events, LoggedRule, MissedNumbers, OPERATOR_RING, RINGS, now_ns,
};
use crate::dataplane::{DataplaneConnection, DataplaneError};
use crate::json::events::EventJson;

/// Time between two events about lines that were omitted.
const OMITTED_EVERY: Duration = Duration::from_secs(1);

/// Pause before another request while the dataplane is away, or reads its lists for another reader.
const AGAIN: Duration = Duration::from_millis(200);

/// A reader. It holds no event that it has not read.
#[derive(Debug)]
pub(crate) struct EventReader {
    events: Events,
    news: Option<watch::Receiver<u64>>,
    filter: EventFilter,
    /// The ordinal of the next item in each ring.
    next: [u64; RINGS],
    /// The last event that the reader has, or was told that it cannot have; `None` before the first answer of the dataplane.
    position: Option<(StartId, u64)>,
    /// The monotonic time of that event, see [`EventBatch::after_ns`].
    position_ns: u64,
    /// Whether the reader continues after an earlier position, and reads the dataplane until it is at the rings.
    catches_up: bool,
    /// The id after which the reader continues; it then gets items of the past.
    since: Option<EventId>,
    /// The time of its begin, in nanoseconds since 1970. What the first answer of the dataplane has from before is the past.
    begun_ns: u64,
    connection: Option<DataplaneConnection>,
    /// The number of packets of each rule that the reader has, or was told that it does not get.
    totals: HashMap<Option<RuleId>, u64>,
    /// Whether a rule without a total had no packets before. Otherwise the reader begins with the first packet that it finds.
    has_totals: bool,
    /// Packets without a line that the reader was not told about yet.
    omitted: BTreeMap<Option<RuleId>, (Option<RuleNumber>, u64)>,
    /// The time of the next event about them.
    omitted_at: Instant,
    ready: VecDeque<EventJson>,
}

/// The next step of a reader.
enum Step {
    /// The next item of this ring.
    Item(usize, Arc<EventEntry>),
    /// The items of this ring up to the ordinal are gone.
    Behind(usize, u64),
    Wait,
}

impl Events {
    /// A reader that begins now.
    pub(crate) fn reader(&self, filter: EventFilter) -> EventReader {
        let state = self.lock();
        EventReader {
            next: [0, 1, 2].map(|ring: usize| state.rings[ring].end()),
            position: state.start.map(|start| (start, state.query.after)),
            position_ns: state.query.after_ns,
            catches_up: false,
            totals: state.totals.clone(),
            has_totals: state.has_past(),
            ..EventReader::idle(self.clone(), filter)
        }
    }

    /// A reader that continues after the event with this id, which it has.
    pub(crate) fn reader_after(&self, id: EventId, filter: EventFilter) -> EventReader {
        let state = self.lock();
        let known = state.rings.iter().find_map(|ring| {
            let ordinal = ring.first_with(|entry| entry.id == Some(id));
            ring.get(ordinal).map(|entry| entry.sequence)
        });
        let next = match known {
            Some(sequence) => {
                [0, 1, 2].map(|ring: usize| state.rings[ring].first_with(|entry| entry.sequence > sequence))
            }
            None => state.next_after(id),
        };
        let is_kept = known.is_some() || (state.start == Some(id.start) && id.number >= state.not_kept);
        EventReader {
            next,
            position: Some((id.start, id.number)),
            catches_up: !is_kept,
            since: Some(id),
            ..EventReader::idle(self.clone(), filter)
        }
    }

    /// Reads the text of an id, or of a number in this start of the dataplane.
    ///
    /// # Errors
    /// If it is neither, or if it is a number that is not reached, or the dataplane is not.
    pub(crate) fn id(&self, text: &str) -> Result<EventId, String> {
        let state = self.lock();
        let id = match text.parse::<u64>() {
            Ok(number) => {
                let start = state.start.ok_or(
                    "`since`: the dataplane has not answered yet, so a number alone has no meaning: try again, or give a \
                     whole id, as 9f3c0000deadbeef-42",
                )?;
                EventId::of(start, number)
            }
            Err(_) => text.parse().map_err(|error| format!("`since`: {error}, or a number"))?,
        };
        let last = state.query.after;
        if state.start == Some(id.start) && id.number > last {
            return Err(format!(
                "`since`: there is no event {} yet: the last one is {}",
                id.number,
                EventId::of(id.start, last)
            ));
        }
        Ok(id)
    }
}

impl EventState {
    /// The ordinals of the items after an id that is in no ring, as far as its numbers tell.
    fn next_after(&self, id: EventId) -> [u64; RINGS] {
        let mut next = [0, 1, 2].map(|ring: usize| self.rings[ring].first_with(|entry| is_behind(entry, id)));
        // Events that the reader has are skipped one by one.
        next[ENTRY_RING] = self.rings[ENTRY_RING].first();
        next
    }
}

/// Whether a packet or a change by an operator is after an id, as far as its numbers tell.
fn is_behind(entry: &EventEntry, id: EventId) -> bool {
    let Some(other) = entry.id.filter(|other| other.start == id.start) else { return entry.id.is_some() };
    match (other.behind, id.behind) {
        (Some(BehindEvent::Packet(packet)), Some(BehindEvent::Packet(last))) => packet > last,
        (Some(BehindEvent::Operator(change)), Some(BehindEvent::Operator(last))) => change > last,
        _ => other.number >= id.number,
    }
}

impl EventReader {
    fn idle(events: Events, filter: EventFilter) -> EventReader {
        let news = events.0.news.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(watch::Sender::subscribe);
        EventReader {
            events,
            news,
            filter,
            next: [0; RINGS],
            position: None,
            position_ns: 0,
            catches_up: false,
            since: None,
            begun_ns: now_ns(),
            connection: None,
            totals: HashMap::new(),
            has_totals: false,
            omitted: BTreeMap::new(),
            omitted_at: Instant::now() + OMITTED_EVERY,
            ready: VecDeque::new(),
        }
    }

    /// The next event; `None` if the process ends.
    pub(crate) async fn next(&mut self) -> Option<EventJson> {
        loop {
            if let Some(event) = self.now() {
                return Some(event);
            }
            self.news.as_ref()?;
            if self.catches_up {
                self.catch_up().await;
                continue;
            }
            let omitted_at = (!self.omitted.is_empty()).then_some(self.omitted_at);
            let Some(news) = &mut self.news else { return None };
            tokio::select! {
                changed = news.changed() => if changed.is_err() {
                    self.news = None;
                    self.tell_omitted();
                },
                () = async { sleep_until(omitted_at.unwrap_or_else(Instant::now)).await }, if omitted_at.is_some() => {}
            }
        }
    }

    /// The next event, if there is one now.
    pub(crate) fn now(&mut self) -> Option<EventJson> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if !self.omitted.is_empty() && Instant::now() >= self.omitted_at {
                self.tell_omitted();
                continue;
            }
            if self.catches_up {
                return None;
            }
            match self.step() {
                Step::Item(ring, entry) => {
                    self.next[ring] += 1;
                    self.take(&entry);
                }
                Step::Behind(ENTRY_RING, _) => self.catches_up = true,
                Step::Behind(ring, first) => {
                    // Lines of packets are counted by the totals of their rules.
                    if ring == OPERATOR_RING {
                        self.miss_changes(first - self.next[ring]);
                    }
                    self.next[ring] = first;
                }
                Step::Wait => return None,
            }
        }
    }

    fn step(&mut self) -> Step {
        // Before the rings are read, so that no item is missed.
        if let Some(news) = &mut self.news {
            news.borrow_and_update();
        }
        let state = self.events.lock();
        let behind = (0..RINGS).find(|ring| self.next[*ring] < state.rings[*ring].first());
        if let Some(ring) = behind {
            return Step::Behind(ring, state.rings[ring].first());
        }
        let items = (0..RINGS).filter_map(|ring| Some((ring, state.rings[ring].get(self.next[ring])?)));
        let first = items.min_by_key(|(_, entry)| entry.sequence);
        first.map_or(Step::Wait, |(ring, entry)| Step::Item(ring, Arc::clone(entry)))
    }

    /// Takes an item that the reader may have already.
    fn take(&mut self, entry: &EventEntry) {
        let is_wanted = !entry.is_past || self.since.is_some() || entry.time_ns >= self.begun_ns;
        match &entry.body {
            EventBody::Entry(published) => {
                let (start, number) = (published.event.start, published.event.number);
                if self.has(start, number) {
                    return;
                }
                (self.position, self.position_ns) = (Some((start, number)), published.event.monotonic_ns);
            }
            EventBody::Gap(MissedNumbers { start, last, found, .. }) => {
                if last.is_some_and(|last| self.has(*start, last)) {
                    return;
                }
                if last.is_none() && self.position.is_some_and(|(own, _)| own != *start) {
                    return;
                }
                // The events that were found have numbers in the gap.
                if let (Some(last), 0) = (last, found) {
                    self.position = Some((*start, *last));
                }
            }
            EventBody::Start { start, is_new, .. } => {
                if self.position.is_some_and(|(own, _)| own == *start) {
                    return;
                }
                self.position = Some((*start, 0));
                self.position_ns = 0;
                self.totals.clear();
                self.has_totals |= is_new;
                if !is_new && self.since.is_none() {
                    return;
                }
            }
            EventBody::Operator(_) => {}
            EventBody::Packet { rule, before, total, line } => {
                let had = self.totals.insert(rule.id.clone(), *total);
                let had = had.unwrap_or(if self.has_totals { 0 } else { *before });
                // The reader has the lines before the id after which it continues.
                if entry.is_past && self.since.is_some_and(|since| !is_behind(entry, since)) {
                    return;
                }
                let omitted = (total - u64::from(line.is_some())).saturating_sub(had);
                if is_wanted && omitted > 0 && self.filter.takes(&without_line(rule)) {
                    let count = self.omitted.entry(rule.id.clone()).or_default();
                    *count = (rule.number, count.1 + omitted);
                }
                if line.is_none() {
                    return;
                }
            }
        }
        if is_wanted && self.filter.takes(&entry.body) {
            self.show(entry.id, entry.time_ns, &entry.body);
        }
    }

    /// Whether the reader has the event, or was told that it cannot have it.
    fn has(&self, start: StartId, number: u64) -> bool {
        self.position.is_some_and(|(own, last)| own == start && number <= last)
    }

    fn show(&mut self, id: Option<EventId>, time_ns: u64, body: &EventBody) {
        if matches!(body, EventBody::Gap(_)) {
            self.events.0.gaps.fetch_add(1, Relaxed);
        }
        self.ready.extend(EventJson::new(id, time_ns, body));
    }

    /// Shows the numbers of lines that were omitted.
    fn tell_omitted(&mut self) {
        self.omitted_at = Instant::now() + OMITTED_EVERY;
        for (id, (number, lines)) in std::mem::take(&mut self.omitted) {
            let rule = LoggedRule { id, number };
            let body = EventBody::Packet { rule, before: 0, total: lines, line: None };
            self.ready.extend(EventJson::new(None, now_ns(), &body));
        }
    }

    fn miss_changes(&mut self, changes: u64) {
        let (start, number) = self.position.unwrap_or_default();
        let missed =
            MissedNumbers { start, first: number + 1, last: Some(number), found: 0, operator_changes: changes };
        self.show(None, now_ns(), &EventBody::Gap(missed));
    }

    /// Reads events of the dataplane itself, until the rest is in the ring.
    async fn catch_up(&mut self) {
        let pause = match self.ask().await {
            Ok(batch) => !self.take_batch(batch),
            Err(_) => {
                self.connection = None;
                true
            }
        };
        {
            let state = self.events.lock();
            if self.position.is_some_and(|(start, number)| state.start == Some(start) && number >= state.not_kept) {
                self.next[ENTRY_RING] = state.rings[ENTRY_RING].first();
                self.catches_up = false;
            }
        }
        if !self.catches_up {
            self.connection = None;
        } else if pause && let Some(news) = &mut self.news {
            // The end of the process ends the wait.
            tokio::select! {
                () = sleep(AGAIN) => {}
                ended = async { while news.changed().await.is_ok() {} } => {
                    let () = ended;
                    self.news = None;
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<EventBatch, DataplaneError> {
        let (start, after) = self.position.unwrap_or_default();
        let query = EventQuery { start, after, after_ns: self.position_ns, recover: true, ..EventQuery::default() };
        let query = EventQuery { own_after: u64::MAX, ..query };
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.events.0.dataplane.connect().await?),
        };
        connection.events(query).await
    }

    /// Takes the events of an answer. Returns whether there were any.
    fn take_batch(&mut self, batch: EventBatch) -> bool {
        let EventBatch { start, restored, items, after_ns, .. } = batch;
        let entry = |id, time_ns, body| EventEntry { sequence: 0, id, time_ns, is_past: false, body };
        if let Some((own, number)) = self.position
            && own != start
        {
            let missed = MissedNumbers { start: own, first: number + 1, last: None, found: 0, operator_changes: 0 };
            self.take(&entry(None, now_ns(), EventBody::Gap(missed)));
            let begun = EventBody::Start { start, restored, is_new: true };
            self.take(&entry(Some(EventId::of(start, 0)), now_ns(), begun));
        }
        let any = !items.is_empty();
        for item in items {
            match item {
                EventItem::Event(published) => {
                    let (id, time_ns) = (published.event.id(), published.event.time_ns);
                    self.take(&entry(Some(id), time_ns, EventBody::Entry(published)));
                }
                EventItem::Gap { missed, found } => {
                    let (first, last) = (missed.first, Some(missed.last));
                    let missed = MissedNumbers { start, first, last, found, operator_changes: 0 };
                    self.take(&entry(None, now_ns(), EventBody::Gap(missed)));
                }
            }
        }
        self.position_ns = after_ns;
        any
    }
}

/// Packets of a rule without a line, for a filter.
fn without_line(rule: &LoggedRule) -> EventBody {
    EventBody::Packet { rule: rule.clone(), before: 0, total: 0, line: None }
}
