//! One shard of the address lists: a slab of entries, a hash table over it, and a queue per level from oldest to
//! newest. Everything is allocated by [`Shard::new`]; from then on links change and nothing grows. Memory of slots is
//! written by [`Shard::populate`], or when a slot is used before that.
//!
//! ```text
//! buckets   [ 2 | - | 0 | - | … ]        an address's bucket, by its keyed hash; entries of a bucket are chained
//!             |       |                  (no tombstones, so the table never needs to be built anew)
//! entries   [ 0 | 1 | 2 | 3 | … ]        3 is free: free slots are chained too
//!             |   |   |
//! queues     1 → 2 → 0                   of one level: oldest first; a refresh moves an entry to the end
//! ```
//!
//! An entry counts until its expiry and not at it. It is given back when something comes by: an addition of the same
//! address, the search for room, or a [`Shard::sweep`].
//!
//! When the slab is full, an addition takes, in this order: an expired entry at the head of a queue; expired entries
//! among the next [`LOOK`] slots; the oldest entry of the lowest level, unless that level is higher than its own. If
//! there is none, it is refused.
//!
//! An entry may count for one other end alone, by a tag: then an address is in a list up to [`MOST_ENDS`] times.
//!
//! An address in a VLAN is another key than the address by itself. Which VLAN an entry is of stands beside the slab, in
//! memory that takes no page until such an entry comes: networks without VLANs pay nothing for it.

use std::ops::Range;
use std::sync::Arc;

use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use crate::state::key::{Key, Kind, Secret};
use crate::state::lists::quota::Quota;
use crate::state::lists::{Added, Change, Gone, LEVELS, ListId, Listed, MAX_LISTS, STEP, Seen, Stored, Why};

/// No slot. Slots are counted by `u32` to keep links small.
const NIL: u32 = u32::MAX;

/// How many slots a full shard looks at for expired entries before it evicts a live one. More would find room more
/// often between two sweeps, but every packet of a flood pays for it: with ten million entries an addition took 0.86 µs
/// with 4 slots and 1.28 µs with 16. Fewer saved nothing.
const LOOK: usize = 4;

/// Entries above level 0 that went unasked and were not told of yet, at most; further ones are counted. As many as one step
/// of a sweep can find.
const UNTOLD: usize = STEP as usize;

/// For how many other ends an address can be in one list. They share a bucket, which every lookup of the address walks.
const MOST_ENDS: usize = 8;

/// One address in one list.
struct Entry {
    /// The address's bits. As one number they would want to be aligned, which would cost 8 bytes an entry.
    high: u64,
    low: u64,
    /// When the packet arrived that got it in.
    since: Time,
    expiry: Time,
    /// The tag of the only other end it counts for; 0 if it counts for all.
    to: u32,
    /// When the first step of a sequence was taken: so many milliseconds before `since`.
    begun_ms: u32,
    /// Next in the bucket, or next free slot.
    chain: u32,
    /// Neighbours in the queue of its level.
    older: u32,
    newer: u32,
    list: ListId,
    level: u8,
    kind: Kind,
    /// Steps of a sequence that were taken.
    step: u8,
}

/// What an entry is found by, besides the address.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) list: ListId,
    pub(crate) to: u32,
}

/// How an entry is to be added.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) level: u8,
    pub(crate) expiry: Time,
    pub(crate) now: Time,
}

/// Bytes per slot: an entry and its share of the buckets, of which there are as many as slots.
pub(crate) const SLOT_BYTES: usize = size_of::<Entry>() + size_of::<u32>();
const _: () = assert!(SLOT_BYTES == 60);

/// What a slot takes besides, if its entry is of a VLAN.
pub(crate) const VLAN_BYTES: usize = size_of::<VlanWords>();

/// [`Vlan::bits`] in three words. As they are, so that the memory of zeros need not be written.
type VlanWords = [u16; 3];

impl Entry {
    /// In a slot that is free.
    const UNUSED: Entry = Entry {
        high: 0,
        low: 0,
        since: Time::from_nanos(0),
        expiry: Time::from_nanos(0),
        to: 0,
        begun_ms: 0,
        chain: NIL,
        older: NIL,
        newer: NIL,
        list: ListId(0),
        level: 0,
        kind: Kind::Free,
        step: 0,
    };

