//! The reference evaluator: evaluates rules one by one, in order, in the simplest way.
//!
//! It is slow and easy to verify. Differential tests compare the engine's compiled table with it; explanations use it.
//!
//! ```text
//! packet → raw: prerouting or output → tracking, if a rule needs it → filter: input, forward or output → verdict
//!            drop, notrack, lists        which connection is it of?     unless its connection is fasttracked
//! ```
//!
//! A rule's matchers are evaluated in the order of [`MATCHERS`](crate::rule::MATCHERS), until one is false: a stateful
//! matcher, such as a limit, processes a packet only if every matcher before it was true. An address that a rule adds
//! to a list is in the list for the next rule on the same packet. Source: RouterOS's kernel modules.
//!
//! A later fragment has no ports, no ICMP type and no payload, and no rule guesses them. Only rules with `fragment=yes`
//! are evaluated for it, and may drop it; otherwise it gets the verdict of its first fragment. It is dropped if its
//! first fragment was not forwarded, or did not arrive before it. If connections are tracked, it belongs to the
//! connection of its first fragment.
//!
//! The size of the state is not bounded. Expired state is removed.
//!
//! | module         | owns |
//! |----------------|------|
//! | this           | the evaluator, its state and its results |
//! | `rule_evaluation` | chains: jumps, returns, actions |
//! | `matchers`     | the matchers; longer ones in `address`, `clock`, `connection`, `keyed`, `limits`, `tls` |
//! | [`lists`]      | the address lists |
//! | `doors`        | knocks in progress, and grants |
//! | `frames`       | frames that rules do not see |
//! | [`tracking`]   | connections |
//! | [`replies`]    | the replies of `reject` and `tarpit` |
//! | `log`          | log lines of rules |
//! | `observed`     | the values that a false matcher observed, for explanations |
//! | [`recorded`]   | explanations of decisions that a worker made |

pub mod address;
pub mod clock;
mod connection;
mod doors;
mod flow;
mod frames;
pub mod keyed;
pub mod limits;
pub mod lists;
pub mod log;
mod matchers;
mod observed;
pub mod recorded;
pub mod replies;
mod rule_evaluation;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod tracking;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use self::connection::PrefixConnections;
use self::doors::Doors;
use self::limits::{Bucket, MatcherState};
pub use self::lists::{ListedAddress, PlainLists};
use self::recorded::{Record, Replay};
use self::rule_evaluation::RuleEvaluation;
use self::tracking::{Datagram, FRAGMENT_TIMEOUT, FlowKey, TrackedPacket, Tracker};
use crate::door;
use crate::frames::FrameClass;
use crate::packet::{FragmentPart, Packet, Side};
use crate::reason::{Reason, Verdict};
use crate::rule::{BuiltinChain, ConnectionState, Rule, RuleSet, Table};
use crate::settings::Settings;
use crate::time::Time;

/// Maximum depth of jumps. A chain with deeper jumps, or with a cycle, is not compiled.
pub const MAX_JUMP_DEPTH: usize = 32;

/// The reference evaluator: a rule set and all its state.
pub struct Evaluator<'r> {
    rules: &'r RuleSet,
    settings: &'r Settings,
    /// The indexes of each rule's matchers, in their order of evaluation.
    orders: Arc<[Vec<usize>]>,
    /// The key of hashes.
    secret: [u64; 2],
    tracks: bool,
    lists: PlainLists,
    doors: Doors,
    tracker: Tracker<'r>,
    matcher_state: MatcherState,
    prefix_connections: PrefixConnections,
    icmp_errors: Bucket,
    /// For each class and side: the time until which previous frames have used the rate.
    frame_rates: HashMap<(FrameClass, Side), Time>,
    /// Datagrams whose first fragment was forwarded, each with its expiry.
    datagrams: HashMap<(Side, Datagram), Time>,
    /// Time until which a tarpit does not acknowledge, by peer.
    acknowledged: HashMap<IpAddr, Time>,
    /// The time of the next removal of expired state.
    sweep: Time,
    /// A point in time, and the wall clock at that point: time since 1970, UTC.
    wall: (Time, Duration),
}

