//! A slot of the slab, and its size.

use knockplane_policy::time::Time;

use super::NIL;
use crate::state::key::Kind;
use crate::state::lists::{ListId, SequenceProgress};

/// One address in one list.
pub(super) struct Entry {
    /// The address's bits. As one number they would want to be aligned, which would cost 8 bytes an entry.
    pub(super) high: u64,
    pub(super) low: u64,
    /// When the packet arrived that got it in.
    pub(super) since: Time,
    pub(super) expiry: Time,
    /// The tag of the only peer it counts for; 0 if it counts for all.
    pub(super) peer_tag: u32,
    /// When the first step of a sequence was taken: so many milliseconds before `since`.
    pub(super) begun_ms: u32,
    /// Next in the bucket, or next free slot.
    pub(super) chain: u32,
    /// Neighbours in the queue of its level.
    pub(super) older: u32,
    pub(super) newer: u32,
    pub(super) list: ListId,
    pub(super) level: u8,
    pub(super) kind: Kind,
    /// Steps of a sequence that were taken.
    pub(super) step: u8,
}

/// The part of an entry's key besides the address.
#[derive(Clone, Copy)]
pub(crate) struct EntryScope {
    pub(crate) list: ListId,
    pub(crate) peer_tag: u32,
}

/// How an entry is to be added.
#[derive(Clone, Copy)]
pub(crate) struct EntryTerms {
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
pub(super) type VlanWords = [u16; 3];

impl Entry {
    /// In a slot that is free.
    pub(super) const UNUSED: Entry = Entry {
        high: 0,
        low: 0,
        since: Time::from_nanos(0),
        expiry: Time::from_nanos(0),
        peer_tag: 0,
        begun_ms: 0,
        chain: NIL,
        older: NIL,
        newer: NIL,
        list: ListId(0),
        level: 0,
        kind: Kind::Free,
        step: 0,
    };

    pub(super) fn bits(&self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    pub(super) fn is_live(&self, now: Time) -> bool {
        now < self.expiry
    }

    pub(super) fn counts_for_peer(&self, peer_tag: u32) -> bool {
        self.peer_tag == 0 || self.peer_tag == peer_tag
    }

    pub(super) fn progress(&self) -> SequenceProgress {
        let begun = self.since.as_nanos().saturating_sub(u64::from(self.begun_ms) * NANOS_PER_MS);
        let Entry { step, peer_tag, since, expiry, .. } = *self;
        SequenceProgress { step, peer_tag, begun: Time::from_nanos(begun), since, expiry }
    }
}

pub(super) const NANOS_PER_MS: u64 = 1_000_000;
