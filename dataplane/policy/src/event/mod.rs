//! Events and grant records: what the dataplane publishes when an entry of an address list changes.
//!
//! An [`Event`] contains a change, its time and its cause. Its [`GrantRecord`] is the entry, with names and absolute
//! times instead of ids and times of a process's clock, so that another process, a later start or another machine can
//! restore the entry. `docs/events.md` documents the JSON.
//!
//! Events of one start of the dataplane have the numbers 1, 2, 3, … without a gap, in the order of the changes of each
//! entry. A reader that was too slow receives a [`Gap`] in place of the events that it missed.

mod id;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::id::{BehindEvent, EventId};
use crate::packet::Vlan;
use crate::rule::{AddressSet, RuleId};
use crate::word::words;

words! {
    /// The origin of a change, or of an entry.
    Origin {
        /// A packet that a rule or a door evaluated.
        Packet = "packet",
        /// A request of an operator.
        Operator = "operator",
        /// The application of a rule set or configuration.
        Rules = "rules",
        /// State that was restored at a start.
        Restore = "restore",
        /// Another node of a fleet.
        Peer = "peer",
    }
}

words! {
    /// The change of an entry.
    EventKind {
        /// A door opened for a source: the entry counts for one destination, or for all if an operator opened it.
        Granted = "granted",
        /// An address was added to a list that did not contain it.
        Listed = "listed",
        /// A source took a step of a knock, above the first one.
        Stepped = "stepped",
        /// The entry's expiry changed. A refresh by a packet is an event only if it changes the remaining time by about
        /// a sixteenth. A refresh of a grant is always an event.
        Refreshed = "refreshed",
        /// The entry was removed by a closing knock, an operator, or a completed knock.
        Removed = "removed",
        /// An operator removed all entries of the list.
        Flushed = "flushed",
        /// The entry expired.
        Expired = "expired",
        /// The lists are full, and a newer entry evicted the entry.
        Evicted = "evicted",
        /// An operator changed many static entries of the list at once. The record's addresses contain all of them. A
        /// reader reads the static entries of the list.
        Bulk = "bulk",
    }
}

impl EventKind {
    /// Whether the change ends the entry.
    pub const fn is_end(self) -> bool {
        matches!(self, EventKind::Removed | EventKind::Flushed | EventKind::Expired | EventKind::Evicted)
    }
}

/// The id of a start of the dataplane: a random number. Event numbers of different starts are unrelated. Written as 16
/// hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StartId(pub u64);

impl fmt::Display for StartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for StartId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<StartId, Self::Err> {
        let digits = Some(text).filter(|text| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.map(StartId).ok_or("expected the id of a start: 16 hexadecimal digits")
    }
}

impl Serialize for StartId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StartId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The only destination that an entry counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Destination {
    /// The address; `None` for the progress of a knock over IPv6, of which the dataplane stores only a hash. Such an
    /// entry cannot be restored.
    pub address: Option<IpAddr>,
}

/// An entry of an address list in a portable form, with all data to restore it on another machine or after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// The list's name.
    pub list: String,
    /// The number of earlier proofs that the addition needed; 255 for an entry of an operator.
    pub level: u8,
    /// The address. If `by_network` is true, the lowest address of its IPv6 network of 64 bits.
    pub address: IpAddr,
    /// The last address of a prefix or range that begins with `address`; `None` if the entry is one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<IpAddr>,
    /// The entry is one of an operator that takes no room in the lists: without a timeout, or a prefix or range. Beside
    /// it, the address can have another entry in the list, which is independent of it.
    #[serde(default, rename = "static", skip_serializing_if = "is_false")]
    pub is_static: bool,
    /// Whether the entry counts for the address's whole IPv6 network of 64 bits.
    #[serde(default)]
    pub by_network: bool,
    /// The only network that the entry counts in; [`Vlan::NONE`] if it counts in all.
    #[serde(flatten)]
    pub network: Vlan,
    /// The only destination that the entry counts for; `None` if it counts for all.
    pub destination: Option<Destination>,
    /// Steps of a knock that were taken. 0 for a grant and for an entry of a rule's list. Another number is progress, which
    /// is no grant.
    #[serde(default)]
    pub steps: u8,
    /// The origin of the entry.
    pub origin: Origin,
    /// The time of the addition, in nanoseconds since 1970, UTC.
    pub since_ns: u64,
    /// The expiry, in nanoseconds since 1970, UTC; `None` if the entry does not expire.
    pub expires_ns: Option<u64>,
}

impl GrantRecord {
    /// The addresses of the entry, as an address, prefix or range.
    pub fn addresses(&self) -> AddressSet {
        AddressSet::of_bounds((self.address, self.last.unwrap_or(self.address)))
    }
}