    fn bits(&self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    fn is_live(&self, now: Time) -> bool {
        now < self.expiry
    }

    fn counts_for(&self, to: u32) -> bool {
        self.to == 0 || self.to == to
    }

    fn stored(&self) -> Stored {
        let begun = self.since.as_nanos().saturating_sub(u64::from(self.begun_ms) * NANOS_PER_MS);
        let Entry { step, to, since, expiry, .. } = *self;
        Stored { step, to, begun: Time::from_nanos(begun), since, expiry }
    }
}

const NANOS_PER_MS: u64 = 1_000_000;

/// The entries of one level, by age since they were last added.
#[derive(Clone, Copy)]
struct Queue {
    oldest: u32,
    newest: u32,
    length: u32,
}

/// What happened to one list in this shard.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) entries: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) refused: u64,
}

/// See the module.
pub(crate) struct Shard {
    secret: Secret,
    /// Of level 0, if there is one.
    quota: Option<Arc<Quota>>,
    /// Room for all slots. Those that were written once, so that the kernel has given their memory, at least those that
    /// are used.
    entries: Vec<Entry>,
    /// How many slots there are.
    slots: u32,
    buckets: Box<[u32]>,
    /// The VLAN of each slot whose entry is in one; else what was there before.
    vlans: Vec<VlanWords>,
    /// Entries in VLANs.
    in_vlans: u32,
    queues: [Queue; LEVELS],
    /// First slot given back.
    free: u32,
    /// Slots from here on were never used.
    fresh: u32,
    /// Where the next sweep begins.
    cursor: u32,
    tallies: Box<[Tally; MAX_LISTS]>,
    gone: Vec<Gone>,
    /// Those that did not fit: others and grants.
    untold: [u64; 2],
}

/// The queue of a level: levels above the last queue share it.
fn queue_of(level: u8) -> usize {
    usize::from(level).min(LEVELS - 1)
}

impl Shard {
    /// An empty shard, its memory reserved; none if there is not enough. [`Shard::populate`] has the kernel give it.
    pub(crate) fn new(slots: u32, secret: Secret) -> Option<Shard> {
        let mut entries = Vec::new();
        entries.try_reserve_exact(slots as usize).ok()?;
        Some(Shard {
            secret,
            quota: None,
            entries,
            slots,
            buckets: boxed(slots as usize, || NIL)?,
            vlans: zeros(slots as usize)?,
            in_vlans: 0,
            queues: [Queue { oldest: NIL, newest: NIL, length: 0 }; LEVELS],
            free: NIL,
            fresh: 0,
            cursor: 0,
            tallies: Box::new([Tally::default(); MAX_LISTS]),
            gone: Vec::with_capacity(UNTOLD),
            untold: [0; 2],
        })
    }

    /// Writes at most `slots` slots that were never written. Returns whether there are more.
    pub(crate) fn populate(&mut self, slots: u32) -> bool {
        for _ in 0..slots.min(self.slots - self.entries.len() as u32) {
            self.entries.push(Entry::UNUSED);
        }
        self.entries.len() < self.slots as usize
    }

    /// From now on; nothing was added before.
    pub(crate) fn set_quota(&mut self, quota: Arc<Quota>) {
        self.quota = Some(quota);
    }

    /// The lists the address is in for the other end of this tag, and from when until when that is so if nothing is
    /// changed. `hash` is the secret's of the key, here and below.
    pub(crate) fn membership(&self, hash: u64, key: Key, to: u32, now: Time) -> (Listed, Range<Time>) {
        let (mut listed, mut from, mut until) = (Listed::default(), Time::default(), Time::NEVER);
        for (slot, entry) in self.bucket(hash) {
            if !self.is_of(slot, entry, key) {
                continue;
            }
            if !entry.is_live(now) {
                from = from.max(entry.expiry);
                continue;
            }
            if !entry.counts_for(to) {
                listed.elsewhere = true;
                continue;
            }
            // A packet that arrived before the one that got the address in is looked at later than that one only
            // because another worker was faster.
            if now < entry.since {
                until = until.min(entry.since);
                listed.elsewhere = true;
            } else {
                listed.lists.insert(entry.list);
                from = from.max(entry.since);
                until = until.min(entry.expiry);
            }
        }
        (listed, from..until)
    }

