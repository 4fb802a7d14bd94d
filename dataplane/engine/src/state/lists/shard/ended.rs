//! Entries end: the sweep, and what is told of it.

use knockplane_policy::time::Time;

use super::Shard;
use super::entry::Entry;
use crate::state::key::Kind;
use crate::state::lists::{Gone, STEP, Why};

/// Entries above level 0 that went unasked and were not told of yet, at most; further ones are counted. As many as one step
/// of a sweep can find.
pub(super) const UNTOLD: usize = STEP as usize;

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
                self.give_up(slot, Why::Expired);
                expired += 1;
            }
        }
        self.cursor = end;
        expired
    }

    /// Gives back a slot that nobody asked for, and notes that. Anyone can take first steps: they are no news. A grant is, also
    /// where one packet opens.
    pub(super) fn give_up(&mut self, slot: u32, why: Why) {
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
}
