//! The log: a subscriber of the lists' events, and the reader of logged packets.
//!
//! Events come from the ring in their order, with a cursor of the log's own. Where the log is too slow, it gets a gap; within a
//! second it then reads from the lists what changed in the gap, and logs that. So an address that is in a list, or has left it,
//! has its line; the changes in between that were overwritten are counted as lines that were not logged. Packets have a queue of
//! their own, and are counted by their rule.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use knockplane_engine::state::events::logged::LoggedMatch;
use knockplane_engine::state::events::ring::{Cursor, Received};
use knockplane_engine::state::events::{Cause, ListEvent, RulePosition};
use knockplane_engine::state::lists::{Changed, Lists};
use knockplane_log::kind::Kind;
use knockplane_log::{RuleName, target};
use knockplane_policy::eval::log::LoggedPacket;
use knockplane_policy::event::{Event, EventKind, Gap, Origin};
use knockplane_policy::rule::{Rule, RuleNumber};
use knockplane_policy::time::{Time, format_duration};

use super::Supervisor;
use super::event_names::{EventNames, rule_at, rule_of};
use super::grants::log_grant;
use crate::generation::Generation;
use crate::shared::EVENT_QUEUE;

/// Lines about packets in a tick, 640 a second: as many as people and disks bear.
const MAX_PACKET_LINES: usize = 64;

/// Lines about lists in a tick, 2,560 a second: what a hundred clients cause that knock at once. A flood of forged knocks
/// causes more.
const MAX_LIST_LINES: usize = 256;

/// Events that are read in a tick: as many as the ring has.
const MAX_EVENTS: usize = 16_384;

/// How often the lists are read for gaps: that looks at each of their slots.
const RECOVERY: Duration = Duration::from_secs(1);

/// How far the log is with the events.
pub(crate) struct EventLog {
    cursor: Cursor,
    /// When the last event happened that was read.
    read: Time,
    gaps: Vec<MissedEvents>,
    next_recovery: Time,
    /// Lines about lists in this tick.
    list_lines: usize,
    lost: u64,
}

/// Events that the log was too slow for.
struct MissedEvents {
    gap: Gap,
    /// When the last event before them happened.
    after: Time,
}

impl EventLog {
    /// From the first event since start on.
    pub(crate) fn new() -> EventLog {
        EventLog {
            cursor: Cursor::after(0),
            read: Time::default(),
            gaps: Vec::new(),
            next_recovery: Time::default(),
            list_lines: 0,
            lost: 0,
        }
    }

    /// Events since start that are no line of the log though they should be.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Logs the events since the last time.
    fn read(&mut self, lists: &Lists, names: &EventNames<'_>) {
        self.list_lines = 0;
        for _ in 0..MAX_EVENTS {
            match lists.receive(&mut self.cursor) {
                Some(Received::Event(number, event)) => {
                    self.read = event.at;
                    self.log(&names.event(number, &event), names);
                }
                Some(Received::Gap(gap)) => self.gaps.push(MissedEvents { gap, after: self.read }),
                None => break,
            }
        }
    }

    /// Logs what the lists say of events that were missed.
    fn recover(&mut self, lists: &Lists, names: &EventNames<'_>, now: Time) {
        let Some(first) = self.gaps.first().map(|missed| missed.gap.first) else { return };
        self.next_recovery = now + RECOVERY;
        let gaps = std::mem::take(&mut self.gaps);
        // Where removals are not remembered so far back, at least the entries that there are.
        let found = missed_changes(lists, &gaps, first - 1).or_else(|| missed_changes(lists, &gaps, 0));
        let mut found = found.unwrap_or_default();
        found.sort_by_key(|(number, _)| *number);
        found.dedup_by_key(|(number, _)| *number);
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
        knockplane_log::omit(Kind::List, None, events);
    }

    /// The line of an event, if it has one. What operators do is logged as theirs.
    fn log(&mut self, event: &Event, names: &EventNames<'_>) {
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
        let (address, list, level) = (record.address, &*record.list, record.level);
        let (vlan, pppoe) = (record.network.tags(), record.network.session());
        if event.kind.is_end() {
            tracing::info!(target: target!("list"), %address, vlan, pppoe, list, level, "{what}");
        } else {
            let left =
                |expires_ns: u64| format_duration(Duration::from_nanos(expires_ns.saturating_sub(names.now_ns())));
            let time = record.expires_ns.map_or_else(|| "no timeout".to_owned(), left);
            tracing::info!(target: target!("list"), %address, vlan, pppoe, list, level, time, "{what}");
        }
    }
}

