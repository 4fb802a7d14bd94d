//! A worker: one thread, one core, one queue of both interfaces. The packet's way, top to bottom, is `Worker::turn`.
//!
//! Once a turn: the clock is read, the generation of rules is noticed (a memory read), a batch from each side is
//! decided and settled, and the kernel is kicked. Now and then, housekeeping. What it does without frames is told in
//! `idle`.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use crossbeam::queue::ArrayQueue;
use knockplane_engine::headers;
use knockplane_engine::pipeline::history::History;
use knockplane_engine::pipeline::reset::Reset;
use knockplane_engine::pipeline::{Context, Decider, Decision, Waiting};
use knockplane_engine::state::State;
use knockplane_engine::state::events::logged::LoggedPackets;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::time::Time;
use knockplane_ring::{Dispositions, Rings};

use crate::clock::Clock;
use crate::counters::WorkerCounters;
use crate::early::{Early, Kept};
use crate::generation::Generation;
use crate::idle::{Idle, Waker};

/// How often the kernel's counters are read and the heartbeat is renewed under load, and the longest sleep.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// No frame waits longer in a ring; a stamp that is older is what another frame has left.
const OLDEST_ARRIVAL: Duration = Duration::from_secs(10);

/// Resets that a worker sends in a housekeeping turn at most: 640 a second, so that they delay no packet.
const RESETS: usize = 64;

/// The longest sleep while frames wait to be sent, or to be looked at again.
const IMPATIENT: Duration = Duration::from_millis(1);

/// What all workers and the manager share.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) generation: ArcSwap<Generation>,
    pub(crate) state: State,
    /// See [`crate::clock::wall`].
    pub(crate) wall: AtomicI64,
    pub(crate) logged: LoggedPackets,
    /// Whether each side's link is up, as the manager sees it: what would go out of the other is dropped.
    pub(crate) links: [AtomicBool; 2],
    /// Whether there are several queues whose frames carry the time of their arrival.
    pub(crate) stamped: AtomicBool,
    /// Resets that end connections, for any worker to send.
    pub(crate) resets: ArrayQueue<Reset>,
    pub(crate) stop: AtomicBool,
}

/// See the module.
pub(crate) struct Worker {
    number: usize,
    rings: Rings,
    shared: Arc<Shared>,
    counters: Arc<WorkerCounters>,
    decider: Decider,
    idle: Idle,
    /// With several queues; with one, frames are decided in the order of their arrival.
    early: Option<Early>,
}

impl Worker {
    /// Prepares a worker on its rings, to be run on its own thread.
    pub(crate) fn new(
        number: usize,
        rings: Rings,
        shared: Arc<Shared>,
        counters: Arc<WorkerCounters>,
        mtu: u32,
        idle: Idle,
        shared_queues: bool,
    ) -> Self {
        let max_frame = headers::max_frame(mtu as usize);
        let early = shared_queues.then(|| Early::new(max_frame));
        Worker {
            number,
            rings,
            shared,
            counters,
            decider: Decider::new(max_frame, RandomState::new().hash_one(number)),
            idle,
            early,
        }
    }

