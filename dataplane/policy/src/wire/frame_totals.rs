//! The frames since start, for rates over time: a small answer from counters that exist anyway.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::status::DropCount;

/// Frames since the dataplane started. No number decreases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameTotals {
    /// The start time of the dataplane since the Unix epoch. The same in every answer of one process.
    pub started: Duration,
    /// Time since start.
    pub uptime: Duration,
    /// Frames that left on the other side, by workers and by the kernel's fast path.
    pub forwarded: u64,
    /// Frames that the kernel's fast path forwarded or dropped.
    pub kernel: u64,
    /// Frames that each worker received, in order.
    pub workers: Vec<u64>,
    /// Frames dropped, as in [`DataplaneStatus`](super::DataplaneStatus).
    pub drops: Vec<DropCount>,
}
