//! The log: a subscriber of the lists' events, and the reader of logged packets.
//!
//! Events arrive from the ring in order, with a cursor of the log's own. If the log is too slow, it receives a gap.
//! Within a second, it then reads the changes in the gap from the lists, and logs them. Every address that is in a
//! list, or that has left it, therefore has its line. Changes in between that were overwritten count as lines that were
//! not logged. Packets have a queue of their own, and are counted by their rule.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use knockplane_engine::state::events::logged::LoggedMatch;
use knockplane_engine::state::events::ring::{Cursor, Received};
use knockplane_engine::state::events::{Cause, ListEvent, RulePosition};
use knockplane_engine::state::lists::{Changed, Lists};
use knockplane_log::kind::LogKind;
use knockplane_log::{RuleName, target};
use knockplane_policy::eval::log::LoggedPacket;
use knockplane_policy::event::{Event, EventId, EventKind, Gap, Origin};
use knockplane_policy::rule::{Rule, RuleNumber};
use knockplane_policy::time::{Time, rfc_3339};
use knockplane_policy::wire::EventReader;
use knockplane_policy::word::Word as _;

use super::Supervisor;
use super::event_names::{EventNames, Generations, rule_at};
use super::grants::{GrantCounts, log_grant};
use super::packet_feed::LinePosition;
use crate::shared::EVENT_QUEUE;

/// Maximum number of lines about packets in a tick, 640 a second: a limit for readers and disks.
const MAX_PACKET_LINES: usize = 64;

/// Maximum number of lines about lists in a tick, 2,560 a second: a hundred clients that knock at once cause this
/// number. A flood of forged knocks causes more.
const MAX_LIST_LINES: usize = 256;

/// The interval of reads of the lists for gaps: each reads all of their slots.
pub(super) const RECOVERY: Duration = Duration::from_secs(1);

/// The progress of the log in the events.
pub(crate) struct EventLog {
    cursor: Cursor,
    /// The time of the last event that was read.
    read: Time,
    gaps: Vec<MissedEvents>,
    next_recovery: Time,
    /// The number of lines about lists in this tick.
    list_lines: usize,
    lost: u64,
    grants: GrantCounts,
    /// The number of gaps since start, and of events in them.
    missed: (u64, u64),
}

/// Events that a reader missed because it was too slow.
pub(super) struct MissedEvents {
    pub(super) gap: Gap,
    /// The time of the last event before them.
    pub(super) after: Time,
}

impl EventLog {
    /// Begins after the event of this number.
    pub(crate) fn after(number: u64) -> EventLog {
        EventLog {
            cursor: Cursor::after(number),
            read: Time::default(),
            gaps: Vec::new(),
            next_recovery: Time::default(),
            list_lines: 0,
            lost: 0,
            grants: GrantCounts::default(),
            missed: (0, 0),
        }
    }

    /// The number of events since start that should have a line in the log and have none.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    /// The changes of grants since start.
    pub(super) const fn grants(&self) -> &GrantCounts {
        &self.grants
    }

    /// The gaps since start.
    pub(super) fn gaps(&self) -> EventReader {
        let (gaps, missed) = self.missed;
        EventReader { reader: "log".to_owned(), gaps, missed }
    }

    /// The number of the last event that the log has read or missed.
    pub(super) const fn last(&self) -> u64 {
        self.cursor.last()
    }

    /// Logs the events since the last call, up to the event of this number.
    fn read(&mut self, lists: &Lists, last: u64, names: &EventNames<'_>) {
        self.list_lines = 0;
        while self.cursor.last() < last {
            match lists.receive(&mut self.cursor) {
                Some(Received::Event(number, event)) => {
                    self.read = event.at;
                    self.log(&names.event(number, &event), names);
                }
                Some(Received::Gap(gap)) => {
                    self.missed.0 += 1;
                    self.missed.1 += gap.last - gap.first + 1;
                    self.gaps.push(MissedEvents { gap, after: self.read });
                }
                None => break,
            }
        }
    }

    /// Logs the changes in the lists since missed events.
    fn recover(&mut self, lists: &Lists, names: &EventNames<'_>, now: Time) {
        if self.gaps.is_empty() {
            return;
        }
        self.next_recovery = now + RECOVERY;
        let gaps = std::mem::take(&mut self.gaps);
        // The log's limit of lines is later: it counts what it leaves out.
        let found = missed_changes(lists, &gaps, usize::MAX);
        let missed: u64 = gaps.iter().map(|missed| missed.gap.last - missed.gap.first + 1).sum();
        let overwritten = missed.saturating_sub(found.len() as u64);
        tracing::warn!(
            missed,
            overwritten,
            "the log was too slow for events of the lists; those that were not overwritten by later ones follow"
        );
        for (number, event) in found {
            self.log(&names.event(number, &event), names);
        }
        self.count_lost(overwritten);
    }

