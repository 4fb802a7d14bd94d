//! A slot of the slab, and its size.

use std::sync::atomic::Ordering::Relaxed;

use knockplane_policy::event::Origin;
use knockplane_policy::time::Time;
use knockplane_policy::word::Word;

use super::line::Line;
use crate::state::events::Cause;
use crate::state::key::{AddressKey, KeyKind};
use crate::state::lanes::store_bits;
use crate::state::lists::{ListId, SequenceProgress};

/// One address in one list: a line of the slab. Zeros are a free slot.
#[derive(Clone, Copy)]
pub(super) struct Entry<'m>(pub(super) &'m Line);

/// The words of an entry. The other fields are parts of the words behind them.
const HIGH: usize = 0;
const LOW: usize = 1;
const SINCE: usize = 2;
const EXPIRY: usize = 3;

/// A part of an entry's word: the word, and its lowest bit.
#[derive(Clone, Copy)]
struct Part(usize, u32);

/// Parts of 32 bits.
const PEER_TAG: Part = Part(4, 0);
const BEGUN_MS: Part = Part(4, 32);
const CHANGED: Part = Part(5, 0);
const NEXT: Part = Part(5, 32);
const OLDER: Part = Part(6, 0);
const NEWER: Part = Part(6, 32);
const HASH: Part = Part(7, 0);

/// Parts of 8 bits.
const LIST: Part = Part(7, 32);
const LEVEL: Part = Part(7, 40);
const KIND: Part = Part(7, 48);
const MARK: Part = Part(7, 56);

/// The number of steps of a sequence that were taken, at most 31 (a door has 16), and in the upper bits the origin of
/// the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u8);

impl Mark {
    const STEP_BITS: u8 = 5;
    const MOST_STEPS: u8 = (1 << Mark::STEP_BITS) - 1;

    pub(super) const fn new(step: u8, origin: Origin) -> Mark {
        let step = if step > Mark::MOST_STEPS { Mark::MOST_STEPS } else { step };
        Mark((origin as u8) << Mark::STEP_BITS | step)
    }

    pub(super) const fn step(self) -> u8 {
        self.0 & Mark::MOST_STEPS
    }

    pub(super) fn origin(self) -> Origin {
        // The value was created from one of them.
        Origin::ALL.get(usize::from(self.0 >> Mark::STEP_BITS)).copied().unwrap_or(Origin::Packet)
    }
}

/// The part of an entry's key besides the address.
#[derive(Clone, Copy)]
pub(crate) struct EntryScope {
    pub(crate) list: ListId,
    pub(crate) peer_tag: u32,
}

/// The properties of an addition.
#[derive(Clone, Copy)]
pub(crate) struct EntryTerms<'c> {
    pub(crate) level: u8,
    pub(crate) expiry: Time,
    pub(crate) now: Time,
    pub(crate) cause: &'c Cause,
}

/// Additional bytes of a slot whose entry is in a VLAN.
pub(crate) const VLAN_BYTES: usize = size_of::<VlanWords>();

/// [`Vlan::bits`](knockplane_policy::packet::Vlan::bits) in three words. Unchanged, so that memory of zeros need not be
/// written.
pub(super) type VlanWords = [u16; 3];

/// Additional bytes of a slot whose entry is a grant over IPv6.
pub(crate) const PEER_BYTES: usize = size_of::<PeerWords>();

/// The peer of a grant over IPv6. The entry itself contains only a tag.
pub(super) type PeerWords = [u64; 2];

