//! Findings about a position of a file: problems, rules that cannot run, lints.

use std::ops::Range;

use serde::{Serialize, Serializer};

use super::problem::{Cursor, Problem};
use crate::rule::RuleNumber;

/// The code of a [`Problem`] of the file.
pub const PROBLEM_CODE: &str = "E001";

/// The code of a warning of a [`Reading`](super::Reading).
pub const WARNING_CODE: &str = "W001";

/// Severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The rules cannot run.
    Error,
    /// The rules run, but may differ from the intention.
    Warning,
}

/// A finding about a position of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The name of the file.
    pub file: String,
    /// The severity.
    pub severity: Severity,
    /// The code, four characters.
    pub code: &'static str,
    /// The position in the file, in bytes.
    #[serde(skip)]
    pub span: Range<usize>,
    /// The line on which the position begins, from 1; 0 (in JSON `null`) without a position.
    #[serde(serialize_with = "null_for_0")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
    pub line: u32,
    /// The character of that line at which the position begins, from 1; 0 as for `line`.
    #[serde(serialize_with = "null_for_0")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
    pub column: u32,
    /// The rule, by its number in `show rules`; `None` if the finding concerns no rule, or if the rules cannot be read.
    pub rule: Option<RuleNumber>,
    /// The error.
    pub message: String,
    /// The expected form.
    pub expected: Option<String>,
    /// The remedy.
    pub remedy: Option<String>,
    /// A related position.
    pub also: Option<Also>,
}

/// Another position of the file that is related to a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Also {
    /// The bytes.
    #[serde(skip)]
    pub span: Range<usize>,
    /// The line on which the position begins, from 1.
    pub line: u32,
    /// A label.
    pub what: String,
}

impl Finding {
    /// Creates a finding about these bytes. [`place`] adds line and column.
    pub fn new(severity: Severity, code: &'static str, span: Range<usize>, message: impl Into<String>) -> Finding {
        let (file, message) = (String::new(), message.into());
        Finding {
            file,
            severity,
            code,
            span,
            line: 1,
            column: 1,
            rule: None,
            message,
            expected: None,
            remedy: None,
            also: None,
        }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = Some(remedy.into());
        self
    }
}

impl From<Problem> for Finding {
    fn from(problem: Problem) -> Finding {
        let Problem { span, line, column, message, expected, help } = problem;
        let finding = Finding::new(Severity::Error, PROBLEM_CODE, span, message);
        Finding { line, column, expected, remedy: help, ..finding }
    }
}

fn null_for_0<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    (*number > 0).then_some(*number).serialize(serializer)
}

/// Sorts findings in the order of their file, and sets the file's name, lines and columns.
pub fn place(findings: &mut [Finding], file: &str, text: &[u8]) {
    findings.sort_by_key(|finding| (finding.span.start, finding.span.end));
    let mut cursor = Cursor::new(text);
    for finding in findings {
        file.clone_into(&mut finding.file);
        (finding.line, finding.column) = cursor.advance(finding.span.start);
    }
}
