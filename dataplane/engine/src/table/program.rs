//! The compiled rules of one menu: chains are spans of one array, names are ids, addresses are numbers.
//!
//! A rule has two kinds of matchers. A matcher of headers always gives the same answer; [`Program::classify`] evaluates
//! it, for the candidates from the index. A matcher of state, or an expensive one, runs in the rule evaluation, at the
//! turn of the rule.

use knockplane_policy::packet::{Family, Side};
use knockplane_policy::rule::{Action, BuiltinChain, ListAdd, ListTimeout, RejectWith, Rule, Table};
use knockplane_policy::settings::Settings;

use super::RuleNames;
use super::chains::Chains;
use super::index::{Candidates, Index};
use super::question::{About, HeaderTest, HeaderView, Test, number};
use super::state_test::{StateTest, questions};
use crate::state::doors::DoorId;
use crate::state::key::AddressKey;
use crate::state::lists::ListId;

/// The rules of a program from the next rule up to `end`, exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    next: u32,
    end: u32,
}

/// The compiled rules of one menu.
pub(crate) struct Program {
    rules: Box<[CompiledRule]>,
    index: Index,
    builtin: [Span; BuiltinChain::ALL.len()],
    /// The first and last addresses of the protected networks.
    protected: Box<[(u128, u128)]>,
}

/// One rule.
pub(crate) struct CompiledRule {
    /// The position among the declared rules.
    pub(crate) index: u32,
    pub(crate) action: CompiledAction,
    /// Whether the rule logs each packet that matches.
    pub(crate) logs: bool,
    /// Whether the rule tests for later fragments. Other rules are not evaluated for them.
    pub(crate) is_for_fragments: bool,
    /// The tests of headers.
    header: Box<[Test<HeaderTest>]>,
    /// The remaining tests of a candidate, in this order.
    pub(crate) state: Box<[Test<StateTest>]>,
}

/// The action of a rule.
#[derive(Clone, Copy)]
pub(crate) enum CompiledAction {
    Accept,
    /// Accepts the packet and assigns the new connection to the door with this open list.
    AcceptDoor(ListId),
    Knock(DoorId),
    Drop,
    Reject(RejectWith),
    Tarpit,
    Passthrough,
    Fasttrack,
    Notrack,
    AddSource(ListId, ListTimeout),
    AddDestination(ListId, ListTimeout),
    Jump(Span),
    Return,
}

impl Program {
    /// The chain that evaluates a packet from this side first. The result equals that of [`Settings::chain`].
    pub(crate) fn entry(&self, side: Side, view: &HeaderView<'_>) -> BuiltinChain {
        let protects =
            |key: AddressKey| self.protected.iter().any(|(first, last)| (*first..=*last).contains(&key.bits));
        match side {
            Side::Outside if protects(view.destination) => BuiltinChain::Input,
            Side::Inside if protects(view.source) => BuiltinChain::Output,
            _ => BuiltinChain::Forward,
        }
    }

    /// Whether the program has no rules.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// All rules, chain by chain.
    pub(super) fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// The rules of a span.
    pub(super) fn rules_of(&self, span: Span) -> &[CompiledRule] {
        &self.rules[span.next as usize..span.end as usize]
    }

    /// The rules of a built-in chain.
    pub(crate) fn chain(&self, chain: BuiltinChain) -> Span {
        self.builtin[chain as usize]
    }

    /// Finds the rules that this packet could match.
    #[inline]
    pub(crate) fn candidates(&self, view: &HeaderView<'_>, candidates: &mut Candidates) {
        self.index.candidates(view, candidates);
    }

    /// The next rule of the span whose tests of headers match this packet; `None` if there is none. The span then
    /// begins behind this rule.
    #[inline]
    pub(crate) fn classify(
        &self,
        candidates: &mut Candidates,
        span: &mut Span,
        view: &HeaderView<'_>,
        about: About<'_>,
    ) -> Option<&CompiledRule> {
        while let Some(found) = self.index.next(candidates, span.next as usize, span.end as usize) {
            span.next = found as u32 + 1;
            let rule = self.rules.get(found)?;
            if rule.header.iter().all(|test| test.holds(view, about)) {
                return Some(rule);
            }
        }
        span.next = span.end;
        None
    }

    /// Lays out the chains in one array and resolves every name.
    pub(super) fn emit(chains: &Chains<'_>, names: &mut RuleNames<'_>, about: About<'_>) -> Program {
        let mut spans = hashbrown::HashMap::<&str, Span>::new();
        let mut next = 0;
        for chain in &chains.order {
            let end = next + chains.rules[chain].len() as u32;
            spans.insert(chain, Span { next, end });
            next = end;
        }
        let span = |chain: &str| spans.get(chain).copied().unwrap_or_default();
        let action = |declared: &Action| match declared {
            Action::Accept => CompiledAction::Accept,
            Action::Drop => CompiledAction::Drop,
            Action::Reject(with) => CompiledAction::Reject(*with),
            Action::Tarpit => CompiledAction::Tarpit,
            Action::FasttrackConnection => CompiledAction::Fasttrack,
            Action::Notrack if chains.table == Table::Raw => CompiledAction::Notrack,
            Action::Passthrough | Action::Log | Action::Notrack => CompiledAction::Passthrough,
            Action::AddSrcToAddressList(ListAdd { list, timeout }) => {
                CompiledAction::AddSource(names.lists[&**list], *timeout)
            }
            Action::AddDstToAddressList(ListAdd { list, timeout }) => {
                CompiledAction::AddDestination(names.lists[&**list], *timeout)
            }
            Action::Jump(target) => CompiledAction::Jump(span(target)),
            Action::Return => CompiledAction::Return,
            // Only doors create such rules.
            Action::Knock(door) => {
                names.doors.get(&**door).map_or(CompiledAction::Drop, |(door, _)| CompiledAction::Knock(*door))
            }
            Action::AcceptDoor(door) => {
                names.doors.get(&**door).map_or(CompiledAction::Drop, |(_, open)| CompiledAction::AcceptDoor(*open))
            }
        };
        let rules = chains.order.iter().flat_map(|chain| &chains.rules[chain]);
        // Resolves the lists' ids first: the tests of state change `names`.
        let actions: Vec<CompiledAction> = rules.clone().map(|(_, rule)| action(&rule.action)).collect();
        let mut compile = |(index, rule): &(usize, &Rule), action: CompiledAction| {
            let (header, state) = questions(&rule.matchers, chains.family, names, about);
            CompiledRule {
                index: *index as u32,
                action,
                logs: rule.log.is_some() || rule.action == Action::Log,
                is_for_fragments: rule.is_for_fragments(),
                header,
                state,
            }
        };
        let rules: Box<[CompiledRule]> = rules.zip(actions).map(|(rule, action)| compile(rule, action)).collect();
        let headers: Vec<&[Test<HeaderTest>]> = rules.iter().map(|rule| &*rule.header).collect();
        Program {
            index: Index::build(chains.family, &headers),
            rules,
            builtin: BuiltinChain::ALL.map(|chain| span(chains.table.entry(chain))),
            protected: protected(about.settings, chains.family),
        }
    }
}

impl CompiledRule {
    /// The tests of headers.
    pub(super) fn header_tests(&self) -> &[Test<HeaderTest>] {
        &self.header
    }
}

fn protected(settings: &Settings, family: Family) -> Box<[(u128, u128)]> {
    let of_family = settings.protect.iter().filter(|net| Family::of(net.addr()) == family);
    of_family.map(|net| (number(net.network()), number(net.broadcast()))).collect()
}
