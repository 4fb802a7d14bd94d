//! `explain-source`.

use std::net::IpAddr;

use ipnet::IpNet;
use knockplane_policy::door;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Reason;
use knockplane_policy::rule::{ConnectionState, RuleId, RuleNumber, protocol_name};
use knockplane_policy::wire::source::{self as wire, Origin};
use schemars::JsonSchema;
use serde::Serialize;

use super::lists::Entry;
use super::{Network, Peer, line, seconds};

/// All state of one address in the dataplane.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Source {
    pub(crate) address: IpAddr,
    /// The protected prefix that contains the address: then its packets are no knocks. `null` if all addresses are
    /// protected, or if no prefix contains the address.
    #[schemars(with = "Option<String>")]
    pub(crate) protected: Option<IpNet>,
    /// The /64 of an IPv6 address, for which hold-off, attempts and tried ports are recorded; `null` for IPv4.
    #[schemars(with = "Option<String>")]
    pub(crate) network: Option<IpNet>,
    /// Whether first steps are recorded for that /64 as well.
    pub(crate) first_steps_by_network: bool,
    /// The lists that contain the address, ordered by name.
    pub(crate) lists: Vec<List>,
    /// Whether there are more lists.
    pub(crate) lists_truncated: bool,
    /// All doors, in the order of the configuration, without a VLAN; then all doors for each VLAN of the source, if
    /// VLANs are separate.
    pub(crate) doors: Vec<Door>,
    /// The ports that the source has tried, in the same networks; empty if there is no budget or no door.
    pub(crate) ports: Vec<Ports>,
    /// First steps of the source's prefix; `null` if there is no quota.
    pub(crate) quota: Option<Quota>,
    /// The connections; `null` if connections are not tracked.
    pub(crate) connections: Option<Connections>,
    /// The state of rule matchers for the source.
    pub(crate) matchers: Vec<MatcherState>,
    /// The dropped packets of the source.
    pub(crate) drops: Drops,
    /// Maximum number of sources with records of hold-off, attempts and tried ports; 0 without a door.
    pub(crate) doors_remember: u64,
    /// Time since the dataplane started.
    pub(crate) uptime_seconds: f64,
}

/// A list that contains the address.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct List {
    #[serde(flatten)]
    pub(crate) entry: Entry,
    /// The origin of the entry.
    pub(crate) origin: Origin,
    /// The door that the list belongs to; `null` if it belongs to no door.
    pub(crate) door: Option<String>,
    /// The first few rules that add to the list.
    pub(crate) added_by: Vec<RuleRef>,
    /// The first few rules that match the list.
    pub(crate) used_by: Vec<RuleRef>,
}

/// A running rule.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RuleRef {
    pub(crate) id: RuleId,
    /// The number in `show rules`.
    pub(crate) number: RuleNumber,
    /// The line in the rule file; `null` without a file.
    pub(crate) line: Option<u32>,
    pub(crate) chain: String,
    pub(crate) comment: String,
}

impl From<wire::RuleRef> for RuleRef {
    fn from(wire::RuleRef { id, number, line: at, chain, comment }: wire::RuleRef) -> Self {
        RuleRef { id, number, line: line(at), chain, comment }
    }
}

/// The state of the source at one door.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Door {
    pub(crate) door: String,
    #[serde(flatten)]
    pub(crate) network: Network,
    /// Whether other packets of the source restart its knock.
    pub(crate) strict: bool,
    /// Number of steps of the knock.
    pub(crate) steps: u8,
    /// Whether a step has a passphrase.
    pub(crate) has_passphrase: bool,
    /// Whether the door's `sources` contain the address.
    pub(crate) admitted: bool,
    /// The progress of the knock; `null` if it has not begun.
    pub(crate) progress: Option<Progress>,
    /// The progress of the closing knock; `null` if it has not begun.
    pub(crate) closing: Option<Progress>,
    /// The grants of the source.
    pub(crate) grants: Vec<Grant>,
    /// Time left of the hold-off; `null` if there is none now.
    pub(crate) held_off_seconds: Option<f64>,
    /// The first steps; `null` if the door has no `max-attempts`.
    pub(crate) attempts: Option<Attempts>,
    /// The reasons that knocks are ignored now, the one with the longest time left first.
    pub(crate) ignored: Vec<Ignored>,
    /// The recent failed steps by reason, the last one first.
    pub(crate) failures: Vec<Failure>,
}

/// The progress of a knock.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Progress {
    /// Number of steps taken.
    pub(crate) steps: u8,
    /// Number of steps in total.
    pub(crate) of: u8,
    /// The next step, without its passphrase.
    pub(crate) next: String,
    /// The destination of the knock; `null` for every address.
    pub(crate) to: Option<Peer>,
    /// Time left for the next step.
    pub(crate) time_left_seconds: f64,
}