/// The result of the rules for one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The verdict.
    pub verdict: Verdict,
    /// [`Reason::Rule`], [`Reason::ChainDefault`] or [`Reason::Fasttracked`].
    pub reason: Reason,
    /// Indexes of the rules that matched, in the order of evaluation, those in `raw` first. The last one decided if
    /// `reason` is [`Reason::Rule`]. Each of them counts the packet.
    pub matched: Vec<usize>,
    /// The reply of `reject` or `tarpit`, at most one: an IP packet that leaves on the side on which the packet
    /// arrived.
    pub replies: Vec<Vec<u8>>,
    /// The lines that rules log.
    pub logged: Vec<Logged>,
    /// The events at doors.
    pub doors: Vec<door::DoorEvent>,
}

/// A log line of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Index of the rule.
    pub rule: usize,
    /// The text.
    pub text: String,
}

/// The explanation of a packet's verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The result.
    pub evaluation: Evaluation,
    /// The chain of the filter that evaluates the packet first.
    pub chain: BuiltinChain,
    /// Every rule that was evaluated, in order, those in `raw` first.
    pub tried: Vec<Tried>,
    /// The number of rules of which the record of a worker has another outcome than its facts explain.
    pub contradicted: usize,
}

/// A rule that was evaluated for a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The index.
    pub rule: usize,
    /// The chain of the rule.
    pub chain: String,
    /// The number of jumps that lead to the rule.
    pub depth: usize,
    /// The outcome.
    pub outcome: RuleOutcome,
}

/// The outcome of a rule that was evaluated for a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleOutcome {
    /// The rule is disabled.
    Disabled,
    /// The rule is invalid, for this reason.
    Invalid(String),
    /// The rule belongs to the menu of the other family.
    OtherFamily,
    /// The rule has no `fragment=yes`, and the packet is a later fragment.
    NotForFragments,
    /// A matcher was false. Later matchers in the order of evaluation were not evaluated.
    Missed {
        /// The index among the rule's matchers.
        matcher: usize,
        /// The observed value: "dst-port is 80".
        observed: String,
        /// Why workers decide about each packet of a flow like this one, although the rule does not match. Its words follow
        /// the rule: "it reads `ttl` of each packet". `None` if the kernel can carry the flow.
        workers_decide: Option<String>,
    },
    /// The record of a worker says that the rule did not match, and state that the record does not have decided.
    Unexplained {
        /// The index of the matcher that can have been false; `None` if no matcher depends on such state.
        matcher: Option<usize>,
    },
    /// All matchers were true.
    Matched {
        /// The effect of the rule: "added 192.0.2.1 to temporary for 10s".
        effect: Option<String>,
    },
}

impl<'r> Evaluator<'r> {
    /// Creates an evaluator. The lists contain the rules' entries. Timeouts count from the clock's zero, which is also
    /// 1970 on the wall clock: see [`Evaluator::at_wall`]. `random` and hashes use the seed.
    pub fn new(rules: &'r RuleSet, settings: &'r Settings, seed: u64) -> Self {
        let orders = rules.rules.iter().map(in_order).collect();
        Self::with_orders(rules, settings, seed, (orders, tracking::is_needed(rules)))
    }

