//! Detects that the wall clock was set. Expiry does not depend on the wall clock, but the times in logs, metrics and
//! state files do, and so do rules with `time=`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Supervisor;
use crate::clock;

/// A smaller change in a tick is a correction: time services slew the clock by at most 0.05 ms in a tick.
const STEP: Duration = Duration::from_millis(500);

/// The state of the wall clock.
#[derive(Debug, Default)]
pub(crate) struct WallClockWatch {
    /// The wall time at which the monotonic clock was 0, as of the last look.
    offset: Option<i64>,
    /// Whether the last look found a step. The two clocks are not read at once: only a step that the next look finds as
    /// well is one.
    is_suspect: bool,
    steps: u64,
}

impl WallClockWatch {
    /// The number of steps since start.
    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    /// Compares the offset of the wall clock with that of the last look. Returns the length of a step that is certain.
    fn look(&mut self, offset: i64) -> Option<Duration> {
        let before = *self.offset.get_or_insert(offset);
        let step = Duration::from_nanos(offset.abs_diff(before));
        let is_step = step >= STEP;
        if is_step && !std::mem::replace(&mut self.is_suspect, true) {
            return None;
        }
        self.is_suspect = false;
        self.offset = Some(offset);
        self.steps += u64::from(is_step);
        is_step.then_some(step)
    }
}

impl Supervisor {
    /// Publishes the offset of the wall clock, and logs that the clock was set.
    pub(super) fn watch_wall_clock(&mut self) {
        let offset = clock::wall();
        self.shared.wall.store(offset, Relaxed);
        if let Some(step) = self.wall_clock.look(offset) {
            tracing::warn!(
                seconds = step.as_secs_f64(),
                "the wall clock was set: times in the log before and after differ by this, expiry is not affected"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_step_counts_once_and_corrections_do_not() {
        let mut watch = WallClockWatch::default();
        let mut offset = 1_800_000_000 * SECOND;
        for _ in 0..100_000 {
            offset += 50_000;
            assert_eq!(watch.look(offset), None);
        }
        for step in [-3_600, 1, 86_400] {
            offset += step * SECOND;
            assert_eq!(watch.look(offset), None, "the clocks may have been read at different times");
            let found = watch.look(offset).map(|step| step.as_secs());
            assert_eq!(found, Some(step.unsigned_abs()));
            assert_eq!(watch.look(offset), None, "it counts once");
        }
        assert_eq!(watch.steps(), 3);
    }

    #[test]
    fn a_pause_between_the_reads_of_the_two_clocks_is_no_step() {
        let mut watch = WallClockWatch::default();
        for offset in [0, 5 * SECOND, 0, -7 * SECOND, 0] {
            assert_eq!(watch.look(offset), None);
        }
        assert_eq!(watch.steps(), 0);
    }
}
