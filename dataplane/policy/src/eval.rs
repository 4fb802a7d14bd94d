//! The reference: rules tried one by one, in order, in the plainest way there is.
//!
//! It is slow and obviously right. The engine's compiled table is tested against it; explanations use it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::layer7;
use crate::packet::Packet;
use crate::reason::{Reason, Verdict};
use crate::rule::{Action, Condition, ListAdd, ListTimeout, Matcher, Rule, RuleSet, Table};
use crate::settings::Settings;
use crate::time::Time;

/// How deep jumps may nest; a chain that jumps deeper, or in a circle, is not compiled.
pub const MAX_JUMP_DEPTH: usize = 32;

/// Address lists in the plainest form: an address is in a list until its expiry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlainLists {
    entries: HashMap<(String, IpAddr), Time>,
}

impl PlainLists {
    /// Whether the address is in the list now. An entry is gone at its expiry, not after it.
    pub fn contains(&self, list: &str, address: IpAddr, now: Time) -> bool {
        self.entries.get(&(list.to_owned(), address)).is_some_and(|expiry| now < *expiry)
    }

    /// Puts the address in the list, or sets its timeout anew. An entry that never expires stays so.
    pub fn add(&mut self, list: &str, address: IpAddr, timeout: ListTimeout, now: Time) {
        let expiry = match timeout {
            ListTimeout::After(duration) => now + duration,
            ListTimeout::NoneDynamic | ListTimeout::NoneStatic => Time::NEVER,
        };
        let entry = self.entries.entry((list.to_owned(), address)).or_insert(expiry);
        if *entry != Time::NEVER || expiry == Time::NEVER {
            *entry = expiry;
        }
    }

    /// What is in the lists now: list, address, time left (none if it never expires), ordered.
    pub fn live(&self, now: Time) -> Vec<(String, IpAddr, Option<Duration>)> {
        let mut live: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, expiry)| now < **expiry)
            .map(|((list, address), expiry)| {
                (list.clone(), *address, (*expiry != Time::NEVER).then(|| expiry.since(now)))
            })
            .collect();
        live.sort();
        live
    }
}

/// What the rules made of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// What happens to the packet.
    pub verdict: Verdict,
    /// [`Reason::Rule`] or [`Reason::ChainDefault`].
    pub reason: Reason,
    /// Indexes of the rules that matched, in the order in which they were met; the last one decided if
    /// `reason` is [`Reason::Rule`]. Each of them counts the packet.
    pub matched: Vec<usize>,
}

/// Where a chain was left.
enum Left {
    Decided(Verdict),
    Returned,
}

/// Runs a packet through the rules and changes the lists as they say.
pub fn evaluate(
    rules: &RuleSet,
    settings: &Settings,
    lists: &mut PlainLists,
    packet: &Packet<'_>,
    now: Time,
) -> Evaluation {
    let chain = settings.chain(packet);
    let mut walk = Walk { rules, lists, packet, now, matched: Vec::new() };
    let (verdict, reason) = match walk.chain(chain.name(), 0) {
        Left::Decided(verdict) => (verdict, Reason::Rule),
        Left::Returned => (settings.chain_default.verdict(chain), Reason::ChainDefault),
    };
    Evaluation { verdict, reason, matched: walk.matched }
}

struct Walk<'a> {
    rules: &'a RuleSet,
    lists: &'a mut PlainLists,
    packet: &'a Packet<'a>,
    now: Time,
    matched: Vec<usize>,
}

impl Walk<'_> {
    fn chain(&mut self, chain: &str, depth: usize) -> Left {
        let rules = self.rules;
        for (index, rule) in rules.rules.iter().enumerate() {
            if rule.table != Table::Filter || rule.chain != chain || !self.matches(rule) {
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
                    if let Left::Decided(verdict) = self.chain(target, depth + 1) {
                        return Left::Decided(verdict);
                    }
                }
                Action::Return => return Left::Returned,
            }
        }
        Left::Returned
    }

    fn add(&mut self, add: &ListAdd, address: IpAddr) {
        self.lists.add(&add.list, address, add.timeout, self.now);
    }

    fn matches(&self, rule: &Rule) -> bool {
        rule.runs() && rule.family == self.packet.family() && rule.matchers.iter().all(|matcher| self.holds(matcher))
    }

    fn holds(&self, matcher: &Matcher) -> bool {
        matcher.condition.applies(self.packet)
            && self.asks(&matcher.condition).is_some_and(|answer| answer != matcher.negated)
    }

    /// What the condition says of a packet that it applies to; none if that is not evaluated yet, and then the matcher is
    /// false, negated or not.
    fn asks(&self, condition: &Condition) -> Option<bool> {
        let packet = self.packet;
        let (src_port, dst_port) = packet.ports.unwrap_or_default();
        Some(match condition {
            Condition::SrcAddress(set) => set.contains(packet.source),
            Condition::DstAddress(set) => set.contains(packet.destination),
            Condition::Protocol(number) => packet.protocol == *number,
            Condition::SrcAddressList(list) => self.lists.contains(list, packet.source, self.now),
            Condition::DstAddressList(list) => self.lists.contains(list, packet.destination, self.now),
            Condition::PacketSize(range) => u16::try_from(packet.ip_length).is_ok_and(|size| range.contains(&size)),
            Condition::SrcPort(ports) => ports.contains(src_port),
            Condition::DstPort(ports) => ports.contains(dst_port),
            Condition::AnyPort(ports) => ports.contains(src_port) || ports.contains(dst_port),
            Condition::IcmpOptions { kind, codes } => {
                packet.icmp.is_some_and(|(its_kind, code)| its_kind == *kind && codes.contains(&code))
            }
            Condition::Layer7(name) => {
                self.rules.pattern(name).is_some_and(|pattern| layer7::matches(&pattern.regexp, packet.payload))
            }
            _ => return None,
        })
    }
}
