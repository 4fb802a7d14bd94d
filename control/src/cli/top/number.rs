//! Short numbers: a total or a rate in at most six columns.

use crate::json::top::MeterJson;

/// The units, each a thousand times the one before.
const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];

/// The number with three significant digits from a hundred thousand on: `99999`, `123k`, `4.57M`.
pub(super) fn short(number: f64) -> String {
    let (mut scaled, mut unit) = (number, 0);
    if number.abs() < 99_999.5 {
        let tenths = (number * 10.0).round() / 10.0;
        return match tenths.fract() == 0.0 || tenths.abs() >= 100.0 {
            true => format!("{:.0}", number.round() + 0.0),
            false => format!("{tenths:.1}"),
        };
    }
    while scaled.abs() >= 999.5 && unit + 1 < UNITS.len() {
        (scaled, unit) = (scaled / 1_000.0, unit + 1);
    }
    let digits = if scaled.abs() >= 99.95 {
        0
    } else if scaled.abs() >= 9.995 {
        1
    } else {
        2
    };
    format!("{scaled:.digits$}{}", UNITS[unit])
}

/// A total.
pub(super) fn total(number: u64) -> String {
    short(number as f64)
}

/// A rate. A dash if it is not known.
pub(super) fn rate(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), short)
}

/// The rate of a counter. `reset` if the counter decreased.
pub(super) fn meter(meter: MeterJson) -> String {
    if meter.reset { "reset".to_owned() } else { rate(meter.per_second) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_at_most_six_columns_and_the_right_size() {
        for (number, text) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.25, "0.3"),
            (-0.01, "0"),
            (-1.5, "-1.5"),
            (9.96, "10"),
            (12.34, "12.3"),
            (123.4, "123"),
            (99_999.0, "99999"),
            (99_999.6, "100k"),
            (123_456.0, "123k"),
            (999_499.0, "999k"),
            (999_999.0, "1.00M"),
            (4_567_890.0, "4.57M"),
            (45_678_900.0, "45.7M"),
            (1.5e9, "1.50G"),
            (u64::MAX as f64, "18447P"),
        ] {
            assert_eq!(short(number), text, "{number}");
        }
    }

    #[test]
    fn a_reset_is_named() {
        let reset = MeterJson { total: 1, per_second: None, reset: true };
        assert_eq!([reset, MeterJson::default()].map(meter), ["reset", "-"]);
    }
}
