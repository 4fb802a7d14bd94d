//! What a worker does without frames: it spins for a short while if that can pay, then sleeps on its two sockets.
//!
//! Spinning saves the microseconds that waking up takes. But where the kernel receives on the worker's own core, every
//! turn of a spinning worker is taken from the kernel, and hardly a frame comes in: there it must sleep at once. Which
//! is the case is measured: the XDP program counts arrivals by core, see `Manager::watch_cores`.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use knockplane_policy::time::Time;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

/// Bounds of how long a worker spins. The lower one is what a sleep and a wake-up cost; the upper one bridges the gaps
/// of some 10,000 packets a second, and is what an idle worker wastes once after a burst.
const SHORTEST_SPIN: Duration = Duration::from_micros(10);
const LONGEST_SPIN: Duration = Duration::from_micros(200);

/// See the module.
pub(crate) struct Idle {
    sleep: Sleep,
    /// Never sleep: configured.
    busy_poll: bool,
    /// Whether the worker has its core to itself; the manager finds out.
    own_core: Arc<AtomicBool>,
    /// How long to spin this time: longer after each time that it paid, shorter after each time that it did not.
    spin: Duration,
    idle_since: Option<Time>,
}

impl Idle {
    pub(crate) fn on(sockets: [RawFd; 2], busy_poll: bool, own_core: Arc<AtomicBool>) -> io::Result<Self> {
        Ok(Idle { sleep: Sleep::on(sockets)?, busy_poll, own_core, spin: SHORTEST_SPIN, idle_since: None })
    }

    /// Ends a sleep from any thread.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.sleep.waker)
    }

    /// There were frames in this turn.
    pub(crate) fn worked(&mut self) {
        if self.idle_since.take().is_some() {
            self.spin = (2 * self.spin).min(LONGEST_SPIN);
        }
    }

    /// There were none. Whether it is time to sleep, and not to spin on.
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

    /// Sleeps until a frame arrives, somebody wakes the worker, or the time is over.
    pub(crate) fn sleep(&mut self, at_most: Duration) {
        self.sleep.until_frames(at_most);
    }
}

/// A sleep that frames on either socket, or the manager, end.
///
/// Edge-triggered: a worker sleeps only after a turn that found both receive rings empty, and the kernel remembers a
/// frame that came in between.
struct Sleep {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
}

impl Sleep {
    fn on(sockets: [RawFd; 2]) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (token, socket) in sockets.iter().enumerate() {
            poll.registry().register(&mut SourceFd(socket), Token(token), Interest::READABLE)?;
        }
        let waker = Arc::new(Waker::new(poll.registry(), Token(sockets.len()))?);
        Ok(Sleep { poll, events: Events::with_capacity(4), waker })
    }

    fn until_frames(&mut self, at_most: Duration) {
        // An interrupted sleep is a short one.
        let _ = self.poll.poll(&mut self.events, Some(at_most));
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn idle(busy_poll: bool, own_core: bool) -> (Idle, [UnixStream; 2]) {
        let (one, other) = UnixStream::pair().expect("a pair of sockets");
        let own_core = Arc::new(AtomicBool::new(own_core));
        let idle = Idle::on([one.as_raw_fd(), other.as_raw_fd()], busy_poll, own_core).expect("an event queue");
        (idle, [one, other])
    }

    fn at(micros: u64) -> Time {
        Time::from_nanos(micros * 1_000)
    }

    #[test]
    fn a_worker_that_shares_its_core_sleeps_at_once_and_one_that_is_told_to_poll_never() {
        assert!(idle(false, false).0.is_tired(at(0)));
        assert!(!idle(true, false).0.is_tired(at(1_000_000)));
    }

    #[test]
    fn spinning_gets_longer_while_it_pays_and_shorter_when_it_does_not() {
        let (mut idle, _sockets) = idle(false, true);
        assert!(!idle.is_tired(at(0)) && !idle.is_tired(at(9)) && idle.is_tired(at(10)));
        for _ in 0..10 {
            assert!(!idle.is_tired(at(0)));
            idle.worked();
        }
        assert!(!idle.is_tired(at(0)) && !idle.is_tired(at(199)) && idle.is_tired(at(200)));
        assert!(!idle.is_tired(at(0)) && !idle.is_tired(at(99)) && idle.is_tired(at(100)));
    }
}
