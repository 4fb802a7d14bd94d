//! The reference evaluator: tries rules one by one, in order, in the simplest way.
//!
//! It is slow and easy to verify. Differential tests compare the engine's compiled table with it; explanations use it.
//!
//! ```text
//! packet → raw: prerouting or output → tracking, if a rule needs it → filter: input, forward or output → verdict
//!            drop, notrack, lists        which connection is it of?     unless its connection is fasttracked
//! ```
//!
//! A rule's matchers are tried in the order of [`MATCHERS`](crate::rule::MATCHERS), until one is false: a matcher with
//! state, such as a limit, sees a packet only if every matcher before it was true. An address that a rule adds to a
//! list is in the list for the next rule on the same packet. Source: RouterOS's kernel modules.
//!
//! A later fragment has no ports, no ICMP type and no payload, and no rule guesses them. It meets only rules with
//! `fragment=yes`, which may drop it; otherwise it gets the verdict of its first fragment. It is dropped if its first
//! fragment was not forwarded, or not seen before it. Where connections are tracked, it belongs to its first fragment's
//! connection.
//!
//! State here is not bounded in size; expired state is removed.
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

pub mod address;
pub mod clock;
mod connection;
mod doors;
mod frames;
pub mod keyed;
pub mod limits;
pub mod lists;
pub mod log;
mod matchers;
mod observed;
pub mod replies;
mod rule_evaluation;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod tracking;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use self::connection::PrefixConnections;
use self::doors::Doors;
use self::limits::{Bucket, MatcherState};
pub use self::lists::{ListedAddress, PlainLists};
use self::rule_evaluation::RuleEvaluation;
use self::tracking::{Datagram, FRAGMENT_TIMEOUT, FlowKey, TrackedPacket, Tracker};
use crate::door;
use crate::frames::FrameClass;
use crate::packet::{FragmentPart, Packet, Side};
use crate::reason::{Reason, Verdict};
use crate::rule::{BuiltinChain, ConnectionState, Rule, RuleSet, Table};
use crate::settings::Settings;
use crate::time::Time;

/// Highest depth of jumps. A chain with deeper jumps, or with a cycle, is not compiled.
pub const MAX_JUMP_DEPTH: usize = 32;

/// The reference evaluator: a rule set and all its state.
pub struct Evaluator<'r> {
    rules: &'r RuleSet,
    settings: &'r Settings,
    /// By rule: its matchers in their order of evaluation.
    orders: Vec<Vec<usize>>,
    /// The key of hashes.
    secret: [u64; 2],
    tracks: bool,
    lists: PlainLists,
    doors: Doors,
    tracker: Tracker<'r>,
    matcher_state: MatcherState,
    prefix_connections: PrefixConnections,
    icmp_errors: Bucket,
    /// Time until which the frames of each class and side have used up its rate.
    frame_rates: HashMap<(FrameClass, Side), Time>,
    /// Datagrams whose first fragment was forwarded, each with its expiry.
    datagrams: HashMap<(Side, Datagram), Time>,
    /// Time until which a tarpit does not acknowledge, by peer.
    acknowledged: HashMap<IpAddr, Time>,
    /// When expired state is removed next.
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
    /// Indexes of the rules that matched, in the order in which they were met, those in `raw` first; the last one
    /// decided if `reason` is [`Reason::Rule`]. Each of them counts the packet.
    pub matched: Vec<usize>,
    /// The replies, sent out of the side on which the packet arrived: IP packets. At most one, of `reject` or `tarpit`.
    pub replies: Vec<Vec<u8>>,
    /// The lines that rules log.
    pub logged: Vec<Logged>,
    /// Its events at doors.
    pub doors: Vec<door::DoorEvent>,
}

/// A log line of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Index of the rule.
    pub rule: usize,
    /// Its text.
    pub text: String,
}

/// The explanation of a packet's verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The result.
    pub evaluation: Evaluation,
    /// The filter's chain that the packet enters.
    pub chain: BuiltinChain,
    /// Every rule the packet met, in order, those in `raw` first.
    pub tried: Vec<Tried>,
}

/// A rule that a packet met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Its index.
    pub rule: usize,
    /// The chain it is in.
    pub chain: String,
    /// Depth of jumps to it.
    pub depth: usize,
    /// Its outcome.
    pub outcome: RuleOutcome,
}

/// The outcome of a rule that a packet met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleOutcome {
    /// It is disabled.
    Disabled,
    /// It is invalid, for this reason.
    Invalid(String),
    /// It belongs to the other family's menu.
    OtherFamily,
    /// It has no `fragment=yes`, and the packet is a later fragment.
    NotForFragments,
    /// A matcher was false; later ones in the order of evaluation were not tried.
    Missed {
        /// Its index among the rule's matchers.
        matcher: usize,
        /// The observed value: "dst-port is 80".
        observed: String,
    },
    /// All matchers were true.
    Matched {
        /// The effect of the rule: "added 192.0.2.1 to temporary for 10s".
        effect: Option<String>,
    },
}

impl<'r> Evaluator<'r> {
    /// An evaluator without packets so far. The lists contain the rules' entries; timeouts count from the clock's zero,
    /// which is also 1970 on the wall clock: see [`Evaluator::at_wall`]. The seed is for `random` and for hashes.
    pub fn new(rules: &'r RuleSet, settings: &'r Settings, seed: u64) -> Self {
        let evaluator = Evaluator {
            rules,
            settings,
            orders: rules.rules.iter().map(in_order).collect(),
            secret: [seed, !seed],
            tracks: tracking::is_needed(rules),
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

    /// Applies the rules now: timeouts of their list entries begin, and the wall clock is at this time since 1970, UTC.
    /// For a new evaluator: it resets the lists.
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
        self.run(packet, now, false).evaluation
    }

    /// As [`Evaluator::evaluate`], with every rule that was tried.
    pub fn explain(&mut self, packet: &Packet<'_>, now: Time) -> Explanation {
        self.run(packet, now, true)
    }

    /// The address lists as they are.
    pub fn lists(&self) -> &PlainLists {
        &self.lists
    }

    /// The entries of all lists now, including those of doors, in order. A source appears once for each network,
    /// whatever its destinations.
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

    /// The known connections: their keys, and whether they were seen in both directions.
    pub fn connections(&self, now: Time) -> Vec<(FlowKey, bool)> {
        self.tracker.known(now)
    }

    fn run(&mut self, packet: &Packet<'_>, now: Time, explain: bool) -> Explanation {
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
        };
        let (verdict, reason) = evaluation.decide(chain);
        evaluation.settle(verdict);
        let RuleEvaluation { matched, replies, logged, doors, tried, .. } = evaluation;
        let evaluation = Evaluation { verdict, reason, matched, replies, logged, doors };
        Explanation { evaluation, chain, tried: tried.unwrap_or_default() }
    }

    /// Once a second is enough, because every lookup checks the expiry.
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
    /// The verdict of the rules, as far as the packet's datagram allows it.
    fn decide(&mut self, chain: BuiltinChain) -> (Verdict, Reason) {
        let (verdict, reason) = self.by_rules(chain);
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

    /// Removes the packet's connection if it does not stay.
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
            true => self.evaluator.tracker.observe(self.packet, self.vlan, self.now),
            false => TrackedPacket::alone(ConnectionState::Untracked),
        };
        self.seen = Some(seen);
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
