//! The changes from one rule set to another: rules, the commands of the other menus, and lints.
//!
//! [`RuleSetChanges`] defines which rules are the same in both sets. Rules of different chains have no order, so a rule has moved
//! only if it changed its place among the rules of its chain that both sets have. Of these the fewest possible count as moved.

use std::collections::{BTreeMap, HashMap};

use knockplane_policy::lint::{self, Lint, Subject};
use knockplane_policy::rsc::{Finding, RuleSetChanges, beyond, wording};
use knockplane_policy::rule::{Rule, RuleId, RuleNumber, RuleSet, numbers};
use knockplane_policy::settings::Settings;
use schemars::JsonSchema;
use serde::Serialize;

use crate::check::findings;
use crate::json;
use crate::json::changes::ChangeCountsJson;
use crate::json::rules::RuleJson;

/// All changes.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Changes {
    pub(crate) rules: RuleChanges,
    /// Changes of the other menus of a rule file: entries of address lists, patterns, interface lists, and others.
    pub(crate) other_menus: MenuChanges,
    /// Changes of the lints of `knockctl check`.
    pub(crate) lints: LintChanges,
}

/// The changes of rules.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct RuleChanges {
    /// Rules that only the new set has, in its order.
    pub(crate) added: Vec<PlannedRule>,
    /// Rules that only the old set has, in its order.
    pub(crate) removed: Vec<PlannedRule>,
    /// Rules with another place among the rules of their chain.
    pub(crate) moved: Vec<PlannedRule>,
    /// Rules that are the same, except for comment, `disabled`, or properties without effect. A rule can be moved as well.
    pub(crate) changed: Vec<PlannedRule>,
}

/// A rule that is added, removed, moved or changed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PlannedRule {
    /// The number in the new set; of a removed rule, the one in the old set. The line is of the same set.
    pub(crate) number: RuleNumber,
    /// The number in the old set; `null` for an added rule.
    pub(crate) old_number: Option<RuleNumber>,
    /// The line in the old rule file; `null` for an added rule, and without a file.
    pub(crate) old_line: Option<u32>,
    /// The rule as a command of RouterOS.
    pub(crate) command: String,
    /// The properties that changed.
    pub(crate) differences: Vec<PropertyChange>,
    #[serde(flatten)]
    pub(crate) rule: RuleJson,
}

/// A property of a rule that changed.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct PropertyChange {
    /// `comment`, `disabled`, `invalid` (the reason that the rule cannot run), or a property without effect.
    pub(crate) property: String,
    /// The value in the old set; `null` if the rule does not have the property there.
    pub(crate) old: Option<String>,
    /// The value in the new set; `null` if the rule does not have the property there.
    pub(crate) new: Option<String>,
}

/// The changes of menus without rules.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct MenuChanges {
    pub(crate) added: Vec<MenuCommand>,
    pub(crate) removed: Vec<MenuCommand>,
}

/// A command of a menu.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub(crate) struct MenuCommand {
    /// The menu: `/ip firewall address-list`.
    pub(crate) menu: &'static str,
    /// The command, as in an export.
    pub(crate) command: String,
}

/// The changes of lints.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct LintChanges {
    /// Lints about the new set that the old set does not have.
    pub(crate) added: Vec<Finding>,
    /// Lints about the old set that the new set does not have.
    pub(crate) gone: Vec<Finding>,
}

/// A rule set with its name in messages and its lints.
pub(crate) struct Linted<'r> {
    name: &'r str,
    rules: &'r RuleSet,
    lints: Vec<Lint>,
}

impl<'r> Linted<'r> {
    pub(crate) fn new(name: &'r str, rules: &'r RuleSet, settings: &Settings) -> Self {
        Linted::with(name, rules, lint::lint(rules, settings))
    }

    /// With the lints about these rules.
    pub(crate) fn with(name: &'r str, rules: &'r RuleSet, lints: Vec<Lint>) -> Self {
        Linted { name, rules, lints }
    }

    /// A lint, for output.
    fn finding(&self, lint: &Lint, numbers: &HashMap<&RuleId, RuleNumber>) -> Finding {
        let (file, rule) = match &lint.subject {
            Subject::Door(_) => ("the configuration", None),
            Subject::Pattern(_) => (self.name, None),
            Subject::Rule(id) => (self.name, numbers.get(id).copied()),
        };
        Finding { file: file.to_owned(), ..findings::of_lint(lint, rule) }
    }

    /// The lints that the other set does not have, for output. Sentences are not compared, because they contain lines.
    fn beyond(&self, other: &Linted<'_>) -> Vec<Finding> {
        fn same(lint: &Lint) -> impl Eq + std::hash::Hash {
            let subject = match &lint.subject {
                Subject::Rule(RuleId(id)) => (0, id),
                Subject::Pattern(name) => (1, name),
                Subject::Door(name) => (2, name),
            };
            (lint.code.number(), subject, &lint.property, lint.also.as_ref().map(|also| &also.rule))
        }
        let numbers = self.rules.rules.iter().map(|rule| &rule.id).zip(numbers(&self.rules.rules)).collect();
        let rest = beyond(&self.lints, &other.lints, same);
        rest.into_iter().map(|lint| self.finding(lint, &numbers)).collect()
    }
}

