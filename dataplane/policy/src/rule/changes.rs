//! The numbers of changes from one rule set to another.

use serde::{Deserialize, Serialize};

use super::RuleSet;

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
    /// Commands of other menus that only the new set has: addresses of lists, patterns, and others.
    pub other_added: u64,
    /// Commands of other menus that only the old set has.
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
}
