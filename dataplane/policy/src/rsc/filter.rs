//! `/ip firewall filter` and `/ipv6 firewall filter`: from the words of an `add` to a [`Rule`].
//!
//! Owns the table of properties and actions, and what must hold between the properties of one rule: ports need a
//! protocol that has them, an action that adds needs a list, and so on. What must hold between rules is in `check`.

use std::ops::Range;

use super::problem::{Complaint, Problems, show};
use super::property::{self, Add, Given, Property};
use super::value::{self, Parsed};
use crate::packet::{Family, protocol};
use crate::rule::{Action, Condition, ListAdd, ListTimeout, Matcher, Rule, Table};

/// Every property RouterOS has for these menus. Source: RouterOS manual, Filter, and exports of RouterOS 5 to 7.
pub(super) const PROPERTIES: &[Property<Draft>] = &[
    // What every rule has.
    Property::fixed("action", |rule, value| set(&mut rule.action, Kind::parse(value::text(value)?))),
    Property::fixed("chain", |rule, value| set(&mut rule.chain, value::name(value::text(value)?, "chain"))),
    Property::optional("comment", |rule, value| set(&mut rule.comment, Ok(value::comment(value)))),
    Property::fixed("disabled", |rule, value| set(&mut rule.disabled, value::yes_no(value::text(value)?))),
    // What some actions need.
    Property::optional("address-list", |rule, value| set(&mut rule.list, value::list_name(value::text(value)?))),
    Property::optional("address-list-timeout", |rule, value| {
        set(&mut rule.timeout, value::list_timeout(value::text(value)?))
    }),
    Property::optional("jump-target", |rule, value| set(&mut rule.target, value::name(value::text(value)?, "chain"))),
    // Matchers.
    Property::optional("src-address", |rule, value| {
        rule.require(value, |text, family| value::addresses(text, family).map(Condition::SrcAddress))
    }),
    Property::optional("dst-address", |rule, value| {
        rule.require(value, |text, family| value::addresses(text, family).map(Condition::DstAddress))
    }),
    Property::optional("protocol", |rule, value| {
        rule.require(value, |text, _| value::protocol(text).map(Condition::Protocol))
    }),
    Property::optional("src-address-list", |rule, value| {
        rule.require(value, |text, _| value::list_name(text).map(Condition::SrcAddressList))
    }),
    Property::optional("dst-address-list", |rule, value| {
        rule.require(value, |text, _| value::list_name(text).map(Condition::DstAddressList))
    }),
    Property::optional("packet-size", |rule, value| {
        rule.require(value, |text, _| value::packet_size(text).map(Condition::PacketSize))
    }),
    Property::optional("src-port", |rule, value| {
        rule.require(value, |text, _| value::ports(text).map(Condition::SrcPort))
    }),
    Property::optional("dst-port", |rule, value| {
        rule.require(value, |text, _| value::ports(text).map(Condition::DstPort))
    }),
    Property::optional("port", |rule, value| rule.require(value, |text, _| value::ports(text).map(Condition::AnyPort))),
    Property::optional("icmp-options", |rule, value| {
        rule.require(value, |text, _| {
            value::icmp_options(text).map(|(kind, codes)| Condition::IcmpOptions { kind, codes })
        })
    }),
    // RouterOS has it for IPv4 only; nothing here is different for IPv6.
    Property::optional("layer7-protocol", |rule, value| {
        rule.require(value, |text, _| value::name(text, "pattern").map(Condition::Layer7))
    }),
    // Not yet.
    Property::unsupported_matcher("connection-bytes"),
    Property::unsupported_matcher("connection-limit"),
    Property::unsupported_matcher("connection-mark"),
    Property::unsupported_matcher("connection-nat-state"),
    Property::unsupported_matcher("connection-rate"),
    Property::unsupported_matcher("connection-state"),
    Property::unsupported_matcher("connection-type"),
    Property::unsupported_matcher("content"),
    Property::unsupported_matcher("dscp"),
    Property::unsupported_matcher("dst-address-type"),
    Property::unsupported_matcher("dst-limit"),
    Property::unsupported_matcher("fragment").only(Family::Ipv4),
    Property::unsupported_matcher("headers").only(Family::Ipv6),
    Property::unsupported_matcher("hop-limit").only(Family::Ipv6),
    Property::unsupported_matcher("hotspot").only(Family::Ipv4),
    Property::unsupported_matcher("in-bridge-port"),
    Property::unsupported_matcher("in-bridge-port-list"),
    Property::unsupported_matcher("in-interface"),
    Property::unsupported_matcher("in-interface-list"),
    Property::unsupported_matcher("ingress-priority"),
    Property::unsupported_matcher("ipsec-policy"),
    Property::unsupported_matcher("ipv4-options").only(Family::Ipv4),
    Property::unsupported_matcher("limit"),
    Property::unsupported_matcher("nth"),
    Property::unsupported_matcher("out-bridge-port"),
    Property::unsupported_matcher("out-bridge-port-list"),
    Property::unsupported_matcher("out-interface"),
    Property::unsupported_matcher("out-interface-list"),
    Property::unsupported_matcher("p2p").only(Family::Ipv4),
    Property::unsupported_matcher("packet-mark"),
    Property::unsupported_matcher("per-connection-classifier"),
    Property::unsupported_matcher("priority"),
    Property::unsupported_matcher("psd"),
    Property::unsupported_matcher("random"),
    Property::unsupported_matcher("realm").only(Family::Ipv4),
    Property::unsupported_matcher("routing-mark"),
    Property::unsupported_matcher("routing-table"),
    Property::unsupported_matcher("src-address-type"),
    Property::unsupported_matcher("src-mac-address"),
    Property::unsupported_matcher("tcp-flags"),
    Property::unsupported_matcher("tcp-mss"),
    Property::unsupported_matcher("time"),
    Property::unsupported_matcher("tls-host"),
    Property::unsupported_matcher("tos"),
    Property::unsupported_matcher("ttl").only(Family::Ipv4),
    Property::unsupported("copy-from"),
    Property::unsupported("log"),
    Property::unsupported("log-prefix"),
    Property::unsupported("place-before"),
    Property::unsupported("reject-with"),
];

