//! The actions of rules, and the menus that have them.

use super::super::problem::{RscError, show};
use super::super::reference::ActionReference;
use super::super::value::{self, Parsed};
use crate::packet::Family;
use crate::rule::{RejectWith, Table};
use crate::word::Word;

/// An action without its arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ActionKind {
    #[default]
    Accept,
    AddDst,
    AddSrc,
    Drop,
    Fasttrack,
    Jump,
    Log,
    Notrack,
    Passthrough,
    Reject,
    Return,
    Tarpit,
}

/// A row of the table of actions.
struct ActionRow {
    kind: ActionKind,
    about: ActionReference,
}

impl ActionRow {
    const fn new(name: &'static str, kind: ActionKind, meaning: &'static str) -> Self {
        ActionRow { kind, about: ActionReference { name, meaning, differs: "", family: None, table: None } }
    }

    const fn only(mut self, family: Family) -> Self {
        self.about.family = Some(family);
        self
    }

    const fn only_in(mut self, table: Table) -> Self {
        self.about.table = Some(table);
        self
    }

    const fn differs(mut self, differs: &'static str) -> Self {
        self.about.differs = differs;
        self
    }

    fn is_for(&self, table: Table, family: Family) -> bool {
        self.about.table.is_none_or(|only| only == table) && self.about.family.is_none_or(|only| only == family)
    }
}

/// Every action RouterOS has for these menus. Source: RouterOS manual, Filter and RAW.
const ACTIONS: &[ActionRow] = &[
    ActionRow::new(
        "accept",
        ActionKind::Accept,
        "Forwards the packet; no further rule is tried. In `raw`, evaluation continues with the filter.",
    ),
    ActionRow::new(
        "add-dst-to-address-list",
        ActionKind::AddDst,
        "Adds the destination address to `address-list`, and continues.",
    ),
    ActionRow::new(
        "add-src-to-address-list",
        ActionKind::AddSrc,
        "Adds the source address to `address-list`, and continues.",
    ),
    ActionRow::new("drop", ActionKind::Drop, "Drops the packet without an answer; no further rule is tried."),
    ActionRow::new(
        "fasttrack-connection",
        ActionKind::Fasttrack,
        "Lets later packets of the connection bypass the rules, and continues.",
    )
    .only_in(Table::Filter),
    ActionRow::new("jump", ActionKind::Jump, "Tries the rules of `jump-target`, then continues."),
    ActionRow::new("log", ActionKind::Log, "Logs the packet, and continues."),
    ActionRow::new("notrack", ActionKind::Notrack, "Exempts the packet from connection tracking, and continues.")
        .only_in(Table::Raw),
    ActionRow::new("passthrough", ActionKind::Passthrough, "Counts the packet, and continues."),
    ActionRow::new("reject", ActionKind::Reject, "Drops the packet and sends its sender the answer of `reject-with`.")
        .only_in(Table::Filter),
    ActionRow::new(
        "return",
        ActionKind::Return,
        "Returns behind the jump; in a built-in chain, applies the chain's default.",
    )
    .differs("The built-in chains' defaults are settings; RouterOS accepts."),
    ActionRow::new(
        "tarpit",
        ActionKind::Tarpit,
        "Drops the packet and keeps its sender's TCP connection open without accepting data.",
    )
    .only_in(Table::Filter)
    .only(Family::Ipv4),
];

impl ActionKind {
    /// The action with this name, if these menus have it.
    pub(super) fn parse(text: &str, table: Table, family: Family) -> Parsed<Self> {
        let error = match ACTIONS.iter().find(|row| row.about.name == text) {
            Some(row) if row.is_for(table, family) => return Ok(row.kind),
            Some(row) => RscError::new(format!("`{text}` is not an action of {}", menu(table, family))).help(format!(
                "it belongs in {}; choose another one, or remove the rule",
                menu(row.about.table.unwrap_or(table), row.about.family.unwrap_or(family))
            )),
            None if text == "knock" => RscError::new("`knock` is not an action of rule files")
                .help("doors are part of the configuration: write a `[[door]]` there"),
            None => {
                let names = ACTIONS.iter().filter(|row| row.is_for(table, family)).map(|row| row.about.name);
                RscError::new(format!("no such action: `{}`", show(text.as_bytes()))).did_you_mean(text, names)
            }
        };
        Err(error.expected("an action such as `accept`, `drop`, `add-src-to-address-list` or `jump`"))
    }

