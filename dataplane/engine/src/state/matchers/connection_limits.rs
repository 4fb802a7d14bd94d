//! The state of the matcher `connection-limit`: the connections that reached a matcher, by the prefix of their source.
//!
//! The state contains a connection once, when the connection first reaches the matcher. The matcher checks whether
//! these connections are still open only when their number might exceed the limit, so that a packet costs a lookup and
//! not a count. The state is bounded: when it is full, a new connection exceeds the limit of its prefix.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use ipnet::IpNet;
use knockplane_policy::time::Time;

use crate::state::connections::{ConnectionTable, ConnectionView, PackedKey};
use crate::state::keyed::{Tag, tag, write_address};

/// The maximum number of matchers of a table: a connection has two bits for each, one for each end.
pub(crate) const MOST_MATCHERS: u32 = 16;

/// The connection limits of one table.
pub(crate) struct ConnectionLimits {
    secret: [u64; 2],
    /// The number of the table. Bits that connections have from another table do not count.
    table: u32,
    counted: Mutex<CountedConnections>,
}

/// Lists of connections in one slab.
struct CountedConnections {
    slots: Vec<CountedSlot>,
    free: u32,
    /// First slot and length of each prefix's list.
    prefixes: HashMap<Tag, (u32, u32)>,
    /// The time of the next sweep of all lists.
    next_sweep: Time,
}

struct CountedSlot {
    key: PackedKey,
    serial: u64,
    next: u32,
}

/// The prefix of a source whose connections are counted together.
#[derive(Clone, Copy)]
pub(crate) struct SourcePrefix {
    /// The source.
    pub(crate) address: IpAddr,
    /// The length of the prefix.
    pub(crate) length: u8,
}

/// The end of a list.
const END: u32 = u32::MAX;

/// A matcher, by its position among those of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MatcherId(pub(crate) u32);

impl ConnectionLimits {
    /// Creates room for `connections` connections in total, for all matchers and prefixes.
    pub(crate) fn new(table: u32, connections: usize, secret: [u64; 2]) -> ConnectionLimits {
        let counted = CountedConnections {
            slots: Vec::with_capacity(connections),
            free: END,
            // There are never more prefixes than connections. With this capacity the map never rehashes.
            prefixes: HashMap::with_capacity(connections),
            next_sweep: Time::default(),
        };
        ConnectionLimits { secret, table, counted: Mutex::new(counted) }
    }

    /// Whether the open connections of the source's prefix that have reached the matcher exceed the limit. The count
    /// includes this connection. `None` if the table of connections does not contain this connection.
    pub(crate) fn exceeds(
        &self,
        flows: &ConnectionTable,
        MatcherId(matcher): MatcherId,
        flow: &ConnectionView,
        source: SourcePrefix,
        count: u32,
        now: Time,
    ) -> Option<bool> {
        let key = &flow.key;
        let masked = |address: IpAddr| masked(address, source.length);
        // A connection has a bit for each end. The bits tell whether the connection is in the list of the ends' prefix,
        // whichever packet put it there: one of an end, or an ICMP error that an end sent about the connection.
        let ends =
            (0_u32..).zip(key.key.flow_key().ends).filter(|(_, (end, _))| masked(*end) == masked(source.address));
        let bits = ends.fold(0, |bits, (end, _)| bits | 1 << (2 * matcher + end));
        let (serial, mut is_news) = flows.mark(key, self.table, bits, now)?;
        let prefix = self.prefix(MatcherId(matcher), masked(source.address));
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if bits == 0 {
            // A router between the ends sent the ICMP error.
            is_news = !counted.holds(prefix, serial);
        }
        let is_open = |key: PackedKey, serial| flows.is_open(key, serial, now);
        let has_room = !is_news || counted.note(prefix, key.key, serial) || {
            counted.sweep(is_open, now);
            counted.note(prefix, key.key, serial)
        };
        if has_room && counted.length(prefix) <= count {
            return Some(false);
        }
        counted.forget(prefix, is_open);
        Some(!has_room || counted.length(prefix) > count)
    }

    /// The number of connections of the source's prefix that have reached the matcher, including some that have closed
    /// since.
    pub(crate) fn count(&self, matcher: MatcherId, source: IpAddr, prefix_length: u8) -> u32 {
        let prefix = self.prefix(matcher, masked(source, prefix_length));
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).length(prefix)
    }

    fn prefix(&self, MatcherId(matcher): MatcherId, first: IpAddr) -> Tag {
        tag(self.secret, |hasher| {
            write_address(hasher, first);
            hasher.write_u32(matcher);
        })
    }
}

/// The first address of the prefix.
fn masked(address: IpAddr, prefix_length: u8) -> IpAddr {
    IpNet::new(address, prefix_length).map_or(address, |net| net.network())
}

impl CountedConnections {
    fn length(&self, prefix: Tag) -> u32 {
        self.prefixes.get(&prefix).map_or(0, |(_, length)| *length)
    }

    fn holds(&self, prefix: Tag, serial: u64) -> bool {
        let mut place = self.prefixes.get(&prefix).map_or(END, |(first, _)| *first);
        while let Some(slot) = self.slots.get(place as usize) {
            if slot.serial == serial {
                return true;
            }
            place = slot.next;
        }
        false
    }

    /// Adds a connection to a prefix's list. Returns whether there was room.
    fn note(&mut self, prefix: Tag, key: PackedKey, serial: u64) -> bool {
        let (first, length) = self.prefixes.get(&prefix).copied().unwrap_or((END, 0));
        let slot = CountedSlot { key, serial, next: first };
        let place = match self.free {
            END if self.slots.len() < self.slots.capacity() => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
            END => return false,
            free => {
                self.free = std::mem::replace(&mut self.slots[free as usize], slot).next;
                free
            }
        };
        self.prefixes.insert(prefix, (place, length + 1));
        true
    }

    /// Removes closed connections from all lists, at most once a second, because a sweep takes some milliseconds.
    fn sweep(&mut self, is_open: impl Fn(PackedKey, u64) -> bool, now: Time) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + Duration::from_secs(1);
        let mut lists = std::mem::take(&mut self.prefixes);
        lists.retain(|_, list| {
            *list = self.thin(list.0, &is_open);
            list.1 > 0
        });
        self.prefixes = lists;
    }

    /// Removes closed connections from a prefix's list.
    fn forget(&mut self, prefix: Tag, is_open: impl Fn(PackedKey, u64) -> bool) {
        let Some((first, _)) = self.prefixes.remove(&prefix) else { return };
        let list = self.thin(first, is_open);
        if list.1 > 0 {
            self.prefixes.insert(prefix, list);
        }
    }

    /// Removes closed connections from a list. Returns its first slot and its length.
    fn thin(&mut self, mut place: u32, is_open: impl Fn(PackedKey, u64) -> bool) -> (u32, u32) {
        let (mut first, mut length) = (END, 0);
        while place != END {
            let slot = &mut self.slots[place as usize];
            let next = slot.next;
            if is_open(slot.key, slot.serial) {
                slot.next = std::mem::replace(&mut first, place);
                length += 1;
            } else {
                slot.next = std::mem::replace(&mut self.free, place);
            }
            place = next;
        }
        (first, length)
    }
}
