//! What happens to a batch of frames.
//!
//! ```text
//! frame → headers → raw → tracking, if a rule needs it → filter → verdict, and perhaps a reply
//!            │       │                    │
//!        its class  drop            fasttracked: forward
//! ```
//! Packets are decided in the order of their frames, so that what one changes, the next one sees. How a packet walks the
//! rules of a chain is in `walk`.
//!
//! A fragment behind the first meets only rules that ask for `fragment`, and shares the verdict of its first: a rule
//! about ports could say nothing of it. One whose first fragment was not forwarded is dropped.

pub mod counters;
mod evaluation;
pub mod history;
mod lookup_cache;
pub mod reply;
pub mod reset;

use std::net::IpAddr;
use std::sync::Arc;

use knockplane_policy::eval::limits::Random;
use knockplane_policy::eval::tracking::Stays;
use knockplane_policy::frames::FrameClass;
use knockplane_policy::packet::{FragmentPart, Packet, Side, Vlan, vlan};
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rule::ConnectionState;
use knockplane_policy::time::Time;

use crate::headers;
use crate::pipeline::counters::RuleCounters;
pub use crate::pipeline::evaluation::Waiting;
use crate::pipeline::evaluation::{Memory, Trail, Walk, is_part};
use crate::pipeline::history::{History, LastPacket, Recorder, Refusal};
use crate::pipeline::reply::Reply;
use crate::state::State;
use crate::state::connections::Seen;
use crate::state::events::logged::LoggedPackets;
use crate::table::Table;

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
    /// Address lists and connections.
    pub state: &'a State,
    /// Where matches are counted.
    pub counters: &'a RuleCounters,
    /// Where to tell what happened.
    pub logged: &'a LoggedPackets,
    /// Nanoseconds since 1970, UTC, when the clock of [`Time`] said 0: for `time` matchers.
    pub wall: i128,
}

/// One worker's memory for deciding.
pub struct Decider {
    max_frame: usize,
    memory: Memory,
    decisions: [Decision; BATCH],
    decided: usize,
    early: u64,
    /// What the early ones wait for.
    waiting: Box<[Waiting; BATCH]>,
    /// Which frames of the batch are answered.
    answered: u64,
    replies: Box<[Reply; BATCH]>,
}

impl Decider {
    /// For frames of at most so many bytes, see [`headers::max_frame`]. It decides by one state only: it remembers
    /// lookups. The seed is for `random`.
    pub fn new(max_frame: usize, seed: u64) -> Decider {
        let undecided = Decision { verdict: Verdict::Drop, reason: Reason::ChainDefault };
        Decider {
            max_frame,
            memory: Memory::new(Random(seed), Recorder::new(seed.rotate_left(29))),
            decisions: [undecided; BATCH],
            decided: 0,
            early: 0,
            waiting: Box::new([Waiting::default(); BATCH]),
            answered: 0,
            replies: Box::new(std::array::from_fn(|_| Reply::default())),
        }
    }

    /// What this worker has kept out recently, for whoever reads it.
    pub fn history(&self) -> Arc<History> {
        self.memory.recorder.history()
    }

    /// Decides about frames that came in on one side, in their order: one decision for each, of the first [`BATCH`].
    pub fn decide(&mut self, side: Side, frames: &[&[u8]], now: Time, context: Context<'_>) -> &[Decision] {
        self.memory.waits = false;
        self.decide_each(side, frames, |_| now, context)
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
        self.memory.waits = true;
        self.decide_each(side, frames, arrived, context)
    }

