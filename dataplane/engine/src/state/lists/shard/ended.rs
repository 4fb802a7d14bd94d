//! Ends entries: the sweep, eviction, and the report of ended entries.

use knockplane_policy::time::Time;

use super::Shard;
use super::entry::Entry;
use crate::state::key::Kind;
use crate::state::lists::{EndReason, EndedEntry, STEP};

/// Entries above level 0 that went unasked and were not told of yet, at most; further ones are counted. As many as one step
/// of a sweep can find.
pub(super) const MAX_ENDED: usize = STEP as usize;

impl Shard {
    /// Looks at the next slots, at most `slots` and at most to the end of those in use, and gives back what expired.
    /// Returns how many.
    pub(crate) fn sweep(&mut self, slots: usize, now: Time) -> usize {
        let begin = if self.cursor < self.fresh { self.cursor } else { 0 };
        let end = self.fresh.min(begin.saturating_add(u32::try_from(slots).unwrap_or(u32::MAX)));
        let mut expired = 0;
        for slot in begin..end {
            let entry = self.entry(slot);
            if entry.kind != Kind::Free && !entry.is_live(now) {
                self.end_entry(slot, EndReason::Expired);
                expired += 1;
            }
        }
        self.cursor = end;
        expired
    }

    /// Gives back a slot that nobody asked for, and notes that. Anyone can take first steps: they are no news. A grant is, also
    /// where one packet opens.
    pub(super) fn end_entry(&mut self, slot: u32, reason: EndReason) {
        let Entry { list, level, peer_tag, step, .. } = *self.entry(slot);
        match reason {
            EndReason::Expired => self.counts_mut(list).expired += 1,
            EndReason::Evicted => self.counts_mut(list).evicted += 1,
        }
        let (is_grant, key) = (peer_tag != 0 && step == 0, self.key(slot));
        let ended = EndedEntry { list, level, address: key.address(), vlan: key.vlan(), peer_tag, is_grant, reason };
        if (level > 0 || is_grant) && self.ended.len() < MAX_ENDED {
            self.ended.push(ended);
        } else if level > 0 || is_grant {
            self.unreported[usize::from(is_grant)] += 1;
        }
        self.free_slot(slot);
    }

    /// What went since the last time, put in the place of an empty list with room; and how many did not fit.
    pub(crate) fn take_ended(&mut self, ended: &mut Vec<EndedEntry>) -> [u64; 2] {
        std::mem::swap(&mut self.ended, ended);
        std::mem::take(&mut self.unreported)
    }
}
