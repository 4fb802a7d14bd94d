//! Decides about a batch of frames.
//!
//! The decider processes packets in the order of their frames, so that each packet sees the effects of the packets
//! before it.

use std::sync::Arc;

use knockplane_policy::eval::limits::Random;
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::time::Time;

use crate::headers;
use crate::pipeline::dependencies::Dependencies;
use crate::pipeline::effects::{FirstEvaluation, OutOfOrder, PendingSteps, ReEvaluation};
use crate::pipeline::evaluation::RuleEvaluation;
use crate::pipeline::flow_decision::FlowDecision;
use crate::pipeline::history::{History, HistoryCause, HistoryWriter, LastPacket, RefusedPackets};
use crate::pipeline::local::WorkerLocal;
use crate::pipeline::observer::{Observed, Observer, Unobserved};
use crate::pipeline::prepare::{FrameGroup, GROUP, PreparedGroup, PreparedPacket};
use crate::pipeline::reply::Reply;
use crate::pipeline::run_cache::PacketRun;
use crate::pipeline::{Context, Decision, non_ip};

/// Maximum number of frames in a batch: a burst of a ring. A larger batch would delay its first frame more. A smaller
/// one would spread the cost of a turn over fewer frames.
pub const BATCH: usize = 64;

/// Decides about the frames of one worker, and contains the results of the last batch.
pub struct Decider {
    max_frame: usize,
    local: WorkerLocal,
    prepared: Box<PreparedGroup>,
    decisions: [Decision; BATCH],
    decided: usize,
    /// Frames that rules did not see: one bit each.
    non_ip: u64,
    /// Frames whose packets were evaluated, without those that the run cache decided: one bit each.
    evaluated: u64,
    dependencies: Box<[Dependencies; BATCH]>,
    /// Whether decisions about flows are kept.
    keeps_flow_decisions: bool,
    flow_decisions: Box<[Option<FlowDecision>; BATCH]>,
    /// Frames with pending steps: one bit each.
    out_of_order: u64,
    pending: Box<[PendingSteps; BATCH]>,
    /// Frames with a reply: one bit each.
    answered: u64,
    replies: Box<[Reply; BATCH]>,
}

impl Decider {
    /// Creates a decider for frames of at most `max_frame` bytes, see [`headers::max_frame`], and for one
    /// [`State`](crate::state::State), whose lookups it caches. `seed` is the seed of `random` matchers.
    pub fn new(max_frame: usize, seed: u64) -> Decider {
        let undecided = Decision { verdict: Verdict::Drop, reason: Reason::ChainDefault };
        Decider {
            max_frame,
            local: WorkerLocal::new(Random(seed), HistoryWriter::new(seed.rotate_left(29))),
            prepared: Box::new(PreparedGroup::new()),
            decisions: [undecided; BATCH],
            decided: 0,
            non_ip: 0,
            evaluated: 0,
            dependencies: Box::new([Dependencies::on_table(0); BATCH]),
            keeps_flow_decisions: false,
            flow_decisions: Box::new([None; BATCH]),
            out_of_order: 0,
            pending: Box::new([PendingSteps::default(); BATCH]),
            answered: 0,
            replies: Box::new(std::array::from_fn(|_| Reply::default())),
        }
    }

    /// Dropped packets and failed knocks of this worker, by source.
    pub fn history(&self) -> Arc<History> {
        self.local.history.history()
    }

    /// Keeps the decisions about flows from the next batch on, or not: see [`Decider::flow_decision`].
    pub fn keep_flow_decisions(&mut self, keep: bool) {
        self.keeps_flow_decisions = keep;
    }

    /// Decides about frames that arrived on one side, in their order. Returns one decision for each of the first
    /// [`BATCH`] frames.
    pub fn decide(&mut self, side: Side, frames: &[&[u8]], now: Time, context: Context<'_>) -> &[Decision] {
        self.local.reorders = false;
        self.decide_each(side, frames, |_| now, context, &mut Unobserved)
    }

