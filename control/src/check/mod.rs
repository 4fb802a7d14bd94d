//! Offline checks of rule files: all findings with their places, and a summary of the rules.
//!
//! | file           | owns |
//! |----------------|------|
//! | `mod.rs`       | a file, and the result of its check |
//! | `findings.rs`  | the findings about a file with their places |

pub(crate) mod findings;

use std::collections::BTreeMap;

use knockplane_policy::rsc::{self, Finding, Problem, Reading, Severity, SkippedMenu};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use schemars::JsonSchema;
use serde::Serialize;

use self::findings::Findings;
use crate::rules;

/// Options of the check of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How<'s> {
    pub(crate) settings: &'s Settings,
    /// Whether rules that can never run are kept as disabled rules.
    pub(crate) allow_invalid: bool,
    /// Whether lints are reported.
    pub(crate) lints: bool,
}

/// The content of a file.
#[derive(Debug)]
pub(crate) struct CheckedFile {
    /// The name of the file for messages.
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
    pub(crate) reading: Reading,
}

/// The results of all files, for `--json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Checked {
    pub(crate) files: Vec<Judgement>,
}

/// The result of one file, which `--json` prints.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Judgement {
    pub(crate) file: String,
    pub(crate) valid: bool,
    /// Whether only lints make the file invalid.
    #[serde(skip)]
    pub(crate) denied: bool,
    pub(crate) rules: usize,
    pub(crate) disabled: usize,
    pub(crate) patterns: usize,
    /// The lists in the rules with their levels; `null` if only operators fill the list.
    pub(crate) lists: BTreeMap<String, Option<u8>>,
    pub(crate) skipped: Vec<SkippedMenu>,
    #[serde(flatten)]
    pub(crate) findings: Findings,
}

impl CheckedFile {
    /// A text that is in no file, with a name for messages.
    pub(crate) fn of(name: &str, text: &[u8]) -> CheckedFile {
        let text = rsc::utf8(text).into_owned();
        let reading = rsc::read(&text);
        CheckedFile { name: name.to_owned(), text, reading }
    }

    /// The result of the check, and the rules as they would run.
    pub(crate) fn judge(&self, how: &How<'_>) -> (Judgement, RuleSet) {
        let (findings, rules) = Findings::of(self, how);
        let is_error = |finding: &Finding| finding.severity == Severity::Error;
        let judgement = Judgement {
            file: self.name.clone(),
            denied: false,
            valid: findings.errors.is_empty() && !findings.placed().iter().any(is_error),
            rules: self.reading.rules.rules.len(),
            disabled: self.reading.rules.rules.iter().filter(|rule| rule.disabled).count(),
            patterns: rules.layer7.len(),
            lists: rules::lists(&rules, how.settings),
            skipped: self.reading.skipped.clone(),
            findings,
        };
        (judgement, rules)
    }
}

impl Judgement {
    /// The reasons that the file is not valid, in the form of failures of the API.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let placed = self.findings.placed().into_iter().filter(|finding| finding.severity == Severity::Error);
        let problem = |finding: Finding| {
            let Finding { span, line, column, message, expected, remedy, .. } = finding;
            Problem { span, line, column, message, expected, help: remedy }
        };
        let unplaced = self.findings.errors.iter().map(|error| Problem {
            span: 0..0,
            line: 0,
            column: 0,
            message: error.clone(),
            expected: None,
            help: None,
        });
        placed.map(problem).chain(unplaced).collect()
    }
}
