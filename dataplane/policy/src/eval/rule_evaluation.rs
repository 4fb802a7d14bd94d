//! Evaluates the rules of the chains for one packet: rules in order, jumps, returns, and the action of each rule.

use std::net::IpAddr;
use std::time::Duration;

use super::lists::Added;
use super::log::LoggedPacket;
use super::matchers::MatcherId;
use super::recorded::Replay;
use super::tracking::TrackedPacket;
use super::{Evaluator, Logged, MAX_JUMP_DEPTH, RuleOutcome, Tried, replies};
use crate::door::DoorEvent;
use crate::packet::{FragmentPart, Packet, Vlan, protocol};
use crate::reason::Verdict;
use crate::rule::{Action, ListAdd, ListTimeout, Rule, Table};
use crate::time::{Time, format_duration};

/// The evaluation of one packet.
pub(super) struct RuleEvaluation<'e, 'r> {
    pub(super) evaluator: &'e mut Evaluator<'r>,
    pub(super) packet: &'e Packet<'e>,
    /// The packet's network for connections and doors.
    pub(super) vlan: Vlan,
    pub(super) now: Time,
    /// The result of tracking; `None` before tracking.
    pub(super) seen: Option<TrackedPacket>,
    /// Whether a `notrack` rule has matched.
    pub(super) untracked: bool,
    pub(super) matched: Vec<usize>,
    pub(super) replies: Vec<Vec<u8>>,
    pub(super) logged: Vec<Logged>,
    pub(super) doors: Vec<DoorEvent>,
    /// The evaluated rules, for an explanation; `None` if no explanation is requested.
    pub(super) tried: Option<Vec<Tried>>,
    /// The record of a worker that the evaluation follows.
    pub(super) record: Option<Replay<'e>>,
}

/// The end of the evaluation of a chain.
enum Left {
    Decided(Verdict),
    Returned,
}

impl RuleEvaluation<'_, '_> {
    /// The verdict of a built-in chain's rules; `None` if none decided. In `raw`, [`Verdict::Forward`] only ends the
    /// evaluation of `raw`.
    pub(super) fn enter(&mut self, table: Table, chain: &str) -> Option<Verdict> {
        match self.chain(table, chain, 0) {
            Left::Decided(verdict) => Some(verdict),
            Left::Returned => None,
        }
    }

    /// Evaluates a chain. Chains of the same name in `raw` and in the filter are different chains.
    fn chain(&mut self, table: Table, chain: &str, depth: usize) -> Left {
        let rules = self.evaluator.rules;
        for (index, rule) in rules.rules.iter().enumerate() {
            if rule.table != table || rule.chain != chain {
                continue;
            }
            let missed = self.missed(index, rule);
            let missed = self.corrected(index, missed);
            let matched = missed.is_none();
            // The position of this rule, before the rules that a jump adds.
            let place = self.tried.as_ref().map(Vec::len);
            if let Some(tried) = &mut self.tried {
                let outcome = missed.unwrap_or(RuleOutcome::Matched { effect: None });
                tried.push(Tried { rule: index, chain: chain.to_owned(), depth, outcome });
            }
            if !matched {
                continue;
            }
            self.matched.push(index);
            self.log(index, rule);
            let effect = match &rule.action {
                Action::Accept => return Left::Decided(Verdict::Forward),
                Action::Drop => return Left::Decided(Verdict::Drop),
                Action::Reject(with) => {
                    let reply = replies::reject(self.packet, *with).filter(|_| self.may_reject(*with));
                    self.reply(place, reply);
                    return Left::Decided(Verdict::Drop);
                }
                Action::Tarpit => {
                    let reply = self.tarpit();
                    self.reply(place, reply);
                    return Left::Decided(Verdict::Drop);
                }
                Action::Passthrough | Action::Log => None,
                Action::AddSrcToAddressList(add) => Some(self.add(add, self.packet.source)),
                Action::AddDstToAddressList(add) => Some(self.add(add, self.packet.destination)),
                Action::Jump(_) if depth == MAX_JUMP_DEPTH => return Left::Decided(Verdict::Drop),
                Action::Jump(target) => {
                    if let Left::Decided(verdict) = self.chain(table, target, depth + 1) {
                        return Left::Decided(verdict);
                    }
                    None
                }
                Action::Return => return Left::Returned,
                Action::FasttrackConnection => self.fasttrack(),
                Action::Notrack if table == Table::Raw => {
                    self.untracked = true;
                    Some("the packet is not tracked".to_owned())
                }
                Action::Notrack => None,
                Action::Knock(door) => self.knock(door),
                Action::AcceptDoor(door) => {
                    let effect = self.accept_door(door);
                    self.record_effect(place, effect);
                    return Left::Decided(Verdict::Forward);
                }
            };
            self.record_effect(place, effect);
        }
        Left::Returned
    }

