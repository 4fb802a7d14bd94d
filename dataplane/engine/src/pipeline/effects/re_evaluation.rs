//! The re-evaluation of a packet that was decided out of order: only its pending steps have an effect.
//!
//! Nothing else is repeated: no counter, log line or reply. Matchers with memory are not asked again. Such a matcher may
//! be what kept the packet from the rules behind it, so the evaluation ends there.

use std::ops::ControlFlow;

use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rule::{ConnectionState, RejectWith};
use knockplane_policy::time::Time;

use super::door::AtDoor;
use super::{Addition, Effects};
use crate::pipeline::evaluation::{PacketFacts, RuleEvaluation};
use crate::state::connections::Seen;
use crate::state::doors::DoorId;
use crate::state::lists::{AddOutcome, ListId, ListSet};
use crate::table::{CompiledRule, StateTest, Step, Test};

/// Steps that a packet did not take, because it was decided before a packet that arrived before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingSteps {
    /// A rule adds to a list only sources that are in another list.
    pub(super) addition: bool,
    /// The progress lists of the doors' sequences that have the packet as a later step than the next one.
    pub(super) sequences: ListSet,
    /// The connection state that the packet had at its first evaluation.
    pub(super) state: Option<ConnectionState>,
}

impl PendingSteps {
    /// An addition to a list: pending for most frames.
    pub const ADDITION: PendingSteps = PendingSteps { addition: true, sequences: ListSet::EMPTY, state: None };

    /// Whether a step is pending.
    pub fn is_any(&self) -> bool {
        self.addition || self.sequences != ListSet::default()
    }
}

/// A frame that was decided out of order, for [`Decider::re_evaluate`](crate::pipeline::Decider::re_evaluate).
#[derive(Clone, Copy, Debug)]
pub struct OutOfOrder<'f> {
    /// The side on which the frame arrived.
    pub side: Side,
    /// The bytes of the frame.
    pub frame: &'f [u8],
    /// The time of its arrival.
    pub arrived: Time,
    /// The steps that the packet has not taken yet.
    pub pending: PendingSteps,
    /// No re-evaluation follows: a step at a door that still has no forerunner counts as a wrong step.
    pub is_last: bool,
}

/// The effects of pending steps alone.
pub(in crate::pipeline) struct ReEvaluation {
    pub(in crate::pipeline) pending: PendingSteps,
}

impl RuleEvaluation<'_, ReEvaluation> {
    /// Runs the rules again. Returns the steps that are still pending.
    pub(in crate::pipeline) fn re_evaluate(mut self) -> PendingSteps {
        let (table, family) = (self.facts.context.table, self.facts.packet.family());
        let chain = table.filter(family).entry(self.facts.packet.side, &self.facts.view);
        if self.run(table.raw(family), chain) != Some(Verdict::Drop) {
            // The state of the first evaluation: what the packet itself changed since must not prevent its step.
            let state = self.effects.pending.state.unwrap_or(ConnectionState::Untracked);
            self.facts.seen = Some(Seen::alone(state));
            self.run(table.filter(family), chain);
        }
        self.effects.pending
    }
}

impl Effects for ReEvaluation {
    fn ask_memory(&mut self, _: &mut PacketFacts<'_>, _: &StateTest) -> Option<bool> {
        None
    }

    fn missed(&mut self, rule: &CompiledRule, matcher: &Test<StateTest>) -> ControlFlow<()> {
        let adds = matches!(rule.step, Step::AddSource(..) | Step::AddDestination(..));
        if !adds && matcher.question.learns() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn matched(&mut self, _: &mut PacketFacts<'_>, _: &CompiledRule) {}

    /// The rule counts the packet now, where it did not match at the first evaluation.
    fn add(&mut self, facts: &mut PacketFacts<'_>, addition: Addition) {
        if self.pending.addition && facts.add_to_list(addition) == Some(AddOutcome::New) {
            facts.context.counters.count_rule(addition.rule as usize, 1, facts.packet.ip_length);
            self.pending.addition = false;
        }
    }

    fn reject(&mut self, _: &mut PacketFacts<'_>, _: RejectWith) {}

    fn tarpit(&mut self, _: &mut PacketFacts<'_>) {}

    fn fasttrack(&mut self, _: &mut PacketFacts<'_>) {}

    fn knock(&mut self, facts: &mut PacketFacts<'_>, door: DoorId) {
        if let Some(mut door) = AtDoor::new(facts, door, &mut self.pending) {
            door.take_pending_steps();
        }
    }

    fn accept_by_door(&mut self, _: &mut PacketFacts<'_>, _: ListId) {}
}
