//! Answers of commands that change the state.

use std::time::Duration;

use knockplane_policy::packet::Family;
use knockplane_policy::wire;
use schemars::JsonSchema;
use serde::Serialize;

use super::seconds;
use crate::api::messages;

/// `apply`: the rules run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AppliedJson {
    /// The generation that runs now.
    pub(crate) generation: u64,
    /// Its revision in `history`: the one before if the rules are the same.
    pub(crate) revision: u64,
    /// Number of rules of the generation.
    pub(crate) rules: usize,
    /// Number of layer-7 patterns of the generation.
    pub(crate) patterns: usize,
    /// Host names in the lists of the generation that could not be resolved before it ran.
    pub(crate) unresolved: Vec<UnresolvedJson>,
    /// The changes from the rules that ran before; `null` if these could not be read.
    pub(crate) changes: Option<ChangeCountsJson>,
    /// Time until the rules are rolled back, unless `confirm` arrives; `null` if they remain.
    pub(crate) confirm_within_seconds: Option<f64>,
}

/// Numbers of changes, which `knockctl plan` shows one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct ChangeCountsJson {
    pub(crate) rules_added: usize,
    pub(crate) rules_removed: usize,
    /// Rules with another place among the rules of their chain.
    pub(crate) rules_moved: usize,
    /// Rules with another comment, or that were disabled or enabled.
    pub(crate) rules_changed: usize,
    /// Commands of menus without rules, such as entries of address lists.
    pub(crate) other_menus_added: usize,
    pub(crate) other_menus_removed: usize,
    /// Lints of `knockctl check`.
    pub(crate) lints_added: usize,
    pub(crate) lints_gone: usize,
}

/// `cancel`: the rules, or the doors and `[policy]`, before the change run again.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CancelledJson {
    /// The generation that runs.
    generation: u64,
    /// Its revision.
    revision: u64,
}

impl From<messages::Cancelled> for CancelledJson {
    fn from(messages::Cancelled { generation, revision }: messages::Cancelled) -> Self {
        CancelledJson { generation, revision }
    }
}

/// `confirm`: the rules, or the doors and `[policy]`, remain.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConfirmedJson {
    /// The generation that runs.
    pub(crate) generation: u64,
}

impl From<messages::Confirmed> for ConfirmedJson {
    fn from(messages::Confirmed { generation }: messages::Confirmed) -> Self {
        ConfirmedJson { generation }
    }
}

/// `rule reset-counters`: the counters begin at zero.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CountersResetJson {
    /// Number of rules.
    pub(crate) rules: usize,
}

/// A host name that could not be resolved.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UnresolvedJson {
    /// The family of the addresses.
    pub(crate) family: Family,
    pub(crate) name: String,
    /// Why.
    pub(crate) reason: String,
}

impl AppliedJson {
    pub(crate) fn new(
        applied: messages::Applied,
        changes: Option<ChangeCountsJson>,
        confirm_within: Option<Duration>,
    ) -> Self {
        let messages::Applied { generation, revision, rules, patterns, unresolved } = applied;
        let unresolved = unresolved.into_iter().map(|messages::Unresolved { name, reason }| {
            let wire::HostName { family, name } = name;
            UnresolvedJson { family, name, reason }
        });
        let confirm_within_seconds = confirm_within.map(seconds);
        AppliedJson {
            generation,
            revision,
            rules,
            patterns,
            unresolved: unresolved.collect(),
            changes,
            confirm_within_seconds,
        }
    }
}

/// `reload`: the configuration was read again.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReloadedJson {
    /// The generation that runs now.
    pub(crate) generation: u64,
    /// Number of doors of the generation.
    pub(crate) doors: usize,
    /// Changed keys that wait for a restart of the dataplane.
    pub(crate) waiting: Vec<String>,
    /// Time until doors and `[policy]` are rolled back, unless `confirm` arrives; `null` if they remain.
    pub(crate) confirm_within_seconds: Option<f64>,
}

impl ReloadedJson {
    pub(crate) fn new(reloaded: wire::Reloaded, confirm_within: Option<Duration>) -> Self {
        let wire::Reloaded { generation, doors, waiting } = reloaded;
        ReloadedJson { generation, doors, waiting, confirm_within_seconds: confirm_within.map(seconds) }
    }
}

/// `list add`: the entry is in the list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AddedJson {
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
pub(crate) struct RemovedJson {
    pub(crate) list: String,
    /// The address, prefix or range.
    pub(crate) address: String,
}

/// `list flush`: the list is empty, except for entries of the rules and, with `--dynamic`, static ones.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FlushedJson {
    pub(crate) list: String,
    /// Number of removed entries.
    pub(crate) removed: u64,
}

/// `list import`: all entries of the file are in their lists.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ImportedJson {
    /// Number of entries of the file.
    pub(crate) entries: usize,
    /// Number of these entries that were static already and did not change.
    pub(crate) unchanged: u64,
    /// Lists that no running rule matches: entries in them have no effect.
    pub(crate) unused_lists: Vec<String>,
}
