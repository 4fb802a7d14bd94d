//! A set of slots with its lock.
//!
//! ```text
//! slots (two cache lines each) | tags, lock | serial numbers and marks | other cold parts
//! ```
//! Tags and lock share one cache line. A packet of an established connection needs this line and the two lines of its
//! slot. The cold parts are used when a connection begins or changes.

use std::hint::black_box;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use knockplane_policy::eval::tracking::{RememberedSyn, TcpConnection};
use knockplane_policy::strangers::KnownSources;
use knockplane_policy::time::Time;

use super::key::HashedKey;
use super::link::LinkHeader;
use super::payload::InspectedPayload;
use super::records::SetRecords;
use super::slot::{EvictionRank, Flags, Slot};
use crate::state::lanes::{LANES_OF_16, equal_lanes, store_bits};
use crate::state::sync::{Mutex, MutexGuard};

/// Slots of a set. With twice as many slots as the configured number of connections, about one set in some hundred is
/// full at the limit.
pub(super) const WAYS: usize = 16;

/// A set of slots.
#[repr(C, align(64))]
pub(super) struct ConnectionSet {
    slots: [Slot; WAYS],
    tags: Tags,
    cold: Mutex<ColdParts>,
}

/// The parts of a set's connections that most packets do not need.
#[repr(C)]
struct ColdParts {
    /// The state of payload inspection, if rules inspect payloads.
    payloads: Option<Box<[InspectedPayload; WAYS]>>,
    begun: [BegunConnection; WAYS],
    rare: [RareParts; WAYS],
    /// The records of the fast path, if there is one.
    records: Option<SetRecords>,
    /// Counts the connections of each source, if there is a fast path: those whose slots have a tag.
    sources: Option<KnownSources>,
}

/// The cold part that the begin of a connection writes.
#[derive(Clone, Copy)]
pub(super) struct BegunConnection {
    /// A unique serial number.
    pub(super) serial: u64,
    /// The number of a table, and for each of its `connection-limit` matchers one bit for each end of the connection that
    /// has reached the matcher.
    pub(super) marks: (u32, u32),
}

/// Parts that only the flags of some connections refer to. The begin of a connection does not write them.
#[derive(Clone, Copy)]
pub(super) struct RareParts {
    /// The time when the door cut the connection or when the last resets were sent, if the door has cut it.
    pub(super) cut: Time,
    /// The stored SYN, if the TCP flags say that there is one.
    remembered: Option<RememberedSyn>,
    /// The link header of the packet that a door's rule accepted, if the connection belongs to a door.
    pub(super) link: LinkHeader,
    /// The time from which the slot's record of the fast path can be used for another connection.
    pub(super) record_free: Time,
}

impl RareParts {
    const NONE: RareParts = RareParts {
        cut: Time::from_nanos(0),
        remembered: None,
        link: LinkHeader::NONE,
        record_free: Time::from_nanos(0),
    };
}

/// Parts of the keys' hashes, 16 bits for each slot: an odd number, or 0 for a free slot. An expired connection may
/// keep its tag.
struct Tags([AtomicU64; Tags::WORDS]);

/// A part of a hash.
#[derive(Clone, Copy)]
struct Tag(u16);

/// Slots of a set, in bits: the bit of a slot is at the position of its tag's lane, plus the number of its tag's word.
#[derive(Clone, Copy)]
struct Places(u64);

impl Tag {
    const FREE: Tag = Tag(0);

    /// The set uses other bits of the hash.
    #[inline]
    const fn of(key: &HashedKey) -> Tag {
        Tag((key.hash >> 48) as u16 | 1)
    }
}

impl Tags {
    const WORDS: usize = WAYS / 4;

    /// The slots with this tag.
    #[inline]
    fn places(&self, Tag(tag): Tag) -> Places {
        let places = self.0.iter().enumerate().map(|(number, word)| {
            let equal = equal_lanes(word.load(Relaxed), tag.into(), LANES_OF_16);
            equal >> (15 - number)
        });
        Places(places.fold(0, |places, word| places | word))
    }

    /// Whether the slot has no tag.
    fn is_free(&self, place: usize) -> bool {
        self.0[place % Tags::WORDS].load(Relaxed) >> (place / Tags::WORDS * 16) as u16 & 0xffff == 0
    }

