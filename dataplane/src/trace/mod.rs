//! A live trace: workers copy the packets that fit a filter, with the decisions about them and the facts of these decisions.
//!
//! ```text
//! operator ── begin ──► administration ──► Shared ──► worker: fits? ──► staged ── settled ──► queue ──► read ──► operator
//! ```
//! A process has one trace at a time. It ends at its time, or when nobody reads it for two seconds. It is bounded in packets a
//! second and in memory, which is allocated before it begins. A worker notices a trace in its housekeeping, and until then has
//! one comparison for each batch, which a sample of traffic shares.
//!
//! The filter is evaluated on the headers that the decider reads. Terms about the verdict are evaluated when the frames have left
//! the batch: a frame that found no room in a ring is dropped. The flows that fit are not handed to the kernel while the trace
//! runs.
//!
//! | file         | owns |
//! |--------------|------|
//! | this         | the trace that workers and the administration share |
//! | `observers.rs` | a worker's part |

mod observers;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam::queue::ArrayQueue;
use knockplane_engine::pipeline::Decision;
use knockplane_engine::state::list_set::{ListId, ListSet};
use knockplane_engine::state::lists::Lists;
use knockplane_policy::door::What;
use knockplane_policy::packet::Side;
use knockplane_policy::rule::ConnectionState;
use knockplane_policy::time::Time;
use knockplane_policy::trace::{TraceFilter, TracedFacts, TracedKnock};
use knockplane_policy::wire::trace::{TRACED_BYTES, TracedPacket};

pub(crate) use self::observers::Observers;

/// Maximum number of recorded rules, as [`Observed`](knockplane_engine::pipeline::observer::Observed) has them.
const RULES: usize = 4;

/// Maximum number of recorded results at doors.
const KNOCKS: usize = 4;

/// A trace in progress.
pub(crate) struct PacketTrace {
    /// The time of its begin in nanoseconds, so that no trace of another run of the dataplane has the same.
    pub(crate) id: u64,
    /// Its end.
    pub(crate) until: Time,
    pub(crate) filter: TraceFilter,
    /// Packets in a second.
    rate: u32,
    packets: ArrayQueue<TraceRecord>,
    /// Room for the packets of a batch, for each worker.
    staging: ArrayQueue<Vec<TraceRecord>>,
    missed: AtomicU64,
    /// The second in which packets were counted last, and their number: 32 bits each.
    counted: AtomicU64,
}

/// A packet, and the decision about it.
struct TraceRecord {
    /// Its position in the batch.
    frame: usize,
    arrived: Time,
    side: Side,
    decision: Decision,
    generation: u64,
    /// `None` if rules do not see the frame.
    facts: Option<FactsRecord>,
    bytes: [u8; TRACED_BYTES],
    /// The length of the frame.
    length: usize,
}

/// The facts of a decision.
#[derive(Clone, Copy)]
struct FactsRecord {
    rules: [Option<u32>; RULES],
    last: Option<u32>,
    state: Option<ConnectionState>,
    lists: [ListSet; 2],
    knocks: [Option<(ListId, What)>; KNOCKS],
    answered: bool,
}

impl PacketTrace {
    /// A trace with room for two seconds of packets.
    pub(crate) fn new(id: u64, until: Time, filter: TraceFilter, rate: u32, workers: usize) -> PacketTrace {
        let staging = ArrayQueue::new(workers.max(1));
        for _ in 0..workers {
            let _ = staging.push(observers::staging());
        }
        PacketTrace {
            id,
            until,
            filter,
            rate,
            packets: ArrayQueue::new(2 * rate.max(32) as usize),
            staging,
            missed: AtomicU64::new(0),
            counted: AtomicU64::new(0),
        }
    }

    /// Adds a packet, unless it is over the rate or finds no room.
    fn add(&self, record: TraceRecord, now: Time) {
        if !self.is_within_rate(now) || self.packets.push(record).is_err() {
            self.missed.fetch_add(1, Relaxed);
        }
    }

    /// Whether another packet is within the rate. With several workers, a few more can be.
    fn is_within_rate(&self, now: Time) -> bool {
        let second = (now.as_nanos() / 1_000_000_000) << 32;
        let counted = self.counted.load(Relaxed);
        if counted >> 32 << 32 != second {
            self.counted.store(second | 1, Relaxed);
            return true;
        }
        (counted as u32) < self.rate && (self.counted.fetch_add(1, Relaxed) as u32) < self.rate
    }

    /// The number of packets that fit, but are not in the trace.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    /// Removes and returns packets, at most `most`, in the order of their arrival.
    pub(crate) fn take(&self, most: usize, wall: i64, lists: &Lists) -> Vec<TracedPacket> {
        let mut records: Vec<_> = std::iter::from_fn(|| self.packets.pop()).take(most).collect();
        records.sort_by_key(|record| record.arrived);
        records.into_iter().map(|record| record.packet(wall, lists)).collect()
    }
}

impl TraceRecord {
    fn packet(self, wall: i64, lists: &Lists) -> TracedPacket {
        let at = i128::from(self.arrived.as_nanos()) + i128::from(wall);
        TracedPacket {
            at: u64::try_from(at).unwrap_or_default(),
            side: self.side,
            verdict: self.decision.verdict,
            reason: self.decision.reason,
            generation: self.generation,
            facts: self.facts.map(|facts| facts.named(lists)),
            bytes: self.bytes[..self.length.min(TRACED_BYTES)].to_vec(),
            length: self.length,
        }
    }
}

impl FactsRecord {
    fn named(self, lists: &Lists) -> TracedFacts {
        let names = |set: ListSet| set.lists().filter_map(|list| lists.name(list)).collect();
        let knock = |(open, what): (ListId, What)| {
            let open = lists.name(open)?;
            let door = open.strip_prefix("door-").unwrap_or(&open).to_owned();
            Some(TracedKnock { door, outcome: what.into() })
        };
        TracedFacts {
            matched: self.rules.into_iter().flatten().map(|rule| rule as usize).collect(),
            last: self.last.map(|rule| rule as usize),
            state: self.state,
            lists: self.lists.map(names),
            knocks: self.knocks.into_iter().flatten().filter_map(knock).collect(),
            answered: self.answered,
        }
    }
}
