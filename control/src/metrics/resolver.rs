//! Attempts to resolve the host names of address lists.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts};

use super::sheet::{Sheet, valid};

/// Upper bounds in seconds of the buckets: from a name server on the same host to the time limit of an attempt.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0];

/// The counts since the start of the process.
#[derive(Clone, Debug)]
pub(crate) struct ResolverMetrics {
    attempts: IntCounterVec,
    durations: Histogram,
}

impl Default for ResolverMetrics {
    fn default() -> Self {
        let attempts =
            Opts::new("resolver_attempts_total", "Attempts to resolve a host name of an address list, by result.");
        let durations =
            HistogramOpts::new("resolver_attempt_duration_seconds", "Time of an attempt to resolve a host name.");
        let metrics = ResolverMetrics {
            attempts: valid(IntCounterVec::new(attempts, &["result"])),
            durations: valid(Histogram::with_opts(durations.buckets(BUCKETS.to_vec()))),
        };
        ["resolved", "failed"].iter().for_each(|result| _ = metrics.attempts.with_label_values(&[result]));
        metrics
    }
}

impl ResolverMetrics {
    /// Records the time of an attempt.
    pub(crate) fn took(&self, time: Duration) {
        self.durations.observe(time.as_secs_f64());
    }

    /// Counts an attempt.
    pub(crate) fn ended(&self, is_resolved: bool) {
        self.attempts.with_label_values(&[if is_resolved { "resolved" } else { "failed" }]).inc();
    }

    pub(super) fn register(&self, sheet: &Sheet) {
        sheet.register(&self.attempts);
        sheet.register(&self.durations);
    }
}
