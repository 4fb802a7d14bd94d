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
use crate::state::static_entries::{AmendedEntries, StaticEntries};

/// The level of lists that only operators fill: no packet adds entries, and first knocks evict no entry.
pub const OPERATOR_LEVEL: u8 = u8::MAX;

/// A static entry: its list, its first and last address, and its expiry, which is `None` if it has no timeout.
pub type StaticEntry = (ListId, (IpAddr, IpAddr), Option<Time>);

impl Lists {
    /// Replaces the static entries. Static entries are never evicted, and no packet changes them.
    pub fn set_static_entries(&self, entries: impl Iterator<Item = StaticEntry>) {
        let mut entries = entries.peekable();
        let entries = entries.peek().is_some().then(|| AmendedEntries::new(StaticEntries::of(entries)));
        self.static_entries_changed(entries);
    }

    /// Changes the static entries of [`Lists::set_static_entries`]. These changes replace those of the last such call.
    /// In the lists and for the addresses of `replaced`, the recent entries alone count: among them must be all entries
    /// of the list that overlap. All other recent entries count beside the entries of that call. The cost depends on
    /// these changes alone.
    pub fn change_static_entries(
        &self,
        recent: impl Iterator<Item = StaticEntry>,
        replaced: impl Iterator<Item = (ListId, (IpAddr, IpAddr))>,
    ) {
        let present = self.static_entries.load();
        let recent = StaticEntries::of(recent);
        let changed = match &*present {
            Some(present) => present.with_changes(recent, replaced),
            // There is nothing to replace.
            None => AmendedEntries::new(recent),
        };
        self.static_entries_changed(Some(changed));
    }

    /// Names the networks of the static entries: all of them, or those of the last changes.
    fn name_networks(&self, changes_alone: bool) {
        if let (Some(networks), Some(entries)) = (&self.named_networks, &*self.static_entries.load()) {
            entries.visit_networks(changes_alone, |first, last| networks.name(first, last));
        }
    }

    /// Names the networks of all static entries again, after all names were removed.
    pub fn name_all_networks(&self) {
        self.name_networks(false);
    }

    fn static_entries_changed(&self, entries: Option<AmendedEntries>) {
        self.has_static_entries.store(entries.is_some(), Ordering::Relaxed);
        self.static_entries.store(entries.map(Arc::new));
        // A worker that takes a lock after this sees the new entries. A worker that took the lock before looks up
        // again.
        for LockedShard { version, shard, .. } in self.shards.iter().map(|shard| &**shard) {
            let _locked = lock(shard);
            version.store(version.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
        if let Some(epochs) = &self.epochs {
            epochs.static_entries_changed();
        }
        // Behind the change, so that whoever removes all names at the same time and then reads the entries misses none.
        self.name_networks(true);
    }

    /// Reads the static entries, if there are any.
    #[inline]
    pub(super) fn in_static_entries<T>(&self, find: impl FnOnce(&AmendedEntries) -> T) -> Option<T> {
        if !self.has_static_entries.load(Ordering::Relaxed) {
            return None;
        }
        self.static_entries.load().as_ref().map(|entries| find(entries))
    }

    /// The lists that contain the address by a static entry without a timeout.
    pub(super) fn permanent_static_lists(&self, key: AddressKey) -> ListSet {
        self.in_static_entries(|entries| entries.permanent(key)).unwrap_or_default()
    }

    /// As [`Lists::add`], for an operator: such an entry outranks all entries of packets.
    pub fn add_by_operator(&self, list: ListId, address: IpAddr, expiry: Time, now: Time) -> AddOutcome {
        let cause = &Cause::of(Origin::Operator);
        self.add_at(
            EntryScope { list, peer_tag: 0 },
            address.into(),
            None,
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
    fn changes_of_static_entries_count_beside_the_others_until_all_are_replaced() {
        let lists = Lists::new(8).expect("memory");
        let [list, other] = ["a", "b"].map(|name| lists.bind(name, OPERATOR_LEVEL).expect("a list"));
        let [one, two]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        let entry = |address: IpAddr| (list, (address, address), None);
        let are_in = |lists: &Lists| {
            [one, two].map(|address| {
                let is_in = lists.membership(address, 0, Time::default()).contains(list);
                assert_eq!(is_in, lists.permanent_static_lists(address.into()).contains(list));
                is_in
            })
        };
        let nothing = || std::iter::empty();
        let before = lists.lookup(one.into(), 0, Time::default());
        lists.change_static_entries([entry(one)].into_iter(), nothing());
        assert!(!lists.is_current(&before, Time::default()), "a cached lookup is repeated");
        assert_eq!(are_in(&lists), [true, false], "without others");
        lists.set_static_entries([entry(two), (other, (one, two), None)].into_iter());
        assert_eq!(are_in(&lists), [false, true]);
        lists.change_static_entries([entry(one)].into_iter(), nothing());
        assert_eq!(are_in(&lists), [true, true]);
        lists.change_static_entries([entry(one)].into_iter(), [(list, (two, two))].into_iter());
        assert_eq!(are_in(&lists), [true, false], "removed");
        assert!(lists.membership(two, 0, Time::default()).contains(other), "from this list alone");
        let timed = (list, (one, two), Some(Time::from_nanos(5)));
        lists.change_static_entries([timed].into_iter(), [(list, (two, two))].into_iter());
        let lookup = lists.lookup(two.into(), 0, Time::default());
        assert!(lookup.membership.lists.contains(list) && !lists.permanent_static_lists(two.into()).contains(list));
        assert!(!lists.is_current(&lookup, Time::from_nanos(5)), "the expiry of a recent entry counts");
        lists.set_static_entries(std::iter::empty());
        assert_eq!(are_in(&lists), [false, false]);
    }
}
