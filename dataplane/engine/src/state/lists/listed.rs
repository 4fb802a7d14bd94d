//! What is said of address lists: names for them, sets of them, how an entry changes, and what went wrong.
//!
//! [`crate::state::lists`] shows all of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use crate::state::lists::MAX_LISTS;

/// A list, by its place in masks and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListId(pub(crate) u8);

impl ListId {
    /// Position among all lists, below [`MAX_LISTS`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListSet([u64; MAX_LISTS / 64]);

impl ListSet {
    /// No list.
    pub const EMPTY: ListSet = ListSet([0; MAX_LISTS / 64]);

    /// Whether the list is in the set.
    pub const fn contains(&self, list: ListId) -> bool {
        self.0[list.index() / 64] >> (list.index() % 64) & 1 == 1
    }

    /// Takes the list out of the set.
    pub(crate) const fn remove(&mut self, list: ListId) {
        self.0[list.index() / 64] &= !(1 << (list.index() % 64));
    }

    /// Puts in all lists of another set.
    pub(crate) fn insert_all(&mut self, others: ListSet) {
        for (mine, other) in self.0.iter_mut().zip(others.0) {
            *mine |= other;
        }
    }

    /// Puts the list in the set.
    pub const fn insert(&mut self, list: ListId) {
        self.0[list.index() / 64] |= 1 << (list.index() % 64);
    }
}

/// What came of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The address was not in the list, and is now.
    New,
    /// It was in the list; its timeout was set anew.
    Refreshed,
    /// It is in the list for good, by an operator; nothing changed.
    Kept,
    /// It is not in the list: everything is full of higher levels.
    Refused,
}

/// A grant, or another entry above level 0, that is in the lists no more, though nobody took it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The list.
    pub list: ListId,
    /// The entry's level.
    pub level: u8,
    /// The address.
    pub address: IpAddr,
    /// The only VLAN that it counted in; [`Vlan::NONE`] if it counted in all.
    pub vlan: Vlan,
    /// The tag of the only other end that it counted for; 0 if it counted for all.
    pub to: u32,
    /// It was a grant: an entry for one other end that is no progress of a knock.
    pub is_grant: bool,
    /// What became of it.
    pub why: Why,
}

/// Why an entry went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its time was over.
    Expired,
    /// Another one took its place.
    Evicted,
}

/// How far a source is in a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Steps taken.
    pub step: u8,
    /// The tag of the other end.
    pub to: u32,
    /// When the sequence began. Kept in milliseconds before `since`, and rounded down.
    pub begun: Time,
    /// When the packet arrived that took the last step.
    pub since: Time,
    /// When all this is over.
    pub expiry: Time,
}

impl Stored {
    /// Whether a packet that arrived now was overtaken, on another queue, by the one that took the last step.
    pub fn is_ahead_of(&self, now: Time) -> bool {
        now < self.since
    }
}

/// What is to become of a source's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// This takes the place of what there was, and is as old as the packet that is looked at now.
    Set {
        /// Steps taken.
        step: u8,
        /// The tag of the other end, which alone the entry counts for; 0 for all.
        to: u32,
        /// When the sequence began.
        begun: Time,
        /// The level from now on, lower ones too.
        level: u8,
        /// When it is over.
        expiry: Time,
    },
    /// It is forgotten.
    Clear,
}

/// An entry that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The list.
    pub list: ListId,
    /// Who is in it.
    pub address: IpAddr,
    /// The only VLAN that it counts in; [`Vlan::NONE`] if it counts in all.
    pub vlan: Vlan,
    /// The tag of the only other end that it counts for; 0 if it counts for all.
    pub to: u32,
    /// Steps of a sequence that were taken.
    pub step: u8,
    /// Until when.
    pub expiry: Time,
}

impl Seen {
    /// The only other end that it counts for. Of IPv6 ends only the tag is known, so that `::` stands for one.
    pub fn end(&self) -> Option<IpAddr> {
        end(self.address, self.to)
    }
}

impl Gone {
    /// As [`Seen::end`].
    pub fn end(&self) -> Option<IpAddr> {
        end(self.address, self.to)
    }
}

fn end(address: IpAddr, tag: u32) -> Option<IpAddr> {
    let end = match address {
        IpAddr::V4(_) => Ipv4Addr::from_bits(tag).into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    (tag != 0).then_some(end)
}

/// The lists cannot be created with this capacity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address lists for {capacity} entries need {bytes} bytes: {problem}")]
pub struct CapacityError {
    /// What was asked for.
    pub capacity: usize,
    /// What it takes.
    pub bytes: u64,
    /// Why not, and what to do.
    pub problem: &'static str,
}

/// More list names than there can be lists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no room for the address list `{name}`: {MAX_LISTS} names were used since start, and a name is kept until \
     the dataplane restarts; use fewer lists, or restart to forget the old names"
)]
pub struct TooManyLists {
    /// The first list without room.
    pub name: String,
}

/// Where an address is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) lists: ListSet,
    /// It has entries that do not count here: for other ends, or of packets that arrived later.
    pub(crate) elsewhere: bool,
}
