//! The packets of a capture whose verdict would change: both rule sets decide about each packet, by the code of `replay`.

use crate::bench::{Bench, Judged};
use crate::cli::capture::{Capture, CaptureError, CaptureRecord};
use crate::cli::replay;
use crate::cli::sources::Inside;
use crate::json::rfc_3339;
use crate::plan::verdicts::{CaptureVerdicts, ChangedPacket, Outcome, PacketRow};

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
