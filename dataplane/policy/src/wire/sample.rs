//! A sample of traffic: the headers of packets, with the verdicts of workers.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::packet::Side;
use crate::reason::Verdict;

/// The times for which traffic can be sampled. Workers notice a sample within a tenth of a second, so a shorter one could
/// be empty.
pub const SAMPLE_TIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// Maximum number of packets in a sample: 3 MB of memory in the dataplane.
pub const MAX_SAMPLED: usize = 10_000;

/// A request for a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleQuery {
    /// Its time: [`SAMPLE_TIME`].
    pub time: Duration,
    /// Maximum number of packets, at most [`MAX_SAMPLED`].
    pub packets: usize,
}

/// A sample of the packets that rules evaluate, without later fragments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrafficSample {
    /// The packets, in the order of their arrival.
    pub packets: Vec<SampledPacket>,
    /// The number of packets that found no room.
    pub missed: u64,
}

/// A packet of a sample, without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SampledPacket {
    /// Time since the arrival.
    pub age: Duration,
    /// The side of the arrival.
    pub side: Side,
    /// The verdict of the rules.
    pub verdict: Verdict,
    /// The frame up to the payload.
    pub headers: Vec<u8>,
    /// The number of bytes behind the headers.
    pub rest: usize,
}

impl SampledPacket {
    /// The frame, with zeros in place of the payload.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.headers.clone();
        frame.resize(self.headers.len() + self.rest, 0);
        frame
    }
}