/// Every action RouterOS has for these menus; `None` is not read yet.
const ACTIONS: &[(&str, Option<Kind>)] = &[
    ("accept", Some(Kind::Accept)),
    ("add-dst-to-address-list", Some(Kind::AddDst)),
    ("add-src-to-address-list", Some(Kind::AddSrc)),
    ("drop", Some(Kind::Drop)),
    ("fasttrack-connection", None),
    ("jump", Some(Kind::Jump)),
    ("log", None),
    ("passthrough", Some(Kind::Passthrough)),
    ("reject", None),
    ("return", Some(Kind::Return)),
    ("tarpit", None),
];

/// An action without what it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Accept,
    AddDst,
    AddSrc,
    Drop,
    Jump,
    Passthrough,
    Return,
}

impl Kind {
    fn parse(text: &str) -> Parsed<Self> {
        match ACTIONS.iter().find(|(name, _)| *name == text) {
            Some((_, Some(kind))) => Ok(*kind),
            Some((name, None)) => Err(Complaint::new(format!(
                "the action `{name}` is not supported yet; the rule is refused, because it would not do what it says"
            ))
            .expected("another action")
            .help("choose one of `accept`, `drop`, `passthrough`, `jump`, `return`, or remove the rule")),
            None => Err(Complaint::new(format!("no such action: `{}`", show(text.as_bytes())))
                .expected("an action such as `accept`, `drop`, `add-src-to-address-list` or `jump`")
                .did_you_mean(text, ACTIONS.iter().map(|(name, _)| *name))),
        }
    }

    const fn adds(self) -> bool {
        matches!(self, Kind::AddDst | Kind::AddSrc)
    }
}

/// A rule while its words are read.
#[derive(Debug)]
pub(super) struct Draft {
    table: Table,
    family: Family,
    action: Option<Kind>,
    chain: Option<String>,
    comment: Option<String>,
    disabled: Option<bool>,
    list: Option<String>,
    timeout: Option<ListTimeout>,
    target: Option<String>,
    matchers: Vec<Matcher>,
}

