//! The dataplane's clock: monotonic, the same zero for every thread, read once a turn.

use std::time::Instant;

use knockplane_policy::time::Time;

/// Counts from when the dataplane started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    zero: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Clock { zero: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
