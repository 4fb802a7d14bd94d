//! The language as a reference: what the tables of the menus say of their properties and actions.
//!
//! The texts stand in the rows that read the values, so that a change of one is seen beside the other; tests read
//! every example. Whoever prints or exports the reference takes it from here.

use serde::Serialize;

use super::{filter, layer7, property};
use crate::packet::Family;
use crate::rule::Table;

/// Menus that have the same properties.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MenuReference {
    /// Their paths, such as `/ip firewall filter`.
    pub menus: &'static [&'static str],
    /// In the order of the table.
    pub properties: Vec<PropertyReference>,
    /// What `action=` may be; empty for menus without actions.
    pub actions: Vec<ActionReference>,
}

/// A property of a menu. Texts are Markdown, without a full stop if they are no sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PropertyReference {
    /// As it is written before the `=`.
    pub name: &'static str,
    /// Whether it is asked of packets; the others say something of the rule.
    pub is_matcher: bool,
    /// What it means, in a sentence.
    pub meaning: &'static str,
    /// The form of its value: `[…]` may be left out, `|` stands between choices, `…` for more of the same.
    pub grammar: &'static str,
    /// A value.
    pub example: &'static str,
    /// What is different from RouterOS; empty if nothing is.
    pub differs: &'static str,
    /// The only family that has it, if not both.
    pub family: Option<Family>,
    /// The only table that has it, if not both.
    pub table: Option<Table>,
    /// Whether rules that have it are run. The others are kept and shown.
    pub is_run: bool,
}

impl PropertyReference {
    pub(super) const fn new(name: &'static str) -> Self {
        PropertyReference {
            name,
            is_matcher: false,
            meaning: "",
            grammar: "",
            example: "",
            differs: "",
            family: None,
            table: None,
            is_run: true,
        }
    }
}

/// A value of `action=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActionReference {
    /// As it is written.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub meaning: &'static str,
    /// What is different from RouterOS; empty if nothing is.
    pub differs: &'static str,
    /// The only family that has it, if not both.
    pub family: Option<Family>,
    /// The only table that has it, if not both.
    pub table: Option<Table>,
}

/// Every menu whose rules are read.
pub fn reference() -> Vec<MenuReference> {
    vec![
        MenuReference {
            menus: &["/ip firewall filter", "/ipv6 firewall filter", "/ip firewall raw", "/ipv6 firewall raw"],
            properties: property::describe(filter::PROPERTIES),
            actions: filter::describe_actions(),
        },
        MenuReference {
            menus: &["/ip firewall layer7-protocol"],
            properties: property::describe(layer7::PROPERTIES),
            actions: Vec::new(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::MATCHERS;

    #[test]
    fn every_row_says_what_it_means() {
        let menus = reference();
        for menu in &menus {
            for property in &menu.properties {
                let texts = [property.meaning, property.differs];
                assert!(!property.meaning.is_empty() && !property.grammar.is_empty(), "{}", property.name);
                assert!(texts.iter().all(|text| text.is_empty() || text.ends_with('.')), "{}", property.name);
                assert!(property.is_run || property.differs.contains("not run"), "{}", property.name);
            }
            for action in &menu.actions {
                assert!(action.meaning.ends_with('.'), "{}", action.name);
            }
        }
    }

    #[test]
    fn every_matcher_has_a_row_and_every_row_of_one_its_place() {
        let menus = reference();
        let matchers = || menus[0].properties.iter().filter(|property| property.is_matcher);
        for name in MATCHERS {
            assert!(matchers().any(|property| property.name == *name), "{name}");
        }
        for property in matchers().filter(|property| property.is_run) {
            assert!(MATCHERS.contains(&property.name), "{}", property.name);
        }
    }

    /// Those of rules are read in the tests of `filter`.
    #[test]
    fn the_examples_of_patterns_are_read() {
        let words: Vec<String> = reference()[1]
            .properties
            .iter()
            .map(|property| format!("{}=\"{}\"", property.name, property.example.replace('$', "\\$")))
            .collect();
        let reading = crate::rsc::read(format!("/ip firewall layer7-protocol add {}", words.join(" ")).as_bytes());
        assert_eq!((reading.problems, reading.rules.layer7.len()), (vec![], 1));
    }
}