impl Changes {
    pub(crate) fn of(old: &Linted<'_>, new: &Linted<'_>) -> Changes {
        let mut changes = RuleSetChanges::of(old.rules, new.rules);
        let commands = |commands: Vec<(&'static str, String)>| {
            commands.into_iter().map(|(menu, command)| MenuCommand { menu, command }).collect()
        };
        let [added, removed] = [&mut changes.other_added, &mut changes.other_removed].map(std::mem::take);
        Changes {
            rules: RuleChanges::new(&changes, &old.rules.rules, &new.rules.rules),
            other_menus: MenuChanges { added: commands(added), removed: commands(removed) },
            lints: LintChanges { added: new.beyond(old), gone: old.beyond(new) },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        let Changes { rules, other_menus, lints } = self;
        let of_rules = [&rules.added, &rules.removed, &rules.moved, &rules.changed];
        of_rules.iter().all(|rules| rules.is_empty())
            && other_menus.added.is_empty()
            && other_menus.removed.is_empty()
            && lints.added.is_empty()
            && lints.gone.is_empty()
    }

    /// The numbers of changes.
    pub(crate) fn counts(&self) -> ChangeCountsJson {
        let Changes { rules, other_menus, lints } = self;
        ChangeCountsJson {
            rules_added: rules.added.len(),
            rules_removed: rules.removed.len(),
            rules_moved: rules.moved.len(),
            rules_changed: rules.changed.len(),
            other_menus_added: other_menus.added.len(),
            other_menus_removed: other_menus.removed.len(),
            lints_added: lints.added.len(),
            lints_gone: lints.gone.len(),
        }
    }
}

impl RuleChanges {
    /// These changes of rules, for output.
    fn new(changes: &RuleSetChanges, old: &[Rule], new: &[Rule]) -> RuleChanges {
        let (old_numbers, new_numbers) = (numbers(old), numbers(new));
        let planned = |(before, place): (usize, usize)| {
            PlannedRule::new(&new[place], new_numbers[place], Some((&old[before], old_numbers[before])))
        };
        let added = changes.added.iter().map(|place| PlannedRule::new(&new[*place], new_numbers[*place], None));
        let removed = changes.removed.iter().map(|place| {
            let (rule, number) = (&old[*place], old_numbers[*place]);
            PlannedRule::new(rule, number, Some((rule, number)))
        });
        // The places of the rules that both have, by chain.
        let mut chains = BTreeMap::<_, Vec<(usize, usize)>>::new();
        for pair in &changes.kept {
            let rule = &new[pair.1];
            chains.entry((rule.family, rule.table, &rule.chain)).or_default().push(*pair);
        }
        let mut moved: Vec<_> = chains.values().flat_map(|both| out_of_order(both)).collect();
        moved.sort_by_key(|(_, place)| *place);
        RuleChanges {
            added: added.collect(),
            removed: removed.collect(),
            moved: moved.into_iter().map(planned).collect(),
            changed: changes.changed.iter().copied().map(planned).collect(),
        }
    }
}

impl PlannedRule {
    /// A rule with its number. `old` is the same rule in the old set.
    fn new(rule: &Rule, number: RuleNumber, old: Option<(&Rule, RuleNumber)>) -> PlannedRule {
        PlannedRule {
            number,
            old_number: old.map(|(_, number)| number),
            old_line: old.and_then(|(old, _)| json::line(old.line)),
            command: wording::command(rule),
            differences: old.map(|(old, _)| differences(old, rule)).unwrap_or_default(),
            rule: rule.into(),
        }
    }
}

/// The properties that differ although the rules are the same.
fn differences(old: &Rule, new: &Rule) -> Vec<PropertyChange> {
    fn properties(rule: &Rule) -> BTreeMap<String, String> {
        let comment = (!rule.comment.is_empty()).then(|| ("comment".to_owned(), rule.comment.clone()));
        let disabled = rule.disabled.then(|| ("disabled".to_owned(), "yes".to_owned()));
        let invalid = rule.invalid.clone().map(|why| ("invalid".to_owned(), why));
        rule.inert.clone().into_iter().chain(comment).chain(disabled).chain(invalid).collect()
    }
    let [mut old, new] = [old, new].map(properties);
    let changed = |(property, new): (String, String)| {
        let old = old.remove(&property);
        (old.as_ref() != Some(&new)).then_some(PropertyChange { property, old, new: Some(new) })
    };
    let mut differences: Vec<_> = new.into_iter().filter_map(changed).collect();
    differences.extend(old.into_iter().map(|(property, old)| PropertyChange { property, old: Some(old), new: None }));
    differences
}

/// The fewest pairs whose removal leaves the first members in ascending order: those outside a longest ascending
/// subsequence. Source: Fredman, On computing the length of longest increasing subsequences, 1975.
fn out_of_order(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // For each length: the index of the least last member of an ascending subsequence of this length.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (index, (first, _)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].0 < *first);
        before.push(length.checked_sub(1).map(|length| ends[length]));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut is_in_order = vec![false; pairs.len()];
    let mut next = ends.last().copied();
    while let Some(index) = next {
        is_in_order[index] = true;
        next = before[index];
    }
    pairs.iter().zip(is_in_order).filter(|(_, is_in_order)| !is_in_order).map(|(pair, _)| *pair).collect()
}
