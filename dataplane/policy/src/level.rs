//! How far along a source is: the level of each address list, which decides who gives way when the lists are full.
//!
//! A list that a packet can get into without being in another one first is level 0: a first knock, which strangers
//! and forged sources can send at will. A list behind it is level 1, and so on. A passphrase is a proof as well: whoever
//! does not know it does not get in. The fewest proofs count: of several
//! rules that add to a list, the easiest one says its level.
//!
//! Only what rules ask of lists directly is counted. A proof asked by the jump that leads to a rule, or by a rule that
//! returns before it, is not seen, so a level is never too high.
//!
//! The lists of doors have the levels that the doors give them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::door::{self, Door};
use crate::rule::{Action, Condition, Rule, RuleSet};

/// The level of every list that some rule that runs adds to. Lists that are only read are absent: packets do not get
/// into them. Lists that can be reached only by being in one of them already are level 0. The doors' lists are among them.
pub fn levels(rules: &RuleSet, doors: &[Door]) -> BTreeMap<String, u8> {
    let of_doors: Vec<(String, u8)> = door::levels(doors).collect();
    let adding: Vec<(&str, &Rule)> =
        rules.rules.iter().filter(|rule| rule.runs()).filter_map(|rule| Some((added(rule)?, rule))).collect();
    let mut levels: BTreeMap<&str, Option<u8>> = adding.iter().map(|(list, _)| (*list, None)).collect();
    levels.extend(of_doors.iter().map(|(list, level)| (list.as_str(), Some(*level))));

    let mut asking: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, (_, rule)) in adding.iter().enumerate() {
        for list in needed(rule).filter(|list| levels.contains_key(list)) {
            asking.entry(list).or_default().push(place);
        }
    }
    // Levels are learnt from the easiest lists upwards and only ever sink, so this ends. A rule is looked at again when
    // a list that it asks for has changed.
    let mut waiting: VecDeque<usize> = (0..adding.len()).collect();
    while let Some(place) = waiting.pop_front() {
        let (list, rule) = adding[place];
        let Some(level) = proofs(rule, &levels) else { continue };
        if levels[list].is_none_or(|known| level < known) {
            levels.insert(list, Some(level));
            waiting.extend(asking.get(list).into_iter().flatten());
        }
    }
    levels.into_iter().map(|(list, level)| (list.to_owned(), level.unwrap_or(0))).collect()
}

/// The lists that there are by these rules: those that a rule adds to or matches, those with entries in the rules, and
/// those of doors.
pub fn named<'r>(rules: &'r RuleSet, doors: &[Door]) -> HashSet<Cow<'r, str>> {
    let by_rules = rules.rules.iter().flat_map(|rule| added(rule).into_iter().chain(asked(rule)));
    let entries = rules.address_lists.iter().map(|entry| entry.list.as_str());
    let of_doors = door::levels(doors).map(|(list, _)| Cow::Owned(list));
    by_rules.chain(entries).map(Cow::Borrowed).chain(of_doors).collect()
}

/// The lists that a rule that runs matches, negated or not. In any other list, an entry has no effect.
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

/// The list a rule adds to.
fn added(rule: &Rule) -> Option<&str> {
    match &rule.action {
        Action::AddSrcToAddressList(add) | Action::AddDstToAddressList(add) => Some(&add.list),
        _ => None,
    }
}

/// The lists that the packet's addresses must be in.
fn needed(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.matchers.iter().filter(|matcher| !matcher.negated).filter_map(|matcher| match &matcher.condition {
        Condition::SrcAddressList(list) | Condition::DstAddressList(list) => Some(list.as_str()),
        _ => None,
    })
}

