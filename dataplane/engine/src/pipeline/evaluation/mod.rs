//! A packet's walk through the rules of a chain: headers first, then the rest; every rule that matches counts it; the
//! first that accepts or drops decides.
//!
//! An address is looked up in the lists at most once a packet, when a rule first asks, and an addition is put into what
//! was looked up: **the next rule on the same packet sees it**.

mod knock;

use std::net::IpAddr;

use knockplane_policy::eval::limits::Random;
use knockplane_policy::eval::log::Entry;
use knockplane_policy::eval::replies::{Answer, rejection, tarpit};
use knockplane_policy::eval::{MAX_JUMP_DEPTH, clock, keyed};
use knockplane_policy::event::Origin;
use knockplane_policy::packet::{FragmentPart, Packet, Vlan, protocol};
use knockplane_policy::reason::Verdict;
use knockplane_policy::rule::{BuiltinChain, ConnectionState, ListTimeout, RejectWith};
use knockplane_policy::time::Time;

use crate::pipeline::Context;
use crate::pipeline::history::Recorder;
use crate::pipeline::lookup_cache::Recent;
use crate::pipeline::reply::Reply;
use crate::state::State;
use crate::state::connections::{FlowSeen, Seen};
use crate::state::events::logged::LoggedPacket;
use crate::state::events::{Cause, RulePosition};
use crate::state::key::Key;
use crate::state::layer7::PatternSet;
use crate::state::lists::{self, AddOutcome, ListId, ListSet, Membership};
use crate::state::server_name::{self, ServerName};
use crate::table::{Candidates, CompiledRule, Program, Span, StateTest, Step, View};

/// What a walk needs room for, made once: to clear it anew for each packet would cost as much as to decide.
pub(crate) struct Memory {
    /// There can be a second look: a step at a door that came too early waits for it.
    pub(crate) waits: bool,
    pub(crate) recorder: Recorder,
    recent: Recent,
    candidates: Candidates,
    returns: Returns,
    random: Random,
}

impl Memory {
    pub(crate) fn new(random: Random, recorder: Recorder) -> Memory {
        Memory {
            waits: false,
            recorder,
            recent: Recent::default(),
            candidates: Candidates::default(),
            returns: Returns::default(),
            random,
        }
    }
}

/// What a packet that came too early waits for, and what else was known of it then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// A rule would have added to a list.
    pub(crate) addition: bool,
    /// The lists of the doors' sequences whose later step it is.
    pub(crate) sequences: ListSet,
    /// What tracking made of it.
    pub(crate) state: Option<ConnectionState>,
}

impl Waiting {
    /// For an addition to a list: what most frames wait for.
    pub const ADDITION: Waiting = Waiting { addition: true, sequences: ListSet::EMPTY, state: None };

    /// Whether it waits for anything.
    pub fn is_any(&self) -> bool {
        self.addition || self.sequences != ListSet::default()
    }
}

/// Where a walk was counted, and whether another packet that looks the same would go the same way.
#[derive(Clone, Copy)]
pub(crate) struct Trail {
    pub(crate) rules: [u32; Trail::LONGEST],
    pub(crate) length: usize,
    /// The last rule that matched: the one that decided, if a rule did.
    pub(crate) last: u32,
    /// The built-in chain whose default decided.
    pub(crate) default_of: Option<BuiltinChain>,
    /// Nothing was changed, and nothing asked that packets of a train may differ in.
    pub(crate) is_plain: bool,
}

impl Trail {
    /// Matches that are remembered. Most packets match one or two rules.
    const LONGEST: usize = 4;

    fn note(&mut self, rule: u32) {
        self.last = rule;
        match self.rules.get_mut(self.length) {
            Some(place) => {
                *place = rule;
                self.length += 1;
            }
            None => self.is_plain = false,
        }
    }
}

/// One packet's way through the rules.
pub(crate) struct Walk<'a> {
    pub(crate) packet: &'a Packet<'a>,
    /// The network by which connections and doors know it.
    pub(crate) vlan: Vlan,
    pub(crate) view: View<'a>,
    pub(crate) now: Time,
    pub(crate) context: Context<'a>,
    memory: &'a mut Memory,
    /// Where an answer goes.
    reply: Option<&'a mut Reply>,
    /// What tracking made of it; none before that.
    pub(crate) seen: Option<Seen>,
    /// A `notrack` rule has matched.
    pub(crate) untracked: bool,
    /// It is a fragment behind the first.
    pub(crate) is_later: bool,
    /// The lists that source and destination are in, once a rule has asked.
    source: Option<Membership>,
    destination: Option<Membership>,
    /// Its source has tried too many ports, once a door has asked.
    scans: Option<bool>,
    /// The patterns that match the packet by itself, once a rule has asked.
    spoken: Option<PatternSet>,
    pub(crate) trail: Trail,
    /// What the packet came too early for: additions that were left out only because its source is not in a list, and
    /// later steps at doors. In a second look, what it still waits for.
    pub(crate) waiting: Waiting,
    pub(crate) answered: bool,
    /// This is a second look: only what the packet waits for counts.
    again: bool,
    /// A second look is over: it came to a rule that must not be asked again.
    ends_here: bool,
}

