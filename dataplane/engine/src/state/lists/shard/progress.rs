//! The progress of a source in a sequence of steps.

use knockplane_policy::event::EventKind;
use knockplane_policy::time::Time;

use super::entry::{Mark, NANOS_PER_MS};
use super::{EntryScope, EntryTerms, Shard};
use crate::state::events::Cause;
use crate::state::key::AddressKey;
use crate::state::lists::{AddOutcome, EndReason, ListId, ProgressChange, SequenceProgress};

impl Shard {
    /// Calls `decide` with the address's only entry in a list that contains the steps of a sequence. Returns the
    /// outcome of a set, if there was one.
    pub(crate) fn progress(
        &mut self,
        hash: u64,
        key: AddressKey,
        list: ListId,
        cause: &Cause,
        now: Time,
        decide: impl FnOnce(Option<SequenceProgress>) -> ProgressChange,
    ) -> (ProgressChange, Option<AddOutcome>) {
        let found = self.find(hash, key, |entry| entry.list() == list);
        let live = found.filter(|slot| self.entry(*slot).is_live(now));
        let change = decide(live.map(|slot| self.entry(slot).progress()));
        let added = match change {
            ProgressChange::Keep => None,
            ProgressChange::Clear => {
                found.into_iter().for_each(|slot| self.remove_slot(slot, EventKind::Removed, cause, now));
                None
            }
            ProgressChange::Set { step, peer_tag, begun, level, expiry } => Some(if let Some(slot) = live {
                // For a subscriber, progress towards another destination is another entry, and a first step is no
                // entry.
                let before = self.entry(slot);
                if before.is_event() && (before.peer_tag() != peer_tag || level == 0) {
                    self.publish(slot, EventKind::Removed, Some(cause), now);
                }
                self.dequeue(slot);
                self.set_level(slot, level);
                let entry = self.entry(slot);
                entry.set_since(entry.since().max(now));
                entry.set_peer_tag(peer_tag);
                entry.set_expiry(expiry);
                self.take_step(slot, step, begun);
                self.enqueue(slot);
                self.address_changed(slot);
                self.publish_step(slot, cause, now);
                AddOutcome::Refreshed
            } else {
                found.into_iter().for_each(|slot| self.end_entry(slot, EndReason::Expired, now));
                match self.insert(hash, key, EntryScope { list, peer_tag }, EntryTerms { level, expiry, now, cause }) {
                    Some(slot) => {
                        self.take_step(slot, step, begun);
                        self.publish_step(slot, cause, now);
                        AddOutcome::New
                    }
                    None => AddOutcome::Refused,
                }
            }),
        };
        (change, added)
    }

    /// Stores a step. The begin of the sequence never becomes later.
    fn take_step(&mut self, slot: u32, step: u8, begun: Time) {
        let entry = self.entry(slot);
        let ago = entry.since().as_nanos().saturating_sub(begun.as_nanos()).div_ceil(NANOS_PER_MS);
        entry.set_begun_ms(u32::try_from(ago).unwrap_or(u32::MAX));
        entry.set_mark(Mark::new(step, entry.mark().origin()));
    }

    fn publish_step(&mut self, slot: u32, cause: &Cause, now: Time) {
        if self.entry(slot).is_event() {
            self.publish(slot, EventKind::Stepped, Some(cause), now);
        }
    }
}
