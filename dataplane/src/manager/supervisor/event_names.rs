//! Events of the lists with names and wall clock times, for readers outside this process.

use std::sync::Arc;

use knockplane_engine::state::events::{EventEntry, ListEvent, RulePosition};
use knockplane_engine::state::lists::Lists;
use knockplane_policy::door::Door;
use knockplane_policy::event::{Destination, Event, GrantRecord};
use knockplane_policy::packet::Vlan;
use knockplane_policy::rule::{Rule, RuleNumber};
use knockplane_policy::time::Time;
use knockplane_policy::wire::events::PublishedEvent;

use crate::generation::Generation;

/// The running generation, and those that workers may still use: all generations whose rules an event or a logged
/// packet can name.
pub(super) struct Generations {
    pub(super) current: Arc<Generation>,
    pub(super) leaving: Vec<Arc<Generation>>,
}

impl Generations {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Generation>> {
        std::iter::once(&self.current).chain(&self.leaving)
    }

    /// A rule and its number.
    pub(super) fn rule(&self, RulePosition { table, rule }: RulePosition) -> Option<(Rule, RuleNumber)> {
        rule_at(self.iter().find(|generation| generation.table.number() == table)?, rule as usize)
    }
}

/// The sources of names.
#[derive(Clone, Copy)]
pub(super) struct EventNames<'m> {
    pub(super) lists: &'m Lists,
    pub(super) generations: &'m Generations,
    pub(super) now: Time,
    /// See [`crate::clock::wall`].
    pub(super) wall: i64,
}

impl EventNames<'_> {
    /// The event in the form for other processes.
    pub(super) fn event(&self, number: u64, event: &ListEvent) -> Event {
        self.published(number, event).event
    }

    /// As [`EventNames::event`], with the number of the rule.
    pub(super) fn published(&self, number: u64, event: &ListEvent) -> PublishedEvent {
        let ListEvent { kind, entry, cause, at } = *event;
        let rule = cause.and_then(|cause| cause.rule).and_then(|rule| self.generations.rule(rule));
        let rule_number = rule.as_ref().map(|(_, number)| *number);
        let record = self.record(&entry);
        let event = Event {
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
        };
        PublishedEvent { event, rule_number }
    }

    fn record(&self, entry: &EventEntry) -> GrantRecord {
        let EventEntry {
            list,
            level,
            address,
            last,
            is_static,
            by_network,
            vlan,
            peer_tag,
            peer,
            step,
            origin,
            since,
            expiry,
        } = *entry;
        GrantRecord {
            list: self.lists.name(list).unwrap_or_default(),
            level,
            address,
            last,
            is_static,
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
        self.generations.current.table.settings().doors.iter().find(|door| door.open_list() == list)
    }

    /// The present time in nanoseconds since 1970.
    pub(super) fn now_ns(&self) -> u64 {
        self.wall_ns(self.now)
    }

    fn wall_ns(&self, time: Time) -> u64 {
        time.as_nanos().saturating_add_signed(self.wall)
    }
}

/// The rule at this position of a generation, and its number.
pub(super) fn rule_at(generation: &Generation, position: usize) -> Option<(Rule, RuleNumber)> {
    Some((generation.rules().rules.get(position)?.clone(), *generation.numbers.get(position)?))
}