/// Whether a field is left out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A change of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The number of the event since the dataplane started. The first one is 1.
    pub number: u64,
    /// The start of the dataplane.
    pub start: StartId,
    /// The time of the change, in nanoseconds since 1970, UTC, by the wall clock when the event is read.
    pub time_ns: u64,
    /// The time of the change, in nanoseconds of CLOCK_MONOTONIC, which cannot be set.
    pub monotonic_ns: u64,
    /// The change.
    pub kind: EventKind,
    /// The origin of the change; `None` for `expired` and `evicted`.
    pub origin: Option<Origin>,
    /// The rule that added the address; `None` if no rule did, or if the dataplane does not have the rule any more.
    pub rule: Option<RuleId>,
    /// The door that the list belongs to.
    pub door: Option<String>,
    /// The network of the frame of the knock, also if the lists do not distinguish networks; [`Vlan::NONE`] if no knock
    /// caused the change.
    pub arrived: Vlan,
    /// The user of the knock. Always `None`, because no knock contains a user yet.
    pub user: Option<String>,
    /// The entry after the change; for an entry that ended, before it.
    pub record: GrantRecord,
}

impl Event {
    /// The id of the event.
    pub const fn id(&self) -> EventId {
        EventId::of(self.start, self.number)
    }
}

/// Events that a reader did not receive because it was too slow: all numbers from the first to the last. The reader can
/// read the present entries instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first missed number.
    pub first: u64,
    /// The last missed number, not below the first.
    pub last: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::word::Word;

    fn example() -> Event {
        Event {
            number: 42,
            start: StartId(0x9f3c_0000_dead_beef),
            time_ns: 1_800_000_000_000_000_001,
            monotonic_ns: 5_000_000_000,
            kind: EventKind::Granted,
            origin: Some(Origin::Packet),
            rule: None,
            door: Some("ssh".to_owned()),
            arrived: "10".parse().unwrap(),
            user: None,
            record: GrantRecord {
                list: "door-ssh".to_owned(),
                level: 2,
                address: [198, 51, 100, 7].into(),
                last: None,
                is_static: false,
                by_network: false,
                network: Vlan::NONE,
                destination: Some(Destination { address: Some([203, 0, 113, 5].into()) }),
                steps: 0,
                origin: Origin::Packet,
                since_ns: 1_800_000_000_000_000_001,
                expires_ns: Some(1_800_001_800_000_000_001),
            },
        }
    }

    #[test]
    fn the_json_is_as_documented() {
        let page = include_str!("../../../../docs/events.md");
        let json = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        assert_eq!(serde_json::from_str::<Event>(json).unwrap(), example());
        let written = serde_json::to_value(example()).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(json).unwrap());
        for word in EventKind::ALL.iter().map(|kind| kind.name()).chain(Origin::ALL.iter().map(|origin| origin.name()))
        {
            assert!(page.contains(&format!("| `{word}` |")), "docs/events.md lacks {word}");
        }
    }

    #[test]
    fn an_id_of_a_start_has_sixteen_digits() {
        assert_eq!(StartId(7).to_string(), "0000000000000007");
        for wrong in ["", "7", "+000000000000007", "000000000000000g", "00000000000000007"] {
            assert!(wrong.parse::<StartId>().is_err(), "{wrong}");
        }
    }

    fn addresses() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    fn networks() -> impl Strategy<Value = Vlan> {
        let tags = prop::sample::select(vec!["10", "4095", "10/20", "10@8100/20"]);
        let tagged = tags.prop_map(|text| text.parse::<Vlan>().unwrap());
        let in_session =
            (prop_oneof![Just(Vlan::NONE), tagged], 0..3_u16).prop_map(|(tags, session)| tags.in_session(session));
        prop_oneof![Just(Vlan::UNTAGGED), in_session]
    }

    fn records() -> impl Strategy<Value = GrantRecord> {
        let destination = prop::option::of(prop::option::of(addresses()));
        let times = (any::<u64>(), any::<Option<u64>>());
        let origin = prop::sample::select(Origin::ALL);
        let range = (addresses(), prop::option::of(addresses()), any::<bool>());
        (".{0,12}", any::<u8>(), range, any::<bool>(), networks(), destination, any::<u8>(), origin, times).prop_map(
            |(
                list,
                level,
                (address, last, is_static),
                by_network,
                network,
                destination,
                steps,
                origin,
                (since_ns, expires_ns),
            )| {
                GrantRecord {
                    list,
                    level,
                    address,
                    last,
                    is_static,
                    by_network,
                    network,
                    destination: destination.map(|address| Destination { address }),
                    steps,
                    origin,
                    since_ns,
                    expires_ns,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn json_reads_as_what_was_written(
            numbers in any::<[u64; 4]>(),
            kind in prop::sample::select(EventKind::ALL),
            origin in prop::option::of(prop::sample::select(Origin::ALL)),
            (rule, door, user) in any::<(Option<String>, Option<String>, Option<String>)>(),
            arrived in networks(),
            record in records(),
        ) {
            let [number, start, time_ns, monotonic_ns] = numbers;
            let (start, rule) = (StartId(start), rule.map(RuleId));
            let event =
                Event { number, start, time_ns, monotonic_ns, kind, origin, rule, door, arrived, user, record };
            let json = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event, "{}", json);
        }
    }
}
