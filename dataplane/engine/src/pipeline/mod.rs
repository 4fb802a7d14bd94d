//! Decides about batches of frames.
//!
//! ```text
//! batch → headers → raw → connection tracking, if a rule needs it → filter → verdict, and perhaps a reply
//!            │       │                    │
//!    non-IP frames  drop            fasttracked: forward
//! ```
//!
//! | module            | owns |
//! |-------------------|------|
//! | [`batch`]         | the frames of a batch, in their order, and their results |
//! | `non_ip`          | frames that rules do not see |
//! | `prepare`         | the first pass over a group of frames: headers, and loads of the state into the cache |
//! | `run_cache`       | packets with the same key, one behind the other: decided once |
//! | this              | the path of one packet through the menus |
//! | `evaluation`      | the rules of a chain: which of them match |
//! | `effects`         | the changes that rules make, at the first evaluation of a packet and at later ones |
//! | `facts`           | a packet, and everything that was looked up about it |
//! | [`dependencies`]  | the facts that a decision depended on |
//! | [`flow_decision`] | decisions that hold for the further packets of a flow, for the kernel's fast path |
//! | [`observer`]      | the facts of decisions, for a trace of live packets |
//! | `local`           | memory of one worker that evaluations use |
//! | `lookup_cache`    | lookups of addresses in the lists, cached by each worker |
//! | [`counters`]      | packets and bytes of each rule |
//! | [`history`]       | dropped packets and failed knocks by source, for operators |
//! | [`reply`], [`reset`] | frames that are sent: replies of rules, and resets of connections that a door cuts |
//!
//! A later fragment has no ports that rules could match. So only rules with a `fragment` matcher are evaluated for it,
//! and it shares the verdict of the first fragment. A later fragment is dropped if its first fragment was not
//! forwarded.

pub mod batch;
pub mod counters;
pub mod dependencies;
mod effects;
mod evaluation;
mod facts;
pub mod flow_decision;
pub mod history;
mod local;
mod lookup_cache;
mod non_ip;
pub mod observer;
mod prepare;
pub mod reply;
pub mod reset;
mod run_cache;

use knockplane_policy::packet::FragmentPart;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rule::{BuiltinChain, ConnectionState};

use crate::pipeline::counters::RuleCounters;
use crate::pipeline::dependencies::{Dependencies, Dependency};
use crate::pipeline::effects::{FirstEvaluation, ReEvaluation};
use crate::pipeline::evaluation::RuleEvaluation;
use crate::pipeline::facts::is_fragment;
use crate::state::State;
use crate::state::connections::{Observation, Storage, TrackingResult};
use crate::state::events::logged::LoggedPackets;
use crate::table::RuleTable;

pub use crate::pipeline::batch::{BATCH, Decider};
pub use crate::pipeline::effects::{OutOfOrder, PendingSteps};

/// Verdict and reason for one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What happens to the frame.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
}

/// The inputs of a decision besides the frame. The counters belong to one worker and one table. All workers share the
/// rest.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The rules.
    pub table: &'a RuleTable,
    /// Address lists, connections, doors.
    pub state: &'a State,
    /// Counters of the rules.
    pub counters: &'a RuleCounters,
    /// The queue of logged packets.
    pub logged: &'a LoggedPackets,
    /// The wall time at time 0 of [`Time`](knockplane_policy::time::Time), in nanoseconds since 1970 (UTC), for `time`
    /// matchers.
    pub wall: i128,
}

impl RuleEvaluation<'_, FirstEvaluation<'_>> {
    /// Decides about the packet. Stores a connection that begins with the packet if the packet is forwarded. Removes the
    /// connection if it ends with the packet, or if the packet began it and is not forwarded.
    fn decide(&mut self) -> Decision {
        let decision = self.decide_by_rules();
        let facts = &mut self.facts;
        let state = facts.context.state;
        if decision.verdict == Verdict::Forward && facts.begins_connection() {
            state.look_at_checksum(facts.packet);
            facts.store_connection();
        }
        let ended = facts.seen.as_ref().filter(|seen| !seen.is_deferred && !seen.stays.after(decision.verdict));
        let key = ended.and_then(|seen| Some(seen.flow.as_ref()?.key));
        if let (Some(key), Some(flows)) = (key, state.connections()) {
            flows.forget(&key, facts.now);
        }
        decision
    }