/// Whether a packet is a fragment, the first one included. Cheaper than to ask which.
pub(crate) fn is_part(packet: &Packet<'_>) -> bool {
    let network = usize::from(packet.network);
    if packet.source.is_ipv4() {
        // More fragments, or an offset.
        packet.frame.get(network + 6..network + 8).is_some_and(|field| field[0] & 0x3f != 0 || field[1] != 0)
    } else {
        // Only behind extension headers.
        usize::from(packet.transport) > network + 40 && packet.fragment() != Some(FragmentPart::Whole)
    }
}

impl<'a> Walk<'a> {
    /// With room for an answer, if there may be one.
    pub(crate) fn new(
        packet: &'a Packet<'a>,
        now: Time,
        context: Context<'a>,
        memory: &'a mut Memory,
        reply: Option<&'a mut Reply>,
    ) -> Walk<'a> {
        Walk {
            packet,
            vlan: context.table.settings().vlans.of(packet.vlan()),
            view: packet.into(),
            now,
            context,
            memory,
            reply,
            seen: None,
            untracked: false,
            is_later: false,
            source: None,
            destination: None,
            scans: None,
            spoken: None,
            trail: Trail { rules: [0; Trail::LONGEST], length: 0, last: 0, default_of: None, is_plain: true },
            waiting: Waiting::default(),
            answered: false,
            again: false,
            ends_here: false,
        }
    }

    /// Whether another packet that looks the same would go the same way, and change as little.
    pub(crate) fn is_plain(&self) -> bool {
        self.trail.is_plain && !self.view.looked_closer()
    }

    /// Only what it waits for counts: see `Decider::look_again`. What it waits for still.
    pub(crate) fn look_again(mut self, waiting: Waiting, is_last: bool) -> Waiting {
        self.again = true;
        self.memory.waits = !is_last;
        self.waiting = waiting;
        let Context { table, .. } = self.context;
        let family = self.packet.family();
        let chain = table.filter(family).entry(self.packet.side, &self.view);
        if self.enter(table.raw(family), chain) != Some(Verdict::Drop) {
            // As it was seen then: what the packet itself has done since is not to keep it from its step.
            self.seen = Some(Seen::alone(waiting.state.unwrap_or(ConnectionState::Untracked)));
            self.enter(table.filter(family), chain);
        }
        self.waiting
    }

    /// The verdict of the rules that a packet of this chain meets in this menu; none if they come to none.
    pub(crate) fn enter(&mut self, program: &'a Program, chain: BuiltinChain) -> Option<Verdict> {
        let Context { table, counters, .. } = self.context;
        let mut span = program.chain(chain);
        program.candidates(&self.view, &mut self.memory.candidates);
        self.memory.returns.depth = 0;
        loop {
            let Some(rule) = program.classify(&mut self.memory.candidates, &mut span, &self.view, table.about()) else {
                span = self.memory.returns.pop()?;
                continue;
            };
            if self.is_later && !rule.is_for_fragments {
                continue;
            }
            if !self.matches(rule) {
                if self.ends_here {
                    return Some(Verdict::Drop);
                }
                continue;
            }
            self.trail.note(rule.index);
            if !self.again {
                counters.count_rule(rule.index as usize, 1, self.packet.ip_length);
                if rule.logs {
                    self.log(rule.index);
                }
            }
            match rule.step {
                Step::Accept => return Some(Verdict::Forward),
                Step::AcceptDoor(open) => {
                    self.let_in(open);
                    return Some(Verdict::Forward);
                }
                Step::Knock(door) => self.knock(door),
                Step::Drop => return Some(Verdict::Drop),
                Step::Reject(with) => {
                    let may_tell = || with == RejectWith::TcpReset || self.context.state.may_tell(self.now);
                    let answer = rejection(self.packet, with).filter(|_| !self.again && may_tell());
                    self.answer(answer);
                    return Some(Verdict::Drop);
                }
                Step::Tarpit => {
                    let state = self.context.state;
                    let may_acknowledge = || state.may_acknowledge(self.packet.source, self.now);
                    let answer = (!self.again).then(|| tarpit(self.packet, state.secret(), may_acknowledge));
                    self.answer(answer.flatten());
                    return Some(Verdict::Drop);
                }
                Step::Passthrough => {}
                Step::Fasttrack => self.fasttrack(),
                Step::Notrack => {
                    self.untracked = true;
                    self.trail.is_plain = false;
                }
                Step::AddSource(..) | Step::AddDestination(..) if self.again && !self.waiting.addition => {}
                Step::AddSource(list, timeout) => self.add(rule.index, list, self.packet.source, timeout),
                Step::AddDestination(list, timeout) => self.add(rule.index, list, self.packet.destination, timeout),
                Step::Jump(target) => {
                    if !self.memory.returns.push(std::mem::replace(&mut span, target)) {
                        return Some(Verdict::Drop);
                    }
                }
                Step::Return => span = self.memory.returns.pop()?,
            }
        }
    }

    /// The chain's default decides.
    pub(crate) fn count_default(&mut self, chain: BuiltinChain) {
        self.trail.default_of = Some(chain);
        self.context.counters.count_default(chain, 1, self.packet.ip_length);
    }

    /// Whether what headers do not answer is so as well.
    fn matches(&mut self, rule: &CompiledRule) -> bool {
        let missed = rule.state.iter().find(|test| {
            let answer = self.asks(&test.question);
            answer.is_none_or(|answer| answer == test.negated)
        });
        let Some(missed) = missed else { return true };
        let adds = matches!(rule.step, Step::AddSource(..) | Step::AddDestination(..));
        if self.again {
            // What learns is not asked twice. It may have been what kept the packet out: nothing behind it counts.
            self.ends_here |= !adds && missed.question.learns();
            return false;
        }
        self.waiting.addition |= adds && matches!(missed.question, StateTest::Source(_)) && !missed.negated;
        self.trail.is_plain &= !self.waiting.addition;
        false
    }

    /// The answer to a question; none if it makes no sense of this packet.
    fn asks(&mut self, question: &StateTest) -> Option<bool> {
        let Context { table, state, wall, .. } = self.context;
        let (packet, now) = (self.packet, self.now);
        self.trail.is_plain &= question.is_plain();
        Some(match question {
            StateTest::Header(test) => test.asks(&self.view, table.about())?,
            StateTest::Source(list) => self.lists_of_source().lists.contains(*list),
            StateTest::Destination(list) => self.lists_of_destination().lists.contains(*list),
            StateTest::ConnectionState(states) => states.contains(self.seen?.state),
            StateTest::ConnectionDoor(open) => self.flow()?.door == Some(*open),
            StateTest::TlsHost(name) => match self.server_name()? {
                ServerName::Unknown => return None,
                ServerName::Fits(names) => names.contains(*name),
            },
            StateTest::Time { from, to, days } => {
                let utc = (wall + i128::from(now.as_nanos())).div_euclid(1_000_000_000);
                clock::holds(utc + i128::from(table.settings().time_zone.seconds()), *from, *to, *days)
            }
            StateTest::ConnectionBytes { from, to } => (*from..=*to).contains(&self.flow()?.bytes),
            StateTest::ConnectionRate(from, to) => (*from..=*to).contains(&self.flow()?.last_second.saturating_mul(8)),
            StateTest::Content(content) => content.find(packet.payload).is_some(),
            StateTest::Layer7(pattern) => self.spoken().contains(*pattern),
            StateTest::Classifier { fields, denominator, remainder } => {
                keyed::classifier(state.secret(), *fields, packet).checked_rem(*denominator)? == *remainder
            }
            // What learns does so once.
            _ if self.again => return None,
            StateTest::ConnectionLimit { matcher, count, prefix_length } => {
                let source = (packet.source, *prefix_length, *count);
                table.reached.as_ref()?.exceeds(state.flows()?, *matcher, self.flow()?, source, now)?
            }
            StateTest::Psd(meter, weights) => table.meters.scans(*meter, weights, packet, now)?,
            StateTest::Random(percent) => self.memory.random.percent() < *percent,
            StateTest::Nth { meter, every, packet } => table.meters.nth(*meter, *every)? == *packet,
            StateTest::Limit(meter, rate) => table.meters.limit(*meter, rate, packet, now)?,
            StateTest::DstLimit { meter, rate, mode, expire } => {
                table.meters.dst_limit(*meter, (rate, *mode, *expire), packet, now)?
            }
        })
    }

    fn lists_of_source(&mut self) -> Membership {
        if self.source.is_none() {
            self.source = Some(self.membership(self.view.source, self.packet.destination));
        }
        self.source.unwrap_or_default()
    }

    fn lists_of_destination(&mut self) -> Membership {
        if self.destination.is_none() {
            self.destination = Some(self.membership(self.view.destination, self.packet.source));
        }
        self.destination.unwrap_or_default()
    }

    /// As far as packets from one to the other are concerned.
    fn membership(&mut self, key: Key, other: IpAddr) -> Membership {
        let Context { table, state, .. } = self.context;
        let to = if table.has_doors() { state.lists.peer_tag(other) } else { 0 };
        let entries = (table.number(), table.entries());
        self.memory.recent.membership(&state.lists, entries, key.in_vlan(self.vlan), to, self.now)
    }

    /// The packet's connection, or the one it is related to.
    fn flow(&self) -> Option<&FlowSeen> {
        self.seen.as_ref()?.flow.as_ref()
    }

    /// The connection that the packet is of.
    pub(crate) fn own_flow(&self) -> Option<&FlowSeen> {
        self.flow().filter(|flow| flow.back.is_some())
    }

    /// The server's name, as far as the packet's sender has said it; none for what is not TCP.
    fn server_name(&self) -> Option<ServerName> {
        if self.packet.protocol != protocol::TCP || self.packet.ports.is_none() {
            return None;
        }
        Some(match self.own_flow() {
            Some(flow) => flow.name,
            None => server_name::server_name(self.packet.payload, self.context.table.server_names()),
        })
    }

    /// The patterns that match: over the connection, or else over the packet by itself.
    fn spoken(&mut self) -> PatternSet {
        if let Some(flow) = self.own_flow() {
            return flow.patterns;
        }
        let (patterns, payload) = (self.context.table.patterns(), self.packet.payload);
        *self.spoken.get_or_insert_with(|| patterns.alone(payload))
    }

    /// Takes the packet's connection past the filter's rules from the next packet on. TCP and UDP only. Source: RouterOS
    /// manual, FastTrack.
    fn fasttrack(&mut self) {
        self.trail.is_plain = false;
        let can_be = matches!(self.packet.protocol, protocol::TCP | protocol::UDP) && !self.again;
        if let (Some(flow), Some(flows), true) = (self.own_flow(), self.context.state.flows(), can_be) {
            flows.fasttrack(&flow.key, self.now);
        }
    }

    fn answer(&mut self, answer: Option<Answer>) {
        self.trail.is_plain = false;
        if let (Some(answer), Some(reply)) = (answer, &mut self.reply) {
            self.answered = reply.write(self.packet, &answer);
        }
    }

    fn log(&mut self, rule: u32) {
        self.trail.is_plain = false;
        let state = self.seen.map(|seen| seen.state);
        let table = self.context.table.number();
        let packet = LoggedPacket { rule: RulePosition { table, rule }, entry: Entry::of(self.packet, state) };
        if !self.context.logged.push(packet) {
            self.context.counters.count_unlogged(rule as usize);
        }
    }

    fn add(&mut self, rule: u32, list: ListId, address: IpAddr, timeout: ListTimeout) {
        let Context { table, state: State { lists, .. }, counters, .. } = self.context;
        self.trail.is_plain = false;
        if table.entries_of(address, self.now).contains(list) {
            // It is in it by an entry of the rules' file, which no packet changes.
            return;
        }
        let expiry = lists::expiry(timeout, self.now);
        let vlan = table.settings().vlans.of_lists(self.vlan);
        let position = RulePosition { table: table.number(), rule };
        let cause = Cause { rule: Some(position), ..Cause::of(Origin::Packet) };
        let added = lists.in_vlan(vlan).by(cause).add_for(list, address, 0, expiry, self.now);
        if self.again && added == AddOutcome::New {
            counters.count_rule(rule as usize, 1, self.packet.ip_length);
        }
        self.waiting.addition &= !(self.again && added == AddOutcome::New);
        if added == AddOutcome::New && lists.level(list) > 0 {
            self.context.state.look_at_checksum(self.packet);
        }
        for (whose, looked_up) in
            [(self.packet.source, &mut self.source), (self.packet.destination, &mut self.destination)]
        {
            if whose != address {
                continue;
            }
            if expiry <= self.now {
                // A timeout of nothing ends an entry: look again.
                *looked_up = None;
            } else if let (Some(listed), AddOutcome::New | AddOutcome::Refreshed) = (looked_up, added) {
                listed.lists.insert(list);
            }
        }
    }
}

/// Where jumps lead back to. Bounded by the depth that tables are compiled for.
#[derive(Default)]
struct Returns {
    spans: [Span; MAX_JUMP_DEPTH],
    depth: usize,
}

impl Returns {
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
