//! Host names in address lists: the control process resolves them, the dataplane uses the answers.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::packet::Family;
use crate::rule::{EntryAddress, ListEntry};

/// Maximum number of host names in the address lists of one rule set. Each is resolved again when its time to live
/// ends.
pub const MAX_NAMES: usize = 1_000;

/// Maximum number of addresses of one name; further addresses are dropped.
pub const MAX_NAME_ADDRESSES: usize = 64;

/// A host name in an address list, for addresses of the menu's family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostName {
    /// The family of its addresses: A records, or AAAA records.
    pub family: Family,
    /// The name.
    pub name: String,
}

impl HostName {
    /// The host name of a list entry; `None` if the entry is disabled or contains no name.
    pub fn of(entry: &ListEntry) -> Option<HostName> {
        match &entry.address {
            EntryAddress::Name(name) if !entry.disabled => Some(HostName { family: entry.family, name: name.clone() }),
            _ => None,
        }
    }
}

/// The answer for one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameAnswer {
    /// The name.
    pub name: HostName,
    /// The addresses, or the reason that there are none.
    pub outcome: NameOutcome,
}

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameOutcome {
    /// These addresses replace the earlier ones.
    Addresses(Vec<IpAddr>),
    /// Resolution failed, for this reason; the earlier addresses remain.
    Failed(String),
}

/// A host name in a list and its resolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameState {
    /// The list.
    pub list: String,
    /// The line of the rule file; 0 for rules without a file.
    pub line: u32,
    /// The name.
    #[serde(flatten)]
    pub name: HostName,
    /// The addresses, from the last answer.
    pub addresses: Vec<IpAddr>,
    /// The reason that the last attempt failed; `None` if it succeeded, or if there was none since the dataplane
    /// started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Time since the last answer; `None` if there was none since the dataplane started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_age: Option<Duration>,
}

impl NameState {
    /// The state in one word: `resolved`, `failing`, `stored` (from before the start) or `unresolved`.
    pub fn state(&self) -> &'static str {
        match (&self.failure, self.answer_age, self.addresses.is_empty()) {
            (Some(_), _, false) => "failing",
            (_, None, false) => "stored",
            (None, Some(_), _) => "resolved",
            _ => "unresolved",
        }
    }
}
