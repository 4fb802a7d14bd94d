//! Models of the ticks: workers report the ticks at which they have emptied their rings.

#[path = "../../../src/fast_path/ticks.rs"]
mod ticks;

/// Replaces `src/fast_path/sync.rs`. A relaxed load is one step with the access before: there are too many orders of all.
mod sync {
    use std::sync::atomic::{self, Ordering};

    use shuttle::thread;

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            pub(super) struct $name(atomic::$name);

            impl $name {
                pub(super) fn new(value: $value) -> $name {
                    $name(atomic::$name::new(value))
                }

                pub(super) fn load(&self, order: Ordering) -> $value {
                    step(order);
                    self.0.load(order)
                }

                pub(super) fn store(&self, value: $value, order: Ordering) {
                    thread::yield_now();
                    self.0.store(value, order);
                }

                pub(super) fn compare_exchange(
                    &self,
                    old: $value,
                    new: $value,
                    order: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    step(order);
                    self.0.compare_exchange(old, new, order, failure)
                }
            }
        };
    }

    fn step(order: Ordering) {
        if order != Ordering::Relaxed {
            thread::yield_now();
        }
    }

    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);
}

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use shuttle::sync::Arc;
use shuttle::thread;

use self::ticks::Ticks;
use crate::{Model, at, both};

pub(super) const MODELS: [Model; 2] = [
    ("a worker that reports a tick has decided the frames before it", reported_frames_are_decided),
    ("a tick lasts for its shortest time", ticks_last),
];

/// The time between two turns: longer than a tick.
const TURN: u64 = 20_000_000;

/// No frame.
const NONE: u32 = u32::MAX;

/// Ticks of two workers, and the ring of the first one with at most one frame: the tick when it went up. Each access to the
/// ring is one step.
struct Workers {
    ticks: Ticks,
    ring: AtomicU32,
}

impl Workers {
    /// Tick 1 has begun.
    fn new() -> Workers {
        let ticks = Ticks::new(2);
        assert_eq!([0, 1].map(|worker| ticks.report(worker, 0, at(TURN))), [None, Some(1)]);
        Workers { ticks, ring: AtomicU32::new(NONE) }
    }

    /// A turn of a worker, as `Worker::run`. Returns the tick that it begins.
    fn turn(&self, worker: usize, now: u64) -> Option<u32> {
        let tick = self.ticks.now();
        if worker == 0 {
            thread::yield_now();
            self.ring.store(NONE, Relaxed);
        }
        self.report(worker, tick, now)
    }

    /// Whoever begins a tick finds no frame that went up before the last one.
    fn report(&self, worker: usize, tick: u32, now: u64) -> Option<u32> {
        let next = self.ticks.report(worker, tick, at(now));
        if let Some(next) = next {
            let waiting = self.ring.load(Relaxed);
            assert!(waiting == NONE || waiting + 1 >= next, "a frame of tick {waiting} waits when tick {next} begins");
        }
        next
    }
}

/// The worker with the ring has reported tick 1, and has another turn. The other one reports tick 1, has another turn, and
/// begins the ticks. A frame goes up at any time.
fn reported_frames_are_decided() {
    let workers = Arc::new(Workers::new());
    workers.turn(0, 0);
    let [one, other] = [Arc::clone(&workers), Arc::clone(&workers)];
    let one = thread::spawn(move || one.turn(0, 0));
    let other = thread::spawn(move || {
        other.report(1, 1, 3 * TURN);
        other.turn(1, 5 * TURN)
    });
    workers.ring.store(workers.ticks.now(), Relaxed);
    for worker in [one, other] {
        worker.join().expect("no panic");
    }
}

/// Two workers have two turns at one time: only one tick begins.
fn ticks_last() {
    let workers = Arc::new(Workers::new());
    let other = Arc::clone(&workers);
    let turns = |workers: &Workers, worker| [(); 2].into_iter().filter_map(|()| workers.turn(worker, 3 * TURN)).count();
    let begun = both(move || turns(&other, 0), || turns(&workers, 1));
    assert!(begun[0] + begun[1] <= 1, "two ticks begin at one time");
}
