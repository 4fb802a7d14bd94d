//! Rules in the format of RouterOS's `print` and `print stats`: menu by menu, each numbered from 0.
//!
//! A rule is wrapped between its properties, as in RouterOS. An export has each rule in one line. Behind its flags is its
//! origin, which the head explains: `r3` for revision 3, `c` for the configuration.

use std::collections::BTreeSet;

use knockplane_policy::reason::Verdict;
use knockplane_policy::rsc::wording;
use knockplane_policy::rule::{BuiltinChain, MENUS, Rule, numbers};
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::history::History;
use knockplane_policy::wire::{Counter, DataplaneStatus, RunningRules};
use knockplane_policy::word::Word as _;

use super::table::Align::{Left, Right};
use super::table::{Columns, filled, grouped, printable, wrapped};

/// The rules in lines of at most `width` columns, then the defaults of the chains.
pub(super) fn rules(rules: &RunningRules, history: &History, status: &DataplaneStatus, width: usize) -> String {
    let defaults = BuiltinChain::ALL.map(|chain| format!("{} {}", chain.name(), default_of(chain, &status.settings)));
    menus(rules, history, |rules| print(rules, width)) + &format!("\nwhen no rule decides: {}\n", defaults.join(", "))
}

/// The counters of the rules and of the chain defaults.
pub(super) fn stats(rules: &RunningRules, history: &History, status: &DataplaneStatus) -> String {
    menus(rules, history, stats_table) + "\nwhen no rule decides\n" + &defaults_table(&rules.chain_defaults, status)
}

/// A rule with its number, its origin and its counter.
struct Printed<'r> {
    number: u32,
    rule: &'r Rule,
    origin: String,
    counter: &'r Counter,
}

