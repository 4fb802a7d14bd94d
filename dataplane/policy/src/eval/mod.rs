//! The reference: rules tried one by one, in order, in the plainest way there is.
//!
//! It is slow and obviously right. The engine's compiled table is tested against it; explanations use it.
//!
//! ```text
//! packet → raw: prerouting or output → tracking, if a rule needs it → filter: input, forward or output → verdict
//!            drop, notrack, lists        which connection is it of?     unless its connection is fasttracked
//! ```
//!
//! A rule's matchers are tried in the order of [`MATCHERS`](crate::rule::MATCHERS), until one is false: what has a
//! memory, such as a limit, learns of a packet only if everything before it was true. What a rule adds to a list is there
//! for the next rule on the same packet. Source: RouterOS's kernel modules.
//!
//! A fragment behind the first has no ports, no ICMP type and no payload, and no rule guesses them: it meets only rules
//! that ask for `fragment=yes`, which may drop it, and otherwise shares the verdict of its first. One whose first was not
//! forwarded, or not seen before it, is dropped. Where connections are tracked it is of its first fragment's connection.
//!
//! Nothing here is bounded but by time: what has expired is forgotten.
//!
//! | module         | owns |
//! |----------------|------|
//! | this           | an evaluation's way, and what it yields |
//! | `walk`         | chains: jumps, returns, actions |
//! | `matchers`     | what each matcher asks; at greater length `address`, `clock`, `connection`, `keyed`, `limits`, `tls` |
//! | [`lists`]      | the address lists |
//! | `doors`        | who knocks at doors, and for whom they are open |
//! | `frames`       | frames that rules do not see |
//! | [`tracking`]   | connections |
//! | [`replies`]    | what `reject` and `tarpit` send back |
//! | `log`          | the lines of the log |
//! | `saw`          | what a matcher that was false saw |

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
pub mod replies;
mod saw;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod tracking;
mod walk;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use self::connection::Reached;
use self::doors::Doors;
use self::limits::{Bucket, Memory};
pub use self::lists::{Listed, PlainLists};
use self::tracking::{Datagram, FRAGMENT_TIMEOUT, FlowKey, Seen, Tracker};
use self::walk::Walk;
use crate::door;
use crate::frames::FrameClass;
use crate::packet::{FragmentPart, Packet, Side};
use crate::reason::{Reason, Verdict};
use crate::rule::{BuiltinChain, ConnectionState, Rule, RuleSet, Table};
use crate::settings::Settings;
use crate::time::Time;

/// How deep jumps may nest; a chain that jumps deeper, or in a circle, is not compiled.
pub const MAX_JUMP_DEPTH: usize = 32;

/// A firewall in the plainest form: rules, and everything they remember.
pub struct Evaluator<'r> {
    rules: &'r RuleSet,
    settings: &'r Settings,
    /// By rule: its matchers in the order in which they are evaluated, however they are written.
    orders: Vec<Vec<usize>>,
    /// For what is hashed.
    secret: [u64; 2],
    tracks: bool,
    lists: PlainLists,
    doors: Doors,
    tracker: Tracker<'r>,
    memory: Memory,
    reached: Reached,
    icmp_errors: Bucket,
    /// Until when the frames of each class and side have used up its rate.
    frame_rates: HashMap<(FrameClass, Side), Time>,
    /// Datagrams whose first fragment was forwarded, until when.
    datagrams: HashMap<(Side, Datagram), Time>,
    /// Until when a tarpit does not acknowledge, by peer.
    acknowledged: HashMap<IpAddr, Time>,
    /// When expired things are forgotten next.
    sweep: Time,
    /// A point in time, and what the clock on the wall said then: time since 1970, UTC.
    wall: (Time, Duration),
}

/// What the rules made of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// What happens to the packet.
    pub verdict: Verdict,
    /// [`Reason::Rule`], [`Reason::ChainDefault`] or [`Reason::Fasttracked`].
    pub reason: Reason,
    /// Indexes of the rules that matched, in the order in which they were met, those in `raw` first; the last one
    /// decided if `reason` is [`Reason::Rule`]. Each of them counts the packet.
    pub matched: Vec<usize>,
    /// What is sent back, out of the side the packet came in on: IP packets. At most one, by `reject` or `tarpit`.
    pub replies: Vec<Vec<u8>>,
    /// The lines that the rules log.
    pub logged: Vec<Logged>,
    /// What it did at doors.
    pub doors: Vec<door::Event>,
}

/// A line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Index of the rule that logs it.
    pub rule: usize,
    /// What it says.
    pub text: String,
}

