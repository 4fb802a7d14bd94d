//! The matcher `time`: the wall clock.

use std::time::Duration;

use super::rule_evaluation::RuleEvaluation;
use crate::rule::Weekday;
use crate::word::{Set, Word};

const DAY: i128 = 86_400;

impl RuleEvaluation<'_, '_> {
    /// Whole seconds since 1970 on the clock of the configured time zone, now.
    pub(super) fn wall_clock(&self) -> i128 {
        let (at, since_1970) = self.evaluator.wall;
        let passed = i128::from(self.now.as_nanos()) - i128::from(at.as_nanos());
        let utc = (since_1970.as_nanos() as i128 + passed).div_euclid(1_000_000_000);
        utc + i128::from(self.evaluator.settings.time_zone.seconds())
    }
}

/// Whether the time is on one of the days and between the two times of day, both included. If the end is before the
/// start, it is on the next day, and the day is the one of the start. No day means every day.
pub fn holds(clock: i128, from: Duration, to: Duration, days: Set<Weekday>) -> bool {
    let time = Duration::from_secs(clock.rem_euclid(DAY) as u64);
    let on = |day: i128| days.is_empty() || days.contains(weekday(day));
    let today = clock.div_euclid(DAY);
    if from <= to {
        on(today) && (from..=to).contains(&time)
    } else {
        on(today) && from <= time || on(today - 1) && time <= to
    }
}

/// The time in explanations: "sat 08:30:00".
pub(super) fn told(clock: i128) -> String {
    let (day, time) = (weekday(clock.div_euclid(DAY)).name(), clock.rem_euclid(DAY));
    format!("{day} {:02}:{:02}:{:02}", time / 3_600, time / 60 % 60, time % 60)
}

/// The weekday of a day since 1970-01-01, which was a Thursday.
fn weekday(day: i128) -> Weekday {
    Weekday::ALL[(day + 4).rem_euclid(7) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Saturday 2026-10-10 00:00.
    const SATURDAY: i128 = 20_736 * DAY;

    fn at(clock: i128, from: u64, to: u64, days: &[Weekday]) -> bool {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        holds(clock, hours(from), hours(to), days.iter().copied().collect())
    }

    #[test]
    fn within_a_day_both_ends_count() {
        let hour = |hour: i128| SATURDAY + hour * 3_600;
        let days = [Weekday::Saturday];
        for (clock, expected) in
            [(hour(8) - 1, false), (hour(8), true), (hour(17), true), (hour(17) + 1, false), (hour(8) - DAY, false)]
        {
            assert_eq!(at(clock, 8, 17, &days), expected, "{clock}");
        }
        assert!(at(hour(12) + DAY, 8, 17, &[]) && at(hour(23), 0, 24, &days));
    }

    #[test]
    fn a_range_over_midnight_belongs_to_the_day_of_its_start() {
        let days = [Weekday::Saturday];
        for (clock, expected) in [
            (SATURDAY + 5 * 3_600, false),
            (SATURDAY + 21 * 3_600, false),
            (SATURDAY + 22 * 3_600, true),
            (SATURDAY + DAY, true),
            (SATURDAY + DAY + 6 * 3_600, true),
            (SATURDAY + DAY + 6 * 3_600 + 1, false),
            (SATURDAY + DAY + 22 * 3_600, false),
        ] {
            assert_eq!(at(clock, 22, 6, &days), expected, "{}", clock - SATURDAY);
        }
    }

    #[test]
    fn an_explanation_names_the_day() {
        assert_eq!(told(SATURDAY + 8 * 3_600 + 1_805), "sat 08:30:05");
    }

    #[test]
    fn days_before_1970_have_names_too() {
        assert_eq!(
            (weekday(0), weekday(-1), weekday(20_736)),
            (Weekday::Thursday, Weekday::Wednesday, Weekday::Saturday)
        );
    }
}
