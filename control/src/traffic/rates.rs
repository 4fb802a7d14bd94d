//! The rates between two answers of the dataplane.

use std::collections::HashMap;
use std::time::Duration;

use knockplane_policy::wire::DropCount;
use knockplane_policy::wire::frame_totals::FrameTotals;

use crate::json::traffic::TrafficRatesJson;

/// Answers that are further apart have no rates: an average would hide the gap.
const LONGEST: Duration = Duration::from_secs(5);

/// The rates between two answers, by the clock of the dataplane; `None` if the dataplane restarted between them, or if they are too
/// far apart.
pub(super) fn rates_between(before: &FrameTotals, now: &FrameTotals) -> Option<TrafficRatesJson> {
    let elapsed = now.uptime.checked_sub(before.uptime).filter(|elapsed| !elapsed.is_zero() && *elapsed <= LONGEST)?;
    if now.started != before.started || now.workers.len() != before.workers.len() {
        return None;
    }
    let rate = |before: u64, now: u64| Some(now.checked_sub(before)? as f64 / elapsed.as_secs_f64());
    let workers = before.workers.iter().zip(&now.workers).map(|(before, now)| rate(*before, *now));
    let workers = workers.collect::<Option<Vec<f64>>>()?;
    let dropped_before: HashMap<_, _> =
        before.drops.iter().map(|DropCount { reason, frames }| (reason, *frames)).collect();
    let dropped = now.drops.iter().map(|DropCount { reason, frames }| {
        Some((reason.clone(), rate(dropped_before.get(reason).copied().unwrap_or(0), *frames)?))
    });
    let dropped = dropped.collect::<Option<Vec<_>>>()?;
    Some(TrafficRatesJson {
        forwarded: rate(before.forwarded, now.forwarded)?,
        kernel: rate(before.kernel, now.kernel)?,
        userspace: workers.iter().sum(),
        workers,
        dropped: dropped.into_iter().filter(|(_, rate)| *rate > 0.0).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The totals of a dataplane that started at this second, after this time.
    fn totals(started: u64, uptime: Duration) -> FrameTotals {
        FrameTotals {
            started: Duration::from_secs(started),
            uptime,
            forwarded: 100,
            kernel: 50,
            workers: vec![70, 30],
            drops: vec![DropCount { reason: "rule".into(), frames: 20 }],
        }
    }

    #[test]
    fn rates_are_differences_by_time() {
        let before = totals(1, Duration::from_secs(10));
        let mut now = totals(1, Duration::from_secs(12));
        now.forwarded += 14;
        now.kernel += 10;
        now.workers[0] += 20;
        now.drops[0].frames += 14;
        now.drops.push(DropCount { reason: "state".into(), frames: 2 });
        let dropped = BTreeMap::from([("rule".to_owned(), 7.0), ("state".to_owned(), 1.0)]);
        let expected =
            TrafficRatesJson { forwarded: 7.0, kernel: 5.0, userspace: 10.0, workers: vec![10.0, 0.0], dropped };
        assert_eq!(rates_between(&before, &now), Some(expected));
    }

    #[test]
    fn a_reason_without_new_drops_is_absent() {
        let rates = rates_between(&totals(1, Duration::from_secs(1)), &totals(1, Duration::from_secs(2)));
        assert!(rates.expect("rates").dropped.is_empty());
    }

    #[test]
    fn a_restart_and_a_gap_have_no_rates() {
        let before = totals(1, Duration::from_secs(10));
        let has_rates = |now: &FrameTotals| rates_between(&before, now).is_some();
        assert!(has_rates(&totals(1, Duration::from_secs(11))));
        assert!(!has_rates(&totals(1, Duration::from_secs(16))), "too far apart");
        assert!(!has_rates(&totals(1, Duration::from_secs(10))), "no time has passed");
        assert!(!has_rates(&totals(1, Duration::from_secs(9))), "time went back");
        assert!(!has_rates(&totals(2, Duration::from_secs(11))), "another process");
        let changed = |change: fn(&mut FrameTotals)| {
            let mut now = totals(1, Duration::from_secs(11));
            change(&mut now);
            has_rates(&now)
        };
        assert!(!changed(|now| now.forwarded -= 1), "a counter decreased");
        assert!(!changed(|now| now.kernel -= 1));
        assert!(!changed(|now| now.workers[1] -= 1));
        assert!(!changed(|now| now.drops[0].frames -= 1));
        assert!(!changed(|now| now.workers.truncate(1)), "another number of workers");
    }
}
