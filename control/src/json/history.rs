//! Revisions: the rule sets that have run.

use knockplane_policy::rsc;
use knockplane_policy::rule::RuleChangeCounts;
use knockplane_policy::time::Time;
use knockplane_policy::wire::history::{ApplyNote, History, Revision, RevisionOrigin, RevisionRules};
use schemars::JsonSchema;
use serde::Serialize;

use super::{rfc_3339, seconds};

/// `history`: the revisions in order. The last one runs.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct HistoryJson {
    pub(crate) revisions: Vec<RevisionJson>,
    /// The damage of the stored history that the dataplane found at its start; `null` if there was none.
    pub(crate) damage: Option<String>,
}

/// A rule set that has run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RevisionJson {
    /// The number, from 1.
    pub(crate) revision: u64,
    /// The time when it began to run, in the form of RFC 3339.
    pub(crate) time: String,
    /// Why it began to run.
    pub(crate) origin: RevisionOrigin,
    /// The revision to which a rollback, an undo or a redo returned; `null` for other origins.
    pub(crate) back_to: Option<u64>,
    /// The command of an edit, such as `rule remove 3`; `null` for other origins.
    pub(crate) edit: Option<String>,
    /// The user id of the operator's process, also of the process that made the link of a sign-in at the web page; `null` if none is
    /// known.
    pub(crate) uid: Option<u32>,
    /// The name of the API token of the request; `null` if it had none.
    pub(crate) token: Option<String>,
    /// Whether the request came from the web page.
    pub(crate) page: bool,
    /// The operator's comment.
    pub(crate) comment: String,
    /// The origin of the rules.
    pub(crate) source: String,
    /// Number of rules, with those of doors.
    pub(crate) rules: usize,
    /// The changes from the revision before it.
    pub(crate) changes: RuleChangeCounts,
    /// The time within which it had to be confirmed; `null` if it had not.
    pub(crate) confirm_within_seconds: Option<f64>,
    /// Whether its rules are kept, so that `rollback` can return to it.
    pub(crate) has_rules: bool,
}

impl From<Revision> for RevisionJson {
    fn from(revision: Revision) -> Self {
        let Revision { number, time, origin, note, source, rules, changes, confirm_within, has_rules } = revision;
        let ApplyNote { uid, token, page, comment, back_to, edit } = note;
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        RevisionJson {
            revision: number,
            time: rfc_3339(Time::from_nanos(nanoseconds)),
            origin,
            back_to,
            edit: (!edit.is_empty()).then_some(edit),
            uid,
            token,
            page,
            comment,
            source,
            rules,
            changes,
            confirm_within_seconds: confirm_within.map(seconds),
            has_rules,
        }
    }
}

impl From<History> for HistoryJson {
    fn from(History { revisions, damage }: History) -> Self {
        HistoryJson { revisions: revisions.into_iter().map(RevisionJson::from).collect(), damage }
    }
}

/// A revision with its rules.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RevisionExportJson {
    #[serde(flatten)]
    pub(crate) revision: RevisionJson,
    /// The rules as RouterOS exports them, without those of doors; `null` if its language has no form for them.
    pub(crate) export: Option<String>,
}

impl From<RevisionRules> for RevisionExportJson {
    fn from(RevisionRules { revision, rules }: RevisionRules) -> Self {
        RevisionExportJson { revision: revision.into(), export: rsc::export(&rules).ok() }
    }
}

/// `diff`: the differences of two revisions.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DiffJson {
    /// The first revision.
    pub(crate) from: u64,
    /// The second revision.
    pub(crate) to: u64,
    /// The differences of the two exports as a unified diff; empty if there are none.
    pub(crate) diff: String,
    /// Whether the rules of doors differ, which are in no export.
    pub(crate) doors_differ: bool,
}
