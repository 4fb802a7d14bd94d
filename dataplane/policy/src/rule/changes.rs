//! The number of changes from one rule set to another.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{RuleSet, Tracking};

/// The changes from one rule set to another, in numbers. Lines of rule files do not count, nor does the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RuleChangeCounts {
    /// Rules that only the new set has.
    pub added: u64,
    /// Rules that only the old set has.
    pub removed: u64,
    /// Rules that are the same, except for comment, `disabled`, or properties without effect.
    pub changed: u64,
    /// Entries of other menus that only the new set has: addresses of lists, patterns, and others.
    pub other_added: u64,
    /// Entries of other menus that only the old set has.
    pub other_removed: u64,
}

impl RuleSet {
    /// The same rules without lines of a file, to compare them.
    pub fn without_lines(mut self) -> RuleSet {
        self.rules.iter_mut().for_each(|rule| rule.line = 0);
        self.layer7.iter_mut().for_each(|pattern| pattern.line = 0);
        self.address_lists.iter_mut().for_each(|entry| entry.line = 0);
        let members = self.interface_lists.iter_mut().flat_map(|list| &mut list.members);
        members.for_each(|member| member.line = 0);
        self
    }

    /// The changes from this rule set to another. Both are without lines, and their rules have ids.
    pub fn changes_to(&self, new: &RuleSet) -> RuleChangeCounts {
        let before: HashMap<_, _> = self.rules.iter().map(|rule| (&rule.id, rule)).collect();
        let both = new.rules.iter().filter_map(|rule| Some((rule, *before.get(&rule.id)?)));
        let (same, changed) =
            both.fold((0, 0), |(same, changed), (rule, before)| (same + 1, changed + u64::from(rule != before)));
        let (old_items, new_items) = (items(self), items(new));
        let missing = |from: &HashMap<String, u64>, others: &HashMap<String, u64>| {
            from.iter().map(|(item, times)| times.saturating_sub(others.get(item).copied().unwrap_or_default())).sum()
        };
        RuleChangeCounts {
            added: new.rules.len() as u64 - same,
            removed: self.rules.len() as u64 - same,
            changed,
            other_added: missing(&new_items, &old_items),
            other_removed: missing(&old_items, &new_items),
        }
    }
}

/// The entries of the menus without rules as text, with their number.
fn items(rules: &RuleSet) -> HashMap<String, u64> {
    fn texts<T: Serialize>(items: &[T]) -> impl Iterator<Item = String> {
        items.iter().filter_map(|item| serde_json::to_string(item).ok())
    }
    let tracking = (rules.tracking != Tracking::default()).then_some(&rules.tracking);
    let all = texts(&rules.layer7)
        .chain(texts(&rules.address_lists))
        .chain(texts(&rules.interface_lists))
        .chain(texts(&rules.local_addresses))
        .chain(texts(tracking.as_slice()));
    let mut items = HashMap::new();
    for item in all {
        *items.entry(item).or_default() += 1;
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rsc;

    fn rules(text: &str) -> RuleSet {
        let reading = rsc::read(text.as_bytes());
        assert_eq!(reading.problems, [], "{text}");
        reading.rules.without_lines()
    }

    #[test]
    fn rules_are_counted_by_their_content_and_other_entries_as_a_whole() {
        let old = rules(
            "/ip firewall address-list\nadd list=a address=192.0.2.1\nadd list=a address=192.0.2.2\n\
             /ip firewall filter\nadd chain=input protocol=icmp\nadd chain=input protocol=tcp dst-port=22 comment=x\n\
             add chain=input action=drop\nadd chain=input action=drop\n",
        );
        assert_eq!(old.changes_to(&old), RuleChangeCounts::default());
        // Blank lines and another order are no changes of rules.
        let new = rules(
            "/ip firewall address-list\nadd list=a address=192.0.2.2\n\nadd list=a address=192.0.2.3\n\
             add list=a address=192.0.2.4\n/ip firewall filter\n\nadd chain=input protocol=tcp dst-port=22 comment=y\n\
             add chain=input protocol=icmp disabled=yes\nadd chain=input protocol=udp\nadd chain=input action=drop\n\
             /ip firewall connection tracking\nset udp-timeout=20s\n",
        );
        let counts = RuleChangeCounts { added: 1, removed: 1, changed: 2, other_added: 3, other_removed: 1 };
        assert_eq!(old.changes_to(&new), counts);
        let back = RuleChangeCounts { added: 1, removed: 1, changed: 2, other_added: 1, other_removed: 3 };
        assert_eq!(new.changes_to(&old), back);
    }
}
