//! A slot of the slab, and its size.

use knockplane_policy::time::Time;
use knockplane_policy::word::Word;

use knockplane_policy::event::Origin;

use super::NIL;
use crate::state::events::Cause;
use crate::state::key::KeyKind;
use crate::state::lists::{ListId, SequenceProgress};

/// One address in one list. Packed, so that numbers of 8 bytes do not extend it to 64 bytes: a slot has 64 bytes with
/// its bucket.
#[repr(C, packed(4))]
pub(super) struct SlabEntry {
    /// The bits of the address.
    pub(super) high: u64,
    pub(super) low: u64,
    /// The arrival time of the packet that added the entry.
    pub(super) since: Time,
    pub(super) expiry: Time,
    /// The tag of the only peer that the entry counts for; 0 if it counts for all.
    pub(super) peer_tag: u32,
    /// The time of the first step of a sequence, in milliseconds before `since`.
    pub(super) begun_ms: u32,
    /// The lower half of the number of the event of the last change; 0 for first steps, which are no events.
    pub(super) changed: u32,
    /// The next slot in the bucket, or the next free slot.
    pub(super) chain: u32,
    /// The neighbours in the queue of its level.
    pub(super) older: u32,
    pub(super) newer: u32,
    pub(super) list: ListId,
    pub(super) level: u8,
    pub(super) kind: KeyKind,
    pub(super) mark: Mark,
}

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

/// Bytes per slot: an entry and its share of the buckets, of which there are as many as slots.
pub(crate) const SLOT_BYTES: usize = size_of::<SlabEntry>() + size_of::<u32>();
const _: () = assert!(SLOT_BYTES == 64);

/// Additional bytes of a slot whose entry is in a VLAN.
pub(crate) const VLAN_BYTES: usize = size_of::<VlanWords>();

/// [`Vlan::bits`] in three words. Unchanged, so that memory of zeros need not be written.
pub(super) type VlanWords = [u16; 3];

/// Additional bytes of a slot whose entry is a grant over IPv6.
pub(crate) const PEER_BYTES: usize = size_of::<PeerWords>();

/// The peer of a grant over IPv6. The entry itself contains only a tag.
pub(super) type PeerWords = [u64; 2];

impl SlabEntry {
    /// The content of a free slot.
    pub(super) const UNUSED: SlabEntry = SlabEntry {
        high: 0,
        low: 0,
        since: Time::from_nanos(0),
        expiry: Time::from_nanos(0),
        peer_tag: 0,
        begun_ms: 0,
        changed: 0,
        chain: NIL,
        older: NIL,
        newer: NIL,
        list: ListId(0),
        level: 0,
        kind: KeyKind::Free,
        mark: Mark::new(0, Origin::Packet),
    };

    pub(super) fn bits(&self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    pub(super) fn is_live(&self, now: Time) -> bool {
        now < { self.expiry }
    }

    /// Whether changes of the entry are events. Any source can take first steps. If one packet opens a door, the entry
    /// is a grant and no first step.
    pub(super) fn is_event(&self) -> bool {
        self.level > 0 || (self.peer_tag != 0 && self.mark.step() == 0)
    }

    pub(super) fn counts_for_peer(&self, peer_tag: u32) -> bool {
        self.peer_tag == 0 || self.peer_tag == peer_tag
    }

    pub(super) fn progress(&self) -> SequenceProgress {
        let begun = self.since.as_nanos().saturating_sub(u64::from(self.begun_ms) * NANOS_PER_MS);
        let SlabEntry { mark, peer_tag, since, expiry, .. } = *self;
        SequenceProgress { step: mark.step(), peer_tag, begun: Time::from_nanos(begun), since, expiry }
    }
}

pub(super) const NANOS_PER_MS: u64 = 1_000_000;
