//! The level of each address list: the progress of a source through a knock. When the lists are full, the level selects
//! the entry to evict.
//!
//! The level of a list is the number of packets that an addition needs, less one. A list to which a stranger's first
//! packet can be added has level 0, a list that needs this list has level 1, and so on. An address that a rule adds is
//! in the list for the next rule on the same packet, so lists to which one packet can be added in sequence have the
//! same level. A passphrase counts as one more packet, because only a client that knows it can send it. If there are
//! several ways, the easiest one counts.
//!
//! A level is never too high. Two rules count as matched by one packet unless their matchers certainly exclude it,
//! lists and payloads aside (see `pass`). Conditions of jumps to them, and rules that decide a packet before, are
//! ignored.
//!
//! Lists of doors have the levels that the doors define.

mod pass;

use std::collections::{BTreeMap, HashMap, VecDeque};

use self::pass::Passes;
use crate::door::{self, Door};
use crate::list_names::added;
use crate::rule::{Condition, Rule, RuleSet};

/// Maximum number of rules that fill a list with which each rule that needs the list is compared. Above this number,
/// the same packet is assumed to match one of them.
const MOST_COMPARED: usize = 64;

/// The level of every list to which a running rule adds, including the lists of doors. Lists that are only matched are
/// absent, because packets cannot be added to them. Lists that can only be reached from themselves have level 0.
pub fn levels(rules: &RuleSet, doors: &[Door]) -> BTreeMap<String, u8> {
    let of_doors: Vec<(String, u8)> = door::levels(doors).collect();
    let adding: Vec<(&str, usize)> = rules
        .rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| rule.runs())
        .filter_map(|(place, rule)| Some((added(rule)?, place)))
        .collect();
    let mut fillers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (step, (list, _)) in adding.iter().enumerate() {
        fillers.entry(list).or_default().push(step);
    }
    let mut lists: BTreeMap<&str, Option<Effort>> = adding.iter().map(|(list, _)| (*list, None)).collect();
    let effort = |level: &u8| Effort { packets: u16::from(*level) + 1, passphrase: 0 };
    lists.extend(of_doors.iter().map(|(list, level)| (list.as_str(), Some(effort(level)))));

    let passes = Passes::new(&rules.rules);
    let mut steps: Vec<AddingRule<'_>> = Vec::with_capacity(adding.len());
    let mut asking: HashMap<&str, Vec<usize>> = HashMap::new();
    for (step, (list, place)) in adding.iter().enumerate() {
        let rule = &rules.rules[*place];
        let mut needs = Vec::new();
        for needed in needed(rule).filter(|needed| lists.contains_key(needed)) {
            asking.entry(needed).or_default().push(step);
            let fillers = fillers.get(needed).map(Vec::as_slice).unwrap_or_default();
            let together = |filler: &usize| (*filler, passes.may_match_both(adding[*filler].1, *place));
            // A packet may open a door and then match the rule.
            let known = fillers.len() <= MOST_COMPARED && !of_doors.iter().any(|(list, _)| list == needed);
            needs.push((needed, known.then(|| fillers.iter().map(together).collect())));
        }
        let passphrase = u16::from(asks_for_passphrase(rule));
        steps.push(AddingRule { list, needs, passphrase, effort: None });
    }

    // Efforts are computed from the easiest lists up and only decrease, so this ends. A rule is evaluated again when a
    // list that it needs has changed.
    let mut waiting: VecDeque<usize> = (0..steps.len()).collect();
    while let Some(step) = waiting.pop_front() {
        let Some(effort) = steps[step].least(&steps, &lists) else { continue };
        let known = steps[step].effort;
        if known.is_some_and(|known| known.min(effort) == known) {
            continue;
        }
        let effort = known.map_or(effort, |known| known.min(effort));
        steps[step].effort = Some(effort);
        let list = steps[step].list;
        let of_list =
            lists.get_mut(list).map(|of_list| of_list.insert(of_list.map_or(effort, |known| known.min(effort))));
        if of_list.is_some() {
            waiting.extend(asking.get(list).into_iter().flatten());
        }
    }
    lists.into_iter().map(|(list, effort)| (list.to_owned(), effort.map_or(0, Effort::level))).collect()
}

/// The effort to be added to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Effort {
    /// Packets, at least one.
    packets: u16,
    /// 1 if one of the packets has a passphrase.
    passphrase: u16,
}

impl Effort {
    /// The minimum of both fields separately, so that the result is never too high.
    fn min(self, other: Effort) -> Effort {
        Effort { packets: self.packets.min(other.packets), passphrase: self.passphrase.min(other.passphrase) }
    }

    fn level(self) -> u8 {
        u8::try_from((self.packets - 1).saturating_add(self.passphrase)).unwrap_or(u8::MAX)
    }
}

/// A rule that fills a list which another rule needs, by its index, and whether one packet may match both.
type Filler = (usize, bool);

/// A rule that adds to a list.
struct AddingRule<'r> {
    list: &'r str,
    /// Each list that the rule needs, with the rules that fill the list; `None` if the same packet may match any of
    /// them.
    needs: Vec<(&'r str, Option<Vec<Filler>>)>,
    passphrase: u16,
    effort: Option<Effort>,
}

