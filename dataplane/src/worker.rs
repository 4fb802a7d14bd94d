//! A worker: one thread, one core, one queue of both interfaces. `Worker::turn` is the path of a packet, top to bottom.
//!
//! Each turn reads the clock once, notices a new generation of rules by a memory read, decides and settles a batch from
//! each side, and kicks the kernel. Housekeeping follows ten times a second. `idle` describes a worker without frames.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::cache::Cache;
use knockplane_engine::headers;
use knockplane_engine::pipeline::history::History;
use knockplane_engine::pipeline::{Context, Decider, Decision, OutOfOrder};
use knockplane_policy::packet::Side;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::time::Time;
use knockplane_ring::{Dispositions, Rings};

use crate::carrier::Carrier;
use crate::counters::WorkerCounters;
use crate::generation::Generation;
use crate::idle::{Idle, Waker};
use crate::reorder::ReorderBuffer;
use crate::shared::Shared;
use crate::trace::Observers;

/// The interval at which a worker under load reads the kernel's counters and renews its heartbeat, and the longest
/// sleep.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// The longest time that a frame waits in a ring. An older stamp belongs to a previous frame.
const OLDEST_ARRIVAL: Duration = Duration::from_secs(10);

/// Maximum number of resets that a worker sends in a housekeeping turn: 640 a second, so that they delay no packet.
const RESETS: usize = 64;

/// The longest sleep while frames wait for transmission or in the reorder buffer.
const IMPATIENT: Duration = Duration::from_millis(1);

/// One worker's rings, counters and buffers.
pub(crate) struct Worker {
    number: usize,
    rings: Rings,
    shared: Arc<Shared>,
    counters: Arc<WorkerCounters>,
    decider: Decider,
    carrier: Carrier,
    idle: Idle,
    /// `None` with one queue: the worker then decides frames in the order of their arrival.
    reorder_buffer: Option<ReorderBuffer>,
    /// The sample and the trace to which the worker adds packets.
    observers: Option<Observers>,
}

