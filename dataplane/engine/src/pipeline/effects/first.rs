//! The first evaluation of a packet: rules count, log, add, reply, and evaluate stateful matchers.

use std::ops::ControlFlow;

use knockplane_policy::eval::replies::{Answer, rejection, tarpit};
use knockplane_policy::packet::{Packet, protocol};
use knockplane_policy::reason::Reason;
use knockplane_policy::rule::{BuiltinChain, RejectWith};

use super::door::AtDoor;
use super::pending::PendingSteps;
use super::{Addition, Effects};
use crate::pipeline::Context;
use crate::pipeline::dependencies::Dependency;
use crate::pipeline::facts::PacketFacts;
use crate::pipeline::history::HistoryCause;
use crate::pipeline::reply::Reply;
use crate::state::doors::DoorId;
use crate::state::lists::ListId;
use crate::state::matchers::connection_limits::SourcePrefix;
use crate::table::{CompiledAction, CompiledRule, RuleTable, StateTest, Test};

/// All effects of the rules that a packet matches, and the steps that it misses.
pub(in crate::pipeline) struct FirstEvaluation<'a> {
    pub(in crate::pipeline) matches: Matches,
    pub(in crate::pipeline) answered: bool,
    /// Additions that the packet misses only because an address is not in a list, and out-of-order steps at doors.
    pub(in crate::pipeline) pending: PendingSteps,
    reply: &'a mut Reply,
}

/// The rules that a packet matched.
#[derive(Clone, Copy)]
pub(in crate::pipeline) struct Matches {
    rules: [u32; Matches::CAPACITY],
    length: usize,
    is_complete: bool,
    /// The last rule that matched: the one that decided, if a rule decided.
    last: u32,
    /// The built-in chain whose default decided.
    pub(in crate::pipeline) default_of: Option<BuiltinChain>,
}

impl Matches {
    /// Maximum number of recorded rules. Most packets match one or two rules.
    pub(in crate::pipeline) const CAPACITY: usize = 4;

    const NONE: Matches =
        Matches { rules: [0; Matches::CAPACITY], length: 0, is_complete: true, last: 0, default_of: None };

    #[inline]
    fn note(&mut self, rule: u32) {
        self.last = rule;
        match self.rules.get_mut(self.length) {
            Some(place) => {
                *place = rule;
                self.length += 1;
            }
            None => self.is_complete = false,
        }
    }

    /// Whether [`Matches::rules`] contains all rules that matched.
    pub(in crate::pipeline) const fn are_complete(&self) -> bool {
        self.is_complete
    }

    /// The rules that matched, by their position among the declared rules.
    pub(in crate::pipeline) fn rules(&self) -> &[u32] {
        &self.rules[..self.length]
    }

    /// The last rule that matched, if [`Matches::rules`] does not contain all of them.
    pub(in crate::pipeline) fn last_of_more(&self) -> Option<u32> {
        (!self.is_complete).then_some(self.last)
    }

    /// The cause of a drop for this reason.
    pub(in crate::pipeline) fn refusal(&self, reason: Reason, table: &RuleTable) -> HistoryCause {
        HistoryCause::Dropped { reason, rule: (reason == Reason::Rule).then(|| (table.number(), self.last)) }
    }
}

