//! All findings about a file, each with its place: syntax errors, rules that can never run, errors of the engine, and lints.

use std::collections::HashMap;
use std::ops::Range;

use knockplane_engine::table::RuleSetError;
use knockplane_policy::door;
use knockplane_policy::lint::{self, Lint, Subject};
use knockplane_policy::rsc::{self, Also, Finding, Reading, Severity, SourceSpans};
use knockplane_policy::rule::{RuleId, RuleNumber, RuleSet, numbers};
use knockplane_policy::settings::Settings;
use schemars::JsonSchema;
use serde::Serialize;

use super::{CheckedFile, How};
use crate::rules::{self, RulesError};
use crate::text::printable;

/// Code of a rule that can never run.
pub(crate) const INVALID: &str = "E002";
/// Code of a rule that the dataplane refuses.
pub(crate) const REFUSED: &str = "E003";
/// Code of an interface without a side.
pub(crate) const UNMAPPED: &str = "E004";

/// The findings of a file, each kind in the order of the file.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Findings {
    /// Syntax errors.
    pub(crate) problems: Vec<Finding>,
    /// Warnings of the reader: parts that the export itself reports as missing, and unknown menus.
    pub(crate) warnings: Vec<Finding>,
    /// Rules that can never run, without disabled ones.
    pub(crate) invalid: Vec<Finding>,
    /// Errors of the engine, although each line is valid.
    pub(crate) refused: Vec<Finding>,
    /// Lints about rules.
    pub(crate) lints: Vec<Finding>,
    /// Lints about doors of the configuration, which have no place in the file.
    pub(crate) doors: Vec<Finding>,
    /// Errors without a place: the file cannot be read, or cannot run as a whole.
    pub(crate) errors: Vec<String>,
    /// The section of the configuration about interfaces, with the names that are in none of its lists as comments.
    pub(crate) interfaces: Option<String>,
    /// The lints about rules and doors, without places.
    #[serde(skip)]
    pub(crate) all_lints: Vec<Lint>,
}

impl Findings {
    /// The findings of a file, and its rules as they would run.
    pub(crate) fn of(source: &CheckedFile, how: &How<'_>) -> (Findings, RuleSet) {
        let reading = &source.reading;
        let mut rules = door::rules(how.settings, reading.rules.clone());
        let mut findings = Findings { warnings: warnings(reading), ..Findings::default() };
        if reading.problems.is_empty() {
            let places = Places::new(source, &rules);
            findings.invalid = invalid(&mut rules, how.allow_invalid, &places);
            findings.refuse(&rules, how.settings, &places);
            findings.unmapped(&rules, how.settings, &places);
            if how.lints {
                let is_of_door = |lint: &Lint| matches!(lint.subject, Subject::Door(_));
                let all = lint::lint(&rules, how.settings);
                let (doors, lints) = all.iter().partition::<Vec<_>, _>(|lint| is_of_door(lint));
                let nowhere = |finding| Finding { file: "the configuration".to_owned(), line: 0, column: 0, ..finding };
                findings.doors = doors.iter().map(|lint| nowhere(places.lint(lint))).collect();
                findings.lints = lints.iter().map(|lint| places.lint(lint)).collect();
                findings.all_lints = all;
            }
        } else {
            findings.problems = reading.problems.iter().cloned().map(Finding::from).collect();
        }
        let Findings { problems, warnings, invalid, refused, lints, .. } = &mut findings;
        for found in [problems, warnings, invalid, refused, lints] {
            rsc::place(found, &source.name, &source.text);
        }
        (findings, rules)
    }

