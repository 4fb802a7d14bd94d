//! What the lists hold of one address, and what its prefix has left of its quota: for operators' questions.

use std::net::IpAddr;

use ipnet::IpNet;
use knockplane_policy::time::Time;

use super::{Lists, Seen, lock};
use crate::shard::Key;

/// An entry that was added, and that counts for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressEntry {
    /// The entry.
    pub seen: Seen,
    /// Its level.
    pub level: u8,
    /// It is of the address's whole /64.
    pub by_network: bool,
}

/// First steps of a source prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// The prefix.
    pub prefix: IpNet,
    /// Entries that count for it now: its own, those that expired less than a second ago, and perhaps those of another
    /// prefix.
    pub used: u32,
    /// Beyond so many, first steps are refused.
    pub quota: u32,
}

impl Lists {
    /// The entries that were added and count for the address now, in all VLANs, in the order of lists.
    pub fn entries_of(&self, address: IpAddr, now: Time) -> Vec<AddressEntry> {
        let key = Key::from(address);
        let (hash, net) = (self.secret.hash(key), self.net(key));
        let mut entries = Vec::new();
        let shard = lock(&self.shards[self.shard_of(net.map_or(hash, |(_, hash)| hash))].shard);
        shard.show(hash, key, now, |seen, level| entries.push(AddressEntry { seen, level, by_network: false }));
        if let Some((net, hash)) = net {
            shard.show(hash, net, now, |seen, level| entries.push(AddressEntry { seen, level, by_network: true }));
        }
        drop(shard);
        self.visit_in_vlans(address, now, |seen, level, by_network| {
            entries.push(AddressEntry { seen, level, by_network });
        });
        entries.sort_by_key(|entry| (entry.seen.list, entry.seen.vlan, entry.seen.to));
        entries
    }

    /// What the address's prefix has used of its quota; none if there is no quota.
    pub fn quota_of(&self, address: IpAddr) -> Option<QuotaUse> {
        self.quota.as_ref()?.used(address)
    }
}
