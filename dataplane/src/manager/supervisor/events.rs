//! The workers' events as log lines.
//!
//! Doors come first, then lists, then packets; none takes another's place. Every event is a line or is counted as a line
//! that was not logged, packets by their rule.

use std::collections::HashMap;
use std::sync::Arc;

use knockplane_engine::state::events::{Event, EventKind};
use knockplane_engine::state::lists::{EndReason, EndedEntry};
use knockplane_log::kind::Kind;
use knockplane_log::{RuleName, target};
use knockplane_policy::eval::log::LoggedPacket;
use knockplane_policy::rule::{Rule, RuleNumber};
use knockplane_policy::time::{Time, format_duration};

use super::Supervisor;
use crate::generation::Generation;
use crate::shared::EVENT_QUEUE;

/// Lines about packets in a tick, 640 a second: as many as people and disks bear.
const MAX_PACKET_LINES: usize = 64;

/// Lines about lists in a tick, 2,560 a second: what a hundred clients cause that knock at once. A flood of forged knocks
/// causes more.
const MAX_LIST_LINES: usize = 256;

/// Events that were lost before the manager saw them, as far as they are among the lines not logged already.
#[derive(Default)]
pub(crate) struct Unlogged {
    doors: u64,
    lists: u64,
}

impl Supervisor {
    /// Logs what happened since the last time, and counts what is not logged.
    pub(super) fn log_events(&mut self, now: Time) {
        for _ in 0..EVENT_QUEUE {
            match self.shared.events.pop(EventKind::Door) {
                Some(Event::Door { open, vlan, source, destination, what }) => {
                    self.log_knock(open, (source, vlan), destination, what, now);
                }
                Some(Event::Gone(gone)) => self.log_gone(&gone),
                Some(Event::Listed { .. } | Event::Logged { .. }) | None => break,
            }
        }
        for number in 0..EVENT_QUEUE {
            let Some(event) = self.shared.events.pop(EventKind::List) else { break };
            if number < MAX_LIST_LINES {
                self.log_list(&event, now);
            } else {
                self.shared.events.count_lost(EventKind::List, 1);
            }
        }
        self.log_packets();
        self.count_unlogged();
    }

    /// Logs packets, and counts those beyond the limit by their rule.
    fn log_packets(&self) {
        let current = self.shared.generation.load_full();
        let mut beyond = HashMap::<(u32, u32), u64>::new();
        for number in 0..EVENT_QUEUE {
            let Some(Event::Logged { table, rule, entry }) = self.shared.events.pop(EventKind::Packet) else { break };
            if number < MAX_PACKET_LINES {
                match self.rule_of(&current, table, rule) {
                    Some(rule) => log_packet(&rule, &entry),
                    None => knockplane_log::omit(Kind::Packet, None, 1),
                }
            } else {
                *beyond.entry((table, rule)).or_default() += 1;
            }
        }
        for ((table, rule), packets) in beyond {
            self.shared.events.count_lost(EventKind::Packet, packets);
            let rule = self.rule_of(&current, table, rule);
            knockplane_log::omit(Kind::Packet, rule.as_ref().map(name).as_ref(), packets);
        }
    }

    /// A rule of the generation with this table, and its number: the one that runs, or one that workers may not have left yet.
    fn rule_of(&self, current: &Generation, table: u32, rule: u32) -> Option<(Rule, RuleNumber)> {
        let find =
            |generation: &Generation| rule_at(generation, rule as usize).filter(|_| generation.table.number() == table);
        find(current).or_else(|| self.published.ledger().book.leaving().iter().find_map(|generation| find(generation)))
    }

    /// Counts the events that found no room as lines that are not logged.
    fn count_unlogged(&mut self) {
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
        let [others, grants] = self.shared.state.lists.unreported();
        let doors = self.shared.events.lost(EventKind::Door) + grants;
        let lists = self.shared.events.lost(EventKind::List) + others;
        knockplane_log::omit(Kind::Door, None, doors - self.unlogged.doors);
        knockplane_log::omit(Kind::List, None, lists - self.unlogged.lists);
        self.unlogged = Unlogged { doors, lists };
    }

    fn log_list(&mut self, event: &Event, now: Time) {
        match *event {
            Event::Listed { list, level, vlan, address, expiry } => {
                let (vlan, pppoe) = (vlan.tags(), vlan.session());
                let list = self.shared.state.lists.name(list).unwrap_or_default();
                let lasts = expiry == Time::NEVER;
                let time = if lasts { "no timeout".to_owned() } else { format_duration(expiry.since(now)) };
                tracing::info!(target: target!("list"), %address, vlan, pppoe, list, level, time, "listed");
            }
            Event::Gone(ref gone) => self.log_gone(gone),
            Event::Door { .. } | Event::Logged { .. } => {}
        }
    }

    /// An entry is gone. The end of a grant is the closing of its door.
    fn log_gone(&mut self, gone: &EndedEntry) {
        if self.log_end(gone) {
            return;
        }
        let EndedEntry { list, level, address, vlan, reason: why, .. } = *gone;
        let (vlan, pppoe) = (vlan.tags(), vlan.session());
        let list = self.shared.state.lists.name(list).unwrap_or_default();
        let what = match why {
            EndReason::Expired => "expired",
            EndReason::Evicted => "evicted: the lists are full",
        };
        tracing::info!(target: target!("list"), %address, vlan, pppoe, list, level, "{what}");
    }
}

/// The rule at this position of a generation, and its number.
fn rule_at(generation: &Generation, position: usize) -> Option<(Rule, RuleNumber)> {
    Some((generation.rules().rules.get(position)?.clone(), *generation.numbers.get(position)?))
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
