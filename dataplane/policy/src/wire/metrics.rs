//! All counters, for a scrape.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::doors::DoorSummary;
use super::grants::DoorGrants;
use super::lists::ListSummary;
use super::names::NameState;
use super::rules::Counter;
use super::status::DataplaneStatus;
use crate::packet::Side;
use crate::reason::{Reason, Verdict};
use crate::rule::{RuleId, RuleNumber};

/// All counters in one answer, so that a scrape reads the workers once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsReport {
    /// As in [`Request::Status`](super::Request::Status).
    pub status: DataplaneStatus,
    /// The counters of each worker, in order.
    pub workers: Vec<WorkerMetrics>,
    /// The start time of the dataplane since the Unix epoch. The same in every answer of one process.
    pub started: Duration,
    /// The time since the Unix epoch when the running rules took effect. The same in every answer about one generation.
    pub reloaded: Duration,
    /// Resources that the dataplane's process uses; `None` if /proc is not available.
    pub process: Option<ProcessUsage>,
    /// Running rules with series of their own, in order.
    pub rules: Vec<RuleMetrics>,
    /// Counts of rules without series of their own, since start. Never decreases.
    pub rule_overflow: Counter,
    /// Number of running rules without series of their own.
    pub rules_without_series: u64,
    /// As in [`Rules`](super::Rules).
    pub chain_defaults: [Counter; 3],
    /// As in [`Lists`](super::Lists).
    pub lists: Vec<ListSummary>,
    /// The host names of all lists.
    #[serde(default)]
    pub names: Vec<NameState>,
    /// As in [`Doors`](super::Doors).
    pub doors: Vec<DoorSummary>,
    /// The changes of grants, for each of these doors.
    #[serde(default)]
    pub grants: Vec<DoorGrants>,
    /// Capacity of all lists together, in entries.
    pub list_capacity: u64,
    /// Known connections.
    pub connections: u64,
    /// Packets that were `invalid` because the connection table had no room.
    pub connections_refused: u64,
    /// Rule sets and configurations applied since start.
    pub applied: u64,
    /// Rule sets and configurations refused since start.
    pub refused: u64,
    /// Events for the manager that found no room in its queue.
    pub events_lost: u64,
    /// Events of the lists that their readers missed.
    #[serde(default)]
    pub event_readers: Vec<EventReader>,
    /// Times since start that the wall clock was set.
    #[serde(default)]
    pub clock_steps: u64,
    /// Whether the system clock is synchronised, according to the kernel; `None` if it does not answer.
    pub clock_synchronised: Option<bool>,
    /// Connections to the dataplane's socket that a limit refused or closed since start, by reason; all reasons are
    /// present.
    #[serde(default)]
    pub peers_refused: Vec<PeersRefused>,
}

/// The gaps of a reader of events: it was too slow, and others overwrote the events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReader {
    /// `log` or `journal`.
    pub reader: String,
    /// Number of gaps since start.
    pub gaps: u64,
    /// Number of missed events since start.
    pub missed: u64,
}

/// Connections that a limit refused or closed for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersRefused {
    /// The reason, as in `docs/limits.md`.
    pub reason: String,
    /// The count.
    pub connections: u64,
}

/// Counters of one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerMetrics {
    /// The number.
    pub worker: u32,
    /// Frames by verdict and reason. Every possible pair is present from the start.
    pub frames: Vec<FrameCount>,
    /// Bytes received on each side, with Ethernet headers: outside, inside.
    pub received_bytes: [u64; 2],
    /// Bytes sent on each side.
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
    /// The verdict.
    pub verdict: Verdict,
    /// The reason.
    pub reason: Reason,
    /// The count.
    pub frames: u64,
}

/// Losses at the rings of one side. Source: struct xdp_statistics, Linux `Documentation/networking/af_xdp.rst`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingDrops {
    /// The side of the socket.
    pub side: Side,
    /// `rx-dropped`, `rx-invalid-descriptors`, `rx-ring-full`, `fill-ring-empty` or `tx-invalid-descriptors`.
    pub reason: String,
    /// The count.
    pub frames: u64,
}

/// Maximum length of a rule's comment in metrics, in characters. A label is part of the identity of each series.
pub const MAX_COMMENT: usize = 80;

/// A rule and its counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleMetrics {
    /// The id.
    pub id: RuleId,
    /// The number in `show rules`.
    pub number: RuleNumber,
    /// The chain.
    pub chain: String,
    /// The name of its action.
    pub action: String,
    /// The comment, truncated to [`MAX_COMMENT`] characters; empty if the configuration excludes comments from metrics.
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
    /// Number of threads.
    pub threads: u64,
}
