//! Checks of an operator's entries before the first of them is added.
//!
//! Entries of operators outrank entries of packets. Without a check, entries that do not fit would evict all others,
//! and each other, without notice.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use knockplane_policy::event::Origin;
use knockplane_policy::time::Time;

use super::{AddOutcome, ListId, ListSet, Lists, LockedShard, lock};
use crate::state::events::Cause;
use crate::state::key::AddressKey;
use crate::state::lists::shard::{EntryScope, EntryTerms};
use crate::state::static_entries::StaticEntries;

/// The level of lists that only operators fill: no packet adds entries, and first knocks evict no entry.
pub const OPERATOR_LEVEL: u8 = u8::MAX;

/// Bits of `has_static_entries`.
const HAS_STATIC_ENTRIES: u8 = 1;
const HAS_RECENT_STATIC_ENTRIES: u8 = 2;

fn compile(entries: impl Iterator<Item = (ListId, (IpAddr, IpAddr), Option<Time>)>) -> Option<Arc<StaticEntries>> {
    let mut entries = entries.peekable();
    entries.peek().is_some().then(|| Arc::new(StaticEntries::of(entries)))
}

impl Lists {
    /// Replaces the static entries. Each entry has a first address, a last address, and an expiry, which is `None` if
    /// the entry has no timeout. Static entries are never evicted, and no packet changes them.
    pub fn set_static_entries(&self, entries: impl Iterator<Item = (ListId, (IpAddr, IpAddr), Option<Time>)>) {
        self.static_entries.store(compile(entries));
        // Cleared after the replacement, which contains these entries as well: a lookup in between finds them in one of
        // the two.
        self.recent_static_entries.store(None);
        self.static_entries_changed();
    }

    /// Adds static entries to those of [`Lists::set_static_entries`]. These entries replace those of the last such
    /// call. The cost depends on these entries alone; a lookup searches both.
    pub fn add_static_entries(&self, entries: impl Iterator<Item = (ListId, (IpAddr, IpAddr), Option<Time>)>) {
        self.recent_static_entries.store(compile(entries));
        self.static_entries_changed();
    }

    fn static_entries_changed(&self) {
        let kinds = [&self.static_entries, &self.recent_static_entries];
        let [all, recent] = kinds.map(|entries| entries.load().is_some());
        self.has_static_entries.store(u8::from(all) | u8::from(recent) << 1, Ordering::Relaxed);
        // A worker that takes a lock after this sees the new entries. A worker that took the lock before looks up
        // again.
        for LockedShard { version, shard } in self.shards.iter().map(|shard| &**shard) {
            let _locked = lock(shard);
            version.store(version.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
    }

    /// The static entries, in compiled form.
    #[inline]
    pub(super) fn for_static_entries(&self, mut look: impl FnMut(&StaticEntries)) {
        let kinds = self.has_static_entries.load(Ordering::Relaxed);
        if kinds & HAS_STATIC_ENTRIES != 0
            && let Some(entries) = &*self.static_entries.load()
        {
            look(entries);
        }
        if kinds & HAS_RECENT_STATIC_ENTRIES != 0
            && let Some(entries) = &*self.recent_static_entries.load()
        {
            look(entries);
        }
    }

    /// The lists that contain the address by a static entry without a timeout.
    pub(super) fn permanent_static_lists(&self, key: AddressKey) -> ListSet {
        let mut set = ListSet::default();
        self.for_static_entries(|entries| set.insert_all(entries.permanent(key)));
        set
    }

    /// As [`Lists::add`], for an operator: such an entry outranks all entries of packets.
    pub fn add_by_operator(&self, list: ListId, address: IpAddr, expiry: Time, now: Time) -> AddOutcome {
        let cause = &Cause::of(Origin::Operator);
        self.add_at(
            EntryScope { list, peer_tag: 0 },
            address.into(),
            EntryTerms { level: OPERATOR_LEVEL, expiry, now, cause },
        )
    }

    /// Whether a packet added a permanent entry of the address for all peers: no addition gives such an entry a
    /// timeout.
    pub fn has_permanent_entry(&self, list: ListId, address: IpAddr, now: Time) -> bool {
        let key = AddressKey::from(address);
        let (hash, net) = (self.secret.hash(key), self.net(key));
        let shard = lock(&self.shards[self.shard_of(net.map_or(hash, |(_, hash)| hash))].shard);
        let has_permanent_entry =
            |hash, key| shard.standing(hash, key, list, now).is_some_and(|(expiry, _)| expiry == Time::NEVER);
        has_permanent_entry(hash, key) || net.is_some_and(|(net, hash)| has_permanent_entry(hash, net))
    }

    /// Whether operators can add all of these entries, each of which occurs once. In each shard, entries that outrank
    /// packets must leave at least a tenth of the slots to packets. Otherwise no source could knock any more.
    pub fn has_room_for(&self, entries: impl Iterator<Item = (ListId, IpAddr)>, now: Time) -> bool {
        let mut new = vec![0; self.shards.len()];
        for (list, address) in entries {
            let key = AddressKey::from(address);
            let hash = self.secret.hash(key);
            let index = self.shard_of(self.net(key).map_or(hash, |(_, hash)| hash));
            let standing = lock(&self.shards[index].shard).standing(hash, key, list, now);
            new[index] += usize::from(!standing.is_some_and(|(_, is_highest)| is_highest));
        }
        new.iter().zip(&self.shards).all(|(new, shard)| *new <= lock(&shard.shard).room_for_highest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_static_entries_count_beside_the_others_until_all_are_replaced() {
        let lists = Lists::new(8).expect("memory");
        let list = lists.bind("a", OPERATOR_LEVEL).expect("a list");
        let [one, two]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        let entry = |address: IpAddr| (list, (address, address), None);
        let are_in = |lists: &Lists| {
            [one, two].map(|address| {
                let is_in = lists.membership(address, 0, Time::default()).contains(list);
                assert_eq!(is_in, lists.permanent_static_lists(address.into()).contains(list));
                is_in
            })
        };
        let before = lists.lookup(one.into(), 0, Time::default());
        lists.add_static_entries([entry(one)].into_iter());
        assert!(!lists.is_current(&before, Time::default()), "a remembered lookup is repeated");
        assert_eq!(are_in(&lists), [true, false], "without others");
        lists.set_static_entries([entry(two)].into_iter());
        assert_eq!(are_in(&lists), [false, true]);
        lists.add_static_entries([entry(one)].into_iter());
        assert_eq!(are_in(&lists), [true, true]);
        lists.set_static_entries(std::iter::empty());
        assert_eq!(are_in(&lists), [false, false]);
    }
}
