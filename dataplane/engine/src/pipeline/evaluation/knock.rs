//! A packet's walk past a door: `knock`, and `accept` for what the door let in. What is asked in which order is
//! `policy::eval::doors`'s to say.

use knockplane_policy::door::progress::{Outcome, StepSet};
use knockplane_policy::door::{Failure, What};
use knockplane_policy::eval::tracking::Stays;
use knockplane_policy::event::Origin;

use super::Walk;
use crate::pipeline::history::{LastPacket, Refusal};
use crate::state::doors::{CompiledDoor, DoorId, Knock, Knocked, Visitors};
use crate::state::events::{Cause, KnockPacket};
use crate::state::lists::{AddOutcome, ListId};

impl Walk<'_> {
    /// Holds the packet against the door's knocks.
    pub(super) fn knock(&mut self, door: DoorId) {
        let Some(door) = self.context.table.door(door) else { return };
        let Some(visitors) = self.context.state.visitors() else { return };
        self.trail.is_plain = false;
        let packet = self.packet;
        let fits = StepSet::of(&door.door.knock, packet);
        let closes = StepSet::of(&door.door.close, packet);
        if self.again {
            self.knock_again(door, visitors, (fits, closes));
            return;
        }
        if self.scans(visitors) {
            if fits != StepSet::default() || closes != StepSet::default() {
                self.tell(door, What::Failed(Failure::Ports));
            }
            return;
        }
        let is_closed = self.close(door, visitors, closes);
        if !is_closed {
            self.open(door, visitors, fits);
        }
    }

    /// The second look at a step that came too early: only the sequences that it waits for see it again.
    fn knock_again(&mut self, door: &CompiledDoor, visitors: &Visitors, (fits, closes): (StepSet, StepSet)) {
        let waits = |walk: &Self, list| walk.waiting.sequences.contains(list);
        if let Some(closing) = door.closing.as_ref().filter(|closing| waits(self, closing.list)) {
            self.waiting.sequences.remove(closing.list);
            self.close(door, visitors, closes);
        }
        if waits(self, door.opening.list) {
            self.waiting.sequences.remove(door.opening.list);
            self.step(door, visitors, fits);
        }
    }

    /// Whether the source has tried too many ports; asked once a packet.
    fn scans(&mut self, visitors: &Visitors) -> bool {
        let (budget, packet, now) = (&self.context.table.settings().port_budget, self.packet, self.now);
        let vlan = self.vlan;
        *self.scans.get_or_insert_with(|| visitors.scans(packet, vlan, budget, now))
    }

    /// The knock that closes the door, for a source that it is open for; not while the source is held off, so that no
    /// step of the knock that opened it closes it again. Whether it did.
    fn close(&mut self, door: &CompiledDoor, visitors: &Visitors, fits: StepSet) -> bool {
        let (source, now) = (self.packet.source, self.now);
        let Some(sequence) = &door.closing else { return false };
        let is_open = |walk: &mut Self| walk.lists_of_source().lists.contains(door.open);
        if fits == StepSet::default() || !is_open(self) || visitors.are_held(door, (source, self.vlan), now) {
            return false;
        }
        let lists = &self.context.state.lists;
        let knock = self.held_against(fits);
        let knocked = knock.at(sequence, lists, || true);
        self.wait(knocked.early, sequence.list);
        if knocked.outcome != Outcome::Opened {
            return false;
        }
        self.source = None;
        // What an operator put in stays, and nothing is closed then.
        let lists = lists.in_vlan(self.vlan).by(self.cause());
        if !lists.remove_for(door.open, source, knock.to, now) {
            return false;
        }
        lists.remove(door.opening.list, source, now);
        self.tell(door, What::Closed);
        true
    }

    /// It came too early for the sequence with this list.
    fn wait(&mut self, early: bool, list: ListId) {
        if early {
            self.waiting.sequences.insert(list);
        }
    }

    fn open(&mut self, door: &CompiledDoor, visitors: &Visitors, fits: StepSet) {
        let (source, now) = (self.packet.source, self.now);
        if !door.door.admits(source) {
            if fits.contains(0) {
                self.tell(door, What::Failed(Failure::Source));
            }
            return;
        }
        // Most packets are of nobody who knocks, and no first step.
        let listed = self.lists_of_source();
        let is_stranger = !listed.has_other_entries && !listed.lists.contains(door.opening.list);
        if fits == StepSet::default() && (is_stranger || door.exempt.covers(self.packet, listed.lists)) {
            return;
        }
        if visitors.are_held(door, (source, self.vlan), now) {
            if fits != StepSet::default() {
                self.tell(door, What::Failed(Failure::HeldOff));
            }
            return;
        }
        self.step(door, visitors, fits);
    }

    /// Holds the packet against the knock that opens the door.
    fn step(&mut self, door: &CompiledDoor, visitors: &Visitors, fits: StepSet) {
        let (source, now) = (self.packet.source, self.now);
        let lists = &self.context.state.lists;
        let knock = self.held_against(fits);
        let Knocked { outcome, refused, evicted, early } = door.knock(knock, lists, visitors);
        self.wait(early, door.opening.list);
        match outcome {
            Outcome::Nothing | Outcome::Repeated => {}
            Outcome::Stepped(_) if evicted => {}
            Outcome::Stepped(progress) => {
                self.source = None;
                self.tell(door, What::Stepped(progress.steps));
            }
            Outcome::StartedOver(_) => {
                self.source = None;
                self.tell(door, What::Failed(Failure::StartedOver));
            }
            Outcome::Opened => {
                self.source = None;
                let until = now + door.door.open_for;
                let lists = lists.in_vlan(self.vlan).by(self.cause());
                let added = lists.add_for(door.open, source, knock.to, until, now);
                if added == AddOutcome::Refused {
                    self.tell(door, What::Failed(Failure::Evicted));
                } else {
                    visitors.hold(door, (source, self.vlan), now);
                    self.context.state.look_at_checksum(self.packet);
                    self.tell(door, What::Opened);
                }
            }
        }
        if evicted {
            self.tell(door, What::Failed(Failure::Evicted));
        }
        if refused {
            self.tell(door, What::Failed(Failure::Attempts));
        }
    }

    fn held_against(&self, fits: StepSet) -> Knock {
        let to = self.context.state.lists.peer_tag(self.packet.destination);
        Knock { source: (self.packet.source, self.vlan), to, fits, now: self.now, waits: self.memory.waits }
    }

    fn tell(&mut self, door: &CompiledDoor, what: What) {
        let source = self.packet.source;
        door.counts.count(source, what, door.opening.shape.steps);
        if let What::Failed(failure) = what
            && self.memory.recorder.takes()
        {
            let packet = LastPacket::of(self.packet);
            let refusal = Refusal::Failed { open: door.open, failure };
            self.memory.recorder.record(source, refusal, packet, 1, self.now);
        }
    }

    /// What the events of a door that this packet opens or closes say of it.
    fn cause(&self) -> Cause {
        let knock = KnockPacket { destination: self.packet.destination, vlan: self.packet.vlan() };
        Cause { knock: Some(knock), ..Cause::of(Origin::Packet) }
    }

    /// The connection that begins with this packet, if one does, is the door's.
    pub(super) fn let_in(&mut self, open: ListId) {
        self.trail.is_plain = false;
        let begins = self.seen.is_some_and(|seen| seen.stays == Stays::IfForwarded) && !self.again;
        if let (Some(flow), Some(flows), true) = (self.own_flow(), self.context.state.flows(), begins) {
            flows.let_in(self.packet, &flow.key, open, self.now);
        }
    }
}