    fn set(&self, place: usize, Tag(tag): Tag) {
        let position = (place / Tags::WORDS * 16) as u32;
        store_bits(&self.0[place % Tags::WORDS], position, u16::MAX.into(), tag.into());
    }
}

impl Iterator for Places {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros() as usize;
        if bit == u64::BITS as usize {
            return None;
        }
        self.0 &= self.0 - 1;
        // The mask changes nothing; the compiler omits the check of the array's bounds for it.
        Some((bit / 16 * Tags::WORDS + bit % 16) & (WAYS - 1))
    }
}

impl ConnectionSet {
    pub(super) const fn new() -> ConnectionSet {
        let begun = [BegunConnection { serial: 0, marks: (0, 0) }; WAYS];
        ConnectionSet {
            slots: [const { Slot::new() }; WAYS],
            tags: Tags([const { AtomicU64::new(0) }; Tags::WORDS]),
            cold: Mutex::new(ColdParts {
                payloads: None,
                begun,
                rare: [RareParts::NONE; WAYS],
                records: None,
                sources: None,
            }),
        }
    }

    #[inline]
    pub(super) fn lock(&self) -> LockedSet<'_> {
        LockedSet {
            slots: &self.slots,
            tags: &self.tags,
            cold: self.cold.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Loads the line of the tags and the lock into the cache.
    #[inline]
    pub(super) fn touch(&self) {
        black_box(self.tags.0[0].load(Relaxed));
    }

    /// Loads the lines of the slots that may have this connection into the cache.
    #[inline]
    pub(super) fn touch_slot(&self, key: &HashedKey) {
        self.tags.places(Tag::of(key)).for_each(|place| self.slots[place].touch());
    }
}

/// A set whose lock is held.
pub(super) struct LockedSet<'a> {
    slots: &'a [Slot; WAYS],
    tags: &'a Tags,
    cold: MutexGuard<'a, ColdParts>,
}

