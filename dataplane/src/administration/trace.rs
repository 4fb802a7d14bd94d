//! Answers to control about traces of packets. A trace that nobody reads ends by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use knockplane_log::target;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::time::Time;
use knockplane_policy::trace::TraceFilter;
use knockplane_policy::wire::trace::{
    MAX_TRACED, TRACE_RATE, TRACE_SILENCE, TRACE_TIME, TraceBegun, TraceQuery, TracedPackets,
};

use super::{Administration, RequestError};
use crate::fast_path::TracedStrangers;
use crate::trace::PacketTrace;

/// Workers notice a trace within a tenth of a second, unless one hangs.
const NOTICE_PATIENCE: Duration = Duration::from_secs(2);

/// What is known of the reader of a trace.
#[derive(Default)]
pub(super) struct TraceReader {
    /// The time of its last read.
    last_read: Time,
    /// The last trace, until the next one runs. So its memory is freed here, and not by a worker that ends it last.
    kept: Option<Arc<PacketTrace>>,
}

impl Administration {
    /// Begins a trace, unless another one runs. Returns when all packets that fit are in it.
    pub(super) fn begin_trace(&mut self, query: &TraceQuery) -> Result<TraceBegun, RequestError> {
        let TraceQuery { filter: text, time, rate } = query;
        let filter = TraceFilter::parse(text).map_err(|error| RequestError::Theirs(error.to_string()))?;
        if !TRACE_TIME.contains(time) || !TRACE_RATE.contains(rate) {
            let [shortest, longest] = [TRACE_TIME.start(), TRACE_TIME.end()].map(|time| time.as_secs());
            let [least, most] = [TRACE_RATE.start(), TRACE_RATE.end()];
            return Err(RequestError::Theirs(format!(
                "a trace has {shortest} to {longest} s, and {least} to {most} packets a second"
            )));
        }
        self.end_silent_trace();
        if let Some(running) = self.shared.trace.load_full() {
            let left = running.until.since(self.shared.clock.now()).as_secs_f64();
            return Err(RequestError::Conflict(format!(
                "another trace runs: end it, or wait until it is over, in {left:.0} s"
            )));
        }
        let strangers = strangers(&filter);
        let now = self.shared.clock.now();
        let (id, until) = (now.as_nanos(), now + *time);
        let trace = Arc::new(PacketTrace::new(id, until, filter, *rate, self.workers.len()));
        self.shared.trace.store(Some(Arc::clone(&trace)));
        // From then on, workers hand no flow to the kernel that the trace shows.
        if !self.await_workers(NOTICE_PATIENCE, |counters| counters.trace.observe() == id) {
            self.shared.trace.store(None);
            let error = "a worker hangs and has not noticed the trace: see `knockctl show workers`";
            return Err(RequestError::Ours(error.to_owned()));
        }
        self.trace_reader.kept = Some(trace);
        self.tell_kernel(Some(strangers));
        self.trace_reader.last_read = self.shared.clock.now();
        let seconds = time.as_secs();
        tracing::info!(target: target!("operator"), filter = text, seconds, "packets traced by request");
        Ok(TraceBegun { trace: id, fast_path: self.shared.fast_path.tables().is_some() })
    }

    /// The packets since the last read.
    pub(super) fn read_trace(&mut self, id: u64) -> Result<TracedPackets, RequestError> {
        let Some(trace) = self.shared.trace.load_full().filter(|trace| trace.id == id) else {
            return Err(RequestError::Conflict(format!("the trace {id} has ended")));
        };
        let now = self.shared.clock.now();
        self.trace_reader.last_read = now;
        let is_over = now >= trace.until;
        let packets = trace.take(MAX_TRACED, self.shared.wall.load(Relaxed), &self.shared.state.lists);
        let is_over = is_over && packets.len() < MAX_TRACED;
        if is_over {
            self.end_trace(id);
        }
        Ok(TracedPackets { packets, missed: trace.missed(), is_over })
    }

    /// Ends a trace, if it runs: the kernel carries and drops again as before.
    pub(super) fn end_trace(&mut self, id: u64) {
        if self.shared.trace.load().as_ref().is_some_and(|trace| trace.id == id) {
            self.shared.trace.store(None);
            self.tell_kernel(None);
            tracing::info!(target: target!("operator"), "the trace of packets has ended");
        }
    }

    /// Ends a trace that nobody reads.
    pub(super) fn end_silent_trace(&mut self) {
        let silent = self.shared.clock.now().since(self.trace_reader.last_read) >= TRACE_SILENCE;
        if let Some(trace) = self.shared.trace.load_full().filter(|_| silent) {
            self.end_trace(trace.id);
        }
    }

    fn tell_kernel(&self, strangers: Option<TracedStrangers>) {
        let generation = self.shared.generation.load_full();
        let rules = (&generation.table, &generation.strangers, &self.shared.state.lists);
        self.shared.fast_path.trace(strangers, rules);
    }
}

/// The strangers whose dropped frames the trace shows: the kernel drops frames from outside alone.
fn strangers(filter: &TraceFilter) -> TracedStrangers {
    let shows_drops = Reason::ALL.iter().any(|reason| filter.fits_verdict(Verdict::Drop, *reason));
    if !shows_drops || !filter.fits_side(Side::Outside) {
        return TracedStrangers::None;
    }
    filter.sources().map_or(TracedStrangers::All, |sources| TracedStrangers::Between(sources.collect()))
}
