//! A worker's part of the fast path ([`crate::fast_path`]): it hands flows to the kernel, from their second packet on.
//!
//! A turn first collects the flows of its batches, because the frames leave the batch when it is settled. It writes their
//! verdicts at the end, when the frames themselves are on their way: later frames can then overtake few of them.

mod memory;
#[cfg(test)]
mod tests;

use knockplane_engine::pipeline::Decider;
use knockplane_engine::pipeline::flow_decision::{FlowConditions, FlowDecision};
use knockplane_engine::state::State;
use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;
use knockplane_ring::{FastPath, Flow, FlowVerdict, Written};

use self::memory::FlowMemory;
use crate::fast_path::SharedFastPath;
use crate::generation::Generation;

/// Maximum number of verdicts that a turn writes: each takes two lookups.
const MOST: usize = 8;

/// Maximum number of frames of a batch that are considered.
const CONSIDERED: usize = 16;

/// The flows that one worker hands to the kernel.
pub(crate) struct Carrier {
    fast_path: SharedFastPath,
    queue: u32,
    /// The generation of verdicts in this turn; `None` while the fast path is off.
    generation: Option<u32>,
    /// The tick at the begin of this turn.
    tick: u32,
    /// As many as there is room for: a flow that comes seldom among many others is known when it comes again.
    seen: FlowMemory,
    collected: Vec<(Flow, FlowDecision)>,
    /// The first frame of the next batch that is considered.
    next: u32,
}

impl Carrier {
    pub(crate) fn new(fast_path: SharedFastPath, queue: u32) -> Carrier {
        let seen = FlowMemory::new(fast_path.tables().map_or(0, FastPath::flows_of_queue));
        Carrier { fast_path, queue, generation: None, tick: 0, seen, collected: Vec::with_capacity(MOST), next: 0 }
    }

    /// Begins a turn. Called before the turn reads the rules: a verdict by rules that are replaced meanwhile then belongs to
    /// an earlier generation.
    #[inline]
    pub(crate) fn begin(&mut self, decider: &mut Decider) {
        self.generation = self.fast_path.generation();
        self.tick = self.fast_path.tick();
        decider.keep_flow_decisions(self.generation.is_some());
    }

    /// Ends a turn. `is_done`: whether it has decided all frames that were in the rings when it began.
    #[inline]
    pub(crate) fn end(&self, is_done: bool, now: Time) {
        if is_done && self.generation.is_some() {
            self.fast_path.report(self.queue as usize, self.tick, now);
        }
    }

    /// Collects the flows of the last batch among these frames, which are forwarded: one bit each.
    #[inline]
    pub(crate) fn collect(&mut self, side: Side, frames: &[&[u8]], decider: &Decider, forwarded: u64) {
        if self.generation.is_none() || forwarded == 0 {
            return;
        }
        // Another part of the batch each time, so that flows that find no place do not hide others.
        let first = self.next;
        self.next = (first + CONSIDERED as u32) % u64::BITS;
        let mut left = forwarded.rotate_right(first);
        for _ in 0..CONSIDERED {
            if left == 0 || self.collected.len() == MOST {
                return;
            }
            let index = (left.trailing_zeros() + first) % u64::BITS;
            left &= left - 1;
            let Some(decision) = decider.flow_decision(index as usize) else { continue };
            let Some(flow) = frames.get(index as usize).and_then(|frame| Flow::of(side, frame)) else { continue };
            let is_known = self.seen.remember(flow.short_hash());
            if is_known && self.collected.iter().all(|(collected, _)| *collected != flow) {
                self.collected.push((flow, *decision));
            }
        }
    }

    /// Writes the verdicts of the collected flows. The generation is that of the decisions.
    #[inline]
    pub(crate) fn write(&mut self, generation: &Generation, state: &State, now: Time) {
        if !self.collected.is_empty() {
            self.write_collected(generation, state, now);
        }
    }

    #[inline(never)]
    fn write_collected(&mut self, generation: &Generation, state: &State, now: Time) {
        let (Some(tables), Some(number)) = (self.fast_path.tables(), self.generation) else { return };
        for (flow, decision) in self.collected.drain(..) {
            let Some(trail) = generation.trails.number(&decision.trail) else { continue };
            let Some(conditions) = decision.confirm(&generation.table, state, now) else { continue };
            let FlowConditions { until, epochs, connection } = conditions;
            let verdict = FlowVerdict { generation: number, until, epochs, trail, connection };
            let written = tables.write(self.queue, &flow, &verdict, now);
            self.fast_path.count(written == Written::Stored);
        }
    }
}
