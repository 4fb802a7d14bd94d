//! The schedule of frames. `is_due` in `bench/generator/bpf/generate.c` is the same for frames that the kernel creates.

use std::thread;
use std::time::Duration;

/// Maximum delay that later frames make up.
const MOST_BEHIND: u64 = 1_000_000_000 << 8;

/// Maximum number of frames at once when a delay is made up. After them, the rate is a third higher.
const BUCKET: u64 = 32;

/// Minimum duration of a sleep. Shorter sleeps take longer than requested.
const SHORTEST_SLEEP: u64 = 200_000 << 8;

/// Time between two frames at this rate, in 1/256 ns.
pub(crate) fn interval(rate: u64) -> u64 {
    ((1_000_000_000 << 8) / rate.max(1)).max(1)
}

/// A schedule of frames, with times in 1/256 ns since its start.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The time between two frames; 0 means that a frame is always due.
    interval: u64,
    due: u64,
    /// The earliest time of the next frame, at any delay.
    earliest: u64,
}

impl Pace {
    pub(crate) const fn new(interval: u64) -> Self {
        Pace { interval, due: 0, earliest: 0 }
    }

    /// Number of frames that may be sent now, at most `most`. They count as sent.
    pub(crate) fn allowance(&mut self, now: Duration, most: usize) -> usize {
        if self.interval == 0 {
            return most;
        }
        let now = ticks(now);
        self.due = self.due.max(now.saturating_sub(MOST_BEHIND));
        self.earliest = self.earliest.max(now.saturating_sub(BUCKET * self.interval));
        let mut count = 0;
        while count < most && self.due <= now && self.earliest <= now {
            self.due += self.interval;
            self.earliest += self.interval - self.interval / 4;
            count += 1;
        }
        count
    }

    /// Sleeps until shortly before the next frame, if it is far away.
    pub(crate) fn wait(&self, now: Duration) {
        let left = self.due.saturating_sub(ticks(now));
        if left > SHORTEST_SLEEP {
            // The sleep is short, so that the run can be stopped.
            thread::sleep(Duration::from_nanos((left - SHORTEST_SLEEP / 2) >> 8).min(Duration::from_millis(100)));
        } else {
            std::hint::spin_loop();
        }
    }
}

fn ticks(time: Duration) -> u64 {
    (time.as_nanos() as u64) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn the_rate_is_kept() {
        let mut pace = Pace::new(interval(300_000));
        let sent: usize = (0..1_000_000).map(|us| pace.allowance(Duration::from_micros(us), 64)).sum();
        assert!((299_999..=300_001).contains(&sent), "{sent}");
    }

    #[test]
    fn a_delay_is_made_up_without_a_burst() {
        let mut pace = Pace::new(interval(100_000));
        assert_eq!(pace.allowance(Duration::ZERO, 64), 1);
        // The schedule is 2 ms late: 200 frames are due. A few are sent at once, then 133 in each millisecond.
        let at_once = pace.allowance(2 * MILLISECOND, 1000);
        assert!((33..=44).contains(&at_once), "{at_once}");
        let next: usize = (1..=100).map(|step| pace.allowance(2 * MILLISECOND + step * MILLISECOND / 100, 1000)).sum();
        assert!((132..=134).contains(&next), "{next}");
    }

    #[test]
    fn a_long_delay_is_given_up() {
        let mut pace = Pace::new(interval(1000));
        let late = Duration::from_secs(10);
        let sent: usize = (0..1000).map(|ms| pace.allowance(late + ms * MILLISECOND, 64)).sum();
        assert!((1300..=1400).contains(&sent), "{sent}");
    }
}
