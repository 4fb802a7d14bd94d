//! Everything that the filter knows of one source address: what [`Request::Source`](super::Request::Source) is answered.
//!
//! Times are time that is left, or time that has passed; no clock is shared.

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

/// Entries, connections, records of each kind in one answer at most, unless fewer are asked for.
pub const MAX_SOURCE_ITEMS: usize = 1_000;

/// The longest watch.
pub const LONGEST_WATCH: Duration = Duration::from_secs(3_600);

/// Which address, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceQuery {
    /// The address.
    pub address: IpAddr,
    /// At most so many of each kind.
    pub limit: usize,
    /// Watch it from now on for so long, in place of what was watched before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Duration>,
}

/// What is known of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// The prefix of `protect` that it is in, if not everything is protected: then it is behind the filter, and its
    /// packets are no knocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected: Option<IpNet>,
    /// The /64 of an IPv6 address. Hold-off, attempts and tried ports are remembered of all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<IpNet>,
    /// Whether first steps are kept for that /64 as well (`ipv6-first-steps`).
    #[serde(default)]
    pub first_steps_by_network: bool,
    /// The lists that hold it, ordered by list.
    pub lists: Vec<SourceList>,
    /// Whether there are more.
    pub lists_truncated: bool,
    /// All doors, in the order of the configuration, without a VLAN; then the same for each VLAN that the source is known
    /// in, if VLANs are separate.
    pub doors: Vec<SourceDoor>,
    /// The ports that it has tried, in the same networks; none if there is no budget, or no door.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<SourcePorts>,
    /// First steps of its prefix; none if there is no quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<SourceQuota>,
    /// Its connections; none if no rule and no door asks for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<SourceConnections>,
    /// What matchers of rules remember of it.
    pub matchers: Vec<SourceMatcher>,
    /// Its packets that were dropped.
    pub drops: SourceDrops,
    /// Hold-off, attempts and tried ports are remembered of at most so many sources, those that end first give way; 0 if
    /// there was no door since start.
    pub doors_remember: u64,
    /// Time since the dataplane started.
    pub uptime: Duration,
}

impl Source {
    /// Whether anything at all is known of it. What is known of its prefix or its /64 alone does not count.
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

/// A list that holds the address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceList {
    /// The entry; its address is a prefix or range where that covers the source.
    #[serde(flatten)]
    pub entry: ListEntry,
    /// What put it in.
    pub origin: Origin,
    /// The door whose list it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// Rules that add to the list, the first few.
    pub added_by: Vec<RuleRef>,
    /// Rules that ask for the list, the first few.
    pub used_by: Vec<RuleRef>,
}

/// What put an entry in a list.
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
    /// The rules' own entries.
    Rules,
}

/// A rule that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRef {
    /// Its id.
    pub id: RuleId,
    /// Its number in `show rules`.
    pub number: RuleNumber,
    /// Its line in the rule file; 0 if it is of none, as a door's.
    pub line: u32,
    /// Its chain.
    pub chain: String,
    /// Its comment.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// First steps of a source prefix: `first-step-quota`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceQuota {
    /// The prefix.
    pub prefix: IpNet,
    /// Entries that count now.
    pub used: u32,
    /// Beyond so many, first steps of the prefix are refused.
    pub limit: u32,
}

impl SourceQuota {
    /// Whether first steps of further sources of the prefix are refused.
    pub const fn is_used_up(&self) -> bool {
        self.used >= self.limit
    }
}