    /// A new evaluator of the same rules, settings and seed. It does not examine each rule again.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self::with_orders(self.rules, self.settings, self.secret[0], (Arc::clone(&self.orders), self.tracks))
    }

    fn with_orders(
        rules: &'r RuleSet,
        settings: &'r Settings,
        seed: u64,
        (orders, tracks): (Arc<[Vec<usize>]>, bool),
    ) -> Self {
        let evaluator = Evaluator {
            rules,
            settings,
            orders,
            secret: [seed, !seed],
            tracks,
            lists: PlainLists::default(),
            doors: Doors::new(&settings.doors),
            tracker: Tracker::new(&rules.tracking),
            matcher_state: MatcherState::new(seed),
            prefix_connections: PrefixConnections::new(),
            icmp_errors: Bucket::full(&replies::ICMP_ERRORS, Time::default()),
            frame_rates: HashMap::new(),
            datagrams: HashMap::new(),
            acknowledged: HashMap::new(),
            sweep: Time::default(),
            wall: Default::default(),
        };
        evaluator.at_wall(Time::default(), Duration::ZERO)
    }

    /// Sets the start of the rules to `now`: the timeouts of their list entries begin, and the wall clock is at this
    /// time since 1970, UTC. Only for a new evaluator, because the call resets the lists.
    #[must_use]
    pub fn at_wall(mut self, now: Time, since_1970: Duration) -> Self {
        self.wall = (now, since_1970);
        self.lists = PlainLists::default();
        for entry in &self.rules.address_lists {
            self.lists.add_entry(entry, now);
        }
        self
    }

    /// Evaluates the rules for a packet, and changes state accordingly.
    pub fn evaluate(&mut self, packet: &Packet<'_>, now: Time) -> Evaluation {
        self.run(packet, now, false, None).evaluation
    }

    /// As [`Evaluator::evaluate`], with every rule that was evaluated.
    pub fn explain(&mut self, packet: &Packet<'_>, now: Time) -> Explanation {
        self.run(packet, now, true, None)
    }

    /// Explains a decision that a worker made: verdict, reason and the rules that matched are those of the record, and the
    /// causes that other rules did not match follow from the packet and the recorded facts. For a new evaluator.
    pub fn explain_recorded(&mut self, packet: &Packet<'_>, now: Time, record: &Record) -> Explanation {
        self.run(packet, now, true, Some(Replay::of(record)))
    }

    /// The address lists.
    pub fn lists(&self) -> &PlainLists {
        &self.lists
    }

    /// The entries of all lists now, including those of doors, in order. A source appears once for each network, also
    /// if it has several destinations.
    pub fn listed(&self, now: Time) -> Vec<ListedAddress> {
        let mut of_doors = self.doors.live(now);
        let mut listed = self.lists.live(now);
        for entry in &mut listed {
            let of_door = of_doors.remove(&(entry.list.clone(), (entry.vlan, entry.address)));
            entry.time_left = entry.time_left.map(|left| of_door.map_or(left, |of_door| of_door.max(left)));
        }
        listed.extend(of_doors.into_iter().map(|((list, (vlan, address)), left)| ListedAddress {
            list,
            address,
            vlan,
            time_left: Some(left),
        }));
        listed.sort();
        listed
    }

    /// The address lists, for callers that add entries.
    pub fn lists_mut(&mut self) -> &mut PlainLists {
        &mut self.lists
    }

    /// The known connections: their keys, and whether both directions have sent packets.
    pub fn connections(&self, now: Time) -> Vec<(FlowKey, bool)> {
        self.tracker.known(now)
    }

    fn run(&mut self, packet: &Packet<'_>, now: Time, explain: bool, record: Option<Replay<'_>>) -> Explanation {
        self.forget(now);
        let chain = self.settings.chain(packet);
        let (matched, replies, logged, doors) = Default::default();
        let tried = explain.then(Vec::new);
        let vlan = self.settings.vlans.of(packet.vlan());
        let (seen, untracked) = (None, false);
        let mut evaluation = RuleEvaluation {
            evaluator: self,
            packet,
            vlan,
            now,
            seen,
            untracked,
            matched,
            replies,
            logged,
            doors,
            tried,
            record,
        };
        let (verdict, reason) = evaluation.decide(chain);
        evaluation.settle(verdict);
        let RuleEvaluation { matched, replies, logged, doors, tried, record, .. } = evaluation;
        let contradicted = record.map_or(0, |record| record.contradicted);
        let evaluation = Evaluation { verdict, reason, matched, replies, logged, doors };
        Explanation { evaluation, chain, tried: tried.unwrap_or_default(), contradicted }
    }

    /// Removes expired state once a second, which is enough, because every lookup checks the expiry.
    fn forget(&mut self, now: Time) {
        if now < self.sweep {
            return;
        }
        self.sweep = now + Duration::from_secs(1);
        self.lists.sweep(now);
        self.doors.sweep(now);
        self.tracker.sweep(now);
        self.matcher_state.sweep(now);
        self.datagrams.retain(|_, until| now < *until);
        self.acknowledged.retain(|_, until| now < *until);
        let tracker = &self.tracker;
        self.prefix_connections.retain(|_, keys| keys.iter().any(|(key, _)| tracker.flow(key, now).is_some()));
    }
}