fn menus(rules: &RunningRules, history: &History, print: impl Fn(&[Printed<'_>]) -> String) -> String {
    let (generation, revision) = (rules.generation, rules.revision);
    let mut text = format!("generation {generation}, revision {revision}, from {}\n", printable(&rules.source));
    text += "Flags: X - disabled, I - invalid; D - dynamic\n";
    text += &legend(rules, history);
    let numbers = numbers(&rules.rules.rules);
    for (_, _, menu, short) in MENUS {
        let all = numbers.iter().zip(&rules.rules.rules).zip(&rules.origins).zip(&rules.counters);
        let of_menu = all.filter(|(((number, _), _), _)| number.menu() == short);
        let printed = of_menu.map(|(((number, rule), origin), counter)| Printed {
            number: number.number(),
            rule,
            origin: mark(*origin),
            counter,
        });
        let of_menu: Vec<_> = printed.collect();
        if !of_menu.is_empty() {
            text += &format!("\n{menu}\n{}", print(&of_menu));
        }
    }
    text
}

/// The origin of a rule: its revision, or the configuration.
fn mark(origin: Option<u64>) -> String {
    origin.map_or_else(|| "c".to_owned(), |revision| format!("r{revision}"))
}

/// The origins that the rules have, each with its change.
fn legend(rules: &RunningRules, history: &History) -> String {
    let origins: BTreeSet<Option<u64>> = rules.origins.iter().copied().collect();
    let line = |origin: &Option<u64>| {
        let change = match origin {
            None => format!("door, {}", rules.configuration),
            Some(number) => match history.revisions.iter().find(|revision| revision.number == *number) {
                Some(revision) => format!("{}, {}", revision.origin.name(), revision.what()),
                // A change between both requests has dropped the revision.
                None => "not kept any more".to_owned(),
            },
        };
        wrapped(&format!("  {}: {}", mark(*origin), printable(&change)), "      ")
    };
    if origins.is_empty() {
        String::new()
    } else {
        "Origins:\n".to_owned() + &origins.iter().map(line).collect::<String>()
    }
}

/// Writes ` 0 X ;;; comment`, then the rule, with an empty line between rules. The reason that a rule is invalid is a
/// comment too, as in RouterOS.
fn print(rules: &[Printed<'_>], width: usize) -> String {
    let digits = rules.len().saturating_sub(1).to_string().len().max(2);
    let of_origin = rules.iter().map(|printed| printed.origin.len()).max().unwrap_or_default();
    let entry = |Printed { number, rule, origin, .. }: &Printed<'_>| {
        let mut margin = format!("{number:>digits$} {:<2} {origin:<of_origin$}  ", flag(rule));
        let reason = rule.invalid.as_ref().map(|reason| format!(";;; {reason}"));
        let comment = (!rule.comment.is_empty()).then(|| format!(";;; {}", rule.comment));
        let width = width.saturating_sub(margin.len());
        let notes = [reason, comment]
            .into_iter()
            .flatten()
            .flat_map(|note| filled(printable(&note).split_whitespace(), "", "    ", width));
        // A property is split only if it is longer than a line.
        let said: Vec<String> = wording::rule(rule)
            .iter()
            .map(|property| printable(property))
            .flat_map(|property| match property.chars().count() > width {
                true => property.split(' ').map(str::to_owned).collect(),
                false => vec![property],
            })
            .collect();
        let said = filled(said.iter().map(String::as_str), "", "", width);
        let mut text = String::new();
        for line in notes.chain(said) {
            text += &format!("{margin}{line}\n");
            margin = " ".repeat(margin.len());
        }
        text
    };
    rules.iter().map(entry).collect::<Vec<_>>().join("\n")
}

/// Rules of doors are dynamic: they are not in the file.
fn flag(rule: &Rule) -> &'static str {
    match rule {
        Rule { dynamic: true, .. } => "D",
        Rule { disabled: true, .. } => "X",
        Rule { invalid: Some(_), .. } => "I",
        _ => "",
    }
}

fn stats_table(rules: &[Printed<'_>]) -> String {
    let mut table = Columns::new(&[
        ("#", Right),
        ("", Left),
        ("ORIGIN", Left),
        ("CHAIN", Left),
        ("ACTION", Left),
        ("BYTES", Right),
        ("PACKETS", Right),
        ("ID", Left),
        ("COMMENT", Left),
    ]);
    for Printed { number, rule, origin, counter } in rules {
        table.row([
            number.to_string(),
            flag(rule).to_owned(),
            origin.clone(),
            rule.chain.clone(),
            rule.action.name().to_owned(),
            grouped(counter.bytes),
            grouped(counter.packets),
            rule.id.to_string(),
            rule.comment.clone(),
        ]);
    }
    table.text()
}

fn defaults_table(defaults: &[Counter; 3], status: &DataplaneStatus) -> String {
    let mut table = Columns::new(&[("CHAIN", Left), ("ACTION", Left), ("BYTES", Right), ("PACKETS", Right)]);
    for (chain, counter) in BuiltinChain::ALL.into_iter().zip(defaults) {
        let action = default_of(chain, &status.settings).to_owned();
        table.row([chain.name().to_owned(), action, grouped(counter.bytes), grouped(counter.packets)]);
    }
    table.text()
}

fn default_of(chain: BuiltinChain, settings: &Settings) -> &'static str {
    match settings.chain_default.verdict(chain) {
        Verdict::Forward => "accept",
        Verdict::Drop => "drop",
    }
}

#[cfg(test)]
mod tests {
    use knockplane_policy::packet::Family;
    use knockplane_policy::rule::{Action, Table};

    use super::*;
    use crate::cli::table::WIDTH;
    use crate::sample;

    fn assert_text(text: &str, lines: &[&str]) {
        assert_eq!(text.lines().collect::<Vec<_>>(), lines, "\n{text}");
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn rules_look_like_print() {
        let mut rules = sample::rules();
        let mut invalid = rules.rules.rules[0].clone();
        invalid.invalid = Some("ports of sctp are not read here".to_owned());
        rules.rules.rules.push(invalid);
        rules.origins.push(Some(2));
        rules.counters.push(Counter::default());
        let door = Action::Knock("ssh".to_owned());
        rules.rules.rules.push(Rule { dynamic: true, ..sample::rule("1", door, false, "door ssh") });
        rules.origins.push(None);
        rules.counters.push(Counter::default());
        assert_text(
            &super::rules(&rules, &sample::history(), &sample::status(), WIDTH),
            &[
                "generation 3, revision 2, from /etc/knockplane/rules.rsc",
                "Flags: X - disabled, I - invalid; D - dynamic",
                "Origins:",
                "  c: door, /etc/knockplane/knockplane.toml",
                "  r1: start, /etc/knockplane/rules.rsc",
                "  r2: edit, rule disable 1",
                "",
                "/ip firewall filter",
                " 0    r1  ;;; first knock",
                "          chain=input action=add-src-to-address-list address-list=knock1 address-list-timeout=10s",
                "",
                " 1 X  r2  chain=input action=drop",
                "",
                " 2 I  r2  ;;; ports of sctp are not read here",
                "          ;;; first knock",
                "          chain=input action=add-src-to-address-list address-list=knock1 address-list-timeout=10s",
                "",
                " 3 D  c   ;;; door ssh",
                "          chain=input action=knock door=ssh",
                "",
                "when no rule decides: input drop, forward drop, output accept",
            ],
        );
    }

    #[test]
    fn rules_are_wrapped_between_their_properties() {
        let text = super::rules(&sample::rules(), &sample::history(), &sample::status(), 60);
        let wrapped = " 0    r1  ;;; first knock\n          chain=input action=add-src-to-address-list\n          \
            address-list=knock1 address-list-timeout=10s\n\n 1 X  r2  chain=input action=drop\n";
        assert!(text.contains(wrapped), "{text}");
    }

    #[test]
    fn counters_look_like_print_stats() {
        assert_text(
            &stats(&sample::rules(), &sample::history(), &sample::status()),
            &[
                "generation 3, revision 2, from /etc/knockplane/rules.rsc",
                "Flags: X - disabled, I - invalid; D - dynamic",
                "Origins:",
                "  r1: start, /etc/knockplane/rules.rsc",
                "  r2: edit, rule disable 1",
                "",
                "/ip firewall filter",
                "#     ORIGIN  CHAIN  ACTION                            BYTES    PACKETS  ID          COMMENT",
                "0     r1      input  add-src-to-address-list             144          3  0a1b2c3d    first knock",
                "1  X  r2      input  drop                     98 765 432 100  1 234 567  0a1b2c3d-2",
                "",
                "when no rule decides",
                "CHAIN    ACTION  BYTES  PACKETS",
                "input    drop      700        7",
                "forward  drop        0        0",
                "output   accept      0        0",
            ],
        );
    }

    #[test]
    fn each_menu_is_numbered_from_zero() {
        let mut both = sample::rules();
        both.rules.rules[1].family = Family::Ipv6;
        both.rules.rules[0].table = Table::Raw;
        let text = super::rules(&both, &sample::history(), &sample::status(), WIDTH);
        let numbered = text.lines().filter(|line| line.starts_with(" 0 ")).count();
        assert!(text.contains("/ip firewall raw") && text.contains("/ipv6 firewall filter") && numbered == 2, "{text}");
    }

    #[test]
    fn foreign_text_does_not_command_the_terminal() {
        let mut rules = sample::rules();
        rules.rules.rules[0].comment = "a\u{1b}[2J\nb".to_owned();
        let text = super::rules(&rules, &sample::history(), &sample::status(), WIDTH);
        assert!(text.contains(" 0    r1  ;;; a\\u{1b}[2J\\nb\n"), "{text}");
    }
}
