//! Knocks that were decided too early.
//!
//! With several queues, hits of one source reach several workers at once, and the worker of a later hit may be the
//! faster one: then the step before it is not known yet, and the later hit opens nothing. Such frames are kept for a
//! moment and looked at again. Since every frame carries the time of its arrival, a step that really came too early
//! stays too early.
//!
//! Bounded: when there is no room the oldest frame gives way, and a frame that is too old is let go, each with a last look.
//! Nothing is allocated.

use std::time::Duration;

use knockplane_engine::pipeline::Waiting;
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

/// A frame that waits.
pub(crate) struct Kept {
    pub(crate) side: Side,
    pub(crate) arrived: Time,
    pub(crate) waiting: Waiting,
    pub(crate) frame: Vec<u8>,
}

impl Early {
    /// Room for frames of at most this many bytes.
    pub(crate) fn new(max_frame: usize) -> Self {
        let place = || Kept {
            side: Side::Outside,
            arrived: Time::default(),
            waiting: Waiting::default(),
            frame: Vec::with_capacity(max_frame),
        };
        Early {
            kept: Vec::with_capacity(ROOM),
            spare: std::iter::repeat_with(place).take(ROOM).collect(),
            next_look: Time::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Keeps a frame. If there is no room, the oldest one gives way: it is handed over for its last look.
    pub(crate) fn keep(
        &mut self,
        (side, arrived, waiting): (Side, Time, Waiting),
        frame: &[u8],
        last_look: impl FnOnce(&Kept),
    ) {
        let mut place = match self.spare.pop() {
            Some(place) => place,
            None => {
                let oldest = self.kept.remove(0);
                last_look(&oldest);
                oldest
            }
        };
        (place.side, place.arrived, place.waiting) = (side, arrived, waiting);
        place.frame.clear();
        // No frame is longer than the places: the rings take none. Were there one, it would be cut, and be no packet.
        place.frame.extend(frame.iter().take(place.frame.capacity()));
        self.kept.push(place);
    }

    /// Looks at the kept frames again, if it is time, and lets go of those that wait for nothing more or are too old: such
    /// a look is the last. `look` says what a frame waits for still.
    pub(crate) fn look(&mut self, now: Time, mut look: impl FnMut(&Kept, bool) -> Waiting) {
        if self.kept.is_empty() || now < self.next_look {
            return;
        }
        self.next_look = now + EVERY;
        let mut index = 0;
        while let Some(kept) = self.kept.get_mut(index) {
            let is_last = now.since(kept.arrived) > PATIENCE;
            kept.waiting = look(kept, is_last);
            if is_last || !kept.waiting.is_any() {
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

    fn keep(early: &mut Early, arrived: Time, frame: &[u8]) {
        early.keep((Side::Outside, arrived, Waiting::ADDITION), frame, |_| panic!("there is room"));
    }

    #[test]
    fn frames_are_looked_at_in_order_until_they_took_their_step_or_are_too_old() {
        let mut early = Early::new(64);
        keep(&mut early, at(100), b"first");
        keep(&mut early, at(101), b"second");
        let mut seen = Vec::new();
        early.look(at(102), |kept, is_last| {
            seen.push((kept.frame.clone(), kept.arrived, is_last));
            if kept.frame == b"first" { Waiting::default() } else { kept.waiting }
        });
        assert_eq!(seen, [(b"first".to_vec(), at(100), false), (b"second".to_vec(), at(101), false)]);
        early.look(at(102), |_, _| panic!("a millisecond has not passed"));
        early.look(at(601), |kept, _| kept.waiting);
        assert!(!early.is_empty());
        early.look(at(602), |kept, is_last| {
            assert!(is_last);
            kept.waiting
        });
        assert!(early.is_empty());
    }

    #[test]
    fn without_room_the_oldest_gives_way_with_a_last_look() {
        let mut early = Early::new(4);
        for number in 0..ROOM as u8 {
            keep(&mut early, at(1), &[number]);
        }
        let mut gone = Vec::new();
        early.keep((Side::Outside, at(1), Waiting::ADDITION), b"new", |oldest| gone.push(oldest.frame.clone()));
        assert_eq!(gone, [[0]]);
        let mut count = 0;
        early.look(at(1), |_, _| {
            count += 1;
            Waiting::default()
        });
        assert_eq!((count, early.spare.len()), (ROOM, ROOM));
    }
}
