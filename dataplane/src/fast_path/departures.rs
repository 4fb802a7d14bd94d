//! Whether carried frames may leave on a side: the link is up, and the interface can take redirected frames and has not
//! refused any of late.
//!
//! An interface refuses frames while its driver resets, for example, or because nobody receives at the far end of a
//! veth pair. Workers then send the flows on this side. The kernel may try again after a time that doubles with each
//! refusal. Each attempt loses at most the frames of one batch, and these are counted.

use std::time::Duration;

use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;

/// The time from the first refusal to the next attempt.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest time between attempts. If an attempt succeeds for this time, the next refusal counts as the first.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// The causes that no carried frames may leave on a side. They may while there are none.
#[derive(Debug, Default)]
pub(super) struct Departures {
    pub(super) link_is_down: bool,
    /// The reason that the interface cannot take redirected frames.
    pub(super) unable: Option<String>,
    /// Frames that the interface has refused, as of the last look.
    refused: u64,
    refusal: Option<Refusal>,
    /// Whether frames may leave, as last told to the kernel.
    may_leave: bool,
}

/// The last refusal of a frame.
#[derive(Debug)]
struct Refusal {
    at: Time,
    /// The time from it to the next attempt.
    pause: Duration,
    /// Whether the next attempt has begun.
    is_over: bool,
}

impl Departures {
    /// The causes for an interface that cannot take frames for this reason.
    pub(super) fn unable(reason: &str) -> Departures {
        Departures { unable: Some(reason.to_owned()), ..Departures::default() }
    }

    /// The reason that no frames may leave, if there is one.
    pub(super) fn reason(&self, side: Side) -> Option<String> {
        if self.link_is_down {
            return Some(format!("the link on the {side} is down"));
        }
        let pauses = self.refusal.as_ref().is_some_and(|refusal| !refusal.is_over);
        let refusal = || format!("the kernel could not hand over frames that leave on the {side}");
        self.unable.clone().or_else(|| pauses.then(refusal))
    }

    /// Notes the number of frames that the interface has refused.
    pub(super) fn note_refused(&mut self, refused: u64, now: Time) {
        if std::mem::replace(&mut self.refused, refused) == refused {
            return;
        }
        let pause = match &self.refusal {
            // Of the same attempt: the kernel hands over frames in batches.
            Some(last) if !last.is_over => last.pause,
            Some(last) if now.since(last.at) < last.pause + LONGEST_PAUSE => (last.pause * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        self.refusal = Some(Refusal { at: now, pause, is_over: false });
    }

    /// Ends a pause that is over. Returns whether frames may leave, if the kernel has to be told: it forbids them itself at
    /// a refusal.
    pub(super) fn change(&mut self, side: Side, now: Time) -> Option<bool> {
        if self.link_is_down || self.unable.is_some() {
            // The refusal is explained: the kernel may try again when this cause ends.
            self.refusal = None;
        }
        if let Some(refusal) = &mut self.refusal {
            refusal.is_over |= now.since(refusal.at) >= refusal.pause;
        }
        let may_leave = self.reason(side).is_none();
        (std::mem::replace(&mut self.may_leave, may_leave) != may_leave).then_some(may_leave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: Side = Side::Inside;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    /// An interface that frames may leave, one second after the start.
    fn open() -> Departures {
        let mut departures = Departures::unable("not checked yet");
        assert_eq!(departures.change(SIDE, at(0)), None, "the kernel forbids frames from the start");
        departures.unable = None;
        assert_eq!(departures.change(SIDE, at(1)), Some(true));
        departures
    }

    /// Refuses a further frame. Returns the seconds until frames may leave again.
    fn refuse(departures: &mut Departures, seconds: u64) -> u64 {
        departures.note_refused(departures.refused + 1, at(seconds));
        assert_eq!(departures.change(SIDE, at(seconds)), Some(false));
        assert!(departures.reason(SIDE).expect("a reason").contains("could not hand over"));
        (1..=3_600).find(|pause| departures.change(SIDE, at(seconds + pause)) == Some(true)).expect("an attempt")
    }

    #[test]
    fn a_refusal_that_no_check_explains_ends_after_a_second() {
        let mut departures = open();
        assert_eq!(refuse(&mut departures, 10), 1);
        assert_eq!(departures.reason(SIDE), None);
        assert_eq!(departures.change(SIDE, at(12)), None, "the attempt succeeds");
    }

    #[test]
    fn refused_attempts_become_rarer_up_to_one_an_hour() {
        let mut departures = open();
        let mut now = 10;
        let pauses = [(); 15].map(|()| {
            let pause = refuse(&mut departures, now);
            now += pause;
            pause
        });
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 3_600, 3_600, 3_600]);
        assert_eq!(refuse(&mut departures, now + 3_600), 1, "an hour without a refusal ends the series");
    }

    #[test]
    fn frames_of_one_attempt_are_one_refusal() {
        let mut departures = open();
        departures.note_refused(16, at(10));
        assert_eq!(departures.change(SIDE, at(10)), Some(false));
        departures.note_refused(32, at(10));
        assert_eq!(departures.change(SIDE, at(11)), Some(true));
    }

    #[test]
    fn other_causes_hold_while_they_last() {
        let mut departures = open();
        departures.unable = Some("GRO is off".to_owned());
        assert_eq!(departures.change(SIDE, at(10)), Some(false));
        departures.link_is_down = true;
        assert_eq!(departures.change(SIDE, at(10_000)), None);
        assert!(departures.reason(SIDE).expect("a reason").contains("is down"));
        departures.link_is_down = false;
        assert_eq!(departures.reason(SIDE).as_deref(), Some("GRO is off"));
        departures.unable = None;
        assert_eq!(departures.change(SIDE, at(10_000)), Some(true));
    }

    #[test]
    fn a_refusal_is_forgotten_when_its_cause_ends() {
        let mut departures = open();
        departures.note_refused(16, at(10));
        departures.unable = Some("GRO is off".to_owned());
        assert_eq!(departures.change(SIDE, at(10)), Some(false));
        departures.unable = None;
        assert_eq!(departures.change(SIDE, at(10)), Some(true));
    }
}
