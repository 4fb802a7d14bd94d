//! Entries that expire or are evicted, and the counts of each list.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;
use knockplane_policy::wire::ListSummary;

use super::entries::end;
use super::{ListId, Lists, STEP, lock};
use crate::state::lists::shard::Tally;

/// A grant, or another entry above level 0, that is in the lists no more, though nobody took it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The list.
    pub list: ListId,
    /// The entry's level.
    pub level: u8,
    /// The address.
    pub address: IpAddr,
    /// The only VLAN that it counted in; [`Vlan::NONE`] if it counted in all.
    pub vlan: Vlan,
    /// The tag of the only other end that it counted for; 0 if it counted for all.
    pub to: u32,
    /// It was a grant: an entry for one other end that is no progress of a knock.
    pub is_grant: bool,
    /// What became of it.
    pub why: Why,
}

/// Why an entry went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its time was over.
    Expired,
    /// Another one took its place.
    Evicted,
}

impl Gone {
    /// As [`Seen::end`].
    pub fn end(&self) -> Option<IpAddr> {
        end(self.address, self.to)
    }
}

impl Lists {
    /// Gives back entries that expired, looking at `budget` slots (rounded up to 512) where the last call ended. Returns
    /// how many.
    ///
    /// With a budget of [`Lists::capacity`] and 65,536 more in each second, no entry is counted for more than a second
    /// after it expired. That costs 6 ns a used slot: with ten million entries 6 % of a core.
    pub fn sweep(&self, budget: usize, now: Time) -> usize {
        self.sweep_telling(budget, now, |_| {})
    }

    /// As [`Lists::sweep`], telling of grants and other entries above level 0 that went, by this sweep or since the last one: with the same
    /// budget, within a second.
    pub fn sweep_telling(&self, budget: usize, now: Time, mut tell: impl FnMut(Gone)) -> usize {
        let [mut earlier, mut gone] = [(); 2].map(|()| Vec::with_capacity(STEP as usize));
        let mut step = |_| {
            let next = self.swept.fetch_add(1, Ordering::Relaxed) % self.shards.len();
            let mut shard = lock(&self.shards[next].shard);
            // First, so that what is found now has room.
            let before = shard.take_gone(&mut earlier);
            let expired = shard.sweep(STEP as usize, now);
            let after = shard.take_gone(&mut gone);
            drop(shard);
            earlier.drain(..).chain(gone.drain(..)).for_each(&mut tell);
            for (untold, (before, after)) in self.untold.iter().zip(before.into_iter().zip(after)) {
                untold.fetch_add((before + after) as usize, Ordering::Relaxed);
            }
            expired
        };
        (0..budget.div_ceil(STEP as usize)).map(&mut step).sum()
    }

    /// How many entries went untold since start, because too many went at once: those above level 0 that were no grants, and
    /// grants.
    pub fn untold(&self) -> [u64; 2] {
        [0, 1].map(|kind: usize| self.untold[kind].load(Ordering::Relaxed) as u64)
    }

    /// Every list that has a name, in the order of names.
    pub fn summaries(&self) -> Vec<ListSummary> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut tallies = vec![Tally::default(); names.names.len()];
        for shard in &self.shards {
            let shard = lock(&shard.shard);
            for (index, sum) in tallies.iter_mut().enumerate() {
                let tally = shard.tally(ListId(index as u8));
                sum.entries += tally.entries;
                sum.expired += tally.expired;
                sum.evicted += tally.evicted;
                sum.refused += tally.refused;
            }
        }
        let summary = |(index, Tally { entries, expired, evicted, refused }): (usize, Tally)| {
            let level = self.level(ListId(index as u8));
            ListSummary { list: names.names[index].clone(), level, entries, expired, evicted, refused }
        };
        let mut summaries: Vec<_> = tallies.into_iter().enumerate().map(summary).collect();
        summaries.sort_by(|one, other| one.list.cmp(&other.list));
        summaries
    }
}
