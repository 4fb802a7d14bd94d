//! A queue for each level, and the choice of the entry to evict.

use std::ops::Range;

use knockplane_policy::event::{EventKind, Origin};
use knockplane_policy::time::Time;

use super::entry::{Entry, Mark};
use super::memory::EXPIRY_PROBES;
use super::{EntryTerms, NIL, Shard};
use crate::state::key::AddressKey;
use crate::state::lists::{EndReason, LEVELS, ListId};

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
        } else {
            match heads.into_iter().take(queue_of(level) + 1).find(|slot| *slot != NIL) {
                Some(oldest) => {
                    if !self.end_expired_behind(oldest, now) {
                        self.end_entry(oldest, EndReason::Evicted, now);
                    }
                }
                None => {
                    self.sweep(EXPIRY_PROBES as usize, now);
                }
            }
        }
        self.take_free_slot()
    }

    /// Ends expired entries in the slots behind this one of a full shard. Returns whether there were any.
    #[inline]
    fn end_expired_behind(&mut self, slot: u32, now: Time) -> bool {
        let end = slot + 1 + EXPIRY_PROBES;
        let behind = slot + 1..end.min(self.slots);
        // Behind the last slot, the first ones.
        let first = 0..end.saturating_sub(self.slots).min(slot);
        let are_live = |slots: &Range<u32>| self.memory.slots(slots.clone()).all(|entry| entry.is_live(now));
        if are_live(&behind) && are_live(&first) {
            return false;
        }
        for slot in behind.chain(first) {
            if !self.entry(slot).is_live(now) {
                self.end_entry(slot, EndReason::Expired, now);
            }
        }
        true
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
            let of_list = |slot, entry: Entry<'_>| {
                entry.list() == list && entry.peer_tag() != 0 && shard.has_key(slot, entry, key)
            };
            shard.memory.candidates(hash).filter(move |(slot, entry)| of_list(*slot, *entry))
        };
        if others().count() < MAX_PEERS {
            return true;
        }
        let rank =
            |entry: Entry<'_>| (entry.is_live(terms.now), queue_of(entry.level()), entry.expiry(), entry.since());
        let Some((slot, entry)) = others().min_by_key(|(_, entry)| rank(*entry)) else { return true };
        let evicts = entry.is_live(terms.now);
        if evicts && queue_of(entry.level()) > queue_of(terms.level) {
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
        let entry = self.entry(slot);
        let (was_event, before, level_before) = (entry.is_event(), entry.expiry(), entry.level());
        if before != Time::NEVER {
            entry.set_expiry(expiry);
            if expiry < before {
                self.address_changed(slot);
            }
        }
        if cause.origin != Origin::Packet {
            entry.set_mark(Mark::new(entry.mark().step(), cause.origin));
        }
        let level = level_before.max(level);
        self.set_level(slot, level);
        self.enqueue(slot);
        let entry = self.entry(slot);
        if !entry.is_event() {
            return;
        }
        let is_news = || {
            let is_rare = entry.peer_tag() != 0 || cause.origin != Origin::Packet || entry.level() != level_before;
            is_rare || is_news(before, entry.expiry(), now)
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
        let before = self.entry(slot).level();
        self.entry(slot).set_level(level);
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
        let level = queue_of(self.entry(slot).level());
        let older = std::mem::replace(&mut self.queues[level].newest, slot);
        self.queues[level].length += 1;
        if older == NIL {
            self.set_oldest(level, slot);
        } else {
            self.entry(slot).set_older(older);
            self.entry(older).set_newer(slot);
        }
    }

    /// Removes an entry from the queue of its level. The links of the ends of a queue are not written: the next oldest
    /// entry need not be in a cache.
    pub(super) fn dequeue(&mut self, slot: u32) {
        let entry = self.entry(slot);
        let level = queue_of(entry.level());
        let (older, newer) = (entry.older(), entry.newer());
        let LevelQueue { oldest, newest, length } = &mut self.queues[level];
        let (is_oldest, is_newest) = (*oldest == slot, *newest == slot);
        *length -= 1;
        if is_newest {
            *newest = if is_oldest { NIL } else { older };
        } else if !is_oldest {
            self.entry(newer).set_older(older);
        }
        if is_oldest {
            self.set_oldest(level, if is_newest { NIL } else { newer });
        } else if !is_newest {
            self.entry(older).set_newer(newer);
        }
    }

    fn set_oldest(&mut self, level: usize, slot: u32) {
        self.queues[level].oldest = slot;
        if level == 0 {
            self.show_victim();
        }
    }

    /// Stores the entry that the next addition of a first step evicts, for readers without the lock.
    pub(super) fn show_victim(&self) {
        self.memory.set_victim(if self.fresh == self.slots { self.queues[0].oldest } else { NIL });
    }
}