    /// Evaluates the menus in their order: raw, connection tracking, filter, default of the chain.
    fn decide_by_rules(&mut self) -> Decision {
        let facts = &mut self.facts;
        let table = facts.context.table;
        let packet = facts.packet;
        let filter = table.filter(packet.family());
        let chain = filter.entry(packet.side, &facts.view);
        let part = if is_fragment(packet) { packet.fragment() } else { Some(FragmentPart::Whole) };
        facts.is_later_fragment = part == Some(FragmentPart::Later);
        let raw = table.raw(packet.family());
        if !raw.is_empty() && self.run(raw, chain) == Some(Verdict::Drop) {
            return self.end(Verdict::Drop, Reason::Rule, part);
        }
        self.track(part);
        if self.facts.own_flow().is_some_and(|flow| flow.fasttracked) {
            return self.end(Verdict::Forward, Reason::Fasttracked, part);
        }
        match self.run(filter, chain) {
            Some(verdict) => self.end(verdict, Reason::Rule, part),
            None if self.facts.is_later_fragment => self.end(Verdict::Forward, Reason::Fragment, part),
            None => {
                self.count_default(chain);
                self.end(table.settings().chain_default.verdict(chain), Reason::ChainDefault, part)
            }
        }
    }

    /// Tracks the packet, if a rule needs connection tracking and no `notrack` rule matched.
    fn track(&mut self, part: Option<FragmentPart>) {
        let facts = &mut self.facts;
        let Context { table, state, .. } = facts.context;
        let flows = state.connections().filter(|_| table.tracks() && !facts.untracked);
        facts.seen = Some(match flows {
            None => TrackingResult::without_connection(ConnectionState::Untracked),
            Some(flows) => {
                facts.dependencies.insert(Dependency::Connection);
                let payload_matchers = table.payload_matchers();
                let storage = match payload_matchers.is_some() || table.connection_limits.is_some() {
                    true => Storage::Now,
                    false => Storage::Deferred,
                };
                let how = Observation { tracking: &table.rules().tracking, payload_matchers, storage };
                let prepared = facts.connection_key(flows);
                flows.observe(facts.packet, &prepared, part, facts.now, &how)
            }
        });
        if let Some(expiry) = facts.flow().map(|flow| flow.expiry) {
            facts.dependencies.until = facts.dependencies.until.min(expiry);
        }
    }

    /// Counts a packet that the default of the chain decided.
    fn count_default(&mut self, chain: BuiltinChain) {
        self.effects.matches.default_of = Some(chain);
        self.facts.context.counters.count_default(chain, 1, self.facts.packet.ip_length);
    }

    /// The final decision. A later fragment is forwarded only if its first fragment was.
    fn end(&mut self, verdict: Verdict, reason: Reason, part: Option<FragmentPart>) -> Decision {
        let facts = &mut self.facts;
        let state = facts.context.state;
        match part {
            Some(FragmentPart::Whole) | None => {}
            Some(FragmentPart::First) => {
                facts.dependencies.insert(Dependency::Fragment);
                state.note_first_fragment(facts.packet, verdict == Verdict::Forward, facts.now);
            }
            Some(FragmentPart::Later) => {
                facts.dependencies.insert(Dependency::Fragment);
                if verdict == Verdict::Forward && !state.first_was_forwarded(facts.packet, facts.now) {
                    return Decision { verdict: Verdict::Drop, reason: Reason::FragmentUnknown };
                }
            }
        }
        Decision { verdict, reason }
    }

    /// Whether the frame belongs in the reorder buffer.
    fn has_pending_steps(&self) -> bool {
        self.effects.pending.is_any() && !self.facts.is_later_fragment
    }

    /// The missed steps of the packet, and the connection state for a re-evaluation.
    fn pending_steps(&self) -> PendingSteps {
        let mut pending = self.effects.pending;
        pending.state = self.facts.seen.map(|seen| seen.state);
        pending
    }

    /// The dependencies of the decision. Called after the decision.
    #[inline]
    fn dependencies(&self) -> Dependencies {
        let mut dependencies = self.facts.dependencies;
        if self.facts.view.looked_closer() {
            dependencies.insert(Dependency::HeaderField);
        }
        if self.facts.view.asked_length() {
            dependencies.insert(Dependency::Length);
        }
        if self.effects.pending.is_any() {
            dependencies.insert(Dependency::PendingSteps);
        }
        dependencies
    }
}

impl RuleEvaluation<'_, ReEvaluation> {
    /// Evaluates the menus again, for a packet that was decided out of order. Returns the steps that are still pending.
    fn re_evaluate(mut self) -> PendingSteps {
        let (table, family) = (self.facts.context.table, self.facts.packet.family());
        let chain = table.filter(family).entry(self.facts.packet.side, &self.facts.view);
        if self.run(table.raw(family), chain) != Some(Verdict::Drop) {
            // Uses the connection state of the first evaluation: the packet's own changes must not prevent its step.
            let state = self.effects.pending.state.unwrap_or(ConnectionState::Untracked);
            self.facts.seen = Some(TrackingResult::without_connection(state));
            self.run(table.filter(family), chain);
        }
        self.effects.pending
    }
}
