//! The observers of a worker: a sample of traffic, and a trace.

use std::sync::Arc;

use knockplane_engine::headers;
use knockplane_engine::pipeline::observer::{Observed, Observer};
use knockplane_engine::pipeline::{BATCH, Decision};
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::time::Time;
use knockplane_policy::trace::TraceFilter;
use knockplane_policy::wire::trace::TRACED_BYTES;

use super::{FactsRecord, PacketTrace, TraceRecord};
use crate::traffic_sample::TrafficSample;

/// What a worker reports besides its counters, while an operator asks for it.
pub(crate) struct Observers {
    sample: Option<Arc<TrafficSample>>,
    trace: Option<WorkerTrace>,
}

/// A worker's part of a trace.
struct WorkerTrace {
    trace: Arc<PacketTrace>,
    staged: Staged,
}

/// The packets of a batch that fit, until they have left the batch.
struct Staged {
    packets: Vec<TraceRecord>,
    generation: u64,
    /// The position in `packets` of the last packet that was evaluated, if that packet is there.
    last_evaluated: Option<usize>,
}

/// Room for the packets of a batch.
pub(super) fn staging() -> Vec<TraceRecord> {
    Vec::with_capacity(BATCH)
}

impl Observers {
    /// The observers for the present sample and trace, if there are any. Those of `before` continue.
    pub(crate) fn of(
        (sample, trace): (Option<Arc<TrafficSample>>, Option<Arc<PacketTrace>>),
        before: Option<Observers>,
        now: Time,
    ) -> Option<Observers> {
        let sample = sample.filter(|sample| now < sample.until);
        let wanted = trace.filter(|trace| now < trace.until);
        let running = before.and_then(|before| before.trace);
        let trace = match (running, wanted) {
            (Some(running), Some(wanted)) if running.trace.id == wanted.id => Some(running),
            (ended, wanted) => {
                if let Some(WorkerTrace { trace, staged }) = ended {
                    // The administration frees it with the trace.
                    let _ = trace.staging.push(staged.packets);
                }
                wanted.and_then(|trace| {
                    let packets = trace.staging.pop()?;
                    Some(WorkerTrace { trace, staged: Staged { packets, generation: 0, last_evaluated: None } })
                })
            }
        };
        (sample.is_some() || trace.is_some()).then_some(Observers { sample, trace })
    }

    /// The id of the trace; 0 without one.
    pub(crate) fn trace_id(&self) -> u64 {
        self.trace.as_ref().map_or(0, |trace| trace.trace.id)
    }

    /// The observer of a batch, if there is a trace.
    pub(crate) fn tracer(&mut self, generation: u64) -> Option<TraceObserver<'_>> {
        let WorkerTrace { trace, staged } = self.trace.as_mut()?;
        staged.packets.clear();
        (staged.generation, staged.last_evaluated) = (generation, None);
        Some(TraceObserver { filter: &trace.filter, staged })
    }

    /// Adds the packets of the batch to a sample. Returns the frames whose flows stay with the workers: one bit each.
    #[inline(never)]
    pub(crate) fn decided(&self, side: Side, frames: &[&[u8]], decisions: &[Decision], now: Time) -> u64 {
        if let Some(sample) = &self.sample {
            sample.add(side, frames, decisions, now);
        }
        let Some(WorkerTrace { trace, staged }) = &self.trace else { return 0 };
        let stays = |record: &&TraceRecord| trace.filter.fits_verdict(record.decision.verdict, record.decision.reason);
        staged.packets.iter().filter(stays).fold(0, |stay, record| stay | 1 << record.frame)
    }

    /// Adds the packets of the batch to a trace. `not_sent` are the accepted frames that did not leave, with the decision that
    /// replaces theirs.
    #[inline(never)]
    pub(crate) fn settled(&mut self, (not_sent, decision): (u64, Decision), now: Time) {
        let Some(WorkerTrace { trace, staged }) = &mut self.trace else { return };
        for mut record in staged.packets.drain(..) {
            if not_sent >> record.frame & 1 == 1 {
                record.decision = decision;
            }
            if trace.filter.fits_verdict(record.decision.verdict, record.decision.reason) && now < trace.until {
                trace.add(record, now);
            }
        }
    }
}

/// Whether the verdict can fit, also if an accepted frame does not leave.
fn can_fit(filter: &TraceFilter, Decision { verdict, reason }: Decision) -> bool {
    let if_not_sent = [Reason::TxFull, Reason::LinkDown];
    filter.fits_verdict(verdict, reason)
        || verdict == Verdict::Forward
            && if_not_sent.into_iter().any(|reason| filter.fits_verdict(Verdict::Drop, reason))
}

