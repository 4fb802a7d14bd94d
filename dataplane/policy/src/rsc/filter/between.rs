//! Relations between the properties of one rule: ports need a protocol with ports, an action that adds needs a list,
//! and so on.

use std::ops::Range;

use super::super::problem::{Complaint, Problems};
use super::super::property::Given;
use super::Draft;
use super::action::Kind;
use crate::packet::{Family, protocol};
use crate::rule::{Condition, ListTimeout, RejectWith, protocol_name};

/// Checks the chain, and the properties that the action needs.
pub(super) fn check_action(draft: &Draft, given: &Given, verb: &Range<usize>, problems: &mut Problems) {
    if given.is_missing("chain") {
        let complaint = Complaint::new("the rule has no chain")
            .expected("`chain=`")
            .help("add `chain=input`, `chain=forward`, or another chain");
        problems.add(verb.clone(), complaint);
    }
    let action_span = given.span("action");
    if action_span.is_some() && given.read("action").is_none() {
        return;
    }
    let action = draft.action.unwrap_or_default();
    let action_span = action_span.unwrap_or_else(|| verb.clone());
    if action.adds() && given.is_missing("address-list") {
        let complaint = Complaint::new("the action adds to an address list, but the rule names none")
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
    // An action with an error may be an action that needs these properties.
    if given.complete {
        check_useless(draft, action, given, problems);
    }
}

/// Checks that properties of other actions are absent.
fn check_useless(draft: &Draft, action: Kind, given: &Given, problems: &mut Problems) {
    const ADDING: &str = "it only with `add-src-to-address-list` or `add-dst-to-address-list`";
    // Exports may contain the default in every rule.
    let is_default_timeout = draft.timeout == Some(ListTimeout::NoneDynamic);
    for (name, is_useful, expected) in [
        ("address-list", action.adds(), ADDING),
        ("address-list-timeout", action.adds() || is_default_timeout, ADDING),
        ("jump-target", action == Kind::Jump, "it only with `jump`"),
        ("reject-with", action == Kind::Reject, "it only with `reject`"),
    ] {
        if let Some(span) = given.span(name).filter(|_| !is_useful) {
            let complaint = Complaint::new(format!("`{name}` has no effect with this action"))
                .expected(expected)
                .help(format!("change the action, or leave `{name}` out"));
            problems.add(span, complaint);
        }
    }
}

/// Checks the protocol of ports, flags, ICMP options and TCP resets.
pub(super) fn check_protocol(draft: &mut Draft, given: &Given, problems: &mut Problems) {
    let asked = draft.matchers.iter().find_map(|matcher| match matcher.condition {
        Condition::Protocol(number) => Some((number, matcher.negated)),
        _ => None,
    });
    if asked.is_none() && !given.is_missing("protocol") {
        return;
    }
    let protocol = asked.and_then(|(number, negated)| (!negated).then_some(number));
    check_ports(draft, given, protocol, problems);

    let (icmp, icmp_name) = match draft.family {
        Family::Ipv4 => (protocol::ICMP, "icmp"),
        Family::Ipv6 => (protocol::ICMPV6, "icmpv6"),
    };
    // Exports may contain `tcp-flags=""`, which has no flags.
    let asks_flags = draft.matchers.iter().any(|matcher| match matcher.condition {
        Condition::TcpFlags { set, clear } => !set.is_empty() || !clear.is_empty(),
        _ => false,
    });
    let resets = draft.action == Some(Kind::Reject) && draft.answer == Some(RejectWith::TcpReset);
    for (span, what, needed, name) in [
        (given.span("icmp-options"), "`icmp-options` needs", icmp, icmp_name),
        (given.span("tcp-flags").filter(|_| asks_flags), "`tcp-flags` needs", protocol::TCP, "tcp"),
        (given.span("tcp-mss"), "`tcp-mss` needs", protocol::TCP, "tcp"),
        (given.span("action").filter(|_| draft.action == Some(Kind::Tarpit)), "`tarpit` needs", protocol::TCP, "tcp"),
        (given.span("reject-with").filter(|_| resets), "`tcp-reset` needs", protocol::TCP, "tcp"),
    ] {
        if let Some(span) = span.filter(|_| protocol != Some(needed)) {
            let complaint = Complaint::new(format!("{what} the protocol"))
                .expected(format!("`protocol={name}` in the same rule"))
                .help(format!("add `protocol={name}`"));
            problems.add(span, complaint);
        }
    }
}

/// Protocols whose ports RouterOS compares and this filter does not parse. Source: RouterOS manual, Filter, `dst-port`;
/// IANA.
const OTHERS_WITH_PORTS: &[u8] = &[33, 132, 136];

fn check_ports(draft: &mut Draft, given: &Given, protocol: Option<u8>, problems: &mut Problems) {
    for name in ["src-port", "dst-port", "port"] {
        let Some(span) = given.span(name) else { continue };
        match protocol {
            Some(protocol::TCP | protocol::UDP) => {}
            Some(other) if OTHERS_WITH_PORTS.contains(&other) => {
                draft.refuse(format!("`{name}`: ports of {} are not supported", protocol_name(other)));
            }
            _ => {
                let complaint = Complaint::new(format!("`{name}` needs a protocol that has ports"))
                    .expected("`protocol=tcp` or `protocol=udp` in the same rule")
                    .help("add the protocol; write two rules for two protocols");
                problems.add(span, complaint);
            }
        }
    }
}