/// The indexes of the rule's matchers in RouterOS's order of evaluation.
fn in_order(rule: &Rule) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rule.matchers.len()).collect();
    if order.len() > 1 {
        order.sort_by_cached_key(|matcher| rule.matchers[*matcher].condition.rank());
    }
    order
}

impl RuleEvaluation<'_, '_> {
    /// The verdict. A later fragment is forwarded only if its first fragment was.
    fn decide(&mut self, chain: BuiltinChain) -> (Verdict, Reason) {
        let (verdict, reason) = self.by_rules(chain);
        if let Some(record) = &self.record {
            return record.decision();
        }
        let datagram = tracking::datagram(self.packet).map(|datagram| (self.packet.side, datagram));
        let datagrams = &mut self.evaluator.datagrams;
        match (self.packet.fragment(), datagram) {
            (Some(FragmentPart::First), Some(datagram)) if verdict == Verdict::Forward => {
                datagrams.insert(datagram, self.now + FRAGMENT_TIMEOUT);
            }
            (Some(FragmentPart::First), Some(datagram)) => {
                datagrams.remove(&datagram);
            }
            (Some(FragmentPart::Later), datagram) if verdict == Verdict::Forward => {
                let until = datagram.and_then(|datagram| datagrams.get(&datagram));
                if until.is_none_or(|until| *until <= self.now) {
                    return (Verdict::Drop, Reason::FragmentUnknown);
                }
            }
            _ => {}
        }
        (verdict, reason)
    }

    /// Removes the packet's connection if the packet ends it, or began it and is not forwarded.
    fn settle(&mut self, verdict: Verdict) {
        if let Some(TrackedPacket { flow: Some(key), stays, .. }) = self.seen
            && !stays.after(verdict)
        {
            self.evaluator.tracker.forget(&key);
        }
    }

    fn by_rules(&mut self, chain: BuiltinChain) -> (Verdict, Reason) {
        if self.enter(Table::Raw, Table::Raw.entry(chain)) == Some(Verdict::Drop) {
            return (Verdict::Drop, Reason::Rule);
        }
        let seen = match self.evaluator.tracks && !self.untracked {
            _ if self.record.is_some() => {
                TrackedPacket::alone(self.record.as_ref().map_or(ConnectionState::Untracked, Replay::state))
            }
            true => self.evaluator.tracker.observe(self.packet, self.vlan, self.now),
            false => TrackedPacket::alone(ConnectionState::Untracked),
        };
        self.seen = Some(seen);
        if self.record.as_ref().is_some_and(|record| record.decision().1 == Reason::Fasttracked) {
            return (Verdict::Forward, Reason::Fasttracked);
        }
        if seen.source.is_some() && self.flow().is_some_and(|flow| flow.fasttracked) {
            return (Verdict::Forward, Reason::Fasttracked);
        }
        match self.enter(Table::Filter, chain.name()) {
            Some(verdict) => (verdict, Reason::Rule),
            None if self.is_later_fragment() => (Verdict::Forward, Reason::Fragment),
            None => (self.evaluator.settings.chain_default.verdict(chain), Reason::ChainDefault),
        }
    }
}
