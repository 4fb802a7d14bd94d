//! The state of the dataplane and its workers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::connections::ConnectionTable;
use super::interface::Interface;
use super::offload::Offload;
use crate::settings::Settings;

/// The dataplane in a few lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the dataplane's package.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Time since start.
    pub uptime: Duration,
    /// Rule sets applied since start, counted from 1.
    pub generation: u64,
    /// Time since that rule set was swapped in.
    pub generation_age: Duration,
    /// Where the rules came from.
    pub rules_source: String,
    /// How many rules run.
    pub rules: usize,
    /// What decides besides the rules.
    pub settings: Settings,
    /// The two interfaces, outside first.
    pub interfaces: Vec<Interface>,
    /// The workers.
    pub workers: Vec<Worker>,
    /// What happens to frames when the dataplane is gone: `closed`.
    pub on_exit: String,
    /// What became of the dataplane's log lines.
    pub log: LogStatus,
    /// Frames dropped since start, by every reason that has dropped one, the most frequent first.
    #[serde(default)]
    pub drops: Vec<DropCount>,
    /// How full the table of connections is; `None` if no rule needs it.
    #[serde(default)]
    pub connections: Option<ConnectionTable>,
    /// What senders have left to their interface, and no interface has done.
    #[serde(default)]
    pub offload: Offload,
}

/// Frames dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DropCount {
    /// The name of a [`Reason`], or of a loss at the rings as in [`RingDrops`].
    pub reason: String,
    /// How many.
    pub frames: u64,
}

/// What became of a process's log lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogStatus {
    /// Lines lost since start, by every kind of line that there is.
    pub lost: Vec<LostLines>,
    /// Lines that wait to be written.
    pub waiting: u64,
    /// Why lines are not written now; `None` if they are.
    pub problem: Option<String>,
}

/// Lost lines of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LostLines {
    /// `door`, `list`, `operator`, `packet`, `other` or `debug`.
    pub kind: String,
    /// How many.
    pub lines: u64,
}

/// A worker now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its number, the queue it serves on both sides.
    pub worker: u32,
    /// The core it is pinned to, if it is.
    pub core: Option<u32>,
    /// Time since it last said that it is alive; `None` if it was just started and has not said so yet.
    pub heartbeat_age: Option<Duration>,
    /// Generation of rules it runs.
    pub generation: u64,
    /// Frames it received on each side, outside first.
    pub received: [u64; 2],
    /// Frames it forwarded out of each side, outside first.
    pub sent: [u64; 2],
    /// Frames it dropped.
    pub dropped: u64,
    /// Frames handed to the kernel for sending that did not come back yet.
    pub in_flight: u64,
    /// Frames of its pool that are in none of the places they can be in. Always 0; a gauge for those who doubt it.
    pub lost: u64,
    /// Time spent working since start.
    pub busy: Duration,
}
