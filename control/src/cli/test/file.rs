//! A test file: TOML, converted once from raw text to checked values. `docs/rule-tests.md` is its manual.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use knockplane_limits::input;
use knockplane_policy::door;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::{Time, format_duration, parse_duration};
use serde::Deserialize;
use toml::Spanned;

use crate::bench::{Held, RuleTrial};
use crate::packet::{self, Described};
use crate::rules;

/// The default start of tests: 2026-01-01 00:00 UTC, a Thursday.
const BEGIN: Duration = Duration::from_secs(1_767_225_600);

/// A checked test file.
#[derive(Debug)]
pub(super) struct TestFile {
    pub(super) rules: PathBuf,
    /// The configuration file whose section `[policy]` and doors replace those of the test file.
    pub(super) config: Option<PathBuf>,
    pub(super) policy: Settings,
    pub(super) tests: Vec<TestCase>,
}

#[derive(Debug)]
pub(super) struct TestCase {
    pub(super) name: String,
    /// The test's line in the test file.
    pub(super) line: usize,
    pub(super) begin: Time,
    /// The entries of each list at the start.
    pub(super) lists: Vec<(String, ListedEntry)>,
    pub(super) steps: Vec<TestStep>,
}

#[derive(Debug)]
pub(super) struct TestStep {
    /// The step's line in the test file.
    pub(super) line: usize,
    pub(super) after: Duration,
    pub(super) packet: Option<Described>,
    pub(super) from: Option<Side>,
    pub(super) expect: Option<Verdict>,
    pub(super) reason: Option<Reason>,
    pub(super) rule: Option<ExpectedRule>,
    /// The exact entries of these lists after the step.
    pub(super) lists: BTreeMap<String, Vec<ListedEntry>>,
}

/// `198.51.100.7` or `198.51.100.7 10s`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ListedEntry {
    pub(super) address: IpAddr,
    pub(super) time: Option<Duration>,
}

/// The rule that decides: its line, or its comment, id or number in `show rules`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected the rule's line, or its comment, id or number in quotes")]
pub(super) enum ExpectedRule {
    Line(u32),
    Name(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawFile {
    rules: PathBuf,
    config: Option<Spanned<PathBuf>>,
    policy: Option<Settings>,
    #[serde(default)]
    door: Vec<Spanned<door::Written>>,
    #[serde(default)]
    test: Vec<RawTest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawTest {
    name: Spanned<String>,
    at: Option<Spanned<toml::value::Datetime>>,
    #[serde(default)]
    lists: BTreeMap<String, Vec<ListedEntry>>,
    #[serde(default)]
    step: Vec<Spanned<RawStep>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawStep {
    packet: Option<Spanned<String>>,
    after: Option<Spanned<String>>,
    from: Option<Side>,
    expect: Option<Spanned<Verdict>>,
    reason: Option<Reason>,
    rule: Option<ExpectedRule>,
    #[serde(default)]
    lists: BTreeMap<String, Vec<ListedEntry>>,
}

impl TestFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first error of the file, with file and line.
    pub(super) fn load(path: &Path) -> Result<TestFile, String> {
        let text = input::read_text(path, &input::TESTS).map_err(|error| format!("{}: it {error}", path.display()))?;
        TestFile::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<TestFile, String> {
        let line = |at: usize| 1 + text[..at.min(text.len())].matches('\n').count();
        let wrong = |at: Range<usize>, what: &str| format!("{}:{}: {what}", path.display(), line(at.start));
        let raw: RawFile = toml::from_str(text)
            .map_err(|error| wrong(error.span().unwrap_or_default(), error.message().trim_end()))?;
        if let Some(config) = raw.config.as_ref().filter(|_| raw.policy.is_some() || !raw.door.is_empty()) {
            let why = "`config` and `[policy]` say the same thing, `[[door]]` too: leave one out";
            return Err(wrong(config.span(), why));
        }
        let doors = raw.door.into_iter().map(|door| (door.span(), door.into_inner()));
        let doors = door::placed(doors).map_err(|(at, why)| wrong(at, &why))?;
        if raw.test.is_empty() {
            return Err(wrong(0..0, "there are no tests: begin one with `[[test]]`"));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut tests = Vec::new();
        for test in raw.test {
            let begin = match &test.at {
                None => BEGIN,
                Some(at) => since_1970(at.get_ref()).ok_or_else(|| {
                    wrong(at.span(), "write a date and time of UTC since 1970, as 2026-01-31T09:00:00Z")
                })?,
            };
            let steps = test.step.into_iter().map(|step| TestStep::check(step, line, wrong));
            tests.push(TestCase {
                line: line(test.name.span().start),
                name: test.name.into_inner(),
                begin: Time::default() + begin,
                lists: test.lists.into_iter().flat_map(|(list, entries)| each(list, entries)).collect(),
                steps: steps.collect::<Result<_, _>>()?,
            });
        }
        Ok(TestFile {
            rules: folder.join(raw.rules),
            config: raw.config.map(|config| folder.join(config.into_inner())),
            policy: raw.policy.unwrap_or_default().with_doors(doors).map_err(|why| wrong(0..0, why))?,
            tests,
        })
    }
}

impl TestFile {
    /// Checks that `known` contains every list of the tests: a misspelt list would be empty, and an empty list could be
    /// the expected result.
    ///
    /// # Errors
    /// The first list that `known` does not have, behind its line.
    pub(super) fn check_lists(&self, known: &BTreeSet<String>) -> Result<(), String> {
        for test in &self.tests {
            let given = test.lists.iter().map(|(list, _)| (test.line, list));
            let expected = test.steps.iter().flat_map(|step| step.lists.keys().map(|list| (step.line, list)));
            if let Some((line, list)) = given.chain(expected).find(|(_, list)| !known.contains(*list)) {
                let known: Vec<_> = known.iter().map(String::as_str).collect();
                return Err(format!("{line}: no rule names the list `{list}`; there are {}", known.join(", ")));
            }
        }
        Ok(())
    }
}

fn each(list: String, entries: Vec<ListedEntry>) -> impl Iterator<Item = (String, ListedEntry)> {
    entries.into_iter().map(move |entry| (list.clone(), entry))
}

impl TestStep {
    fn check(
        step: Spanned<RawStep>,
        line: impl Fn(usize) -> usize,
        wrong: impl Fn(Range<usize>, &str) -> String,
    ) -> Result<TestStep, String> {
        let (span, step) = (step.span(), step.into_inner());
        let after = match &step.after {
            None => Duration::ZERO,
            Some(after) => time(after.get_ref()).ok_or_else(|| {
                wrong(after.span(), &format!("`{}` is not a time: write `3s`, `1m30s` or `250ms`", after.get_ref()))
            })?,
        };
        let asks_of_packet = step.expect.is_some() || step.reason.is_some() || step.rule.is_some();
        if step.packet.is_none() && (asks_of_packet || step.from.is_some()) {
            return Err(wrong(span, "this step has no `packet`"));
        }
        if !asks_of_packet && step.lists.is_empty() && step.packet.is_none() && after.is_zero() {
            return Err(wrong(span, "this step is empty: write `packet` and `expect`"));
        }
        let packet = step
            .packet
            .as_ref()
            .map(|text| packet::describe(text.get_ref()).map_err(|error| wrong(text.span(), &error.to_string())));
        Ok(TestStep {
            // The line of the packet, because the position of a step may be the line above it.
            line: line(step.packet.as_ref().map_or(span.start, |packet| packet.span().start)),
            after,
            packet: packet.transpose()?,
            from: step.from,
            expect: step.expect.map(Spanned::into_inner),
            reason: step.reason,
            rule: step.rule,
            lists: step.lists,
        })
    }
}

/// Times in RouterOS's form, or in milliseconds.
fn time(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(digits) => digits.parse().ok().map(Duration::from_millis),
        None => parse_duration(text),
    }
}

/// The time since 1970 of a date and time, in UTC unless it has another offset.
fn since_1970(at: &toml::value::Datetime) -> Option<Duration> {
    let (date, time) = (at.date?, at.time?);
    let offset = match at.offset {
        None | Some(toml::value::Offset::Z) => 0,
        Some(toml::value::Offset::Custom { minutes }) => i64::from(minutes),
    };
    let seconds = days(i64::from(date.year), i64::from(date.month), i64::from(date.day)) * 86_400
        + i64::from(time.hour) * 3_600
        + (i64::from(time.minute) - offset) * 60
        + i64::from(time.second.unwrap_or_default());
    Some(Duration::new(u64::try_from(seconds).ok()?, time.nanosecond.unwrap_or_default()))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. In this computation, a year begins in March, so that the
/// leap day is its last day.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

impl FromStr for ListedEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, time) = match text.split_once(' ') {
            Some((address, time)) => (address, Some(rules::timeout(time.trim())?)),
            None => (text, None),
        };
        let address = address
            .parse()
            .map_err(|_| format!("`{text}` is no address: write `198.51.100.7` or `198.51.100.7 10s`"))?;
        Ok(ListedEntry { address, time })
    }
}

impl TryFrom<String> for ListedEntry {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for ListedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written(self.address, self.time.map(format_duration).as_deref()))
    }
}