impl Draft {
    /// Adds a matcher: the value, perhaps behind a `!`.
    fn require(&mut self, value: &[u8], parse: fn(&str, Family) -> Parsed<Condition>) -> Parsed<()> {
        let text = value::text(value)?;
        let (negated, plain) = text.strip_prefix('!').map_or((false, text), |plain| (true, plain));
        let skipped = text.len() - plain.len();
        let condition = parse(plain, self.family).map_err(|mut complaint| {
            complaint.part = complaint.part.map(|part| part.start + skipped..part.end + skipped);
            complaint
        })?;
        self.matchers.push(Matcher { negated, condition });
        Ok(())
    }
}

fn set<T>(place: &mut Option<T>, value: Parsed<T>) -> Parsed<()> {
    *place = Some(value?);
    Ok(())
}

/// What an `add` said, as far as it was understood: what other rules must know of it even if it is refused.
#[derive(Debug)]
pub(super) struct Entry {
    /// The rule, if nothing is wrong with it.
    pub(super) rule: Option<Rule>,
    pub(super) table: Table,
    pub(super) family: Family,
    pub(super) chain: Option<String>,
    pub(super) disabled: bool,
    /// The chain it jumps to, and where it says so.
    pub(super) jump: Option<(String, Range<usize>)>,
    /// The pattern it asks for, and where it says so.
    pub(super) pattern: Option<(String, Range<usize>)>,
}

/// Reads one `add`.
pub(super) fn read(table: Table, family: Family, add: &Add<'_>, problems: &mut Problems) -> Entry {
    let before = problems.count();
    let mut draft = Draft {
        table,
        family,
        action: None,
        chain: None,
        comment: None,
        disabled: None,
        list: None,
        timeout: None,
        target: None,
        matchers: Vec::new(),
    };
    let given = property::read(PROPERTIES, Some(family), add, &mut draft, problems);
    check_action(&draft, &given, &add.verb, problems);
    check_protocol(&draft, &given, problems);
    let pattern = draft.matchers.iter().find_map(|matcher| match &matcher.condition {
        Condition::Layer7(name) => Some((name.clone(), given.read("layer7-protocol")?)),
        _ => None,
    });
    let mut entry = Entry {
        rule: None,
        table,
        family,
        chain: draft.chain.clone(),
        disabled: draft.disabled.unwrap_or_default(),
        jump: draft.target.clone().zip(given.read("jump-target")).filter(|_| draft.action == Some(Kind::Jump)),
        pattern,
    };
    if given.complete && problems.count() == before {
        entry.rule = finish(draft, add.line);
    }
    entry
}

/// A draft without problems has all that its action needs; if it had not, there would be no rule.
fn finish(mut draft: Draft, line: u32) -> Option<Rule> {
    let timeout = draft.timeout.unwrap_or(ListTimeout::NoneDynamic);
    let action = match draft.action.unwrap_or_default() {
        Kind::Accept => Action::Accept,
        Kind::Drop => Action::Drop,
        Kind::Passthrough => Action::Passthrough,
        Kind::Return => Action::Return,
        Kind::AddSrc => Action::AddSrcToAddressList(ListAdd { list: draft.list?, timeout }),
        Kind::AddDst => Action::AddDstToAddressList(ListAdd { list: draft.list?, timeout }),
        Kind::Jump => Action::Jump(draft.target?),
    };
    draft.matchers.sort_by_key(|matcher| matcher.condition.rank());
    Some(Rule {
        table: draft.table,
        matchers: draft.matchers,
        disabled: draft.disabled.unwrap_or_default(),
        comment: draft.comment.unwrap_or_default(),
        line,
        ..Rule::new(draft.family, &draft.chain?, action)
    })
}