/// A grant.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Grant {
    /// The address behind the filter; `null` for every address.
    pub(crate) to: Option<Peer>,
    /// `null` if it does not end.
    pub(crate) time_left_seconds: Option<f64>,
}

/// First steps of a source at a door.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Attempts {
    /// Number of first steps, including refused ones.
    pub(crate) used: u64,
    /// Maximum number of first steps that count in `per_seconds`.
    pub(crate) limit: u8,
    pub(crate) per_seconds: f64,
    /// Time until the count restarts; 0 if no first step was taken.
    pub(crate) time_left_seconds: f64,
}

/// A reason that knocks of a source are ignored.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ignored {
    pub(crate) reason: door::Failure,
    /// Time left; `null` if the reason does not expire.
    pub(crate) time_left_seconds: Option<f64>,
}

/// Failed steps with one reason.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Failure {
    pub(crate) reason: door::Failure,
    pub(crate) times: u64,
    /// Time since the last one.
    pub(crate) last_ago_seconds: f64,
    /// The packet of the last one.
    #[serde(flatten)]
    pub(crate) packet: Packet,
}

/// The recorded fields of a packet.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Packet {
    /// The side on which the packet arrived.
    pub(crate) side: Side,
    #[serde(flatten)]
    pub(crate) network: Network,
    /// The IP protocol, by name or number, in the form of rules; `null` if the frame could not be parsed that far.
    pub(crate) protocol: Option<String>,
    /// The destination port; `null` if it has none.
    pub(crate) port: Option<u16>,
}

/// The ports that a source has tried.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ports {
    #[serde(flatten)]
    pub(crate) network: Network,
    /// Approximate number of different ports.
    pub(crate) tried: u32,
    /// Maximum number of ports in `within_seconds`. Above it, knocks are ignored.
    pub(crate) budget: u8,
    pub(crate) within_seconds: f64,
    pub(crate) ignore_for_seconds: f64,
    /// Whether knocks of the source are ignored.
    pub(crate) ignored: bool,
    /// Time until the record expires.
    pub(crate) time_left_seconds: f64,
}

/// First steps of a source prefix.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Quota {
    #[schemars(with = "String")]
    pub(crate) prefix: IpNet,
    /// Number of entries that count now.
    pub(crate) used: u32,
    /// Maximum number of entries. Above it, first steps of the prefix are refused.
    pub(crate) limit: u32,
}

/// The connections of a source.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Connections {
    pub(crate) count: u64,
    /// The oldest connections, in the order of their begin.
    pub(crate) oldest: Vec<Connection>,
    /// The newest connections, the last one first, without those in `oldest`.
    pub(crate) newest: Vec<Connection>,
}

/// A connection.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Connection {
    #[serde(flatten)]
    pub(crate) network: Network,
    /// The IP protocol, by name or number, in the form of rules.
    pub(crate) protocol: String,
    /// The sender of the first packet.
    pub(crate) from: Endpoint,
    /// The receiver.
    pub(crate) to: Endpoint,
    /// `new` until both ends have sent packets, then `established`.
    pub(crate) state: ConnectionState,
    /// Whether both ends have closed the connection, or one end has aborted it.
    pub(crate) closed: bool,
    /// Whether packets of the connection bypass the rules.
    pub(crate) fasttracked: bool,
    /// The door through which the connection began; `null` if there was none.
    pub(crate) door: Option<String>,
    /// IP bytes in both directions.
    pub(crate) bytes: u64,
    /// Time left, if no packet arrives.
    pub(crate) time_left_seconds: f64,
}

/// One end of a connection.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    /// The port; the identifier of ICMP.
    pub(crate) port: u16,
}

/// The state of a rule's matcher for a source.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MatcherState {
    pub(crate) rule: RuleRef,
    #[serde(flatten)]
    pub(crate) memory: MatcherMemory,
}

/// The state.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "matcher", rename_all = "kebab-case")]
pub(crate) enum MatcherMemory {
    /// `psd`.
    Psd {
        /// The weight of the ports that the source has tried.
        weight: u64,
        /// The minimum weight of a scan.
        threshold: u32,
        /// Time until it is forgotten, if nothing comes.
        time_left_seconds: f64,
    },
    /// `dst-limit` by source addresses.
    DstLimit {
        /// Tokens left.
        tokens: u64,
        /// Number of tokens of a full bucket.
        burst: u64,
        /// Time until it is forgotten, if nothing comes.
        time_left_seconds: f64,
    },
    /// `connection-limit`.
    ConnectionLimit {
        /// Connections of the source's prefix, including some closed ones.
        connections: u32,
        /// The rule matches above this number.
        limit: u32,
        /// The length of the prefix.
        prefix_length: u8,
    },
}