impl<'a> FirstEvaluation<'a> {
    /// Creates an evaluation that writes a reply to `reply`.
    pub(in crate::pipeline) fn new(reply: &'a mut Reply) -> FirstEvaluation<'a> {
        FirstEvaluation { matches: Matches::NONE, answered: false, pending: PendingSteps::default(), reply }
    }

    fn answer(&mut self, packet: &Packet<'_>, answer: Option<Answer>) {
        if let Some(answer) = answer {
            self.answered = self.reply.write(packet, &answer);
        }
    }
}

impl Effects for FirstEvaluation<'_> {
    fn ask_memory(&mut self, facts: &mut PacketFacts<'_>, matcher: &StateTest) -> Option<bool> {
        let Context { table, state, .. } = facts.context;
        let (packet, now) = (facts.packet, facts.now);
        Some(match matcher {
            StateTest::ConnectionLimit { matcher, count, prefix_length } => {
                facts.dependencies.insert(Dependency::ConnectionLimit);
                let source = SourcePrefix { address: packet.source, length: *prefix_length };
                let limits = table.connection_limits.as_ref()?;
                limits.exceeds(state.connections()?, *matcher, facts.flow()?, source, *count, now)?
            }
            StateTest::Psd(limiter, weights) => {
                facts.dependencies.insert(Dependency::Psd);
                table.limiters.scans(*limiter, weights, packet, now)?
            }
            StateTest::Random(percent) => {
                facts.dependencies.insert(Dependency::Random);
                facts.local.random.percent() < *percent
            }
            StateTest::Nth { limiter, every, packet } => {
                facts.dependencies.insert(Dependency::Nth);
                table.limiters.nth(*limiter, *every)? == *packet
            }
            StateTest::Limit(limiter, rate) => {
                facts.dependencies.insert(Dependency::Limit);
                table.limiters.limit(*limiter, rate, packet, now)?
            }
            StateTest::DstLimit { limiter, rate, mode, expire } => {
                facts.dependencies.insert(Dependency::DstLimit);
                table.limiters.dst_limit(*limiter, rate, *mode, *expire, packet, now)?
            }
            _ => return None,
        })
    }

    #[inline]
    fn missed(&mut self, rule: &CompiledRule, matcher: &Test<StateTest>) -> ControlFlow<()> {
        let adds = matches!(rule.action, CompiledAction::AddSource(..) | CompiledAction::AddDestination(..));
        self.pending.addition |= adds && matches!(matcher.question, StateTest::Source(_)) && !matcher.negated;
        ControlFlow::Continue(())
    }

    #[inline]
    fn matched(&mut self, facts: &mut PacketFacts<'_>, rule: &CompiledRule) {
        self.matches.note(rule.index);
        facts.context.counters.count_rule(rule.index as usize, 1, facts.packet.ip_length);
        if rule.logs {
            facts.dependencies.insert(Dependency::Log);
            facts.report_logged(rule.index);
        }
    }

    fn add(&mut self, facts: &mut PacketFacts<'_>, addition: Addition) {
        facts.dependencies.insert(Dependency::Addition);
        facts.add_to_list(addition);
    }

    fn reject(&mut self, facts: &mut PacketFacts<'_>, with: RejectWith) {
        facts.dependencies.insert(Dependency::Reply);
        let may_reply = || with == RejectWith::TcpReset || facts.context.state.may_tell(facts.now);
        let answer = rejection(facts.packet, with).filter(|_| may_reply());
        self.answer(facts.packet, answer);
    }

    fn tarpit(&mut self, facts: &mut PacketFacts<'_>) {
        facts.dependencies.insert(Dependency::Reply);
        let state = facts.context.state;
        let may_acknowledge = || state.may_acknowledge(facts.packet.source, facts.now);
        self.answer(facts.packet, tarpit(facts.packet, state.secret(), may_acknowledge));
    }

    /// Fasttracks only TCP and UDP. Source: RouterOS manual, FastTrack.
    fn fasttrack(&mut self, facts: &mut PacketFacts<'_>) {
        let is_supported = matches!(facts.packet.protocol, protocol::TCP | protocol::UDP);
        facts.store_connection();
        if let (Some(flow), Some(flows), true) = (facts.own_flow(), facts.context.state.connections(), is_supported) {
            flows.fasttrack(&flow.key, facts.now);
        }
    }

    fn knock(&mut self, facts: &mut PacketFacts<'_>, door: DoorId) {
        facts.dependencies.insert(Dependency::Door);
        if let Some(mut door) = AtDoor::new(facts, door, &mut self.pending) {
            door.knock();
        }
    }

    fn accept_by_door(&mut self, facts: &mut PacketFacts<'_>, open: ListId) {
        facts.dependencies.insert(Dependency::Door);
        facts.store_connection();
        if let (Some(flow), Some(flows), true) =
            (facts.own_flow(), facts.context.state.connections(), facts.begins_connection())
        {
            flows.set_door(facts.packet, &flow.key, open, facts.now);
        }
    }
}
