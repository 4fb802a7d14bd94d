//! The run cache: consecutive packets of one batch with the same key are decided once.
//!
//! Bursts of a flow and floods consist of such runs. The decision about the first packet applies to the whole run if it
//! is cacheable. The cache does not check whether the dependencies are current: all packets of a run have the same time
//! of arrival, and a simultaneous change of a list by another worker counts from the next batch on.

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

/// Consecutive packets of one batch with the same key and a cacheable decision.
pub(super) struct Run {
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
    /// Number of packets after the first one.
    repeats: u32,
}

impl Run {
    /// Begins a run with this packet. `None` if the decision about it cannot be repeated.
    #[inline]
    pub(super) fn begin(
        packet: &Packet<'_>,
        arrived: Time,
        decision: Decision,
        matches: &Matches,
        dependencies: &Dependencies,
    ) -> Option<Run> {
        if !dependencies.is_cacheable() || !matches.are_complete() {
            return None;
        }
        let Packet { source, destination, protocol, ports, icmp, ip_length, .. } = *packet;
        let (vlan, matches) = (packet.vlan(), *matches);
        Some(Run {
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

    /// Whether the packet belongs to the run. All packets of a batch have the same side.
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

    /// Counts the packets after the first one, and records the run in the history if it was dropped.
    #[inline]
    pub(super) fn end(&self, context: Context<'_>, history: &mut HistoryWriter, side: Side) {
        self.count(context.counters);
        if self.decision.verdict == Verdict::Drop && history.has_room() {
            self.record(context, history, side);
        }
    }

    /// Counts all packets at once: a read of a counter directly after a write to it would wait.
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
