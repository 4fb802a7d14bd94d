//! The entries that were added, of all addresses or of one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use super::{ListId, Lists, STEP, Within, lock};
use crate::state::key::Key;

/// An entry that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The list.
    pub list: ListId,
    /// Who is in it.
    pub address: IpAddr,
    /// The only VLAN that it counts in; [`Vlan::NONE`] if it counts in all.
    pub vlan: Vlan,
    /// The tag of the only other end that it counts for; 0 if it counts for all.
    pub to: u32,
    /// Steps of a sequence that were taken.
    pub step: u8,
    /// Until when.
    pub expiry: Time,
}

impl Seen {
    /// The only other end that it counts for. Of IPv6 ends only the tag is known, so that `::` stands for one.
    pub fn end(&self) -> Option<IpAddr> {
        end(self.address, self.to)
    }
}

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

impl Lists {
    /// Shows every entry that was added, in no order. Workers go on meanwhile: an entry that comes or goes may be seen or
    /// not, or twice.
    pub fn visit(&self, now: Time, mut visitor: impl FnMut(Seen)) {
        let mut seen = Vec::with_capacity(STEP as usize);
        for shard in &self.shards {
            let mut next = Some(0);
            while let Some(begin) = next {
                // Shown when the lock is free again.
                next = lock(&shard.shard).visit(begin, STEP, now, |entry| seen.push(entry));
                seen.drain(..).for_each(&mut visitor);
            }
        }
    }

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

    /// Shows the address's live entries in all VLANs, with their levels, and whether each is of its whole network.
    pub(super) fn visit_in_vlans(&self, address: IpAddr, now: Time, mut visitor: impl FnMut(Seen, u8, bool)) {
        let key = Key::from(address);
        let shard = &self.shards[self.shard_of_key(key)].shard;
        let net = key.net().filter(|_| self.v6_by_prefix);
        for (key, by_network) in [(Some(key), false), (net, true)] {
            let mut next = key.map(|_| 0);
            while let (Some(begin), Some(key)) = (next, key) {
                next =
                    lock(shard).visit_in_vlans(key, (begin, STEP), now, |seen, level| visitor(seen, level, by_network));
            }
        }
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

fn end(address: IpAddr, tag: u32) -> Option<IpAddr> {
    let end = match address {
        IpAddr::V4(_) => Ipv4Addr::from_bits(tag).into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    (tag != 0).then_some(end)
}