    /// Puts the address in the list until `expiry`, or sets its expiry anew.
    pub(crate) fn add(&mut self, hash: u64, key: Key, place: Place, terms: Terms) -> Added {
        if let Some(slot) = self.find(hash, key, |entry| (entry.list, entry.to) == (place.list, place.to)) {
            if self.entry(slot).is_live(terms.now) {
                self.refresh(slot, terms.level, terms.expiry);
                return Added::Refreshed;
            }
            self.give_up(slot, Why::Expired);
        }
        if place.to != 0 && !self.leave_room_for_another_end(hash, key, place.list, terms) {
            self.tally_mut(place.list).refused += 1;
            return Added::Refused;
        }
        self.insert(hash, key, place, terms).map_or(Added::Refused, |_| Added::New)
    }

    /// Works on the address's one entry in a list that holds the steps of a sequence. What was set, if anything was.
    pub(crate) fn progress(
        &mut self,
        hash: u64,
        key: Key,
        list: ListId,
        now: Time,
        decide: impl FnOnce(Option<Stored>) -> Change,
    ) -> (Change, Option<Added>) {
        let found = self.find(hash, key, |entry| entry.list == list);
        let live = found.filter(|slot| self.entry(*slot).is_live(now));
        let change = decide(live.map(|slot| self.entry(slot).stored()));
        let added = match change {
            Change::Keep => None,
            Change::Clear => {
                found.into_iter().for_each(|slot| self.clear(slot, now));
                None
            }
            Change::Set { step, to, begun, level, expiry } => Some(if let Some(slot) = live {
                self.dequeue(slot);
                self.set_level(slot, level);
                let entry = self.entry_mut(slot);
                entry.since = entry.since.max(now);
                (entry.to, entry.expiry) = (to, expiry);
                self.take_step(slot, step, begun);
                self.enqueue(slot);
                Added::Refreshed
            } else {
                found.into_iter().for_each(|slot| self.give_up(slot, Why::Expired));
                match self.insert(hash, key, Place { list, to }, Terms { level, expiry, now }) {
                    Some(slot) => {
                        self.take_step(slot, step, begun);
                        Added::New
                    }
                    None => Added::Refused,
                }
            }),
        };
        (change, added)
    }

    /// Takes the address out of the list in all VLANs, of the slots from `begin` on, at most `slots` of them. Whether it
    /// was in it, and where to go on.
    pub(crate) fn remove_in_vlans(
        &mut self,
        address: Key,
        list: ListId,
        (begin, slots): (u32, u32),
        now: Time,
    ) -> (bool, Option<u32>) {
        if self.in_vlans == 0 {
            return (false, None);
        }
        let end = self.fresh.min(begin.saturating_add(slots));
        let mut was_in_it = false;
        for slot in begin.min(end)..end {
            let entry = self.entry(slot);
            if entry.list == list && self.is_in_vlan_at(entry, address) {
                was_in_it |= entry.is_live(now);
                self.clear(slot, now);
            }
        }
        (was_in_it, (end < self.fresh).then_some(end))
    }

    /// Whether it is an entry of this address, or of the network that this is, in some VLAN.
    fn is_in_vlan_at(&self, entry: &Entry, address: Key) -> bool {
        entry.kind == address.kind.in_vlan() && entry.kind != address.kind && entry.bits() == address.bits
    }

    /// Takes the address out of the list, for the other end of this tag or for all. Whether it was in it.
    pub(crate) fn remove(&mut self, hash: u64, key: Key, list: ListId, to: Option<u32>, now: Time) -> bool {
        let mut was_in_it = false;
        let is_meant = |entry: &Entry| entry.list == list && to.is_none_or(|to| to == entry.to);
        while let Some(slot) = self.find(hash, key, is_meant) {
            was_in_it |= self.entry(slot).is_live(now);
            self.clear(slot, now);
        }
        was_in_it
    }

    /// Looks at the next slots, at most `slots` and at most to the end of those in use, and gives back what expired.
    /// Returns how many.
    pub(crate) fn sweep(&mut self, slots: usize, now: Time) -> usize {
        let begin = if self.cursor < self.fresh { self.cursor } else { 0 };
        let end = self.fresh.min(begin.saturating_add(u32::try_from(slots).unwrap_or(u32::MAX)));
        let mut expired = 0;
        for slot in begin..end {
            let entry = self.entry(slot);
            if entry.kind != Kind::Free && !entry.is_live(now) {
                self.give_up(slot, Why::Expired);
                expired += 1;
            }
        }
        self.cursor = end;
        expired
    }

