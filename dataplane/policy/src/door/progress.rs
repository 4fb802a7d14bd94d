//! The effect of a packet on a knock. The reference evaluator and the engine use the same pure function: they may store
//! progress differently, but compute the same result.
//!
//! | knock      | packet                                         | then |
//! |------------|------------------------------------------------|------|
//! | not begun  | the first step                                 | begins, towards the packet's destination |
//! |            | anything else                                  | nothing |
//! | begun      | the next step                                  | one step further; opens after the last one |
//! |            | the last or the last but one step again        | nothing: the packet was retransmitted or reordered |
//! |            | anything else, strict                          | restarts: begins, if it is the first step |
//! |            | anything else, not strict                      | nothing |
//! | begun, towards another destination | the first step, not strict | begins again, towards this one |
//! |            | anything, strict                               | restarts, as above |
//!
//! A packet may match several steps at once; then the next step of the knock in progress counts.
//! [Exempt](super::exempt) packets are not passed to this function.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::step::KnockStep;
use crate::packet::Packet;
use crate::time::Time;

/// The parameters of a knock that decide its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of steps, at least one.
    pub steps: u8,
    /// Whether a packet that matches no step restarts the knock.
    pub strict: bool,
    /// Longest time between two steps.
    pub within: Duration,
    /// Longest time between the first step and the last.
    pub total: Duration,
}

/// A knock in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Steps taken, at least one.
    pub steps: u8,
    /// Tag of the destination: the bits of an IPv4 address, a keyed hash of an IPv6 address.
    pub to: u32,
    /// The arrival time of the first step.
    pub begun: Time,
    /// The time at which the progress expires, unless the next step arrives before.
    pub deadline: Time,
}

/// The steps of a knock that a packet matches, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepSet(pub u16);

impl StepSet {
    /// The steps that the packet matches.
    pub fn of(steps: &[KnockStep], packet: &Packet<'_>) -> StepSet {
        let is = |(place, step): (usize, &KnockStep)| if step.is(packet) { 1 << place } else { 0 };
        StepSet(steps.iter().take(super::MOST_STEPS).enumerate().map(is).sum())
    }

    /// Whether the set contains the step, counted from 0.
    pub const fn contains(self, step: u8) -> bool {
        step < 16 && self.0 & 1 << step != 0
    }
}

/// Tag of a destination: the bits of an IPv4 address, 32 bits of SipHash-1-3 of an IPv6 address. Without the secret,
/// two addresses with the same tag cannot be constructed.
pub fn tag(secret: [u64; 2], destination: IpAddr) -> u32 {
    match destination {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let mut hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
            hasher.write(&address.octets());
            hasher.finish() as u32
        }
    }
}

/// The effect of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No effect.
    Nothing,
    /// No effect: the step was taken before.
    Repeated,
    /// The knock begins or progresses.
    Stepped(Progress),
    /// The packet was the last step. No knock is in progress any more.
    Opened,
    /// The knock in progress is removed; the packet may begin a new one.
    StartedOver(Option<Progress>),
}

impl Outcome {
    /// Whether the packet counts as a first step.
    pub const fn begins(self, shape: Shape) -> bool {
        match self {
            Outcome::Stepped(progress) | Outcome::StartedOver(Some(progress)) => progress.steps == 1,
            Outcome::Opened => shape.steps == 1,
            Outcome::Nothing | Outcome::Repeated | Outcome::StartedOver(None) => false,
        }
    }

    /// The outcome of a packet that would [begin](Outcome::begins) a knock, if the source may not begin one.
    #[must_use]
    pub const fn without_beginning(self) -> Outcome {
        match self {
            Outcome::StartedOver(_) => Outcome::StartedOver(None),
            _ => Outcome::Nothing,
        }
    }
}

