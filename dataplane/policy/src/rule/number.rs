//! The numbers of rules as RouterOS's `print` shows them: each menu numbers its rules from 0.
//!
//! Every rule of a menu has a number, including disabled and invalid ones and those of doors. A number changes when
//! rules before it are added or removed; the [`RuleId`](super::RuleId) does not. Operators see the number; scripts and
//! metrics use the id.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Rule, Table};
use crate::packet::Family;

/// The menus of rules, in the order of RouterOS's exports: their paths and short names.
pub const MENUS: [(Family, Table, &str, &str); 4] = [
    (Family::Ipv4, Table::Filter, "/ip firewall filter", "ip filter"),
    (Family::Ipv4, Table::Raw, "/ip firewall raw", "ip raw"),
    (Family::Ipv6, Table::Filter, "/ipv6 firewall filter", "ipv6 filter"),
    (Family::Ipv6, Table::Raw, "/ipv6 firewall raw", "ipv6 raw"),
];

/// A rule's menu and its number there, counted from 0. Its text is `ip filter 3`, in JSON as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleNumber {
    menu: usize,
    number: u32,
}

impl RuleNumber {
    /// The short name of the menu: `ip filter`, `ip raw`, `ipv6 filter` or `ipv6 raw`.
    pub fn menu(self) -> &'static str {
        MENUS[self.menu].3
    }

    /// The number within the menu.
    pub const fn number(self) -> u32 {
        self.number
    }
}

impl fmt::Display for RuleNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.menu(), self.number)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for RuleNumber {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RuleNumber".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let menus = MENUS.map(|menu| menu.3).join("|");
        schemars::json_schema!({
            "type": "string",
            "pattern": format!("^({menus}) [0-9]+$"),
            "description": "A rule's menu and its number there, counted from 0. It changes when rules before it are added or removed.",
        })
    }
}

impl Serialize for RuleNumber {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RuleNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.rsplit_once(' ').and_then(|(short, number)| {
            let menu = MENUS.iter().position(|menu| menu.3 == short)?;
            Some(RuleNumber { menu, number: number.parse().ok()? })
        });
        parsed.ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a rule number such as `ip filter 3`")))
    }
}

/// The number of each rule, in the order of the rules. Rules of doors count as well, so the rules must include them:
/// see [`door::rules`](crate::door::rules).
pub fn numbers(rules: &[Rule]) -> Vec<RuleNumber> {
    let mut next = [0; MENUS.len()];
    rules
        .iter()
        .map(|rule| {
            let is_menu = |menu: &(Family, Table, &str, &str)| (menu.0, menu.1) == (rule.family, rule.table);
            let menu = MENUS.iter().position(is_menu).expect("every family and table has a menu");
            let number = next[menu];
            next[menu] += 1;
            RuleNumber { menu, number }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rsc;
    use crate::settings::Settings;

    #[test]
    fn each_menu_counts_from_zero_and_rules_of_doors_and_disabled_ones_count() {
        let text = "/ip firewall filter\nadd chain=input\nadd chain=forward disabled=yes\n/ip firewall raw\n\
                    add chain=prerouting\n/ipv6 firewall filter\nadd chain=input\n/ip firewall filter\nadd chain=output\n";
        let rules = rsc::read(text.as_bytes()).rules;
        let told = |rules: &[Rule]| numbers(rules).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told(&rules.rules), ["ip filter 0", "ip filter 1", "ip raw 0", "ipv6 filter 0", "ip filter 2"]);
        let door = serde_json::from_str(r#"{"name":"ssh","knock":["tcp/1","tcp/2"]}"#).expect("a door");
        let with_door = crate::door::rules(&Settings { doors: vec![door], ..Settings::default() }, rules);
        let of_door = with_door.rules.iter().filter(|rule| rule.dynamic && rule.family == Family::Ipv4).count();
        let last = told(&with_door.rules).pop();
        assert!(of_door > 0);
        assert_eq!(last, Some(format!("ip filter {}", of_door + 2)), "RouterOS counts dynamic rules at their position");
    }

    #[test]
    fn the_text_of_a_number_parses_to_the_same_number() {
        let rules = rsc::read(b"/ipv6 firewall raw\nadd chain=prerouting\nadd chain=output\n").rules;
        let number = numbers(&rules.rules)[1];
        assert_eq!(serde_json::to_string(&number).unwrap(), "\"ipv6 raw 1\"");
        assert_eq!(serde_json::from_str::<RuleNumber>("\"ipv6 raw 1\"").unwrap(), number);
        for text in ["\"\"", "\"3\"", "\"filter 3\"", "\"ip filter\"", "\"ip filter -1\"", "3"] {
            assert!(serde_json::from_str::<RuleNumber>(text).is_err(), "{text}");
        }
    }
}
