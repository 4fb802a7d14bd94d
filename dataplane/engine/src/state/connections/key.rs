//! Keys of connections as the table stores and hashes them, and packets with the key of their connection.

use std::hash::Hasher as _;
use std::net::IpAddr;

use knockplane_policy::eval::tracking::{End, FlowKey, Identity, Quoted};
use knockplane_policy::packet::Vlan;
use siphasher::sip::SipHasher13;

use crate::state::key::{address_of_halves, halves};

/// A [`FlowKey`] in numbers. Two packed keys are equal if and only if their keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedKey {
    /// High and low half of the address of each end.
    addresses: [[u64; 2]; 2],
    /// Ports, protocol, type and code of an ICMP query, and families.
    fields: u64,
    /// [`Vlan::bits`].
    vlan: u64,
}

/// A packed key with its hash, which selects the set and the tag of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashedKey {
    pub(crate) key: PackedKey,
    pub(super) hash: u64,
}

/// Bits of [`PackedKey::fields`], one for each end, set for an IPv6 address.
const FAMILIES: u64 = 0b11;

impl PackedKey {
    /// The number of words of a key.
    pub(super) const WORDS: usize = 6;

    #[inline]
    pub(super) const fn words(&self) -> [u64; PackedKey::WORDS] {
        let PackedKey { addresses: [[a, b], [c, d]], fields, vlan } = *self;
        [a, b, c, d, fields, vlan]
    }

    #[inline]
    pub(super) const fn from_words([a, b, c, d, fields, vlan]: [u64; PackedKey::WORDS]) -> PackedKey {
        PackedKey { addresses: [[a, b], [c, d]], fields, vlan }
    }

    /// The key with its addresses.
    pub(crate) fn flow_key(&self) -> FlowKey {
        let [port, other_port, protocol_and_kind, code_and_families] =
            [48, 32, 16, 0].map(|position| (self.fields >> position) as u16);
        let [protocol, kind] = protocol_and_kind.to_be_bytes();
        let [code, _] = code_and_families.to_be_bytes();
        let [one, other] = self.addresses();
        let ends = [(one, port), (other, other_port)];
        FlowKey { vlan: Vlan::from_bits(self.vlan), protocol, query: (kind, code), ends }
    }

    /// The addresses of both ends.
    pub(super) fn addresses(&self) -> [IpAddr; 2] {
        let [one, other] = self.addresses;
        [address_of_halves(one, self.fields & 1 != 0), address_of_halves(other, self.fields & 2 != 0)]
    }

    /// The IP protocol.
    pub(super) const fn protocol(&self) -> u8 {
        (self.fields >> 24) as u8
    }

    /// Whether the address is one of the ends.
    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses().contains(&address)
    }

    /// Whether both ends have the same address and the same port.
    #[inline]
    pub(super) fn has_equal_ends(&self) -> bool {
        let [one, other] = self.addresses;
        let [port, other_port] = [48, 32].map(|position| (self.fields >> position) as u16);
        one == other && port == other_port && self.fields & 1 == self.fields >> 1 & 1
    }

    /// Hashes the key with the secret. Keys of different families, and keys with and without a VLAN, differ in length,
    /// which the hash includes.
    #[inline]
    pub(super) fn hashed(self, secret: [u64; 2]) -> HashedKey {
        let mut hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
        let [[a, b], [c, d]] = self.addresses;
        if self.fields & FAMILIES == 0 {
            hasher.write_u64(b << 32 | d);
        } else {
            [a, b, c, d].into_iter().for_each(|half| hasher.write_u64(half));
        }
        hasher.write_u64(self.fields);
        if self.vlan != 0 {
            hasher.write_u64(self.vlan);
        }
        HashedKey { key: self, hash: hasher.finish() }
    }
}

