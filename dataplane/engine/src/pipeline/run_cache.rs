//! The run cache: packets of one batch with the same key, one behind the other, are decided once.
//!
//! Bursts of a flow and floods consist of such runs. The decision of the first packet holds for all of them if it is
//! cacheable. The cache does not check whether its dependencies are current: all packets of a run have the same time of
//! arrival, and a change that another worker makes to a list meanwhile counts from the next batch on.

use std::net::IpAddr;

use knockplane_policy::packet::{Packet, Side, Vlan};
use knockplane_policy::reason::Verdict;
use knockplane_policy::time::Time;

use crate::pipeline::counters::RuleCounters;
use crate::pipeline::dependencies::Dependencies;
use crate::pipeline::effects::Matches;
use crate::pipeline::facts::is_fragment;
use crate::pipeline::history::{HistoryWriter, LastPacket, RefusedPackets};
use crate::pipeline::{Context, Decision};

/// Packets of one batch, each behind the other, with the same key and a cacheable decision.
pub(super) struct PacketRun {
    vlan: Vlan,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: Option<(u16, u16)>,
    icmp: Option<(u8, u8)>,
    ip_length: u32,
    arrived: Time,
    matches: Matches,
    decision: Decision,
    /// Packets behind the first one.
    repeats: u32,
}

impl PacketRun {
    /// The run that this packet begins. `None` if its decision cannot be repeated.
    #[inline]
    pub(super) fn begin(
        packet: &Packet<'_>,
        arrived: Time,
        decision: Decision,
        matches: &Matches,
        dependencies: &Dependencies,
    ) -> Option<PacketRun> {
        if !dependencies.is_cacheable() || !matches.are_complete() {
            return None;
        }
        let Packet { source, destination, protocol, ports, icmp, ip_length, .. } = *packet;
        let (vlan, matches) = (packet.vlan(), *matches);
        Some(PacketRun {
            vlan,
            source,
            destination,
            protocol,
            ports,
            icmp,
            ip_length,
            arrived,
            matches,
            decision,
            repeats: 0,
        })
    }

    /// Whether the packet belongs to the run. The side is the batch's.
    #[inline]
    pub(super) fn contains(&self, packet: &Packet<'_>, arrived: Time) -> bool {
        self.source == packet.source
            && self.destination == packet.destination
            && self.ports == packet.ports
            && self.protocol == packet.protocol
            && self.ip_length == packet.ip_length
            && self.icmp == packet.icmp
            && self.arrived == arrived
            && self.vlan == packet.vlan()
            && !is_fragment(packet)
    }

    /// Decides about one more packet of the run.
    #[inline]
    pub(super) fn repeat(&mut self) -> Decision {
        self.repeats += 1;
        self.decision
    }

    /// Counts the packets behind the first one, and records the run in the history if it was dropped.
    #[inline]
    pub(super) fn end(&self, context: Context<'_>, history: &mut HistoryWriter, side: Side) {
        self.count(context.counters);
        if self.decision.verdict == Verdict::Drop && history.has_room() {
            self.record(context, history, side);
        }
    }

    /// Once for all packets: a counter that is read right after it was written makes its reader wait.
    fn count(&self, counters: &RuleCounters) {
        if self.repeats == 0 {
            return;
        }
        for rule in self.matches.rules() {
            counters.count_rule(*rule as usize, self.repeats, self.ip_length);
        }
        if let Some(chain) = self.matches.default_of {
            counters.count_default(chain, self.repeats, self.ip_length);
        }
    }

    #[inline(never)]
    fn record(&self, context: Context<'_>, history: &mut HistoryWriter, side: Side) {
        let (vlan, port) = (self.vlan, self.ports.map(|(_, port)| port));
        let last = LastPacket { side, vlan, protocol: Some(self.protocol), port };
        let refusal = self.matches.refusal(self.decision.reason, context.table);
        let (source, count, arrived) = (self.source, 1 + self.repeats, self.arrived);
        history.record(RefusedPackets { source, refusal, last, count, arrived });
    }
}
