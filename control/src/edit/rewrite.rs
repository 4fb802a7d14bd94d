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
use super::{EditError, InvalidEdit, Refusal};
use crate::check::{CheckedFile, How};

/// The name of the text in messages.
const NAME: &str = "the rules with this edit";

/// A command in the text of a rule file.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) menu: Menu,
    pub(super) command: String,
}

/// The running rules after commands, with the rules of doors, if they are valid.
pub(super) fn edited(running: &RuleSet, commands: &[Written], settings: &Settings) -> Result<RuleSet, EditError> {
    let mut own = running.clone();
    own.rules.retain(|rule| !rule.dynamic);
    let before = rsc::export(&own).map_err(|what| {
        let message = format!("RouterOS's language has no form for {what}, so no command can edit the rules");
        EditError::Conflict(Refusal::with_remedy(&message, "apply a rule file instead"))
    })?;
    let menus: Vec<Menu> =
        Menu::ALL.into_iter().filter(|menu| commands.iter().any(|command| command.menu == *menu)).collect();
    let mut text = before.clone();
    let mut line = text.bytes().filter(|byte| *byte == b'\n').count() as u32;
    let mut lines = Vec::with_capacity(commands.len());
    for Written { menu, command } in commands {
        text += &format!("{}\n{command}\n", menu.path());
        line += 2;
        lines.push(line);
    }
    let source = CheckedFile::of(NAME, text.as_bytes());
    let (judgement, after) = source.judge(&How { settings, allow_invalid: false, lints: false });
    if !judgement.valid {
        return Err(EditError::Invalid(Box::new(InvalidEdit { text: source, judgement, lines })));
    }
    let before = rsc::read(before.as_bytes()).rules;
    let mut rules = own;
    for menu in menus {
        rules = merged(rules, menu, &before.rules, &after.rules);
    }
    Ok(door::rules(settings, rules))
}

/// The rules with those of a menu as they are after an edit. `before` and `after` are the rules that were read without and with
/// the edit.
fn merged(running: RuleSet, menu: Menu, before: &[Rule], after: &[Rule]) -> RuleSet {
    let of_menu = |rule: &&Rule| menu.has(rule) && !rule.dynamic;
    // An export has the rules of a menu in their order.
    let known: HashMap<&RuleId, &Rule> =
        before.iter().filter(of_menu).map(|rule| &rule.id).zip(running.rules.iter().filter(of_menu)).collect();
    let mut new: VecDeque<Rule> = after.iter().filter(of_menu).map(|rule| unchanged(rule, &known)).collect();
    let mut rules = Vec::with_capacity(running.rules.len() + 1);
    for rule in &running.rules {
        if of_menu(&rule) { rules.extend(new.pop_front()) } else { rules.push(rule.clone()) }
    }
    rules.extend(new);
    let mut merged = RuleSet { rules, ..running };
    merged.assign_ids();
    merged
}

/// The rule as it runs, with the properties that are not part of its id.
fn unchanged(rule: &Rule, known: &HashMap<&RuleId, &Rule>) -> Rule {
    let rule = rule.clone();
    match known.get(&rule.id) {
        Some(known) => Rule { comment: rule.comment, disabled: rule.disabled, inert: rule.inert, ..(*known).clone() },
        None => Rule { line: 0, ..rule },
    }
}

/// The rules of an edited export, with the lines that unchanged rules have in their file. All other lines are zero.
pub(crate) fn with_file_lines(running: &RuleSet, new: RuleSet) -> RuleSet {
    let lines: HashMap<&RuleId, u32> = running.rules.iter().map(|rule| (&rule.id, rule.line)).collect();
    let mut new = new.without_lines();
    for rule in &mut new.rules {
        rule.line = lines.get(&rule.id).copied().unwrap_or_default();
    }
    new
}