impl From<&FlowKey> for PackedKey {
    #[inline]
    fn from(key: &FlowKey) -> PackedKey {
        let FlowKey { vlan, protocol, query: (kind, code), ends: [(one, port), (other, other_port)] } = key;
        let families = u64::from(one.is_ipv6()) | u64::from(other.is_ipv6()) << 1;
        let ports = u64::from(*port) << 48 | u64::from(*other_port) << 32;
        let query = u64::from(*protocol) << 24 | u64::from(*kind) << 16 | u64::from(*code) << 8;
        PackedKey { addresses: [halves(*one), halves(*other)], fields: ports | query | families, vlan: vlan.bits() }
    }
}

/// The connection of a packet according to its headers, with the hash of the key. A batch computes it once for each
/// packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PreparedConnection {
    /// As [`Identity::Connection`].
    Connection { key: HashedKey, source: EndIndex, opens: bool },
    /// As [`Identity::Error`], with a quoted packet.
    Quoted { key: HashedKey, source: EndIndex, sequence: Option<u32> },
    /// As [`Identity::Error`], without a quoted packet, and [`Identity::Unknown`].
    Invalid,
    /// As [`Identity::Untracked`].
    Untracked,
}

/// The position of an end in a key: 0 or 1. If both ends are equal, it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndIndex(pub(super) u8);

impl EndIndex {
    pub(super) const fn index(self) -> usize {
        (self.0 & 1) as usize
    }

    #[inline]
    pub(super) fn of(key: &FlowKey, end: &End) -> EndIndex {
        EndIndex(u8::from(key.ends[0] != *end))
    }
}

impl PreparedConnection {
    #[inline]
    pub(super) fn new(identity: &Identity, secret: [u64; 2]) -> PreparedConnection {
        match identity {
            Identity::Connection { key, source, opens } => PreparedConnection::Connection {
                key: PackedKey::from(key).hashed(secret),
                source: EndIndex::of(key, source),
                opens: *opens,
            },
            Identity::Error { about: Some(Quoted { key, source, sequence }) } => PreparedConnection::Quoted {
                key: PackedKey::from(key).hashed(secret),
                source: EndIndex::of(key, source),
                sequence: *sequence,
            },
            Identity::Error { about: None } | Identity::Unknown => PreparedConnection::Invalid,
            Identity::Untracked => PreparedConnection::Untracked,
        }
    }

    /// The key, if the packet has one.
    #[inline]
    pub(super) const fn key(&self) -> Option<&HashedKey> {
        match self {
            PreparedConnection::Connection { key, .. } | PreparedConnection::Quoted { key, .. } => Some(key),
            PreparedConnection::Invalid | PreparedConnection::Untracked => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_keys_differ_as_keys_do_and_yield_them() {
        let addresses: [IpAddr; 5] =
            ["0.0.0.0", "255.1.2.255", "::", "::ff01:2ff", "ffff:1::2:ffff"].map(|text| text.parse().unwrap());
        let vlans = [Vlan::NONE, Vlan::UNTAGGED, Vlan::from_bits((1 << 48) - 1)];
        let mut keys = Vec::new();
        for (one, other) in addresses.iter().flat_map(|one| addresses.map(|other| (*one, other))) {
            for ends in [[(one, 1), (other, 2)], [(one, 2), (other, 1)], [(one, 0xffff), (other, 0xffff)]] {
                for (vlan, protocol, query) in [(0, 6, (0, 0)), (1, 255, (255, 1)), (2, 0, (1, 255))] {
                    keys.push(FlowKey { vlan: vlans[vlan], protocol, query, ends });
                }
            }
        }
        let packed: Vec<_> = keys.iter().map(PackedKey::from).collect();
        for (place, (key, packed_key)) in keys.iter().zip(&packed).enumerate() {
            assert_eq!((packed_key.flow_key(), PackedKey::from_words(packed_key.words())), (*key, *packed_key));
            assert_eq!(packed_key.protocol(), key.protocol);
            assert_eq!(packed_key.has_equal_ends(), key.ends[0] == key.ends[1]);
            assert_eq!(packed.iter().position(|other| other == packed_key), Some(place), "{key:?}");
        }
        let mut hashes: Vec<_> = packed.iter().map(|key| key.hashed([1, 2]).hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), keys.len());
    }
}
