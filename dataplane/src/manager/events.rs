//! The workers' events as log lines.
//!
//! Doors come first, then lists, then packets; none takes another's place. Every event is a line or is counted as a line
//! that was not logged, packets by their rule.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use knockplane_engine::events::{Event, EventKind};
use knockplane_engine::lists::{Gone, ListId, Why};
use knockplane_log::kind::Kind;
use knockplane_log::target;
use knockplane_policy::door::What;
use knockplane_policy::eval::log::Entry;
use knockplane_policy::packet::Vlan;
use knockplane_policy::rule::Rule;
use knockplane_policy::time::{Time, format_duration};

use super::Manager;
use crate::generation::Generation;
use crate::start::EVENT_QUEUE;

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

impl Manager {
    /// Logs what happened since the last time, and counts what is not logged.
    pub(super) fn log_events(&mut self, now: Time) {
        for _ in 0..EVENT_QUEUE {
            match self.shared.events.pop(EventKind::Door) {
                Some(Event::Door { open, vlan, source, destination, what }) => {
                    self.log_door(open, vlan, (source, destination), what);
                }
                _ => break,
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
            knockplane_log::omit(Kind::Packet, rule.as_ref().map(|rule| &*rule.id.0), packets);
        }
    }

    /// A rule of the generation with this table: the one that runs, or one that workers may not have left yet.
    fn rule_of(&self, current: &Generation, table: u32, rule: u32) -> Option<Rule> {
        let find = |generation: &Generation| {
            (generation.table.number() == table).then(|| generation.rules().rules.get(rule as usize).cloned())?
        };
        find(current).or_else(|| self.book.leaving().iter().find_map(|generation| find(generation)))
    }

    /// Counts the events that found no room as lines that are not logged.
    fn count_unlogged(&mut self) {
        let current = self.shared.generation.load_full();
        let generations: Vec<&Arc<Generation>> = self.book.leaving().iter().chain([&current]).collect();
        for generation in generations {
            for counters in &generation.counters {
                for (rule, packets) in counters.take_unlogged() {
                    let rule = generation.rules().rules.get(rule).map(|rule| &*rule.id.0);
                    knockplane_log::omit(Kind::Packet, rule, packets);
                }
            }
        }
        let doors = self.shared.events.lost(EventKind::Door);
        let lists = self.shared.events.lost(EventKind::List) + self.shared.state.lists.untold();
        knockplane_log::omit(Kind::Door, None, doors - self.unlogged.doors);
        knockplane_log::omit(Kind::List, None, lists - self.unlogged.lists);
        self.unlogged = Unlogged { doors, lists };
    }

    fn log_list(&self, event: &Event, now: Time) {
        let name = |list| self.shared.state.lists.name(list).unwrap_or_default();
        match *event {
            Event::Listed { list, level, vlan, address, expiry } => {
                let (vlan, pppoe) = (vlan.tags(), vlan.session());
                let list = name(list);
                let lasts = expiry == Time::NEVER;
                let time = if lasts { "no timeout".to_owned() } else { format_duration(expiry.since(now)) };
                tracing::info!(target: target!("list"), %address, vlan, pppoe, list, level, time, "listed");
            }
            Event::Gone(Gone { list, level, address, vlan, why, .. }) => {
                let (vlan, pppoe) = (vlan.tags(), vlan.session());
                let list = name(list);
                let what = match why {
                    Why::Expired => "expired",
                    Why::Evicted => "evicted: the lists are full",
                };
                tracing::info!(target: target!("list"), %address, vlan, pppoe, list, level, "{what}");
            }
            Event::Door { .. } | Event::Logged { .. } => {}
        }
    }

    /// That a door was opened or closed by a knock, unless the door is gone by now, or is not to be told of.
    fn log_door(&self, open: ListId, vlan: Vlan, (source, destination): (IpAddr, IpAddr), what: What) {
        let generation = self.shared.generation.load();
        let list = self.shared.state.lists.name(open).unwrap_or_default();
        let doors = &generation.table.settings().doors;
        let Some(door) = doors.iter().find(|door| door.log && door.open_list() == list) else { return };
        let (name, vlan, pppoe) = (&door.name, vlan.tags(), vlan.session());
        match what {
            What::Opened => {
                let time = format_duration(door.open_for);
                tracing::info!(target: target!("door"), door = name, %source, %destination, vlan, pppoe, time, "door opened");
            }
            What::Closed => {
                tracing::info!(target: target!("door"), door = name, %source, %destination, vlan, pppoe, "door closed");
            }
            What::Stepped(_) | What::Failed(_) => {}
        }
    }
}

/// The line of a rule that logs.
fn log_packet(rule: &Rule, entry: &Entry) {
    let prefix = rule.log.as_ref().map_or("", |log| &log.prefix);
    knockplane_log::packet(&rule.id.0, || {
        tracing::info!(target: target!("packet"), rule = %rule.id, "{}", entry.line(prefix, &rule.chain));
    });
}
