//! Events of the lists with names and wall clock times, for readers outside this process.

use std::sync::Arc;

use knockplane_engine::state::events::{EventEntry, ListEvent, RulePosition};
use knockplane_engine::state::lists::Lists;
use knockplane_policy::door::Door;
use knockplane_policy::event::{Destination, Event, GrantRecord};
use knockplane_policy::packet::Vlan;
use knockplane_policy::rule::{Rule, RuleNumber};
use knockplane_policy::time::Time;

use crate::generation::Generation;

/// The sources of names.
#[derive(Clone, Copy)]
pub(super) struct EventNames<'m> {
    pub(super) lists: &'m Lists,
    /// The running generation, and those that workers may still use.
    pub(super) current: &'m Generation,
    pub(super) leaving: &'m [Arc<Generation>],
    pub(super) now: Time,
    /// See [`crate::clock::wall`].
    pub(super) wall: i64,
}

impl EventNames<'_> {
    /// The event in the form for other processes.
    pub(super) fn event(&self, number: u64, event: &ListEvent) -> Event {
        let ListEvent { kind, entry, cause, at } = *event;
        let rule = cause.and_then(|cause| cause.rule).and_then(|rule| rule_of(self.current, self.leaving, rule));
        let record = self.record(&entry);
        Event {
            number,
            start: self.lists.start_id(),
            time_ns: self.wall_ns(at),
            monotonic_ns: at.as_nanos(),
            kind,
            origin: cause.map(|cause| cause.origin),
            rule: rule.map(|(rule, _)| rule.id),
            door: self.door(&record.list).map(|door| door.name.clone()),
            arrived: cause.and_then(|cause| cause.knock).map_or(Vlan::NONE, |knock| knock.vlan),
            user: None,
            record,
        }
    }

    fn record(&self, entry: &EventEntry) -> GrantRecord {
        let EventEntry { list, level, address, by_network, vlan, peer_tag, peer, step, origin, since, expiry } = *entry;
        GrantRecord {
            list: self.lists.name(list).unwrap_or_default(),
            level,
            address,
            by_network,
            network: vlan,
            destination: (peer_tag != 0).then_some(Destination { address: peer }),
            steps: step,
            origin,
            since_ns: self.wall_ns(since),
            expires_ns: (expiry != Time::NEVER).then(|| self.wall_ns(expiry)),
        }
    }

    /// The door with this open list, while the configuration contains it.
    pub(super) fn door(&self, list: &str) -> Option<&Door> {
        self.current.table.settings().doors.iter().find(|door| door.open_list() == list)
    }

    /// The present time in nanoseconds since 1970.
    pub(super) fn now_ns(&self) -> u64 {
        self.wall_ns(self.now)
    }

    fn wall_ns(&self, time: Time) -> u64 {
        time.as_nanos().saturating_add_signed(self.wall)
    }
}

/// A rule and its number, from the running generation or one that workers may still use.
pub(super) fn rule_of(
    current: &Generation,
    leaving: &[Arc<Generation>],
    RulePosition { table, rule }: RulePosition,
) -> Option<(Rule, RuleNumber)> {
    let find =
        |generation: &Generation| rule_at(generation, rule as usize).filter(|_| generation.table.number() == table);
    find(current).or_else(|| leaving.iter().find_map(|generation| find(generation)))
}

/// The rule at this position of a generation, and its number.
pub(super) fn rule_at(generation: &Generation, position: usize) -> Option<(Rule, RuleNumber)> {
    Some((generation.rules().rules.get(position)?.clone(), *generation.numbers.get(position)?))
}
