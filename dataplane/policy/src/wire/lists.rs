//! Address lists and their entries.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::NameState;
use super::text::{as_text, is_zero, perhaps_as_text};
use crate::packet::Vlan;
use crate::rule::AddressSet;

/// Address lists, or a part of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListPage {
    /// The lists that exist, with their numbers of entries.
    pub lists: Vec<ListOverview>,
    /// Entries, ordered by list and address, at most the requested number.
    pub entries: Vec<ListEntry>,
    /// The host names of these lists, in the first answer only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameState>,
    /// Whether there are more entries.
    pub truncated: bool,
    /// The last entry, if there are more: the next request continues after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<After>,
}

/// A query for entries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListQuery {
    /// Only this list.
    pub list: Option<String>,
    /// Only entries that overlap this address set.
    #[serde(with = "perhaps_as_text")]
    pub address: Option<AddressSet>,
    /// Only dynamic entries, or only static ones.
    pub dynamic: Option<bool>,
    /// Only entries that expire within this time.
    pub expires_within: Option<Duration>,
    /// Only entries whose comment contains this text.
    pub comment: Option<String>,
    /// Only entries after this one, in the order of the answer: list and address.
    pub after: Option<After>,
    /// Maximum number of entries.
    pub limit: usize,
}

/// The position after which an answer continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct After {
    /// List of the last entry.
    pub list: String,
    /// The address.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// The VLAN in which the entry counts.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// The tag of the peer for which the entry counts.
    #[serde(default)]
    pub tag: u32,
}

/// An entry that an operator adds to a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewEntry {
    /// The list.
    pub list: String,
    /// The address.
    #[serde(with = "as_text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub address: AddressSet,
    /// The timeout. Without a timeout the entry is static: no packet changes it, and it survives a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// A list, and the origins of its entries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListOverview {
    /// The counts.
    #[serde(flatten)]
    pub summary: ListSummary,
    /// Whether a running rule adds to the list.
    pub by_packets: bool,
    /// Static entries of the rules.
    pub by_rules: u64,
    /// Static entries of operators, and prefixes of operators with a timeout.
    pub by_operators: u64,
}

/// Summary of one list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListSummary {
    /// The name.
    pub list: String,
    /// Number of earlier proofs that an addition needs: 0 for a first step.
    pub level: u8,
    /// Present dynamic entries.
    pub entries: u64,
    /// Entries that expired since start.
    pub expired: u64,
    /// Entries that were evicted since start, because the table was full.
    pub evicted: u64,
    /// Additions that were refused since start, because the table was full of entries of higher levels or the quota of
    /// a source prefix was exhausted.
    pub refused: u64,
}

/// One entry of one list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListEntry {
    /// The list.
    pub list: String,
    /// The address.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// The only VLAN in which the entry counts, in `vlan` and `pppoe`. Both are absent if the entry counts in all
    /// VLANs, or, for an entry of a door, without a VLAN. If the two must be distinguished, `vlan` is `untagged` for
    /// packets without a VLAN.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// The host name that resolves to the address, if the entry comes from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The only peer for which the entry counts; `None` if it counts for all. Only a tag of an IPv6 peer is stored, so
    /// `::` represents an unknown peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Steps taken, in a door's list of knocks in progress; 0 elsewhere.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: u8,
    /// Time left; `None` if the entry does not expire.
    pub time_left: Option<Duration>,
    /// Whether the entry has a timeout, or a packet added it. Static entries belong to the rules or to an operator.
    pub dynamic: bool,
    /// The line of the rule file, for an entry of the rules; 0 for rules without a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}
