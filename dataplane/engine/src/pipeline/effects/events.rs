//! The events that evaluations send to the manager.

use std::net::IpAddr;

use knockplane_policy::door::What;
use knockplane_policy::eval::log::LoggedPacket;
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use crate::pipeline::facts::PacketFacts;
use crate::state::events::Event;
use crate::state::lists::ListId;

impl PacketFacts<'_> {
    /// A new entry above level 0.
    pub(super) fn report_listed(&self, list: ListId, level: u8, vlan: Vlan, address: IpAddr, expiry: Time) {
        self.context.events.push(Event::Listed { list, level, vlan, address, expiry });
    }

    /// A door was opened or closed. `open` is its open list.
    pub(super) fn report_door(&self, open: ListId, what: What) {
        let (source, destination, vlan) = (self.packet.source, self.packet.destination, self.packet.vlan());
        self.context.events.push(Event::Door { open, vlan, source, destination, what });
    }

    /// A rule that logs matched. `rule` is its position among the declared rules. Counts the packet if the queue is full.
    pub(super) fn report_logged(&self, rule: u32) {
        let entry = LoggedPacket::of(self.packet, self.seen.map(|seen| seen.state));
        let table = self.context.table.number();
        if !self.context.events.push(Event::Logged { table, rule, entry }) {
            self.context.counters.count_unlogged(rule as usize);
        }
    }
}
