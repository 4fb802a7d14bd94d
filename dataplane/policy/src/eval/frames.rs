//! Frames that rules do not see.

use super::Evaluator;
use crate::frames::ClassFrame;
use crate::reason::{Reason, Verdict};
use crate::time::Time;

impl Evaluator<'_> {
    /// Decides about a frame of a class by the settings. An accepted frame uses up the rate of its class.
    pub fn evaluate_frame(&mut self, frame: &ClassFrame, now: Time) -> (Verdict, Reason) {
        let rate = self.settings.frames.rate;
        let paid_until = self.frame_rates.entry((frame.class, frame.side)).or_default();
        self.settings.judge_frame(frame, || match rate.admit(*paid_until, now) {
            Some(until) => {
                *paid_until = until;
                true
            }
            None => false,
        })
    }
}