    fn count_lost(&mut self, events: u64) {
        self.lost += events;
        knockplane_log::omit(LogKind::List, None, events);
    }

    /// Counts the change of a grant, and logs the line of an event, if it has one. The line contains the cause of an operator's change.
    fn log(&mut self, event: &Event, names: &EventNames<'_>) {
        self.grants.note(event);
        if log_grant(event, names) {
            return;
        }
        let what = match (event.kind, event.origin) {
            (EventKind::Listed, Some(Origin::Packet)) => "listed",
            (EventKind::Expired, _) => "expired",
            (EventKind::Evicted, _) => "evicted: the lists are full",
            _ => return,
        };
        self.list_lines += 1;
        if self.list_lines > MAX_LIST_LINES {
            self.count_lost(1);
            return;
        }
        let record = &event.record;
        tracing::info!(
            target: target!("list"),
            source = %record.addresses(),
            kind = event.kind.name(),
            list = record.list,
            rule.id = event.rule.as_ref().map(tracing::field::display),
            entry.level = Some(record.level).filter(|level| *level != u8::MAX),
            entry.vlan = record.network.tags(),
            entry.pppoe = record.network.session(),
            entry.expires = record.expires_ns.map(Time::from_nanos).map(rfc_3339),
            id = %event.id(),
            "{what}"
        );
    }
}

/// Events that replace missed events, by their numbers: the first `most` of them, from the changes in the lists since the
/// event before the gaps. If the lists do not have the removals since then any more, they are the present entries at least.
/// `gaps` are in order.
pub(super) fn missed_changes(lists: &Lists, gaps: &[MissedEvents], most: usize) -> BTreeMap<u64, ListEvent> {
    let Some(first) = gaps.first().map(|missed| missed.gap.first) else { return BTreeMap::new() };
    changes_since(lists, gaps, first - 1, most).or_else(|| changes_since(lists, gaps, 0, most)).unwrap_or_default()
}

/// The changes in `gaps` since the event of this number; `None` if the lists do not have these changes any more.
fn changes_since(lists: &Lists, gaps: &[MissedEvents], since: u64, most: usize) -> Option<BTreeMap<u64, ListEvent>> {
    let missed_with = |number: u64| {
        let missed = &gaps[..gaps.partition_point(|missed| missed.gap.first <= number)].last()?;
        (number <= missed.gap.last).then_some(missed.after)
    };
    let mut found = BTreeMap::new();
    let mut keep = |number, event| {
        found.insert(number, event);
        if found.len() > most {
            found.pop_last();
        }
    };
    lists.changes_since(since, |changed| {
        let (Changed::Ended(number, _) | Changed::Entry(number, _)) = changed;
        if let Some(after) = missed_with(number) {
            keep(number, event_of(changed, after));
        }
    })?;
    // A bulk change is one event, which has no line.
    for (number, event) in lists.static_changes_since(since).unwrap_or_default() {
        if missed_with(number).is_some() {
            keep(number, event);
        }
    }
    Some(found)
}

/// The event for an entry whose last event was missed. If the entry was added before the time of the last event
/// before the gap, the event in the gap was a refresh.
fn event_of(changed: Changed, after: Time) -> ListEvent {
    match changed {
        Changed::Ended(_, event) => event,
        Changed::Entry(_, entry) => {
            let kind = match (entry.step, entry.peer_tag) {
                (1.., _) => EventKind::Stepped,
                // Of several entries that were added at the time of the last event, some are new to the reader.
                _ if entry.since < after => EventKind::Refreshed,
                (0, 0) => EventKind::Listed,
                _ => EventKind::Granted,
            };
            ListEvent { kind, entry, cause: Some(Cause::of(entry.origin)), at: entry.since }
        }
    }
}

impl Supervisor {
    /// Logs the events since the last call, and counts those without a line.
    pub(super) fn log_events(&mut self, now: Time) {
        self.log_pending(now, now >= self.event_log.next_recovery);
    }

    /// As [`Supervisor::log_events`], for the last time.
    pub(super) fn log_last_events(&mut self, now: Time) {
        self.log_pending(now, true);
    }

    fn log_pending(&mut self, now: Time, recovers: bool) {
        let lists = &self.shared.state.lists;
        // The generations are read after these: the administration may swap them at any time, and the rules and doors
        // of all events up to here, and of these packets, are then among them.
        let last = lists.last_event();
        let packets: Vec<LoggedMatch> = std::iter::from_fn(|| self.shared.logged.pop()).take(EVENT_QUEUE).collect();
        let generations = self.generations();
        let names = EventNames { lists, generations: &generations, now, wall: self.shared.wall.load(Relaxed) };
        self.event_log.read(lists, last, &names);
        if recovers {
            self.event_log.recover(lists, &names, now);
        }
        let position = LinePosition { after: self.event_log.last(), time_ns: names.now_ns() };
        self.log_packets(packets, &generations, position);
        self.count_unlogged(&generations);
    }

