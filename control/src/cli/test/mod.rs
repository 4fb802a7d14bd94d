//! `knockctl test`: tests of rules, for authors of rules. A test is a series of packets, with time between them, and
//! the expected result of each. The report has the form of `cargo test`'s, with the reason for each result that
//! differs.
//!
//! | file      | owns |
//! |-----------|------|
//! | `mod.rs`  | runs tests, and reports the results |
//! | `file.rs` | a test file: its format, and its errors |

mod file;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::format_duration;
use schemars::JsonSchema;
use serde::Serialize;

use self::file::{Expected, TestCase, TestFile, TestStep};
use super::table::{count, printable};
use super::{Failed, document, sources};
use crate::Exit;
use crate::bench::{Bench, Explained, Held, side};

/// The results of all files.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Reports {
    files: Vec<Report>,
}

/// The results of a file.
#[derive(Debug, Serialize, JsonSchema)]
struct Report {
    file: String,
    passed: usize,
    failed: usize,
    tests: Vec<Tested>,
}

/// The result of a test.
#[derive(Debug, Serialize, JsonSchema)]
struct Tested {
    name: String,
    passed: bool,
    failure: Option<Failure>,
}

/// The first step of a test whose result differs. Later steps depend on it, so they are not run.
#[derive(Debug, Serialize, JsonSchema)]
struct Failure {
    /// The number of the step, counted from 1.
    step: usize,
    line: usize,
    /// The differences between the expected and the actual result, one sentence each.
    differences: Vec<String>,
    /// The evaluation of the packet; absent for a step that only waits.
    explained: Option<Explained>,
    lists: Vec<Held>,
}

/// Runs all tests of all files.
pub(super) fn run(files: &[PathBuf], json: bool) -> Result<String, Failed> {
    let mut reports = Vec::new();
    for file in files {
        reports.push(run_file(file, json)?);
    }
    let failed: usize = reports.iter().map(|report| report.failed).sum();
    let text = || reports.iter().map(Report::text).collect();
    if failed == 0 {
        return if json { document(Reports { files: reports }) } else { Ok(text()) };
    }
    let error = Failed::new(Exit::Runtime, count(failed, "test") + " failed");
    Err(if json { error.beside(Reports { files: reports }) } else { error.with_output(text()) })
}

/// Runs the tests of a file. Reads the whole file first, so that a mistake in the file is not reported as a failed
/// test.
fn run_file(path: &Path, json: bool) -> Result<Report, Failed> {
    let file = TestFile::load(path).map_err(|why| Failed::new(Exit::Invalid, why))?;
    let settings = match &file.config {
        Some(config) => sources::settings_of(Some(config))?,
        None => file.policy.clone(),
    };
    let rules = sources::rules_of(&file.rules, &settings, json)?;
    let wrong = |why: String| Failed::new(Exit::Invalid, format!("{}:{why}", path.display()));
    let listed = rules.address_lists.iter().map(|entry| entry.list.clone());
    file.check_lists(&listed.chain(crate::rules::lists(&rules, &settings).into_keys()).collect()).map_err(wrong)?;
    let mut tests = Vec::new();
    for test in &file.tests {
        let failure = run_test(test, &rules, &settings).map_err(wrong)?;
        tests.push(Tested { name: test.name.clone(), passed: failure.is_none(), failure });
    }
    let failed = tests.iter().filter(|test| !test.passed).count();
    Ok(Report { file: path.display().to_string(), passed: tests.len() - failed, failed, tests })
}

/// Runs a test up to the first step whose result differs.
///
/// # Errors
/// The error of a step, behind its line.
fn run_test(test: &TestCase, rules: &RuleSet, settings: &Settings) -> Result<Option<Failure>, String> {
    let mut bench = Bench::new(rules, settings, test.begin);
    for (list, entry) in &test.lists {
        bench.put(list, &entry.address.into(), entry.time);
    }
    for (index, step) in test.steps.iter().enumerate() {
        bench.wait(step.after);
        let explained = match &step.packet {
            Some(packet) => {
                let from = side(step.from, packet.interface.as_deref(), settings)
                    .map_err(|why| format!("{}: {why}", step.line))?;
                Some(bench.explain(&packet.frame, |_| from))
            }
            None => None,
        };
        let lists = bench.lists();
        let differences = differences(step, explained.as_ref(), &lists);
        if !differences.is_empty() {
            return Ok(Some(Failure { step: index + 1, line: step.line, differences, explained, lists }));
        }
    }
    Ok(None)
}

/// All differences between the result and the expectation of a step.
fn differences(step: &TestStep, explained: Option<&Explained>, lists: &[Held]) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differ = |what: String| differences.push(what);
    if let Some(explained) = explained {
        if let Some(expected) = step.expect.filter(|expected| *expected != explained.verdict) {
            differ(format!("expected {expected}, got {}", explained.conclusion()));
        }
        if let Some(expected) = step.reason.filter(|expected| *expected != explained.reason) {
            differ(format!("expected the reason {expected}, got {}", explained.conclusion()));
        }
        let decided_by = explained.decided_by.map(|position| &explained.rules[position]);
        if let Some(expected) = &step.rule {
            let is_it = decided_by.is_some_and(|rule| expected.is(rule));
            if !is_it {
                differ(format!("expected {expected} to decide, got {}", explained.conclusion()));
            }
        }
    }
    for (list, expected) in &step.lists {
        let known = |held: &Held| held.list == *list;
        let mut held: Vec<&Held> = lists.iter().filter(|held| known(held)).collect();
        held.sort();
        if !Expected::are(expected, &held) {
            let held =
                held.iter().map(|held| file::written(held.address, held.time_left.map(format_duration).as_deref()));
            let (expected, held) = (enumerate(expected.iter().map(ToString::to_string)), enumerate(held));
            differ(format!("expected {expected} in list {list}, got {held}"));
        }
    }
    differences
}

fn enumerate(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { "nobody".to_owned() } else { items.join(", ") }
}

impl Report {
    /// The report in the form of `cargo test`.
    fn text(&self) -> String {
        let mut text = format!("{}: {}\n", printable(&self.file), count(self.tests.len(), "test"));
        for test in &self.tests {
            let _ = writeln!(text, "test {} ... {}", printable(&test.name), if test.passed { "ok" } else { "FAILED" });
        }
        for test in &self.tests {
            if let Some(failure) = &test.failure {
                text += &failure.text(&self.file, &test.name);
            }
        }
        let result = if self.failed == 0 { "ok" } else { "FAILED" };
        let _ = writeln!(text, "\ntest result: {result}. {} passed; {} failed\n", self.passed, self.failed);
        text
    }
}

impl Failure {
    fn text(&self, file: &str, name: &str) -> String {
        let (file, name) = (printable(file), printable(name));
        let mut text = format!("\n---- {name}: step {}, {file}:{} ----\n", self.step, self.line);
        for difference in &self.differences {
            let _ = writeln!(text, "{difference}");
        }
        if let Some(explained) = &self.explained {
            text += &format!("\n{}", explained.text());
        }
        text
    }
}
