//! The address lists that rules use, and those that rules match.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::door::{self, Door};
use crate::rule::{Action, Condition, Rule, RuleSet};

/// The lists of these rules: those that a rule adds to or matches, those with entries in the rules, and those of doors.
pub fn named<'r>(rules: &'r RuleSet, doors: &[Door]) -> HashSet<Cow<'r, str>> {
    let by_rules = rules.rules.iter().flat_map(|rule| added(rule).into_iter().chain(asked(rule)));
    let entries = rules.address_lists.iter().map(|entry| entry.list.as_str());
    let of_doors = door::levels(doors).map(|(list, _)| Cow::Owned(list));
    by_rules.chain(entries).map(Cow::Borrowed).chain(of_doors).collect()
}

/// The lists that a running rule matches, negated or not. An entry of another list has no effect.
pub fn matched(rules: &RuleSet) -> impl Iterator<Item = &str> {
    rules.rules.iter().filter(|rule| rule.runs()).flat_map(asked)
}

/// The lists that a rule matches.
fn asked(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.matchers.iter().filter_map(|matcher| match &matcher.condition {
        Condition::SrcAddressList(list) | Condition::DstAddressList(list) => Some(list.as_str()),
        _ => None,
    })
}

/// The list that a rule adds to.
pub(crate) fn added(rule: &Rule) -> Option<&str> {
    match &rule.action {
        Action::AddSrcToAddressList(add) | Action::AddDstToAddressList(add) => Some(&add.list),
        _ => None,
    }
}
