//! The counters of one worker. Only this worker writes them; the manager reads them.
//!
//! A single writer needs no atomic read-modify-write: it loads, adds and stores with relaxed order. Readers never see a
//! counter decrease, and see exact values when the worker is idle.

use std::array;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use knockplane_engine::pipeline::Decision;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::time::Time;
use knockplane_policy::wire::{FrameCount, RingDrops};
use knockplane_ring::SocketStatistics;

/// A number with one writer.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    pub(crate) fn add(&self, amount: u64) {
        self.set(self.load() + amount);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Sets the value. A thread that reads the value with [`Cell::observe`] also sees all earlier writes of this
    /// thread.
    pub(crate) fn publish(&self, value: u64) {
        self.0.store(value, Release);
    }

    pub(crate) fn observe(&self) -> u64 {
        self.0.load(Acquire)
    }

    pub(crate) fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// All counters of one worker except those of rules.
#[derive(Debug)]
pub(crate) struct WorkerCounters {
    /// Received frames, by the side of arrival.
    pub(crate) received: [TrafficCounters; 2],
    /// Sent frames, by the side of departure.
    pub(crate) sent: [TrafficCounters; 2],
    frames: [[Cell; Reason::COUNT]; 2],
    /// Frames that the kernel has for transmission and has not completed. A gauge.
    pub(crate) in_flight: Cell,
    /// Frames of the UMEM that are on no ring and in no list of free frames. A gauge; always 0.
    pub(crate) lost: Cell,
    /// The time of the last heartbeat in nanoseconds of the dataplane's clock; 0 before the first one.
    heartbeat: Cell,
    /// The generation of rules that the worker runs.
    pub(crate) generation: Cell,
    /// The id of the trace to which the worker adds packets; 0 for none.
    pub(crate) trace: Cell,
    /// Nanoseconds.
    pub(crate) busy: Cell,
    /// Nanoseconds.
    pub(crate) asleep: Cell,
    kernel: [[Cell; KERNEL_REASONS.len()]; 2],
}

/// Frames and their bytes, including the Ethernet header.
#[derive(Debug, Default)]
pub(crate) struct TrafficCounters {
    pub(crate) frames: Cell,
    pub(crate) bytes: Cell,
}

impl TrafficCounters {
    pub(crate) fn add(&self, frames: usize, bytes: usize) {
        self.frames.add(frames as u64);
        self.bytes.add(bytes as u64);
    }
}

/// The kernel's counters in the order of [`WorkerCounters::kernel`].
const KERNEL_REASONS: [&str; 5] =
    ["rx-dropped", "rx-invalid-descriptors", "rx-ring-full", "fill-ring-empty", "tx-invalid-descriptors"];

impl Default for WorkerCounters {
    fn default() -> Self {
        WorkerCounters {
            received: array::from_fn(|_| TrafficCounters::default()),
            sent: array::from_fn(|_| TrafficCounters::default()),
            frames: array::from_fn(|_| array::from_fn(|_| Cell::default())),
            in_flight: Cell::default(),
            lost: Cell::default(),
            heartbeat: Cell::default(),
            generation: Cell::default(),
            trace: Cell::default(),
            busy: Cell::default(),
            asleep: Cell::default(),
            kernel: array::from_fn(|_| array::from_fn(|_| Cell::default())),
        }
    }
}

impl WorkerCounters {
    /// Counts each frame of a batch under its decision. The frames in `not_sent`, one bit for each frame, count under
    /// `instead`.
    pub(crate) fn settled(&self, decisions: &[Decision], not_sent: u64, instead: Decision) {
        let ends = decisions.iter().enumerate();
        let ends = ends.map(|(index, decision)| if not_sent >> index & 1 != 0 { instead } else { *decision });
        let count = |end: Option<Decision>, frames: usize| {
            let Some(Decision { verdict, reason }) = end else { return };
            self.frames[verdict.index()][reason.index()].add(frames as u64);
        };
        // Consecutive frames mostly have the same decision. One addition for all of them avoids a dependency of each
        // addition on the previous one.
        let (mut alike, mut frames) = (None, 0);
        for end in ends {
            if alike != Some(end) {
                count(alike.replace(end), std::mem::take(&mut frames));
            }
            frames += 1;
        }
        count(alike, frames);
    }

    /// Counts frames that were received on this side and dropped for this reason without a decision.
    pub(crate) fn undecided(&self, side: Side, reason: Reason, frames: usize, bytes: usize) {
        self.received[side.index()].add(frames, bytes);
        self.frames[Verdict::Drop.index()][reason.index()].add(frames as u64);
    }

    /// Records a heartbeat.
    pub(crate) fn beat(&self, now: Time) {
        self.heartbeat.set(now.as_nanos());
    }

