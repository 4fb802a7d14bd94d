//! The walk through the rules, a batch at a time.
//!
//! Packets are decided in the order of their frames, so that what one changes, the next one sees. A packet walks the rules of its chain: headers first, then lists, then layer 7; every
//! rule that matches counts it; the first that accepts or drops decides, or else the chain's default.
//!
//! An address is looked up in the lists at most once a packet, when a rule first asks, and an addition is put into what
//! was looked up: **the next rule on the same packet sees it**.

use std::net::IpAddr;

use knockplane_policy::eval::MAX_JUMP_DEPTH;
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rule::{BuiltinChain, ListTimeout};
use knockplane_policy::time::Time;

use crate::counters::RuleCounters;
use crate::events::{Event, EventQueue};
use crate::headers;
use crate::layer7::Scratch;
use crate::lists::{self, Added, ListId, ListSet, Lists};
use crate::recent::Recent;
use crate::table::{Span, StateTest, Step, Table, View};

/// Most frames decided at once. A burst of a ring: more would delay the first of them, fewer would spread the cost of a
/// turn over fewer.
pub const BATCH: usize = 64;

/// What happens to a frame and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens to it.
    pub verdict: Verdict,
    /// What decided that.
    pub reason: Reason,
}

/// Everything a decision needs besides the frame. All of it is shared but the counters, which are this worker's and
/// this table's.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The rules.
    pub table: &'a Table,
    /// The address lists.
    pub lists: &'a Lists,
    /// Where matches are counted.
    pub counters: &'a RuleCounters,
    /// Where to tell what happened.
    pub events: &'a EventQueue,
}

/// One worker's memory for deciding.
pub struct Decider {
    max_frame: usize,
    memory: Memory,
    decisions: [Decision; BATCH],
    decided: usize,
    early: u64,
}

/// What a walk needs room for, made once: to clear it anew for each packet would cost as much as to decide.
#[derive(Default)]
struct Memory {
    scratch: Box<Scratch>,
    recent: Recent,
    returns: Returns,
}

impl Decider {
    /// For frames of at most so many bytes, see [`headers::max_frame`]. It decides by one set of lists only: it
    /// remembers lookups.
    pub fn new(max_frame: usize) -> Decider {
        let undecided = Decision { verdict: Verdict::Drop, reason: Reason::ChainDefault };
        Decider { max_frame, memory: Memory::default(), decisions: [undecided; BATCH], decided: 0, early: 0 }
    }

    /// Decides about frames that came in on one side, in their order: one decision for each, of the first [`BATCH`].
    pub fn decide(&mut self, side: Side, frames: &[&[u8]], now: Time, context: Context<'_>) -> &[Decision] {
        self.decide_arrived(side, frames, |_| now, context)
    }

    /// As [`Decider::decide`], each frame at the time of its own arrival: for workers that share the queues of a side,
    /// and so see the frames of one source in an order of their own.
    pub fn decide_arrived(
        &mut self,
        side: Side,
        frames: &[&[u8]],
        arrived: impl Fn(usize) -> Time,
        context: Context<'_>,
    ) -> &[Decision] {
        let mut decided = 0;
        self.early = 0;
        let mut train = None::<Train>;
        for (frame, decision) in frames.iter().zip(&mut self.decisions) {
            // By reference: to move a packet just written would wait for the writes.
            *decision = match &headers::read(side, frame, self.max_frame) {
                Ok(packet) => {
                    let now = arrived(decided);
                    if let Some(train) = train.as_mut().filter(|train| train.goes_on(packet, now)) {
                        train.more += 1;
                        train.decision
                    } else {
                        if let Some(ended) = &train {
                            ended.count(context.counters);
                        }
                        let mut walk = Walk::new(packet, now, context, &mut self.memory);
                        let decision = walk.decide();
                        self.early |= u64::from(walk.early) << decided;
                        train = walk.trail.is_plain.then(|| Train::behind(packet, now, walk.trail, decision));
                        decision
                    }
                }
                Err(reason) => unseen(*reason, context.table),
            };
            decided += 1;
        }
        if let Some(last) = &train {
            last.count(context.counters);
        }
        self.decided = decided;
        self.decisions()
    }