/// Dropped packets of a source.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Drops {
    /// Dropped packets by reason and rule, the last one first.
    pub(crate) recent: Vec<Drop>,
    /// Whether there are more.
    pub(crate) truncated: bool,
    /// The time for which `recent` and the failures at doors are complete; `null` if nothing is missing.
    pub(crate) complete_for_seconds: Option<f64>,
    /// Maximum number of records of all sources together.
    pub(crate) capacity: u64,
    /// The records of the watch; `null` if the source was not watched.
    pub(crate) watch: Option<Watch>,
}

/// Dropped packets with one reason.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Drop {
    pub(crate) reason: Reason,
    /// The deciding rule; `null` if no rule decided, or if the rule does not run any more.
    pub(crate) rule: Option<RuleRef>,
    /// Whether the rule does not run any more.
    pub(crate) rule_is_gone: bool,
    pub(crate) packets: u64,
    /// Time since the first one.
    pub(crate) first_ago_seconds: f64,
    /// Time since the last one.
    pub(crate) last_ago_seconds: f64,
    /// The last packet.
    #[serde(flatten)]
    pub(crate) packet: Packet,
}

/// The records of a watch.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Watch {
    /// Time since the watch began.
    pub(crate) since_seconds: f64,
    /// Time left; 0 if the watch has ended.
    pub(crate) time_left_seconds: f64,
    /// Every dropped packet by reason and rule, the last one first.
    pub(crate) drops: Vec<Drop>,
    /// Every failed step at a door.
    pub(crate) failures: Vec<DoorFailure>,
    /// Whether there were too many different reasons to record all.
    pub(crate) truncated: bool,
}

/// A failed step and its door.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DoorFailure {
    pub(crate) door: String,
    #[serde(flatten)]
    pub(crate) failure: Failure,
}

fn all<T: Into<U>, U>(items: Vec<T>) -> Vec<U> {
    items.into_iter().map(Into::into).collect()
}

impl From<wire::SourceList> for List {
    fn from(list: wire::SourceList) -> Self {
        let wire::SourceList { entry, origin, door, added_by, used_by } = list;
        List { entry: entry.into(), origin, door, added_by: all(added_by), used_by: all(used_by) }
    }
}

impl From<wire::SourceProgress> for Progress {
    fn from(progress: wire::SourceProgress) -> Self {
        let wire::SourceProgress { steps, of, next, to, time_left } = progress;
        Progress { steps, of, next, to: to.map(Peer::from), time_left_seconds: seconds(time_left) }
    }
}

impl From<wire::SourceGrant> for Grant {
    fn from(wire::SourceGrant { to, time_left }: wire::SourceGrant) -> Self {
        Grant { to: to.map(Peer::from), time_left_seconds: time_left.map(seconds) }
    }
}

impl From<wire::SourceAttempts> for Attempts {
    fn from(wire::SourceAttempts { used, limit, per, time_left }: wire::SourceAttempts) -> Self {
        Attempts { used, limit, per_seconds: seconds(per), time_left_seconds: seconds(time_left) }
    }
}

impl From<wire::IgnoredFor> for Ignored {
    fn from(wire::IgnoredFor { reason, time_left }: wire::IgnoredFor) -> Self {
        Ignored { reason, time_left_seconds: time_left.map(seconds) }
    }
}

impl From<wire::SourcePacket> for Packet {
    fn from(wire::SourcePacket { side, vlan, protocol, port }: wire::SourcePacket) -> Self {
        Packet { side, network: vlan.into(), protocol: protocol.map(protocol_name), port }
    }
}

impl From<wire::SourceFailure> for Failure {
    fn from(wire::SourceFailure { reason, times, last_ago, packet }: wire::SourceFailure) -> Self {
        Failure { reason, times, last_ago_seconds: seconds(last_ago), packet: packet.into() }
    }
}

impl From<wire::SourceDoor> for Door {
    fn from(door: wire::SourceDoor) -> Self {
        let wire::SourceDoor {
            door,
            vlan,
            strict,
            steps,
            has_passphrase,
            admitted,
            progress,
            closing,
            grants,
            held_off,
            attempts,
            ignored,
            failures,
        } = door;
        Door {
            door,
            network: vlan.into(),
            strict,
            steps,
            has_passphrase,
            admitted,
            progress: progress.map(Into::into),
            closing: closing.map(Into::into),
            grants: all(grants),
            held_off_seconds: held_off.map(seconds),
            attempts: attempts.map(Into::into),
            ignored: all(ignored),
            failures: all(failures),
        }
    }
}

