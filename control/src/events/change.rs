//! Changes by operators, for the stream of events and the audit file.

use std::fmt;

use knockplane_log::target;
use knockplane_policy::event::EventId;
use knockplane_policy::rule::AddressSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The operator of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RecordedOperator {
    /// The user id of the operator's process, at a unix socket, also of the process that made the link of a sign-in; `null` if it is
    /// not known.
    pub(crate) uid: Option<u32>,
    /// The name of the operator's token; `null` without a token.
    pub(crate) token: Option<String>,
    /// Whether the operator uses the web page.
    pub(crate) page: bool,
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
    /// An operator rolled an apply or a reload back instead of confirming it.
    Cancel,
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
    /// A link was made that signs in once at the web page.
    LinkCreate,
    /// The first request with a token from an address in 12 hours, or a sign-in at the web page.
    SignIn,
    /// A sign-out from the web page, or of all sessions by link.
    SignOut,
}

impl fmt::Display for OperatorAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl OperatorAction {
    /// The words of the log for a success, and for a failure.
    const fn outcomes(self) -> (&'static str, &'static str) {
        match self {
            OperatorAction::Apply
            | OperatorAction::Rollback
            | OperatorAction::Edit
            | OperatorAction::Undo
            | OperatorAction::Redo => ("rules applied", "rules not applied"),
            OperatorAction::Confirm => ("rules confirmed", "rules not confirmed"),
            OperatorAction::Cancel | OperatorAction::NotConfirmed => ("rolled back", "not rolled back"),
            OperatorAction::Reload => ("configuration reloaded", "configuration not reloaded"),
            OperatorAction::ResetCounters => ("counters of rules reset", "counters of rules not reset"),
            OperatorAction::ListAdd => ("entry added", "entry not added"),
            OperatorAction::ListImport => ("entries added", "entries not added"),
            OperatorAction::ListRemove => ("entry removed", "entry not removed"),
            OperatorAction::ListFlush => ("list flushed", "list not flushed"),
            OperatorAction::ConnectionRemove => ("connections ended", "connections not ended"),
            OperatorAction::TokenCreate => ("token created", "token not created"),
            OperatorAction::TokenRevoke => ("token revoked", "token not revoked"),
            OperatorAction::LinkCreate => ("link created", "link not created"),
            OperatorAction::SignIn => ("signed in", "not signed in"),
            OperatorAction::SignOut => ("signed out", "not signed out"),
        }
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
    /// The token that was created or revoked, the role of a link, or the filter of the connections that were ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<String>,
    /// The timeout of an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_seconds: Option<f64>,
    /// The number of entries that were added or removed, of connections or sessions that were ended, or of rules whose counters were reset; 0
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

    /// Logs the change: its fields have the names of the event's document.
    pub(super) fn log(&self, id: EventId) {
        let OperatorChange { action, by, error, list, address, .. } = self;
        let (done, not_done) = action.outcomes();
        macro_rules! line {
            ($level:ident, $message:expr) => {
                tracing::$level!(
                    target: target!("operator"),
                    list,
                    source = address.as_ref().map(tracing::field::display),
                    operator.action = %action,
                    operator.by.uid = by.uid,
                    operator.by.token = by.token,
                    operator.by.page = by.page.then_some(true),
                    operator.error = error,
                    operator.generation = self.generation,
                    operator.revision = self.revision,
                    operator.rules_source = self.rules_source,
                    operator.edit = self.edit,
                    operator.comment = self.comment,
                    operator.confirm_within_seconds = self.confirm_within_seconds,
                    operator.subject = self.subject,
                    operator.timeout_seconds = self.timeout_seconds,
                    operator.number = self.number,
                    %id,
                    "{}",
                    $message
                )
            };
        }
        match error {
            None => line!(info, done),
            Some(_) => line!(warn, not_done),
        }
    }

    /// Adds the outcome.
    pub(crate) fn ended<T>(self, outcome: &Result<T, impl fmt::Display>) -> Self {
        OperatorChange { error: outcome.as_ref().err().map(ToString::to_string), ..self }
    }
}
