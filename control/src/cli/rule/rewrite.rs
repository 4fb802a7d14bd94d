//! The running rules after an edit.
//!
//! The export of the rules and the edit are read together. Rules that the edit does not change are taken from the running
//! rules, so that they keep what no export has: their lines, and their order among the rules of other menus.

use std::collections::{HashMap, VecDeque};

use knockplane_policy::door;
use knockplane_policy::rsc;
use knockplane_policy::rule::{Rule, RuleId, RuleSet};
use knockplane_policy::settings::Settings;

use super::select::Menu;
use crate::cli::check::{CheckedFile, How};
use crate::cli::{Failed, export};

/// The name of the text in messages.
const NAME: &str = "the rules with this edit";

/// The running rules after a command of their menu, with the rules of doors, if they are valid.
pub(in crate::cli) fn edited(
    running: &RuleSet,
    menu: Menu,
    command: &str,
    settings: &Settings,
    json: bool,
) -> Result<RuleSet, Failed> {
    let mut own = running.clone();
    own.rules.retain(|rule| !rule.dynamic);
    let remedy = "apply a rule file instead";
    let before = export::text(&own, &format!(", so no command can edit the rules: {remedy}"))
        .map_err(|failed| Failed { remedy: Some(remedy.to_owned()), ..failed })?;
    let after = format!("{before}{}\n{command}\n", menu.path());
    let source = CheckedFile::of(NAME, after.as_bytes());
    let after = source.rules(&How { settings, allow_invalid: false, lints: false }, json)?;
    let before = rsc::read(before.as_bytes()).rules;
    Ok(door::rules(settings, merged(own, menu, before.rules, after.rules)))
}

/// The running rules with the rules of a menu as they are after an edit. `before` and `after` are the rules that were
/// read without and with the edit.
fn merged(running: RuleSet, menu: Menu, before: Vec<Rule>, after: Vec<Rule>) -> RuleSet {
    let of_menu = |rule: &Rule| menu.has(rule) && !rule.dynamic;
    // An export has the rules of a menu in their order.
    let known: HashMap<RuleId, &Rule> = before
        .into_iter()
        .filter(of_menu)
        .map(|rule| rule.id)
        .zip(running.rules.iter().filter(|rule| of_menu(rule)))
        .collect();
    let mut new: VecDeque<Rule> = after.into_iter().filter(of_menu).map(|rule| unchanged(rule, &known)).collect();
    let mut rules = Vec::with_capacity(running.rules.len() + 1);
    for rule in &running.rules {
        if of_menu(rule) { rules.extend(new.pop_front()) } else { rules.push(rule.clone()) }
    }
    rules.extend(new);
    let mut merged = RuleSet { rules, ..running };
    merged.assign_ids();
    merged
}

/// The rule as it runs, with the properties that are not part of its id.
fn unchanged(rule: Rule, known: &HashMap<RuleId, &Rule>) -> Rule {
    match known.get(&rule.id) {
        Some(known) => Rule { comment: rule.comment, disabled: rule.disabled, inert: rule.inert, ..(*known).clone() },
        None => Rule { line: 0, ..rule },
    }
}

/// The rules of an edited export, with the lines that unchanged rules have in their file. All other lines are zero.
pub(in crate::cli) fn with_file_lines(running: &RuleSet, new: RuleSet) -> RuleSet {
    let lines: HashMap<&RuleId, u32> = running.rules.iter().map(|rule| (&rule.id, rule.line)).collect();
    let mut new = new.without_lines();
    for rule in &mut new.rules {
        rule.line = lines.get(&rule.id).copied().unwrap_or_default();
    }
    new
}