/// Events that take the place of those that were missed, by what changed in the lists since the event of this number; `None` if the
/// lists do not remember it. An entry that is shown twice is the same event.
fn missed_changes(lists: &Lists, gaps: &[MissedEvents], since: u64) -> Option<Vec<(u64, ListEvent)>> {
    let mut found = Vec::new();
    lists.changes_since(since, |changed| {
        let (Changed::Ended(number, _) | Changed::Entry(number, _)) = changed;
        if let Some(missed) = gaps.iter().find(|missed| (missed.gap.first..=missed.gap.last).contains(&number)) {
            found.push((number, event_of(changed, missed.after)));
        }
    })?;
    Some(found)
}

/// The event that the lists say of an entry whose last event was missed. An entry that got in before the gap was refreshed in it.
fn event_of(changed: Changed, after: Time) -> ListEvent {
    match changed {
        Changed::Ended(_, event) => event,
        Changed::Entry(_, entry) => {
            let kind = match (entry.step, entry.peer_tag) {
                (1.., _) => EventKind::Stepped,
                _ if entry.since <= after => EventKind::Refreshed,
                (0, 0) => EventKind::Listed,
                _ => EventKind::Granted,
            };
            ListEvent { kind, entry, cause: Some(Cause::of(entry.origin)), at: entry.since }
        }
    }
}

impl Supervisor {
    /// Logs what happened since the last time, and counts what is not logged.
    pub(super) fn log_events(&mut self, now: Time) {
        self.read_events(now, now >= self.event_log.next_recovery);
        self.log_packets();
        self.count_unlogged();
    }

    /// As [`Manager::log_events`], for the last time.
    pub(super) fn log_last_events(&mut self, now: Time) {
        self.read_events(now, true);
        self.log_packets();
        self.count_unlogged();
    }

    fn read_events(&mut self, now: Time, recovers: bool) {
        let current = self.shared.generation.load_full();
        let leaving = self.published.ledger().book.leaving().to_vec();
        let lists = &self.shared.state.lists;
        let names =
            EventNames { lists, current: &current, leaving: &leaving, now, wall: self.shared.wall.load(Relaxed) };
        self.event_log.read(lists, &names);
        if recovers {
            self.event_log.recover(lists, &names, now);
        }
    }

    /// Logs packets, and counts those beyond the limit by their rule.
    fn log_packets(&self) {
        let current = self.shared.generation.load_full();
        let leaving = self.published.ledger().book.leaving().to_vec();
        let mut beyond = HashMap::<RulePosition, u64>::new();
        for number in 0..EVENT_QUEUE {
            let Some(LoggedMatch { rule, packet }) = self.shared.logged.pop() else { break };
            if number < MAX_PACKET_LINES {
                match rule_of(&current, &leaving, rule) {
                    Some(rule) => log_packet(&rule, &packet),
                    None => knockplane_log::omit(Kind::Packet, None, 1),
                }
            } else {
                *beyond.entry(rule).or_default() += 1;
            }
        }
        for (rule, packets) in beyond {
            self.shared.logged.count_lost(packets);
            let rule = rule_of(&current, &leaving, rule);
            knockplane_log::omit(Kind::Packet, rule.as_ref().map(name).as_ref(), packets);
        }
    }

    /// Counts packets that found no room in the queue as lines that are not logged, by their rule.
    fn count_unlogged(&self) {
        let current = self.shared.generation.load_full();
        let mut generations: Vec<Arc<Generation>> = self.published.ledger().book.leaving().to_vec();
        generations.push(current);
        for generation in &generations {
            for counters in &generation.counters {
                for (rule, packets) in counters.take_unlogged() {
                    let rule = rule_at(generation, rule).as_ref().map(name);
                    knockplane_log::omit(Kind::Packet, rule.as_ref(), packets);
                }
            }
        }
    }
}

/// How lines name the rule.
fn name((rule, number): &(Rule, RuleNumber)) -> RuleName {
    RuleName { id: (&*rule.id.0).into(), number: number.to_string().into() }
}

/// The line of a rule that logs. As JSON, what the text says of the packet has fields of its own too.
fn log_packet(rule: &(Rule, RuleNumber), entry: &LoggedPacket) {
    let (Rule { id, chain, log, .. }, number) = rule;
    let prefix = log.as_ref().map_or("", |log| &log.prefix);
    let text = || entry.line(prefix, chain);
    knockplane_log::packet(&name(rule), || {
        if !knockplane_log::is_json() {
            tracing::info!(target: target!("packet"), rule = %id, %number, "{}", text());
            return;
        }
        let ((source, source_port), (destination, destination_port)) = (entry.source(), entry.destination());
        tracing::info!(
            target: target!("packet"),
            rule = %id,
            %number,
            prefix,
            chain,
            side = %entry.side(),
            protocol = entry.protocol(),
            %source,
            source_port,
            %destination,
            destination_port,
            "{}",
            text()
        );
    });
}
