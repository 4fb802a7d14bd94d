//! The evaluation of a packet at a door. `policy::eval::doors` defines the checks and their order.

use knockplane_policy::door::progress::{KnockOutcome, StepSet};
use knockplane_policy::door::{Failure, What};
use knockplane_policy::time::Time;

use super::pending::PendingSteps;
use crate::pipeline::facts::PacketFacts;
use crate::pipeline::history::{HistoryCause, LastPacket, RefusedPackets};
use crate::state::doors::{CompiledDoor, DoorId, Knock, KnockSource, Knocked, Visitor, Visitors};
use crate::state::lists::{AddOutcome, ListId};

/// A packet during its evaluation at a door.
pub(super) struct AtDoor<'e, 'a> {
    facts: &'e mut PacketFacts<'a>,
    pending: &'e mut PendingSteps,
    door: &'a CompiledDoor,
    visitors: &'a Visitors,
    /// The steps of the opening knock that the packet matches.
    opens: StepSet,
    /// The steps of the closing knock that the packet matches.
    closes: StepSet,
}

impl<'e, 'a> AtDoor<'e, 'a> {
    /// Prepares the evaluation. `None` if the door belongs to another table.
    pub(super) fn new(
        facts: &'e mut PacketFacts<'a>,
        door: DoorId,
        pending: &'e mut PendingSteps,
    ) -> Option<AtDoor<'e, 'a>> {
        let door = facts.context.table.door(door)?;
        let visitors = facts.context.state.visitors()?;
        let opens = StepSet::of(&door.door.knock, facts.packet);
        let closes = StepSet::of(&door.door.close, facts.packet);
        Some(AtDoor { facts, pending, door, visitors, opens, closes })
    }

    /// Runs the first evaluation: port budget, closing knock, opening knock.
    pub(super) fn knock(&mut self) {
        if self.scans() {
            if self.opens != StepSet::default() || self.closes != StepSet::default() {
                self.report(What::Failed(Failure::Ports));
            }
            return;
        }
        let is_closed = self.close();
        if !is_closed {
            self.open();
        }
    }

    /// Runs a re-evaluation: only sequences in which the packet is a pending step.
    pub(super) fn take_pending_steps(&mut self) {
        let is_pending = |at: &Self, list| at.pending.sequences.contains(list);
        if let Some(closing) = self.door.closing.as_ref().filter(|closing| is_pending(self, closing.list)) {
            self.pending.sequences.remove(closing.list);
            self.close();
        }
        let opening = self.door.opening.list;
        if is_pending(self, opening) {
            self.pending.sequences.remove(opening);
            self.step();
        }
    }

    /// Whether the source has tried too many ports. Counts the port of the packet once, at the first door.
    fn scans(&mut self) -> bool {
        if let Some(scans) = self.facts.scans {
            return scans;
        }
        let budget = &self.facts.context.table.settings().port_budget;
        let scans = budget.ports > 0 && {
            let visitor = self.visitor();
            self.visitors.scans(self.facts.packet, visitor, budget, self.now())
        };
        *self.facts.scans.insert(scans)
    }

    /// Evaluates the closing knock of a source with a grant. During hold-off it has no effect, so that no step of the
    /// knock that opened the door closes it again. Returns whether the packet closed the door.
    fn close(&mut self) -> bool {
        let (door, now) = (self.door, self.now());
        let Some(sequence) = &door.closing else { return false };
        let has_grant = |at: &mut Self| at.facts.is_source_listed(door.open);
        if self.closes == StepSet::default() || !has_grant(self) || self.is_held() {
            return false;
        }
        let lists = &self.facts.context.state.lists;
        let knock = self.held_against(self.closes);
        let knocked = knock.at(sequence, lists, || true);
        self.note_pending(knocked.early, sequence.list);
        if knocked.outcome != KnockOutcome::Opened {
            return false;
        }
        self.facts.source_lists = None;
        let (source, cause) = (self.facts.packet.source, self.facts.cause_by_knock());
        let lists = lists.in_vlan(self.facts.vlan).with_hash(self.facts.prepared.source_hash()).by(&cause);
        // An entry of an operator cannot be removed. The door then stays open.
        if !lists.remove_for(door.open, source, knock.to, now) {
            return false;
        }
        lists.remove(door.opening.list, source, now);
        self.report(What::Closed);
        true
    }