    fn decide_each(
        &mut self,
        side: Side,
        frames: &[&[u8]],
        arrived: impl Fn(usize) -> Time,
        context: Context<'_>,
    ) -> &[Decision] {
        let mut decided = 0;
        (self.early, self.answered) = (0, 0);
        let mut train = None::<Train>;
        if !frames.is_empty() {
            self.memory.recorder.begin(arrived(0));
        }
        let places = self.decisions.iter_mut().zip(&mut *self.replies).zip(&mut *self.waiting);
        for (frame, ((decision, reply), waiting)) in frames.iter().zip(places) {
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
                            ended.record(context.table, &mut self.memory.recorder, side);
                        }
                        let mut walk = Walk::new(packet, now, context, &mut self.memory, Some(reply));
                        let decision = walk.decide();
                        if walk.waiting.is_any() && !walk.is_later {
                            *waiting = walk.waiting();
                            self.early |= 1 << decided;
                        }
                        self.answered |= u64::from(walk.answered) << decided;
                        train = walk.is_plain().then(|| Train::behind(packet, now, walk.trail, decision));
                        if train.is_none() && decision.verdict == Verdict::Drop {
                            let last = walk.trail.last;
                            if self.memory.recorder.takes() {
                                record_drop(&mut self.memory.recorder, context.table, (packet, now), (decision, last));
                            }
                        }
                        decision
                    }
                }
                Err(reason) => {
                    let decision = unseen(*reason, side, frame, || arrived(decided), context);
                    record_unseen(&mut self.memory.recorder, side, frame, decision, || arrived(decided));
                    decision
                }
            };
            decided += 1;
        }
        if let Some(last) = &train {
            last.count(context.counters);
            last.record(context.table, &mut self.memory.recorder, side);
        }
        if let Some(last) = decided.checked_sub(1) {
            self.memory.recorder.end(arrived(last));
        }
        self.decided = decided;
        self.decisions()
    }

    /// What was decided about the last batch.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions[..self.decided]
    }

    /// The frames of the last batch that would have added to a list, had their source been in the list that the rule
    /// asks for, or that are a later step at a door than the next one: one bit each. If the packet that gets it there has arrived before, and is yet to be decided by another
    /// worker, [`Decider::look_again`] later makes up for it.
    pub const fn early(&self) -> u64 {
        self.early
    }

    /// What this frame of the last batch is answered, if it is: a frame to be sent out of the side it came in on.
    pub fn reply(&self, frame: usize) -> Option<&[u8]> {
        let is_answered = frame < BATCH && self.answered >> frame & 1 == 1;
        is_answered.then(|| self.replies[frame].frame())
    }

    /// The frames of the last batch that are answered: one bit each.
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    /// What this frame of the last batch waits for, if it is early.
    pub fn waiting(&self, frame: usize) -> Option<Waiting> {
        let is_early = frame < BATCH && self.early >> frame & 1 == 1;
        is_early.then(|| self.waiting[frame])
    }

    /// Lets a frame that was early take its step, if by now it is known that the step before it arrived before it. At the
    /// last look, a step at a door that is still too early is held against the knock as it stands. Nothing else: what
    /// was decided about the frame, and counted, stays. What it waits for still.
    pub fn look_again(
        &mut self,
        side: Side,
        frame: &[u8],
        arrived: Time,
        (waiting, is_last): (Waiting, bool),
        context: Context<'_>,
    ) -> Waiting {
        let Ok(packet) = &headers::read(side, frame, self.max_frame) else { return Waiting::default() };
        Walk::new(packet, arrived, context, &mut self.memory, None).look_again(waiting, is_last)
    }
}

impl Walk<'_> {
    /// What the packet waits for, with what is known of it.
    fn waiting(&self) -> Waiting {
        Waiting { state: self.seen.map(|seen| seen.state), ..self.waiting }
    }

    /// The packet's way, at whose end its connection stays or is forgotten.
    fn decide(&mut self) -> Decision {
        let decision = self.by_rules();
        if decision.verdict == Verdict::Forward && self.seen.is_some_and(|seen| seen.stays == Stays::IfForwarded) {
            self.context.state.look_at_checksum(self.packet);
        }
        let seen = self.seen.as_ref().filter(|seen| !seen.stays.after(decision.verdict));
        let key = seen.and_then(|seen| Some(seen.flow.as_ref()?.key));
        if let (Some(key), Some(flows)) = (key, self.context.state.flows()) {
            flows.forget(&key, self.now);
        }
        decision
    }

    /// The packet's way through the menus.
    fn by_rules(&mut self) -> Decision {
        let Context { table, state, .. } = self.context;
        let packet = self.packet;
        let filter = table.filter(packet.family());
        let chain = filter.entry(packet.side, &self.view);
        let part = if is_part(packet) { packet.fragment() } else { Some(FragmentPart::Whole) };
        self.is_later = part == Some(FragmentPart::Later);
        let raw = table.raw(packet.family());
        if !raw.is_empty() && self.enter(raw, chain) == Some(Verdict::Drop) {
            return self.end(Verdict::Drop, Reason::Rule, part);
        }
        let flows = state.flows().filter(|_| table.tracks() && !self.untracked);
        self.trail.is_plain &= flows.is_none();
        let untracked = || Seen::alone(ConnectionState::Untracked);
        self.seen = Some(flows.map_or_else(untracked, |flows| {
            flows.observe((packet, self.vlan), part, self.now, &table.rules().tracking, table.listening())
        }));
        if self.own_flow().is_some_and(|flow| flow.fasttracked) {
            return self.end(Verdict::Forward, Reason::Fasttracked, part);
        }
        match self.enter(filter, chain) {
            Some(verdict) => self.end(verdict, Reason::Rule, part),
            None if self.is_later => self.end(Verdict::Forward, Reason::Fragment, part),
            None => {
                self.count_default(chain);
                self.end(table.settings().chain_default.verdict(chain), Reason::ChainDefault, part)
            }
        }
    }

    /// The verdict, as far as the packet's datagram allows it.
    fn end(&mut self, verdict: Verdict, reason: Reason, part: Option<FragmentPart>) -> Decision {
        let state = self.context.state;
        match part {
            Some(FragmentPart::Whole) | None => {}
            Some(FragmentPart::First) => {
                self.trail.is_plain = false;
                state.note_first_fragment(self.packet, verdict == Verdict::Forward, self.now);
            }
            Some(FragmentPart::Later) => {
                self.trail.is_plain = false;
                if verdict == Verdict::Forward && !state.first_was_forwarded(self.packet, self.now) {
                    return Decision { verdict: Verdict::Drop, reason: Reason::FragmentUnknown };
                }
            }
        }
        Decision { verdict, reason }
    }
}

