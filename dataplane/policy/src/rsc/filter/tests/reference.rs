//! Checks that the language reference agrees with the parser.

use super::super::super::reference::{PropertyReference, reference};
use super::*;

/// Reads rules as `export verbose` writes them, with every property.
#[test]
fn rules_of_verbose_exports() {
    let unset: Vec<String> = reference()[0]
        .properties
        .iter()
        .filter(|property| property.is_matcher && !["protocol", "dst-port"].contains(&property.name))
        .map(|property| format!("!{}", property.name))
        .collect();
    let words = "action=accept chain=input comment=\"\" disabled=no dst-port=22 log=no log-prefix=\"\" protocol=tcp";
    let rule = rule(&format!("{words} {}", unset.join(" ")));
    assert_eq!(rule.matchers.len(), 2);
    assert_eq!(messages("chain=input !log !comment !log-prefix !reject-with !jump-target"), [""; 0]);
}

/// Checks that the parser accepts each example of the reference, alone or with the properties that it needs.
#[test]
fn every_example_is_accepted_and_negated_where_possible() {
    for property in &reference()[0].properties {
        let name = property.name;
        let context = match name {
            "chain" => "",
            "action" | "disabled" => "chain=input",
            "address-list" | "address-list-timeout" => "chain=input action=add-src-to-address-list address-list=a",
            "jump-target" => "chain=input action=jump",
            "reject-with" => "chain=input action=reject protocol=tcp",
            "src-port" | "dst-port" | "port" | "tcp-flags" | "tcp-mss" => "chain=input protocol=tcp",
            "icmp-options" => "chain=input protocol=icmp",
            _ => "chain=input",
        };
        let context = if name == "address-list" { "chain=input action=add-src-to-address-list" } else { context };
        let example = property.example;
        let said = |value: &str| {
            let family = property.family.unwrap_or(Family::Ipv4);
            read_words(Table::Filter, family, &format!("{context} {name}=\"{value}\""))
        };
        let (rule, messages) = said(example);
        let rule = rule.unwrap_or_else(|| panic!("{name}={example}: {messages:?}"));
        assert_eq!(rule.runs(), property.is_run && name != "disabled", "{name}");
        if property.is_matcher {
            let plain = example.trim_start_matches('!');
            assert_eq!(asked(&rule, property).negated, example.starts_with('!'), "{name}");
            let (negated, _) = said(&format!("!{plain}"));
            assert_eq!(negated.is_some(), property.grammar.starts_with("[!]"), "{name}");
            if let Some(negated) = negated.filter(|_| name != "tcp-flags") {
                assert!(asked(&negated, property).negated, "{name}");
            }
            assert!(said("!").0.is_none(), "{name}");
        }
    }
}

/// The matcher of the property.
fn asked<'r>(rule: &'r Rule, property: &PropertyReference) -> &'r Matcher {
    let named = |matcher: &&Matcher| matcher.condition.name() == property.name;
    rule.matchers.iter().find(named).unwrap_or_else(|| panic!("{} is not in {rule:?}", property.name))
}