/// Why a packet's verdict is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What came of it.
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
    /// How many jumps led there.
    pub depth: usize,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a rule that a packet met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is disabled.
    Disabled,
    /// It is invalid, for this reason.
    Invalid(String),
    /// It stands in the other family's menu.
    OtherFamily,
    /// It does not ask for `fragment=yes`, and the packet is a fragment behind the first.
    NotForFragments,
    /// A matcher was false; those behind it in the order of evaluation were not tried.
    Missed {
        /// Its index among the rule's matchers.
        matcher: usize,
        /// What it saw, for people: "dst-port is 80".
        saw: String,
    },
    /// All matchers were true.
    Matched {
        /// What the rule changed, for people: "added 192.0.2.1 to temporary for 10s".
        effect: Option<String>,
    },
}

impl<'r> Evaluator<'r> {
    /// Nothing has been seen yet. The rules' entries of address lists are in, those with a timeout from the clock's zero
    /// on, which is also 1970 on the wall: see [`Evaluator::at_wall`]. The seed is for `random` and for what is hashed.
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
            memory: Memory::new(seed),
            reached: Reached::new(),
            icmp_errors: Bucket::full(&replies::ICMP_ERRORS, Time::default()),
            frame_rates: HashMap::new(),
            datagrams: HashMap::new(),
            acknowledged: HashMap::new(),
            sweep: Time::default(),
            wall: Default::default(),
        };
        evaluator.at_wall(Time::default(), Duration::ZERO)
    }

    /// The rules are applied now: timeouts of their entries of address lists begin, and the clock on the wall says that so
    /// much time has passed since 1970, UTC. For a new evaluator: what was in the lists is not any more.
    #[must_use]
    pub fn at_wall(mut self, now: Time, since_1970: Duration) -> Self {
        self.wall = (now, since_1970);
        self.lists = PlainLists::default();
        for entry in &self.rules.address_lists {
            self.lists.add_entry(entry, now);
        }
        self
    }

    /// Runs a packet through the rules, and changes state as they say.
    pub fn evaluate(&mut self, packet: &Packet<'_>, now: Time) -> Evaluation {
        self.run(packet, now, false).evaluation
    }

    /// As [`Evaluator::evaluate`], and tells every rule that was tried.
    pub fn explain(&mut self, packet: &Packet<'_>, now: Time) -> Explanation {
        self.run(packet, now, true)
    }

    /// The address lists as they are.
    pub fn lists(&self) -> &PlainLists {
        &self.lists
    }

    /// Who is in which list now, those of the doors too, ordered. A source is told once for each network, whatever it has
    /// knocked at.
    pub fn listed(&self, now: Time) -> Vec<Listed> {
        let mut of_doors = self.doors.live(now);
        let mut listed = self.lists.live(now);
        for (list, address, vlan, left) in &mut listed {
            let of_door = of_doors.remove(&(list.clone(), (*vlan, *address)));
            *left = left.map(|left| of_door.map_or(left, |of_door| of_door.max(left)));
        }
        listed.extend(of_doors.into_iter().map(|((list, (vlan, address)), left)| (list, address, vlan, Some(left))));
        listed.sort();
        listed
    }

    /// The address lists, for whoever fills them from elsewhere.
    pub fn lists_mut(&mut self) -> &mut PlainLists {
        &mut self.lists
    }

    /// The connections that are known now: what names them, and whether they were seen both ways.
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
        let mut walk =
            Walk { evaluator: self, packet, vlan, now, seen, untracked, matched, replies, logged, doors, tried };
        let (verdict, reason) = walk.decide(chain);
        walk.settle(verdict);
        let Walk { matched, replies, logged, doors, tried, .. } = walk;
        let evaluation = Evaluation { verdict, reason, matched, replies, logged, doors };
        Explanation { evaluation, chain, tried: tried.unwrap_or_default() }
    }

    /// Once a second is enough: whoever asks looks at the time of expiry as well.
    fn forget(&mut self, now: Time) {
        if now < self.sweep {
            return;
        }
        self.sweep = now + Duration::from_secs(1);
        self.lists.sweep(now);
        self.doors.sweep(now);
        self.tracker.sweep(now);
        self.memory.sweep(now);
        self.datagrams.retain(|_, until| now < *until);
        self.acknowledged.retain(|_, until| now < *until);
        let tracker = &self.tracker;
        self.reached.retain(|_, keys| keys.iter().any(|(key, _)| tracker.flow(key, now).is_some()));
    }
}

/// RouterOS's order.
fn in_order(rule: &Rule) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rule.matchers.len()).collect();
    if order.len() > 1 {
        order.sort_by_cached_key(|matcher| rule.matchers[*matcher].condition.rank());
    }
    order
}

impl Walk<'_, '_> {
    /// What the rules say, as far as the packet's datagram allows it.
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

    /// Forgets the packet's connection if it does not stay.
    fn settle(&mut self, verdict: Verdict) {
        if let Some(Seen { flow: Some(key), stays, .. }) = self.seen
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
            false => Seen::alone(ConnectionState::Untracked),
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
