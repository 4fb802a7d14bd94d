//! `GET /api/v1/traffic`: the traffic of the last ten minutes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// Samples of the traffic, one a second.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct TrafficHistoryJson {
    /// Identifies the control process: another one begins the numbers of samples again.
    pub(crate) start: u64,
    /// The number of the last sample; 0 if there is none yet. The next request has it as `since`.
    pub(crate) last: u64,
    /// The samples, the oldest first: at most 600.
    pub(crate) samples: Vec<TrafficSampleJson>,
}

/// The traffic of about a second.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct TrafficSampleJson {
    /// Counted from 1.
    pub(crate) number: u64,
    /// The time of its end, in seconds since 1970 by the wall clock.
    pub(crate) time_seconds: f64,
    /// `null` if the dataplane did not answer, and for the first answer after that or after a restart.
    pub(crate) rates: Option<TrafficRatesJson>,
}

/// Frames a second.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct TrafficRatesJson {
    /// Frames that left on the other side, by workers and by the kernel's fast path.
    pub(crate) forwarded: f64,
    /// Frames that the kernel's fast path forwarded or dropped.
    pub(crate) kernel: f64,
    /// Frames that the workers received.
    pub(crate) userspace: f64,
    /// The same of each worker, in order.
    pub(crate) workers: Vec<f64>,
    /// Dropped frames by reason, by workers and by the kernel's fast path, without reasons that dropped none.
    pub(crate) dropped: BTreeMap<String, f64>,
}
