//! The tick of the kernel: frames that went up three ticks ago are decided.
//!
//! A frame that goes up waits in a ring. Meanwhile the kernel must not drop later frames of its source: it may be a
//! knock. So the kernel notes the source of each frame that goes up, with the tick. A worker reports the tick at which it
//! began a turn that emptied its rings. A tick ends when all workers have reported it, at most a hundred times a second.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use knockplane_policy::time::Time;

use super::sync::{AtomicU32, AtomicU64};

/// The shortest time between two ticks: longer than the kernel takes from the program to the ring.
const INTERVAL: Duration = Duration::from_millis(10);

/// The tick, and the ticks that workers have reported.
pub(super) struct Ticks {
    now: CachePadded<AtomicU32>,
    /// The earliest time of the next tick.
    next: AtomicU64,
    /// By worker.
    reported: Box<[CachePadded<AtomicU32>]>,
}

impl Ticks {
    /// Ticks for this number of workers, at tick 0.
    pub(super) fn new(workers: usize) -> Ticks {
        Ticks {
            now: CachePadded::new(AtomicU32::new(0)),
            next: AtomicU64::new(0),
            reported: (0..workers).map(|_| CachePadded::new(AtomicU32::new(u32::MAX))).collect(),
        }
    }

    /// The tick. A worker reads it before it receives the frames of a turn.
    #[inline]
    pub(super) fn now(&self) -> u32 {
        self.now.load(Acquire)
    }

    /// Reports that a worker has decided all frames that went up before a tick. Returns the next tick if it begins.
    #[inline]
    pub(super) fn report(&self, worker: usize, tick: u32, now: Time) -> Option<u32> {
        let reported = self.reported.get(worker)?;
        if reported.load(Relaxed) != tick {
            reported.store(tick, Release);
        }
        (now.as_nanos() >= self.next.load(Relaxed)).then(|| self.advance(tick, now)).flatten()
    }

    #[inline(never)]
    fn advance(&self, tick: u32, now: Time) -> Option<u32> {
        if self.reported.iter().any(|reported| reported.load(Acquire) != tick) {
            return None;
        }
        // Only now is the time that of this tick: whoever began the tick has set it before its own report.
        if now.as_nanos() < self.next.load(Relaxed) {
            return None;
        }
        let next = tick.wrapping_add(1);
        self.now.compare_exchange(tick, next, AcqRel, Relaxed).ok()?;
        self.next.store((now + INTERVAL).as_nanos(), Relaxed);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_begins_when_all_workers_have_reported_the_last_one_and_some_time_has_passed() {
        let ticks = Ticks::new(2);
        let at = |milliseconds: u64| Time::from_nanos(milliseconds * 1_000_000);
        assert_eq!(ticks.report(0, ticks.now(), at(100)), None, "the other worker has frames");
        assert_eq!(ticks.report(1, ticks.now(), at(100)), Some(1));
        assert_eq!(ticks.report(0, 0, at(120)), None, "a turn that began before");
        assert_eq!(ticks.report(0, 1, at(109)), None);
        assert_eq!(ticks.report(1, 1, at(109)), None, "too early");
        assert_eq!(ticks.report(0, 1, at(110)), Some(2));
    }
}
