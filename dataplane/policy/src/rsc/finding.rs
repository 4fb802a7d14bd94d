//! Anything that is said of a place in a file: a problem, a rule that cannot run, a lint.

use std::ops::Range;

use serde::{Serialize, Serializer};

use super::problem::{Cursor, Problem};
use crate::rule::RuleNumber;

/// The code of a [`Problem`] of the file.
pub const PROBLEM_CODE: &str = "E001";

/// The code of a warning of a [`Reading`](super::Reading).
pub const WARNING_CODE: &str = "W001";

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The rules do not run like this.
    Error,
    /// They run, and may not do what was meant.
    Warning,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The file, as people call it.
    pub file: String,
    /// How bad it is.
    pub severity: Severity,
    /// What kind of thing it is, in four characters.
    pub code: &'static str,
    /// The bytes of the file that it is about.
    #[serde(skip)]
    pub span: Range<usize>,
    /// The line on which they begin, from 1; 0, in JSON `null`, if it is about no place of a file.
    #[serde(serialize_with = "null_for_0")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
    pub line: u32,
    /// The character of that line at which they begin, from 1; as `line`.
    #[serde(serialize_with = "null_for_0")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u32>"))]
    pub column: u32,
    /// The rule that it is about, by its number in `show rules`; `None` if it is about no rule, or rules cannot be read.
    pub rule: Option<RuleNumber>,
    /// What is wrong.
    pub message: String,
    /// What could have stood there.
    pub expected: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Another place that has to do with it.
    pub also: Option<Also>,
}

/// Another place of the file that has to do with a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Also {
    /// Its bytes.
    #[serde(skip)]
    pub span: Range<usize>,
    /// The line on which they begin, from 1.
    pub line: u32,
    /// What stands there.
    pub what: String,
}

impl Finding {
    /// A finding about these bytes. [`place`] adds line and column.
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

    /// With what to do about it.
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

/// Brings findings into the order of their file, and gives them its name, their lines and columns.
pub fn place(findings: &mut [Finding], file: &str, text: &[u8]) {
    findings.sort_by_key(|finding| (finding.span.start, finding.span.end));
    let mut cursor = Cursor::new(text);
    for finding in findings {
        file.clone_into(&mut finding.file);
        (finding.line, finding.column) = cursor.advance(finding.span.start);
    }
}
