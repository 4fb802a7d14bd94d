//! The text of a filter, and the errors of a text.

use std::fmt;
use std::ops::Range;

use super::{TraceCondition, TraceFilter, TraceTerm};
use crate::packet::{Side, Vlan};
use crate::reason::{Reason, Verdict};
use crate::rsc::range;
use crate::rule::{PortSet, protocol_number};
use crate::word::Word as _;

/// Maximum length of a filter, in bytes.
pub const MAX_FILTER: usize = 1024;

/// Maximum number of values in a filter, which bounds the time of its evaluation.
const MAX_VALUES: usize = 64;

/// The words of terms, each with another form of the rule language, and the form of its values.
const WORDS: [(&str, &str, &str); 9] = [
    ("src", "src-address", "addresses, as `198.51.100.7`, `198.51.100.0/24` or `2001:db8::/32`"),
    ("dst", "dst-address", "addresses, as `203.0.113.5`, `203.0.113.0/24` or `2001:db8::/32`"),
    ("src-port", "", "ports, as `53` or `1024-65535`"),
    ("dst-port", "", "ports, as `22` or `80,443` or `7000-9000`"),
    ("protocol", "", "protocols of rules: tcp, udp, icmp, icmpv6, or a number"),
    ("side", "", "the side of arrival: outside or inside"),
    ("vlan", "", "a VLAN, as `10`, `10/20` or `untagged`"),
    ("verdict", "", "forward or drop"),
    ("reason", "", "a reason, as `rule`, `chain-default` or `tx-full`: docs/metrics.md has all"),
];

/// An error in the text of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceFilterError {
    text: String,
    /// The place, in bytes.
    at: Range<usize>,
    message: String,
}

impl fmt::Display for TraceFilterError {
    /// The message, the filter, and carets under the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each character takes one column: a tab would move the carets.
        let line: String = self.text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        let columns = |range: Range<usize>| self.text.get(range).map_or(0, |text| text.chars().count());
        let (before, carets) = (columns(0..self.at.start), columns(self.at.clone()).max(1));
        write!(f, "{}\n  {line}\n  {}{}", self.message, " ".repeat(before), "^".repeat(carets))
    }
}

impl std::error::Error for TraceFilterError {}

impl TraceFilterError {
    /// The place, counted in characters from 1.
    pub fn column(&self) -> usize {
        self.text.get(..self.at.start).map_or(0, |text| text.chars().count()) + 1
    }
}

impl TraceFilter {
    /// Parses a filter. An empty text is a filter that every packet fits.
    ///
    /// # Errors
    /// The error, its place, and the words that exist.
    pub fn parse(text: &str) -> Result<TraceFilter, TraceFilterError> {
        let error = |at: Range<usize>, message: String| TraceFilterError { text: text.to_owned(), at, message };
        if text.len() > MAX_FILTER {
            let message = format!("the filter is longer than {MAX_FILTER} bytes");
            return Err(TraceFilterError { text: String::new(), at: 0..0, message });
        }
        let mut words = words(text).peekable();
        let (mut terms, mut values) = (Vec::new(), 0);
        while let Some((at, word)) = words.next() {
            if word == "and" {
                let is_between = !terms.is_empty() && words.peek().is_some();
                if is_between {
                    continue;
                }
                return Err(error(at, "`and` stands between two terms".to_owned()));
            }
            let negated = word == "not";
            let (at, word) = match negated {
                true => words.next().ok_or_else(|| error(at, "`not` stands before a term".to_owned()))?,
                false => (at, word),
            };
            let form = WORDS.iter().find(|(name, alias, _)| *name == word || *alias == word);
            let (name, _, form) = form.ok_or_else(|| error(at.clone(), unknown(word)))?;
            let (at, value) = words.next().ok_or_else(|| error(at, format!("`{name}` has no value: write {form}")))?;
            values += value.split(',').count();
            if values > MAX_VALUES {
                return Err(error(at, format!("the filter has more than {MAX_VALUES} values")));
            }
            let condition = condition(name, value)
                .ok_or_else(|| error(at, format!("`{value}` is no value of `{name}`: write {form}")))?;
            terms.push(TraceTerm { negated, condition });
        }
        Ok(TraceFilter { terms })
    }
}

/// The words of a text with their places. Blanks and `=` separate words.
fn words(text: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    text.split(|char: char| char.is_whitespace() || char == '=').filter(|word| !word.is_empty()).map(move |word| {
        let start = word.as_ptr().addr() - text.as_ptr().addr();
        (start..start + word.len(), word)
    })
}

fn unknown(word: &str) -> String {
    let names: Vec<_> = WORDS.iter().map(|(name, ..)| *name).collect();
    format!("`{word}` is no word of a filter; the words are {}, not and and", names.join(", "))
}

/// The condition of a word and its values; `None` if a value is invalid.
fn condition(name: &str, values: &str) -> Option<TraceCondition> {
    Some(match name {
        "src" => TraceCondition::Source(each(values, |value| value.parse().ok())?),
        "dst" => TraceCondition::Destination(each(values, |value| value.parse().ok())?),
        "src-port" => TraceCondition::SourcePort(each(values, range).map(PortSet)?),
        "dst-port" => TraceCondition::DestinationPort(each(values, range).map(PortSet)?),
        "protocol" => TraceCondition::Protocol(each(values, protocol_number)?),
        "side" => TraceCondition::Side(each(values, Side::from_name)?),
        "vlan" => TraceCondition::Vlan(each(values, |value| match value {
            "untagged" => Some(Vlan::NONE),
            _ => value.parse().ok(),
        })?),
        "verdict" => TraceCondition::Verdict(each(values, |value| {
            Verdict::ALL.into_iter().find(|verdict| verdict.name() == value)
        })?),
        "reason" => TraceCondition::Reason(each(values, |value| {
            Reason::ALL.iter().copied().find(|reason| reason.name() == value)
        })?),
        _ => return None,
    })
}

fn each<T>(values: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    values.split(',').map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        TraceFilter::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn an_error_shows_its_place_and_the_words() {
        assert_eq!(
            error("src 192.0.2.1 port 22"),
            "`port` is no word of a filter; the words are src, dst, src-port, dst-port, protocol, side, vlan, verdict, \
             reason, not and and\n  src 192.0.2.1 port 22\n                ^^^^"
        );
        for (text, part) in [
            ("src nowhere", "`nowhere` is no value of `src`: write addresses"),
            ("dst-port 22-7", "`22-7` is no value of `dst-port`: write ports"),
            ("dst-port +22", "`+22` is no value of `dst-port`"),
            ("dst-port", "`dst-port` has no value"),
            ("not", "`not` stands before a term"),
            ("and src 192.0.2.1", "`and` stands between two terms"),
            ("src 192.0.2.1 and", "`and` stands between two terms"),
            ("verdict accept", "write forward or drop"),
            ("reason bad-luck", "write a reason"),
            ("protocol 256", "`256` is no value of `protocol`"),
            ("protocol +6", "`+6` is no value of `protocol`"),
            ("vlan 5000", "`5000` is no value of `vlan`"),
            ("side left", "write the side of arrival"),
        ] {
            let error = error(text);
            assert!(error.contains(part) && error.ends_with('^'), "{text}: {error}");
        }
    }

    #[test]
    fn a_filter_is_bounded() {
        assert!(error(&"src 192.0.2.1 ".repeat(100)).contains("1024 bytes"));
        assert!(error(&format!("dst-port {}", vec!["1"; 65].join(","))).contains("64 values"));
    }
}