    pub(super) fn is_later_fragment(&self) -> bool {
        self.packet.fragment() == Some(FragmentPart::Later)
    }

    /// The reason that the rule does not match; `None` if it matches.
    fn missed(&mut self, index: usize, rule: &Rule) -> Option<RuleOutcome> {
        if rule.family != self.packet.family() {
            return Some(RuleOutcome::OtherFamily);
        }
        if rule.disabled {
            return Some(RuleOutcome::Disabled);
        }
        if self.is_later_fragment() && !rule.is_for_fragments() {
            return Some(RuleOutcome::NotForFragments);
        }
        if let Some(why) = &rule.invalid {
            return Some(RuleOutcome::Invalid(why.clone()));
        }
        let matcher = (0..rule.matchers.len()).find_map(|place| {
            let matcher = self.evaluator.orders[index][place];
            let condition = &rule.matchers[matcher].condition;
            if self.record.as_ref().is_some_and(|record| !record.decides(condition)) {
                return None;
            }
            (!self.holds(MatcherId { rule: index, matcher }, &rule.matchers[matcher])).then_some(matcher)
        })?;
        let (observed, workers_decide) = match self.tried {
            Some(_) => (self.observed(&rule.matchers[matcher]), self.workers_decide(index, rule, matcher)),
            None => (String::new(), None),
        };
        Some(RuleOutcome::Missed { matcher, observed, workers_decide })
    }

    fn add(&mut self, add: &ListAdd, address: IpAddr) -> String {
        let list = &add.list;
        let time = match add.timeout {
            ListTimeout::After(time) => format!(" for {}", format_duration(time)),
            ListTimeout::NoneDynamic | ListTimeout::NoneStatic => String::new(),
        };
        let vlan = self.evaluator.settings.vlans.of_lists(self.vlan);
        let added = self.evaluator.lists.add_within(vlan, list, address, add.timeout, self.now);
        if let Some(record) = self.record.as_mut().filter(|_| add.timeout == ListTimeout::After(Duration::ZERO)) {
            record.unlist(list, [address == self.packet.source, address == self.packet.destination]);
        }
        match added {
            Added::New => format!("added {address} to {list}{time}"),
            Added::Refreshed => format!("kept {address} in {list}{time}"),
            Added::Kept => format!("{address} is in {list} by a static entry or by a prefix"),
        }
    }

    /// Lets later packets of a TCP or UDP connection bypass the filter's rules. Source: RouterOS manual, FastTrack.
    fn fasttrack(&mut self) -> Option<String> {
        let key = self.seen.filter(|seen| seen.source.is_some())?.flow?;
        if !matches!(self.packet.protocol, protocol::TCP | protocol::UDP) {
            return None;
        }
        self.evaluator.tracker.flow_mut(&key, self.now)?.fasttracked = true;
        Some("later packets of the connection bypass the filter rules".to_owned())
    }

    /// Logs the packet, for `log=yes` or the action `log`.
    fn log(&mut self, index: usize, rule: &Rule) {
        let prefix = match (&rule.log, &rule.action) {
            (Some(log), _) => &log.prefix,
            (None, Action::Log) => "",
            (None, _) => return,
        };
        let text = LoggedPacket::of(self.packet, self.seen.map(|seen| seen.state)).line(prefix, &rule.chain);
        self.logged.push(Logged { rule: index, text });
    }

    fn reply(&mut self, place: Option<usize>, reply: Option<Vec<u8>>) {
        let is_recorded = self.record.as_ref().map(Replay::is_answered);
        let reply = reply.filter(|_| is_recorded != Some(false));
        let effect = if reply.is_some() { "answered the sender" } else { "sent no answer" };
        self.replies.extend(reply);
        self.record_effect(place, Some(effect.to_owned()));
    }

    /// Records the effect of a rule that matched.
    fn record_effect(&mut self, place: Option<usize>, effect: Option<String>) {
        if let (Some(tried), Some(place)) = (&mut self.tried, place) {
            tried[place].outcome = RuleOutcome::Matched { effect };
        }
    }
}
