//! Interface names that the rules use and the configuration does not give a side.
//!
//! Whether a name means something is known only where rules and settings come together. There, this finds every rule
//! that could not be run, and says what to write.

use std::collections::BTreeSet;

use super::Interfaces;
use crate::rule::{Condition, RuleSet};

/// A matcher of a rule that runs, whose name means no side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmapped {
    /// The line of the rule.
    pub line: u32,
    /// The matcher's name, such as `in-interface-list`.
    pub matcher: String,
    /// The interface or list that it names.
    pub name: String,
}

impl Interfaces {
    /// The interface matchers of all rules that run, which name something that these settings do not know.
    pub fn unmapped(&self, rules: &RuleSet) -> Vec<Unmapped> {
        let mut unmapped = Vec::new();
        for rule in rules.rules.iter().filter(|rule| rule.runs()) {
            for matcher in &rule.matchers {
                let Condition::Interface { kind, name, .. } = &matcher.condition else { continue };
                if self.sides(*kind, name, &rules.interface_lists).is_none() {
                    let matcher = matcher.condition.name().to_owned();
                    unmapped.push(Unmapped { line: rule.line, matcher, name: name.clone() });
                }
            }
        }
        unmapped
    }

    /// The configuration that gives all of these names a side: what there is, and the new ones as `outside`, for the
    /// reader to move those that are inside. A list that is taken for a side needs no interfaces.
    pub fn mapping(&self, unmapped: &[Unmapped]) -> String {
        let new: BTreeSet<&str> = unmapped.iter().map(|unmapped| unmapped.name.as_str()).collect();
        let outside: Vec<&str> = self.outside.iter().map(String::as_str).chain(new).collect();
        let inside: Vec<&str> = self.inside.iter().map(String::as_str).collect();
        format!("[policy.interfaces]\noutside = [{}]\ninside = [{}]\n", strings(&outside), strings(&inside))
    }
}

/// Names as TOML writes them in a list.
fn strings(names: &[&str]) -> String {
    // JSON's escapes are among those of TOML's basic strings.
    let quoted: Vec<String> = names.iter().map(|name| serde_json::Value::from(*name).to_string()).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_no_side_are_found_with_what_to_write() {
        let text = "/ip firewall filter\n\
            add chain=input in-interface=ether1\n\
            add chain=input in-interface=outside out-interface-list=!LAN\n\
            add chain=input in-interface-list=all in-bridge-port=\"a \\\"b\\\"\"\n\
            add chain=input in-interface=ether9 disabled=yes\n\
            add chain=input in-interface=ether9 packet-mark=a\n\
            add chain=input in-interface=!ether1\n";
        let reading = crate::rsc::read(text.as_bytes());
        assert_eq!(reading.problems, []);
        let interfaces = Interfaces::default();
        let unmapped = interfaces.unmapped(&reading.rules);
        let said: Vec<_> = unmapped.iter().map(|it| (it.line, it.matcher.as_str(), it.name.as_str())).collect();
        assert_eq!(
            said,
            [
                (2, "in-interface", "ether1"),
                (3, "out-interface-list", "LAN"),
                (4, "in-bridge-port", "a \"b\""),
                (7, "in-interface", "ether1"),
            ]
        );
        let mapping = "[policy.interfaces]\noutside = [\"outside\", \"LAN\", \"a \\\"b\\\"\", \"ether1\"]\ninside = [\"inside\"]\n";
        assert_eq!(interfaces.mapping(&unmapped), mapping);
        let mapped = Interfaces { outside: vec!["ether1".into(), "a \"b\"".into()], inside: vec!["LAN".into()] };
        assert_eq!(mapped.unmapped(&reading.rules).len(), 1);
    }
}
