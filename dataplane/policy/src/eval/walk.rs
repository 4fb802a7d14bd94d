//! A packet's way through the chains: rules in order, jumps, returns, and what each action does.

use std::net::IpAddr;

use super::{Evaluator, Logged, MAX_JUMP_DEPTH, Outcome, Tried};
use crate::layer7;
use crate::packet::Packet;
use crate::reason::Verdict;
use crate::rule::{Action, Condition, ListAdd, Matcher, Rule, Table};
use crate::time::Time;

/// One packet on its way.
pub(super) struct Walk<'w, 'r> {
    pub(super) evaluator: &'w mut Evaluator<'r>,
    pub(super) packet: &'w Packet<'w>,
    pub(super) now: Time,
    explain: bool,
    pub(super) matched: Vec<usize>,
    pub(super) replies: Vec<Vec<u8>>,
    pub(super) logged: Vec<Logged>,
    pub(super) tried: Vec<Tried>,
}

/// Where a chain was left.
enum Left {
    Decided(Verdict),
    Returned,
}

impl<'w, 'r> Walk<'w, 'r> {
    pub(super) fn new(
        evaluator: &'w mut Evaluator<'r>,
        packet: &'w Packet<'w>,
        now: Time,
        explain: bool,
    ) -> Walk<'w, 'r> {
        let (matched, replies, logged, tried) = Default::default();
        Walk { evaluator, packet, now, explain, matched, replies, logged, tried }
    }

    /// The verdict of a built-in chain's rules; none if they came to none. In `raw`, [`Verdict::Forward`] means only
    /// that no more of its rules are tried.
    pub(super) fn enter(&mut self, table: Table, chain: &str) -> Option<Verdict> {
        match self.chain(table, chain, 0) {
            Left::Decided(verdict) => Some(verdict),
            Left::Returned => None,
        }
    }

    fn chain(&mut self, table: Table, chain: &str, depth: usize) -> Left {
        let rules = self.evaluator.rules;
        for (index, rule) in rules.rules.iter().enumerate() {
            if rule.table != table || rule.chain != chain {
                continue;
            }
            let outcome = self.outcome(rule);
            let matched = matches!(outcome, Outcome::Matched { .. });
            if self.explain {
                self.tried.push(Tried { rule: index, chain: chain.to_owned(), depth, outcome });
            }
            if !matched {
                continue;
            }
            self.matched.push(index);
            match &rule.action {
                Action::Accept => return Left::Decided(Verdict::Forward),
                Action::Drop | Action::Reject(_) | Action::Tarpit => return Left::Decided(Verdict::Drop),
                Action::Passthrough | Action::Log | Action::FasttrackConnection | Action::Notrack => {}
                Action::AddSrcToAddressList(add) => self.add(add, self.packet.source),
                Action::AddDstToAddressList(add) => self.add(add, self.packet.destination),
                Action::Jump(_) if depth == MAX_JUMP_DEPTH => return Left::Decided(Verdict::Drop),
                Action::Jump(target) => {
                    if let Left::Decided(verdict) = self.chain(table, target, depth + 1) {
                        return Left::Decided(verdict);
                    }
                }
                Action::Return => return Left::Returned,
            }
        }
        Left::Returned
    }

    fn add(&mut self, add: &ListAdd, address: IpAddr) {
        self.evaluator.lists.add(&add.list, address, add.timeout, self.now);
    }

    fn outcome(&mut self, rule: &Rule) -> Outcome {
        if rule.family != self.packet.family() {
            return Outcome::OtherFamily;
        }
        if let Some(why) = &rule.invalid {
            return Outcome::Invalid(why.clone());
        }
        if rule.disabled {
            return Outcome::Disabled;
        }
        match rule.matchers.iter().position(|matcher| !self.holds(matcher)) {
            Some(matcher) => Outcome::Missed { matcher, saw: String::new() },
            None => Outcome::Matched { effect: None },
        }
    }

    fn holds(&mut self, matcher: &Matcher) -> bool {
        matcher.condition.applies(self.packet)
            && self.asks(&matcher.condition).is_some_and(|answer| answer != matcher.negated)
    }

    /// What the condition says of a packet that it applies to; none if that is not evaluated yet, and then the matcher is
    /// false, negated or not.
    fn asks(&self, condition: &Condition) -> Option<bool> {
        let (packet, lists) = (self.packet, &self.evaluator.lists);
        let (src_port, dst_port) = packet.ports.unwrap_or_default();
        Some(match condition {
            Condition::SrcAddress(set) => set.contains(packet.source),
            Condition::DstAddress(set) => set.contains(packet.destination),
            Condition::Protocol(number) => packet.protocol == *number,
            Condition::SrcAddressList(list) => lists.contains(list, packet.source, self.now),
            Condition::DstAddressList(list) => lists.contains(list, packet.destination, self.now),
            Condition::PacketSize(range) => u16::try_from(packet.ip_length).is_ok_and(|size| range.contains(&size)),
            Condition::SrcPort(ports) => ports.contains(src_port),
            Condition::DstPort(ports) => ports.contains(dst_port),
            Condition::AnyPort(ports) => ports.contains(src_port) || ports.contains(dst_port),
            Condition::IcmpOptions { kind, codes } => {
                packet.icmp.is_some_and(|(its_kind, code)| its_kind == *kind && codes.contains(&code))
            }
            Condition::Layer7(name) => self
                .evaluator
                .rules
                .pattern(name)
                .is_some_and(|pattern| layer7::matches(&pattern.regexp, packet.payload)),
            _ => return None,
        })
    }
}