/// The chain, and exactly what the action needs.
fn check_action(draft: &Draft, given: &Given, verb: &Range<usize>, problems: &mut Problems) {
    if given.is_missing("chain") {
        let complaint = Complaint::new("the rule has no chain")
            .expected("`chain=`")
            .help("add `chain=input`, `chain=forward`, or the chain it belongs to");
        problems.add(verb.clone(), complaint);
    }
    let action_span = given.span("action");
    if action_span.is_some() && given.read("action").is_none() {
        return;
    }
    let action = draft.action.unwrap_or_default();
    let action_span = action_span.unwrap_or_else(|| verb.clone());
    if action.adds() && given.is_missing("address-list") {
        let complaint = Complaint::new("the action adds to an address list, but none is named")
            .expected("`address-list=`")
            .help("add `address-list=` and the list's name");
        problems.add(action_span.clone(), complaint);
    }
    if action == Kind::Jump && given.is_missing("jump-target") {
        let complaint = Complaint::new("the jump has no target")
            .expected("`jump-target=`")
            .help("add `jump-target=` and the chain's name");
        problems.add(action_span, complaint);
    }
    // An action that was lost to a mistake elsewhere in the command may be the one that needs these.
    if !given.complete {
        return;
    }
    let useless = |name: &str, whose: &str| {
        Complaint::new(format!("`{name}` means nothing for this action"))
            .expected(whose)
            .help(format!("change the action, or leave `{name}` out"))
    };
    const ADDING: &str = "it only with `add-src-to-address-list` or `add-dst-to-address-list`";
    if let Some(span) = given.span("address-list").filter(|_| !action.adds()) {
        problems.add(span, useless("address-list", ADDING));
    }
    // Exports may hold the default for every rule.
    let timeout_span = given.read("address-list-timeout").filter(|_| draft.timeout != Some(ListTimeout::NoneDynamic));
    if let Some(span) = timeout_span.filter(|_| !action.adds()) {
        problems.add(span, useless("address-list-timeout", ADDING));
    }
    if let Some(span) = given.span("jump-target").filter(|_| action != Kind::Jump) {
        problems.add(span, useless("jump-target", "it only with `jump`"));
    }
}

