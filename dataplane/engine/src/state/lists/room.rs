//! What an operator's entries would meet, found out before the first of them is added.
//!
//! They outrank what packets add: without a look before, entries that do not fit would push everybody out, and each
//! other, before anyone noticed.

use std::net::IpAddr;

use knockplane_policy::time::Time;

use super::{ListId, Lists, lock};
use crate::state::key::Key;

impl Lists {
    /// Whether a packet put the address in the list for good and for all other ends: no addition gives it a timeout.
    pub fn lasts(&self, list: ListId, address: IpAddr, now: Time) -> bool {
        let key = Key::from(address);
        let (hash, net) = (self.secret.hash(key), self.net(key));
        let shard = lock(&self.shards[self.shard_of(net.map_or(hash, |(_, hash)| hash))].shard);
        let lasts = |hash, key| shard.standing(hash, key, list, now).is_some_and(|(expiry, _)| expiry == Time::NEVER);
        lasts(hash, key) || net.is_some_and(|(net, hash)| lasts(hash, net))
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
