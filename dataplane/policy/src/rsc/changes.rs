//! The differences between two rule sets: rules, and the commands of the other menus of a rule file.
//!
//! A rule is the same in both sets if its id and its content are the same: menu, chain, matchers, action and log. A rule with
//! another matcher is another rule. Lines of rule files are no difference.

use std::collections::HashMap;
use std::hash::Hash;

use super::export::other_commands;
use crate::rule::{Rule, RuleChangeCounts, RuleId, RuleSet};

/// The differences between an old rule set and a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSetChanges {
    /// The places of the rules that only the new set has.
    pub added: Vec<usize>,
    /// The places of the rules that only the old set has.
    pub removed: Vec<usize>,
    /// The places, in the old set and in the new one, of the rules that both have. In the order of the new set.
    pub kept: Vec<(usize, usize)>,
    /// Those of them with another comment, disabled or enabled, or with other properties without effect.
    pub changed: Vec<(usize, usize)>,
    /// The commands of [`other_commands`] that only the new set has.
    pub other_added: Vec<(&'static str, String)>,
    /// The commands of [`other_commands`] that only the old set has.
    pub other_removed: Vec<(&'static str, String)>,
}

impl RuleSetChanges {
    /// The differences between these sets. Their rules have ids.
    pub fn of(old: &RuleSet, new: &RuleSet) -> RuleSetChanges {
        let places: HashMap<&RuleId, usize> =
            old.rules.iter().enumerate().map(|(place, rule)| (&rule.id, place)).collect();
        let mut is_kept = vec![false; old.rules.len()];
        let mut changes = RuleSetChanges::default();
        for (place, rule) in new.rules.iter().enumerate() {
            match places.get(&rule.id).copied().filter(|before| is_same(&old.rules[*before], rule)) {
                Some(before) => {
                    is_kept[before] = true;
                    changes.kept.push((before, place));
                    if is_changed(&old.rules[before], rule) {
                        changes.changed.push((before, place));
                    }
                }
                None => changes.added.push(place),
            }
        }
        changes.removed = (0..old.rules.len()).filter(|place| !is_kept[*place]).collect();
        let [before, after] = [old, new].map(other_commands);
        changes.other_added = beyond(&after, &before, |command| command).into_iter().cloned().collect();
        changes.other_removed = beyond(&before, &after, |command| command).into_iter().cloned().collect();
        changes
    }

    /// The numbers of differences.
    pub fn counts(&self) -> RuleChangeCounts {
        let RuleSetChanges { added, removed, kept: _, changed, other_added, other_removed } = self;
        RuleChangeCounts {
            added: added.len() as u64,
            removed: removed.len() as u64,
            changed: changed.len() as u64,
            other_added: other_added.len() as u64,
            other_removed: other_removed.len() as u64,
        }
    }
}

/// The items that the other slice does not have, compared by a key. An item that one has twice and the other once is one item
/// beyond.
pub fn beyond<'i, T, K: Eq + Hash>(items: &'i [T], other: &'i [T], key: impl Fn(&'i T) -> K) -> Vec<&'i T> {
    let mut known: HashMap<K, usize> = HashMap::new();
    for item in other {
        *known.entry(key(item)).or_default() += 1;
    }
    let is_beyond = |item: &&'i T| match known.get_mut(&key(*item)) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    };
    items.iter().filter(is_beyond).collect()
}

/// Whether the contents that determine an id are the same. Ids are short hashes, so that different rules can have the same id.
fn is_same(one: &Rule, other: &Rule) -> bool {
    fn content(rule: &Rule) -> impl PartialEq {
        (rule.table, rule.family, &rule.chain, &rule.matchers, &rule.action, &rule.log)
    }
    content(one) == content(other)
}

/// Whether the same rule has other contents that do not determine its id.
fn is_changed(one: &Rule, other: &Rule) -> bool {
    fn rest(rule: &Rule) -> impl PartialEq {
        (&rule.comment, rule.disabled, &rule.inert, &rule.invalid)
    }
    rest(one) != rest(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rsc;

    fn rules(text: &str) -> RuleSet {
        let reading = rsc::read(text.as_bytes());
        assert_eq!(reading.problems, [], "{text}");
        reading.rules
    }

    fn counts(old: &RuleSet, new: &RuleSet) -> RuleChangeCounts {
        RuleSetChanges::of(old, new).counts()
    }

    #[test]
    fn rules_are_counted_by_their_content_and_other_commands_as_a_whole() {
        let old = rules(
            "/ip firewall address-list\nadd list=a address=192.0.2.1\nadd list=a address=192.0.2.2\n\
             /ip firewall filter\nadd chain=input protocol=icmp\nadd chain=input protocol=tcp dst-port=22 comment=x\n\
             add chain=input action=drop\nadd chain=input action=drop\n",
        );
        assert_eq!(counts(&old, &old), RuleChangeCounts::default());
        // Blank lines and another order are no changes of rules.
        let new = rules(
            "/ip firewall address-list\nadd list=a address=192.0.2.2\n\nadd list=a address=192.0.2.3\n\
             add list=a address=192.0.2.4\n/ip firewall filter\n\nadd chain=input protocol=tcp dst-port=22 comment=y\n\
             add chain=input protocol=icmp disabled=yes\nadd chain=input protocol=udp\nadd chain=input action=drop\n\
             /ip firewall connection tracking\nset udp-timeout=20s\n",
        );
        let there = RuleChangeCounts { added: 1, removed: 1, changed: 2, other_added: 3, other_removed: 1 };
        assert_eq!(counts(&old, &new), there);
        let back = RuleChangeCounts { added: 1, removed: 1, changed: 2, other_added: 1, other_removed: 3 };
        assert_eq!(counts(&new, &old), back);
        assert_eq!(RuleSetChanges::of(&old, &new).kept, [(1, 0), (0, 1), (2, 3)]);
    }
}