impl Worker {
    /// Prepares a worker on its rings. [`Worker::run`] runs it on its own thread.
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
        let carrier = Carrier::new(Arc::clone(&shared.fast_path), number as u32);
        let reorder_buffer = shared_queues.then(|| ReorderBuffer::new(max_frame));
        Worker {
            number,
            rings,
            shared,
            counters,
            decider: Decider::new(max_frame, RandomState::new().hash_one(number)),
            carrier,
            idle,
            reorder_buffer,
            observers: None,
        }
    }

    /// Wakes the worker from any thread.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        self.idle.waker()
    }

    /// Dropped packets and failed knocks by source, for the manager.
    pub(crate) fn history(&self) -> Arc<History> {
        self.decider.history()
    }

    /// Runs until the shared stop flag is set, and closes the sockets.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut generation = Cache::new(&shared.generation);
        let mut next_housekeeping = Time::default();
        let mut woke = shared.clock.now();
        while !shared.stop.load(Relaxed) {
            let now = shared.clock.now();
            self.carrier.begin(&mut self.decider);
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
                let buffers = self.reorder_buffer.as_ref().is_some_and(|buffer| !buffer.is_empty());
                let waits = self.rings.in_flight() > 0 || buffers;
                self.idle.sleep(&self.rings, if waits { IMPATIENT } else { HOUSEKEEPING });
                woke = shared.clock.now();
                self.counters.asleep.add(nanos(woke.since(fell_asleep)));
            }
        }
    }

    /// The path of a packet: receive, decide, settle, kick. Returns the number of frames.
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
        let (mut total, mut is_done) = (0, true);
        for side in Side::ALL {
            let count = self.rings.receive(side);
            let drops = self.rings.drops();
            is_done &= self.rings.has_emptied();
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
            // Without a sample and a trace, this is all that the worker reads for them.
            let mut observers = self.observers.as_mut();
            match &mut self.reorder_buffer {
                Some(buffer) if shared.stamped.load(Relaxed) => {
                    let arrivals = self.rings.arrivals();
                    let arrived = |index: usize| arrival(arrivals[index], now);
                    match observers.as_mut().and_then(|observers| observers.tracer(generation.number)) {
                        None => self.decider.decide_arrived(side, &frames, arrived, context),
                        Some(mut tracer) => {
                            self.decider.decide_observed(side, &frames, (arrived, true), context, &mut tracer)
                        }
                    };
                    for index in bits(self.decider.out_of_order()) {
                        let Some(pending) = self.decider.pending(index) else { continue };
                        let (frame, arrived) = (frames[index], arrived(index));
                        buffer.insert(OutOfOrder { side, frame, arrived, pending, is_last: false }, |oldest| {
                            self.decider.re_evaluate(oldest, context);
                        });
                    }
                }
                _ => {
                    match observers.as_mut().and_then(|observers| observers.tracer(generation.number)) {
                        None => self.decider.decide(side, &frames, now, context),
                        Some(mut tracer) => {
                            self.decider.decide_observed(side, &frames, (|_| now, false), context, &mut tracer)
                        }
                    };
                }
            }
            let decisions = self.decider.decisions();
            // Flows that a trace shows stay with the workers.
            let decided = |observers: &&mut Observers| observers.decided(side, &frames, decisions, now);
            let stay = observers.as_ref().map_or(0, decided);
            // Every frame leaves the batch here: to the ring of the other side, as a reply to the ring of its own side,
            // or to the free frames. Without a link on the other side nothing is forwarded: the kernel would accept the
            // frames and drop them without counting.
            let reply = self.decider.answered();
            let accepted = forwarded(decisions) & !reply;
            let link = shared.links[side.opposite().index()].load(Relaxed);
            self.carrier.collect(side, &frames, &self.decider, if link { accepted & !stay } else { 0 });
            let wanted = Dispositions { forward: if link { accepted } else { 0 }, reply };
            let settled = self.rings.settle(wanted, |index| self.decider.reply(index));
            let not_sent =
                Decision { verdict: Verdict::Drop, reason: if link { Reason::TxFull } else { Reason::LinkDown } };
            self.counters.settled(decisions, accepted & !settled.forwarded, not_sent);
            if let Some(observers) = observers {
                observers.settled((accepted & !settled.forwarded, not_sent), now);
            }
            self.counters.sent[side.index()].add(settled.replied.count_ones() as usize, settled.replied_bytes);
            let sent = settled.forwarded.count_ones() as usize;
            self.counters.sent[side.opposite().index()].add(sent, settled.forwarded_bytes);
            total += count;
        }
        for side in Side::ALL {
            self.rings.kick(side);
        }
        self.carrier.write(generation, &shared.state, now);
        if let Some(buffer) = &mut self.reorder_buffer {
            buffer.re_evaluate(now, |frame| self.decider.re_evaluate(frame, context));
            is_done &= buffer.is_empty();
        }
        self.carrier.end(is_done, now);
        self.counters.in_flight.set(self.rings.in_flight() as u64);
        total
    }

    fn keep_house(&mut self, now: Time) {
        for side in Side::ALL {
            self.counters.note_kernel(side, &self.rings.statistics(side));
        }
        self.send_resets();
        let wanted = (self.shared.sample.load_full(), self.shared.trace.load_full());
        self.observers = Observers::of(wanted, self.observers.take(), now);
        self.counters.trace.publish(self.observers.as_ref().map_or(0, Observers::trace_id));
        self.counters.lost.set(self.rings.lost() as u64);
        self.counters.beat(now);
    }
}

impl Worker {
    /// Sends queued resets. A reset without room in a ring is discarded: an end that sends another packet receives
    /// another reset.
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

/// The arrival time in a stamp. An implausible stamp is ignored: the frame then arrived at `now`. A stamp can be
/// slightly later than `now`, because the worker reads the clock before it takes the frame from its ring.
fn arrival(stamp: u64, now: Time) -> Time {
    let stamp = Time::from_nanos(stamp);
    if now.since(stamp) < OLDEST_ARRIVAL && stamp.since(now) < OLDEST_ARRIVAL { stamp } else { now }
}

/// The positions of the set bits.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> + Clone {
    std::iter::from_fn(move || {
        let index = (mask != 0).then_some(mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(index)
    })
}

/// The frames of a batch that the rules forward: one bit each.
fn forwarded(decisions: &[Decision]) -> u64 {
    let bit = |(index, decision): (usize, &Decision)| u64::from(decision.verdict == Verdict::Forward) << index;
    decisions.iter().enumerate().map(bit).fold(0, |all, bit| all | bit)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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
