//! The language reference: the descriptions of properties and actions in the menus' tables.
//!
//! The texts are in the same rows as the parsers, so that a change of one is next to the other. Tests parse every
//! example. All output of the reference is generated from these texts.

use serde::Serialize;

use super::{address_list, filter, interface, layer7, local_address, property, tracking};
use crate::packet::Family;
use crate::rule::Table;

/// Menus that have the same properties.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MenuReference {
    /// The paths of the menus, such as `/ip firewall filter`.
    pub menus: &'static [&'static str],
    /// The purpose of the menus, in one or more sentences.
    pub meaning: &'static str,
    /// The properties, in the order of the table.
    pub properties: Vec<PropertyReference>,
    /// The values of `action=`; empty for menus without actions.
    pub actions: Vec<ActionReference>,
}

/// A property of a menu. Texts are Markdown, without a full stop if they are not sentences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PropertyReference {
    /// The name before the `=`.
    pub name: &'static str,
    /// Whether it is a condition on packets; other properties describe the rule.
    pub is_matcher: bool,
    /// The meaning, in one sentence.
    pub meaning: &'static str,
    /// The form of the value: `[…]` is optional, `|` separates choices, `…` means repetition.
    pub grammar: &'static str,
    /// An example.
    pub example: &'static str,
    /// The difference from RouterOS; empty if there is none.
    pub differs: &'static str,
    /// The only family with it; `None` for both.
    pub family: Option<Family>,
    /// The only table with it; `None` for both.
    pub table: Option<Table>,
    /// Whether rules with the property run. Other rules are kept and shown.
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
    /// The name in rules.
    pub name: &'static str,
    /// The effect, in one sentence.
    pub meaning: &'static str,
    /// The difference from RouterOS; empty if there is none.
    pub differs: &'static str,
    /// The only family with it; `None` for both.
    pub family: Option<Family>,
    /// The only table with it; `None` for both.
    pub table: Option<Table>,
}

/// Every supported menu.
pub fn reference() -> Vec<MenuReference> {
    let menu = |menus, meaning, properties| MenuReference { menus, meaning, properties, actions: Vec::new() };
    vec![
        MenuReference {
            actions: filter::describe_actions(),
            ..menu(
                &["/ip firewall filter", "/ipv6 firewall filter", "/ip firewall raw", "/ipv6 firewall raw"],
                "The rules, tried in order. Rules of `raw` are evaluated before connection tracking, those of `filter` after it.",
                property::describe(filter::PROPERTIES),
            )
        },
        menu(
            &["/ip firewall layer7-protocol"],
            "Patterns for `layer7-protocol` of rules, for both families.",
            property::describe(layer7::PROPERTIES),
        ),
        menu(
            &["/ip firewall address-list", "/ipv6 firewall address-list"],
            "Static entries of address lists, and entries with a timeout. Rules and operators add more.",
            property::describe(address_list::PROPERTIES),
        ),
        menu(
            &["/interface list"],
            "Lists of interfaces. `all`, `none`, `dynamic` and `static` always exist.",
            property::describe(interface::LIST_PROPERTIES),
        ),
        menu(
            &["/interface list member"],
            "The members of interface lists.",
            property::describe(interface::MEMBER_PROPERTIES),
        ),
        menu(
            &["/ip address", "/ipv6 address"],
            "The router's own addresses. They define the meaning of `local` and `broadcast` in rules.",
            property::describe(local_address::PROPERTIES),
        ),
        menu(
            &["/ip firewall connection tracking"],
            "Settings of connection tracking, for both families. It is the only menu whose command is `set`.",
            property::describe(tracking::PROPERTIES),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::MATCHERS;

    #[test]
    fn every_row_has_a_description() {
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
            assert!(menu.meaning.ends_with('.'), "{:?}", menu.menus);
        }
    }

    #[test]
    fn every_matcher_has_a_row_and_every_row_of_a_matcher_has_its_rank() {
        let menus = reference();
        let matchers = || menus[0].properties.iter().filter(|property| property.is_matcher);
        for name in MATCHERS {
            assert!(matchers().any(|property| property.name == *name), "{name}");
        }
        for property in matchers().filter(|property| property.is_run) {
            assert!(MATCHERS.contains(&property.name), "{}", property.name);
        }
    }

    #[test]
    fn every_menu_is_there() {
        let menus: Vec<&str> = reference().iter().flat_map(|menu| menu.menus).copied().collect();
        let mut paths: Vec<&str> = super::super::menu::paths().collect();
        assert_eq!(menus.len(), paths.len());
        paths.retain(|path| !menus.contains(path));
        assert_eq!(paths, [""; 0]);
    }

    /// The tests of `filter` check the examples of rules.
    #[test]
    fn every_example_of_the_other_menus_is_accepted() {
        for menu in &reference()[1..] {
            for property in &menu.properties {
                let (before, needed): (_, &[_]) = match menu.menus[0] {
                    "/ip firewall layer7-protocol" => ("", &[("name", "a"), ("regexp", "a")]),
                    "/ip firewall address-list" => ("", &[("list", "a")]),
                    "/interface list" => ("", &[("name", "a")]),
                    "/interface list member" => {
                        ("/interface list add name=WAN\n", &[("interface", "ether1"), ("list", "WAN")])
                    }
                    "/ip address" if property.family == Some(Family::Ipv6) => ("", &[("address", "2001:db8::1/64")]),
                    "/ip address" => ("", &[("address", "192.0.2.1")]),
                    _ => ("", &[]),
                };
                let path = menu.menus[usize::from(property.family == Some(Family::Ipv6))];
                let verb = if path.ends_with("tracking") { "set" } else { "add" };
                let example = property.example.replace('$', "\\$");
                let mut words = format!("{}=\"{example}\"", property.name);
                for (name, value) in needed.iter().filter(|(name, _)| *name != property.name) {
                    words += &format!(" {name}={value}");
                }
                let text = format!("{before}{path} {verb} {words}\n");
                assert_eq!(crate::rsc::read(text.as_bytes()).problems, [], "{text}");
            }
        }
    }
}
