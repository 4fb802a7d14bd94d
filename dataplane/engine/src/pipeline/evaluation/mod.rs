//! The evaluation of a packet by the rules of a chain.
//!
//! The table finds the rules whose matchers of headers match. The other matchers of such a rule are asked here, one by
//! one. Every rule that matches has its effects; the first one that accepts or drops ends the evaluation.
//!
//! An address is looked up in the lists at most once a packet, when a rule first asks. An addition updates the result of
//! the lookup: **the next rule on the same packet sees it**.

mod facts;
mod matching;

use knockplane_policy::eval::MAX_JUMP_DEPTH;
use knockplane_policy::eval::limits::Random;
use knockplane_policy::packet::{FragmentPart, Packet};
use knockplane_policy::reason::Verdict;
use knockplane_policy::rule::BuiltinChain;
use knockplane_policy::time::Time;

pub(super) use self::facts::PacketFacts;
use crate::pipeline::Context;
use crate::pipeline::effects::{Addition, Effects};
use crate::pipeline::history::HistoryWriter;
use crate::pipeline::lookup_cache::LookupCache;
use crate::table::{Candidates, Program, Span, Step};

/// Memory of one worker that evaluations use. Allocated once: to clear it for each packet would cost as much as a
/// decision.
pub(super) struct WorkerLocal {
    /// A re-evaluation can follow: a step at a door that comes before its forerunner is pending, and not a wrong step.
    pub(super) reorders: bool,
    pub(super) history: HistoryWriter,
    lookup_cache: LookupCache,
    candidates: Candidates,
    jumps: JumpStack,
    random: Random,
}

impl WorkerLocal {
    pub(super) fn new(random: Random, history: HistoryWriter) -> WorkerLocal {
        WorkerLocal {
            reorders: false,
            history,
            lookup_cache: LookupCache::default(),
            candidates: Candidates::default(),
            jumps: JumpStack::default(),
            random,
        }
    }
}

/// The evaluation of one packet, with these effects.
pub(super) struct RuleEvaluation<'a, E> {
    pub(super) facts: PacketFacts<'a>,
    pub(super) effects: E,
}

/// Whether a packet is a fragment, the first one included. Cheaper than [`Packet::fragment`].
pub(super) fn is_fragment(packet: &Packet<'_>) -> bool {
    let network = usize::from(packet.network);
    if packet.source.is_ipv4() {
        // More fragments, or an offset.
        packet.frame.get(network + 6..network + 8).is_some_and(|field| field[0] & 0x3f != 0 || field[1] != 0)
    } else {
        // Only behind extension headers.
        usize::from(packet.transport) > network + 40 && packet.fragment() != Some(FragmentPart::Whole)
    }
}

impl<'a, E: Effects> RuleEvaluation<'a, E> {
    /// For a packet that arrived at `now`.
    #[inline]
    pub(super) fn new(
        packet: &'a Packet<'a>,
        now: Time,
        context: Context<'a>,
        local: &'a mut WorkerLocal,
        effects: E,
    ) -> RuleEvaluation<'a, E> {
        RuleEvaluation { facts: PacketFacts::new(packet, now, context, local), effects }
    }

    /// Evaluates the rules that a packet of this chain meets in this menu. `None` if no rule decides.
    pub(super) fn run(&mut self, program: &'a Program, chain: BuiltinChain) -> Option<Verdict> {
        let table = self.facts.context.table;
        let mut span = program.chain(chain);
        program.candidates(&self.facts.view, &mut self.facts.local.candidates);
        self.facts.local.jumps.depth = 0;
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
            match rule.step {
                Step::Accept => return Some(Verdict::Forward),
                Step::AcceptDoor(open) => {
                    effects.accept_by_door(facts, open);
                    return Some(Verdict::Forward);
                }
                Step::Knock(door) => effects.knock(facts, door),
                Step::Drop => return Some(Verdict::Drop),
                Step::Reject(with) => {
                    effects.reject(facts, with);
                    return Some(Verdict::Drop);
                }
                Step::Tarpit => {
                    effects.tarpit(facts);
                    return Some(Verdict::Drop);
                }
                Step::Passthrough => {}
                Step::Fasttrack => effects.fasttrack(facts),
                Step::Notrack => facts.untracked = true,
                Step::AddSource(list, timeout) => {
                    let address = facts.packet.source;
                    effects.add(facts, Addition { rule: rule.index, list, address, timeout });
                }
                Step::AddDestination(list, timeout) => {
                    let address = facts.packet.destination;
                    effects.add(facts, Addition { rule: rule.index, list, address, timeout });
                }
                Step::Jump(target) => {
                    if !facts.local.jumps.push(std::mem::replace(&mut span, target)) {
                        return Some(Verdict::Drop);
                    }
                }
                Step::Return => span = facts.local.jumps.pop()?,
            }
        }
    }
}

/// Where jumps return to. Bounded by the depth that the table was compiled for.
#[derive(Default)]
struct JumpStack {
    spans: [Span; MAX_JUMP_DEPTH],
    depth: usize,
}

impl JumpStack {
    /// Whether there was room.
    fn push(&mut self, span: Span) -> bool {
        let Some(place) = self.spans.get_mut(self.depth) else { return false };
        *place = span;
        self.depth += 1;
        true
    }

    fn pop(&mut self) -> Option<Span> {
        self.depth = self.depth.checked_sub(1)?;
        self.spans.get(self.depth).copied()
    }
}
