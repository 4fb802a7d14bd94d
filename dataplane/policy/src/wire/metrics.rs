//! All counters, for a scrape.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::doors::DoorSummary;
use super::lists::ListSummary;
use super::names::NameState;
use super::rules::Counter;
use super::status::Status;
use crate::packet::Side;
use crate::reason::{Reason, Verdict};
use crate::rule::{RuleId, RuleNumber};

/// Everything that is counted, in one answer, so that a scrape is one look at the workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// As in [`Request::Status`].
    pub status: Status,
    /// Per worker, in order.
    pub workers: Vec<WorkerMetrics>,
    /// When the dataplane started, since the Unix epoch. The same in every answer of one process.
    pub started: Duration,
    /// When the rules that run were swapped in, since the Unix epoch. The same in every answer about one generation.
    pub reloaded: Duration,
    /// What the dataplane's process uses; `None` if /proc does not say.
    pub process: Option<ProcessUsage>,
    /// Rules that run and have series of their own, in their order.
    pub rules: Vec<RuleMetrics>,
    /// What rules have counted while they had no series of their own, since start. Never less than before.
    pub rule_overflow: Counter,
    /// How many rules run and have no series of their own.
    pub rules_without_series: u64,
    /// As in [`Rules`].
    pub chain_defaults: [Counter; 3],
    /// As in [`Lists`].
    pub lists: Vec<ListSummary>,
    /// The host names of all lists.
    #[serde(default)]
    pub names: Vec<NameState>,
    /// As in [`Doors`].
    pub doors: Vec<DoorSummary>,
    /// How many entries all lists together can hold.
    pub list_capacity: u64,
    /// Connections that are known now, and packets that were invalid for want of room for their connection.
    pub connections: u64,
    /// See `connections`.
    pub connections_refused: u64,
    /// Rule sets and configurations applied and refused since start.
    pub applied: u64,
    /// See `applied`.
    pub refused: u64,
    /// Events for the manager that did not fit its queue.
    pub events_lost: u64,
    /// Connections to the dataplane's socket that a limit refused or closed since start, by every reason that there is.
    #[serde(default)]
    pub peers_refused: Vec<PeersRefused>,
}

/// Connections that a limit refused or closed for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersRefused {
    /// The reason, as `docs/limits.md` has it.
    pub reason: String,
    /// How many.
    pub connections: u64,
}

/// What one worker counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerMetrics {
    /// Its number.
    pub worker: u32,
    /// Frames by verdict and reason. Pairs that cannot occur are absent, pairs that can are there from the start.
    pub frames: Vec<FrameCount>,
    /// Bytes received on each side, with Ethernet: outside, inside.
    pub received_bytes: [u64; 2],
    /// Bytes sent out of each side.
    pub sent_bytes: [u64; 2],
    /// Losses at the rings, by side and name.
    pub ring_drops: Vec<RingDrops>,
    /// Time spent working since start.
    pub busy: Duration,
    /// Time spent asleep since start.
    pub asleep: Duration,
}

/// Frames of one verdict and reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameCount {
    /// What happened to them.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// How many.
    pub frames: u64,
}

/// Losses at the rings of one side. Source: struct xdp_statistics, Linux `Documentation/networking/af_xdp.rst`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingDrops {
    /// Which side's socket.
    pub side: Side,
    /// `rx-dropped`, `rx-invalid-descriptors`, `rx-ring-full`, `fill-ring-empty` or `tx-invalid-descriptors`.
    pub reason: String,
    /// How many.
    pub frames: u64,
}

/// Characters of a rule's comment in metrics at most. A label is part of each series' identity.
pub const MAX_COMMENT: usize = 80;

/// What one rule counted, and what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleMetrics {
    /// Its id.
    pub id: RuleId,
    /// Its number in `show rules`.
    pub number: RuleNumber,
    /// Its chain.
    pub chain: String,
    /// The name of its action.
    pub action: String,
    /// Its comment, cut to [`MAX_COMMENT`] characters; empty if the configuration keeps comments out of metrics.
    pub comment: String,
    /// Packets and bytes.
    pub counter: Counter,
}

/// Resources that a process uses now, and its limits. Source: proc(5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUsage {
    /// Time on a processor, in user and system mode, since the process started.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Virtual memory in bytes.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Soft limit of open file descriptors; `None` if there is none.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
}
