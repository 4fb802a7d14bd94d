//! Ends entries: the sweep, eviction, and the report of ended entries.

use knockplane_policy::event::EventKind;
use knockplane_policy::time::Time;

use super::Shard;
use crate::state::events::Cause;
use crate::state::lists::EndReason;

impl Shard {
    /// Checks the next slots, at most `slots` and at most to the end of those in use, and frees the slots of expired
    /// entries. Returns their number.
    pub(crate) fn sweep(&mut self, slots: usize, now: Time) -> usize {
        let begin = if self.cursor < self.fresh { self.cursor } else { 0 };
        let end = self.fresh.min(begin.saturating_add(u32::try_from(slots).unwrap_or(u32::MAX)));
        let mut expired = 0;
        for slot in begin..end {
            let entry = self.entry(slot);
            if !entry.is_free() && !entry.is_live(now) {
                self.end_entry(slot, EndReason::Expired, now);
                expired += 1;
            }
        }
        self.cursor = end;
        expired
    }

    /// Frees the slot of an entry that expired or is evicted.
    pub(super) fn end_entry(&mut self, slot: u32, reason: EndReason, now: Time) {
        let list = self.entry(slot).list();
        let kind = match reason {
            EndReason::Expired => {
                self.counts_mut(list).expired += 1;
                EventKind::Expired
            }
            EndReason::Evicted => {
                self.counts_mut(list).evicted += 1;
                EventKind::Evicted
            }
        };
        self.end(slot, kind, None, now);
    }

    /// Frees a slot, and publishes the event.
    fn end(&mut self, slot: u32, kind: EventKind, cause: Option<&Cause>, now: Time) {
        if self.entry(slot).is_event() {
            self.publish(slot, kind, cause, now);
        }
        self.free_slot(slot);
    }

    /// Frees a slot on request. If the entry had expired by then, the event is the expiry.
    pub(super) fn remove_slot(&mut self, slot: u32, kind: EventKind, cause: &Cause, now: Time) {
        match self.entry(slot).is_live(now) {
            true => self.end(slot, kind, Some(cause), now),
            false => self.end_entry(slot, EndReason::Expired, now),
        }
    }
}
