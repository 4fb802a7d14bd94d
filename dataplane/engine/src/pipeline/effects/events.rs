//! The causes of events that packets trigger, and logged packets. The lists create the events of list entries.

use knockplane_policy::eval::log::LoggedPacket;
use knockplane_policy::event::Origin;

use crate::pipeline::facts::PacketFacts;
use crate::state::events::logged::LoggedMatch;
use crate::state::events::{Cause, KnockPacket, RulePosition};

impl PacketFacts<'_> {
    /// The cause of a list change by this rule.
    pub(super) fn cause_by_rule(&self, rule: u32) -> Cause {
        Cause { rule: Some(self.position(rule)), ..Cause::of(Origin::Packet) }
    }

    /// The cause of a list change by this packet as a knock.
    pub(super) fn cause_by_knock(&self) -> Cause {
        let knock = KnockPacket { destination: self.packet.destination, vlan: self.packet.vlan() };
        Cause { knock: Some(knock), ..Cause::of(Origin::Packet) }
    }

    /// Queues the packet for the log. Counts it as not logged if the queue is full.
    pub(super) fn report_logged(&self, rule: u32) {
        let packet = LoggedPacket::of(self.packet, self.seen.map(|seen| seen.state));
        if !self.context.logged.push(LoggedMatch { rule: self.position(rule), packet }) {
            self.context.counters.count_unlogged(rule as usize);
        }
    }

    fn position(&self, rule: u32) -> RulePosition {
        RulePosition { table: self.context.table.number(), rule }
    }
}