    /// Adds the errors of the engine.
    fn refuse(&mut self, rules: &RuleSet, settings: &Settings, places: &Places<'_>) {
        let problems = match rules::compile(rules, settings) {
            Ok(()) => return,
            Err(RulesError::Rules(error)) => error.problems,
            Err(other) => return self.errors.push(other.to_string()),
        };
        for problem in problems {
            if let RuleSetError::DoorsList { line, .. } | RuleSetError::TooManyNames { line, .. } = problem {
                let sentence = problem.to_string();
                let sentence = sentence.split_once(": ").map_or(&*sentence, |(_, sentence)| sentence);
                let finding = Finding::new(Severity::Error, REFUSED, places.entry(line), printable(sentence));
                self.refused.push(finding);
                continue;
            }
            match problem.place() {
                // These problems are already reported.
                _ if matches!(problem, RuleSetError::Invalid { .. } | RuleSetError::Unmapped { .. }) => {}
                None => self.errors.push(problem.to_string()),
                Some(place) => {
                    let span = places.rule(&place.id, property(&problem));
                    let finding = Finding::new(Severity::Error, REFUSED, span, printable(&problem.sentence()));
                    self.refused.push(Finding { rule: places.number(&place.id), ..finding });
                }
            }
        }
    }

    /// Interfaces without a side, each name once.
    fn unmapped(&mut self, rules: &RuleSet, settings: &Settings, places: &Places<'_>) {
        let unmapped = settings.interfaces.unmapped(rules);
        if unmapped.is_empty() {
            return;
        }
        self.interfaces = Some(settings.interfaces.mapping(&unmapped));
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for unmapped in &unmapped {
            *uses.entry(&unmapped.name).or_default() += 1;
        }
        for it in &unmapped {
            let Some(uses) = uses.remove(it.name.as_str()) else { continue };
            let name = printable(&it.name);
            let more = if uses > 1 { format!(" ({uses} matchers need it)") } else { String::new() };
            let message = format!("the side of the interface `{name}` is not configured{more}");
            let remedy = format!(
                "write `{name}` into a list of [policy.interfaces]: `outside` (the unknown sources) or `inside` if packets \
                 of this filter come from there, `elsewhere` if it is another interface of the router, such as a tunnel; \
                 or try `--outside={name}`, `--inside={name}` or `--elsewhere={name}`"
            );
            let span = places.line(it.line, &it.matcher);
            self.refused.push(Finding::new(Severity::Error, UNMAPPED, span, message).remedy(remedy));
        }
    }

    /// All findings with a place, in the order of the file.
    pub(crate) fn placed(&self) -> Vec<Finding> {
        let lists = [&self.problems, &self.warnings, &self.invalid, &self.refused, &self.lints];
        let mut all: Vec<Finding> = lists.into_iter().flatten().cloned().collect();
        all.sort_by_key(|finding| (finding.span.start, finding.span.end));
        all
    }
}

/// A lint without its place in the text. `rule` is the number of its rule.
pub(crate) fn of_lint(lint: &Lint, rule: Option<RuleNumber>) -> Finding {
    let finding = Finding::new(Severity::Warning, lint.code.number(), 0..0, printable(&lint.sentence));
    let also = lint.also.as_ref().map(|also| Also { span: 0..0, line: also.line, what: printable(&also.what) });
    Finding { rule, also, line: lint.line, column: 0, ..finding.remedy(printable(&lint.remedy)) }
}

/// The warnings of the reader.
pub(crate) fn warnings(reading: &Reading) -> Vec<Finding> {
    let warning = |problem: &rsc::Problem| Finding {
        severity: Severity::Warning,
        code: rsc::WARNING_CODE,
        ..Finding::from(problem.clone())
    };
    reading.warnings.iter().map(warning).collect()
}

/// Rules that can never run. With `--allow-invalid` they are disabled, so that they never run.
fn invalid(rules: &mut RuleSet, allowed: bool, places: &Places<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for rule in rules.rules.iter_mut().filter(|rule| !rule.disabled) {
        let Some(reason) = &rule.invalid else { continue };
        // The reason begins with the part of the rule: `property=value` or `property`.
        let property = reason.trim_start_matches('`').split(['=', '`']).next();
        let span = places.rule(&rule.id, property);
        let reason = printable(reason);
        let finding = if allowed {
            Finding::new(Severity::Warning, INVALID, span, format!("this rule is kept and never runs: {reason}"))
        } else {
            Finding::new(Severity::Error, INVALID, span, format!("this rule can never run: {reason}"))
                .remedy("disable it, leave it out, or have such rules kept and not run with `--allow-invalid`")
        };
        found.push(Finding { rule: places.number(&rule.id), ..finding });
        rule.disabled |= allowed;
    }
    found
}

