//! The dataplane's clock: CLOCK_MONOTONIC, which all threads and the XDP program share. A worker reads it once a turn.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use knockplane_policy::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// The clock, and the start time of the dataplane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Time,
    /// The start time since the Unix epoch.
    started_since_epoch: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let started_since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { started: read(), started_since_epoch }
    }

    pub(crate) fn now(&self) -> Time {
        read()
    }

    /// The start time of the dataplane since the Unix epoch. A later change of the wall clock does not change it.
    pub(crate) fn started_since_epoch(&self) -> Duration {
        self.started_since_epoch
    }

    pub(crate) fn uptime(&self) -> Duration {
        read().since(self.started)
    }
}

/// The wall time at which the monotonic clock was 0, in nanoseconds since 1970 (UTC). The value changes when the wall
/// clock is set.
pub(crate) fn wall() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
    i64::try_from(since_1970 - i128::from(read().as_nanos())).unwrap_or_default()
}

fn read() -> Time {
    let now = clock_gettime(ClockId::Monotonic);
    Time::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}
