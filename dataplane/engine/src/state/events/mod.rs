//! The data that leaves the state: events of list entries, and logged packets.
//!
//! There is an event when an entry above a first step is added, is refreshed, or ends, and when an operator changes a
//! static entry. The shard that changes the entry takes the number of the event and writes the event into the ring
//! ([`ring`]) under its own lock. The numbers are therefore in the order of the changes of each entry. First steps
//! cause no events: any source can take them, and a flood takes millions.
//!
//! Packets that rules log have a queue of their own ([`logged`]): they cannot displace an event of an entry.
//!
//! ```text
//!  worker, operator, sweep, new rules
//!       │ changes an entry
//!       ▼
//!  shard ── number of last change ──► entry        ◄── changes since a number ──┐
//!       │── ended ──► record of removals           ◄────────────────────────────┤
//!       │ number and slot                                                       │ after a gap
//!       ▼                                                                       │
//!  ring of events ──► log, and each further subscriber, with a cursor each ─────┘
//! ```

pub mod logged;
pub(crate) mod removals;
pub mod ring;

use std::net::IpAddr;

use knockplane_policy::event::{EventKind, Origin};
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use crate::state::list_set::ListId;

/// The number of events and removals that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRoom {
    /// Events in the ring; rounded up to a power of two. A subscriber that is further behind gets a gap.
    pub ring: usize,
    /// Removals that each shard keeps for subscribers with a gap.
    pub removals: usize,
}

impl EventRoom {
    /// For lists of this capacity: four events for each entry, at least 256 and at most the default.
    pub(crate) fn of_capacity(capacity: usize) -> EventRoom {
        let usual = EventRoom::default();
        EventRoom { ring: capacity.saturating_mul(4).clamp(256, usual.ring), ..usual }
    }
}

impl Default for EventRoom {
    /// 16,384 events, 3 MB: the events of three tenths of a second with 50,000 grants a second. Each of 64 shards keeps
    /// 256 removals, which is the same number together.
    fn default() -> EventRoom {
        EventRoom { ring: 16_384, removals: 256 }
    }
}

/// The cause of a change of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The kind of cause.
    pub origin: Origin,
    /// The rule that adds an address.
    pub rule: Option<RulePosition>,
    /// The knock that opens or closes a door.
    pub knock: Option<KnockPacket>,
}

/// A rule of a compiled rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RulePosition {
    /// The number of the compiled rule set that contains the rule.
    pub table: u32,
    /// The rule's position among the declared ones.
    pub rule: u32,
}

/// The packet that completed a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnockPacket {
    /// The destination of the packet: the peer of the entry.
    pub destination: IpAddr,
    /// The network of the frame, independent of the settings for VLANs.
    pub vlan: Vlan,
}

impl Cause {
    /// A cause of this origin without a rule or a knock.
    pub const fn of(origin: Origin) -> Cause {
        Cause { origin, rule: None, knock: None }
    }
}

/// An entry in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventEntry {
    /// The list.
    pub list: ListId,
    /// The entry's level.
    pub level: u8,
    /// The address; for a network, its lowest address.
    pub address: IpAddr,
    /// The last address of a prefix or range; `None` for a single address.
    pub last: Option<IpAddr>,
    /// Whether the entry is an operator's static entry, or a prefix or range of an operator with a timeout. Another
    /// entry of the address is independent of it.
    pub is_static: bool,
    /// The entry counts for the address's whole IPv6 network of 64 bits.
    pub by_network: bool,
    /// The only VLAN of the entry; [`Vlan::NONE`] if the entry counts in all.
    pub vlan: Vlan,
    /// The tag of the only peer of the entry; 0 if the entry counts for all.
    pub peer_tag: u32,
    /// The address of this peer, if it is known.
    pub peer: Option<IpAddr>,
    /// Completed steps of a knock; 0 if the entry is not the progress of a knock.
    pub step: u8,
    /// The origin of the entry.
    pub origin: Origin,
    /// The time of the addition.
    pub since: Time,
    /// Expiry.
    pub expiry: Time,
}

/// A change of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEvent {
    /// The change. A grant by an operator is [`EventKind::Listed`] here; only the list's name distinguishes it.
    pub kind: EventKind,
    /// The entry after the change; for an entry that ended, before it.
    pub entry: EventEntry,
    /// The cause; `None` for expiry and eviction.
    pub cause: Option<Cause>,
    /// The time of the change.
    pub at: Time,
}
