//! The state of the kernel's fast path.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::metrics::FrameCount;
use crate::packet::Side;

/// The kernel's fast path. Counters are those since start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FastPathStatus {
    /// Whether the configuration asks for it (`fast-path = "auto"`).
    #[serde(default)]
    pub configured: bool,
    /// Whether the kernel carries flows now.
    pub on: bool,
    /// The reason that it carries none, or none in one direction; `None` if it carries flows in both.
    pub reason: Option<String>,
    /// Flows that it carries now: IPv4, IPv6. `None` if they were not counted.
    pub flows: Option<[u64; 2]>,
    /// Whether a trace runs: workers then decide about the flows and strangers that it shows.
    pub traced: bool,
    /// The maximum number of flows: IPv4, IPv6.
    pub capacity: [u64; 2],
    /// Flows that were handed to the kernel; a flow can be handed over more than once.
    pub stored: u64,
    /// Flows that stayed in userspace because their part of the table was full.
    pub full: u64,
    /// Carried frames, by the side of arrival, outside first.
    pub carried: [u64; 2],
    /// Bytes of these frames, with Ethernet headers.
    pub carried_bytes: [u64; 2],
    /// Frames of strangers from outside that it has dropped.
    pub dropped: u64,
    /// Bytes of these frames.
    pub dropped_bytes: u64,
    /// Carried and dropped frames, by verdict and reason.
    pub frames: Vec<FrameCount>,
    /// Of the carried frames, those that the other interface did not take, by the side of departure.
    pub lost: [u64; 2],
    /// Frames that came up to userspace while the fast path was on.
    pub misses: FastPathMisses,
}

/// What the kernel does now with frames like a given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum KernelVerdict {
    /// The fast path is off.
    Off,
    /// It carries their flow, for this time if nothing changes; `None` is no limit.
    Carries(Option<Duration>),
    /// It drops them while many arrive, because their source is a stranger.
    Drops,
    /// Workers decide about them.
    Passes,
}

/// A frame, for [`Request::Kernel`](super::Request::Kernel).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KernelQuery {
    /// The side of its arrival.
    pub side: Side,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// Frames that came up to userspace while the fast path was on, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FastPathMisses {
    /// Frames that it never carries: other protocols than TCP and UDP, fragments, options, two VLAN tags.
    pub unfit: u64,
    /// Frames of flows that were not handed over.
    pub unknown: u64,
    /// Frames of flows whose conditions had ended: an entry expired or changed, for example.
    pub ended: u64,
    /// Frames whose side of departure could not send.
    pub blocked: u64,
    /// Packets of carried connections that a worker must track: SYN, FIN, RST, SACK, and segments outside the windows.
    pub tracked: u64,
}

impl Add for FastPathMisses {
    type Output = FastPathMisses;

    fn add(self, other: FastPathMisses) -> FastPathMisses {
        FastPathMisses {
            unfit: self.unfit + other.unfit,
            unknown: self.unknown + other.unknown,
            ended: self.ended + other.ended,
            blocked: self.blocked + other.blocked,
            tracked: self.tracked + other.tracked,
        }
    }
}
