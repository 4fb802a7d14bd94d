//! Revisions: the rule sets that have run, with the reasons that they began to run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rule::{RuleChangeCounts, RuleSet};
use crate::word::words;

/// Maximum number of revisions. The dataplane drops older ones.
pub const MAX_REVISIONS: usize = 100;

/// Maximum length of an operator's comment on an apply, in bytes.
pub const MAX_APPLY_COMMENT: usize = 1_000;

words! {
    /// The reason that a rule set began to run.
    RevisionOrigin {
        /// The dataplane started with other rules than those of the last revision.
        Start = "start",
        /// An operator applied rules.
        Apply = "apply",
        /// A reload of the configuration changed the rules of doors.
        Reload = "reload",
        /// An operator returned to an earlier revision.
        Rollback = "rollback",
        /// An apply was not confirmed in time.
        Unconfirmed = "unconfirmed",
    }
}

/// What an operator and the control process tell about an apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyNote {
    /// The user id of the operator's process, as the control process found it at its socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Free text, at most [`MAX_APPLY_COMMENT`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The revision whose rules these are, for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to: Option<u64>,
}

/// A rule set that has run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Counted from 1, also over restarts.
    pub number: u64,
    /// The time when it began to run, since the Unix epoch.
    pub time: Duration,
    /// Why it began to run.
    pub origin: RevisionOrigin,
    /// The operator and the comment, and the revision to which a rollback returned.
    pub note: ApplyNote,
    /// The source of the rules.
    pub source: String,
    /// The number of rules, with those of doors.
    pub rules: usize,
    /// The changes from the revision before it.
    pub changes: RuleChangeCounts,
    /// The time within which it had to be confirmed. If it was not, an `unconfirmed` revision follows, or a `start`.
    pub confirm_within: Option<Duration>,
    /// Whether its rules are kept. Rules that are larger than the file may be are not kept.
    pub has_rules: bool,
}

/// The revisions that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The revisions in order. The last one runs.
    pub revisions: Vec<Revision>,
    /// The damage of the file that the start found; `None` if there was none.
    pub damage: Option<String>,
}

/// A revision with its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRules {
    /// The revision.
    pub revision: Revision,
    /// The rules, behind those of doors.
    pub rules: RuleSet,
}
