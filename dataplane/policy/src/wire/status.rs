//! The state of the dataplane and its workers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::confirmation::PendingConfirmation;
use super::connections::ConnectionTableStatus;
use super::fast_path::FastPathStatus;
use super::interface::Interface;
use super::offload::Offload;
use crate::settings::Settings;

/// The state of the dataplane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataplaneStatus {
    /// Version of the dataplane's package.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Time since start.
    pub uptime: Duration,
    /// Rule sets applied since start, counted from 1.
    pub generation: u64,
    /// Time since that rule set took effect.
    pub generation_age: Duration,
    /// The rollback of this generation, unless an operator confirms it; `None` if no confirmation is pending.
    #[serde(default)]
    pub confirmation: Option<PendingConfirmation>,
    /// The source of the rules.
    pub rules_source: String,
    /// Number of running rules.
    pub rules: usize,
    /// The settings beside the rules.
    pub settings: Settings,
    /// Whether these settings are those before a reload that was not confirmed, and not those of the configuration file.
    #[serde(default)]
    pub settings_differ_from_file: bool,
    /// The two interfaces, outside first.
    pub interfaces: Vec<Interface>,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// The treatment of frames when the dataplane ends: `closed`.
    pub on_exit: String,
    /// State of the dataplane's log.
    pub log: LogStatus,
    /// Frames dropped since start, by each reason with a drop, the most frequent first.
    #[serde(default)]
    pub drops: Vec<DropCount>,
    /// Fill level of the connection table; `None` if no rule needs it.
    #[serde(default)]
    pub connections: Option<ConnectionTableStatus>,
    /// Checksums and segmentation that senders left to their interface.
    #[serde(default)]
    pub offload: Offload,
    /// The kernel's fast path.
    #[serde(default)]
    pub fast_path: FastPathStatus,
    /// Memory of the large tables.
    #[serde(default)]
    pub memory: Vec<TableMemory>,
    /// Damage of the stored static entries that the start found and that lost entries; `None` if there was none.
    #[serde(default)]
    pub static_entries_damage: Option<String>,
    /// The journal of grants and other entries with a timeout.
    #[serde(default)]
    pub journal: JournalStatus,
    /// The file of the counters of rules.
    #[serde(default)]
    pub stored_counters: StoredCountersStatus,
}

/// The file of the counters of rules, which a restart continues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoredCountersStatus {
    /// Attempts to write that failed since start.
    pub failures: u64,
    /// The reason that the present counts are not on the disk; `None` if the last attempt succeeded.
    pub problem: Option<String>,
    /// The damage of the file that the start found, in words; `None` if it was intact.
    pub damage: Option<String>,
}

/// The journal of grants and other entries with a timeout, which a restart restores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JournalStatus {
    /// Bytes of the file.
    pub bytes: u64,
    /// Events of entries whose changes are not on the disk yet.
    pub waiting: u64,
    /// Attempts to write that failed since start.
    pub failures: u64,
    /// The reason that changes are not on the disk; `None` if they are, or will be within a moment.
    pub problem: Option<String>,
    /// Milliseconds that the last write took, or that the present one has taken until now.
    #[serde(default)]
    pub delay_ms: u64,
    /// What the start restored.
    pub restore: RestoreReport,
}

impl StoredCountersStatus {
    /// What an operator must know, in words; `None` if all is well.
    pub fn warning(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        Some(format!("the counters of rules are not on the disk, and a restart would lose counts: {problem}"))
    }
}

impl JournalStatus {
    /// The milliseconds of a write from which on the disk is slow: removals by operators wait that long.
    pub const SLOW_MS: u64 = 500;

    /// The state that needs an operator, in words; `None` if all is well.
    pub fn warning(&self) -> Option<String> {
        let JournalStatus { problem, delay_ms, .. } = self;
        match problem {
            Some(problem) => Some(format!("grants are not on the disk, and a restart would lose them: {problem}")),
            None if *delay_ms >= JournalStatus::SLOW_MS => Some(format!(
                "the disk takes {:.1} s for changes of grants, and a kill loses those since the last write",
                *delay_ms as f64 / 1_000.0
            )),
            None => None,
        }
    }
}

/// The entries of the journal at a start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RestoreReport {
    /// Entries that are in the lists again.
    pub restored: u64,
    /// Entries that expired while the dataplane did not run.
    pub expired: u64,
    /// Entries of lists that neither rules nor doors name any more.
    pub without_list: u64,
    /// Entries that found no room.
    pub without_room: u64,
    /// Whether the machine had booted and its wall clock was set back. Then no entry with a timeout was restored.
    pub clock_was_set_back: bool,
    /// The damage of the file, in words; `None` if it was intact.
    pub damage: Option<String>,
}

/// Memory of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TableMemory {
    /// `lists` or `connections`.
    pub table: String,
    /// Bytes of memory.
    pub bytes: u64,
    /// The part of them that is in huge pages; `null` if the kernel does not tell.
    pub huge_page_bytes: Option<u64>,
}

/// Frames dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DropCount {
    /// The name of a [`Reason`](crate::reason::Reason), or of a loss as in [`RingDrops`](super::RingDrops).
    pub reason: String,
    /// The count.
    pub frames: u64,
}

/// State of a process's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogStatus {
    /// Lines lost since start, by kind; all kinds are present.
    pub lost: Vec<LostLines>,
    /// Number of lines that wait for the writer.
    pub waiting: u64,
    /// The reason that lines are not written now; `None` if they are.
    pub problem: Option<String>,
}

/// Lost lines of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LostLines {
    /// `door`, `list`, `operator`, `packet`, `other` or `debug`.
    pub kind: String,
    /// The count.
    pub lines: u64,
}

/// State of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The number, which is the queue that it serves on both sides.
    pub worker: u32,
    /// The core to which the worker is pinned; `None` if it is not pinned.
    pub core: Option<u32>,
    /// Time since the last heartbeat; `None` before the first one.
    pub heartbeat_age: Option<Duration>,
    /// The generation of rules that the worker runs.
    pub generation: u64,
    /// Frames that the worker received on each side, outside first.
    pub received: [u64; 2],
    /// Frames that the worker sent on each side, outside first.
    pub sent: [u64; 2],
    /// Frames that the worker dropped.
    pub dropped: u64,
    /// Frames that the kernel has for transmission and has not completed.
    pub in_flight: u64,
    /// Frames of the worker's UMEM that are in no known place. Always 0.
    pub lost: u64,
    /// Time spent working since start.
    pub busy: Duration,
}