/// Ports and ICMP options need the protocol that has them.
fn check_protocol(draft: &Draft, given: &Given, problems: &mut Problems) {
    let icmp = match draft.family {
        Family::Ipv4 => (protocol::ICMP, "icmp"),
        Family::Ipv6 => (protocol::ICMPV6, "icmpv6"),
    };
    let protocol = draft.matchers.iter().find_map(|matcher| match matcher.condition {
        Condition::Protocol(number) => Some((number, matcher.negated)),
        _ => None,
    });
    if protocol.is_none() && !given.is_missing("protocol") {
        return;
    }
    let is_one_of = |numbers: &[u8]| protocol.is_some_and(|(number, negated)| !negated && numbers.contains(&number));
    for name in ["src-port", "dst-port", "port"] {
        if let Some(span) = given.span(name).filter(|_| !is_one_of(&[protocol::TCP, protocol::UDP])) {
            let complaint = Complaint::new(format!("`{name}` needs a protocol that has ports"))
                .expected("`protocol=tcp` or `protocol=udp` in the same rule")
                .help("add the protocol; write two rules if both are meant");
            problems.add(span, complaint);
        }
    }
    if let Some(span) = given.span("icmp-options").filter(|_| !is_one_of(&[icmp.0])) {
        let complaint = Complaint::new("`icmp-options` needs the protocol")
            .expected(format!("`protocol={}` in the same rule", icmp.1))
            .help(format!("add `protocol={}`", icmp.1));
        problems.add(span, complaint);
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use crate::packet::Family;
    use crate::rule::{Action, Condition, ListAdd, ListTimeout, PortSet};

    /// The messages for the words of one `add` in `/ip firewall filter`.
    fn messages(words: &str) -> Vec<String> {
        let text = format!("/ip firewall filter\nadd {words}\n");
        let reading = read(text.as_bytes());
        assert_eq!(reading.rules.rules.is_empty(), !reading.problems.is_empty(), "{words}");
        reading.problems.into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn a_rule_with_everything() {
        let text = "/ip firewall filter\nadd action=add-src-to-address-list address-list=a address-list-timeout=1m \
            chain=knock comment=\"c \\\"d\\\"\" disabled=yes port=5 dst-port=!1,2-3 src-port=4 protocol=udp \
            layer7-protocol=p packet-size=100-200 dst-address-list=!d src-address-list=s dst-address=10.0.0.0/8 \
            src-address=!192.0.2.1-192.0.2.9\n/ip firewall layer7-protocol\nadd name=p regexp=x\n";
        let reading = read(text.as_bytes());
        assert_eq!(reading.problems, []);
        let rule = &reading.rules.rules[0];
        assert_eq!(
            rule.action,
            Action::AddSrcToAddressList(ListAdd {
                list: "a".to_owned(),
                timeout: ListTimeout::After(std::time::Duration::from_secs(60))
            })
        );
        assert_eq!((rule.chain.as_str(), rule.comment.as_str(), rule.disabled), ("knock", "c \"d\"", true));
        assert_eq!((rule.family, rule.line), (Family::Ipv4, 2));
        let said: Vec<_> = rule.matchers.iter().map(|matcher| (matcher.condition.name(), matcher.negated)).collect();
        assert_eq!(
            said,
            [
                ("src-address", true),
                ("dst-address", false),
                ("protocol", false),
                ("src-address-list", false),
                ("dst-address-list", true),
                ("packet-size", false),
                ("src-port", false),
                ("dst-port", true),
                ("port", false),
                ("layer7-protocol", false),
            ]
        );
        assert!(rule.matchers.is_sorted_by_key(|matcher| matcher.condition.rank()));
        assert_eq!(rule.matchers[7].condition, Condition::DstPort(PortSet(vec![1..=1, 2..=3])));
    }

    #[test]
    fn defaults_and_unset_matchers() {
        let text = "/ipv6 firewall filter\nadd chain=input !connection-state !src-address !address-list\n";
        let reading = read(text.as_bytes());
        assert_eq!(reading.problems, []);
        let rule = &reading.rules.rules[0];
        assert_eq!((&rule.action, rule.family, rule.matchers.len()), (&Action::Accept, Family::Ipv6, 0));
        assert!(!rule.disabled);
        assert!(messages("chain=input action=drop address-list-timeout=none-dynamic").is_empty());
        assert!(messages("chain=input action=passthrough icmp-options=8:0 protocol=icmp").is_empty());
    }

    #[test]
    fn what_must_hold_between_properties() {
        let one = |words: &str| {
            let messages = messages(words);
            assert_eq!(messages.len(), 1, "{words}: {messages:?}");
        };
        one("action=drop");
        one("chain=\"\"");
        one("chain=input dst-port=1");
        one("chain=input dst-port=1 !protocol");
        one("chain=input dst-port=1 protocol=!tcp");
        one("chain=input dst-port=1 protocol=icmp");
        one("chain=input port=1 protocol=sctp");
        one("chain=input icmp-options=8:0");
        one("chain=input icmp-options=8:0 protocol=icmpv6");
        one("chain=input action=add-src-to-address-list");
        one("chain=input action=add-src-to-address-list address-list=\"\"");
        one("chain=input address-list=x");
        one("chain=input address-list-timeout=1m");
        one("chain=input jump-target=input");
        one("chain=input action=jump");
        one("chain=input action=drop action=accept");
        one("chain=input chain=input");
        one("chain=input !src-address src-address=192.0.2.1");
        one("chain=input !action");
        one("chain=input src-address-list=a,!b");
        one("chain=input src-address-list=!!b");
        one("chain=input src-address=2001:db8::1");
        one("chain=input hop-limit=equal:1");
        one("chain=input connection-state=new");
        one("chain=input action=tarpit protocol=tcp");
        one("chain=input log=no");
        // A name that is not understood may be the one that is missing: one problem, not two.
        one("chian=input");
        one("chain=input dst-port=1 protcol=tcp");
        one("chain=input dst-port=1 protocol=tpc");
        one("chain=input acton=jump jump-target=x");
    }

    #[test]
    fn all_problems_of_one_command_are_told() {
        assert_eq!(
            messages("chain=input src-addres=192.0.2.1 dst-port=x protocol=tcp limit=1,5 stray disabled=maybe").len(),
            5
        );
    }
}
