//! Matchers about a packet's connection.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::matchers::MatcherId;
use super::rule_evaluation::RuleEvaluation;
use super::tracking::{Flow, FlowKey};
use crate::layer7;

/// The connections that reached a `connection-limit`, by matcher and source prefix. The number of each connection
/// distinguishes it from a later connection of the same addresses and ports.
pub(super) type PrefixConnections = HashMap<(MatcherId, IpNet), HashSet<(FlowKey, u64)>>;

impl RuleEvaluation<'_, '_> {
    /// The packet's connection, or the connection that the packet is related to. Packets before tracking, invalid
    /// packets and untracked packets have none: matchers about the connection are false, negated or not.
    pub(super) fn flow(&self) -> Option<&Flow> {
        self.evaluator.tracker.flow(&self.seen?.flow?, self.now)
    }

    /// `connection-limit`: the number of known and open connections with packets from this source's prefix that have
    /// reached this rule, including this connection. Source: RouterOS's kernel modules.
    pub(super) fn connections(&mut self, id: MatcherId, prefix_length: u8) -> Option<u32> {
        let number = self.flow()?.number;
        let key = self.seen?.flow?;
        let prefix = prefix(self.packet.source, prefix_length);
        let (tracker, now) = (&self.evaluator.tracker, self.now);
        let reached = self.evaluator.prefix_connections.entry((id, prefix)).or_default();
        reached.insert((key, number));
        reached.retain(|(key, number)| {
            tracker.flow(key, now).is_some_and(|flow| flow.number == *number && !flow.is_closed())
        });
        Some(u32::try_from(reached.len()).unwrap_or(u32::MAX))
    }

    /// `layer7-protocol`: matches the stream of the packet's connection; without a connection, this packet alone.
    /// `None` if the pattern does not exist.
    pub(super) fn matches_pattern(&self, name: &str) -> Option<bool> {
        let pattern = self.evaluator.rules.pattern(name)?;
        let own = self.seen.filter(|seen| seen.source.is_some()).and_then(|seen| seen.flow);
        Some(match own.and_then(|key| self.evaluator.tracker.flow(&key, self.now)) {
            Some(flow) => flow.matches_pattern(&pattern.regexp),
            None => layer7::matches(&pattern.regexp, self.packet.payload),
        })
    }
}

/// The address's prefix of this length, or the address if it has fewer bits.
fn prefix(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}