    /// What was decided about the last batch.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions[..self.decided]
    }

    /// The frames of the last batch that would have added to a list, had their source been in the list that the rule
    /// asks for: one bit each. If the packet that gets it there has arrived before, and is yet to be decided by another
    /// worker, [`Decider::look_again`] later makes up for it.
    pub const fn early(&self) -> u64 {
        self.early
    }

    /// Lets a frame that was early take its step, if by now it is known that the step before it arrived before it.
    /// Nothing else: what was decided about the frame, and counted, stays. Whether it took a step.
    pub fn look_again(&mut self, side: Side, frame: &[u8], arrived: Time, context: Context<'_>) -> bool {
        let Ok(packet) = &headers::read(side, frame, self.max_frame) else { return false };
        let mut walk = Walk::new(packet, arrived, context, &mut self.memory);
        walk.again = true;
        walk.decide();
        walk.stepped
    }
}

/// What happens to a frame that rules cannot see.
fn unseen(reason: Reason, table: &Table) -> Decision {
    Decision { verdict: table.settings().frames.verdict(reason).unwrap_or(Verdict::Drop), reason }
}

/// Packets of one batch that look the same to the rules, one behind the other, as bursts of a flow and floods are: what
/// was decided about the first, and why, holds for all.
///
/// It holds because a plain walk changes nothing, and asks nothing but what is compared here, the lists, and the time,
/// which is the same too. What another worker puts into a list meanwhile counts from the next batch on.
struct Train {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: Option<(u16, u16)>,
    icmp: Option<(u8, u8)>,
    ip_length: u32,
    now: Time,
    trail: Trail,
    decision: Decision,
    /// Packets behind the first.
    more: u32,
}

impl Train {
    fn behind(packet: &Packet<'_>, now: Time, trail: Trail, decision: Decision) -> Train {
        let Packet { source, destination, protocol, ports, icmp, ip_length, .. } = *packet;
        Train { source, destination, protocol, ports, icmp, ip_length, now, trail, decision, more: 0 }
    }

    /// Whether the packet is one more of them. The side is the batch's.
    fn goes_on(&self, packet: &Packet<'_>, now: Time) -> bool {
        self.source == packet.source
            && self.destination == packet.destination
            && self.ports == packet.ports
            && self.protocol == packet.protocol
            && self.ip_length == packet.ip_length
            && self.icmp == packet.icmp
            && self.now == now
    }

    /// Counts the packets behind the first where that one was counted: once for all, for a counter that is read again
    /// right after it was written makes its reader wait.
    fn count(&self, counters: &RuleCounters) {
        if self.more == 0 {
            return;
        }
        for rule in &self.trail.rules[..self.trail.length] {
            counters.count_rule(*rule as usize, self.more, self.ip_length);
        }
        if let Some(chain) = self.trail.default_of {
            counters.count_default(chain, self.more, self.ip_length);
        }
    }
}

/// Where a walk was counted, and whether another packet that looks the same would go the same way.
#[derive(Clone, Copy)]
struct Trail {
    rules: [u32; Trail::LONGEST],
    length: usize,
    /// The built-in chain whose default decided.
    default_of: Option<BuiltinChain>,
    /// Nothing was changed, and nothing asked that packets of a train may differ in.
    is_plain: bool,
}

impl Trail {
    /// Matches that are remembered. Most packets match one or two rules.
    const LONGEST: usize = 4;

