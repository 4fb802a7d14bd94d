//! `[metrics]`: the rules that have series of their own, and the content of the series.

use std::str::FromStr;

use knockplane_policy::rule::Rule;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// The section.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct MetricsConfig {
    pub(crate) rules: RuleSeries,
    /// Whether comments of rules are in metrics.
    pub(crate) comments: bool,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        MetricsConfig { rules: RuleSeries::All, comments: true }
    }
}

/// The rules that have series, besides the last one of each chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum RuleSeries {
    /// All of them.
    #[default]
    All,
    /// The rules that one of these selects.
    Some(Vec<Choice>),
}

impl RuleSeries {
    /// Whether the rule has series.
    pub(crate) fn wants(&self, rule: &Rule) -> bool {
        match self {
            RuleSeries::All => true,
            RuleSeries::Some(choices) => choices.iter().any(|choice| match choice {
                Choice::Chain(pattern) => matches(pattern, &rule.chain),
                Choice::Comment(pattern) => matches(pattern, &rule.comment),
            }),
        }
    }
}

/// A pattern, in which `*` stands for any text, and the property of a rule that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Chain(String),
    Comment(String),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("chain", pattern)) if !pattern.is_empty() => Ok(Choice::Chain(pattern.to_owned())),
            Some(("comment", pattern)) if !pattern.is_empty() => Ok(Choice::Comment(pattern.to_owned())),
            _ => Err(format!("`{text}` chooses no rules; write `chain=NAME` or `comment=TEXT`, where `*` is any text")),
        }
    }
}

impl<'de> Deserialize<'de> for RuleSeries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "write \"all\", or a list such as [\"chain=input\", \"comment=web*\"]")]
        enum Written {
            Word(String),
            Choices(Vec<String>),
        }
        match Written::deserialize(deserializer)? {
            Written::Word(word) if word == "all" => Ok(RuleSeries::All),
            Written::Word(word) => Err(D::Error::custom(format!(
                "`{word}` is no choice of rules; write \"all\", or a list such as [\"chain=input\", \"comment=web*\"]"
            ))),
            Written::Choices(choices) => {
                let choices: Result<_, _> = choices.iter().map(|choice| choice.parse()).collect();
                choices.map(RuleSeries::Some).map_err(D::Error::custom)
            }
        }
    }
}

/// Whether the text matches the pattern, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut text) = text.strip_prefix(first) else { return false };
    for part in middle.split('*') {
        match text.find(part) {
            Some(found) => text = &text[found + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        let cases = [
            ("*", "", true),
            ("*", "web", true),
            ("web", "web", true),
            ("web", "web 1", false),
            ("web*", "web 1", true),
            ("web*", "a web", false),
            ("*web", "a web", true),
            ("*web*", "the web server", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "ac", false),
            ("ab*ba", "aba", false),
            ("**", "x", true),
            ("*é*", "café au lait", true),
        ];
        for (pattern, text, is_so) in cases {
            assert_eq!(matches(pattern, text), is_so, "{pattern} {text}");
        }
    }
}
