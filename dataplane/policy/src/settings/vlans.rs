//! `vlans`: whether VLANs and PPPoE sessions are networks of their own.

use serde::{Deserialize, Serialize};

use crate::packet::Vlan;

/// What is kept for each VLAN and PPPoE session by itself. The matchers of rules, and limits on replies, are never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vlans {
    /// Connections, and everything at doors: progress, grants, hold-off, attempts and tried ports. What rules add to
    /// address lists counts in all, as on RouterOS.
    #[default]
    Separate,
    /// Nothing.
    Shared,
    /// As [`Vlans::Separate`], and what packets add to address lists. What the rules' own entries and operators put in
    /// a list counts in all.
    SeparateLists,
}

impl Vlans {
    /// The network by which connections and doors know a packet of this one.
    #[inline]
    pub const fn of(self, vlan: Vlan) -> Vlan {
        match self {
            Vlans::Separate => vlan,
            Vlans::Shared => Vlan::NONE,
            Vlans::SeparateLists if vlan.is_none() => Vlan::UNTAGGED,
            Vlans::SeparateLists => vlan,
        }
    }

    /// The network that an address is added to a list for, by a rule; [`Vlan::NONE`] for all.
    #[inline]
    pub const fn of_lists(self, vlan: Vlan) -> Vlan {
        match self {
            Vlans::Separate | Vlans::Shared => Vlan::NONE,
            Vlans::SeparateLists => self.of(vlan),
        }
    }
}
