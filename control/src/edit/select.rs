//! The rules that a command names: by number as `show rules` prints it, by id, or by `[find …]`.
//!
//! A number counts the rules of doors, which an export does not have, and changes with each command. So each named rule gets the
//! id `*1`, `*2`, … that it has in the text of the export: its position there, which no later command changes.

use clap::ValueEnum;
use knockplane_policy::rule::{MENUS, Rule, RuleId, RuleNumber, numbers};
use knockplane_policy::wire::RunningRules;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EditError, Refusal};
use crate::text::printable;

/// A menu of rules, in the order of [`MENUS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Menu {
    #[default]
    #[serde(rename = "ip-filter")]
    /// /ip firewall filter
    IpFilter,
    /// /ip firewall raw
    #[serde(rename = "ip-raw")]
    IpRaw,
    /// /ipv6 firewall filter
    #[serde(rename = "ipv6-filter")]
    Ipv6Filter,
    /// /ipv6 firewall raw
    #[serde(rename = "ipv6-raw")]
    Ipv6Raw,
}

impl Menu {
    pub(super) const ALL: [Menu; 4] = [Menu::IpFilter, Menu::IpRaw, Menu::Ipv6Filter, Menu::Ipv6Raw];

    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        ["ip-filter", "ip-raw", "ipv6-filter", "ipv6-raw"][self as usize]
    }

    /// The path in a rule file.
    pub(crate) fn path(self) -> &'static str {
        MENUS[self as usize].2
    }

    /// Whether the rule belongs to the menu.
    pub(crate) fn has(self, rule: &Rule) -> bool {
        (MENUS[self as usize].0, MENUS[self as usize].1) == (rule.family, rule.table)
    }

    fn of(rule: &Rule) -> Menu {
        Menu::ALL.into_iter().find(|menu| menu.has(rule)).unwrap_or(Menu::IpFilter)
    }
}

/// The rules that a command names with one argument.
#[derive(Debug)]
pub(crate) enum Selection {
    /// The positions in the export, from 1.
    Positions(Vec<usize>),
    /// `[find …]`, which the reader of rule files executes.
    Find(String),
}

impl Selection {
    /// Reads all selections of a command, and the menu of their rules. Numbers are those of `menu`.
    pub(crate) fn read<'t>(
        running: &RunningRules,
        menu: Menu,
        selectors: impl Iterator<Item = &'t str>,
    ) -> Result<(Menu, Vec<Selection>), EditError> {
        let (mut found, mut selections) = (None, Vec::new());
        for text in selectors {
            let text = text.strip_prefix("numbers=").unwrap_or(text);
            if text.starts_with(['[', '(']) {
                selections.push(Selection::Find(text.to_owned()));
                continue;
            }
            let mut positions = Vec::new();
            for place in places(running, menu, text)? {
                let rule = &running.rules.rules[place];
                if rule.dynamic {
                    return Err(of_door(running, rule));
                }
                if *found.get_or_insert(Menu::of(rule)) != Menu::of(rule) {
                    let message = format!("the rules are in different menus: {}", printable(text));
                    return Err(EditError::Usage(Refusal::new(message)));
                }
                let before = &running.rules.rules[..place];
                positions.push(1 + before.iter().filter(|other| Menu::of(rule).has(other) && !other.dynamic).count());
            }
            selections.push(Selection::Positions(positions));
        }
        Ok((found.unwrap_or(menu), selections))
    }

    /// The selection in the text of a rule file.
    pub(super) fn written(self) -> String {
        match self {
            Selection::Positions(positions) => {
                positions.iter().map(|position| format!("*{position:X}")).collect::<Vec<_>>().join(",")
            }
            Selection::Find(text) => text,
        }
    }
}

/// The ids of the named rules, which may be rules of doors.
pub(crate) fn ids(running: &RunningRules, menu: Menu, text: &str) -> Result<Vec<RuleId>, EditError> {
    if text.starts_with(['[', '(']) {
        return Err(EditError::Usage(Refusal::new("`reset-counters` takes numbers or ids of rules")));
    }
    let text = text.strip_prefix("numbers=").unwrap_or(text);
    let ids = places(running, menu, text)?.into_iter().map(|place| running.rules.rules[place].id.clone());
    Ok(ids.collect())
}

/// The places of the named rules among all running rules.
fn places(running: &RunningRules, menu: Menu, text: &str) -> Result<Vec<usize>, EditError> {
    let numbers = numbers(&running.rules.rules);
    text.split(',').map(|item| place(running, &numbers, menu, item.trim())).collect()
}

/// The place of one rule. An id may consist of digits only.
fn place(running: &RunningRules, numbers: &[RuleNumber], menu: Menu, item: &str) -> Result<usize, EditError> {
    let rules = &running.rules.rules;
    if let Some(place) = rules.iter().position(|rule| rule.id.0 == item) {
        return Ok(place);
    }
    let short = MENUS[menu as usize].3;
    let number: Option<u32> = item.parse().ok().filter(|_| item.bytes().all(|byte| byte.is_ascii_digit()));
    let named = numbers.iter().position(|known| match number {
        Some(number) => known.menu() == short && known.number() == number,
        None => known.to_string() == item,
    });
    named.ok_or_else(|| {
        let of_menu = rules.iter().filter(|rule| menu.has(rule)).count();
        let known = match of_menu.checked_sub(1) {
            Some(last) => format!("has the numbers 0 to {last}"),
            None => "has no rules".to_owned(),
        };
        let remedy = "`knockctl show rules --stats` shows numbers and ids";
        let message = format!(
            "no rule is named `{}`: {} of revision {} {known}; nothing changed",
            printable(item),
            menu.path(),
            running.revision
        );
        EditError::Conflict(Refusal::with_remedy(&message, remedy))
    })
}

/// The refusal of an edit of a rule that the configuration file defines.
fn of_door(running: &RunningRules, rule: &Rule) -> EditError {
    let file = printable(&running.configuration);
    let remedy = format!("change its [[door]] in {file}, and run `knockctl reload`");
    let rule_words = printable(&format!("{} ({})", rule.id, rule.comment));
    let message = format!("the rule {rule_words} comes from the configuration file {file}; nothing changed");
    let refusal = Refusal::with_remedy(&message, &remedy);
    EditError::Conflict(Refusal { place: Some(running.configuration.clone()), ..refusal })
}