    /// Wakes the worker from any thread.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        self.idle.waker()
    }

    /// What it keeps out, for whoever reads it.
    pub(crate) fn history(&self) -> Arc<History> {
        self.decider.history()
    }

    /// Runs until the shared stop flag is set. The sockets close with it.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut generation = Cache::new(&shared.generation);
        let mut next_housekeeping = Time::default();
        let mut woke = shared.clock.now();
        while !shared.stop.load(Relaxed) {
            let now = shared.clock.now();
            let frames = self.turn(generation.load(), now);
            if now >= next_housekeeping {
                self.keep_house(now);
                next_housekeeping = now + HOUSEKEEPING;
                self.counters.busy.add(nanos(now.since(woke)));
                woke = now;
            }
            if frames > 0 {
                self.idle.worked();
            } else if self.idle.is_tired(now) {
                let fell_asleep = shared.clock.now();
                self.counters.busy.add(nanos(fell_asleep.since(woke)));
                let waits = self.rings.in_flight() > 0 || self.early.as_ref().is_some_and(|early| !early.is_empty());
                self.idle.sleep(&self.rings, if waits { IMPATIENT } else { HOUSEKEEPING });
                woke = shared.clock.now();
                self.counters.asleep.add(nanos(woke.since(fell_asleep)));
            }
        }
    }

    /// The packet's way. Returns how many frames there were.
    fn turn(&mut self, generation: &Generation, now: Time) -> usize {
        let shared = &*self.shared;
        let context = Context {
            table: &generation.table,
            state: &shared.state,
            counters: &generation.counters[self.number],
            logged: &shared.logged,
            wall: shared.wall.load(Relaxed).into(),
        };
        self.counters.generation.publish(generation.number);
        let mut total = 0;
        for side in Side::ALL {
            let count = self.rings.receive(side);
            let drops = self.rings.drops();
            for (reason, dropped) in [(Reason::MultiBuffer, drops.multi_buffer), (Reason::Duplicate, drops.duplicate)] {
                if dropped.bytes > 0 {
                    self.counters.undecided(side, reason, dropped.frames, dropped.bytes);
                    total += dropped.frames;
                }
            }
            if count == 0 {
                continue;
            }
            let frames = self.rings.frames();
            self.counters.received[side.index()].add(count, frames.iter().map(|frame| frame.len()).sum());
            match &mut self.early {
                Some(early) if shared.stamped.load(Relaxed) => {
                    let arrivals = self.rings.arrivals();
                    let arrived = |index: usize| arrival(arrivals[index], now);
                    self.decider.decide_arrived(side, &frames, arrived, context);
                    for index in bits(self.decider.early()) {
                        let Some(waiting) = self.decider.waiting(index) else { continue };
                        early.keep((side, arrived(index), waiting), frames[index], |oldest| {
                            look_again(&mut self.decider, oldest, true, context);
                        });
                    }
                }
                _ => {
                    self.decider.decide(side, &frames, now, context);
                }
            }
            let decisions = self.decider.decisions();
            // Every frame of the batch leaves it here: to the other side's ring, with a reply to its own side's, or back to
            // the free frames. Without a link nothing goes out: the kernel would take the frames, and drop them uncounted.
            let reply = self.decider.answered();
            let accepted = forwarded(decisions) & !reply;
            let link = shared.links[side.opposite().index()].load(Relaxed);
            let wanted = Dispositions { forward: if link { accepted } else { 0 }, reply };
            let settled = self.rings.settle(wanted, |index| self.decider.reply(index));
            let not_sent =
                Decision { verdict: Verdict::Drop, reason: if link { Reason::TxFull } else { Reason::LinkDown } };
            self.counters.settled(decisions, accepted & !settled.forwarded, not_sent);
            self.counters.sent[side.index()].add(settled.replied.count_ones() as usize, settled.replied_bytes);
            let sent = settled.forwarded.count_ones() as usize;
            self.counters.sent[side.opposite().index()].add(sent, settled.forwarded_bytes);
            total += count;
        }
        for side in Side::ALL {
            self.rings.kick(side);
        }
        if let Some(early) = &mut self.early {
            early.look(now, |kept, is_last| look_again(&mut self.decider, kept, is_last, context));
        }
        self.counters.in_flight.set(self.rings.in_flight() as u64);
        total
    }

    fn keep_house(&mut self, now: Time) {
        for side in Side::ALL {
            self.counters.note_kernel(side, &self.rings.statistics(side));
        }
        self.send_resets();
        self.counters.lost.set(self.rings.lost() as u64);
        self.counters.beat(now);
    }
}

impl Worker {
    /// Sends resets that wait. What finds no room is left out: an end that goes on to send is told again.
    fn send_resets(&mut self) {
        for _ in 0..RESETS {
            let Some(reset) = self.shared.resets.pop() else { return };
            if self.rings.send(reset.side, reset.frame()) {
                self.counters.sent[reset.side.index()].add(1, reset.frame().len());
                self.rings.kick(reset.side);
            }
        }
    }
}

/// A stamp that makes no sense is none: the frame arrived by now. It may be a little later than `now`, which was read
/// before the frame was taken off its ring.
fn arrival(stamp: u64, now: Time) -> Time {
    let stamp = Time::from_nanos(stamp);
    if now.since(stamp) < OLDEST_ARRIVAL && stamp.since(now) < OLDEST_ARRIVAL { stamp } else { now }
}

/// The positions of the bits that are set.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> + Clone {
    std::iter::from_fn(move || {
        let index = (mask != 0).then_some(mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(index)
    })
}

/// The frames of a batch that are accepted, a bit for each.
fn forwarded(decisions: &[Decision]) -> u64 {
    let bit = |(index, decision): (usize, &Decision)| u64::from(decision.verdict == Verdict::Forward) << index;
    decisions.iter().enumerate().map(bit).fold(0, |all, bit| all | bit)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a frame that came too early waits for still.
fn look_again(decider: &mut Decider, kept: &Kept, is_last: bool, context: Context<'_>) -> Waiting {
    decider.look_again(kept.side, &kept.frame, kept.arrived, (kept.waiting, is_last), context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_counts_if_it_is_near_now_on_either_side() {
        let second = 1_000_000_000;
        let now = Time::from_nanos(100 * second);
        for stamp in [100 * second - 1, 100 * second, 100 * second + 50_000] {
            assert_eq!(arrival(stamp, now), Time::from_nanos(stamp));
        }
        for stamp in [0, 80 * second, 120 * second, u64::MAX] {
            assert_eq!(arrival(stamp, now), now);
        }
    }
}