    pub(super) const fn adds(self) -> bool {
        matches!(self, ActionKind::AddDst | ActionKind::AddSrc)
    }
}

/// The menu's path.
const fn menu(table: Table, family: Family) -> &'static str {
    match (table, family) {
        (Table::Filter, Family::Ipv4) => "`/ip firewall filter`",
        (Table::Filter, Family::Ipv6) => "`/ipv6 firewall filter`",
        (Table::Raw, Family::Ipv4) => "`/ip firewall raw`",
        (Table::Raw, Family::Ipv6) => "`/ipv6 firewall raw`",
    }
}

/// The answer of `reject`.
pub(super) fn reject_with(text: &str, family: Family) -> Parsed<RejectWith> {
    let answers: Vec<RejectWith> = RejectWith::ALL.iter().copied().filter(|answer| answer.exists_for(family)).collect();
    match RejectWith::from_name(text) {
        Some(answer) if answer.exists_for(family) => Ok(answer),
        Some(_) => {
            let error = value::not_a_word(text, "an answer of this family", &answers);
            Err(error.help("IPv4 and IPv6 have different answers; both have `icmp-port-unreachable`"))
        }
        None => Err(value::not_a_word(text, "an answer to a rejected packet", &answers)),
    }
}

/// The description of all actions in the language reference.
pub(in crate::rsc) fn describe_actions() -> Vec<ActionReference> {
    ACTIONS.iter().map(|row| row.about.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_menu_has_its_actions() {
        let of = |table: Table, family: Family| -> Vec<&str> {
            let rows = ACTIONS.iter().filter(|row| ActionKind::parse(row.about.name, table, family) == Ok(row.kind));
            rows.map(|row| row.about.name).collect()
        };
        let raw = [
            "accept",
            "add-dst-to-address-list",
            "add-src-to-address-list",
            "drop",
            "jump",
            "log",
            "notrack",
            "passthrough",
            "return",
        ];
        assert_eq!(of(Table::Raw, Family::Ipv4), raw);
        assert_eq!(of(Table::Raw, Family::Ipv6), raw);
        let filter = of(Table::Filter, Family::Ipv4);
        assert_eq!(filter.len(), 11);
        assert!(!filter.contains(&"notrack"));
        assert!(!of(Table::Filter, Family::Ipv6).contains(&"tarpit"));
    }

    #[test]
    fn an_action_of_another_menu_is_refused_with_its_menu() {
        let wrong = ActionKind::parse("notrack", Table::Filter, Family::Ipv6).unwrap_err();
        let message = "`notrack` is not an action of `/ipv6 firewall filter`";
        let help = "it belongs in `/ipv6 firewall raw`; choose another one, or remove the rule";
        let expected = "an action such as `accept`, `drop`, `add-src-to-address-list` or `jump`";
        assert_eq!(wrong, RscError::new(message).expected(expected).help(help));
        let misspelt = ActionKind::parse("acept", Table::Filter, Family::Ipv4).unwrap_err();
        assert_eq!(
            misspelt,
            RscError::new("no such action: `acept`").expected(expected).help("did you mean `accept`?")
        );
        for text in ["", "Accept", "!accept", "masquerade", "mark-packet"] {
            assert!(ActionKind::parse(text, Table::Filter, Family::Ipv4).is_err(), "{text}");
        }
    }

    #[test]
    fn each_family_has_its_answers() {
        assert_eq!(reject_with("icmp-port-unreachable", Family::Ipv4), Ok(RejectWith::PortUnreachable));
        assert_eq!(reject_with("icmp-port-unreachable", Family::Ipv6), Ok(RejectWith::PortUnreachable));
        assert_eq!(reject_with("tcp-reset", Family::Ipv6), Ok(RejectWith::TcpReset));
        assert_eq!(reject_with("icmp-no-route", Family::Ipv6), Ok(RejectWith::NoRoute));
        for (text, family) in [
            ("icmp-no-route", Family::Ipv4),
            ("icmp-network-unreachable", Family::Ipv6),
            ("icmp-host-prohibited", Family::Ipv6),
            ("", Family::Ipv4),
            ("tcp-rst", Family::Ipv4),
        ] {
            assert!(reject_with(text, family).is_err(), "{text}");
        }
    }
}
