//! The reorder buffer: frames of knocks that this worker decided out of order.
//!
//! With several queues, the packets of one source reach several workers. The worker of a later step can be faster than
//! the worker of the step before it. The later step then has no effect, because the lists do not contain the earlier
//! step yet. Such frames stay in this buffer for a moment and are evaluated again. Each frame carries the time of its
//! arrival, so a step that arrived too early has no effect at a re-evaluation either.
//!
//! The buffer is bounded. If it is full, a new frame replaces the oldest one. A frame also leaves the buffer when it is
//! older than [`MAX_AGE`]. In both cases the frame is evaluated a last time. Nothing is allocated after the start.

use std::time::Duration;

use knockplane_engine::pipeline::{OutOfOrder, PendingSteps};
use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;

/// Maximum number of frames in the buffer. Knocks are rare. A flood of second knocks fills the buffer, and costs at
/// most this number of re-evaluations each millisecond.
const CAPACITY: usize = 32;

/// Maximum time of a frame in the buffer. It is longer than the lag of a worker behind another one, also if other
/// processes use its core.
const MAX_AGE: Duration = Duration::from_millis(500);

/// Time between two re-evaluations of a frame.
const INTERVAL: Duration = Duration::from_millis(1);

/// Frames that were decided out of order, in the order in which they were inserted.
pub(crate) struct ReorderBuffer {
    frames: Vec<BufferedFrame>,
    /// Unused places, with their memory.
    spare: Vec<BufferedFrame>,
    next_re_evaluation: Time,
}

/// A copy of a frame, with the data for its re-evaluation.
pub(crate) struct BufferedFrame {
    /// The side on which the frame arrived.
    pub(crate) side: Side,
    pub(crate) arrived: Time,
    /// The steps that the packet has not taken yet.
    pub(crate) pending: PendingSteps,
    bytes: Vec<u8>,
}

impl BufferedFrame {
    fn view(&self, is_last: bool) -> OutOfOrder<'_> {
        let BufferedFrame { side, arrived, pending, .. } = *self;
        OutOfOrder { side, frame: &self.bytes, arrived, pending, is_last }
    }
}

impl ReorderBuffer {
    /// Allocates memory for frames of at most `max_frame` bytes.
    pub(crate) fn new(max_frame: usize) -> Self {
        let unused = || BufferedFrame {
            side: Side::Outside,
            arrived: Time::default(),
            pending: PendingSteps::default(),
            bytes: Vec::with_capacity(max_frame),
        };
        ReorderBuffer {
            frames: Vec::with_capacity(CAPACITY),
            spare: std::iter::repeat_with(unused).take(CAPACITY).collect(),
            next_re_evaluation: Time::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Copies a frame into the buffer. If the buffer is full, the oldest frame leaves it after a last re-evaluation.
    pub(crate) fn insert(&mut self, frame: OutOfOrder<'_>, re_evaluate: impl FnOnce(OutOfOrder<'_>)) {
        let mut place = match self.spare.pop() {
            Some(place) => place,
            None => {
                let oldest = self.frames.remove(0);
                re_evaluate(oldest.view(true));
                oldest
            }
        };
        (place.side, place.arrived, place.pending) = (frame.side, frame.arrived, frame.pending);
        place.bytes.clear();
        // The rings deliver no frame that is longer than the memory. A longer one would be truncated here, and
        // headers::read would refuse it.
        place.bytes.extend(frame.frame.iter().take(place.bytes.capacity()));
        self.frames.push(place);
    }

    /// Evaluates the frames again if [`INTERVAL`] has passed. Frames that have no pending step any more, or that are too
    /// old, leave the buffer. `re_evaluate` returns the steps that are still pending.
    pub(crate) fn re_evaluate(&mut self, now: Time, mut re_evaluate: impl FnMut(OutOfOrder<'_>) -> PendingSteps) {
        if self.frames.is_empty() || now < self.next_re_evaluation {
            return;
        }
        self.next_re_evaluation = now + INTERVAL;
        let mut index = 0;
        while let Some(buffered) = self.frames.get_mut(index) {
            let is_last = now.since(buffered.arrived) > MAX_AGE;
            buffered.pending = re_evaluate(buffered.view(is_last));
            if is_last || !buffered.pending.is_any() {
                let done = self.frames.remove(index);
                self.spare.push(done);
            } else {
                index += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn out_of_order(arrived: Time, frame: &[u8]) -> OutOfOrder<'_> {
        OutOfOrder { side: Side::Outside, frame, arrived, pending: PendingSteps::ADDITION, is_last: false }
    }

    #[test]
    fn frames_are_re_evaluated_in_order_until_no_step_is_pending_or_they_are_too_old() {
        let mut buffer = ReorderBuffer::new(64);
        for (arrived, frame) in [(100, &b"first"[..]), (101, b"second")] {
            buffer.insert(out_of_order(at(arrived), frame), |_| panic!("the buffer is not full"));
        }
        let mut seen = Vec::new();
        buffer.re_evaluate(at(102), |frame| {
            seen.push((frame.frame.to_vec(), frame.arrived, frame.is_last));
            if frame.frame == b"first" { PendingSteps::default() } else { frame.pending }
        });
        assert_eq!(seen, [(b"first".to_vec(), at(100), false), (b"second".to_vec(), at(101), false)]);
        buffer.re_evaluate(at(102), |_| panic!("less than a millisecond has passed"));
        buffer.re_evaluate(at(601), |frame| frame.pending);
        assert!(!buffer.is_empty());
        buffer.re_evaluate(at(602), |frame| {
            assert!(frame.is_last);
            frame.pending
        });
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_full_buffer_re_evaluates_its_oldest_frame_a_last_time_and_replaces_it() {
        let mut buffer = ReorderBuffer::new(4);
        for number in 0..CAPACITY as u8 {
            buffer.insert(out_of_order(at(1), &[number]), |_| panic!("the buffer is not full"));
        }
        let mut replaced = Vec::new();
        buffer.insert(out_of_order(at(1), b"new"), |oldest| replaced.push((oldest.frame.to_vec(), oldest.is_last)));
        assert_eq!(replaced, [(vec![0], true)]);
        let mut count = 0;
        buffer.re_evaluate(at(1), |_| {
            count += 1;
            PendingSteps::default()
        });
        assert_eq!((count, buffer.spare.len()), (CAPACITY, CAPACITY));
    }
}
