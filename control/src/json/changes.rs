//! Answers of commands that change the state.

use knockplane_policy::packet::Family;
use knockplane_policy::wire;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::messages;

/// `apply`: the rules run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Applied {
    /// The generation that runs now.
    pub(crate) generation: u64,
    /// Number of rules of the generation.
    pub(crate) rules: usize,
    /// Number of layer-7 patterns of the generation.
    pub(crate) patterns: usize,
    /// Host names in the lists of the generation that could not be resolved before it ran.
    pub(crate) unresolved: Vec<Unresolved>,
}

/// A host name that could not be resolved.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Unresolved {
    /// The family of the addresses.
    pub(crate) family: Family,
    pub(crate) name: String,
    /// Why.
    pub(crate) reason: String,
}

impl From<messages::Applied> for Applied {
    fn from(messages::Applied { generation, rules, patterns, unresolved }: messages::Applied) -> Self {
        let unresolved = unresolved.into_iter().map(|messages::Unresolved { name, reason }| {
            let wire::HostName { family, name } = name;
            Unresolved { family, name, reason }
        });
        Applied { generation, rules, patterns, unresolved: unresolved.collect() }
    }
}

/// `reload`: the configuration was read again.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Reloaded {
    /// The generation that runs now.
    pub(crate) generation: u64,
    /// Number of doors of the generation.
    pub(crate) doors: usize,
    /// Changed keys that wait for a restart of the dataplane.
    pub(crate) waiting: Vec<String>,
}

impl From<wire::Reloaded> for Reloaded {
    fn from(wire::Reloaded { generation, doors, waiting }: wire::Reloaded) -> Self {
        Reloaded { generation, doors, waiting }
    }
}

/// `list add`: the entry is in the list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Added {
    pub(crate) list: String,
    /// The address, prefix or range.
    pub(crate) address: String,
    /// The timeout of the entry; `null` if the entry is static.
    pub(crate) timeout_seconds: Option<f64>,
    /// The list, if no running rule matches it: then the entry has no effect.
    pub(crate) unused_lists: Vec<String>,
}

/// `list remove`: the entry is not in the list any more.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Removed {
    pub(crate) list: String,
    /// The address, prefix or range.
    pub(crate) address: String,
}

/// `list flush`: the list is empty, except for entries of the rules and, with `--dynamic`, static ones.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Flushed {
    pub(crate) list: String,
    /// Number of removed entries.
    pub(crate) removed: u64,
}

/// `list import`: all entries of the file are in their lists.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Imported {
    /// Number of entries of the file.
    pub(crate) entries: usize,
    /// Number of these entries that were static already and did not change.
    pub(crate) unchanged: u64,
    /// Lists that no running rule matches: entries in them have no effect.
    pub(crate) unused_lists: Vec<String>,
}
