//! Revisions: the rule sets that have run, with the reasons that they began to run.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rule::{RuleChangeCounts, RuleSet};
use crate::word::{Word as _, words};

/// Maximum number of revisions. The dataplane drops older ones.
pub const MAX_REVISIONS: usize = 100;

/// Maximum length of an operator's comment on an apply, and of the command of an edit, in bytes.
pub const MAX_APPLY_COMMENT: usize = 1_000;

/// Maximum number of revisions that the refusal of a change of an earlier revision lists.
const MAX_LISTED: usize = 20;

words! {
    /// The reason that a rule set began to run.
    #[derive(Default)]
    RevisionOrigin {
        /// The dataplane started with other rules than those of the last revision.
        Start = "start",
        /// An operator applied rules.
        #[default]
        Apply = "apply",
        /// A reload of the configuration changed the rules of doors.
        Reload = "reload",
        /// An operator returned to an earlier revision.
        Rollback = "rollback",
        /// An apply was not confirmed in time.
        Unconfirmed = "unconfirmed",
        /// An operator edited the running rules.
        Edit = "edit",
        /// An operator returned to the rules before a change.
        Undo = "undo",
        /// An operator reversed an undo.
        Redo = "redo",
    }
}

impl RevisionOrigin {
    /// Whether an operator's request has this origin.
    pub const fn is_of_operator(self) -> bool {
        match self {
            Self::Apply | Self::Rollback | Self::Edit | Self::Undo | Self::Redo => true,
            Self::Start | Self::Reload | Self::Unconfirmed => false,
        }
    }
}

/// What an operator and the control process tell about an apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyNote {
    /// The user id of the operator's process, as the control process found it at its socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The name of the API token of the request; `None` for a request without a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Whether the request came from the web page.
    #[serde(default, skip_serializing_if = "is_false")]
    pub page: bool,
    /// Free text, at most [`MAX_APPLY_COMMENT`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The revision whose rules these are, for a rollback, an undo and a redo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_to: Option<u64>,
    /// The command of an edit, at most [`MAX_APPLY_COMMENT`] bytes: `rule remove 3`. Empty for other changes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub edit: String,
}

const fn is_false(value: &bool) -> bool {
    !*value
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
    /// The time within which it had to be confirmed. If it was not, an `unconfirmed` revision follows, or
    /// that of a `reload`.
    pub confirm_within: Option<Duration>,
    /// Whether its rules are kept. Rules that are larger than the file may be are not kept.
    pub has_rules: bool,
}

impl Revision {
    /// The change in a few words: the command of an edit, otherwise the source of the rules.
    pub fn what(&self) -> &str {
        if self.note.edit.is_empty() { &self.source } else { &self.note.edit }
    }
}

impl fmt::Display for Revision {
    /// The revision in one line, without its time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleChangeCounts { added, removed, changed, .. } = self.changes;
        write!(f, "revision {}, {}", self.number, self.origin.name())?;
        if let Some(number) = self.note.back_to {
            write!(f, " to {number}")?;
        }
        if let Some(uid) = self.note.uid {
            write!(f, " by user {uid}")?;
        }
        if let Some(token) = &self.note.token {
            write!(f, " by token {token}")?;
        }
        if self.note.page {
            f.write_str(" in the web page")?;
        }
        write!(f, ": {}; rules +{added} -{removed} ~{changed}", self.what())?;
        if self.note.comment.is_empty() { Ok(()) } else { write!(f, "; {}", self.note.comment) }
    }
}

/// The revisions that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The revisions in order. The last one runs.
    pub revisions: Vec<Revision>,
    /// The damage of the file that the start found; `None` if there was none.
    pub damage: Option<String>,
}

impl History {
    /// Checks that the last revision is the one on which a change is based.
    ///
    /// # Errors
    /// The revisions since that one, or that there is no such revision.
    pub fn check_base(&self, based_on: u64) -> Result<(), String> {
        let Some(last) = self.revisions.last() else { return Ok(()) };
        if last.number == based_on {
            return Ok(());
        }
        if based_on == 0 || last.number < based_on {
            return Err(format!("there is no revision {based_on}: revision {} runs; nothing changed", last.number));
        }
        let since: Vec<_> = self.revisions.iter().filter(|revision| revision.number > based_on).collect();
        let listed = &since[since.len().saturating_sub(MAX_LISTED)..];
        let more = usize::try_from(last.number - based_on).unwrap_or(usize::MAX) - listed.len();
        let mut text = format!(
            "the change is based on revision {based_on}, and revision {} runs; nothing changed: look at the rules again \
             and repeat it. Changes since:",
            last.number
        );
        if more > 0 {
            text += &format!("\n  {more} older ones");
        }
        listed.iter().for_each(|revision| text += &format!("\n  {}", revision.to_string().escape_debug()));
        Err(text)
    }
}

/// A revision with its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRules {
    /// The revision.
    pub revision: Revision,
    /// The rules, behind those of doors.
    pub rules: RuleSet,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: u64, note: ApplyNote) -> Revision {
        Revision {
            number,
            time: Duration::ZERO,
            origin: RevisionOrigin::Edit,
            note,
            source: "a.rsc".to_owned(),
            rules: 1,
            changes: RuleChangeCounts { added: 1, ..RuleChangeCounts::default() },
            confirm_within: None,
            has_rules: true,
        }
    }

    #[test]
    fn a_change_of_an_earlier_revision_is_refused_with_the_changes_since() {
        let note =
            ApplyNote { edit: "rule add".to_owned(), uid: Some(7), comment: "a\nb".to_owned(), ..ApplyNote::default() };
        let revisions = (2..=30).map(|number| revision(number, note.clone())).collect();
        let history = History { revisions, damage: None };
        assert_eq!(history.check_base(30), Ok(()));
        let error = history.check_base(28).unwrap_err();
        let (first, listed) = error.split_once('\n').unwrap();
        assert!(
            first.starts_with("the change is based on revision 28, and revision 30 runs; nothing changed"),
            "{error}"
        );
        let line = |number| format!("  revision {number}, edit by user 7: rule add; rules +1 -0 ~0; a\\nb");
        assert_eq!(listed.lines().collect::<Vec<_>>(), [line(29), line(30)]);
        let error = history.check_base(1).unwrap_err();
        assert_eq!(error.lines().count(), 2 + MAX_LISTED, "{error}");
        assert!(error.contains("\n  9 older ones\n  revision 11, "), "{error}");
        for unknown in [0, 31] {
            let error = history.check_base(unknown).unwrap_err();
            assert!(error.starts_with(&format!("there is no revision {unknown}: revision 30 runs")), "{error}");
        }
    }
}
