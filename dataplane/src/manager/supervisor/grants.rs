//! Events of grants: the log lines, one for each opening and each closing, with the same fields in the same order, and
//! the counts for metrics.

use std::collections::HashMap;

use knockplane_log::target;
use knockplane_policy::event::{Event, EventKind, Origin};
use knockplane_policy::time::{Time, rfc_3339};
use knockplane_policy::wire::grants::{DoorGrants, GrantChange, GrantChangeCount};
use knockplane_policy::word::Word as _;

use super::event_names::EventNames;

/// The changes of grants since start, by door. A door that is removed keeps its counts. The doors are bounded by the
/// names of lists, of which there are at most [`MAX_LISTS`](knockplane_engine::state::lists::MAX_LISTS) since start.
#[derive(Debug, Default)]
pub(super) struct GrantCounts(HashMap<String, HashMap<GrantChange, u64>>);

impl GrantCounts {
    /// Counts an event, if it changes a grant of a configured door.
    pub(super) fn note(&mut self, event: &Event) {
        let (Some(door), Some(change)) = (&event.door, GrantChange::of(event.kind, event.origin)) else { return };
        *self.0.entry(door.clone()).or_default().entry(change).or_default() += 1;
    }

    /// The counts of a door.
    pub(super) fn of(&self, door: &str) -> DoorGrants {
        let counts = self.0.get(door);
        let times = |change| counts.and_then(|counts| counts.get(&change)).copied().unwrap_or_default();
        let changes = GrantChange::ALL.iter().map(|change| GrantChangeCount { change: *change, times: times(*change) });
        DoorGrants { door: door.to_owned(), changes: changes.collect() }
    }
}

/// Logs the line of an event of a door's open list, unless the log excludes the door. False if there is no such event:
/// the list belongs to no door, or a rule added the address. The fields have the names of the event's document.
pub(super) fn log_grant(event: &Event, names: &EventNames<'_>) -> bool {
    let record = &event.record;
    let Some(door) = names.door(&record.list) else { return false };
    let by_packet = event.origin == Some(Origin::Packet);
    let what = match event.kind {
        EventKind::Granted | EventKind::Refreshed if by_packet && record.destination.is_some() => "door opened",
        EventKind::Removed if by_packet => "door closed",
        EventKind::Expired | EventKind::Evicted => "door closed",
        _ => return false,
    };
    if !door.log {
        return true;
    }
    tracing::info!(
        target: target!("door"),
        door = door.name,
        source = %record.addresses(),
        kind = event.kind.name(),
        entry.cause = event.origin.map(Origin::name),
        entry.to.address = record.destination.and_then(|to| to.address).map(tracing::field::display),
        entry.vlan = record.network.tags(),
        entry.pppoe = record.network.session(),
        entry.arrived.vlan = event.arrived.tags(),
        entry.arrived.pppoe = event.arrived.session(),
        entry.expires = record.expires_ns.map(Time::from_nanos).map(rfc_3339),
        id = %event.id(),
        "{what}"
    );
    true
}
