//! Offline checks of rule files: findings with their places on standard error, and a summary on standard output.
//!
//! | file           | owns |
//! |----------------|------|
//! | `mod.rs`       | the command: files, output and exit code |
//! | `settings.rs`  | the settings for the checks |

mod settings;

use std::path::{Path, PathBuf};

use clap::Args;
use knockplane_limits::input::RULES;
use knockplane_policy::lint::Lint;
use knockplane_policy::rsc::{self, Finding, Severity, SkippedMenu};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;

use super::output::complain;
use super::table::{count, printable, wrapped};
use super::{Failed, color, document, input};
use crate::Exit;
use crate::check::findings::{self, Findings};
use crate::check::{Checked, CheckedFile, How, Judgement};

/// `knockctl check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// RouterOS exports; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    given: settings::Given,
    /// Report rules that can never run as warnings: `apply --allow-invalid` keeps them disabled
    #[arg(long)]
    allow_invalid: bool,
    /// Also fail if there are lints
    #[arg(long)]
    deny_lints: bool,
}

/// Checks all files, and reports all findings of each.
pub(super) fn run(check: &Check, json: bool) -> Result<String, Failed> {
    let settings = check.given.settings()?;
    if let Some(warning) = check.given.warning(&settings) {
        complain(format_args!("warning: {}\n", printable(&warning)));
    }
    let how = How { settings: &settings, allow_invalid: check.allow_invalid, lints: true };
    let mut judgements = Vec::new();
    for file in &check.files {
        let judgement = match CheckedFile::open(file) {
            Ok(source) => {
                let mut judgement = source.judge(&how).0;
                let denied = judgement.findings.all_lints.iter().any(|lint| lint.code.is_denied());
                judgement.denied = judgement.valid && check.deny_lints && denied;
                judgement.valid &= !judgement.denied;
                if !json {
                    complain(judgement.report(&source.text, color()));
                }
                judgement
            }
            Err(judgement) => *judgement,
        };
        judgements.push(judgement);
    }
    let text = || judgements.iter().filter_map(Judgement::summary).collect();
    match (judgements.iter().all(|judgement| judgement.valid), json) {
        (true, true) => document(Checked { files: judgements }),
        (true, false) => Ok(text()),
        (false, true) => Err(failed(judgements, json)),
        (false, false) => {
            let output = text();
            Err(failed(judgements, json).with_output(output))
        }
    }
}

/// The rules of a file for tests with packets, if they are valid with these settings.
pub(super) fn one(file: &Path, settings: &Settings, json: bool) -> Result<RuleSet, Failed> {
    read(file, json)?.rules(&How { settings, allow_invalid: false, lints: false }, json)
}

/// A file that can be read without problems.
pub(super) fn read(file: &Path, json: bool) -> Result<CheckedFile, Failed> {
    let source = CheckedFile::open(file).map_err(|judgement| failed(vec![*judgement], json))?;
    if source.reading.problems.is_empty() {
        return Ok(source);
    }
    // If there is a problem, the result does not depend on the settings.
    let how = How { settings: &Settings::default(), allow_invalid: false, lints: false };
    source.rules(&how, json).map(|_| source)
}

/// The rules of a file without problems, whether the engine can run them or not. The skipped menus are reported on
/// standard error.
pub(super) fn as_written(file: &Path, json: bool) -> Result<RuleSet, Failed> {
    let CheckedFile { name, text, reading } = read(file, json)?;
    let mut warnings = findings::warnings(&reading);
    rsc::place(&mut warnings, &name, &text);
    complain(rsc::pictures(&warnings, &text, color()));
    if !reading.skipped.is_empty() {
        complain(format_args!(
            "knockctl: {name}: skipped menus (commands): {}\n",
            skipped(&reading.skipped).join(", ")
        ));
    }
    Ok(reading.rules)
}

/// A lint without a place in the file.
fn without_place(finding: &Finding) -> String {
    let remedy = finding.remedy.as_deref().unwrap_or_default();
    format!("warning[{}]: {}\n  help: {remedy}\n\n", finding.code, finding.message)
}

/// The skipped menus, each with its number of commands.
fn skipped(menus: &[SkippedMenu]) -> Vec<String> {
    menus.iter().map(|skipped| format!("{} ({})", printable(&skipped.menu), skipped.commands)).collect()
}

/// The error if files are not valid, in addition to the reports.
fn failed(judgements: Vec<Judgement>, json: bool) -> Failed {
    let complaints: String = judgements.iter().map(Judgement::complaint).collect();
    if !json {
        return Failed::new(Exit::Invalid, complaints);
    }
    let invalid: Vec<&Judgement> = judgements.iter().filter(|judgement| !judgement.valid).collect();
    let message = invalid.iter().map(|judgement| judgement.result() + "\n").collect::<String>() + &complaints;
    let place = invalid.iter().find_map(|judgement| judgement.first_place());
    Failed::new(Exit::Invalid, message.trim_end()).at(place).beside(Checked { files: judgements })
}