    /// As [`Decider::decide`], with a time of arrival for each frame. Workers that share the queues of a side use it,
    /// because they can decide the frames of one source out of order.
    pub fn decide_arrived(
        &mut self,
        side: Side,
        frames: &[&[u8]],
        arrived: impl Fn(usize) -> Time,
        context: Context<'_>,
    ) -> &[Decision] {
        self.local.reorders = true;
        self.decide_each(side, frames, arrived, context, &mut Unobserved)
    }

    /// As [`Decider::decide_arrived`] if `reorders`, else as [`Decider::decide`], with an observer.
    #[cold]
    #[inline(never)]
    pub fn decide_observed(
        &mut self,
        side: Side,
        frames: &[&[u8]],
        (arrived, reorders): (impl Fn(usize) -> Time, bool),
        context: Context<'_>,
        observer: &mut impl Observer,
    ) -> &[Decision] {
        self.local.reorders = reorders;
        self.decide_each(side, frames, arrived, context, observer)
    }

    fn decide_each<O: Observer>(
        &mut self,
        side: Side,
        frames: &[&[u8]],
        arrived: impl Fn(usize) -> Time,
        context: Context<'_>,
        observer: &mut O,
    ) -> &[Decision] {
        let mut decided = 0;
        (self.out_of_order, self.answered, self.evaluated, self.non_ip) = (0, 0, 0, 0);
        let mut run = None::<PacketRun>;
        if !frames.is_empty() {
            self.local.history.begin_batch(arrived(0));
        }
        let keeps_flow_decisions = self.keeps_flow_decisions;
        let results = self.decisions.iter_mut().zip(&mut *self.replies).zip(&mut *self.pending);
        let mut results = results.zip(self.dependencies.iter_mut().zip(&mut *self.flow_decisions));
        for group in frames[..frames.len().min(BATCH)].chunks(GROUP) {
            let frames = FrameGroup { side, frames: group, max_frame: self.max_frame, arrived: arrived(decided) };
            self.prepared.prepare(frames, context, &self.local);
            for ((index, frame), (((decision, reply), pending), (dependencies, flow_decision))) in
                group.iter().enumerate().zip(results.by_ref())
            {
                // The packet is not moved: a move would wait for the writes of its fields.
                *decision = match &headers::read(side, frame, self.max_frame) {
                    Ok(packet) => {
                        let now = arrived(decided);
                        if let Some(run) = run.as_mut().filter(|run| run.contains(packet, now)) {
                            if O::OBSERVES {
                                observer.repeated(decided, packet);
                            }
                            run.repeat()
                        } else {
                            if let Some(ended) = &run {
                                ended.end(context, &mut self.local.history, side);
                            }
                            let effects = FirstEvaluation::new(reply);
                            let (prepared, local) = (self.prepared.packet(index), &mut self.local);
                            let mut evaluation = RuleEvaluation::new(packet, now, prepared, context, local, effects);
                            let lists = (O::OBSERVES && observer.wants(packet)).then(|| {
                                evaluation.facts.local.door_results.clear();
                                evaluation.facts.lists_of_both()
                            });
                            let decision = evaluation.decide();
                            if evaluation.has_pending_steps() {
                                *pending = evaluation.pending_steps();
                                self.out_of_order |= 1 << decided;
                            }
                            *dependencies = evaluation.dependencies();
                            self.evaluated |= 1 << decided;
                            self.answered |= u64::from(evaluation.effects.answered) << decided;
                            let matches = &evaluation.effects.matches;
                            if let Some(lists) = lists {
                                let facts = &evaluation.facts;
                                let observed = Observed {
                                    arrived: now,
                                    decision,
                                    rules: matches.rules(),
                                    last: matches.last_of_more(),
                                    state: facts.seen.map(|seen| seen.state),
                                    lists,
                                    knocks: facts.local.door_results.all(),
                                    answered: evaluation.effects.answered,
                                };
                                observer.decided(decided, packet, &observed);
                            }
                            if keeps_flow_decisions {
                                *flow_decision = FlowDecision::of(&evaluation.facts, decision, matches, dependencies);
                            }
                            run = PacketRun::begin(packet, now, decision, matches, dependencies);
                            if run.is_none() && decision.verdict == Verdict::Drop {
                                let refusal = matches.refusal(decision.reason, context.table);
                                if self.local.history.has_room() {
                                    record_drop(&mut self.local.history, packet, now, refusal);
                                }
                            }
                            decision
                        }
                    }
                    Err(reason) => {
                        let now = || arrived(decided);
                        self.non_ip |= 1 << decided;
                        let decision = non_ip::decide(*reason, side, frame, now, context);
                        non_ip::record(&mut self.local.history, side, frame, decision, now);
                        if O::OBSERVES {
                            observer.unseen(decided, side, frame, decision, now());
                        }
                        decision
                    }
                };
                decided += 1;
            }
            self.local.adds.next_group();
        }
        if let Some(last) = &run {
            last.end(context, &mut self.local.history, side);
        }
        if let Some(last) = decided.checked_sub(1) {
            self.local.history.end_batch(arrived(last));
        }
        self.decided = decided;
        self.decisions()
    }

