//! Answers to control about the doors that run: their sources and their counters.

use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;

use knockplane_engine::state::doors::{DoorTally, Ignored, Visitors};
use knockplane_engine::state::lists::ListId;
use knockplane_policy::door::{Door, Failure, KnockStep};
use knockplane_policy::rule::AddressSet;
use knockplane_policy::wire::{
    DoorSummary, Doors, FailureCount, IgnoredSource, ListEntry, ListPage, ListQuery, ListSummary, MAX_ANSWER_ENTRIES,
    Visitor,
};
use knockplane_policy::word::Word as _;

use super::Administration;
use super::source::network;
use crate::shared::Shared;

impl Administration {
    /// The doors, or the door with this name. Each part of the answer has at most `limit` sources: those that knock,
    /// and those that have a grant.
    pub(super) fn doors(&self, only: Option<&str>, limit: usize) -> Doors {
        let generation = self.shared.generation.load();
        let doors = generation.table.settings().doors.iter();
        let doors: Vec<&Door> = doors.filter(|door| only.is_none_or(|only| door.name == only)).collect();
        let (knocking, more_knock) = self.visitors(&doors, Door::knocking_list, limit);
        let (open, more_are_in) = self.visitors(&doors, Door::open_list, limit);
        let (ignored, more_are_ignored) = self.ignored(&doors, limit);
        let doors = summaries(&self.shared, doors.into_iter(), &self.shared.state.lists.summaries());
        Doors { doors, knocking, open, ignored, truncated: more_knock || more_are_in || more_are_ignored }
    }

    /// At most `limit` sources whose knocks are ignored at these doors, and whether there are more.
    fn ignored(&self, doors: &[&Door], limit: usize) -> (Vec<IgnoredSource>, bool) {
        let state = &self.shared.state;
        let Some(visitors) = state.visitors() else { return (Vec::new(), false) };
        let (now, limit) = (self.shared.clock.now(), limit.min(MAX_ANSWER_ENTRIES));
        let budget = self.rules.config.settings.port_budget;
        let places: HashMap<ListId, usize> = doors
            .iter()
            .enumerate()
            .filter_map(|(place, door)| Some((state.lists.id(&door.open_list())?, place)))
            .collect();
        let most_attempts = |open: ListId| doors[*places.get(&open)?].max_attempts.map(|most| most.count);
        let mut first = BinaryHeap::new();
        let mut truncated = false;
        visitors.visit_ignored(now, most_attempts, |Ignored { source, vlan, open, why, until }| {
            let place = open.map(|open| places.get(&open).copied());
            let counts = match (place, why) {
                (None, _) => budget.ports > 0,
                (Some(None), _) => false,
                (Some(Some(place)), Failure::HeldOff) => !doors[place].hold_off.is_zero(),
                (Some(Some(_)), _) => true,
            };
            if counts {
                first.push((place.flatten(), source, vlan, why, until));
                if first.len() > limit {
                    first.pop();
                    truncated = true;
                }
            }
        });
        let ignored = first.into_sorted_vec().into_iter().map(|(place, source, vlan, reason, until)| IgnoredSource {
            door: place.map(|place| doors[place].name.clone()),
            address: whole(source),
            vlan,
            reason,
            time_left: until.since(now),
        });
        (ignored.collect(), truncated)
    }

    /// The sources in one list of each of these doors, ordered by door and address, and whether there are more.
    fn visitors(&self, doors: &[&Door], list: impl Fn(&Door) -> String, limit: usize) -> (Vec<Visitor>, bool) {
        let names: HashMap<String, &str> = doors.iter().map(|door| (list(door), &*door.name)).collect();
        let query = ListQuery { limit, ..ListQuery::default() };
        let generation = self.shared.generation.load();
        let now = self.shared.clock.now();
        let ListPage { entries, truncated, .. } = self.lists.places(&generation, &self.shared).page_of(
            &query,
            |list| names.contains_key(list),
            MAX_ANSWER_ENTRIES,
            now,
        );
        let visitor = |ListEntry { list, address, vlan, to, steps, time_left, .. }: ListEntry| {
            let door = names.get(&*list).copied().unwrap_or_default().to_owned();
            Visitor { door, address, vlan, to, steps, time_left }
        };
        (entries.into_iter().map(visitor).collect(), truncated)
    }
}