    pub(super) fn generations(&self) -> Generations {
        let ledger = self.published.ledger();
        Generations { current: self.shared.generation.load_full(), leaving: ledger.book.leaving().to_vec() }
    }

    /// Logs packets, and counts those above the limit by their rule.
    fn log_packets(&mut self, packets: Vec<LoggedMatch>, generations: &Generations, position: LinePosition) {
        let mut beyond = HashMap::<RulePosition, u64>::new();
        for (number, LoggedMatch { rule, packet }) in packets.into_iter().enumerate() {
            match generations.rule(rule).filter(|_| number < MAX_PACKET_LINES) {
                Some(rule) => self.log_packet(&rule, &packet, position),
                None => *beyond.entry(rule).or_default() += 1,
            }
        }
        for (rule, packets) in beyond {
            self.shared.logged.count_lost(packets);
            self.omit_packets(generations.rule(rule).as_ref(), packets);
        }
    }

    /// Counts packets without room in the queue as lines that are not logged, by their rule.
    fn count_unlogged(&mut self, generations: &Generations) {
        for generation in generations.iter() {
            for counters in &generation.counters {
                for (rule, packets) in counters.take_unlogged() {
                    self.omit_packets(rule_at(generation, rule).as_ref(), packets);
                }
            }
        }
    }

    /// Counts packets of a rule that have no line.
    fn omit_packets(&mut self, rule: Option<&(Rule, RuleNumber)>, packets: u64) {
        knockplane_log::omit(LogKind::Packet, rule.map(name).as_ref(), packets);
        self.packet_feed.omit(rule.map(|(rule, number)| (&rule.id, *number)), packets);
    }

    /// Logs the line of a rule that logs. In JSON, the parts of the text about the packet also have fields of their own.
    fn log_packet(&mut self, rule: &(Rule, RuleNumber), entry: &LoggedPacket, position: LinePosition) {
        let (Rule { id: rule_id, chain, log, .. }, number) = rule;
        let prefix = log.as_ref().map_or("", |log| &log.prefix);
        let line = entry.line(prefix, chain);
        let shown = self.packet_feed.add(&rule.0, *number, entry, line.clone(), position);
        let id = EventId::packet(self.shared.state.lists.start_id(), position.after, shown);
        knockplane_log::packet(&name(rule), || {
            if !knockplane_log::has_fields() {
                tracing::info!(target: target!("packet"), { rule.id = %rule_id, rule.number = %number, %id }, "{line}");
                return;
            }
            let ((source, source_port), (destination, destination_port)) = (entry.source(), entry.destination());
            tracing::info!(
                target: target!("packet"),
                %source,
                rule.id = %rule_id,
                rule.number = %number,
                packet.prefix = prefix,
                packet.chain = chain,
                packet.side = %entry.side(),
                packet.protocol = entry.protocol(),
                packet.source_port = source_port,
                packet.destination = %destination,
                packet.destination_port = destination_port,
                %id,
                "{line}"
            );
        });
    }
}

/// The name of the rule in lines.
fn name((rule, number): &(Rule, RuleNumber)) -> RuleName {
    RuleName { id: (&*rule.id.0).into(), number: number.to_string().into() }
}

#[cfg(test)]
mod tests {
    use knockplane_engine::state::State;

    use super::*;

    #[test]
    fn the_first_changes_of_gaps_are_found_in_order() {
        let state = State::new(64, 64).expect("a small state");
        let lists = &state.lists;
        let secured = lists.bind("secured", 1).expect("room for a list");
        let now = Time::from_nanos(5);
        for host in 1..=9 {
            lists.add(secured, [192, 0, 2, host].into(), now + Duration::from_secs(60), now);
        }
        let first = lists.last_event() - 8;
        let gap = |from: u64, to: u64| MissedEvents { gap: Gap { first: first + from, last: first + to }, after: now };
        let gaps = [gap(0, 1), gap(4, 7)];
        let found = |most: usize| -> Vec<u64> {
            missed_changes(lists, &gaps, most).into_keys().map(|number| number - first).collect()
        };
        assert_eq!(found(usize::MAX), [0, 1, 4, 5, 6, 7]);
        assert_eq!(found(3), [0, 1, 4]);
        assert_eq!(missed_changes(lists, &[], 3).len(), 0);
    }
}