impl Entry<'_> {
    /// Writes a new entry, without its place in the queue and in its bucket.
    #[inline]
    pub(super) fn write(self, hash: u64, key: AddressKey, scope: EntryScope, terms: EntryTerms<'_>) {
        self.set_word(HIGH, (key.bits >> 64) as u64);
        self.set_word(LOW, key.bits as u64);
        self.set_since(terms.now);
        self.set_expiry(terms.expiry);
        self.set_word(PEER_TAG.0, scope.peer_tag.into());
        self.set_word(CHANGED.0, 0);
        let mark = Mark::new(0, terms.cause.origin);
        let bytes = u32::from_le_bytes([scope.list.0, terms.level, key.kind as u8, mark.0]);
        self.set_word(HASH.0, u64::from(bytes) << LIST.1 | u64::from(hash as u32));
    }

    #[inline]
    fn word(self, word: usize) -> u64 {
        self.0[word].load(Relaxed)
    }

    #[inline]
    fn set_word(self, word: usize, value: u64) {
        self.0[word].store(value, Relaxed);
    }

    #[inline]
    fn half(self, Part(word, bit): Part) -> u32 {
        (self.word(word) >> bit) as u32
    }

    #[inline]
    fn set_half(self, Part(word, bit): Part, value: u32) {
        store_bits(&self.0[word], bit, u32::MAX.into(), value.into());
    }

    #[inline]
    fn byte(self, Part(word, bit): Part) -> u8 {
        (self.word(word) >> bit) as u8
    }

    #[inline]
    fn set_byte(self, Part(word, bit): Part, value: u8) {
        store_bits(&self.0[word], bit, u8::MAX.into(), value.into());
    }

    #[inline]
    pub(super) fn bits(self) -> u128 {
        u128::from(self.word(HIGH)) << 64 | u128::from(self.word(LOW))
    }

    /// The lower half of the keyed hash of the key. It determines the entry's bucket and tag.
    #[inline]
    pub(super) fn hash(self) -> u32 {
        self.half(HASH)
    }

    /// The arrival time of the packet that added the entry.
    pub(super) fn since(self) -> Time {
        Time::from_nanos(self.word(SINCE))
    }

    pub(super) fn set_since(self, since: Time) {
        self.set_word(SINCE, since.as_nanos());
    }

    pub(super) fn expiry(self) -> Time {
        Time::from_nanos(self.word(EXPIRY))
    }

    pub(super) fn set_expiry(self, expiry: Time) {
        self.set_word(EXPIRY, expiry.as_nanos());
    }

    /// The tag of the only peer that the entry counts for; 0 if it counts for all.
    pub(super) fn peer_tag(self) -> u32 {
        self.half(PEER_TAG)
    }

    pub(super) fn set_peer_tag(self, peer_tag: u32) {
        self.set_half(PEER_TAG, peer_tag);
    }

    /// Sets the time of the first step of a sequence, in milliseconds before [`Entry::since`].
    pub(super) fn set_begun_ms(self, milliseconds: u32) {
        self.set_half(BEGUN_MS, milliseconds);
    }

    /// The lower half of the number of the event of the last change; 0 for first steps, which are no events.
    pub(super) fn changed(self) -> u32 {
        self.half(CHANGED)
    }

    pub(super) fn set_changed(self, number: u32) {
        self.set_half(CHANGED, number);
    }

    /// The next slot in the overflow chain of the bucket, or the next free slot.
    #[inline]
    pub(super) fn next(self) -> u32 {
        self.half(NEXT)
    }

    pub(super) fn set_next(self, slot: u32) {
        self.set_half(NEXT, slot);
    }

    /// The next older entry of its level; a previous value if the entry is the oldest.
    pub(super) fn older(self) -> u32 {
        self.half(OLDER)
    }

    pub(super) fn set_older(self, slot: u32) {
        self.set_half(OLDER, slot);
    }

    /// The next newer entry of its level; a previous value if the entry is the newest.
    #[inline]
    pub(super) fn newer(self) -> u32 {
        self.half(NEWER)
    }

    pub(super) fn set_newer(self, slot: u32) {
        self.set_half(NEWER, slot);
    }

    pub(super) fn list(self) -> ListId {
        ListId(self.byte(LIST))
    }

    pub(super) fn level(self) -> u8 {
        self.byte(LEVEL)
    }

    pub(super) fn set_level(self, level: u8) {
        self.set_byte(LEVEL, level);
    }

    #[inline]
    pub(super) fn kind(self) -> KeyKind {
        KeyKind::from_byte(self.byte(KIND))
    }

    pub(super) fn set_kind(self, kind: KeyKind) {
        self.set_byte(KIND, kind as u8);
    }

    pub(super) fn mark(self) -> Mark {
        Mark(self.byte(MARK))
    }

    pub(super) fn set_mark(self, mark: Mark) {
        self.set_byte(MARK, mark.0);
    }

    /// Whether the key is of this kind.
    #[inline]
    pub(super) fn has_kind(self, kind: KeyKind) -> bool {
        self.byte(KIND) == kind as u8
    }

    #[inline]
    pub(super) fn is_free(self) -> bool {
        self.has_kind(KeyKind::Free)
    }

    pub(super) fn is_live(self, now: Time) -> bool {
        now < self.expiry()
    }

    /// Whether changes of the entry are events. Any source can take first steps. If one packet opens a door, the entry
    /// is a grant and no first step.
    pub(super) fn is_event(self) -> bool {
        self.level() > 0 || (self.peer_tag() != 0 && self.mark().step() == 0)
    }

    pub(super) fn counts_for_peer(self, peer_tag: u32) -> bool {
        let tag = self.peer_tag();
        tag == 0 || tag == peer_tag
    }

    pub(super) fn progress(self) -> SequenceProgress {
        let since = self.since();
        let begun = since.as_nanos().saturating_sub(u64::from(self.half(BEGUN_MS)) * NANOS_PER_MS);
        SequenceProgress {
            step: self.mark().step(),
            peer_tag: self.peer_tag(),
            begun: Time::from_nanos(begun),
            since,
            expiry: self.expiry(),
        }
    }
}

pub(super) const NANOS_PER_MS: u64 = 1_000_000;
