//! Points in time, and durations as RouterOS writes them.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: nanoseconds of a monotonic clock that the caller chooses. Only differences have a meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(u64);

impl Time {
    /// A time after every other time: the expiry of entries that do not expire.
    pub const NEVER: Time = Time(u64::MAX);

    /// The point `ns` nanoseconds after the clock's zero.
    pub const fn from_nanos(ns: u64) -> Self {
        Time(ns)
    }

    /// Nanoseconds since the clock's zero.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates at [`Time::NEVER`].
    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The offset of a clock from UTC, in whole minutes, at most 14 h. Written `+01:00` or `-03:30`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UtcOffset {
    minutes: i16,
}

impl UtcOffset {
    const MOST_MINUTES: i16 = 14 * 60;

    /// The offset in seconds; negative if the clock is behind UTC.
    pub const fn seconds(self) -> i32 {
        self.minutes as i32 * 60
    }
}

impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.minutes < 0 { '-' } else { '+' };
        write!(f, "{sign}{:02}:{:02}", self.minutes.abs() / 60, self.minutes.abs() % 60)
    }
}

impl FromStr for UtcOffset {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (sign, clock) = match text.as_bytes().first()? {
                b'+' => (1, &text[1..]),
                b'-' => (-1, &text[1..]),
                _ => return None,
            };
            let (hours, minutes) =
                clock.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?;
            let minutes = i16::try_from(digits(minutes).filter(|minutes| *minutes < 60)?).ok()?;
            let total = i16::try_from(digits(hours)?).ok()?.checked_mul(60)?.checked_add(minutes)?;
            (total <= UtcOffset::MOST_MINUTES).then_some(UtcOffset { minutes: sign * total })
        };
        read().ok_or("expected an offset from UTC such as `+01:00` or `-03:30`, at most 14 hours")
    }
}

impl Serialize for UtcOffset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UtcOffset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Writes a duration in RouterOS's form of time left: `1w2d3h4m5s`, without parts that are zero, and `0s` for zero.
/// Fractions of a second are rounded up, so that the time left of a present entry is never `0s`.
pub fn format_duration(duration: Duration) -> String {
    let mut seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    if seconds == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, length) in [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= length {
            text.push_str(&format!("{}{unit}", seconds / length));
            seconds %= length;
        }
    }
    text
}

/// `35w3d13h13m56s`, the longest timeout that RouterOS accepts. Source: RouterOS manual, Filter,
/// `address-list-timeout`.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(21_474_836);

/// Whether a duration is a valid timeout: not zero, and at most [`LONGEST_TIMEOUT`].
pub fn is_timeout(time: Duration) -> bool {
    !time.is_zero() && time <= LONGEST_TIMEOUT
}

/// Parses a duration in RouterOS's forms: parts from weeks to seconds, each at most once (`1m30s`), optionally hours,
/// minutes and seconds in the form of a clock (`1d00:10:00`), or a number of seconds. Saturates. `None` for another
/// form.
pub fn parse_duration(value: &str) -> Option<Duration> {
    seconds(value).map(Duration::from_secs)
}

fn seconds(value: &str) -> Option<u64> {
    if let Some(seconds) = digits(value) {
        return Some(seconds);
    }
    let mut rest = value;
    let mut total = 0u64;
    for (unit, length) in [('w', 604_800), ('d', 86_400)] {
        rest = part(rest, unit, length, &mut total)?;
    }
    if rest.contains(':') {
        let mut clock = rest.split(':');
        let (hours, minutes, seconds) = (clock.next()?, clock.next()?, clock.next()?);
        let sixtieth = |text: &str| digits(text).filter(|value| text.len() == 2 && *value < 60);
        let time = digits(hours)?.saturating_mul(3_600).saturating_add(sixtieth(minutes)? * 60 + sixtieth(seconds)?);
        return clock.next().is_none().then(|| total.saturating_add(time));
    }
    for (unit, length) in [('h', 3_600), ('m', 60), ('s', 1)] {
        rest = part(rest, unit, length, &mut total)?;
    }
    (rest.is_empty() && !value.is_empty()).then_some(total)
}

/// Removes a part such as `12w` from the front, if present, and returns the rest. `None` if the unit has no number.
fn part<'a>(text: &'a str, unit: char, length: u64, total: &mut u64) -> Option<&'a str> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    match text[end..].strip_prefix(unit) {
        Some(rest) => {
            *total = total.saturating_add(digits(&text[..end])?.saturating_mul(length));
            Some(rest)
        }
        None => Some(text),
    }
}

/// Times in the configuration: in RouterOS's form, at least one second. For `#[serde(with = …)]`.
pub mod text {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Serializes the time.
    ///
    /// # Errors
    /// The error of the serializer.
    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*time))
    }

    /// Deserializes the time.
    ///
    /// # Errors
    /// The accepted forms.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text)
            .filter(|time| super::is_timeout(*time))
            .ok_or_else(|| D::Error::custom(format!("`{text}` is not a time; write `10s`, `1m30s` or `1h`")))
    }
}

/// Nanoseconds since 1970 in the form of RFC 3339, for documents and log lines.
pub fn rfc_3339(time: Time) -> String {
    // The maximum of a `Timestamp` is in the year 9999.
    let time = Timestamp::from_nanosecond(i128::from(time.as_nanos())).unwrap_or(Timestamp::MAX);
    format!("{time:.9}")
}

/// A number of digits only: no sign, no blanks. Saturates.
pub(crate) fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_rfc_3339() {
        assert_eq!(rfc_3339(Time::from_nanos(1_700_000_000_000_000_007)), "2023-11-14T22:13:20.000000007Z");
        assert_eq!(rfc_3339(Time::from_nanos(0)), "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn durations_read_like_routeros() {
        let cases = [(0, "0s"), (10, "10s"), (60, "1m"), (90, "1m30s"), (3_600, "1h"), (694_861, "1w1d1h1m1s")];
        for (seconds, text) in cases {
            assert_eq!(format_duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(format_duration(Duration::from_millis(9_001)), "10s");
    }

    #[test]
    fn offsets_from_utc_have_a_sign() {
        for (text, seconds) in [("+00:00", 0), ("+01:00", 3_600), ("-03:30", -12_600), ("+14:00", 50_400)] {
            let offset: UtcOffset = text.parse().unwrap();
            assert_eq!((offset.seconds(), offset.to_string()), (seconds, text.to_owned()));
        }
        for text in ["", "01:00", "+1:00", "+1:000", "+01", "+01:60", "+14:01", "++1:00", "+01:00:00", "CET", "ä"] {
            assert!(text.parse::<UtcOffset>().is_err(), "{text}");
        }
    }

    #[test]
    fn never_stays_never() {
        assert_eq!(Time::NEVER + Duration::from_secs(1), Time::NEVER);
        assert_eq!(Time::from_nanos(5).since(Time::from_nanos(9)), Duration::ZERO);
    }
}
