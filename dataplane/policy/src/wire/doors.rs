//! Doors and the sources at them.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::{as_text, is_zero};
use crate::door::Failure;
use crate::packet::Vlan;
use crate::rule::AddressSet;

/// The doors, and who is at them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Doors {
    /// The doors, in the order of the configuration.
    pub doors: Vec<DoorSummary>,
    /// Who has begun to knock, ordered by door and address; at most as many as were asked for.
    pub knocking: Vec<Visitor>,
    /// Whom doors are open for, in the same way.
    pub open: Vec<Visitor>,
    /// Whose knocks are ignored, in the same way; those that are ignored at all doors first.
    #[serde(default)]
    pub ignored: Vec<IgnoredSource>,
    /// Whether there are more of any of them.
    pub truncated: bool,
}

/// A source whose knocks are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredSource {
    /// The door; none for all doors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// The source; over IPv6 its /64.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// Its VLAN, as in [`ListEntry`].
    #[serde(flatten)]
    pub vlan: Vlan,
    /// `ports`, `held-off` or `attempts`.
    pub reason: Failure,
    /// Time left.
    pub time_left: Duration,
}

/// One door in one line. Counts are since start, and stay when the door changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoorSummary {
    /// Its name.
    pub door: String,
    /// How often each step of its knock was taken, in order. The last one opens.
    pub steps: Vec<u64>,
    /// How often it was opened.
    pub opened: u64,
    /// How often it was closed by a knock.
    pub closed: u64,
    /// Steps and knocks that came to nothing, by every reason that there is.
    pub failed: Vec<FailureCount>,
    /// How many sources have begun to knock now.
    pub knocking: u64,
    /// For how many it is open now: sources, each with an address. What operators put in for good is not among them.
    pub open: u64,
}

/// What came to nothing at a door for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FailureCount {
    /// Why.
    pub reason: Failure,
    /// How often.
    pub times: u64,
}

/// A source at a door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visitor {
    /// The door.
    pub door: String,
    /// The source; a prefix or range if an operator let it in.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// Its VLAN, as in [`ListEntry`].
    #[serde(flatten)]
    pub vlan: Vlan,
    /// What it knocks at, or may connect to; as in [`ListEntry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Steps that it has taken; 0 for those who are in.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: u8,
    /// Time left, for the next step or in all; none if it does not expire.
    pub time_left: Option<Duration>,
}
