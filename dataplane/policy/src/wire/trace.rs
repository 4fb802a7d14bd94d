//! A live trace: packets that fit a filter, with the verdicts of workers and the facts of these decisions.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::packet::Side;
use crate::reason::{Reason, Verdict};
use crate::trace::TracedFacts;

/// The times for which packets can be traced.
pub const TRACE_TIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);

/// The packets that a trace can show in a second. Further ones that fit are counted.
pub const TRACE_RATE: RangeInclusive<u32> = 1..=2_000;

/// A trace that nobody reads for this time ends.
pub const TRACE_SILENCE: Duration = Duration::from_secs(2);

/// The first bytes of a frame in a trace, at most: headers, and a part of the payload.
pub const TRACED_BYTES: usize = 512;

/// Maximum number of packets in an answer.
pub const MAX_TRACED: usize = 256;

/// A request for a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceQuery {
    /// The text of its filter: [`TraceFilter::parse`](crate::trace::TraceFilter::parse).
    pub filter: String,
    /// Its time: [`TRACE_TIME`].
    pub time: Duration,
    /// Its rate: [`TRACE_RATE`].
    pub rate: u32,
}

/// A trace that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TraceBegun {
    /// Its id.
    pub trace: u64,
    /// Whether there is a fast path of the kernel, which the traced flows leave.
    pub fast_path: bool,
}

/// The packets since the last read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TracedPackets {
    /// The packets, in the order of their arrival; at most [`MAX_TRACED`].
    pub packets: Vec<TracedPacket>,
    /// The number of packets since the begin that fit, but were over the rate or found no room.
    pub missed: u64,
    /// Whether the time of the trace is over: then no packets follow these.
    pub is_over: bool,
}

/// A packet, and the decision about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TracedPacket {
    /// Time of its arrival, in nanoseconds since 1970.
    pub at: u64,
    /// The side of its arrival.
    pub side: Side,
    /// The verdict.
    pub verdict: Verdict,
    /// Its reason.
    pub reason: Reason,
    /// The generation of the rules.
    pub generation: u64,
    /// The facts of the decision; `None` if rules do not see the frame.
    pub facts: Option<TracedFacts>,
    /// The first bytes of the frame, at most [`TRACED_BYTES`].
    pub bytes: Vec<u8>,
    /// The length of the frame.
    pub length: usize,
}

impl TracedPacket {
    /// The frame, with zeros in place of the bytes that the trace does not have.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.bytes.clone();
        frame.resize(self.length.max(self.bytes.len()), 0);
        frame
    }

    /// Whether the trace has all bytes of the frame.
    pub fn is_whole(&self) -> bool {
        self.bytes.len() >= self.length
    }
}
