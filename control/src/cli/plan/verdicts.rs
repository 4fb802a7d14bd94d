//! The packets of a capture whose verdict would change: both rule sets decide about each packet, by the code of `replay`.

use knockplane_policy::packet::Side;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::bench::{Bench, Decision, Judged};
use crate::cli::capture::{Capture, CaptureError, CaptureRecord};
use crate::cli::replay;
use crate::cli::sources::Inside;
use crate::json::rfc_3339;

/// The comparison for a capture.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct CaptureVerdicts {
    /// Number of packets in the capture.
    pub(super) packets: usize,
    /// Every packet whose verdict would change.
    pub(super) changed: Vec<ChangedPacket>,
}

/// A packet of a capture or of a sample.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PacketRow {
    /// The number in the capture or in the sample, from 1.
    pub(super) number: usize,
    /// The time of its capture, in the form of RFC 3339.
    pub(super) time: String,
    /// Seconds since the first packet.
    #[serde(skip)]
    pub(super) since_first: String,
    pub(super) from: Side,
    /// The packet in one line; `null` if rules do not evaluate the frame.
    pub(super) packet: Option<String>,
}

/// A packet whose verdict would change.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ChangedPacket {
    #[serde(flatten)]
    pub(super) packet: PacketRow,
    pub(super) old: Outcome,
    pub(super) new: Outcome,
}

/// The decision of one rule set.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Outcome {
    #[serde(flatten)]
    decision: Decision,
    /// The decision in words.
    #[serde(skip)]
    pub(super) conclusion: String,
}

impl Outcome {
    pub(super) fn new(bench: &Bench<'_>, judged: &Judged) -> Outcome {
        Outcome { decision: bench.decision(judged), conclusion: bench.conclusion(judged) }
    }
}

/// Runs a capture through both rule sets, the old one first. An error of the capture is beside the comparison for the packets
/// before it.
pub(super) fn compare(
    capture: &Capture,
    inside: &Inside,
    [mut old, mut new]: [Bench<'_>; 2],
) -> (CaptureVerdicts, Result<(), CaptureError>) {
    let mut verdicts = CaptureVerdicts::default();
    let begin = capture.begin();
    let records = match capture.records() {
        Ok((_, records)) => records,
        Err(error) => return (verdicts, Err(error)),
    };
    for record in records {
        let captured = match record {
            Ok(CaptureRecord::Packet(captured)) => captured,
            Ok(CaptureRecord::Other(_)) => continue,
            Err(error) => return (verdicts, Err(error)),
        };
        verdicts.packets += 1;
        let [before, after] = [&mut old, &mut new].map(|bench| replay::judge(bench, &captured, inside));
        if before.verdict != after.verdict {
            let [old, new] = [Outcome::new(&old, &before), Outcome::new(&new, &after)];
            let Judged { packet, from, .. } = after;
            let (time, since_first) = (rfc_3339(captured.at), replay::since_first(&captured, begin));
            let packet = PacketRow { number: captured.number, time, since_first, from, packet };
            verdicts.changed.push(ChangedPacket { packet, old, new });
        }
    }
    (verdicts, Ok(()))
}
