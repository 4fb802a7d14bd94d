//! What an operator's entries would meet, found out before the first of them is added.
//!
//! They outrank what packets add: without a look before, entries that do not fit would push everybody out, and each
//! other, before anyone noticed.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use knockplane_policy::event::Origin;
use knockplane_policy::time::Time;

use super::{AddOutcome, ListId, ListSet, Lists, LockedShard, lock};
use crate::state::events::Cause;
use crate::state::key::Key;
use crate::state::lists::shard::{EntryScope, EntryTerms};
use crate::state::static_entries::StaticEntries;

/// The level of lists that only operators fill: no packet gets in, and first knocks do not push anyone out.
pub const OPERATOR_LEVEL: u8 = u8::MAX;

impl Lists {
    /// From now on these are in the lists, from the first address to the last, each until then or for good, in place of
    /// what was held before: beside what is added, never evicted, and changed by no packet.
    pub fn set_static_entries(&self, entries: impl Iterator<Item = (ListId, (IpAddr, IpAddr), Option<Time>)>) {
        let mut entries = entries.peekable();
        let static_entries = entries.peek().is_some().then(|| Arc::new(StaticEntries::of(entries)));
        let has_static_entries = static_entries.is_some();
        self.static_entries.store(static_entries);
        self.has_static_entries.store(has_static_entries, Ordering::Relaxed);
        // Whoever takes a lock after this sees what is held now, and whoever took it before looks up again.
        for LockedShard { version, shard } in self.shards.iter().map(|shard| &**shard) {
            let _locked = lock(shard);
            version.store(version.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        }
    }

    /// The lists that operators hold the address in for good.
    pub(super) fn permanent_static_lists(&self, key: Key) -> ListSet {
        if !self.has_static_entries.load(Ordering::Relaxed) {
            return ListSet::default();
        }
        self.static_entries
            .load()
            .as_ref()
            .map_or_else(ListSet::default, |static_entries| static_entries.permanent(key))
    }

    /// As [`Lists::add`], by an operator: such an entry outranks everything that packets do.
    pub fn add_by_operator(&self, list: ListId, address: IpAddr, expiry: Time, now: Time) -> AddOutcome {
        let cause = &Cause::of(Origin::Operator);
        self.add_at(
            EntryScope { list, peer_tag: 0 },
            address.into(),
            EntryTerms { level: OPERATOR_LEVEL, expiry, now, cause },
        )
    }

    /// Whether a packet put the address in the list for good and for all other ends: no addition gives it a timeout.
    pub fn has_permanent_entry(&self, list: ListId, address: IpAddr, now: Time) -> bool {
        let key = Key::from(address);
        let (hash, net) = (self.secret.hash(key), self.net(key));
        let shard = lock(&self.shards[self.shard_of(net.map_or(hash, |(_, hash)| hash))].shard);
        let has_permanent_entry =
            |hash, key| shard.standing(hash, key, list, now).is_some_and(|(expiry, _)| expiry == Time::NEVER);
        has_permanent_entry(hash, key) || net.is_some_and(|(net, hash)| has_permanent_entry(hash, net))
    }

    /// Whether operators can add all of these, each of which is given once: in no shard may what outranks packets leave
    /// less than a tenth to these, or else nobody could knock any more.
    pub fn has_room_for(&self, entries: impl Iterator<Item = (ListId, IpAddr)>, now: Time) -> bool {
        let mut new = vec![0; self.shards.len()];
        for (list, address) in entries {
            let key = Key::from(address);
            let hash = self.secret.hash(key);
            let index = self.shard_of(self.net(key).map_or(hash, |(_, hash)| hash));
            let standing = lock(&self.shards[index].shard).standing(hash, key, list, now);
            new[index] += usize::from(!standing.is_some_and(|(_, is_highest)| is_highest));
        }
        new.iter().zip(&self.shards).all(|(new, shard)| *new <= lock(&shard.shard).room_for_highest())
    }
}