    /// Evaluates the opening knock.
    fn open(&mut self) {
        let (door, fits) = (self.door, self.opens);
        if !door.door.admits(self.facts.packet.source) {
            if fits.contains(0) {
                self.report(What::Failed(Failure::Source));
            }
            return;
        }
        // Most packets match no step, and come from a source without progress that they could reset.
        if fits == StepSet::default() {
            let listed = *self.facts.lists_of_source();
            let has_no_progress = !listed.has_other_entries && !listed.lists.contains(door.opening.list);
            if has_no_progress || door.exempt.covers(self.facts.packet, listed.lists) {
                return;
            }
        }
        if self.is_held() {
            if fits != StepSet::default() {
                self.report(What::Failed(Failure::HeldOff));
            }
            return;
        }
        self.step();
    }

    /// Evaluates the packet with the source's progress in the opening knock.
    fn step(&mut self) {
        let (door, now) = (self.door, self.now());
        let lists = &self.facts.context.state.lists;
        let knock = self.held_against(self.opens);
        let attempts = door.door.max_attempts.map(|most| (most, self.visitor()));
        let may_begin = || attempts.is_none_or(|(most, visitor)| self.visitors.attempt(door, visitor, most, now));
        let Knocked { outcome, refused, evicted, early } = knock.at(&door.opening, lists, may_begin);
        self.note_pending(early, door.opening.list);
        match outcome {
            KnockOutcome::Nothing | KnockOutcome::Repeated => {}
            KnockOutcome::Stepped(_) if evicted => {}
            KnockOutcome::Stepped(progress) => {
                self.facts.local.adds.now |= progress.steps == 1;
                self.facts.source_lists = None;
                self.report(What::Stepped(progress.steps));
            }
            KnockOutcome::StartedOver(_) => {
                self.facts.source_lists = None;
                self.report(What::Failed(Failure::StartedOver));
            }
            KnockOutcome::Opened => {
                self.facts.source_lists = None;
                let source = self.source();
                let until = now + door.door.open_for;
                let cause = self.facts.cause_by_knock();
                let lists = lists.in_vlan(source.vlan).with_hash(self.facts.prepared.source_hash()).by(&cause);
                let added = lists.add_for(door.open, source.address, knock.to, until, now);
                if added == AddOutcome::Refused {
                    self.report(What::Failed(Failure::Evicted));
                } else {
                    if !door.door.hold_off.is_zero() {
                        let visitor = self.visitor();
                        self.visitors.hold(door, visitor, now);
                    }
                    self.facts.context.state.look_at_checksum(self.facts.packet);
                    self.report(What::Opened);
                }
            }
        }
        if evicted {
            self.report(What::Failed(Failure::Evicted));
        }
        if refused {
            self.report(What::Failed(Failure::Attempts));
        }
    }

    /// Records a pending step in the sequence with this list, if the packet is out of order.
    fn note_pending(&mut self, is_early: bool, list: ListId) {
        if is_early {
            self.pending.sequences.insert(list);
        }
    }

    fn now(&self) -> Time {
        self.facts.now
    }

    fn source(&self) -> KnockSource {
        KnockSource { address: self.facts.packet.source, vlan: self.facts.vlan }
    }

    /// The source in the state of doors. Its hash is computed once for a packet.
    fn visitor(&mut self) -> Visitor {
        let (visitors, source) = (self.visitors, self.source());
        *self.facts.visitor.get_or_insert_with(|| visitors.visitor(source))
    }

    /// Whether the hold-off after the last grant ignores the source.
    fn is_held(&mut self) -> bool {
        let (door, now) = (self.door, self.now());
        self.visitors.may_hold(door, now) && self.visitors.are_held(door, self.visitor(), now)
    }

    fn held_against(&self, fits: StepSet) -> Knock {
        let to = self.facts.context.state.lists.peer_tag(self.facts.packet.destination);
        let hash = self.facts.prepared.source_hash();
        Knock { source: self.source(), hash, to, fits, now: self.now(), waits: self.facts.local.reorders }
    }

    /// Counts a result at the door, and records it in the history if the step failed. Only grants and closed doors cause
    /// an event: anyone can take steps and fail.
    fn report(&mut self, what: What) {
        let facts = &mut *self.facts;
        let source = facts.packet.source;
        self.door.counts.count(source, what, self.door.opening.shape.steps);
        facts.local.door_results.push(self.door.open, what);
        if let What::Failed(failure) = what
            && facts.local.history.has_room()
        {
            let refusal = HistoryCause::Failed { open: self.door.open, failure };
            let (last, arrived) = (LastPacket::of(facts.packet), facts.now);
            facts.local.history.record(RefusedPackets { source, refusal, last, count: 1, arrived });
        }
    }
}
