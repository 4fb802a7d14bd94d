//! The behaviour of a worker without frames: it spins for a short time if this can help, then sleeps on its two
//! sockets.
//!
//! Spinning saves the microseconds of a wake-up. But if the kernel receives on the worker's own core, a spinning worker
//! takes this core from the kernel, and hardly any frame arrives. Such a worker must sleep at once. The manager
//! measures the case: the XDP program counts arrivals by core, see `Manager::watch_cores`.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use knockplane_policy::time::Time;
use knockplane_ring::Rings;
use rustix::event::{EventfdFlags, eventfd};

/// Bounds of the spinning time. The lower bound is the cost of a sleep and a wake-up. The upper bound bridges the gaps
/// of some 10,000 packets a second, and is the time that an idle worker wastes once after a burst.
const SHORTEST_SPIN: Duration = Duration::from_micros(10);
const LONGEST_SPIN: Duration = Duration::from_micros(200);

/// Decides how a worker without frames waits.
pub(crate) struct Idle {
    waker: Arc<Waker>,
    /// Whether the configuration forbids sleep.
    busy_poll: bool,
    /// Whether no other work runs on the worker's core. The manager sets this value.
    own_core: Arc<AtomicBool>,
    /// The next spinning time: it grows after each success, and shrinks after each failure.
    spin: Duration,
    idle_since: Option<Time>,
}

impl Idle {
    pub(crate) fn new(busy_poll: bool, own_core: Arc<AtomicBool>) -> io::Result<Self> {
        Ok(Idle { waker: Arc::new(Waker::new()?), busy_poll, own_core, spin: SHORTEST_SPIN, idle_since: None })
    }

    /// Ends a sleep from any thread.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Records that this turn had frames.
    pub(crate) fn worked(&mut self) {
        if self.idle_since.take().is_some() {
            self.spin = (2 * self.spin).min(LONGEST_SPIN);
        }
    }

    /// Records that this turn had no frames. Returns whether the worker must sleep instead of spinning.
    pub(crate) fn is_tired(&mut self, now: Time) -> bool {
        if self.busy_poll {
            return false;
        }
        if !self.own_core.load(Relaxed) {
            return true;
        }
        let since = *self.idle_since.get_or_insert(now);
        if now.since(since) < self.spin {
            return false;
        }
        self.idle_since = None;
        self.spin = (self.spin / 2).max(SHORTEST_SPIN);
        true
    }

    /// Sleeps until a frame arrives, another thread wakes the worker, or the time ends.
    pub(crate) fn sleep(&mut self, rings: &Rings, at_most: Duration) {
        if rings.wait(Some(self.waker.0.as_fd()), at_most) {
            self.waker.clear();
        }
    }
}

/// Ends the present sleep of a worker, or its next sleep.
#[derive(Debug)]
pub(crate) struct Waker(OwnedFd);

impl Waker {
    fn new() -> io::Result<Self> {
        Ok(Waker(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    /// Ends the sleep, or the next one.
    pub(crate) fn wake(&self) {
        // The write fails only after 2^64 - 1 wakes that the worker has not read, and then one wake is pending.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn clear(&self) {
        // Without a pending wake there is nothing to read, which is no error.
        let _ = rustix::io::read(&self.0, &mut [0; size_of::<u64>()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(busy_poll: bool, own_core: bool) -> Idle {
        Idle::new(busy_poll, Arc::new(AtomicBool::new(own_core))).expect("an event descriptor")
    }

    fn at(micros: u64) -> Time {
        Time::from_nanos(micros * 1_000)
    }

    #[test]
    fn a_worker_that_shares_its_core_sleeps_at_once_and_one_that_is_told_to_poll_never() {
        assert!(idle(false, false).is_tired(at(0)));
        assert!(!idle(true, false).is_tired(at(1_000_000)));
    }

    #[test]
    fn spinning_gets_longer_while_it_pays_and_shorter_when_it_does_not() {
        let mut idle = idle(false, true);
        assert!(!idle.is_tired(at(0)) && !idle.is_tired(at(9)) && idle.is_tired(at(10)));
        for _ in 0..10 {
            assert!(!idle.is_tired(at(0)));
            idle.worked();
        }
        assert!(!idle.is_tired(at(0)) && !idle.is_tired(at(199)) && idle.is_tired(at(200)));
        assert!(!idle.is_tired(at(0)) && !idle.is_tired(at(99)) && idle.is_tired(at(100)));
    }

    #[test]
    fn a_wake_is_not_lost_and_not_heard_twice() {
        let waker = Waker::new().expect("an event descriptor");
        let readable = || {
            let mut descriptors = [rustix::event::PollFd::new(&waker.0, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut descriptors, Some(&rustix::event::Timespec::default())).expect("poll") == 1
        };
        assert!(!readable());
        waker.wake();
        waker.wake();
        assert!(readable());
        waker.clear();
        assert!(!readable());
    }
}
