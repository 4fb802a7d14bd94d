//! A source's state at the doors.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::drops::SourcePacket;
use crate::door::Failure;
use crate::packet::Vlan;

/// The state of the source at one door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDoor {
    /// The door.
    pub door: String,
    /// The VLAN of this state, as in [`ListEntry`](crate::wire::ListEntry).
    #[serde(flatten)]
    pub vlan: Vlan,
    /// Whether other packets of the source restart its knock.
    pub strict: bool,
    /// Number of steps of the knock.
    pub steps: u8,
    /// Whether a step has a passphrase, so that a port scan cannot open the door even if it is not strict.
    pub has_passphrase: bool,
    /// Whether the door's `sources` admit the source.
    pub admitted: bool,
    /// Progress of its knock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<SourceProgress>,
    /// Progress of its closing knock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<SourceProgress>,
    /// The grants.
    pub grants: Vec<SourceGrant>,
    /// The time for which knocks are still ignored because the source opened the door: `hold-off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_off: Option<Duration>,
    /// The first steps, if the door has `max-attempts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<SourceAttempts>,
    /// The reasons that knocks are ignored now, the one with the longest time left first. [`Failure::Source`] does not
    /// expire.
    pub ignored: Vec<IgnoredFor>,
    /// The recent failed steps, by reason; the latest first.
    pub failures: Vec<SourceFailure>,
}

/// A reason that a source's knocks are ignored, with its time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredFor {
    /// The reason.
    pub reason: Failure,
    /// Time left; `None` if the reason does not expire.
    pub time_left: Option<Duration>,
}

/// Progress of a knock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceProgress {
    /// Steps taken.
    pub steps: u8,
    /// Steps in total.
    pub of: u8,
    /// The next step, without its passphrase.
    pub next: String,
    /// The destination of the knock, as in [`ListEntry`](crate::wire::ListEntry).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Time left for the next step.
    pub time_left: Duration,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceGrant {
    /// The destination, as in [`ListEntry`](crate::wire::ListEntry); `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Time left; `None` if the grant does not expire.
    pub time_left: Option<Duration>,
}

/// First steps of a source at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceAttempts {
    /// Number taken, including refused ones.
    pub used: u64,
    /// Maximum number of first steps that count.
    pub limit: u8,
    /// The time for this number.
    pub per: Duration,
    /// Time until the count restarts; zero if none was taken.
    pub time_left: Duration,
}

/// Failed steps of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFailure {
    /// The reason.
    pub reason: Failure,
    /// The count.
    pub times: u64,
    /// Time since the last one.
    pub last_ago: Duration,
    /// The packet of the last one.
    #[serde(flatten)]
    pub packet: SourcePacket,
}

/// The ports that a source has tried: `[policy.port-budget]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePorts {
    /// The VLAN in which they were tried, as in [`ListEntry`](crate::wire::ListEntry).
    #[serde(flatten)]
    pub vlan: Vlan,
    /// Approximate number of different ports.
    pub tried: u32,
    /// Maximum number of ports before knocks are ignored.
    pub budget: u8,
    /// The time for this number.
    pub within: Duration,
    /// The time for which knocks are ignored.
    pub ignore_for: Duration,
    /// Whether knocks are ignored now.
    pub ignored: bool,
    /// Time until this record expires and knocks count again.
    pub time_left: Duration,
}