/// What happens to a frame that rules cannot see.
#[cold]
#[inline(never)]
fn unseen(reason: Reason, side: Side, frame: &[u8], now: impl FnOnce() -> Time, context: Context<'_>) -> Decision {
    let Some(class) = FrameClass::of(reason) else { return Decision { verdict: Verdict::Drop, reason } };
    let Context { table, state, .. } = context;
    let frame = headers::class_frame(side, class, frame);
    let admits = || state.admits_frame(class, side, table.settings().frames.rate, now());
    let (verdict, reason) = table.settings().judge_frame(&frame, admits);
    Decision { verdict, reason }
}

/// Records a packet that was dropped and is of no run; `last` is the last rule that matched.
#[inline(never)]
fn record_drop(
    recorder: &mut Recorder,
    table: &Table,
    (packet, now): (&Packet<'_>, Time),
    (decision, last): (Decision, u32),
) {
    recorder.record(packet.source, dropped(decision, last, table), LastPacket::of(packet), 1, now);
}

/// What is recorded of a drop; `last` is the last rule that matched.
fn dropped(Decision { reason, .. }: Decision, last: u32, table: &Table) -> Refusal {
    Refusal::Dropped { reason, rule: (reason == Reason::Rule).then(|| (table.number(), last)) }
}

/// Records a frame that rules cannot see and that was dropped, if it says which IP source it is of.
fn record_unseen(
    recorder: &mut Recorder,
    side: Side,
    frame: &[u8],
    Decision { verdict, reason }: Decision,
    now: impl FnOnce() -> Time,
) {
    if verdict == Verdict::Drop
        && recorder.takes()
        && let Some(source) = headers::source(frame)
    {
        let packet = LastPacket { side, vlan: vlan::of_frame(frame), protocol: None, port: None };
        recorder.record(source, Refusal::Dropped { reason, rule: None }, packet, 1, now());
    }
}

/// Packets of one batch that look the same to the rules, one behind the other, as bursts of a flow and floods are: what
/// was decided about the first, and why, holds for all.
///
/// It holds because a plain walk changes nothing, and asks nothing but what is compared here, the lists, and the time,
/// which is the same too. What another worker puts into a list meanwhile counts from the next batch on.
struct Train {
    vlan: Vlan,
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
        let vlan = packet.vlan();
        Train { vlan, source, destination, protocol, ports, icmp, ip_length, now, trail, decision, more: 0 }
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
            && self.vlan == packet.vlan()
            && !is_part(packet)
    }

    /// Records them, if they were dropped.
    #[inline]
    fn record(&self, table: &Table, recorder: &mut Recorder, side: Side) {
        if self.decision.verdict == Verdict::Drop && recorder.takes() {
            self.record_drops(table, recorder, side);
        }
    }

    #[inline(never)]
    fn record_drops(&self, table: &Table, recorder: &mut Recorder, side: Side) {
        let (vlan, port) = (self.vlan, self.ports.map(|(_, port)| port));
        let packet = LastPacket { side, vlan, protocol: Some(self.protocol), port };
        let refusal = dropped(self.decision, self.trail.last, table);
        recorder.record(self.source, refusal, packet, 1 + self.more, self.now);
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
