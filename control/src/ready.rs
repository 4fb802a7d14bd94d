//! Whether packets are being decided about right now, as `/readyz` says it: one line of reason if not.

use std::time::Duration;

use knockplane_policy::packet::Side;
use knockplane_policy::wire::Status;

/// A worker that has not said for this long that it is alive, hangs. Workers say so many times a second even when no
/// packet comes; much less would report a busy machine's scheduler, much more would leave people waiting.
pub const HEARTBEAT_WITHIN: Duration = Duration::from_secs(2);

/// Nothing, or the first reason why packets are not decided about.
///
/// # Errors
/// The reason, for people.
pub fn check(status: &Status) -> Result<(), String> {
    for side in Side::ALL {
        let Some(interface) = status.interfaces.iter().find(|interface| interface.side == side) else {
            return Err(format!("no {side} interface is attached"));
        };
        if !interface.up {
            return Err(format!("the link of the {side} interface {} is down", interface.name));
        }
        if let Some(way) = &interface.way_past {
            return Err(way.clone());
        }
    }
    if status.workers.is_empty() {
        return Err("no worker runs".to_owned());
    }
    for worker in &status.workers {
        match worker.heartbeat_age {
            None => return Err(format!("worker {} has not begun yet", worker.worker)),
            Some(age) if age >= HEARTBEAT_WITHIN => {
                return Err(format!("worker {} has been silent for {:.1} s", worker.worker, age.as_secs_f64()));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_dataplane_at_work_is_ready() {
        assert_eq!(check(&sample::status()), Ok(()));
    }

    #[test]
    fn missing_parts_are_named() {
        let mut status = sample::status();
        status.interfaces[0].way_past = Some("kp-out belongs to a bridge".to_owned());
        assert_eq!(check(&status).unwrap_err(), "kp-out belongs to a bridge");
        status.interfaces[0].way_past = None;
        status.interfaces[1].up = false;
        assert_eq!(check(&status).unwrap_err(), "the link of the inside interface kp-in is down");
        status.interfaces.pop();
        assert_eq!(check(&status).unwrap_err(), "no inside interface is attached");
    }

    #[test]
    fn a_hanging_worker_is_named() {
        let mut status = sample::status();
        status.workers[1].heartbeat_age = None;
        assert_eq!(check(&status).unwrap_err(), "worker 1 has not begun yet");
        status.workers[1].heartbeat_age = Some(Duration::from_millis(2_000));
        assert_eq!(check(&status).unwrap_err(), "worker 1 has been silent for 2.0 s");
        status.workers.clear();
        assert_eq!(check(&status).unwrap_err(), "no worker runs");
    }
}
