//! Addresses as the state stores and hashes them.

use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knockplane_policy::packet::Vlan;

/// An address in the form that is stored and hashed: a number of its family, and its VLAN if VLANs are separate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressKey {
    pub(crate) bits: u128,
    pub(crate) kind: KeyKind,
    pub(crate) vlan: Vlan,
}

/// The kind of a slot's content. `::198.51.100.7` on the wire is not the IPv4 address, so the bits alone are ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum KeyKind {
    Free,
    V4,
    V6,
    /// An IPv6 network of 64 bits.
    Net,
    /// An IPv4 address in a VLAN.
    V4InVlan,
    V6InVlan,
    NetInVlan,
}

impl KeyKind {
    /// The kind with this discriminant.
    #[inline]
    pub(crate) const fn from_byte(byte: u8) -> KeyKind {
        match byte {
            1 => KeyKind::V4,
            2 => KeyKind::V6,
            3 => KeyKind::Net,
            4 => KeyKind::V4InVlan,
            5 => KeyKind::V6InVlan,
            6 => KeyKind::NetInVlan,
            _ => KeyKind::Free,
        }
    }

    pub(crate) const fn in_vlan(self) -> KeyKind {
        match self {
            KeyKind::V4 => KeyKind::V4InVlan,
            KeyKind::V6 => KeyKind::V6InVlan,
            KeyKind::Net => KeyKind::NetInVlan,
            kind => kind,
        }
    }

    pub(crate) const fn without_vlan(self) -> KeyKind {
        match self {
            KeyKind::V4InVlan => KeyKind::V4,
            KeyKind::V6InVlan => KeyKind::V6,
            KeyKind::NetInVlan => KeyKind::Net,
            kind => kind,
        }
    }

    pub(crate) const fn is_in_vlan(self) -> bool {
        matches!(self, KeyKind::V4InVlan | KeyKind::V6InVlan | KeyKind::NetInVlan)
    }
}

/// An address as two words, the upper half first. The family is not part of them.
#[inline]
pub(crate) fn halves(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(v4) => [0, v4.to_bits().into()],
        IpAddr::V6(v6) => [(v6.to_bits() >> 64) as u64, v6.to_bits() as u64],
    }
}

/// The inverse of [`halves`].
pub(crate) fn address_of_halves([high, low]: [u64; 2], is_v6: bool) -> IpAddr {
    match is_v6 {
        true => Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into(),
        false => Ipv4Addr::from_bits(low as u32).into(),
    }
}

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> AddressKey {
        match address {
            IpAddr::V4(v4) => AddressKey { bits: v4.to_bits().into(), kind: KeyKind::V4, vlan: Vlan::NONE },
            IpAddr::V6(v6) => AddressKey { bits: v6.to_bits(), kind: KeyKind::V6, vlan: Vlan::NONE },
        }
    }
}

impl AddressKey {
    /// No address.
    pub(crate) const NONE: AddressKey = AddressKey { bits: 0, kind: KeyKind::Free, vlan: Vlan::NONE };

    pub(crate) fn address(self) -> IpAddr {
        match self.kind.without_vlan() {
            KeyKind::V4 => Ipv4Addr::from_bits(self.bits as u32).into(),
            _ => Ipv6Addr::from_bits(self.bits).into(),
        }
    }

    pub(crate) const fn vlan(self) -> Vlan {
        self.vlan
    }

    /// The same address in this VLAN.
    #[inline]
    pub(crate) fn in_vlan(self, vlan: Vlan) -> AddressKey {
        if vlan.is_none() { self } else { AddressKey { kind: self.kind.in_vlan(), vlan, ..self } }
    }

    #[inline]
    pub(crate) const fn is_in_vlan(self) -> bool {
        self.kind.is_in_vlan()
    }

    /// The same address in no VLAN.
    pub(crate) const fn without_vlan(self) -> AddressKey {
        AddressKey { kind: self.kind.without_vlan(), vlan: Vlan::NONE, bits: self.bits }
    }

    /// The network of 64 bits that contains an IPv6 address.
    pub(crate) fn net(self) -> Option<AddressKey> {
        let kind = match self.kind {
            KeyKind::V6 => KeyKind::Net,
            KeyKind::V6InVlan => KeyKind::NetInVlan,
            _ => return None,
        };
        Some(AddressKey { kind, ..self.prefix(32, 64) })
    }

    /// The address with all bits after its prefix set to 0.
    pub(crate) fn prefix(self, v4_length: u8, v6_length: u8) -> AddressKey {
        let behind = if self.kind.without_vlan() == KeyKind::V4 {
            32_u8.saturating_sub(v4_length)
        } else {
            128 - v6_length.min(128)
        };
        AddressKey { bits: self.bits & u128::MAX.checked_shl(behind.into()).unwrap_or_default(), ..self }
    }
}

/// The secret that determines the positions of addresses. An attacker who knew the secret could fill one bucket or one
/// shard.
#[derive(Clone, Copy)]
pub(crate) struct Secret(pub(crate) [u64; 2]);

impl Secret {
    /// SipHash-1-3, which is designed for this purpose: <https://www.aumasson.jp/siphash/>. The hash includes
    /// the length: 8 bytes for an IPv4 address, 16 for IPv6, 24 in a VLAN.
    #[inline]
    pub(crate) fn hash(self, key: AddressKey) -> u64 {
        let mut hasher = self.hasher();
        hasher.write_u64(key.bits as u64);
        if key.kind != KeyKind::V4 {
            hasher.write_u64((key.bits >> 64) as u64);
        }
        if key.is_in_vlan() {
            hasher.write_u64(key.vlan.bits());
        }
        hasher.finish()
    }

    fn hasher(self) -> siphasher::sip::SipHasher13 {
        let [k0, k1] = self.0;
        siphasher::sip::SipHasher13::new_with_keys(k0, k1)
    }
}
