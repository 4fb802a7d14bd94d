//! The re-evaluation of a packet that was decided out of order: only its pending steps have an effect.
//!
//! Nothing else is repeated: no counter, log line or reply. Stateful matchers are not evaluated again. The result of
//! such a matcher at the first evaluation is not known, so the evaluation ends at a rule with one.

use std::ops::ControlFlow;

use knockplane_policy::rule::RejectWith;

use super::door::AtDoor;
use super::pending::PendingSteps;
use super::{Addition, Effects};
use crate::pipeline::facts::PacketFacts;
use crate::state::doors::DoorId;
use crate::state::lists::{AddOutcome, ListId};
use crate::table::{CompiledRule, StateTest, Step, Test};

/// The effects of pending steps alone.
pub(in crate::pipeline) struct ReEvaluation {
    pub(in crate::pipeline) pending: PendingSteps,
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

    /// The rule counts the packet now, because it did not match at the first evaluation.
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
