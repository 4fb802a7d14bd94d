//! The log lines about doors: each opening and each closing, with the same fields in the same order.
//!
//! The lists keep of an IPv6 destination only a tag. The manager remembers the addresses, so that a closing can name what it
//! closes: of at most [`MOST`] grants, and not across restarts, which no grant survives.

use std::collections::HashMap;
use std::net::IpAddr;

use knockplane_engine::state::lists::{EndReason, EndedEntry, ListId, Lists};
use knockplane_log::target;
use knockplane_policy::door::{Door, What};
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::{Time, format_duration};

use super::Supervisor;

/// Grants over IPv6 whose destination is remembered: some 8 MB.
const MOST: usize = 65_536;

/// What lines say of a destination that is not known, and of a grant for all of them.
const UNKNOWN: &str = "unknown";
const ANY: &str = "any";

/// A source, and the network that it is in as doors know it.
type Source = (IpAddr, Vlan);

/// The destinations of IPv6 grants: by open list, source and tag.
#[derive(Default)]
pub(crate) struct Destinations(HashMap<(ListId, Source, u32), IpAddr>);

impl Destinations {
    /// A door was opened. Without room, those are forgotten whose grant is gone.
    fn remember(&mut self, open: ListId, source: Source, destination: IpAddr, lists: &Lists, now: Time) {
        if source.0.is_ipv4() {
            return;
        }
        if self.0.len() >= MOST {
            self.0.retain(|(open, (source, vlan), tag), _| {
                lists.in_vlan(*vlan).membership(*source, *tag, now).contains(*open)
            });
        }
        if self.0.len() < MOST {
            self.0.insert((open, source, lists.peer_tag(destination)), destination);
        }
    }

    fn forget(&mut self, open: ListId, source: Source, tag: u32) -> Option<IpAddr> {
        self.0.remove(&(open, source, tag))
    }
}

impl Supervisor {
    /// That a knock opened or closed a door.
    pub(super) fn log_knock(
        &mut self,
        open: ListId,
        (source, vlan): Source,
        destination: IpAddr,
        what: What,
        now: Time,
    ) {
        let by = (source, self.shared.generation.load().table.settings().vlans.of(vlan));
        let lists = &self.shared.state.lists;
        match what {
            What::Opened => self.destinations.remember(open, by, destination, lists, now),
            What::Closed => _ = self.destinations.forget(open, by, lists.peer_tag(destination)),
            What::Stepped(_) | What::Failed(_) => return,
        }
        self.log_door(open, |door| line(door, what == What::Opened, (source, vlan), &destination.to_string(), "knock"));
    }

    /// That a grant is gone by itself. False if its list is no door's.
    pub(super) fn log_end(&mut self, gone: &EndedEntry) -> bool {
        let EndedEntry { list, address, vlan, peer_tag: to, reason: why, .. } = *gone;
        let source = (address, vlan);
        let known = gone
            .peer()
            .map(|end| if end.is_unspecified() { self.destinations.forget(list, source, to) } else { Some(end) });
        let destination = match known {
            None => ANY.to_owned(),
            Some(None) => UNKNOWN.to_owned(),
            Some(Some(end)) => end.to_string(),
        };
        let reason = match why {
            EndReason::Expired => "expired",
            EndReason::Evicted => "evicted",
        };
        self.log_door(list, |door| line(door, false, source, &destination, reason))
    }

    /// Logs of the door with this open list, unless it is not to be logged. False if there is no such door, or no more.
    fn log_door(&self, open: ListId, log: impl FnOnce(&Door)) -> bool {
        let generation = self.shared.generation.load();
        let list = self.shared.state.lists.name(open).unwrap_or_default();
        let door = generation.table.settings().doors.iter().find(|door| door.open_list() == list);
        if let Some(door) = door.filter(|door| door.log) {
            log(door);
        }
        door.is_some()
    }
}

/// One line. `open_for` is how long a grant of the door lasts.
fn line(door: &Door, opened: bool, (source, vlan): Source, destination: &str, reason: &str) {
    let (vlan, pppoe) = (vlan.tags(), vlan.session());
    let (name, open_for) = (&door.name, format_duration(door.open_for));
    let what = if opened { "door opened" } else { "door closed" };
    tracing::info!(target: target!("door"), door = name, %source, %destination, vlan, pppoe, reason, open_for, "{what}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn destinations_of_grants_that_are_gone_give_way() {
        let lists = Lists::new(100).expect("memory");
        let open = lists.bind("door-a", 1).expect("a list");
        let [source, destination]: [IpAddr; 2] =
            ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().expect("an address"));
        let (now, later) = (Time::default(), Time::default() + Duration::from_secs(9));
        let mut destinations = Destinations::default();
        destinations.remember(open, ([192, 0, 2, 1].into(), Vlan::NONE), [192, 0, 2, 2].into(), &lists, now);
        assert!(destinations.0.is_empty(), "an IPv4 tag is the address");
        lists.add_for(open, source, lists.peer_tag(destination), later, now);
        destinations.remember(open, (source, Vlan::NONE), destination, &lists, now);
        for tag in 1..MOST as u32 {
            destinations.0.insert((open, (source, Vlan::NONE), tag), destination);
        }
        let another = "2001:db8::3".parse().expect("an address");
        destinations.remember(open, (source, Vlan::NONE), another, &lists, now);
        assert_eq!(destinations.0.len(), 2, "those that are open, and the new one");
        assert_eq!(destinations.forget(open, (source, Vlan::NONE), lists.peer_tag(destination)), Some(destination));
        assert_eq!(destinations.forget(open, (source, Vlan::NONE), lists.peer_tag(destination)), None);
    }
}