impl AddingRule<'_> {
    /// The least known effort of the rule; `None` while the effort of one of its lists is not known.
    fn least(&self, steps: &[AddingRule<'_>], lists: &BTreeMap<&str, Option<Effort>>) -> Option<Effort> {
        let mut effort = Effort { packets: 1, passphrase: self.passphrase };
        for (list, fillers) in &self.needs {
            let needed = match fillers {
                None => lists[list]?,
                Some(fillers) => fillers
                    .iter()
                    .filter_map(|(filler, together)| {
                        let Effort { packets, passphrase } = steps[*filler].effort?;
                        Some(Effort { packets: packets.saturating_add(u16::from(!together)), passphrase })
                    })
                    .reduce(Effort::min)?,
            };
            effort.packets = effort.packets.max(needed.packets);
            effort.passphrase = effort.passphrase.max(needed.passphrase);
        }
        Some(effort)
    }
}

/// The lists that the packet's addresses must be in.
fn needed(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.matchers.iter().filter(|matcher| !matcher.negated).filter_map(|matcher| match &matcher.condition {
        Condition::SrcAddressList(list) | Condition::DstAddressList(list) => Some(list.as_str()),
        _ => None,
    })
}

fn asks_for_passphrase(rule: &Rule) -> bool {
    let reads = |condition: &Condition| matches!(condition, Condition::Layer7(_) | Condition::Content(_));
    rule.matchers.iter().any(|matcher| !matcher.negated && reads(&matcher.condition))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Family;
    use crate::rule::{Action, ListAdd, ListTimeout, Matcher};

    /// A rule that adds sources in all of `needs` to `list`; `!` before a name negates. Each list has a different
    /// packet size, so that no packet matches the rules of two lists.
    fn add(list: &str, needs: &[&str]) -> Rule {
        let size = list.bytes().fold(1, |size: u16, byte| size.wrapping_mul(31).wrapping_add(byte.into()));
        let own = Matcher { negated: false, condition: Condition::PacketSize(size..=size) };
        let matchers = needs.iter().map(|name| Matcher {
            negated: name.starts_with('!'),
            condition: Condition::SrcAddressList(name.trim_start_matches('!').to_owned()),
        });
        let matchers = matchers.chain([own]);
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
    fn a_sequence_of_lists_in_any_order_counts_its_lists() {
        let rules = vec![add("d", &["c"]), add("c", &["b"]), add("b", &["a"]), add("a", &[])];
        assert_eq!(of(rules), expected(&[("a", 0), ("b", 1), ("c", 2), ("d", 3)]));
    }

    #[test]
    fn the_easiest_rule_of_a_list_counts_and_the_hardest_list_of_a_rule() {
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
    fn levels_stop_at_255() {
        let rules = (0..300).map(|step| match step {
            0 => add("000", &[]),
            _ => add(&format!("{step:03}"), &[&format!("{:03}", step - 1)]),
        });
        assert_eq!(of(rules.collect()).pop(), Some(("299".to_owned(), 255)));
    }

    #[test]
    fn a_long_sequence_in_reverse_order_takes_no_more_work() {
        let step = |step: usize| add(&format!("{step:05}"), &[&format!("{:05}", step - 1)]);
        let rules = (1..20_000).rev().map(step).chain([add("00000", &[])]).collect();
        assert_eq!(of(rules)[3], ("00003".to_owned(), 3));
    }

    #[test]
    fn the_packet_that_opens_a_door_may_lead_into_a_list_behind_it() {
        let doors = crate::door::tests::doors(r#"[{"name":"ssh","knock":["tcp/7","tcp/9","tcp/8"]}]"#);
        let rules = RuleSet { rules: vec![add("a", &["door-ssh"])], ..RuleSet::default() };
        let levels: Vec<_> = levels(&rules, &doors).into_iter().collect();
        assert_eq!(levels, expected(&[("a", 2), ("door-ssh", 2), ("door-ssh-knocking", 0)]));
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
        // The packet with the passphrase leads into the second list as well.
        assert_eq!((levels["knows"], levels["not"], levels["second"]), (1, 0, 1));
    }

    #[test]
    fn a_packet_that_fits_several_steps_takes_all_of_them() {
        let of = |rules: &str| {
            let reading = crate::rsc::read(format!("/ip firewall filter\n{rules}").as_bytes());
            assert!(reading.problems.is_empty(), "{:?}", reading.problems);
            levels(&reading.rules, &[])
        };
        let step = |words: &str, list: &str| {
            format!(
                "add chain=input {words} action=add-src-to-address-list address-list={list} address-list-timeout=9s\n"
            )
        };
        let ping = "protocol=icmp packet-size=98";
        let rising = [step(ping, "a"), step(&format!("{ping} src-address-list=a"), "b")].concat();
        let falling = [step(&format!("{ping} src-address-list=a"), "b"), step(ping, "a")].concat();
        assert_eq!((of(&rising)["b"], of(&falling)["b"]), (0, 1));
        let jump = "add chain=input action=jump jump-target=k\n";
        let in_chain = |rules: &str| rules.replace("chain=input", "chain=k");
        assert_eq!(of(&format!("{jump}{}", in_chain(&falling)))["b"], 1, "a chain that packets meet once");
        assert_eq!(of(&format!("{jump}{jump}{}", in_chain(&falling)))["b"], 0, "the second time the packet is in `a`");
        let ports =
            [step("protocol=tcp dst-port=7", "a"), step("protocol=tcp dst-port=9 src-address-list=a", "b")].concat();
        assert_eq!(of(&ports)["b"], 1, "no packet is to both ports");
        let wide = ports.replace("dst-port=9", "dst-port=1-100");
        assert_eq!(of(&wide)["b"], 0);
    }
}
