//! Checks whether the dataplane decides packets now, for `/readyz`: one line with the reason if it does not,
//! otherwise one line for each warning.

use std::time::Duration;

use knockplane_policy::packet::Side;
use knockplane_policy::wire::DataplaneStatus;
use knockplane_policy::wire::connections::ConnectionTableStatus;

/// Maximum age of a heartbeat. A worker with an older one hangs. Workers send heartbeats many times a second, also
/// without packets. A much shorter time would report delays of a busy scheduler. A much longer one would delay the
/// report of a real fault.
pub const HEARTBEAT_WITHIN: Duration = Duration::from_secs(2);

/// Checks that the dataplane decides packets.
///
/// # Errors
/// The first reason that the dataplane does not decide packets, as a message.
pub fn check(status: &DataplaneStatus) -> Result<(), String> {
    for side in Side::ALL {
        let Some(interface) = status.interfaces.iter().find(|interface| interface.side == side) else {
            return Err(format!("no {side} interface is attached"));
        };
        if let Some(drift) = interface.drift.first() {
            let others = status.interfaces.iter().flat_map(|interface| &interface.drift);
            let others = others.filter(|other| other.problem != drift.problem).count();
            let more = if others > 0 { format!(" (and {others} more: knockctl show status)") } else { String::new() };
            return Err(format!("{}{more}", drift.problem));
        }
        if !interface.up {
            return Err(format!("the link of the {side} interface {} is down", interface.name));
        }
    }
    if status.workers.is_empty() {
        return Err("no worker runs".to_owned());
    }
    for worker in &status.workers {
        match worker.heartbeat_age {
            None => return Err(format!("worker {} has not started yet", worker.worker)),
            Some(age) if age >= HEARTBEAT_WITHIN => {
                return Err(format!("worker {} has sent no heartbeat for {:.1} s", worker.worker, age.as_secs_f64()));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Conditions that need an operator, although the dataplane decides packets.
pub fn warnings(status: &DataplaneStatus) -> Vec<String> {
    let table = status.connections.iter().filter_map(ConnectionTableStatus::warning);
    let damages = [&status.static_entries_damage, &status.journal.restore.damage, &status.stored_counters.damage]
        .into_iter()
        .flatten()
        .cloned();
    let unconfirmed = status.settings_differ_from_file.then(|| {
        "the doors and [policy] are those from before a reload that was not confirmed, and not those of the configuration \
         file: `knockctl reload` takes the file's"
            .to_owned()
    });
    let offload = status.offload.warnings().into_iter().map(|warning| warning.to_string());
    let unwritten = status.journal.warning().into_iter().chain(status.stored_counters.warning());
    table.chain(offload).chain(damages).chain(unwritten).chain(unconfirmed).collect()
}

/// The text for a dataplane that is ready.
pub fn text(status: &DataplaneStatus) -> String {
    let warnings = warnings(status).into_iter().map(|warning| format!("warning: {warning}\n"));
    ["ready\n".to_owned()].into_iter().chain(warnings).collect()
}

#[cfg(test)]
mod tests {
    use knockplane_policy::wire::offload::Offload;
    use knockplane_policy::wire::{Drift, DriftKind, JournalStatus};

    use knockplane_policy::wire::StoredCountersStatus;

    use super::*;
    use crate::sample;

    #[test]
    fn a_working_dataplane_is_ready() {
        assert_eq!(check(&sample::status()), Ok(()));
    }

    #[test]
    fn a_full_table_of_connections_is_a_warning_for_a_minute() {
        let mut status = sample::status();
        assert_eq!(text(&status), "ready\n");
        let table = |age| ConnectionTableStatus { known: 9, capacity: 8, refused: 1, last_refused: Some(age) };
        status.connections = Some(table(Duration::from_secs(59)));
        let text = text(&status);
        assert!(text.starts_with("ready\nwarning: the table of connections is full: 1 packet of new"), "{text}");
        assert!(text.lines().count() == 2 && check(&status).is_ok(), "{text}");
        status.connections = Some(table(Duration::from_secs(60)));
        assert_eq!(warnings(&status), Vec::<String>::new());
        status.static_entries_damage = Some("lists.state is damaged at byte 7".to_owned());
        assert!(super::text(&status).contains("\nwarning: lists.state is damaged at byte 7\n"));
        status.static_entries_damage = None;
        status.journal.problem = Some("No space left on device".to_owned());
        status.journal.restore.damage = Some("grants.state is damaged at byte 7".to_owned());
        let text = super::text(&status);
        assert!(text.contains("warning: grants are not on the disk") && text.contains("at byte 7"), "{text}");
        status.journal = JournalStatus { delay_ms: 1_234, ..JournalStatus::default() };
        let text = super::text(&status);
        assert!(text.contains("\nwarning: the disk takes 1.2 s for changes of grants"), "{text}");
        status.journal.delay_ms = 499;
        assert_eq!(warnings(&status), Vec::<String>::new());
        status.stored_counters.problem = Some("counters.state: No space left on device".to_owned());
        status.stored_counters.damage = Some("counters.state is damaged: it was cut off".to_owned());
        let text = super::text(&status);
        assert!(text.contains("warning: the counters of rules are not") && text.contains("was cut off"), "{text}");
        status.stored_counters = StoredCountersStatus::default();
        status.offload = Offload { checksums: [0, 4], too_long: 2, last: Some(Duration::from_secs(599)) };
        let text = self::text(&status);
        assert!(
            text.contains("warning: 4 packets have no checksum among first packets and knocks from inside"),
            "{text}"
        );
        assert!(text.contains("warning: 2 frames were dropped") && text.contains("`ethtool -K INTERFACE"), "{text}");
        status.offload.last = Some(Duration::from_secs(600));
        assert_eq!(warnings(&status), Vec::<String>::new());
        status.settings_differ_from_file = true;
        assert!(super::text(&status).contains("\nwarning: the doors and [policy] are those from before a reload"));
    }

    #[test]
    fn missing_parts_are_named() {
        let mut status = sample::status();
        let drift = |kind, problem: &str| Drift { kind, problem: problem.to_owned() };
        status.interfaces[0].drift.push(drift(DriftKind::Master, "kp-out belongs to a bridge"));
        assert_eq!(check(&status).unwrap_err(), "kp-out belongs to a bridge");
        // The same problem on both sides is reported once.
        status.interfaces[1].drift.push(drift(DriftKind::Master, "kp-out belongs to a bridge"));
        assert_eq!(check(&status).unwrap_err(), "kp-out belongs to a bridge");
        status.interfaces[1].drift.push(drift(DriftKind::Mtu, "kp-in has an MTU of 9000"));
        let told = "kp-out belongs to a bridge (and 1 more: knockctl show status)";
        assert_eq!(check(&status).unwrap_err(), told);
        status.interfaces.iter_mut().for_each(|interface| interface.drift.clear());
        status.interfaces[1].up = false;
        assert_eq!(check(&status).unwrap_err(), "the link of the inside interface kp-in is down");
        status.interfaces.pop();
        assert_eq!(check(&status).unwrap_err(), "no inside interface is attached");
    }

    #[test]
    fn a_worker_that_hangs_is_named() {
        let mut status = sample::status();
        status.workers[1].heartbeat_age = None;
        assert_eq!(check(&status).unwrap_err(), "worker 1 has not started yet");
        status.workers[1].heartbeat_age = Some(Duration::from_millis(2_000));
        assert_eq!(check(&status).unwrap_err(), "worker 1 has sent no heartbeat for 2.0 s");
        status.workers.clear();
        assert_eq!(check(&status).unwrap_err(), "no worker runs");
    }
}
