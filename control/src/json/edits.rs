//! Answers of the API about edits of the running rules, and about their lints.

use std::collections::HashMap;

use knockplane_policy::lint::{Lint, Subject};
use knockplane_policy::rsc::Finding;
use knockplane_policy::rule::{RuleId, RuleNumber, RuleSet, numbers};
use schemars::JsonSchema;
use serde::Serialize;

use super::changes::AppliedJson;
use crate::check::findings;
use crate::plan::Plan;

/// `POST /api/v1/rules/edit`, an undo, a redo or a rollback: the rules run, or what would change.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EditedJson {
    /// The rules that run now, with the numbers of changes; `null` for a dry run.
    pub(crate) applied: Option<AppliedJson>,
    /// What would change; `null` unless it is a dry run.
    pub(crate) plan: Option<Plan>,
    /// The lints of the changed rules; `null` unless it is a dry run.
    pub(crate) lints: Option<Vec<RuleLintJson>>,
    /// What the change would lose, in words: no rule, or no way in from outside, is left. Then only a change with `force` is applied.
    /// `null` if nothing, or unless it is a dry run.
    pub(crate) loss: Option<String>,
}

impl EditedJson {
    /// The answer to a change that was applied.
    pub(crate) fn applied(applied: AppliedJson) -> EditedJson {
        EditedJson { applied: Some(applied), plan: None, lints: None, loss: None }
    }
}

/// `GET /api/v1/export`: the running rules in the format of a RouterOS export.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExportTextJson {
    /// The generation of the rules.
    pub(crate) generation: u64,
    /// The revision of the rules.
    pub(crate) revision: u64,
    /// The text of a rule file, without the rules of doors.
    pub(crate) text: String,
}

/// `GET /api/v1/lints`: the lints of the running rules.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RuleLintsJson {
    /// The generation of the rules.
    pub(crate) generation: u64,
    /// The revision of the rules.
    pub(crate) revision: u64,
    pub(crate) lints: Vec<RuleLintJson>,
}

/// A lint about a rule, a pattern or a door.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RuleLintJson {
    /// The id of the rule; `null` if the lint is about a pattern or a door.
    pub(crate) id: Option<RuleId>,
    #[serde(flatten)]
    pub(crate) finding: Finding,
}

/// The lints about these rules, which come from a file of this name.
pub(crate) fn rule_lints(source: &str, rules: &RuleSet, lints: &[Lint]) -> Vec<RuleLintJson> {
    let numbers: HashMap<&RuleId, RuleNumber> =
        rules.rules.iter().map(|rule| &rule.id).zip(numbers(&rules.rules)).collect();
    let of = |lint: &Lint| {
        let (file, id) = match &lint.subject {
            Subject::Door(_) => ("the configuration", None),
            Subject::Pattern(_) => (source, None),
            Subject::Rule(id) => (source, Some(id)),
        };
        let finding = findings::of_lint(lint, id.and_then(|id| numbers.get(id).copied()));
        RuleLintJson { id: id.cloned(), finding: Finding { file: file.to_owned(), ..finding } }
    };
    lints.iter().map(of).collect()
}
