//! The traffic of sources between two looks of the dataplane at its connections and at the histories of its workers.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// Maximum number of sources in an answer.
pub const MAX_RATED_SOURCES: usize = 1_000;

/// The busiest sources since the look before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRates {
    /// Time between the look before and this one; `None` if there was none in the last minute. Then the numbers of the
    /// interval are 0.
    pub interval: Option<Duration>,
    /// The sources with the most bytes and those with the most dropped packets of the interval, in no order.
    pub sources: Vec<SourceRate>,
    /// Number of sources that were found.
    pub found: u64,
    /// Whether the look read only a part of the connection table, because the table is larger than a look.
    pub is_partial: bool,
}

/// The traffic of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRate {
    /// The address: of the originator of connections, or of dropped packets.
    pub address: IpAddr,
    /// Its tracked connections now.
    pub connections: u64,
    /// IP bytes of these connections since they began, in both directions.
    pub total_bytes: u64,
    /// The part of them in the interval. Connections that ended within the interval are not included.
    pub bytes: u64,
    /// Its dropped packets in the workers' histories now.
    pub total_dropped: u64,
    /// The part of them in the interval. Drops by the kernel, and those that a worker under load did not record, are not
    /// included.
    pub dropped: u64,
    /// The reason for the last of these drops.
    pub reason: Option<Reason>,
}