/// The error about a text that is not valid. The findings are printed unless the output is JSON.
pub(super) fn refused(source: &CheckedFile, judgement: Judgement, json: bool) -> Failed {
    if !json {
        complain(judgement.report(&source.text, color()));
    }
    failed(vec![judgement], json)
}

impl CheckedFile {
    /// Reads a file, or standard input if the name is `-`.
    fn open(file: &Path) -> Result<CheckedFile, Box<Judgement>> {
        let (name, text) = input::read(file, &RULES);
        match text {
            Ok(text) => Ok(CheckedFile::of(&name, &text)),
            Err(error) => {
                let findings = Findings { errors: vec![format!("it {error}")], ..Findings::default() };
                Err(Box::new(Judgement { file: name, findings, ..Judgement::default() }))
            }
        }
    }

    pub(super) fn is_standard_input(&self) -> bool {
        self.name == input::STANDARD_INPUT
    }

    /// The rules, if they are valid. The findings are printed unless the output is JSON.
    pub(super) fn rules(&self, how: &How<'_>, json: bool) -> Result<RuleSet, Failed> {
        self.rules_and_lints(how, json).map(|(rules, _)| rules)
    }

    /// As [`CheckedFile::rules`], with the lints if they are reported.
    pub(super) fn rules_and_lints(&self, how: &How<'_>, json: bool) -> Result<(RuleSet, Vec<Lint>), Failed> {
        let (judgement, rules) = self.judge(how);
        if !json {
            complain(judgement.report(&self.text, color()));
        }
        if judgement.valid { Ok((rules, judgement.findings.all_lints)) } else { Err(failed(vec![judgement], json)) }
    }
}

impl Judgement {
    /// All findings that have a place, and the result.
    fn report(&self, text: &[u8], color: bool) -> String {
        let findings = self.findings.placed();
        let mut report: String = self.findings.doors.iter().map(without_place).collect();
        report += &rsc::pictures(&findings, text, color);
        if let Some(interfaces) = &self.findings.interfaces {
            report += "Say in the configuration where these interfaces are. This is its section, with nothing answered yet:\n\n";
            report.extend(interfaces.lines().map(|line| format!("    {}\n", printable(line))));
            report.push('\n');
        }
        let has_none = findings.is_empty() && self.findings.doors.is_empty() && self.findings.errors.is_empty();
        if has_none { report } else { report + &self.result() + "\n" }
    }

    /// The number of findings, and the result.
    fn result(&self) -> String {
        let findings = self.findings.placed();
        let placed = findings.iter().filter(|finding| finding.severity == Severity::Warning).count();
        let errors = findings.len() - placed + self.findings.errors.len();
        let warnings = placed + self.findings.doors.len();
        let told = match (self.findings.problems.len(), errors, warnings) {
            (0, 0, 0) => "no finding".to_owned(),
            (0, 0, _) if self.denied => format!("{}, and lints are denied", count(warnings, "warning")),
            (0, 0, _) => count(warnings, "warning"),
            (0, _, 0) => format!("{}; the rules cannot run", count(errors, "error")),
            (0, _, _) => format!("{}, {}; the rules cannot run", count(errors, "error"), count(warnings, "warning")),
            (problems, ..) => format!("{}; nothing of this file is used", count(problems, "problem")),
        };
        format!("{}: {told}", self.file)
    }

    /// The place of the first error.
    fn first_place(&self) -> Option<String> {
        let findings = self.findings.placed();
        let first = findings.iter().find(|finding| finding.severity == Severity::Error).or(findings.first())?;
        Some(format!("{}:{}:{}", first.file, first.line, first.column))
    }

    /// A summary of the file's contents, if every line is valid.
    fn summary(&self) -> Option<String> {
        if !self.findings.problems.is_empty() || !self.findings.errors.is_empty() {
            return None;
        }
        let aside = [(self.disabled, "disabled"), (self.findings.invalid.len(), "invalid")];
        let aside: Vec<_> =
            aside.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
        let aside = if aside.is_empty() { String::new() } else { format!(" ({})", aside.join(", ")) };
        let rules = count(self.rules, "rule") + &aside;
        let mut text = format!("{}: {rules}, {}\n", self.file, count(self.patterns, "pattern"));
        let lists = self.lists.iter().map(|(list, level)| match level {
            Some(level) => format!("{} (level {level})", printable(list)),
            None => format!("{} (filled by hand)", printable(list)),
        });
        let skipped = skipped(&self.skipped);
        for (title, items) in [("lists", lists.collect::<Vec<_>>()), ("skipped menus (commands)", skipped)] {
            if !items.is_empty() {
                text += &wrapped(&format!("  {title}: {}", items.join(", ")), "    ");
            }
        }
        Some(text)
    }

    /// The reasons that the file is not valid which the report does not contain, one sentence in each line.
    fn complaint(&self) -> String {
        let file = &self.file;
        self.findings.errors.iter().map(|error| format!("{file} is not valid: {}\n", printable(error))).collect()
    }
}

#[cfg(test)]
mod tests;
