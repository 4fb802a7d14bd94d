//! The evaluation of a packet by the rules of a chain.
//!
//! The table finds the rules whose matchers of headers match. This module evaluates the other matchers of such a rule,
//! one by one. Every rule that matches has its effects. The first rule that accepts or drops ends the evaluation.
//!
//! An address is looked up in the lists at most once for each packet, when a rule first needs it. An addition updates
//! the result of the lookup: **the next rule sees the addition for the same packet**.

mod matching;

use knockplane_policy::packet::Packet;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rule::BuiltinChain;
use knockplane_policy::time::Time;

use crate::pipeline::Context;
use crate::pipeline::effects::{Addition, Effects};
use crate::pipeline::facts::PacketFacts;
use crate::pipeline::local::WorkerLocal;
use crate::pipeline::prepare::PreparedPacket;
use crate::table::{CompiledAction, Program};

/// The evaluation of one packet, with these effects.
pub(super) struct RuleEvaluation<'a, E> {
    pub(super) facts: PacketFacts<'a>,
    pub(super) effects: E,
}

impl<'a, E: Effects> RuleEvaluation<'a, E> {
    /// Creates an evaluation for a packet that arrived at `now`.
    #[inline]
    pub(super) fn new(
        packet: &'a Packet<'a>,
        now: Time,
        prepared: PreparedPacket<'a>,
        context: Context<'a>,
        local: &'a mut WorkerLocal,
        effects: E,
    ) -> RuleEvaluation<'a, E> {
        RuleEvaluation { facts: PacketFacts::new(packet, now, prepared, context, local), effects }
    }

    /// Evaluates the rules of this chain in this menu, and of the chains that they jump to. `None` if no rule decides.
    pub(super) fn run(&mut self, program: &'a Program, chain: BuiltinChain) -> Option<Verdict> {
        let table = self.facts.context.table;
        let mut span = program.chain(chain);
        program.candidates(&self.facts.view, &mut self.facts.local.candidates);
        self.facts.local.jumps.clear();
        loop {
            let PacketFacts { view, local, .. } = &mut self.facts;
            let Some(rule) = program.classify(&mut local.candidates, &mut span, view, table.about()) else {
                span = local.jumps.pop()?;
                continue;
            };
            if self.facts.is_later_fragment && !rule.is_for_fragments {
                continue;
            }
            if let Some(missed) = self.first_miss(rule) {
                if self.effects.missed(rule, missed).is_break() {
                    return Some(Verdict::Drop);
                }
                continue;
            }
            let RuleEvaluation { facts, effects } = self;
            effects.matched(facts, rule);
            match rule.action {
                CompiledAction::Accept => return Some(Verdict::Forward),
                CompiledAction::AcceptDoor(open) => {
                    effects.accept_by_door(facts, open);
                    return Some(Verdict::Forward);
                }
                CompiledAction::Knock(door) => effects.knock(facts, door),
                CompiledAction::Drop => return Some(Verdict::Drop),
                CompiledAction::Reject(with) => {
                    effects.reject(facts, with);
                    return Some(Verdict::Drop);
                }
                CompiledAction::Tarpit => {
                    effects.tarpit(facts);
                    return Some(Verdict::Drop);
                }
                CompiledAction::Passthrough => {}
                CompiledAction::Fasttrack => effects.fasttrack(facts),
                CompiledAction::Notrack => facts.untracked = true,
                CompiledAction::AddSource(list, timeout) => {
                    let address = facts.packet.source;
                    effects.add(facts, Addition { rule: rule.index, list, address, timeout });
                }
                CompiledAction::AddDestination(list, timeout) => {
                    let address = facts.packet.destination;
                    effects.add(facts, Addition { rule: rule.index, list, address, timeout });
                }
                CompiledAction::Jump(target) => {
                    if !facts.local.jumps.push(std::mem::replace(&mut span, target)) {
                        return Some(Verdict::Drop);
                    }
                }
                CompiledAction::Return => span = facts.local.jumps.pop()?,
            }
        }
    }
}
