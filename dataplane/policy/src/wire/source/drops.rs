//! A source's dropped packets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RuleRef;
use super::door::SourceFailure;
use crate::packet::{Side, Vlan};
use crate::reason::Reason;

/// The recorded fields of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePacket {
    /// The side on which it arrived.
    pub side: Side,
    /// The VLAN.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// The IP protocol; `None` if the frame could not be parsed that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// The destination port, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Dropped packets of a source. Accepted frames that were lost during transmission are not included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDrops {
    /// By reason and rule; the latest first.
    pub recent: Vec<SourceDrop>,
    /// Whether there are more.
    pub truncated: bool,
    /// The time for which `recent` and the failures at doors are complete; `None` if nothing is missing since the
    /// dataplane started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_for: Option<Duration>,
    /// Capacity in records, for all sources together. The oldest records are replaced.
    pub capacity: u64,
    /// The watch, if this source is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<SourceWatch>,
}

/// Dropped packets of a source with one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDrop {
    /// The reason.
    pub reason: Reason,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// Whether the rule does not run any more, so that its details are not known.
    #[serde(default)]
    pub rule_is_gone: bool,
    /// The count.
    pub packets: u64,
    /// Time since the first one.
    pub first_ago: Duration,
    /// Time since the last one.
    pub last_ago: Duration,
    /// The packet of the last one.
    #[serde(flatten)]
    pub packet: SourcePacket,
}

/// The record of a watched source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceWatch {
    /// Time since the watch began.
    pub since: Duration,
    /// Time left; zero if the watch has ended.
    pub time_left: Duration,
    /// Every dropped packet, by reason and rule; the latest first.
    pub drops: Vec<SourceDrop>,
    /// Every failed step at a door.
    pub failures: Vec<DoorFailure>,
    /// Whether there were too many different reasons to record all.
    pub truncated: bool,
}

/// A failed step, and the door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorFailure {
    /// The door.
    pub door: String,
    /// The failure.
    #[serde(flatten)]
    pub failure: SourceFailure,
}