impl<'a> LockedSet<'a> {
    pub(super) const fn slot(&self, place: usize) -> &'a Slot {
        &self.slots[place]
    }

    /// The records of the fast path, if there is one.
    pub(super) fn records(&self) -> Option<&SetRecords> {
        self.cold.records.as_ref()
    }

    pub(super) fn set_records(&mut self, records: SetRecords) {
        self.cold.records = Some(records);
    }

    /// Counts the connections of each source from now on.
    pub(super) fn set_sources(&mut self, sources: KnownSources) {
        let tagged = (0..WAYS).filter(|place| !self.tags.is_free(*place));
        tagged.flat_map(|place| self.slots[place].key().addresses()).for_each(|end| sources.add(end));
        self.cold.sources = Some(sources);
    }

    /// Frees the tag of a slot.
    fn free_tag(&self, place: usize) {
        if let Some(sources) = self.cold.sources.as_ref().filter(|_| !self.tags.is_free(place)) {
            self.slots[place].key().addresses().into_iter().for_each(|end| sources.remove(end));
        }
        self.tags.set(place, Tag::FREE);
    }

    /// Whether the slot has a connection that has not expired. A carried connection is as young as its last packet.
    #[inline]
    fn is_known(&self, place: usize, now: Time) -> bool {
        self.refresh(place, now);
        self.slots[place].is_known(now)
    }

    /// The slots of known connections.
    pub(super) fn known(&self, now: Time) -> impl Iterator<Item = usize> {
        (0..WAYS).filter(move |place| self.is_known(*place, now))
    }

    #[inline]
    pub(super) fn find(&self, key: &HashedKey, now: Time) -> Option<usize> {
        self.tags.places(Tag::of(key)).find(|place| {
            let slot = &self.slots[*place];
            slot.has_key(&key.key) && self.is_known(*place, now)
        })
    }

    /// A slot for a new connection. `None` if all connections are established.
    pub(super) fn room(&self, now: Time) -> Option<usize> {
        self.tags.places(Tag::FREE).next().or_else(|| self.free_expired(now)).or_else(|| {
            let rank = |place: &usize| (self.slots[*place].flags().rank(), self.slots[*place].last());
            (0..WAYS).min_by_key(rank).filter(|place| rank(place).0 != EvictionRank::Established)
        })
    }

    /// Frees the slots of all expired connections, so that the next connections find them by their tags. Returns one of
    /// them.
    fn free_expired(&self, now: Time) -> Option<usize> {
        let expired = |place: &usize| !self.is_known(*place, now);
        (0..WAYS).filter(expired).fold(None, |_, place| {
            self.free_tag(place);
            Some(place)
        })
    }

    /// Begins a connection in this slot. The caller stores its expiry.
    pub(super) fn begin(&mut self, place: usize, key: &HashedKey, flags: Flags, serial: u64, now: Time) {
        self.leave_record(place, now);
        self.free_tag(place);
        self.cold.sources.iter().for_each(|sources| key.key.addresses().into_iter().for_each(|end| sources.add(end)));
        self.tags.set(place, Tag::of(key));
        self.slots[place].begin(&key.key, flags, now);
        self.cold.begun[place] = BegunConnection { serial, marks: (0, 0) };
    }

    /// Removes the connection in this slot.
    pub(super) fn remove(&self, place: usize) {
        self.end_verdicts(place);
        self.free_tag(place);
        self.slots[place].end();
    }

    pub(super) fn begun(&self, place: usize) -> &BegunConnection {
        &self.cold.begun[place]
    }

    pub(super) fn begun_mut(&mut self, place: usize) -> &mut BegunConnection {
        &mut self.cold.begun[place]
    }

    pub(super) fn rare(&self, place: usize) -> &RareParts {
        &self.cold.rare[place]
    }

    pub(super) fn rare_mut(&mut self, place: usize) -> &mut RareParts {
        &mut self.cold.rare[place]
    }

    pub(super) fn payload(&self, place: usize) -> Option<&InspectedPayload> {
        self.cold.payloads.as_ref().map(|payloads| &payloads[place])
    }

    pub(super) fn payload_mut(&mut self, place: usize) -> Option<&mut InspectedPayload> {
        self.cold.payloads.as_mut().map(|payloads| &mut payloads[place])
    }

    /// Allocates the state of payload inspection, once.
    pub(super) fn inspect_payloads(&mut self) {
        self.cold.payloads.get_or_insert_with(|| Box::new([InspectedPayload::default(); WAYS]));
    }

    pub(super) fn inspects_payloads(&self) -> bool {
        self.cold.payloads.is_some()
    }

    /// The TCP connection in this slot, which has these flags.
    #[inline]
    pub(super) fn tcp(&self, place: usize, flags: Flags) -> TcpConnection {
        TcpConnection::unpack(&self.slots[place].tcp(flags), || self.cold.rare[place].remembered)
    }

    /// Stores a TCP connection, except its flags. Returns the flags with those of the TCP connection.
    #[inline]
    pub(super) fn set_tcp(&mut self, place: usize, flags: Flags, tcp: &TcpConnection) -> Flags {
        let (packed, remembered) = tcp.pack();
        self.slots[place].set_numbers(&packed.numbers);
        if remembered.is_some() {
            self.cold.rare[place].remembered = remembered;
        }
        flags.with_tcp_flags(packed.flags)
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::from_ref;

    use super::*;

    #[test]
    fn tags_and_lock_share_a_cache_line() {
        let set = Box::new(ConnectionSet::new());
        let tags = from_ref(&set.tags).addr();
        assert_eq!(tags % 64, 0);
        // The lock is in front of the value that it protects.
        let cold = from_ref(&set.lock().cold.payloads).addr();
        assert!(from_ref(&set.cold).addr() < cold && cold + size_of::<usize>() <= tags + 64);
    }

    #[test]
    fn tags_select_exactly_the_slots_that_have_them() {
        let tags = Tags([const { AtomicU64::new(0) }; Tags::WORDS]);
        let values = [0, 1, 3, 0x7fff, 0x8001, 0xffff];
        let mut expected = [0; WAYS];
        // A sequence that visits slots and values in all combinations.
        for step in 0..5 * WAYS * values.len() {
            let (place, value) = (step * 7 % WAYS, values[step * 5 / WAYS % values.len()]);
            tags.set(place, Tag(value));
            expected[place] = value;
            for value in values {
                let mut places: Vec<_> = tags.places(Tag(value)).collect();
                places.sort_unstable();
                let wanted: Vec<_> = (0..WAYS).filter(|place| expected[*place] == value).collect();
                assert_eq!(places, wanted);
            }
        }
    }
}
