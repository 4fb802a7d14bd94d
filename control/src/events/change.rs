//! Changes by operators, for the stream of events and the audit file.

use std::fmt;

use knockplane_policy::rule::AddressSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The operator of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RecordedOperator {
    /// The user id of the operator's process, at a unix socket; `null` if it is not known.
    pub(crate) uid: Option<u32>,
    /// The name of the operator's token; `null` without a token.
    pub(crate) token: Option<String>,
}

/// The action of an operator, or of the dataplane in the place of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OperatorAction {
    /// Rules were applied.
    #[default]
    Apply,
    /// The rules of an earlier revision were applied.
    Rollback,
    /// The running rules were edited.
    Edit,
    /// The rules before a change were applied.
    Undo,
    /// An undo was reversed.
    Redo,
    /// An apply or a reload was confirmed.
    Confirm,
    /// An apply or a reload was not confirmed in time, and the dataplane rolled it back.
    NotConfirmed,
    /// The configuration was reloaded, by an operator or by a signal.
    Reload,
    /// Counters of rules were set to zero.
    ResetCounters,
    /// An entry was added to a list.
    ListAdd,
    /// Entries were added to lists.
    ListImport,
    /// An entry was removed from a list.
    ListRemove,
    /// All entries of a list were removed.
    ListFlush,
    /// Connections were ended.
    ConnectionRemove,
    /// A token was created.
    TokenCreate,
    /// A token was revoked.
    TokenRevoke,
    /// The first request with a token from an address in 12 hours, or a sign-in at the web page.
    SignIn,
    /// A sign-out from the web page.
    SignOut,
}

impl fmt::Display for OperatorAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Maximum length of a text in a recorded change, in characters.
const MAX_TEXT: usize = 1_000;

/// A change, successful or not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OperatorChange {
    /// The action.
    pub(crate) action: OperatorAction,
    /// The operator.
    pub(crate) by: RecordedOperator,
    /// The reason that it failed; `null` if it succeeded.
    pub(crate) error: Option<String>,
    /// The generation that runs after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<u64>,
    /// The revision that runs after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<u64>,
    /// The source of the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rules_source: Option<String>,
    /// The command of an edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) edit: Option<String>,
    /// The comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
    /// The time within which it must be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) confirm_within_seconds: Option<f64>,
    /// The token that was created or revoked, or the filter of the connections that were ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<String>,
    /// The timeout of an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_seconds: Option<f64>,
    /// The number of entries that were added or removed, of connections that were ended, or of rules whose counters were reset; 0
    /// for all rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<u64>,
    /// The list, which is beside this object in JSON.
    #[serde(skip)]
    pub(crate) list: Option<String>,
    /// The address, which is beside this object in JSON.
    #[serde(skip)]
    pub(crate) address: Option<AddressSet>,
}

impl OperatorChange {
    /// A change by this operator.
    pub(crate) fn of(action: OperatorAction, by: RecordedOperator) -> Self {
        OperatorChange { action, by, ..OperatorChange::default() }
    }

    /// A change of a list.
    pub(crate) fn at(action: OperatorAction, by: RecordedOperator, list: &str, address: Option<&AddressSet>) -> Self {
        let (list, address) = (Some(list.to_owned()), address.cloned());
        OperatorChange { list, address, ..OperatorChange::of(action, by) }
    }

    /// Shortens its texts: many changes are kept, and a refused request may have long ones.
    pub(super) fn shortened(mut self) -> Self {
        let OperatorChange { error, rules_source, edit, comment, subject, list, .. } = &mut self;
        for text in [error, rules_source, edit, comment, subject, list].into_iter().flatten() {
            if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
                text.truncate(end);
            }
        }
        self
    }

    /// Adds the outcome.
    pub(crate) fn ended<T>(self, outcome: &Result<T, impl fmt::Display>) -> Self {
        OperatorChange { error: outcome.as_ref().err().map(ToString::to_string), ..self }
    }
}
