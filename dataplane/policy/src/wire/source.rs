//! Everything that the filter knows of one source address: what [`Request::Source`](super::Request::Source) is answered.
//!
//! Times are time that is left, or time that has passed; no clock is shared.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ListEntry;
use crate::door::Failure;
use crate::packet::{Side, Vlan};
use crate::reason::Reason;
use crate::rule::{ConnectionState, RuleId, RuleNumber};

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

/// The source at one door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDoor {
    /// The door.
    pub door: String,
    /// The VLAN that the rest of this is of, as in [`ListEntry`].
    #[serde(flatten)]
    pub vlan: Vlan,
    /// Whether other packets of the source start its knock over.
    pub strict: bool,
    /// Steps of the knock.
    pub steps: u8,
    /// Whether a port scan cannot open it even if it is not strict: a step has a passphrase.
    pub has_passphrase: bool,
    /// Whether the source may knock here, by the door's `sources`.
    pub admitted: bool,
    /// How far its knock is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<SourceProgress>,
    /// How far the knock is that closes the door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<SourceProgress>,
    /// What the door is open for.
    pub grants: Vec<SourceGrant>,
    /// Its knocks are ignored for so long, because it opened the door: `hold-off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_off: Option<Duration>,
    /// The first steps that it has taken, if the door has `max-attempts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<SourceAttempts>,
    /// Why its knocks are ignored now, the reason that lasts longest first; [`Failure::Source`] lasts as long as the
    /// configuration.
    pub ignored: Vec<IgnoredFor>,
    /// Its steps that came to nothing recently, by reason; the last one first.
    pub failures: Vec<SourceFailure>,
}

/// Why a source's knocks are ignored, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredFor {
    /// Why.
    pub reason: Failure,
    /// Time left; none if it does not end by itself.
    pub time_left: Option<Duration>,
}

/// How far a knock is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceProgress {
    /// Steps that were taken.
    pub steps: u8,
    /// Steps that there are.
    pub of: u8,
    /// The next one, without its passphrase.
    pub next: String,
    /// What is knocked at, as in [`ListEntry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Time left for the next step.
    pub time_left: Duration,
}

/// What a door is open for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceGrant {
    /// Towards this address, as in [`ListEntry`]; none if towards all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Time left; none if it does not end.
    pub time_left: Option<Duration>,
}

/// First steps of a source at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceAttempts {
    /// How many it has taken, those that were refused included.
    pub used: u64,
    /// How many count…
    pub limit: u8,
    /// …in so long.
    pub per: Duration,
    /// Until they are counted anew; zero if none was taken.
    pub time_left: Duration,
}

/// Steps of a source that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFailure {
    /// Why.
    pub reason: Failure,
    /// How often.
    pub times: u64,
    /// Time since the last one.
    pub last_ago: Duration,
    /// Its packet.
    #[serde(flatten)]
    pub packet: SourcePacket,
}

/// What is kept of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePacket {
    /// The side that it came from.
    pub side: Side,
    /// Its VLAN.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// Its IP protocol; none if the frame could not be read so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Its destination port, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// The ports that a source has tried: `[policy.port-budget]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePorts {
    /// The VLAN that they were tried in, as in [`ListEntry`].
    #[serde(flatten)]
    pub vlan: Vlan,
    /// About so many different ones.
    pub tried: u32,
    /// Beyond so many its knocks are ignored…
    pub budget: u8,
    /// …if it tries them in so long…
    pub within: Duration,
    /// …for so long.
    pub ignore_for: Duration,
    /// Whether they are ignored.
    pub ignored: bool,
    /// Until this is forgotten, and so until its knocks count again.
    pub time_left: Duration,
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

/// The connections of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceConnections {
    /// How many there are.
    pub count: u64,
    /// Those that began first, in this order.
    pub oldest: Vec<SourceConnection>,
    /// Those that began last, the last one first, without those that are among the oldest.
    pub newest: Vec<SourceConnection>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceConnection {
    /// The VLAN that it is in.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// Its IP protocol.
    pub protocol: u8,
    /// Who sent the first packet, and its port or ICMP identifier.
    pub from: (IpAddr, u16),
    /// The other end.
    pub to: (IpAddr, u16),
    /// Its state: `new` until both ends have spoken, then `established`.
    pub state: ConnectionState,
    /// Whether both sides have closed it, or one has aborted it.
    pub closed: bool,
    /// Whether its packets pass the rules by.
    pub fasttracked: bool,
    /// The door that it began through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// IP bytes so far, both ways.
    pub bytes: u64,
    /// Time left, if no packet comes.
    pub time_left: Duration,
}

/// What a rule's matcher remembers of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceMatcher {
    /// The rule.
    pub rule: RuleRef,
    /// What is remembered.
    #[serde(flatten)]
    pub memory: MatcherMemory,
}

/// See [`SourceMatcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "matcher", rename_all = "kebab-case")]
pub enum MatcherMemory {
    /// `psd`.
    Psd {
        /// The weight of the ports that the source has tried.
        weight: u64,
        /// From here on it is a scan.
        threshold: u32,
        /// Until it is forgotten, if nothing comes.
        time_left: Duration,
    },
    /// `dst-limit` by source addresses.
    DstLimit {
        /// Tokens that are left.
        tokens: u64,
        /// Tokens of a full bucket.
        burst: u64,
        /// Until it is forgotten, if nothing comes.
        time_left: Duration,
    },
    /// `connection-limit`.
    ConnectionLimit {
        /// Connections of the source's prefix, with some that are closed.
        connections: u32,
        /// The rule matches beyond so many.
        limit: u32,
        /// The length of the prefix.
        prefix_length: u8,
    },
}

/// Packets of a source that were dropped. Frames that were accepted and then lost on their way out are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDrops {
    /// By reason and rule; the last one first.
    pub recent: Vec<SourceDrop>,
    /// Whether there are more.
    pub truncated: bool,
    /// How far back `recent`, and the failures at doors, are complete. None if nothing is missing since the dataplane
    /// started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_for: Option<Duration>,
    /// Records that there is room for, of all sources together. Those that were made first give way.
    pub capacity: u64,
    /// What is watched, if it is this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<SourceWatch>,
}

/// Dropped packets of a source with one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDrop {
    /// Why.
    pub reason: Reason,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// Whether the rule is one of rules that do not run any more, so that nothing is known of it.
    #[serde(default)]
    pub rule_is_gone: bool,
    /// How many.
    pub packets: u64,
    /// Time since the first one.
    pub first_ago: Duration,
    /// Time since the last one.
    pub last_ago: Duration,
    /// The last one.
    #[serde(flatten)]
    pub packet: SourcePacket,
}

/// What happened while a source was watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceWatch {
    /// Time since it began.
    pub since: Duration,
    /// Time left; zero if it is over.
    pub time_left: Duration,
    /// Every packet that was dropped, by reason and rule; the last one first.
    pub drops: Vec<SourceDrop>,
    /// Every step at a door that came to nothing.
    pub failures: Vec<DoorFailure>,
    /// Whether there were too many different reasons to keep them all.
    pub truncated: bool,
}

/// A step that came to nothing, and the door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorFailure {
    /// The door.
    pub door: String,
    /// What happened there.
    #[serde(flatten)]
    pub failure: SourceFailure,
}
