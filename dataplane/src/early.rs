//! Knocks that were decided too early.
//!
//! With several queues, hits of one source reach several workers at once, and the worker of a later hit may be the
//! faster one: then the step before it is not known yet, and the later hit opens nothing. Such frames are kept for a
//! moment and looked at again. Since every frame carries the time of its arrival, a step that really came too early
//! stays too early.
//!
//! Bounded: when there is no room, or a frame is too old, things are as if it had not been kept. Nothing is allocated.

use std::time::Duration;

use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;

/// Frames kept at once. Knocks are few; a flood of second knocks finds no room, and takes no time.
const ROOM: usize = 32;

/// How long a frame is kept: longer than a worker can be behind another one, also where others use its core.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often kept frames are looked at again.
const EVERY: Duration = Duration::from_millis(1);

/// See the module.
pub(crate) struct Early {
    /// In the order of arrival.
    kept: Vec<Kept>,
    spare: Vec<Kept>,
    next_look: Time,
}

struct Kept {
    side: Side,
    arrived: Time,
    frame: Vec<u8>,
}

impl Early {
    /// Room for frames of at most this many bytes.
    pub(crate) fn new(max_frame: usize) -> Self {
        let place = || Kept { side: Side::Outside, arrived: Time::default(), frame: Vec::with_capacity(max_frame) };
        Early {
            kept: Vec::with_capacity(ROOM),
            spare: std::iter::repeat_with(place).take(ROOM).collect(),
            next_look: Time::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Keeps a frame, if there is room. Whether there is.
    #[must_use]
    pub(crate) fn keep(&mut self, side: Side, arrived: Time, frame: &[u8]) -> bool {
        let Some(mut place) = self.spare.pop_if(|place| frame.len() <= place.frame.capacity()) else { return false };
        place.side = side;
        place.arrived = arrived;
        place.frame.clear();
        place.frame.extend_from_slice(frame);
        self.kept.push(place);
        true
    }

    /// Looks at the kept frames again, if it is time, and lets go of those that took their step or are too old: such a
    /// look is the last.
    pub(crate) fn look(&mut self, now: Time, mut took_step: impl FnMut(Side, &[u8], Time, bool) -> bool) {
        if self.kept.is_empty() || now < self.next_look {
            return;
        }
        self.next_look = now + EVERY;
        let mut index = 0;
        while let Some(kept) = self.kept.get(index) {
            let is_last = now.since(kept.arrived) > PATIENCE;
            if took_step(kept.side, &kept.frame, kept.arrived, is_last) || is_last {
                let done = self.kept.remove(index);
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

    #[test]
    fn frames_are_looked_at_in_order_until_they_took_their_step_or_are_too_old() {
        let mut early = Early::new(64);
        assert!(early.keep(Side::Outside, at(100), b"first") && early.keep(Side::Inside, at(101), b"second"));
        let mut seen = Vec::new();
        early.look(at(102), |_, frame, arrived, is_last| {
            seen.push((frame.to_vec(), arrived, is_last));
            frame == b"first"
        });
        assert_eq!(seen, [(b"first".to_vec(), at(100), false), (b"second".to_vec(), at(101), false)]);
        early.look(at(102), |_, _, _, _| panic!("a millisecond has not passed"));
        early.look(at(601), |_, frame, _, _| frame != b"second");
        assert!(!early.is_empty());
        early.look(at(602), |_, _, _, is_last| {
            assert!(is_last);
            false
        });
        assert!(early.is_empty());
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let mut early = Early::new(4);
        assert!(!early.keep(Side::Outside, at(1), b"too long") && early.is_empty());
        let kept = (0..2 * ROOM).filter(|_| early.keep(Side::Outside, at(1), b"here")).count();
        assert_eq!(kept, ROOM);
        let mut count = 0;
        early.look(at(1), |_, _, _, _| {
            count += 1;
            true
        });
        assert_eq!((count, early.spare.len()), (ROOM, ROOM));
    }
}
