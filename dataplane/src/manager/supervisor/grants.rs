//! The log lines about doors: each opening and each closing, with the same fields in the same order.

use knockplane_log::target;
use knockplane_policy::event::{Event, EventKind, Origin};
use knockplane_policy::time::format_duration;

use super::event_names::EventNames;

/// The line of an event of a door's list of those that it is open for, unless the door is not to be logged. False if it is no such
/// event: the list is no door's, or an address got into it by a rule.
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
    // What a knock says of its network counts for the line, also where the lists do not tell networks apart.
    let network = if reason == "knock" { event.arrived } else { record.network };
    let (vlan, pppoe) = (network.tags(), network.session());
    let (name, source, open_for) = (&door.name, record.address, format_duration(door.open_for));
    let what = if opened { "door opened" } else { "door closed" };
    tracing::info!(target: target!("door"), door = name, %source, %destination, vlan, pppoe, reason, open_for, "{what}");
    true
}