/// Summaries of the doors, from the counters of the lists.
pub(crate) fn summaries<'d>(
    shared: &Shared,
    doors: impl Iterator<Item = &'d Door>,
    lists: &[ListSummary],
) -> Vec<DoorSummary> {
    let lists: HashMap<&str, &ListSummary> = lists.iter().map(|list| (&*list.list, list)).collect();
    let of_door = |door: &Door| {
        let tally = shared.state.visitors().map(|visitors: &Visitors| visitors.counts(&door.name).tally());
        let list = |name: String| lists.get(&*name).copied();
        summary(door, &tally.unwrap_or_default(), list(door.knocking_list()), list(door.open_list()))
    };
    doors.map(of_door).collect()
}

/// A source in the form that doors store: over IPv6 its /64.
fn whole(source: IpAddr) -> AddressSet {
    network(source).map_or_else(|| source.into(), AddressSet::Prefix)
}

/// A knock that times out or is evicted has no packet that a worker could count. The counters of the list contain these
/// knocks.
fn summary(door: &Door, tally: &DoorTally, knocking: Option<&ListSummary>, open: Option<&ListSummary>) -> DoorSummary {
    let of_the_list = |failure| match failure {
        Failure::TimedOut => knocking.map_or(0, |list| list.expired),
        Failure::Evicted => knocking.map_or(0, |list| list.evicted),
        _ => 0,
    };
    let failed = Failure::ALL.iter().zip(tally.failed);
    let words = |steps: &[KnockStep]| steps.iter().map(KnockStep::without_passphrase).collect();
    DoorSummary {
        door: door.name.clone(),
        knock: words(&door.knock),
        close: words(&door.close),
        opens: door.opens.iter().map(ToString::to_string).collect(),
        steps: tally.steps.into_iter().take(door.knock.len()).collect(),
        opened: tally.opened,
        closed: tally.closed,
        failed: failed
            .map(|(reason, times)| FailureCount { reason: *reason, times: times + of_the_list(*reason) })
            .collect(),
        knocking: knocking.map_or(0, |list| list.entries),
        open: open.map_or(0, |list| list.entries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_words_of_its_door_without_passphrases() {
        let text = r#"{"name":"ssh","knock":["tcp/1 syn","udp/2 \"open sesame\"","icmp size=128"],"close":["udp/3 \"bye\""],
            "opens":["tcp/22","udp/60000-61000"]}"#;
        let told = summary(&serde_json::from_str(text).expect("a door"), &DoorTally::default(), None, None);
        assert_eq!(told.knock, ["tcp/1 syn", "udp/2 with its passphrase", "icmp size=128"]);
        assert_eq!(
            (told.close, told.opens),
            (vec!["udp/3 with its passphrase".into()], vec!["tcp/22".into(), "udp/60000-61000".into()])
        );
    }

    #[test]
    fn what_a_list_loses_is_what_came_to_nothing_at_its_door() {
        let door = serde_json::from_str(r#"{"name":"ssh","knock":["tcp/1","tcp/2","tcp/3"]}"#).expect("a door");
        let mut tally = DoorTally { opened: 2, closed: 1, ..DoorTally::default() };
        (tally.steps[0], tally.steps[1], tally.steps[2]) = (9, 5, 2);
        (tally.failed[Failure::StartedOver as usize], tally.failed[Failure::Evicted as usize]) = (4, 10);
        let list = ListSummary { list: String::new(), level: 0, entries: 3, expired: 6, evicted: 7, refused: 10 };
        let told = summary(&door, &tally, Some(&list), None);
        assert_eq!((&told.steps[..], told.knocking, told.open), (&[9, 5, 2][..], 3, 0));
        let failed: Vec<_> = told.failed.iter().map(|count| (count.reason.name(), count.times)).collect();
        assert_eq!(failed[..3], [("started-over", 4), ("timed-out", 6), ("evicted", 17)]);
        assert_eq!(failed.len(), Failure::ALL.len(), "reasons that have not happened are there too");
    }
}