impl From<wire::SourcePorts> for Ports {
    fn from(ports: wire::SourcePorts) -> Self {
        let wire::SourcePorts { vlan, tried, budget, within, ignore_for, ignored, time_left } = ports;
        Ports {
            network: vlan.into(),
            tried,
            budget,
            within_seconds: seconds(within),
            ignore_for_seconds: seconds(ignore_for),
            ignored,
            time_left_seconds: seconds(time_left),
        }
    }
}

impl From<wire::SourceQuota> for Quota {
    fn from(wire::SourceQuota { prefix, used, limit }: wire::SourceQuota) -> Self {
        Quota { prefix, used, limit }
    }
}

impl From<wire::SourceConnections> for Connections {
    fn from(wire::SourceConnections { count, oldest, newest }: wire::SourceConnections) -> Self {
        Connections { count, oldest: all(oldest), newest: all(newest) }
    }
}

impl From<wire::SourceConnection> for Connection {
    fn from(connection: wire::SourceConnection) -> Self {
        let wire::SourceConnection { vlan, protocol, from, to, state, closed, fasttracked, door, bytes, time_left } =
            connection;
        let endpoint = |(address, port)| Endpoint { address, port };
        Connection {
            network: vlan.into(),
            protocol: protocol_name(protocol),
            from: endpoint(from),
            to: endpoint(to),
            state,
            closed,
            fasttracked,
            door,
            bytes,
            time_left_seconds: seconds(time_left),
        }
    }
}

impl From<wire::SourceMatcher> for MatcherState {
    fn from(wire::SourceMatcher { rule, memory }: wire::SourceMatcher) -> Self {
        let memory = match memory {
            wire::MatcherMemory::Psd { weight, threshold, time_left } => {
                MatcherMemory::Psd { weight, threshold, time_left_seconds: seconds(time_left) }
            }
            wire::MatcherMemory::DstLimit { tokens, burst, time_left } => {
                MatcherMemory::DstLimit { tokens, burst, time_left_seconds: seconds(time_left) }
            }
            wire::MatcherMemory::ConnectionLimit { connections, limit, prefix_length } => {
                MatcherMemory::ConnectionLimit { connections, limit, prefix_length }
            }
        };
        MatcherState { rule: rule.into(), memory }
    }
}

impl From<wire::SourceDrop> for Drop {
    fn from(drop: wire::SourceDrop) -> Self {
        let wire::SourceDrop { reason, rule, rule_is_gone, packets, first_ago, last_ago, packet } = drop;
        Drop {
            reason,
            rule: rule.map(Into::into),
            rule_is_gone,
            packets,
            first_ago_seconds: seconds(first_ago),
            last_ago_seconds: seconds(last_ago),
            packet: packet.into(),
        }
    }
}

impl From<wire::DoorFailure> for DoorFailure {
    fn from(wire::DoorFailure { door, failure }: wire::DoorFailure) -> Self {
        DoorFailure { door, failure: failure.into() }
    }
}

impl From<wire::SourceWatch> for Watch {
    fn from(watch: wire::SourceWatch) -> Self {
        let wire::SourceWatch { since, time_left, drops, failures, truncated } = watch;
        Watch {
            since_seconds: seconds(since),
            time_left_seconds: seconds(time_left),
            drops: all(drops),
            failures: all(failures),
            truncated,
        }
    }
}

impl From<wire::SourceDrops> for Drops {
    fn from(drops: wire::SourceDrops) -> Self {
        let wire::SourceDrops { recent, truncated, complete_for, capacity, watch } = drops;
        Drops {
            recent: all(recent),
            truncated,
            complete_for_seconds: complete_for.map(seconds),
            capacity,
            watch: watch.map(Into::into),
        }
    }
}

impl From<wire::Source> for Source {
    fn from(source: wire::Source) -> Self {
        let wire::Source {
            address,
            protected,
            network,
            first_steps_by_network,
            lists,
            lists_truncated,
            doors,
            ports,
            quota,
            connections,
            matchers,
            drops,
            doors_remember,
            uptime,
        } = source;
        Source {
            address,
            protected,
            network,
            first_steps_by_network,
            lists: all(lists),
            lists_truncated,
            doors: all(doors),
            ports: all(ports),
            quota: quota.map(Into::into),
            connections: connections.map(Into::into),
            matchers: all(matchers),
            drops: drops.into(),
            doors_remember,
            uptime_seconds: seconds(uptime),
        }
    }
}