    /// Shows the live entries of the slots from `begin` on, at most `slots` of them. Returns where to go on, or none at
    /// the end.
    pub(crate) fn visit(&self, begin: u32, slots: u32, now: Time, mut visitor: impl FnMut(Seen)) -> Option<u32> {
        let end = self.fresh.min(begin.saturating_add(slots));
        for slot in begin..end {
            let entry = self.entry(slot);
            if entry.kind != Kind::Free && entry.is_live(now) {
                visitor(self.seen(slot));
            }
        }
        (end < self.fresh).then_some(end)
    }

    /// As [`Shard::visit`], the entries of this address in all VLANs, with their levels.
    pub(crate) fn visit_in_vlans(
        &self,
        address: Key,
        (begin, slots): (u32, u32),
        now: Time,
        mut visitor: impl FnMut(Seen, u8),
    ) -> Option<u32> {
        if self.in_vlans == 0 {
            return None;
        }
        let end = self.fresh.min(begin.saturating_add(slots));
        for slot in begin.min(end)..end {
            let entry = self.entry(slot);
            if self.is_in_vlan_at(entry, address) && entry.is_live(now) {
                visitor(self.seen(slot), entry.level);
            }
        }
        (end < self.fresh).then_some(end)
    }

    fn seen(&self, slot: u32) -> Seen {
        let Entry { list, to, step, expiry, .. } = *self.entry(slot);
        let key = self.key(slot);
        Seen { list, address: key.address(), vlan: key.vlan(), to, step, expiry }
    }

    /// Shows the address's live entries, with their levels.
    pub(crate) fn show(&self, hash: u64, key: Key, now: Time, mut visitor: impl FnMut(Seen, u8)) {
        for (slot, entry) in self.bucket(hash) {
            if self.is_of(slot, entry, key) && entry.is_live(now) {
                visitor(self.seen(slot), entry.level);
            }
        }
    }

    /// When the address's entry that counts for all other ends is over, and whether it is of the highest rank; none if
    /// there is none.
    pub(crate) fn standing(&self, hash: u64, key: Key, list: ListId, now: Time) -> Option<(Time, bool)> {
        let slot = self.find(hash, key, |entry| (entry.list, entry.to) == (list, 0))?;
        let Entry { expiry, level, .. } = *self.entry(slot);
        self.entry(slot).is_live(now).then_some((expiry, queue_of(level) == LEVELS - 1))
    }

    /// How many more entries of the highest rank would leave a tenth of the slots to others.
    pub(crate) fn room_for_highest(&self) -> usize {
        let slots = self.slots as usize;
        (slots - slots / 10).saturating_sub(self.queues[LEVELS - 1].length as usize)
    }

    /// What happened to a list here.
    pub(crate) fn tally(&self, list: ListId) -> Tally {
        self.tallies[list.index()]
    }

    fn tally_mut(&mut self, list: ListId) -> &mut Tally {
        &mut self.tallies[list.index()]
    }

    fn entry(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }

    fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries[slot as usize]
    }

    /// The key of the slot's entry.
    fn key(&self, slot: u32) -> Key {
        let entry = self.entry(slot);
        let vlan = if entry.kind.is_in_vlan() { self.vlan(slot) } else { Vlan::NONE };
        Key { bits: entry.bits(), kind: entry.kind, vlan }
    }

    fn vlan(&self, slot: u32) -> Vlan {
        let [high, middle, low] = self.vlans[slot as usize].map(u64::from);
        Vlan::from_bits(high << 32 | middle << 16 | low)
    }

    /// Whether the slot's entry has this key.
    #[inline]
    fn is_of(&self, slot: u32, entry: &Entry, key: Key) -> bool {
        entry.bits() == key.bits && entry.kind == key.kind && (!key.kind.is_in_vlan() || self.vlan(slot) == key.vlan)
    }

    /// The entries of an address's bucket with their slots. The secret keeps it short but for entries of one address,
    /// of which there are few for each list.
    fn bucket(&self, hash: u64) -> impl Iterator<Item = (u32, &Entry)> {
        let mut slot = self.buckets[bucket_of(hash, self.buckets.len())];
        std::iter::from_fn(move || {
            let entry = self.entries.get(slot as usize)?;
            Some((std::mem::replace(&mut slot, entry.chain), entry))
        })
    }

    /// The address's entry that is meant, in its bucket.
    fn find(&self, hash: u64, key: Key, is_meant: impl Fn(&Entry) -> bool) -> Option<u32> {
        self.bucket(hash).find(|(slot, entry)| is_meant(entry) && self.is_of(*slot, entry, key)).map(|(slot, _)| slot)
    }

    /// A new entry's slot, unless everything is full of higher levels.
    fn insert(&mut self, hash: u64, key: Key, Place { list, to }: Place, terms: Terms) -> Option<u32> {
        let Terms { level, expiry, now } = terms;
        if self.quota_of(level).is_some_and(|quota| !quota.take(key)) {
            self.tally_mut(list).refused += 1;
            return None;
        }
        let Some(slot) = self.make_room(level, now) else {
            self.quota_of(level).into_iter().for_each(|quota| quota.give_back(key));
            self.tally_mut(list).refused += 1;
            return None;
        };
        let bucket = bucket_of(hash, self.buckets.len());
        let chain = std::mem::replace(&mut self.buckets[bucket], slot);
        let Key { bits, kind, vlan } = key;
        if kind.is_in_vlan() {
            let bits = vlan.bits();
            self.vlans[slot as usize] = [(bits >> 32) as u16, (bits >> 16) as u16, bits as u16];
            self.in_vlans += 1;
        }
        *self.entry_mut(slot) = Entry {
            high: (bits >> 64) as u64,
            low: bits as u64,
            since: now,
            expiry,
            to,
            begun_ms: 0,
            chain,
            older: NIL,
            newer: NIL,
            list,
            level,
            kind,
            step: 0,
        };
        self.enqueue(slot);
        self.tally_mut(list).entries += 1;
        Some(slot)
    }

    /// Notes a step. The sequence never began later than it did.
    fn take_step(&mut self, slot: u32, step: u8, begun: Time) {
        let entry = self.entry_mut(slot);
        let ago = entry.since.as_nanos().saturating_sub(begun.as_nanos()).div_ceil(NANOS_PER_MS);
        entry.begun_ms = u32::try_from(ago).unwrap_or(u32::MAX);
        entry.step = step;
    }

    /// Of the entries of an address in a list, for as many other ends as can be, the one that expires first gives way;
    /// of those the oldest. Whether there is room now: none has a higher level than the newcomer.
    fn leave_room_for_another_end(&mut self, hash: u64, key: Key, list: ListId, terms: Terms) -> bool {
        let shard = &*self;
        let others = || {
            let of_list = |slot, entry: &Entry| entry.list == list && entry.to != 0 && shard.is_of(slot, entry, key);
            shard.bucket(hash).filter(move |(slot, entry)| of_list(*slot, entry))
        };
        if others().count() < MOST_ENDS {
            return true;
        }
        let rank = |entry: &Entry| (entry.is_live(terms.now), queue_of(entry.level), entry.expiry, entry.since);
        let Some((slot, entry)) = others().min_by_key(|(_, entry)| rank(entry)) else { return true };
        let evicts = entry.is_live(terms.now);
        if evicts && queue_of(entry.level) > queue_of(terms.level) {
            return false;
        }
        self.give_up(slot, if evicts { Why::Evicted } else { Why::Expired });
        true
    }

    /// Sets a live entry's expiry anew, but what never expires stays so. It becomes the newest of its level, which only
    /// ever rises.
    fn refresh(&mut self, slot: u32, level: u8, expiry: Time) {
        self.dequeue(slot);
        let entry = self.entry_mut(slot);
        if entry.expiry != Time::NEVER {
            entry.expiry = expiry;
        }
        let level = entry.level.max(level);
        self.set_level(slot, level);
        self.enqueue(slot);
    }

    /// Changes the level of an entry that is in no queue. Who starts over may exceed the quota: its entry is there.
    fn set_level(&mut self, slot: u32, level: u8) {
        let before = std::mem::replace(&mut self.entry_mut(slot).level, level);
        if let Some(quota) = &self.quota {
            match (before, level) {
                (0, 1..) => quota.give_back(self.key(slot)),
                (1.., 0) => quota.overdraw(self.key(slot)),
                _ => {}
            }
        }
    }

    /// The quota that entries of this level count for, if there is one.
    fn quota_of(&self, level: u8) -> Option<&Quota> {
        self.quota.as_deref().filter(|_| level == 0)
    }

    /// A slot for a new entry of this level, taken from another if need be.
    fn make_room(&mut self, level: u8, now: Time) -> Option<u32> {
        if let Some(slot) = self.unused() {
            return Some(slot);
        }
        let heads = self.queues.map(|queue| queue.oldest);
        let expired = heads.into_iter().find(|slot| *slot != NIL && !self.entry(*slot).is_live(now));
        if let Some(slot) = expired {
            self.give_up(slot, Why::Expired);
        } else if self.sweep(LOOK, now) == 0 {
            let slot = heads.into_iter().take(queue_of(level) + 1).find(|slot| *slot != NIL)?;
            self.give_up(slot, Why::Evicted);
        }
        self.unused()
    }

    /// Takes a slot that holds nothing.
    fn unused(&mut self) -> Option<u32> {
        if self.free != NIL {
            let slot = self.free;
            self.free = self.entry(slot).chain;
            Some(slot)
        } else if self.fresh < self.slots {
            if self.fresh as usize == self.entries.len() {
                // There is room: nothing moves.
                self.entries.push(Entry::UNUSED);
            }
            self.fresh += 1;
            Some(self.fresh - 1)
        } else {
            None
        }
    }

    /// Gives back a slot as asked; if it was over by then, that is what became of it.
    fn clear(&mut self, slot: u32, now: Time) {
        match self.entry(slot).is_live(now) {
            true => self.release(slot),
            false => self.give_up(slot, Why::Expired),
        }
    }

    /// Gives back a slot that nobody asked for, and notes that. Anyone can take first steps: they are no news. A grant is, also
    /// where one packet opens.
    fn give_up(&mut self, slot: u32, why: Why) {
        let Entry { list, level, to, step, .. } = *self.entry(slot);
        match why {
            Why::Expired => self.tally_mut(list).expired += 1,
            Why::Evicted => self.tally_mut(list).evicted += 1,
        }
        let (is_grant, key) = (to != 0 && step == 0, self.key(slot));
        let gone = Gone { list, level, address: key.address(), vlan: key.vlan(), to, is_grant, why };
        if (level > 0 || is_grant) && self.gone.len() < UNTOLD {
            self.gone.push(gone);
        } else if level > 0 || is_grant {
            self.untold[usize::from(is_grant)] += 1;
        }
        self.release(slot);
    }

    /// What went since the last time, put in the place of an empty list with room; and how many did not fit.
    pub(crate) fn take_gone(&mut self, gone: &mut Vec<Gone>) -> [u64; 2] {
        std::mem::swap(&mut self.gone, gone);
        std::mem::take(&mut self.untold)
    }

    /// Gives a slot back: out of its bucket, its queue and its list's count.
    fn release(&mut self, slot: u32) {
        let Entry { chain, list, level, .. } = *self.entry(slot);
        let key = self.key(slot);
        self.in_vlans -= u32::from(key.is_in_vlan());
        self.quota_of(level).into_iter().for_each(|quota| quota.give_back(key));
        let bucket = bucket_of(self.secret.hash(key), self.buckets.len());
        let mut before = self.buckets[bucket];
        if before == slot {
            self.buckets[bucket] = chain;
        } else {
            while self.entry(before).chain != slot {
                before = self.entry(before).chain;
            }
            self.entry_mut(before).chain = chain;
        }
        self.dequeue(slot);
        self.tally_mut(list).entries -= 1;
        let free = std::mem::replace(&mut self.free, slot);
        let entry = self.entry_mut(slot);
        (entry.kind, entry.chain) = (Kind::Free, free);
    }

    /// Appends an entry to the queue of its level.
    fn enqueue(&mut self, slot: u32) {
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

    /// Takes an entry out of the queue of its level.
    fn dequeue(&mut self, slot: u32) {
        let Entry { older, newer, level, .. } = *self.entry(slot);
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

/// Maps the lower half of a hash to a bucket; the upper bits chose the shard. Source: Lemire, "Fast random integer
/// generation in an interval", which needs no power of two.
fn bucket_of(hash: u64, buckets: usize) -> usize {
    ((u64::from(hash as u32) * buckets as u64) >> 32) as usize
}

/// So many zeros, or none if there is no memory for them. Their pages are given when they are first written.
fn zeros(length: usize) -> Option<Vec<VlanWords>> {
    // Whether there is room is only asked here: to fill what was reserved would write it.
    Vec::<VlanWords>::new().try_reserve_exact(length).ok()?;
    Some(vec![[0; 3]; length])
}

/// A slice of this length, or none if there is no memory for it.
pub(crate) fn boxed<T>(length: usize, element: impl FnMut() -> T) -> Option<Box<[T]>> {
    let mut elements = Vec::new();
    elements.try_reserve_exact(length).ok()?;
    elements.extend(std::iter::repeat_with(element).take(length));
    Some(elements.into_boxed_slice())
}

#[cfg(test)]
mod tests;
