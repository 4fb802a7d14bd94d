//! Dynamic entries, of all addresses or of one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use super::{ListId, Lists, STEP, VlanLists, lock};
use crate::state::key::Key;

/// An entry that a packet, or an operator with a timeout, added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicEntry {
    /// The list.
    pub list: ListId,
    /// The address.
    pub address: IpAddr,
    /// The only VLAN in which the entry counts; [`Vlan::NONE`] if it counts in all.
    pub vlan: Vlan,
    /// The tag of the only peer that the entry counts for; 0 if it counts for all.
    pub peer_tag: u32,
    /// The number of steps of a sequence that were taken.
    pub step: u8,
    /// Expiry.
    pub expiry: Time,
}

impl DynamicEntry {
    /// The only peer that the entry counts for. For IPv6 peers, the entry contains only the tag, so this returns `::`.
    pub fn peer(&self) -> Option<IpAddr> {
        peer(self.address, self.peer_tag)
    }
}

/// A dynamic entry that counts for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressEntry {
    /// The entry.
    pub entry: DynamicEntry,
    /// The level.
    pub level: u8,
    /// Whether the entry counts for the whole /64 of the address.
    pub by_network: bool,
}

impl Lists {
    /// Calls the visitor with every dynamic entry, in no order. Workers continue during the visit: the visitor may see
    /// an entry that is added or removed during the visit, miss it, or see it twice.
    pub fn visit(&self, now: Time, mut visitor: impl FnMut(DynamicEntry)) {
        let mut found = Vec::with_capacity(STEP as usize);
        for shard in &self.shards {
            let mut next = Some(0);
            while let Some(begin) = next {
                // The visitor runs without the lock.
                next = lock(&shard.shard).visit(begin, STEP, now, |entry| found.push(entry));
                found.drain(..).for_each(&mut visitor);
            }
        }
    }

    /// The dynamic entries that count for the address now, in all VLANs, in the order of lists.
    pub fn entries_of(&self, address: IpAddr, now: Time) -> Vec<AddressEntry> {
        let mut entries = self.entries_at(address.into(), now);
        self.visit_in_vlans(address, now, |entry, level, by_network| {
            entries.push(AddressEntry { entry, level, by_network });
        });
        entries.sort_by_key(|entry| (entry.entry.list, entry.entry.vlan, entry.entry.peer_tag));
        entries
    }

    /// The entries of a key, and the entries of its network.
    fn entries_at(&self, key: Key, now: Time) -> Vec<AddressEntry> {
        let (hash, net) = (self.secret.hash(key), self.net(key));
        let mut entries = Vec::new();
        let shard = lock(&self.shards[self.shard_of_address(key.without_vlan())].shard);
        shard.visit_address(hash, key, now, |entry, level| {
            entries.push(AddressEntry { entry, level, by_network: false })
        });
        if let Some((net, hash)) = net {
            shard.visit_address(hash, net, now, |entry, level| {
                entries.push(AddressEntry { entry, level, by_network: true })
            });
        }
        entries
    }

    /// Calls the visitor with the unexpired entries of the address in all VLANs, their levels, and whether each counts
    /// for the whole network.
    pub(super) fn visit_in_vlans(&self, address: IpAddr, now: Time, mut visitor: impl FnMut(DynamicEntry, u8, bool)) {
        let key = Key::from(address);
        let shard = &self.shards[self.shard_of_address(key)].shard;
        let net = key.net().filter(|_| self.v6_by_prefix);
        for (key, by_network) in [(Some(key), false), (net, true)] {
            let mut next = key.map(|_| 0);
            while let (Some(begin), Some(key)) = (next, key) {
                next = lock(shard)
                    .visit_in_vlans(key, (begin, STEP), now, |entry, level| visitor(entry, level, by_network));
            }
        }
    }
}

impl VlanLists<'_> {
    /// The dynamic entries that count for the address in this VLAN now: first those of the VLAN, then those of all
    /// VLANs.
    pub fn entries_of(&self, address: IpAddr, now: Time) -> Vec<AddressEntry> {
        let own = self.key(address);
        let mut entries = self.lists.entries_at(own, now);
        if own.is_in_vlan() {
            let counts_in_all = |entry: &AddressEntry| entry.entry.peer_tag == 0;
            entries.extend(self.lists.entries_at(own.without_vlan(), now).into_iter().filter(counts_in_all));
        }
        entries
    }
}

fn peer(address: IpAddr, tag: u32) -> Option<IpAddr> {
    let peer = match address {
        IpAddr::V4(_) => Ipv4Addr::from_bits(tag).into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    (tag != 0).then_some(peer)
}
