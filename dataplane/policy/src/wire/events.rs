//! The events of the dataplane for a reader in another process, by number.
//!
//! The reader repeats its request with the position that it has reached. The dataplane keeps no state of a reader, so a lost
//! answer or a new connection changes nothing. Logged packets are bounded: each answer has the newest lines, and for each
//! rule the number of packets that it has logged since the start. The difference is the number of lines that the reader does
//! not have.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Gap, StartId};
use crate::packet::{Side, Vlan};
use crate::rule::{RuleId, RuleNumber};

/// Maximum number of events in one answer, half a megabyte: the manager of the dataplane needs a few milliseconds for it.
pub const MAX_EVENTS: usize = 1_000;

/// Maximum number of events in an answer that a reader with a gap finds in the lists. The rest of a longer gap is another gap in the
/// next answer.
pub const MAX_FOUND_EVENTS: usize = 5_000;

/// Maximum number of kept lines about packets: those of more than a second at the highest rate.
pub const MAX_KEPT_PACKETS: usize = 1_024;

/// Maximum number of rules whose logged packets are counted separately. Further rules have only a common total: their
/// packets are in the [`RuleTotal`] without a rule.
pub const MAX_LOGGING_RULES: usize = 1_024;

/// The position of a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventQuery {
    /// The start of the dataplane to which the numbers belong. The answer to any other start begins with the first event.
    pub start: StartId,
    /// The number of the last event that the reader has.
    pub after: u64,
    /// [`EventBatch::after_ns`] of the answer before; 0 at first. An entry that was added later is new to the reader.
    pub after_ns: u64,
    /// Whether the answer replaces missed events by the changes that the lists still have.
    pub recover: bool,
    /// The number of the last line about a packet that the reader has; `None` if it reads none.
    pub packets_after: Option<u64>,
    /// [`EventBatch::stamp`] of the answer before.
    pub stamp: u64,
    /// The number of the last change of the dataplane's own that the reader has.
    pub own_after: u64,
}

/// The answer: everything after a position.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventBatch {
    /// The start of the dataplane.
    pub start: StartId,
    /// The number of the last event that was logged. The answer has no later ones.
    pub last: u64,
    /// The number of the last event of the restoration at the start.
    pub restored: u64,
    /// Events and gaps, in order.
    pub items: Vec<EventItem>,
    /// The monotonic time up to which the reader has all events; in a gap that continues in the next answer, the time before it.
    pub after_ns: u64,
    /// Whether more events follow at once.
    pub more: bool,
    /// Lines about packets, in order.
    pub packets: Vec<PacketLine>,
    /// The rules that have logged packets since `stamp` of the query.
    pub totals: Vec<RuleTotal>,
    /// The time of these totals, on a clock that counts changes.
    pub stamp: u64,
    /// Changes of rules or settings that no connection requested.
    pub own: Vec<OwnChange>,
}

/// An event, or missed ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventItem {
    /// An event.
    Event(Box<PublishedEvent>),
    /// Events that were overwritten before they were read. The events behind it replace those that the lists still have.
    Gap {
        /// The numbers.
        missed: Gap,
        /// The number of these events that follow.
        found: u64,
    },
}

/// An event, with the number of its rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishedEvent {
    /// The event.
    pub event: Event,
    /// The number of the rule that added the address, at the time of the reading.
    pub rule_number: Option<RuleNumber>,
}

/// A logged packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketLine {
    /// The number of the line, from 1.
    pub number: u64,
    /// The number of the last event before it.
    pub after: u64,
    /// The time of the reading, in nanoseconds since 1970, UTC.
    pub time_ns: u64,
    /// The rule.
    pub rule: RuleId,
    /// The number of the rule.
    pub rule_number: RuleNumber,
    /// The number of packets that the rule has logged, up to this one.
    pub total: u64,
    /// The prefix of the rule.
    pub prefix: String,
    /// The chain of the rule.
    pub chain: String,
    /// The side on which the packet arrived.
    pub side: Side,
    /// The network of the frame.
    pub network: Vlan,
    /// The protocol's name or number.
    pub protocol: String,
    /// The source.
    pub source: IpAddr,
    /// Its port.
    pub source_port: Option<u16>,
    /// The destination.
    pub destination: IpAddr,
    /// Its port.
    pub destination_port: Option<u16>,
    /// The line of the log.
    pub line: String,
}

/// The logged packets of a rule since the start, with and without a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTotal {
    /// The rule; `None` for all rules that are not known any more, or above [`MAX_LOGGING_RULES`].
    pub rule: Option<RuleId>,
    /// Its number.
    pub rule_number: Option<RuleNumber>,
    /// The number of packets.
    pub total: u64,
}

/// A change of rules or settings that no connection requested: a rollback, or a reload by signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnChange {
    /// The number, from 1.
    pub number: u64,
    /// The time, in nanoseconds since 1970, UTC.
    pub time_ns: u64,
    /// The action.
    pub action: OwnAction,
    /// The generation that runs.
    pub generation: u64,
    /// The reason that it failed.
    pub error: Option<String>,
}

/// An action of the dataplane itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnAction {
    /// An apply or a reload was not confirmed in time.
    RolledBack,
    /// SIGHUP.
    Reloaded,
}
