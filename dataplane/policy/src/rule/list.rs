//! Address lists: what rules add to them, and what they hold from the start.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::is_default;
use super::value::AddressSet;
use crate::packet::Family;

/// Where an address goes and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAdd {
    /// Name of the address list.
    pub list: String,
    /// How long the address stays.
    pub timeout: ListTimeout,
}

/// How long an address stays in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListTimeout {
    /// Until the dataplane restarts. RouterOS's default.
    NoneDynamic,
    /// For good. Saved and exported by RouterOS; here it survives a reload, as `NoneDynamic` does.
    NoneStatic,
    /// This long after the last packet that added it. 1 s to 35w3d13h13m56s.
    After(Duration),
}

/// A line of `/ip firewall address-list` or `/ipv6 firewall address-list`: what a list holds from the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListEntry {
    /// Which menu it stands in.
    pub family: Family,
    /// Name of the address list.
    pub list: String,
    /// What it puts in.
    pub address: EntryAddress,
    /// How long it stays, from when the rules are applied; for good if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Kept and shown, but not in the list.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disabled: bool,
    /// Free text.
    #[serde(default, skip_serializing_if = "is_default")]
    pub comment: String,
    /// The line of the rule file it began on, counted from 1; 0 if it came from elsewhere.
    pub line: u32,
}

/// What an entry puts in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryAddress {
    /// An address, prefix or range.
    Set(AddressSet),
    /// Every address of a host name, looked up again as DNS says.
    Name(String),
    /// Nothing: RouterOS exports such entries. Not every address.
    None,
}
