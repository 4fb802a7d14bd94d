//! Address lists: additions by rules, and entries of the rule file.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::is_default;
use super::value::AddressSet;
use crate::packet::Family;

/// The list and the timeout of an addition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAdd {
    /// Name of the address list.
    pub list: String,
    /// The timeout of the entry.
    pub timeout: ListTimeout,
}

/// The timeout of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListTimeout {
    /// Until the dataplane restarts. RouterOS's default.
    NoneDynamic,
    /// No expiry. RouterOS stores and exports such entries. In this filter they survive a reload, as with
    /// `NoneDynamic`.
    NoneStatic,
    /// The time after the last packet that added the address: 1 s to 35w3d13h13m56s.
    After(Duration),
}

/// A line of `/ip firewall address-list` or `/ipv6 firewall address-list`: an entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListEntry {
    /// The family of its menu.
    pub family: Family,
    /// Name of the address list.
    pub list: String,
    /// The address.
    pub address: EntryAddress,
    /// The timeout, which begins when the rules are applied; `None` for a static entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether the entry is kept and shown, but not in the list.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disabled: bool,
    /// Free text.
    #[serde(default, skip_serializing_if = "is_default")]
    pub comment: String,
    /// The line of the rule file on which the entry begins, counted from 1; 0 for entries without a file.
    pub line: u32,
}

/// The address of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryAddress {
    /// An address, prefix or range.
    Set(AddressSet),
    /// All addresses of a host name, which is resolved again after their time to live.
    Name(String),
    /// No address: RouterOS exports such entries. They match no packet.
    None,
}