    fn note(&mut self, rule: u32) {
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
struct Walk<'a> {
    packet: &'a Packet<'a>,
    view: View<'a>,
    now: Time,
    context: Context<'a>,
    memory: &'a mut Memory,
    /// The lists that source and destination are in, once a rule has asked.
    source: Option<ListSet>,
    destination: Option<ListSet>,
    trail: Trail,
    /// An addition was left out only because the source is not in a list.
    early: bool,
    /// This is a second look: only additions count.
    again: bool,
    /// The address got into a list that it was not in.
    stepped: bool,
}

impl<'a> Walk<'a> {
    fn new(packet: &'a Packet<'a>, now: Time, context: Context<'a>, memory: &'a mut Memory) -> Walk<'a> {
        memory.scratch.clear();
        memory.returns.depth = 0;
        Walk {
            packet,
            view: packet.into(),
            now,
            context,
            memory,
            source: None,
            destination: None,
            trail: Trail { rules: [0; Trail::LONGEST], length: 0, default_of: None, is_plain: true },
            early: false,
            again: false,
            stepped: false,
        }
    }

    fn decide(&mut self) -> Decision {
        let Context { table, counters, .. } = self.context;
        let program = table.program(self.packet.family());
        let chain = program.entry(self.packet.side, &self.view);
        let mut span = program.chain(chain);
        let by_rule = |verdict| Decision { verdict, reason: Reason::Rule };
        loop {
            let Some(rule) = program.classify(&mut span, &self.view) else {
                match self.memory.returns.pop() {
                    Some(behind_the_jump) => span = behind_the_jump,
                    None => break,
                }
                continue;
            };
            if let Some(missed) = rule.state.iter().find(|test| self.holds(test.question) == test.negated) {
                let adds = matches!(rule.step, Step::AddSource(..) | Step::AddDestination(..));
                self.early |= adds && matches!(missed.question, StateTest::Source(_)) && !missed.negated;
                self.trail.is_plain &= !self.early;
                continue;
            }
            self.trail.note(rule.index);
            if !self.again {
                counters.count_rule(rule.index as usize, 1, self.packet.ip_length);
            }
            match rule.step {
                Step::Accept => return by_rule(Verdict::Forward),
                Step::Drop => return by_rule(Verdict::Drop),
                Step::Passthrough => {}
                Step::AddSource(list, timeout) => self.add(rule.index, list, self.packet.source, timeout),
                Step::AddDestination(list, timeout) => self.add(rule.index, list, self.packet.destination, timeout),
                Step::Jump(target) => {
                    if !self.memory.returns.push(std::mem::replace(&mut span, target)) {
                        return by_rule(Verdict::Drop);
                    }
                }
                Step::Return => match self.memory.returns.pop() {
                    Some(behind_the_jump) => span = behind_the_jump,
                    None => break,
                },
            }
        }
        self.trail.default_of = Some(chain);
        if !self.again {
            counters.count_default(chain, 1, self.packet.ip_length);
        }
        Decision { verdict: table.settings().chain_default.verdict(chain), reason: Reason::ChainDefault }
    }

    fn holds(&mut self, question: StateTest) -> bool {
        let Context { table, lists, .. } = self.context;
        let (view, now, Memory { recent, scratch, .. }) = (&self.view, self.now, &mut *self.memory);
        match question {
            StateTest::Source(list) => {
                self.source.get_or_insert_with(|| recent.membership(lists, view.source, now)).contains(list)
            }
            StateTest::Destination(list) => {
                self.destination.get_or_insert_with(|| recent.membership(lists, view.destination, now)).contains(list)
            }
            StateTest::Layer7(pattern) => {
                self.trail.is_plain = false;
                table.pattern(pattern).matches(scratch.buffer(self.packet.payload))
            }
        }
    }

    fn add(&mut self, rule: u32, list: ListId, address: IpAddr, timeout: ListTimeout) {
        let Context { lists, events, counters, .. } = self.context;
        self.trail.is_plain = false;
        let expiry = lists::expiry(timeout, self.now);
        let added = lists.add(list, address, expiry, self.now);
        if self.again && added == Added::New {
            counters.count_rule(rule as usize, 1, self.packet.ip_length);
        }
        self.stepped |= added == Added::New;
        let level = lists.level(list);
        // Anyone can take first steps, and a flood takes millions: they are no news.
        if added == Added::New && level > 0 {
            events.push(Event::Listed { list, level, address, expiry });
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
            } else if let (Some(set), Added::New | Added::Refreshed) = (looked_up, added) {
                set.insert(list);
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
