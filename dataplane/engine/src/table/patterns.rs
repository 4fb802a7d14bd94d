//! The layer-7 patterns and server names that rules use, each compiled once.

use std::hash::Hasher as _;

use hashbrown::HashMap;
use knockplane_policy::rule::{Condition, Layer7Pattern, RuleSet};
use siphasher::sip::SipHasher13;

use super::{RuleSetError, running};
use crate::state::layer7::{Patterns, PayloadMatchers};
use crate::state::server_name;

/// Positions by name.
pub(super) type Positions<'r> = HashMap<&'r str, usize>;

/// Compiles the patterns and server names that are used, each once.
pub(super) fn compile_patterns<'r>(
    rules: &'r RuleSet,
    problems: &mut Vec<RuleSetError>,
) -> (PayloadMatchers, Positions<'r>, Positions<'r>) {
    let (mut patterns, mut names) = (Positions::new(), Positions::new());
    let (mut used, mut asked) = (Vec::new(), Vec::new());
    for (_, rule) in running(rules) {
        for matcher in &rule.matchers {
            match &matcher.condition {
                Condition::Layer7(name) => match rules.pattern(name) {
                    None => problems.push(RuleSetError::PatternMissing { rule: rule.into(), pattern: name.clone() }),
                    Some(pattern) => {
                        patterns.entry(name).or_insert_with(|| {
                            used.push(pattern);
                            used.len() - 1
                        });
                    }
                },
                Condition::TlsHost(name) => {
                    names.entry(name).or_insert_with(|| {
                        asked.push((rule, name.as_str()));
                        asked.len() - 1
                    });
                }
                _ => {}
            }
        }
    }
    let mut id = SipHasher13::new();
    let mut payload_matchers = PayloadMatchers::default();
    let regexps: Vec<&str> = used.iter().map(|pattern| pattern.regexp.as_str()).collect();
    match Patterns::compile(&regexps) {
        Ok(patterns) => payload_matchers.patterns = patterns,
        Err(errors) => problems.extend(errors.into_iter().map(|(position, error)| {
            let Layer7Pattern { name: pattern, line, .. } = used[position].clone();
            RuleSetError::Pattern { pattern, line, error }
        })),
    }
    let globs: Vec<&str> = asked.iter().map(|(_, name)| *name).collect();
    match server_name::compile(&globs) {
        Ok(names) => payload_matchers.names = names,
        Err(errors) => problems.extend(errors.into_iter().map(|(position, error)| {
            let (rule, name) = asked[position];
            RuleSetError::TlsHost { rule: rule.into(), name: name.to_owned(), error }
        })),
    }
    for text in regexps.into_iter().chain(["\0"]).chain(globs) {
        id.write(text.as_bytes());
        id.write_u8(0xff);
    }
    if !used.is_empty() || !asked.is_empty() {
        payload_matchers.id = id.finish() | 1;
    }
    (payload_matchers, patterns, names)
}
