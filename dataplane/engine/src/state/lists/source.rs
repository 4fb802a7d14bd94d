//! What the lists hold of one address, and what its prefix has left of its quota: for operators' questions.

use std::net::IpAddr;

use ipnet::IpNet;
use knockplane_policy::time::Time;

use super::{Lists, Seen, Within, lock};
use crate::state::key::Key;

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
        let mut entries = self.entries_at(address.into(), now);
        self.visit_in_vlans(address, now, |seen, level, by_network| {
            entries.push(AddressEntry { seen, level, by_network });
        });
        entries.sort_by_key(|entry| (entry.seen.list, entry.seen.vlan, entry.seen.to));
        entries
    }

    /// The entries of a key, and those of its network.
    fn entries_at(&self, key: Key, now: Time) -> Vec<AddressEntry> {
        let (hash, net) = (self.secret.hash(key), self.net(key));
        let mut entries = Vec::new();
        let shard = lock(&self.shards[self.shard_of_key(key.without_vlan())].shard);
        shard.show(hash, key, now, |seen, level| entries.push(AddressEntry { seen, level, by_network: false }));
        if let Some((net, hash)) = net {
            shard.show(hash, net, now, |seen, level| entries.push(AddressEntry { seen, level, by_network: true }));
        }
        entries
    }

    /// What the address's prefix has used of its quota; none if there is no quota.
    pub fn quota_of(&self, address: IpAddr) -> Option<QuotaUse> {
        self.quota.as_ref()?.used(address)
    }
}

impl Within<'_> {
    /// The entries that were added and count for the address in this VLAN now: its own first, then those that count in all.
    pub fn entries_of(&self, address: IpAddr, now: Time) -> Vec<AddressEntry> {
        let own = self.key(address);
        let mut entries = self.lists.entries_at(own, now);
        if own.is_in_vlan() {
            let counts_in_all = |entry: &AddressEntry| entry.seen.to == 0;
            entries.extend(self.lists.entries_at(own.without_vlan(), now).into_iter().filter(counts_in_all));
        }
        entries
    }
}
