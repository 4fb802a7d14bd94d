//! Frames that rules do not evaluate: other protocols than IP, and malformed packets. The settings decide them.

use knockplane_policy::frames::FrameClass;
use knockplane_policy::packet::{Side, vlan};
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::time::Time;

use crate::headers;
use crate::pipeline::history::{HistoryWriter, LastPacket, Refusal, RefusedPackets};
use crate::pipeline::{Context, Decision};

/// Decides about a frame that [`headers::read`] refused for this reason.
#[cold]
#[inline(never)]
pub(super) fn decide(
    reason: Reason,
    side: Side,
    frame: &[u8],
    now: impl FnOnce() -> Time,
    context: Context<'_>,
) -> Decision {
    let Some(class) = FrameClass::of(reason) else { return Decision { verdict: Verdict::Drop, reason } };
    let Context { table, state, .. } = context;
    let frame = headers::class_frame(side, class, frame);
    let admits = || state.admits_frame(class, side, table.settings().frames.rate, now());
    let (verdict, reason) = table.settings().judge_frame(&frame, admits);
    Decision { verdict, reason }
}

/// Records a dropped frame in the history of its IP source, if the frame contains one.
pub(super) fn record(
    history: &mut HistoryWriter,
    side: Side,
    frame: &[u8],
    Decision { verdict, reason }: Decision,
    now: impl FnOnce() -> Time,
) {
    if verdict == Verdict::Drop
        && history.has_room()
        && let Some(source) = headers::source(frame)
    {
        let last = LastPacket { side, vlan: vlan::of_frame(frame), protocol: None, port: None };
        let refusal = Refusal::Dropped { reason, rule: None };
        history.record(RefusedPackets { source, refusal, last, count: 1, arrived: now() });
    }
}
