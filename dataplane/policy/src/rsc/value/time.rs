//! Timeouts and times of day.

use std::time::Duration;

use super::super::problem::{Complaint, show};
use super::{Parsed, bad, words};
use crate::rule::{Condition, ListTimeout};
use crate::time::{LONGEST_TIMEOUT, is_timeout, parse_duration};

/// Parses `none-dynamic`, `none-static`, or a duration. RouterOS before 6.36 wrote zero for `none-dynamic`. Source:
/// RouterOS manual, Filter, `address-list-timeout`.
pub(in crate::rsc) fn list_timeout(value: &str) -> Parsed<ListTimeout> {
    match value {
        "none-dynamic" => Ok(ListTimeout::NoneDynamic),
        "none-static" => Ok(ListTimeout::NoneStatic),
        _ => match parse_duration(value) {
            Some(Duration::ZERO) => Ok(ListTimeout::NoneDynamic),
            Some(timeout) if timeout > LONGEST_TIMEOUT => {
                Err(Complaint::new(format!("`{}` is longer than a timeout can be", show(value.as_bytes())))
                    .expected("1s to 35w3d13h13m56s")
                    .help("write `none-dynamic` for an entry until the restart, `none-static` for one without end"))
            }
            Some(timeout) => Ok(ListTimeout::After(timeout)),
            None => Err(bad(value, "a timeout").expected(
                "`10s`, `1m30s`, `4w2d`, `00:00:10`, `1d00:00:00`, seconds, `none-dynamic` or `none-static`",
            )),
        },
    }
}

/// Parses a duration that is neither zero nor longer than the longest timeout.
pub(super) fn duration(value: &str) -> Option<Duration> {
    parse_duration(value).filter(|duration| is_timeout(*duration))
}

/// Parses `8h-17h,mon,tue`: times of day and the days on which they begin. The days are required, because RouterOS does
/// not document a value without days.
pub(in crate::rsc) fn time_of_week(value: &str) -> Parsed<Condition> {
    const DAY: Duration = Duration::from_secs(86_400);
    let (times, days) = value.split_once(',').unwrap_or((value, ""));
    let (from, to) = times
        .split_once('-')
        .and_then(|(from, to)| parse_duration(from).zip(parse_duration(to)))
        .filter(|(from, to)| *from < DAY && *to <= DAY)
        .ok_or_else(|| {
            bad(times, "a time of day to another")
                .expected("`8h-17h`, `8h30m-17h` or `00:00:00-23:59:59`, then days")
                .at(0..times.len())
        })?;
    if from == to {
        let complaint = Complaint::new("it ends when it begins").expected("two times of day that differ");
        return Err(complaint.help("write `0s-1d` for the whole day").at(0..times.len()));
    }
    if days.is_empty() {
        let complaint = Complaint::new("no day is named").expected("days after the times, such as `,mon,tue`");
        return Err(complaint.help("write `,sun,mon,tue,wed,thu,fri,sat` for every day"));
    }
    let behind = value.len() - days.len();
    let days = words(days, "a day of the week").map_err(|complaint| complaint.moved(behind))?;
    Ok(Condition::Time { from, to, days })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Weekday;
    use crate::word::Set;

    #[test]
    fn timeouts_in_every_form() {
        let cases = [
            ("10s", 10),
            ("1m30s", 90),
            ("4w2d", 2_592_000),
            ("00:00:10", 10),
            ("1d00:00:00", 86_400),
            ("1w1d01:01:01", 694_861),
            ("90", 90),
            ("90m", 5_400),
            ("35w3d13h13m56s", LONGEST_TIMEOUT.as_secs()),
        ];
        for (text, seconds) in cases {
            assert_eq!(list_timeout(text), Ok(ListTimeout::After(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["none-dynamic", "0s", "00:00:00", "0"] {
            assert_eq!(list_timeout(text), Ok(ListTimeout::NoneDynamic), "{text}");
        }
        assert_eq!(list_timeout("none-static"), Ok(ListTimeout::NoneStatic));
        let refused = [
            "",
            "s",
            "35w3d13h13m57s",
            "1s1m",
            "1m1m",
            "1:30",
            "00:60:00",
            "1.5s",
            "100ms",
            "-1s",
            "+1s",
            " 1s",
            "1d 1h",
            "10S",
            "none",
            "99999999999999999999w",
        ];
        for text in refused {
            assert!(list_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_of_day_in_every_form() {
        let weekend = Set::from_iter([Weekday::Sunday, Weekday::Saturday]);
        for (text, from, to) in [
            ("8h-17h,sat,sun", 28_800, 61_200),
            ("8h30m-17h15m,sun,sat", 30_600, 62_100),
            ("00:00:00-23:59:59,sat,sun", 0, 86_399),
            ("0s-1d,sat,sun", 0, 86_400),
            ("00:00:00-1d00:00:00,sat,sun", 0, 86_400),
            ("22h-6h,sat,sun", 79_200, 21_600),
        ] {
            let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
            assert_eq!(time_of_week(text), Ok(Condition::Time { from, to, days: weekend }), "{text}");
        }
        for (text, part) in [
            ("", 0..0),
            ("8h,sun", 0..2),
            ("8h-25h,sun", 0..6),
            ("1d-2h,sun", 0..5),
            ("8h-8h,sun", 0..5),
            ("sun,8h-17h", 0..3),
            ("8h-17h,sunday", 7..13),
            ("8h-17h,sun,", 11..11),
        ] {
            assert_eq!(time_of_week(text).unwrap_err().part, Some(part), "{text}");
        }
        assert!(time_of_week("8h-17h").is_err());
    }
}
