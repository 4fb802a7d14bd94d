//! A queue for each level, and the choice of the entry to evict.

use knockplane_policy::event::{EventKind, Origin};
use knockplane_policy::time::Time;

use super::entry::{Mark, SlabEntry};
use super::{EntryTerms, NIL, Shard};
use crate::state::key::AddressKey;
use crate::state::lists::{EndReason, LEVELS, ListId};

/// The number of slots that a full shard checks for expired entries before it evicts an unexpired one. A larger number
/// would find room more often between two sweeps, but every packet of a flood pays for it: with ten million entries an
/// addition took 0.86 µs with 4 slots and 1.28 µs with 16. A smaller number saved nothing.
const EXPIRY_PROBES: usize = 4;

/// The maximum number of peers for which an address can be in one list. They share a bucket, which every lookup of the
/// address reads.
const MAX_PEERS: usize = 8;

/// Whether a packet's change of an expiry is worth an event. A connection may refresh an entry with each packet. An
/// event occurs when the expiry enters another interval of time. Between 8 and 16 such intervals make up the timeout of
/// the entry, and each is longer than a second. An expiry restored from events is too early by at most one interval.
fn is_news(before: Time, after: Time, now: Time) -> bool {
    const SECOND: u32 = 30;
    let time = after.as_nanos().saturating_sub(now.as_nanos());
    let part = time.checked_ilog2().unwrap_or_default().saturating_sub(3).max(SECOND);
    before.as_nanos() >> part != after.as_nanos() >> part || after <= now
}

/// The entries of one level, by the time of their last addition.
#[derive(Clone, Copy)]
pub(super) struct LevelQueue {
    pub(super) oldest: u32,
    pub(super) newest: u32,
    pub(super) length: u32,
}

/// The queue of a level: levels above the last queue share it.
pub(super) fn queue_of(level: u8) -> usize {
    usize::from(level).min(LEVELS - 1)
}

impl Shard {
    /// A slot for a new entry of this level. Evicts another entry if necessary.
    pub(super) fn make_room(&mut self, level: u8, now: Time) -> Option<u32> {
        if let Some(slot) = self.take_free_slot() {
            return Some(slot);
        }
        let heads = self.queues.map(|queue| queue.oldest);
        let expired = heads.into_iter().find(|slot| *slot != NIL && !self.entry(*slot).is_live(now));
        if let Some(slot) = expired {
            self.end_entry(slot, EndReason::Expired, now);
        } else if self.sweep(EXPIRY_PROBES, now) == 0 {
            let slot = heads.into_iter().take(queue_of(level) + 1).find(|slot| *slot != NIL)?;
            self.end_entry(slot, EndReason::Evicted, now);
        }
        self.take_free_slot()
    }

    /// If the address is in the list for the maximum number of peers, evicts the entry that expires first, and of
    /// several such entries the oldest. Returns whether there is room: no entry has a higher level than the new one.
    pub(super) fn make_room_for_peer(
        &mut self,
        hash: u64,
        key: AddressKey,
        list: ListId,
        terms: EntryTerms<'_>,
    ) -> bool {
        let shard = &*self;
        let others = || {
            let of_list =
                |slot, entry: &SlabEntry| entry.list == list && entry.peer_tag != 0 && shard.has_key(slot, entry, key);
            shard.bucket(hash).filter(move |(slot, entry)| of_list(*slot, entry))
        };
        if others().count() < MAX_PEERS {
            return true;
        }
        let rank = |entry: &SlabEntry| (entry.is_live(terms.now), queue_of(entry.level), entry.expiry, entry.since);
        let Some((slot, entry)) = others().min_by_key(|(_, entry)| rank(entry)) else { return true };
        let evicts = entry.is_live(terms.now);
        if evicts && queue_of(entry.level) > queue_of(terms.level) {
            return false;
        }
        self.end_entry(slot, if evicts { EndReason::Evicted } else { EndReason::Expired }, terms.now);
        true
    }

    /// Sets the expiry of an unexpired entry, except that a permanent entry stays permanent. The entry becomes the
    /// newest of its level, which never decreases.
    pub(super) fn refresh(&mut self, slot: u32, terms: EntryTerms<'_>) {
        let EntryTerms { level, expiry, now, cause } = terms;
        self.dequeue(slot);
        let entry = self.entry_mut(slot);
        let (was_event, before, level_before) = (entry.is_event(), entry.expiry, entry.level);
        if before != Time::NEVER {
            entry.expiry = expiry;
        }
        if cause.origin != Origin::Packet {
            entry.mark = Mark::new(entry.mark.step(), cause.origin);
        }
        let level = entry.level.max(level);
        self.set_level(slot, level);
        self.enqueue(slot);
        let entry = self.entry(slot);
        if !entry.is_event() {
            return;
        }
        let is_news = || {
            let is_rare = entry.peer_tag != 0 || cause.origin != Origin::Packet || entry.level != level_before;
            is_rare || is_news(before, entry.expiry, now)
        };
        if !was_event {
            self.publish(slot, EventKind::Listed, Some(cause), now);
        } else if is_news() {
            self.publish(slot, EventKind::Refreshed, Some(cause), now);
        }
    }

    /// Changes the level of an entry that is in no queue. A source that begins again may exceed the quota, because its
    /// entry exists already.
    pub(super) fn set_level(&mut self, slot: u32, level: u8) {
        let before = std::mem::replace(&mut self.entry_mut(slot).level, level);
        if let Some(quota) = &self.quota {
            match (before, level) {
                (0, 1..) => quota.give_back(self.key(slot)),
                (1.., 0) => quota.overdraw(self.key(slot)),
                _ => {}
            }
        }
    }

    /// Appends an entry to the queue of its level.
    pub(super) fn enqueue(&mut self, slot: u32) {
        let queue = queue_of(self.entry(slot).level);
        let older = std::mem::replace(&mut self.queues[queue].newest, slot);
        self.queues[queue].length += 1;
        let entry = self.entry_mut(slot);
        (entry.older, entry.newer) = (older, NIL);
        if older == NIL {
            self.queues[queue].oldest = slot;
        } else {
            self.entry_mut(older).newer = slot;
        }
    }

    /// Removes an entry from the queue of its level.
    pub(super) fn dequeue(&mut self, slot: u32) {
        let SlabEntry { older, newer, level, .. } = *self.entry(slot);
        let queue = queue_of(level);
        self.queues[queue].length -= 1;
        if older == NIL {
            self.queues[queue].oldest = newer;
        } else {
            self.entry_mut(older).newer = newer;
        }
        if newer == NIL {
            self.queues[queue].newest = older;
        } else {
            self.entry_mut(newer).older = older;
        }
    }
}
