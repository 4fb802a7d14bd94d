//! The traffic of the last ten minutes, for the web page: a page that is opened shows what happened before.
//!
//! While the page is on, the control process requests the totals of frames once a second, and keeps the rates between two answers.
//! A second without an answer, and the first one of a dataplane, have no rates: a restart is a gap, and no negative rate.
//!
//! | file       | owns |
//! |------------|------|
//! | `mod.rs`   | the kept samples, and their requests |
//! | `rates.rs` | the rates between two answers |

mod rates;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval};

use self::rates::rates_between;
use crate::dataplane::Dataplane;
use crate::json::traffic::{TrafficHistoryJson, TrafficRatesJson, TrafficSampleJson};

/// Samples that are kept.
const KEPT: usize = 600;

/// Time between two samples.
const EVERY: Duration = Duration::from_secs(1);

/// The samples of the last ten minutes.
#[derive(Debug)]
pub struct TrafficHistory {
    /// The time since the Unix epoch when this history began. It distinguishes the numbers of this process from those of another.
    start: Duration,
    samples: Mutex<Samples>,
}

#[derive(Debug, Default)]
struct Samples {
    /// The number of the last one.
    last: u64,
    kept: VecDeque<TrafficSampleJson>,
}

impl Default for TrafficHistory {
    fn default() -> Self {
        TrafficHistory { start: since_epoch(SystemTime::now()), samples: Mutex::default() }
    }
}

impl TrafficHistory {
    /// Adds samples while the process runs.
    pub(crate) async fn follow(&self, dataplane: Dataplane) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = None;
        loop {
            ticks.tick().await;
            let now = dataplane.frame_totals().await.ok();
            let rates = before.as_ref().zip(now.as_ref()).and_then(|(before, now)| rates_between(before, now));
            self.add(SystemTime::now(), rates);
            before = now;
        }
    }

    fn add(&self, at: SystemTime, rates: Option<TrafficRatesJson>) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.kept.len() == KEPT {
            samples.kept.pop_front();
        }
        samples.last += 1;
        let number = samples.last;
        let time_seconds = since_epoch(at).as_secs_f64();
        samples.kept.push_back(TrafficSampleJson { number, time_seconds, rates });
    }

    /// The samples after the one with this number.
    pub(crate) fn since(&self, number: u64) -> TrafficHistoryJson {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let after = samples.kept.partition_point(|sample| sample.number <= number);
        TrafficHistoryJson {
            start: self.start.as_micros() as u64,
            last: samples.last,
            samples: samples.kept.range(after..).cloned().collect(),
        }
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ten_minutes_are_kept() {
        let traffic = TrafficHistory::default();
        assert_eq!((traffic.since(0).last, traffic.since(0).samples.len()), (0, 0));
        for second in 1..=KEPT as u64 + 5 {
            traffic.add(UNIX_EPOCH + Duration::from_secs(second), None);
        }
        let all = traffic.since(0);
        assert_eq!((all.last, all.samples.len(), all.samples[0].number), (605, KEPT, 6));
        assert_eq!(all.samples[0].time_seconds, 6.0);
        let numbers = |since| traffic.since(since).samples.iter().map(|sample| sample.number).collect::<Vec<_>>();
        assert_eq!(numbers(603), [604, 605]);
        assert!(numbers(605).is_empty() && numbers(u64::MAX).is_empty());
    }
}
