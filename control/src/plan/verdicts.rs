//! Packets whose verdict would change: of a capture, and of a sample of live traffic.

use knockplane_policy::packet::Side;
use schemars::JsonSchema;
use serde::Serialize;

use crate::bench::{Bench, Decision, Judged};

/// The comparison for a capture.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct CaptureVerdicts {
    /// Number of packets in the capture.
    pub(crate) packets: usize,
    /// Every packet whose verdict would change.
    pub(crate) changed: Vec<ChangedPacket>,
}

/// A packet of a capture or of a sample.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PacketRow {
    /// The number in the capture or in the sample, from 1.
    pub(crate) number: usize,
    /// The time of its capture, in the form of RFC 3339.
    pub(crate) time: String,
    /// Seconds since the first packet.
    #[serde(skip)]
    pub(crate) since_first: String,
    pub(crate) from: Side,
    /// The packet in one line; `null` if rules do not evaluate the frame.
    pub(crate) packet: Option<String>,
}

/// A packet whose verdict would change.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChangedPacket {
    #[serde(flatten)]
    pub(crate) packet: PacketRow,
    pub(crate) old: Outcome,
    pub(crate) new: Outcome,
}

/// The decision of one rule set.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    pub(crate) decision: Decision,
    /// The decision in words.
    #[serde(skip)]
    pub(crate) conclusion: String,
}

impl Outcome {
    pub(crate) fn new(bench: &Bench<'_>, judged: &Judged) -> Outcome {
        Outcome { decision: bench.decision(judged), conclusion: bench.conclusion(judged) }
    }
}

/// The comparison for a sample of live traffic.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct LiveVerdicts {
    /// Time of the sample.
    pub(crate) seconds: u64,
    /// Number of packets in the sample.
    pub(crate) packets: usize,
    /// Number of packets that found no room in the sample.
    pub(crate) missed: u64,
    /// Number of packets that were compared: those that begin a connection or a flow.
    pub(crate) compared: usize,
    /// Number of later packets of connections and flows, which were not compared.
    pub(crate) later: usize,
    /// Packets that begin a connection or a flow and were not compared.
    pub(crate) undecided: Vec<UndecidedPacket>,
    /// Every packet whose verdict would change.
    pub(crate) changed: Vec<ChangedPacket>,
}

/// A packet that headers do not decide.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UndecidedPacket {
    /// The packet.
    #[serde(flatten)]
    pub(crate) packet: PacketRow,
    /// Why it was not compared.
    pub(crate) because: String,
}
