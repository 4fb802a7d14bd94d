//! Interface names in rules for which the configuration has no side.
//!
//! Rules and settings together determine the sides of a name. This module finds every rule that cannot run because of
//! such a name, and writes the remedy.

use std::collections::BTreeMap;

use super::Interfaces;
use crate::rule::{Condition, RuleSet};

/// A matcher of a running rule whose name has no side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmapped {
    /// The line of the rule.
    pub line: u32,
    /// The matcher's name, such as `in-interface-list`.
    pub matcher: String,
    /// The interface or list.
    pub name: String,
}

impl Interfaces {
    /// The interface matchers of all running rules with a name that is unknown to these settings.
    pub fn unmapped(&self, rules: &RuleSet) -> Vec<Unmapped> {
        let mut unmapped = Vec::new();
        for rule in rules.rules.iter().filter(|rule| rule.runs()) {
            for matcher in &rule.matchers {
                let Condition::Interface { name, .. } = &matcher.condition else { continue };
                if self.leave_open(matcher, &rules.interface_lists) {
                    let matcher = matcher.condition.name().to_owned();
                    unmapped.push(Unmapped { line: rule.line, matcher, name: name.clone() });
                }
            }
        }
        unmapped
    }

    /// The section of the configuration, with these names as comments, which the operator moves into one of its lists.
    /// They are in no list by default, because no side is safe for every rule. The name of a tunnel in `outside` lets
    /// strangers in if rules accept packets from the tunnel. The name of the outside in `elsewhere` lets strangers in
    /// if rules drop packets from it.
    pub fn mapping(&self, unmapped: &[Unmapped]) -> String {
        let list = |key, names: &[String]| {
            let quoted: Vec<String> = names.iter().map(|name| string(name)).collect();
            format!("{key} = [{}]\n", quoted.join(", "))
        };
        let mut lines: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for unmapped in unmapped {
            lines.entry(&unmapped.name).or_default().push(unmapped.line);
        }
        let mut text = "[policy.interfaces]\n".to_owned();
        text += &list("outside", &self.outside);
        text += &list("inside", &self.inside);
        text += &list("elsewhere", &self.elsewhere);
        text += "# Move each of these names into one of the three lists. Until then the rules are refused.\n";
        text.extend(lines.into_iter().map(|(name, lines)| format!("# {} ({})\n", string(name), places(lines))));
        text
    }
}

/// Maximum number of rule lines that are printed for a name.
const MOST_LINES: usize = 8;

/// Writes `line 3`, or `lines 3, 5 and 7`, shortened if there are many.
fn places(mut lines: Vec<u32>) -> String {
    lines.dedup();
    let more = lines.len().saturating_sub(MOST_LINES);
    let mut said: Vec<String> = lines.iter().take(MOST_LINES).map(u32::to_string).collect();
    if more > 0 {
        said.push(format!("{more} more"));
    }
    match (said.pop(), said.is_empty()) {
        (Some(last), true) => format!("line {last}"),
        (Some(last), false) => format!("lines {} and {last}", said.join(", ")),
        (None, _) => String::new(),
    }
}

/// A name in TOML's form, on one line.
fn string(name: &str) -> String {
    // JSON's escapes are among those of TOML's basic strings. TOML requires one for DEL as well.
    serde_json::Value::from(name).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_side_are_found_with_the_remedy() {
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
        let mapping = "[policy.interfaces]\noutside = [\"outside\"]\ninside = [\"inside\"]\nelsewhere = []\n\
                       # Move each of these names into one of the three lists. Until then the rules are refused.\n\
                       # \"LAN\" (line 3)\n# \"a \\\"b\\\"\" (line 4)\n# \"ether1\" (lines 2 and 7)\n";
        assert_eq!(interfaces.mapping(&unmapped), mapping);
        let mapped = Interfaces {
            outside: vec!["ether1".into()],
            inside: vec!["LAN".into()],
            elsewhere: vec!["a \"b\"".into()],
        };
        assert_eq!(mapped.unmapped(&reading.rules).len(), 1);
        assert_eq!(places((1..100).collect()), "lines 1, 2, 3, 4, 5, 6, 7, 8 and 91 more");
    }
}
