//! Limit on a source's first steps: `5/1m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::time::{digits, format_duration, is_timeout, parse_duration};

/// A number of first steps in a time. The time begins with the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// The number, 1 to 255.
    pub count: u8,
    /// The time.
    pub per: Duration,
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, format_duration(self.per))
    }
}

impl FromStr for Attempts {
    type Err = String;

    fn from_str(text: &str) -> Result<Attempts, String> {
        let read = || {
            let (count, per) = text.split_once('/')?;
            let count = u8::try_from(digits(count)?).ok().filter(|count| *count > 0)?;
            let per = parse_duration(per).filter(|per| is_timeout(*per))?;
            Some(Attempts { count, per })
        };
        read().ok_or_else(|| {
            format!("`{text}` is not a number of attempts in a time; write 1 to 255 attempts in a time, such as `5/1m`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_read_as_they_are_written() {
        for text in ["5/1m", "1/1s", "255/1h30m"] {
            assert_eq!(text.parse::<Attempts>().unwrap().to_string(), text);
        }
        for text in ["", "5", "0/1m", "256/1m", "5/0s", "5/", "/1m", "-1/1m", "5/soon"] {
            assert!(text.parse::<Attempts>().is_err(), "{text}");
        }
    }
}