/// An address, with its time left if it is given.
pub(super) fn written(address: IpAddr, time: Option<&str>) -> String {
    time.map_or_else(|| address.to_string(), |time| format!("{address} {time}"))
}

/// The expected entries of a list.
pub(super) struct Expected;

impl Expected {
    /// Whether the list has exactly these entries. The time is compared only if the expected entry has one.
    pub(super) fn are(expected: &[ListedEntry], held: &[&Held]) -> bool {
        let is = |entry: &ListedEntry, held: &Held| {
            entry.address == held.address
                && entry.time.is_none_or(|time| held.time_left.map(format_duration) == Some(format_duration(time)))
        };
        expected.iter().all(|entry| held.iter().any(|held| is(entry, held)))
            && held.iter().all(|held| expected.iter().any(|entry| entry.address == held.address))
    }
}

impl ExpectedRule {
    pub(super) fn is(&self, rule: &RuleTrial) -> bool {
        match self {
            ExpectedRule::Line(expected) => *expected == rule.line,
            ExpectedRule::Name(name) => *name == rule.comment || *name == rule.id.0 || *name == rule.number.to_string(),
        }
    }
}

impl fmt::Display for ExpectedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpectedRule::Line(line) => write!(f, "the rule of line {line}"),
            ExpectedRule::Name(name) => write!(f, "the rule `{name}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_since_1970() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T01:30:00+01:30", 0),
            ("2000-02-29T12:00:00", 951_825_600),
            ("2000-03-01T00:00:00", 951_868_800),
            ("2026-01-01T00:00:00Z", BEGIN.as_secs()),
            ("2100-03-01T00:00:01-00:01", 4_107_542_461),
        ];
        for (text, seconds) in cases {
            assert_eq!(since_1970(&text.parse().unwrap()), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["2026-01-01", "09:00:00", "1969-12-31T23:59:59Z"] {
            assert_eq!(since_1970(&text.parse().unwrap()), None, "{text}");
        }
    }
}