/// How many proofs a packet has given that matches this rule; none while that is not known of one of its lists.
fn proofs(rule: &Rule, levels: &BTreeMap<&str, Option<u8>>) -> Option<u8> {
    let mut proofs = 0;
    let mut passphrase = 0;
    for matcher in rule.matchers.iter().filter(|matcher| !matcher.negated) {
        match &matcher.condition {
            Condition::SrcAddressList(list) | Condition::DstAddressList(list) => {
                if let Some(level) = levels.get(list.as_str()) {
                    proofs = proofs.max((*level)?.saturating_add(1));
                }
            }
            Condition::Layer7(_) | Condition::Content(_) => passphrase = 1,
            _ => {}
        }
    }
    Some(proofs.saturating_add(passphrase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Family;
    use crate::rule::{ListAdd, ListTimeout, Matcher};

    /// A rule that adds to `list` whoever is in all of `needs`; `!` before a name negates.
    fn add(list: &str, needs: &[&str]) -> Rule {
        let matchers = needs.iter().map(|name| Matcher {
            negated: name.starts_with('!'),
            condition: Condition::SrcAddressList(name.trim_start_matches('!').to_owned()),
        });
        let action = Action::AddSrcToAddressList(ListAdd { list: list.to_owned(), timeout: ListTimeout::NoneDynamic });
        Rule { matchers: matchers.collect(), ..Rule::new(Family::Ipv4, "input", action) }
    }

    fn of(rules: Vec<Rule>) -> Vec<(String, u8)> {
        levels(&RuleSet { rules, ..RuleSet::default() }, &[]).into_iter().collect()
    }

    fn expected(levels: &[(&str, u8)]) -> Vec<(String, u8)> {
        levels.iter().map(|(list, level)| ((*list).to_owned(), *level)).collect()
    }

    #[test]
    fn the_two_step_script_has_a_first_step_and_a_second() {
        let rules = vec![add("secured", &["temporary"]), add("temporary", &[])];
        assert_eq!(of(rules), expected(&[("secured", 1), ("temporary", 0)]));
    }

    #[test]
    fn a_ladder_in_any_order_counts_its_rungs() {
        let rules = vec![add("d", &["c"]), add("c", &["b"]), add("b", &["a"]), add("a", &[])];
        assert_eq!(of(rules), expected(&[("a", 0), ("b", 1), ("c", 2), ("d", 3)]));
    }

    #[test]
    fn the_easiest_rule_counts_and_the_hardest_of_its_lists() {
        let rules = vec![add("a", &[]), add("b", &["a"]), add("c", &["a", "b"]), add("c", &["b", "c"])];
        assert_eq!(of(rules), expected(&[("a", 0), ("b", 1), ("c", 2)]));
        assert_eq!(of(vec![add("a", &[]), add("b", &["a"]), add("b", &[])]), expected(&[("a", 0), ("b", 0)]));
    }

    #[test]
    fn refreshing_a_list_from_itself_does_not_raise_it() {
        let rules = vec![add("a", &["a"]), add("a", &[]), add("b", &["a"]), add("b", &["b"])];
        assert_eq!(of(rules), expected(&[("a", 0), ("b", 1)]));
    }

    #[test]
    fn lists_that_lead_only_to_each_other_are_level_0() {
        assert_eq!(of(vec![add("a", &["b"]), add("b", &["a"])]), expected(&[("a", 0), ("b", 0)]));
    }

    #[test]
    fn negated_read_only_disabled_and_invalid_do_not_count() {
        let disabled = Rule { disabled: true, ..add("whitelist", &[]) };
        let invalid = Rule { invalid: Some("it asks for a mark".to_owned()), ..add("whitelist", &[]) };
        let rules = vec![add("a", &[]), add("b", &["!a"]), add("c", &["whitelist"]), disabled, invalid];
        assert_eq!(of(rules), expected(&[("a", 0), ("b", 0), ("c", 0)]));
    }

    #[test]
    fn a_ladder_without_end_stops_at_255() {
        let rules = (0..300).map(|step| match step {
            0 => add("000", &[]),
            _ => add(&format!("{step:03}"), &[&format!("{:03}", step - 1)]),
        });
        assert_eq!(of(rules.collect()).pop(), Some(("299".to_owned(), 255)));
    }

    #[test]
    fn a_long_ladder_that_stands_upside_down_is_no_more_work() {
        let step = |step: usize| add(&format!("{step:05}"), &[&format!("{:05}", step - 1)]);
        let rules = (1..20_000).rev().map(step).chain([add("00000", &[])]).collect();
        assert_eq!(of(rules)[3], ("00003".to_owned(), 3));
    }

    #[test]
    fn a_list_behind_a_door_takes_one_proof_more_than_the_door() {
        let doors = crate::door::tests::doors(r#"[{"name":"ssh","knock":["tcp/7","tcp/9","tcp/8"]}]"#);
        let rules = RuleSet { rules: vec![add("a", &["door-ssh"])], ..RuleSet::default() };
        let levels: Vec<_> = levels(&rules, &doors).into_iter().collect();
        assert_eq!(levels, expected(&[("a", 3), ("door-ssh", 2), ("door-ssh-knocking", 0)]));
    }

    #[test]
    fn a_passphrase_is_a_proof() {
        let text = "/ip firewall layer7-protocol\nadd name=pw regexp=\"^pw\\$\"\n/ip firewall filter\n\
                    add chain=input protocol=udp layer7-protocol=pw action=add-src-to-address-list address-list=knows\n\
                    add chain=input protocol=udp layer7-protocol=!pw action=add-src-to-address-list address-list=not\n\
                    add chain=input src-address-list=knows action=add-src-to-address-list address-list=second\n";
        let reading = crate::rsc::read(text.as_bytes());
        assert!(reading.problems.is_empty(), "{:?}", reading.problems);
        let levels = levels(&reading.rules, &[]);
        assert_eq!((levels["knows"], levels["not"], levels["second"]), (1, 0, 2));
    }
}
