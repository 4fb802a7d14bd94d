//! Values of matchers.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::packet::Family;

/// Addresses of a rule: a prefix (host bits masked) or a range with both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressSet {
    /// An address or prefix.
    Prefix(IpNet),
    /// From the first address to the second, both included, of one family.
    Range(IpAddr, IpAddr),
}

impl AddressSet {
    /// Whether the address is in the set. An address of the other family never is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match self {
            AddressSet::Prefix(net) => net.contains(&address),
            AddressSet::Range(first, last) => {
                Family::of(*first) == Family::of(address) && (*first..=*last).contains(&address)
            }
        }
    }
}

/// Ports of a rule: at most 16 ports or ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortSet(pub Vec<RangeInclusive<u16>>);

impl PortSet {
    /// How many items RouterOS takes in one list.
    pub const MAX_ITEMS: usize = 16;

    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}