/// The effect of a packet to `to` that matches these steps. Expired progress counts as none, and so does progress of a
/// longer knock than this one.
pub fn next(shape: Shape, progress: Option<Progress>, fits: StepSet, to: u32, now: Time) -> Outcome {
    let step = |steps: u8, begun: Time| match steps == shape.steps {
        true => Outcome::Opened,
        false => {
            let deadline = (now + shape.within).min(begun + shape.total);
            Outcome::Stepped(Progress { steps, to, begun, deadline })
        }
    };
    let anew = || if fits.contains(0) { step(1, now) } else { Outcome::Nothing };
    let over = || match anew() {
        Outcome::Stepped(progress) => Outcome::StartedOver(Some(progress)),
        _ => Outcome::StartedOver(None),
    };
    let Some(at) = progress.filter(|at| now < at.deadline && at.steps < shape.steps) else { return anew() };
    match (at.to == to, shape.strict) {
        (true, _) if fits.contains(at.steps) => step(at.steps + 1, at.begun),
        (true, _) if (1..=2).any(|back| at.steps >= back && fits.contains(at.steps - back)) => Outcome::Repeated,
        (_, true) => over(),
        (true, false) => Outcome::Nothing,
        (false, false) => anew(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: u32 = 1;
    const THERE: u32 = 2;

    fn seconds(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    fn shape(steps: u8, strict: bool) -> Shape {
        Shape { steps, strict, within: Duration::from_secs(10), total: Duration::from_secs(15) }
    }

    fn at(steps: u8) -> Option<Progress> {
        Some(Progress { steps, to: HERE, begun: seconds(0), deadline: seconds(10) })
    }

    /// The outcome of a packet at second 1 that matches this step, counted from 0, of a knock of three or four steps.
    fn one(shape: Shape, progress: Option<Progress>, step: u8, to: u32) -> Outcome {
        next(shape, progress, StepSet(1 << step), to, seconds(1))
    }

    #[test]
    fn steps_lead_to_the_end_one_after_the_other() {
        let shape = shape(3, true);
        let Outcome::Stepped(first) = one(shape, None, 0, HERE) else { panic!("it begins") };
        assert_eq!(first, Progress { steps: 1, to: HERE, begun: seconds(1), deadline: seconds(11) });
        let Outcome::Stepped(second) = next(shape, Some(first), StepSet(2), HERE, seconds(9)) else {
            panic!("goes on")
        };
        // The whole knock has 15 seconds.
        assert_eq!(second, Progress { steps: 2, to: HERE, begun: seconds(1), deadline: seconds(16) });
        assert_eq!(next(shape, Some(second), StepSet(4), HERE, seconds(15)), Outcome::Opened);
        assert_eq!(next(shape, Some(second), StepSet(4), HERE, seconds(16)), Outcome::Nothing);
    }

    #[test]
    fn one_step_opens_at_once() {
        assert_eq!(one(shape(1, true), None, 0, HERE), Outcome::Opened);
        assert!(Outcome::Opened.begins(shape(1, true)) && !Outcome::Opened.begins(shape(2, true)));
    }

    #[test]
    fn nothing_but_the_first_step_begins() {
        for strict in [true, false] {
            assert_eq!(one(shape(3, strict), None, 1, HERE), Outcome::Nothing);
            assert_eq!(next(shape(3, strict), None, StepSet(0), HERE, seconds(1)), Outcome::Nothing);
        }
    }

    #[test]
    fn the_last_two_steps_may_be_repeated() {
        for strict in [true, false] {
            let shape = shape(4, strict);
            assert_eq!(one(shape, at(1), 0, HERE), Outcome::Repeated);
            assert_eq!(
                (one(shape, at(3), 2, HERE), one(shape, at(3), 1, HERE)),
                (Outcome::Repeated, Outcome::Repeated)
            );
            assert_ne!(one(shape, at(3), 0, HERE), Outcome::Repeated);
        }
    }

    #[test]
    fn progress_takes_precedence_over_repetition() {
        // The same packet twice.
        let Outcome::Stepped(progress) = next(shape(3, true), at(1), StepSet(3), HERE, seconds(1)) else {
            panic!("it continues")
        };
        assert_eq!(progress.steps, 2);
    }

    #[test]
    fn a_strict_knock_starts_over_at_any_other_packet() {
        let shape = shape(4, true);
        assert_eq!(one(shape, at(1), 2, HERE), Outcome::StartedOver(None));
        assert_eq!(next(shape, at(1), StepSet(0), HERE, seconds(1)), Outcome::StartedOver(None));
        assert_eq!(next(shape, at(1), StepSet(0), THERE, seconds(1)), Outcome::StartedOver(None));
        // The next step, but to another address.
        assert_eq!(one(shape, at(1), 1, THERE), Outcome::StartedOver(None));
        let anew = |to| Some(Progress { steps: 1, to, begun: seconds(1), deadline: seconds(11) });
        assert_eq!(one(shape, at(3), 0, HERE), Outcome::StartedOver(anew(HERE)));
        assert_eq!(one(shape, at(1), 0, THERE), Outcome::StartedOver(anew(THERE)));
        assert_eq!(one(shape, at(1), 0, THERE).without_beginning(), Outcome::StartedOver(None));
    }

    #[test]
    fn other_packets_do_not_affect_a_knock_that_is_not_strict() {
        let shape = shape(4, false);
        assert_eq!((one(shape, at(2), 3, HERE), one(shape, at(3), 0, HERE)), (Outcome::Nothing, Outcome::Nothing));
        assert_eq!((one(shape, at(1), 1, THERE), one(shape, at(1), 2, THERE)), (Outcome::Nothing, Outcome::Nothing));
        let Outcome::Stepped(anew) = one(shape, at(3), 0, THERE) else { panic!("it begins there") };
        assert_eq!((anew.steps, anew.to), (1, THERE));
        assert_eq!(Outcome::Stepped(anew).without_beginning(), Outcome::Nothing);
    }

    #[test]
    fn late_progress_and_progress_of_a_longer_knock_count_as_none() {
        assert_eq!(next(shape(3, true), at(1), StepSet(2), HERE, seconds(10)), Outcome::Nothing);
        assert!(matches!(next(shape(3, true), at(2), StepSet(1), HERE, seconds(10)), Outcome::Stepped(_)));
        assert_eq!(one(shape(3, true), at(3), 2, HERE), Outcome::Nothing);
    }
}
