//! All state of one source address in the filter: the answer to [`Request::Source`](super::Request::Source).
//!
//! Times are time left or time elapsed; the processes share no clock.

mod connections;
mod door;
mod drops;
mod matcher;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::connections::{SourceConnection, SourceConnections};
pub use self::door::{IgnoredFor, SourceAttempts, SourceDoor, SourceFailure, SourceGrant, SourcePorts, SourceProgress};
pub use self::drops::{DoorFailure, SourceDrop, SourceDrops, SourcePacket, SourceWatch};
pub use self::matcher::{MatcherMemory, SourceMatcher};
use super::ListEntry;
use crate::rule::{RuleId, RuleNumber};

/// Maximum number of entries, connections and records of each kind in one answer.
pub const MAX_SOURCE_ITEMS: usize = 1_000;

/// The longest watch.
pub const LONGEST_WATCH: Duration = Duration::from_secs(3_600);

/// A query for one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceQuery {
    /// The address.
    pub address: IpAddr,
    /// Maximum number of items of each kind.
    pub limit: usize,
    /// Begins a watch of the source for this time, which replaces the previous watch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Duration>,
}

/// All state of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// The prefix of `protect` that contains the address, if `protect` is restricted. Then the source is behind the
    /// filter, and its packets are no knocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected: Option<IpNet>,
    /// The /64 of an IPv6 address. Hold-off, attempts and tried ports are recorded for the whole /64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<IpNet>,
    /// Whether first steps are recorded for that /64 as well (`ipv6-first-steps`).
    #[serde(default)]
    pub first_steps_by_network: bool,
    /// The lists that contain the address, ordered by list.
    pub lists: Vec<SourceList>,
    /// Whether there are more.
    pub lists_truncated: bool,
    /// All doors, in the order of the configuration, without a VLAN; then all doors for each VLAN of the source, if
    /// VLANs are separate.
    pub doors: Vec<SourceDoor>,
    /// The ports that it has tried, for the same VLANs; empty without a budget or without doors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<SourcePorts>,
    /// First steps of its prefix; `None` without a quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<SourceQuota>,
    /// The connections; `None` if no rule and no door needs tracking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<SourceConnections>,
    /// The state of rule matchers for the source.
    pub matchers: Vec<SourceMatcher>,
    /// The dropped packets.
    pub drops: SourceDrops,
    /// Capacity of the records of hold-off, attempts and tried ports, in sources. A new record replaces the one that
    /// expires first. 0 if there was no door since start.
    pub doors_remember: u64,
    /// Time since the dataplane started.
    pub uptime: Duration,
}

impl Source {
    /// Whether there is state of the address itself. Records of its prefix or /64 alone do not count.
    pub fn is_known(&self) -> bool {
        let at_door = |door: &SourceDoor| {
            door.progress.is_some()
                || door.closing.is_some()
                || !door.grants.is_empty()
                || door.held_off.is_some()
                || door.attempts.is_some_and(|attempts| attempts.used > 0)
                || !door.failures.is_empty()
        };
        !self.lists.is_empty()
            || self.doors.iter().any(at_door)
            || self.ports.iter().any(|ports| ports.tried > 0)
            || self.connections.as_ref().is_some_and(|connections| connections.count > 0)
            || !self.matchers.is_empty()
            || !self.drops.recent.is_empty()
            || self.drops.watch.as_ref().is_some_and(|watch| !watch.drops.is_empty())
    }
}

/// A list that contains the address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceList {
    /// The entry; its address may be a prefix or range that contains the source.
    #[serde(flatten)]
    pub entry: ListEntry,
    /// The origin of the entry.
    pub origin: Origin,
    /// The door to which the list belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// The first few rules that add to the list.
    pub added_by: Vec<RuleRef>,
    /// The first few rules that match the list.
    pub used_by: Vec<RuleRef>,
}

/// Origin of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A packet that matched a rule.
    Packet,
    /// A knock at a door.
    Door,
    /// An operator.
    Operator,
    /// An entry of the rules.
    Rules,
}

/// A running rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRef {
    /// The id.
    pub id: RuleId,
    /// The number in `show rules`.
    pub number: RuleNumber,
    /// The line in the rule file; 0 without one, as for a door's rules.
    pub line: u32,
    /// The chain.
    pub chain: String,
    /// The comment.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// First steps of a source prefix: `first-step-quota`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceQuota {
    /// The prefix.
    pub prefix: IpNet,
    /// Present entries.
    pub used: u32,
    /// Maximum number of entries. Above it, first steps of the prefix are refused.
    pub limit: u32,
}

impl SourceQuota {
    /// Whether first steps of further sources of the prefix are refused.
    pub const fn is_used_up(&self) -> bool {
        self.used >= self.limit
    }
}
