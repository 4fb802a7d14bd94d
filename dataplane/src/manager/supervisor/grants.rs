//! Events of grants: the log lines, one for each opening and each closing, with the same fields in the same order, and
//! the counts for metrics.

use std::collections::HashMap;

use knockplane_log::target;
use knockplane_policy::event::{Event, EventKind, Origin};
use knockplane_policy::time::format_duration;
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
/// the list belongs to no door, or a rule added the address.
pub(super) fn log_grant(event: &Event, names: &EventNames<'_>) -> bool {
    let record = &event.record;
    let Some(door) = names.door(&record.list) else { return false };
    let by_packet = event.origin == Some(Origin::Packet);
    let (opened, reason) = match event.kind {
        EventKind::Granted | EventKind::Refreshed if by_packet && record.destination.is_some() => (true, "knock"),
        EventKind::Removed if by_packet => (false, "knock"),
        EventKind::Expired => (false, "expired"),
        EventKind::Evicted => (false, "evicted"),
        _ => return false,
    };
    if !door.log {
        return true;
    }
    let destination = match record.destination.map(|destination| destination.address) {
        None => "any".to_owned(),
        Some(None) => "unknown".to_owned(),
        Some(Some(address)) => address.to_string(),
    };
    // The network of the knock counts for the line, even if the lists do not separate networks.
    let network = if reason == "knock" { event.arrived } else { record.network };
    let (vlan, pppoe) = (network.tags(), network.session());
    let (name, source, open_for) = (&door.name, record.addresses(), format_duration(door.open_for));
    let what = if opened { "door opened" } else { "door closed" };
    let id = event.id();
    tracing::info!(
        target: target!("door"),
        door = name,
        %source,
        %destination,
        vlan,
        pppoe,
        reason,
        open_for,
        %id,
        "{what}"
    );
    true
}