    /// Records the kernel's counters of one side's socket.
    pub(crate) fn note_kernel(&self, side: Side, kernel: &SocketStatistics) {
        let values = [
            // The kernel also counts an empty fill ring in this counter. Each loss must have exactly one reason.
            kernel.rx_dropped.saturating_sub(kernel.fill_ring_empty),
            kernel.rx_invalid_descriptors,
            kernel.rx_ring_full,
            kernel.fill_ring_empty,
            kernel.tx_invalid_descriptors,
        ];
        for (cell, value) in self.kernel[side.index()].iter().zip(values) {
            // The kernel reads its counters one after the other, and in zero-copy mode counts an empty fill ring in one
            // counter only. The difference above can therefore decrease, but a published counter must not.
            cell.set(value.max(cell.load()));
        }
    }

    /// The time of the last heartbeat; `None` before the first one.
    pub(crate) fn heartbeat(&self) -> Option<Time> {
        Some(self.heartbeat.load()).filter(|beat| *beat > 0).map(Time::from_nanos)
    }

    /// Frames with this verdict for this reason.
    pub(crate) fn frames(&self, verdict: Verdict, reason: Reason) -> u64 {
        self.frames[verdict.index()][reason.index()].load()
    }

    /// Frames with this verdict.
    pub(crate) fn total(&self, verdict: Verdict) -> u64 {
        self.frames[verdict.index()].iter().map(Cell::load).sum()
    }

    /// Frames by verdict and reason, with the pairs that can occur.
    pub(crate) fn frame_counts(&self) -> Vec<FrameCount> {
        let pairs = Verdict::ALL.iter().flat_map(|verdict| Reason::ALL.iter().map(move |reason| (*verdict, *reason)));
        pairs
            .filter(|(verdict, reason)| *verdict == Verdict::Drop || reason.may_forward())
            .map(|(verdict, reason)| FrameCount {
                verdict,
                reason,
                frames: self.frames[verdict.index()][reason.index()].load(),
            })
            .collect()
    }

    /// The kernel's counters as of the last housekeeping.
    pub(crate) fn ring_drops(&self) -> Vec<RingDrops> {
        Side::ALL
            .iter()
            .flat_map(|side| {
                KERNEL_REASONS.iter().zip(&self.kernel[side.index()]).map(|(reason, cell)| RingDrops {
                    side: *side,
                    reason: (*reason).to_owned(),
                    frames: cell.load(),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_the_kernel_counts_under_two_names_never_sinks() {
        let counters = WorkerCounters::default();
        let dropped = || counters.ring_drops().first().map(|first| first.frames);
        for (rx_dropped, fill_ring_empty, told) in [(5, 0, 5), (5, 9, 5), (15, 9, 6)] {
            let kernel = SocketStatistics { rx_dropped, fill_ring_empty, ..SocketStatistics::default() };
            counters.note_kernel(Side::Outside, &kernel);
            assert_eq!(dropped(), Some(told));
        }
    }

    #[test]
    fn a_frame_that_is_not_sent_counts_under_the_reason_alone() {
        let counters = WorkerCounters::default();
        let forward = Decision { verdict: Verdict::Forward, reason: Reason::Rule };
        let drop = Decision { verdict: Verdict::Drop, reason: Reason::ChainDefault };
        let decisions = [forward, forward, drop, forward];
        for (not_sent, reason) in [(0b1001, Reason::TxFull), (0b1011, Reason::LinkDown)] {
            counters.settled(&decisions, not_sent, Decision { verdict: Verdict::Drop, reason });
        }
        assert_eq!(counters.frames(Verdict::Forward, Reason::Rule), 1);
        let dropped = |reason| counters.frames(Verdict::Drop, reason);
        assert_eq!([Reason::TxFull, Reason::LinkDown, Reason::ChainDefault].map(dropped), [2, 3, 2]);
        assert_eq!(counters.total(Verdict::Forward) + counters.total(Verdict::Drop), 8);
    }

    #[test]
    fn frames_dropped_without_a_decision_are_in_the_balance() {
        let counters = WorkerCounters::default();
        counters.undecided(Side::Inside, Reason::MultiBuffer, 2, 6000);
        // A part of a frame. The end of the frame has not arrived yet.
        counters.undecided(Side::Inside, Reason::MultiBuffer, 0, 3000);
        let received = &counters.received[Side::Inside.index()];
        assert_eq!((received.frames.load(), received.bytes.load()), (2, 9000));
        assert_eq!(counters.total(Verdict::Drop), received.frames.load());
        let counted: Vec<_> = counters.frame_counts().into_iter().filter(|count| count.frames > 0).collect();
        assert_eq!(counted, [FrameCount { verdict: Verdict::Drop, reason: Reason::MultiBuffer, frames: 2 }]);
    }
}
