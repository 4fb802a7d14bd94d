//! The id of an event: the same in the log, in `knockctl monitor`, in the API and in the audit file.
//!
//! ```text
//! 9f3c0000deadbeef-42                     event 42 of this start of the dataplane
//! 9f3c0000deadbeef-42.p7                  the seventh logged packet since the start, after event 42
//! 9f3c0000deadbeef-42.o1796076543123456   a change by an operator, after event 42
//! ```
//! Every id therefore has a position in the events of the dataplane, at which a reader can continue.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::StartId;

/// The id of an event, of a logged packet, or of an operator's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The start of the dataplane.
    pub start: StartId,
    /// The number of the event; for the others, of the last event before it.
    pub number: u64,
    /// What follows the event; `None` for the event itself.
    pub behind: Option<BehindEvent>,
}

/// What follows an event and has no number of its own among the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BehindEvent {
    /// A logged packet, counted by the dataplane from 1.
    Packet(u64),
    /// An operator's change: the time of the control process in microseconds since 1970, or one more than the one before.
    Operator(u64),
}

impl EventId {
    /// The id of an event.
    pub const fn of(start: StartId, number: u64) -> EventId {
        EventId { start, number, behind: None }
    }

    /// The id of a logged packet after an event.
    pub const fn packet(start: StartId, number: u64, packet: u64) -> EventId {
        EventId { start, number, behind: Some(BehindEvent::Packet(packet)) }
    }

    /// The id of an operator's change after an event.
    pub const fn operator(start: StartId, number: u64, change: u64) -> EventId {
        EventId { start, number, behind: Some(BehindEvent::Operator(change)) }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EventId { start, number, behind } = self;
        match behind {
            None => write!(f, "{start}-{number}"),
            Some(BehindEvent::Packet(packet)) => write!(f, "{start}-{number}.p{packet}"),
            Some(BehindEvent::Operator(change)) => write!(f, "{start}-{number}.o{change}"),
        }
    }
}

impl FromStr for EventId {
    type Err = String;

    fn from_str(text: &str) -> Result<EventId, Self::Err> {
        let parsed = text.split_once('-').and_then(|(start, rest)| {
            let (number, behind) = rest.split_once('.').map_or((rest, None), |(number, behind)| (number, Some(behind)));
            let behind = match behind {
                None => None,
                Some(behind) => Some(match behind.split_at_checked(1)? {
                    ("p", packet) => BehindEvent::Packet(decimal(packet)?),
                    ("o", change) => BehindEvent::Operator(decimal(change)?),
                    _ => return None,
                }),
            };
            Some(EventId { start: start.parse().ok()?, number: decimal(number)?, behind })
        });
        parsed.ok_or_else(|| {
            format!(
                "`{text}` is not the id of an event: copy one from the log, from `knockctl monitor` or from the audit file, \
                 such as {}",
                EventId::of(StartId(0x9f3c_0000_dead_beef), 42)
            )
        })
    }
}

/// A number without a sign.
fn decimal(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_what_was_written() {
        let start = StartId(7);
        for id in [EventId::of(start, 0), EventId::packet(start, 42, 7), EventId::operator(start, u64::MAX, u64::MAX)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(EventId::packet(start, 42, 7).to_string(), "0000000000000007-42.p7");
    }

    #[test]
    fn other_text_is_no_id() {
        let start = "0000000000000007";
        let wrong = ["-42", "-", "-+1", "-42.", "-42.p", "-42.x7", "-42.p7.p8", "-42.é", "-18446744073709551616", ""];
        for text in
            wrong.map(|rest| format!("{start}{rest}")).iter().skip(1).chain([&"42".to_owned(), &"-42".to_owned()])
        {
            let error = text.parse::<EventId>().expect_err(text);
            assert!(error.contains("is not the id of an event"), "{error}");
        }
    }
}
