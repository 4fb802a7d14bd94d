//! What matchers ask of a packet's connection.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::matchers::Place;
use super::tracking::{Flow, FlowKey};
use super::walk::Walk;
use crate::layer7;

/// The connections that reached a `connection-limit`, by matcher and source prefix. With their numbers: another one of
/// the same addresses and ports has not reached it yet.
pub(super) type Reached = HashMap<(Place, IpNet), HashSet<(FlowKey, u64)>>;

impl Walk<'_, '_> {
    /// The packet's connection, or the one it is related to. Before tracking there is none, nor has an invalid or an
    /// untracked packet one: questions about it are false, negated or not.
    pub(super) fn flow(&self) -> Option<&Flow> {
        self.evaluator.tracker.flow(&self.seen?.flow?, self.now)
    }

    /// `connection-limit`: how many connections with packets from this source's prefix have reached this rule, this one
    /// included: of those that are still known, and not closed. Source: RouterOS's kernel modules.
    pub(super) fn connections(&mut self, place: Place, prefix_length: u8) -> Option<u32> {
        let number = self.flow()?.number;
        let key = self.seen?.flow?;
        let prefix = prefix(self.packet.source, prefix_length);
        let (tracker, now) = (&self.evaluator.tracker, self.now);
        let reached = self.evaluator.reached.entry((place, prefix)).or_default();
        reached.insert((key, number));
        reached.retain(|(key, number)| {
            tracker.flow(key, now).is_some_and(|flow| flow.number == *number && !flow.is_closed())
        });
        Some(u32::try_from(reached.len()).unwrap_or(u32::MAX))
    }

    /// `layer7-protocol`: over its connection; without one, over this packet alone. None if there is no such pattern.
    pub(super) fn speaks(&self, name: &str) -> Option<bool> {
        let pattern = self.evaluator.rules.pattern(name)?;
        let own = self.seen.filter(|seen| seen.source.is_some()).and_then(|seen| seen.flow);
        Some(match own.and_then(|key| self.evaluator.tracker.flow(&key, self.now)) {
            Some(flow) => flow.speaks(&pattern.regexp),
            None => layer7::matches(&pattern.regexp, self.packet.payload),
        })
    }
}

/// The address's prefix of this length, or the address if it has fewer bits.
fn prefix(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}
