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
pub struct Lists {
    /// The lists the dataplane knows of, with how many entries each has.
    pub lists: Vec<ListOverview>,
    /// Entries, ordered by list and address; at most as many as were asked for.
    pub entries: Vec<ListEntry>,
    /// The host names of these lists, in the first answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameState>,
    /// Whether there are more.
    pub truncated: bool,
    /// The last entry, if there are more: what to ask with for those behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<After>,
}

/// Which entries to show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListQuery {
    /// Only this list.
    pub list: Option<String>,
    /// Only entries that share an address with this.
    #[serde(with = "perhaps_as_text")]
    pub address: Option<AddressSet>,
    /// Only dynamic ones, or only static ones.
    pub dynamic: Option<bool>,
    /// Only those that expire within so long.
    pub expires_within: Option<Duration>,
    /// Only those whose comment holds this.
    pub comment: Option<String>,
    /// Only those behind this one, in the order of the answer: list and address.
    pub after: Option<After>,
    /// At most so many entries.
    pub limit: usize,
}

/// Where an answer is to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct After {
    /// List of the last entry.
    pub list: String,
    /// Its address.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// The VLAN that it counts in.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// The tag of the other end that it counts for.
    #[serde(default)]
    pub tag: u32,
}

/// An entry that an operator puts in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEntry {
    /// The list.
    pub list: String,
    /// Its address.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// How long. Without one the entry is static: no packet changes it, and it is kept for the next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// A list, and who fills it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListOverview {
    /// What is counted.
    #[serde(flatten)]
    pub summary: ListSummary,
    /// Whether a rule that runs adds to it.
    pub by_packets: bool,
    /// Entries that the rules hold for good.
    pub by_rules: u64,
    /// Entries that operators put in for good, and prefixes that they put in for a time.
    pub by_operators: u64,
}

/// One list in one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListSummary {
    /// Its name.
    pub list: String,
    /// How many earlier proofs it takes to get in: 0 for a first step.
    pub level: u8,
    /// Dynamic entries now.
    pub entries: u64,
    /// Entries whose time was over, since start.
    pub expired: u64,
    /// Entries pushed out before their time since start, because the table was full.
    pub evicted: u64,
    /// Additions refused since start, because the table was full of higher levels, or a source prefix of first steps.
    pub refused: u64,
}

/// One entry of one list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListEntry {
    /// The list.
    pub list: String,
    /// Its address.
    #[serde(with = "as_text")]
    pub address: AddressSet,
    /// The only VLAN that it counts in, in `vlan` and `pppoe`. Neither is there if it counts in all VLANs, or, of a door's
    /// entries, in none; where packets without a VLAN are to be told from all others, `vlan` is `untagged`.
    #[serde(flatten)]
    pub vlan: Vlan,
    /// The host name that resolves to the address, if that put it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The only other end that it counts for; none if it counts for all. Of IPv6 ends only a tag is kept, so that `::`
    /// stands for one that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Steps of a knock that were taken, in a door's list of those who knock; 0 elsewhere.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: u8,
    /// Time left; none if it does not expire.
    pub time_left: Option<Duration>,
    /// Whether a restart forgets it. What is static is of the rules, or an operator put it in for good.
    pub dynamic: bool,
    /// The line of the rule file that it stands on, if it is an entry of the rules; 0 if they came from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}
