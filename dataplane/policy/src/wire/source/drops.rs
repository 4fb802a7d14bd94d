//! A source's dropped packets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RuleRef;
use super::door::SourceFailure;
use crate::packet::{Side, Vlan};
use crate::reason::Reason;

/// What is kept of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePacket {
    /// The side that it came from.
    pub side: Side,
    /// Its VLAN.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// Its IP protocol; none if the frame could not be read so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Its destination port, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Packets of a source that were dropped. Frames that were accepted and then lost on their way out are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDrops {
    /// By reason and rule; the last one first.
    pub recent: Vec<SourceDrop>,
    /// Whether there are more.
    pub truncated: bool,
    /// How far back `recent`, and the failures at doors, are complete. None if nothing is missing since the dataplane
    /// started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_for: Option<Duration>,
    /// Records that there is room for, of all sources together. Those that were made first give way.
    pub capacity: u64,
    /// What is watched, if it is this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<SourceWatch>,
}

/// Dropped packets of a source with one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDrop {
    /// Why.
    pub reason: Reason,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// Whether the rule is one of rules that do not run any more, so that nothing is known of it.
    #[serde(default)]
    pub rule_is_gone: bool,
    /// How many.
    pub packets: u64,
    /// Time since the first one.
    pub first_ago: Duration,
    /// Time since the last one.
    pub last_ago: Duration,
    /// The last one.
    #[serde(flatten)]
    pub packet: SourcePacket,
}

/// What happened while a source was watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceWatch {
    /// Time since it began.
    pub since: Duration,
    /// Time left; zero if it is over.
    pub time_left: Duration,
    /// Every packet that was dropped, by reason and rule; the last one first.
    pub drops: Vec<SourceDrop>,
    /// Every step at a door that came to nothing.
    pub failures: Vec<DoorFailure>,
    /// Whether there were too many different reasons to keep them all.
    pub truncated: bool,
}

/// A step that came to nothing, and the door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorFailure {
    /// The door.
    pub door: String,
    /// What happened there.
    #[serde(flatten)]
    pub failure: SourceFailure,
}
