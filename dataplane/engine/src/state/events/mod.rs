//! What leaves the state: events of list entries, and logged packets.
//!
//! An entry above a first step that is added, refreshed or ends is an event. The shard that changes the entry takes the
//! event's number and writes the event into the ring ([`ring`]) under its own lock, so that numbers are in the order of each
//! entry's changes. First steps are no events: anyone can take them, and a flood takes millions.
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

/// How many events and removals are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRoom {
    /// Events in the ring; rounded up to a power of two. A subscriber that is further behind gets a gap.
    pub ring: usize,
    /// Removals that each shard remembers for subscribers that have a gap.
    pub removals: usize,
}

impl EventRoom {
    /// For lists of so many entries: four events for each, within 256 and what is usual.
    pub(crate) fn of_capacity(capacity: usize) -> EventRoom {
        let usual = EventRoom::default();
        EventRoom { ring: capacity.saturating_mul(4).clamp(256, usual.ring), ..usual }
    }
}

impl Default for EventRoom {
    /// 16,384 events, 3 MB: what 50,000 grants a second cause in three tenths of a second. Of 64 shards, each remembers 256
    /// removals, as many together.
    fn default() -> EventRoom {
        EventRoom { ring: 16_384, removals: 256 }
    }
}

/// What causes a change of the lists.
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
    /// The number of the compiled rule set that the rule is of.
    pub table: u32,
    /// The rule's position among the declared ones.
    pub rule: u32,
}

/// What an event says of the packet that knocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnockPacket {
    /// Its destination, which the entry counts for.
    pub destination: IpAddr,
    /// The network of its frame, whatever the settings say of VLANs.
    pub vlan: Vlan,
}

impl Cause {
    /// This origin, without more to say.
    pub const fn of(origin: Origin) -> Cause {
        Cause { origin, rule: None, knock: None }
    }
}

/// An entry as events show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventEntry {
    /// The list.
    pub list: ListId,
    /// The entry's level.
    pub level: u8,
    /// The address; of a network, the lowest one.
    pub address: IpAddr,
    /// The entry counts for the address's whole IPv6 network of 64 bits.
    pub by_network: bool,
    /// The only VLAN that it counts in; [`Vlan::NONE`] if it counts in all.
    pub vlan: Vlan,
    /// The tag of the only peer that it counts for; 0 if it counts for all.
    pub peer_tag: u32,
    /// That peer, if it is known.
    pub peer: Option<IpAddr>,
    /// Steps of a knock that were taken; 0 if the entry is no progress.
    pub step: u8,
    /// What brought it in.
    pub origin: Origin,
    /// When it got in.
    pub since: Time,
    /// When it leaves the list.
    pub expiry: Time,
}

/// A change of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEvent {
    /// The change. A grant by an operator is [`EventKind::Listed`] here: only names tell.
    pub kind: EventKind,
    /// The entry after the change; for an entry that ended, before it.
    pub entry: EventEntry,
    /// What caused it; `None` if time or lack of room did.
    pub cause: Option<Cause>,
    /// When.
    pub at: Time,
}
