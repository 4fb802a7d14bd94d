//! Detects a worker that hangs, by its heartbeat.

use std::time::Duration;

use knockplane_policy::time::Time;

/// A worker without a heartbeat for this time hangs.
pub(super) const HUNG: Duration = Duration::from_secs(2);

/// The manager's view of a worker's heartbeat.
///
/// The manager's own checks measure the silence, and not the time since the last beat: a new worker has no beat yet,
/// and after a pause of the whole process (SIGSTOP, a suspended virtual machine) the last beat is old, although no
/// worker hangs.
#[derive(Debug, Default)]
pub(crate) struct HeartbeatWatch {
    /// The time of the last check.
    looked: Option<Time>,
    /// The beat at that check; `None` before the first.
    beat: Option<Time>,
    /// The time of the first check that found no newer beat.
    silent_since: Time,
    hangs: bool,
}

impl HeartbeatWatch {
    /// Whether the worker hangs, as of the last check.
    pub(super) const fn hangs(&self) -> bool {
        self.hangs
    }

    /// Checks the time of the last beat, if there was one. Returns whether the worker hangs, if that changed.
    pub(super) fn look(&mut self, beat: Option<Time>, now: Time) -> Option<bool> {
        let paused = self.looked.is_none_or(|looked| now.since(looked) > HUNG);
        if paused || beat != self.beat {
            self.silent_since = now;
        }
        let beats = beat != self.beat;
        (self.looked, self.beat) = (Some(now), beat);
        let hangs = now.since(self.silent_since) > HUNG || (self.hangs && !beats);
        (std::mem::replace(&mut self.hangs, hangs) != hangs).then_some(hangs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        // The clock is the kernel's, which runs since the machine was started.
        Time::from_nanos((3_600_000 + millis) * 1_000_000)
    }

    #[test]
    fn a_worker_that_has_not_beaten_yet_hangs_after_the_limit_and_not_before() {
        let mut watch = HeartbeatWatch::default();
        for millis in (0..=2_000).step_by(100) {
            assert_eq!(watch.look(None, at(millis)), None, "{millis} ms after the start");
        }
        assert_eq!(watch.look(None, at(2_100)), Some(true), "one that never beats is reported");
        assert_eq!(watch.look(None, at(2_200)), None, "once");
        assert_eq!(watch.look(Some(at(2_250)), at(2_300)), Some(false));
    }

    #[test]
    fn a_worker_that_stops_beating_hangs_until_it_beats_again() {
        let mut watch = HeartbeatWatch::default();
        for millis in (0..5_000).step_by(100) {
            assert_eq!(watch.look(Some(at(millis)), at(millis)), None);
        }
        let changes: Vec<_> = (5_000..10_000)
            .step_by(100)
            .filter_map(|millis| Some((millis, watch.look(Some(at(4_900)), at(millis))?)))
            .collect();
        assert_eq!(changes, [(7_000, true)]);
        assert_eq!(watch.look(Some(at(10_000)), at(10_000)), Some(false));
    }

    #[test]
    fn a_pause_of_the_whole_process_is_no_hanging_worker() {
        let mut watch = HeartbeatWatch::default();
        assert_eq!(watch.look(Some(at(0)), at(0)), None);
        // The manager runs again before the worker does.
        assert_eq!(watch.look(Some(at(0)), at(60_000)), None);
        assert_eq!(watch.look(Some(at(60_050)), at(60_100)), None);
        // One that hung before the pause still does.
        for millis in (60_200..63_000).step_by(100) {
            watch.look(Some(at(60_050)), at(millis));
        }
        assert!(watch.hangs);
        assert_eq!(watch.look(Some(at(60_050)), at(120_000)), None);
    }
}
