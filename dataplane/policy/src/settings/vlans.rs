//! `vlans`: whether VLANs and PPPoE sessions are separate networks.

use serde::{Deserialize, Serialize};

use crate::packet::Vlan;

/// The state that is separate for each VLAN and PPPoE session. State of matchers and limits of replies are never
/// separate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vlans {
    /// Connections and all state of doors are separate: progress, grants, hold-off, attempts and tried ports. List
    /// entries that rules add count in all VLANs, as on RouterOS.
    #[default]
    Separate,
    /// No state is separate.
    Shared,
    /// As [`Vlans::Separate`], and list entries that packets add are separate as well. Entries of the rules and of
    /// operators count in all VLANs.
    SeparateLists,
}

impl Vlans {
    /// The network of a packet for connections and doors.
    #[inline]
    pub const fn of(self, vlan: Vlan) -> Vlan {
        match self {
            Vlans::Separate => vlan,
            Vlans::Shared => Vlan::NONE,
            Vlans::SeparateLists if vlan.is_none() => Vlan::UNTAGGED,
            Vlans::SeparateLists => vlan,
        }
    }

    /// The network for which a rule adds an address to a list; [`Vlan::NONE`] for all.
    #[inline]
    pub const fn of_lists(self, vlan: Vlan) -> Vlan {
        match self {
            Vlans::Separate | Vlans::Shared => Vlan::NONE,
            Vlans::SeparateLists => self.of(vlan),
        }
    }
}
