//! A source's state at the doors.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::drops::SourcePacket;
use crate::door::Failure;
use crate::packet::Vlan;

/// The source at one door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDoor {
    /// The door.
    pub door: String,
    /// The VLAN that the rest of this is of, as in [`ListEntry`].
    #[serde(flatten)]
    pub vlan: Vlan,
    /// Whether other packets of the source start its knock over.
    pub strict: bool,
    /// Steps of the knock.
    pub steps: u8,
    /// Whether a port scan cannot open it even if it is not strict: a step has a passphrase.
    pub has_passphrase: bool,
    /// Whether the source may knock here, by the door's `sources`.
    pub admitted: bool,
    /// How far its knock is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<SourceProgress>,
    /// How far the knock is that closes the door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<SourceProgress>,
    /// What the door is open for.
    pub grants: Vec<SourceGrant>,
    /// Its knocks are ignored for so long, because it opened the door: `hold-off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_off: Option<Duration>,
    /// The first steps that it has taken, if the door has `max-attempts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<SourceAttempts>,
    /// Why its knocks are ignored now, the reason that lasts longest first; [`Failure::Source`] lasts as long as the
    /// configuration.
    pub ignored: Vec<IgnoredFor>,
    /// Its steps that came to nothing recently, by reason; the last one first.
    pub failures: Vec<SourceFailure>,
}

/// Why a source's knocks are ignored, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredFor {
    /// Why.
    pub reason: Failure,
    /// Time left; none if it does not end by itself.
    pub time_left: Option<Duration>,
}

/// How far a knock is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceProgress {
    /// Steps that were taken.
    pub steps: u8,
    /// Steps that there are.
    pub of: u8,
    /// The next one, without its passphrase.
    pub next: String,
    /// What is knocked at, as in [`ListEntry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Time left for the next step.
    pub time_left: Duration,
}

/// What a door is open for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceGrant {
    /// Towards this address, as in [`ListEntry`]; none if towards all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Time left; none if it does not end.
    pub time_left: Option<Duration>,
}

/// First steps of a source at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceAttempts {
    /// How many it has taken, those that were refused included.
    pub used: u64,
    /// How many count…
    pub limit: u8,
    /// …in so long.
    pub per: Duration,
    /// Until they are counted anew; zero if none was taken.
    pub time_left: Duration,
}

/// Steps of a source that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFailure {
    /// Why.
    pub reason: Failure,
    /// How often.
    pub times: u64,
    /// Time since the last one.
    pub last_ago: Duration,
    /// Its packet.
    #[serde(flatten)]
    pub packet: SourcePacket,
}

/// The ports that a source has tried: `[policy.port-budget]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePorts {
    /// The VLAN that they were tried in, as in [`ListEntry`].
    #[serde(flatten)]
    pub vlan: Vlan,
    /// About so many different ones.
    pub tried: u32,
    /// Beyond so many its knocks are ignored…
    pub budget: u8,
    /// …if it tries them in so long…
    pub within: Duration,
    /// …for so long.
    pub ignore_for: Duration,
    /// Whether they are ignored.
    pub ignored: bool,
    /// Until this is forgotten, and so until its knocks count again.
    pub time_left: Duration,
}
