//! Entries that expire or are evicted, and the counts of each list.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;
use knockplane_policy::wire::ListSummary;

use super::entries::peer;
use super::{ListId, Lists, STEP, lock};
use crate::state::lists::shard::ListCounts;

/// A grant, or another entry above level 0, that expired or was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedEntry {
    /// The list.
    pub list: ListId,
    /// The entry's level.
    pub level: u8,
    /// The address.
    pub address: IpAddr,
    /// The only VLAN that it counted in; [`Vlan::NONE`] if it counted in all.
    pub vlan: Vlan,
    /// The tag of the only peer that it counted for; 0 if it counted for all.
    pub peer_tag: u32,
    /// It was a grant: an entry for one peer that is no progress of a knock.
    pub is_grant: bool,
    /// Why it ended.
    pub reason: EndReason,
}

/// Why an entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its expiry passed.
    Expired,
    /// Another entry took its place.
    Evicted,
}

impl EndedEntry {
    /// As [`DynamicEntry::peer`].
    pub fn peer(&self) -> Option<IpAddr> {
        peer(self.address, self.peer_tag)
    }
}

impl Lists {
    /// Gives back entries that expired, looking at `budget` slots (rounded up to 512) where the last call ended. Returns
    /// how many.
    ///
    /// With a budget of [`Lists::capacity`] and 65,536 more in each second, no entry is counted for more than a second
    /// after it expired. That costs 6 ns a used slot: with ten million entries 6 % of a core.
    pub fn sweep(&self, budget: usize, now: Time) -> usize {
        self.sweep_reporting(budget, now, |_| {})
    }

    /// As [`Lists::sweep`], telling of grants and other entries above level 0 that went, by this sweep or since the last one: with the same
    /// budget, within a second.
    pub fn sweep_reporting(&self, budget: usize, now: Time, mut tell: impl FnMut(EndedEntry)) -> usize {
        let [mut earlier, mut ended] = [(); 2].map(|()| Vec::with_capacity(STEP as usize));
        let mut step = |_| {
            let next = self.swept.fetch_add(1, Ordering::Relaxed) % self.shards.len();
            let mut shard = lock(&self.shards[next].shard);
            // First, so that what is found now has room.
            let before = shard.take_ended(&mut earlier);
            let expired = shard.sweep(STEP as usize, now);
            let after = shard.take_ended(&mut ended);
            drop(shard);
            earlier.drain(..).chain(ended.drain(..)).for_each(&mut tell);
            for (unreported, (before, after)) in self.unreported.iter().zip(before.into_iter().zip(after)) {
                unreported.fetch_add((before + after) as usize, Ordering::Relaxed);
            }
            expired
        };
        (0..budget.div_ceil(STEP as usize)).map(&mut step).sum()
    }

    /// How many entries went untold since start, because too many went at once: those above level 0 that were no grants, and
    /// grants.
    pub fn unreported(&self) -> [u64; 2] {
        [0, 1].map(|kind: usize| self.unreported[kind].load(Ordering::Relaxed) as u64)
    }

    /// Every list that has a name, in the order of names.
    pub fn summaries(&self) -> Vec<ListSummary> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut counts = vec![ListCounts::default(); names.names.len()];
        for shard in &self.shards {
            let shard = lock(&shard.shard);
            for (index, sum) in counts.iter_mut().enumerate() {
                let counts = shard.counts(ListId(index as u8));
                sum.entries += counts.entries;
                sum.expired += counts.expired;
                sum.evicted += counts.evicted;
                sum.refused += counts.refused;
            }
        }
        let summary = |(index, ListCounts { entries, expired, evicted, refused }): (usize, ListCounts)| {
            let level = self.level(ListId(index as u8));
            ListSummary { list: names.names[index].clone(), level, entries, expired, evicted, refused }
        };
        let mut summaries: Vec<_> = counts.into_iter().enumerate().map(summary).collect();
        summaries.sort_by(|one, other| one.list.cmp(&other.list));
        summaries
    }
}