    /// The decisions about the last batch.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions[..self.decided]
    }

    /// The dependencies of the decision about this frame of the last batch. `None` for a frame that rules did not see:
    /// the settings and a rate decide it.
    pub fn dependencies(&self, frame: usize) -> Option<&Dependencies> {
        self.dependencies.get(self.evaluated(frame)?)
    }

    /// The frame whose evaluation decided about this frame of the last batch. A packet of a run has the decision of the
    /// run's first packet, the last one that was evaluated before it.
    fn evaluated(&self, frame: usize) -> Option<usize> {
        if frame >= self.decided || self.non_ip >> frame & 1 == 1 {
            return None;
        }
        let evaluated = self.evaluated & (u64::MAX >> (BATCH - 1 - frame));
        Some(evaluated.checked_ilog2()? as usize)
    }

    /// The decision about this frame of the last batch, if it holds for further packets of its flow. `None` unless
    /// such decisions are kept.
    pub fn flow_decision(&self, frame: usize) -> Option<&FlowDecision> {
        if !self.keeps_flow_decisions {
            return None;
        }
        self.flow_decisions[self.evaluated(frame)?].as_ref()
    }

    /// The frames of the last batch with pending steps: one bit each. An earlier packet of the same source may enable
    /// such a step. That packet may be at another worker, which has not decided it yet. [`Decider::re_evaluate`] takes
    /// the steps later.
    pub const fn out_of_order(&self) -> u64 {
        self.out_of_order
    }

    /// The pending steps of this frame of the last batch, if it has any.
    pub fn pending(&self, frame: usize) -> Option<PendingSteps> {
        let is_pending = frame < BATCH && self.out_of_order >> frame & 1 == 1;
        is_pending.then(|| self.pending[frame])
    }

    /// The reply to this frame of the last batch: a frame to send out of the side that the frame arrived on.
    pub fn reply(&self, frame: usize) -> Option<&[u8]> {
        let is_answered = frame < BATCH && self.answered >> frame & 1 == 1;
        is_answered.then(|| self.replies[frame].frame())
    }

    /// The frames of the last batch with a reply: one bit each.
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    /// Evaluates a frame again that was decided out of order. The frame takes a pending step if the lists now contain
    /// the entry that was missing. The decision about the frame and its counters do not change. Returns the steps that
    /// are still pending.
    pub fn re_evaluate(&mut self, out_of_order: OutOfOrder<'_>, context: Context<'_>) -> PendingSteps {
        let OutOfOrder { side, frame, arrived, pending, is_last } = out_of_order;
        let Ok(packet) = &headers::read(side, frame, self.max_frame) else { return PendingSteps::default() };
        self.local.reorders = !is_last;
        RuleEvaluation::new(
            packet,
            arrived,
            PreparedPacket::UNPREPARED,
            context,
            &mut self.local,
            ReEvaluation { pending },
        )
        .re_evaluate()
    }
}

/// Records a dropped packet that is not the first of a run.
#[inline(never)]
fn record_drop(history: &mut HistoryWriter, packet: &Packet<'_>, arrived: Time, refusal: HistoryCause) {
    let (source, last) = (packet.source, LastPacket::of(packet));
    history.record(RefusedPackets { source, refusal, last, count: 1, arrived });
}
