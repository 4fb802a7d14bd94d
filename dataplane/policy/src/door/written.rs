//! A door in its written form in the configuration, and its validation. The JSON form is the same.
//!
//! Only the first error is reported. It contains the door, the key and the remedy.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Door, MOST_STEPS};
use crate::time::{LONGEST_TIMEOUT, format_duration, parse_duration};

/// A door as configured. Its values have the right types; [`placed`] validates them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Written {
    name: String,
    knock: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    close: Vec<String>,
    #[serde(default = "within")]
    within: String,
    #[serde(default = "total")]
    total: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    opens: Vec<String>,
    #[serde(default = "open_for", rename = "for")]
    open_for: String,
    #[serde(default = "yes")]
    strict: bool,
    #[serde(default = "hold_off")]
    hold_off: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sources: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_attempts: Option<String>,
    #[serde(default = "yes")]
    log: bool,
    #[serde(default)]
    cut: bool,
}

fn within() -> String {
    "10s".to_owned()
}

fn total() -> String {
    "30s".to_owned()
}

fn open_for() -> String {
    "1h".to_owned()
}

fn hold_off() -> String {
    "0s".to_owned()
}

const fn yes() -> bool {
    true
}

impl TryFrom<Written> for Door {
    type Error = String;

    fn try_from(written: Written) -> Result<Door, String> {
        let name = written.name;
        let at = |key: &str, error: String| format!("door `{name}`: `{key}`: {error}");
        check_name(&name).map_err(|error| at("name", error))?;
        let time = |key, text: &str, least| time(text, least).map_err(|error| at(key, error));
        let all = |key: &'static str, least, texts: &[String]| {
            let count = texts.len();
            if !(least..=MOST_STEPS).contains(&count) {
                let error = format!("there are {count} steps; write {} to {MOST_STEPS} steps", least.max(1));
                return Err(at(key, error));
            }
            let step = |(place, text): (usize, &String)| {
                text.parse().map_err(|error| at(key, format!("step {}: {error}", place + 1)))
            };
            texts.iter().enumerate().map(step).collect()
        };
        let second = Duration::from_secs(1);
        let hold_off = time("hold-off", &written.hold_off, Duration::ZERO)?;
        let (knock, close): (Vec<_>, Vec<_>) = (all("knock", 1, &written.knock)?, all("close", 0, &written.close)?);
        if knock == close && hold_off.is_zero() {
            let error = "it equals the knock: a retransmitted packet would close what the knock opened; write `hold-off`, such as `10s`";
            return Err(at("close", error.to_owned()));
        }
        Ok(Door {
            knock,
            close,
            within: time("within", &written.within, second)?,
            total: time("total", &written.total, second)?,
            opens: written
                .opens
                .iter()
                .map(|text| text.parse().map_err(|e| at("opens", e)))
                .collect::<Result<_, _>>()?,
            open_for: time("for", &written.open_for, second)?,
            strict: written.strict,
            hold_off,
            sources: written
                .sources
                .iter()
                .map(|text| text.parse().map_err(|error| at("sources", error)))
                .collect::<Result<_, _>>()?,
            max_attempts: match &written.max_attempts {
                Some(text) => Some(text.parse().map_err(|error| at("max-attempts", error))?),
                None => None,
            },
            log: written.log,
            cut: written.cut,
            name,
        })
    }
}

impl From<Door> for Written {
    fn from(door: Door) -> Written {
        Written {
            name: door.name,
            knock: door.knock.iter().map(ToString::to_string).collect(),
            close: door.close.iter().map(ToString::to_string).collect(),
            within: format_duration(door.within),
            total: format_duration(door.total),
            opens: door.opens.iter().map(ToString::to_string).collect(),
            open_for: format_duration(door.open_for),
            strict: door.strict,
            hold_off: format_duration(door.hold_off),
            sources: door.sources.iter().map(ToString::to_string).collect(),
            max_attempts: door.max_attempts.map(|attempts| attempts.to_string()),
            log: door.log,
            cut: door.cut,
        }
    }
}

/// Checks the name of a door. The name is part of list names, and two doors must not share a list.
fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !(1..=32).contains(&name.len()) || !name.bytes().all(is_plain) {
        return Err("write 1 to 32 letters, digits, `-` and `_`, such as `ssh`".to_owned());
    }
    match ["-knocking", "-closing"].into_iter().find(|end| name.ends_with(end)) {
        Some(end) => Err(format!("a name that ends in `{end}` would be another door's list; write another name")),
        None => Ok(()),
    }
}

fn time(text: &str, least: Duration) -> Result<Duration, String> {
    parse_duration(text).filter(|time| (least..=LONGEST_TIMEOUT).contains(time)).ok_or_else(|| {
        let least = format_duration(least);
        format!(
            "`{text}` is not a time from {least} to {}; write `10s`, `1m30s` or `1h`",
            format_duration(LONGEST_TIMEOUT)
        )
    })
}

/// Validates doors, whose names must be unique. The caller passes the place of each door in the text.
///
/// # Errors
/// The first error, with the place of its door.
pub fn placed<P>(written: impl IntoIterator<Item = (P, Written)>) -> Result<Vec<Door>, (P, String)> {
    let mut doors: Vec<Door> = Vec::new();
    for (place, written) in written {
        match Door::try_from(written) {
            Ok(door) if doors.iter().any(|other| other.name == door.name) => {
                let name = door.name;
                return Err((place, format!("door `{name}`: `name`: two doors have this name; write another name")));
            }
            Ok(door) => doors.push(door),
            Err(error) => return Err((place, error)),
        }
    }
    Ok(doors)
}

/// Reads doors with unique names, for `deserialize_with`.
///
/// # Errors
/// The first error.
pub fn distinct<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Door>, D::Error> {
    let written = Vec::<Written>::deserialize(deserializer)?;
    placed(written.into_iter().map(|door| ((), door))).map_err(|((), error)| D::Error::custom(error))
}