/// Stages the packets of a batch that fit.
pub(crate) struct TraceObserver<'w> {
    filter: &'w TraceFilter,
    staged: &'w mut Staged,
}

impl TraceObserver<'_> {
    fn stage(
        &mut self,
        frame: usize,
        bytes: &[u8],
        (side, decision, arrived): (Side, Decision, Time),
        facts: Option<FactsRecord>,
    ) {
        debug_assert!(self.staged.packets.len() < BATCH, "each frame of a batch is staged once");
        let length = bytes.len();
        let mut copied = [0; TRACED_BYTES];
        let part = length.min(TRACED_BYTES);
        copied[..part].copy_from_slice(&bytes[..part]);
        let generation = self.staged.generation;
        let record = TraceRecord { frame, arrived, side, decision, generation, facts, bytes: copied, length };
        self.staged.packets.push(record);
    }
}

impl Observer for TraceObserver<'_> {
    const OBSERVES: bool = true;

    fn wants(&mut self, packet: &Packet<'_>) -> bool {
        self.staged.last_evaluated = None;
        self.filter.fits_packet(packet)
    }

    fn decided(&mut self, frame: usize, packet: &Packet<'_>, observed: &Observed<'_>) {
        let Observed { arrived, decision, rules, last, state, lists, knocks, answered } = *observed;
        if !can_fit(self.filter, decision) {
            return;
        }
        let facts = FactsRecord { rules: first(rules), last, state, lists, knocks: first(knocks), answered };
        self.staged.last_evaluated = Some(self.staged.packets.len());
        self.stage(frame, packet.frame, (packet.side, decision, arrived), Some(facts));
    }

    fn repeated(&mut self, frame: usize, packet: &Packet<'_>) {
        let last = self.staged.last_evaluated.map(|position| &self.staged.packets[position]);
        if let Some(TraceRecord { side, decision, arrived, facts, .. }) = last {
            let (of_all, facts) = ((*side, *decision, *arrived), *facts);
            self.stage(frame, packet.frame, of_all, facts);
        }
    }

    fn unseen(&mut self, frame: usize, side: Side, bytes: &[u8], decision: Decision, arrived: Time) {
        if can_fit(self.filter, decision) && self.filter.fits_frame(side, headers::source(bytes)) {
            self.stage(frame, bytes, (side, decision, arrived), None);
        }
    }
}

/// The first items, in places.
fn first<T: Copy, const N: usize>(items: &[T]) -> [Option<T>; N] {
    std::array::from_fn(|place| items.get(place).copied())
}

#[cfg(test)]
mod tests {
    use knockplane_policy::packet::protocol;

    use super::*;

    #[test]
    fn a_frame_that_rules_do_not_see_hides_no_repeated_packet() {
        let now = Time::from_nanos(5);
        let filter = TraceFilter::parse("verdict drop").expect("a filter");
        let trace = Arc::new(PacketTrace::new(7, now + std::time::Duration::from_secs(9), filter, 100, 1));
        let mut observers = Observers::of((None, Some(Arc::clone(&trace))), None, now).expect("a trace runs");
        let addresses = [[192, 0, 2, 1], [203, 0, 113, 1]].map(std::net::IpAddr::from);
        let packet = Packet::bare(Side::Outside, addresses[0], addresses[1], protocol::UDP);
        let decision = Decision { verdict: Verdict::Drop, reason: Reason::ChainDefault };
        let (rules, lists, knocks) = (&[][..], Default::default(), &[][..]);
        let observed =
            Observed { arrived: now, decision, rules, last: None, state: None, lists, knocks, answered: false };
        let mut tracer = observers.tracer(1).expect("a trace runs");
        assert!(tracer.wants(&packet));
        tracer.decided(0, &packet, &observed);
        tracer.unseen(1, Side::Outside, &[0; 60], decision, now);
        tracer.repeated(2, &packet);
        tracer.repeated(3, &packet);
        let frames: Vec<_> =
            tracer.staged.packets.iter().map(|record| (record.frame, record.facts.is_some())).collect();
        assert_eq!(frames, [(0, true), (1, false), (2, true), (3, true)]);
    }

    #[test]
    fn a_trace_gets_the_staging_memory_of_its_workers_back() {
        let now = Time::from_nanos(5);
        let trace =
            Arc::new(PacketTrace::new(7, now + std::time::Duration::from_secs(9), TraceFilter::default(), 100, 1));
        let observers = Observers::of((None, Some(Arc::clone(&trace))), None, now);
        assert!(observers.is_some() && trace.staging.is_empty());
        assert!(Observers::of((None, None), observers, now).is_none());
        assert_eq!((trace.staging.len(), Arc::strong_count(&trace)), (1, 1));
    }
}