/// The property that a problem is about; `None` if it is about the whole rule.
fn property(problem: &RuleSetError) -> Option<&str> {
    match problem {
        RuleSetError::JumpCircle { .. } | RuleSetError::JumpTooDeep { .. } => Some("jump-target"),
        RuleSetError::PatternMissing { .. } => Some("layer7-protocol"),
        RuleSetError::TlsHost { .. } => Some("tls-host"),
        RuleSetError::TooManyPorts { .. } => Some("psd"),
        RuleSetError::TooManyConnectionLimits { .. } => Some("connection-limit"),
        _ => None,
    }
}

/// The places of rules and patterns in the file.
struct Places<'s> {
    text: &'s [u8],
    reading: &'s Reading,
    rules: HashMap<&'s RuleId, usize>,
    /// The numbers of the rules, which include the rules of doors before them.
    numbers: HashMap<RuleId, RuleNumber>,
}

impl<'s> Places<'s> {
    fn new(source: &'s CheckedFile, with_doors: &RuleSet) -> Places<'s> {
        let reading = &source.reading;
        let rules = reading.rules.rules.iter().enumerate().map(|(at, rule)| (&rule.id, at)).collect();
        let ids = with_doors.rules.iter().map(|rule| rule.id.clone());
        let numbers = ids.zip(numbers(&with_doors.rules)).collect();
        Places { text: &source.text, reading, rules, numbers }
    }

    fn span(&self, said: Option<&SourceSpans>, property: Option<&str>) -> Range<usize> {
        let Some(said) = said else { return 0..0 };
        property.and_then(|property| said.value(property)).unwrap_or_else(|| said.first_line(self.text))
    }

    fn rule(&self, id: &RuleId, property: Option<&str>) -> Range<usize> {
        self.span(self.rules.get(id).and_then(|at| self.reading.rule_spans.get(*at)), property)
    }

    fn number(&self, id: &RuleId) -> Option<RuleNumber> {
        self.numbers.get(id).copied()
    }

    /// A rule that begins on this line and has this property.
    fn line(&self, line: u32, property: &str) -> Range<usize> {
        let on_line =
            self.reading.rules.rules.iter().zip(&self.reading.rule_spans).filter(|(rule, _)| rule.line == line);
        let said = on_line.map(|(_, said)| said).find(|said| said.value(property).is_some());
        self.span(said, Some(property))
    }

    /// The address of the list entry that begins on this line; the whole line if the address is on a later line.
    fn entry(&self, line: u32) -> Range<usize> {
        let mut lines = self.text.split_inclusive(|byte| *byte == b'\n');
        let before = (&mut lines).take(line.saturating_sub(1) as usize).map(<[u8]>::len).sum::<usize>();
        let text = lines.next().unwrap_or_default();
        let text = text.trim_ascii_end();
        let named = text.windows(9).position(|window| window == b" address=").map(|at| at + 9);
        let named = named.filter(|at| text.get(*at) != Some(&b'\\'));
        let length = |at: usize| text[at..].iter().position(u8::is_ascii_whitespace).unwrap_or(text.len() - at);
        match named {
            Some(at) => before + at..before + at + length(at),
            None => before..before + text.len(),
        }
    }

    fn lint(&self, lint: &Lint) -> Finding {
        let property = lint.property.as_deref();
        let span = match &lint.subject {
            Subject::Rule(id) => self.rule(id, property),
            Subject::Door(_) => 0..0,
            Subject::Pattern(name) => {
                let place = self.reading.rules.layer7.iter().position(|pattern| pattern.name == *name);
                self.span(place.and_then(|at| self.reading.pattern_spans.get(at)), property)
            }
        };
        let rule = match &lint.subject {
            Subject::Rule(id) => self.number(id),
            Subject::Door(_) | Subject::Pattern(_) => None,
        };
        let mut finding = Finding { span, ..of_lint(lint, rule) };
        if let (Some(also), Some(of_lint)) = (&mut finding.also, &lint.also) {
            also.span = self.rule(&of_lint.rule, None);
        }
        finding
    }
}
