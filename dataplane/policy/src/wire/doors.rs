//! Doors and the sources at them.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::{as_text, is_zero};
use crate::door::Failure;
use crate::packet::Vlan;
use crate::rule::AddressSet;

/// The doors, and the sources at them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Doors {
    /// The doors, in the order of the configuration.
    pub doors: Vec<DoorSummary>,
    /// Sources whose knock is in progress, ordered by door and address; at most as many as requested.
    pub knocking: Vec<Visitor>,
    /// Sources with a grant, in the same order and number.
    pub open: Vec<Visitor>,
    /// Sources whose knocks are ignored, in the same order and number; sources ignored at all doors first.
    #[serde(default)]
    pub ignored: Vec<IgnoredSource>,
    /// Whether there are more of any kind.
    pub truncated: bool,
}

/// A source whose knocks are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredSource {
    /// The door; `None` for all doors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// The source; its /64 over IPv6.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// The VLAN, as in [`ListEntry`](super::ListEntry).
    #[serde(flatten)]
    pub vlan: Vlan,
    /// `ports`, `held-off` or `attempts`.
    pub reason: Failure,
    /// Time left.
    pub time_left: Duration,
}

/// Summary of one door. Counts are since start. A change of the door does not reset them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoorSummary {
    /// The name.
    pub door: String,
    /// The steps of the knock in the form of the configuration, without passphrases.
    pub knock: Vec<String>,
    /// The steps of the closing knock in the same form; empty if the door has none.
    pub close: Vec<String>,
    /// What the door opens, in the form of the configuration; empty if it opens everything.
    pub opens: Vec<String>,
    /// The number of times that each step was taken, in order. The last step opens the door.
    pub steps: Vec<u64>,
    /// The number of times that a knock opened the door.
    pub opened: u64,
    /// The number of times that a knock closed the door.
    pub closed: u64,
    /// Failed steps and knocks, by reason; all reasons are present.
    pub failed: Vec<FailureCount>,
    /// Number of sources whose knock is in progress.
    pub knocking: u64,
    /// Number of grants: each is for one source and one destination. Static entries are not included.
    pub open: u64,
}

/// Failures at a door for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FailureCount {
    /// The reason.
    pub reason: Failure,
    /// The count.
    pub times: u64,
}

/// A source at a door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visitor {
    /// The door.
    pub door: String,
    /// The source; a prefix or range for an entry of an operator.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// The VLAN, as in [`ListEntry`](super::ListEntry).
    #[serde(flatten)]
    pub vlan: Vlan,
    /// The destination of the knock or grant, as in [`ListEntry`](super::ListEntry).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Steps taken; 0 for a grant.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: u8,
    /// Time left, for the next step or in total; `None` if there is no expiry.
    pub time_left: Option<Duration>,
}
