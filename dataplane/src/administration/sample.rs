//! Answers to control about samples of traffic.

use std::sync::Arc;

use knockplane_log::target;
use knockplane_policy::wire::sample::{self, MAX_SAMPLED, SAMPLE_TIME, SampleQuery};

use super::{Administration, RequestError};
use crate::traffic_sample::TrafficSample;

impl Administration {
    /// Begins a sample, unless another one is in progress. Returns its id.
    pub(super) fn begin_sample(&mut self, query: SampleQuery) -> Result<u64, RequestError> {
        let SampleQuery { time, packets } = query;
        if !SAMPLE_TIME.contains(&time) || !(1..=MAX_SAMPLED).contains(&packets) {
            let [shortest, longest] = [SAMPLE_TIME.start(), SAMPLE_TIME.end()].map(|time| time.as_secs());
            return Err(RequestError::Theirs(format!(
                "a sample has {shortest} to {longest} s, and 1 to {MAX_SAMPLED} packets"
            )));
        }
        let now = self.shared.clock.now();
        if let Some(running) = self.shared.sample.load_full().filter(|sample| now < sample.until) {
            let left = running.until.since(now).as_secs_f64();
            return Err(RequestError::Conflict(format!("another sample of traffic is in progress: wait {left:.0} s")));
        }
        self.samples += 1;
        let id = self.samples;
        self.shared.sample.store(Some(Arc::new(TrafficSample::new(id, now + time, packets))));
        let seconds = time.as_secs();
        tracing::info!(target: target!("operator"), seconds, packets, "traffic sampled by request");
        Ok(id)
    }

    /// The packets of a sample, which ends with this.
    pub(super) fn end_sample(&self, id: u64) -> Result<sample::TrafficSample, RequestError> {
        let Some(sample) = self.shared.sample.load_full().filter(|sample| sample.id == id) else {
            return Err(RequestError::Conflict(format!("there is no sample {id}: it was read already, or replaced")));
        };
        self.shared.sample.store(None);
        Ok(sample.take(self.shared.clock.now()))
    }
}
