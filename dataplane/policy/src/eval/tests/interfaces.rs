//! Interface names that are not in the configuration: an operator who pastes the printed section unchanged accepts no
//! further packets.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::rule::{Direction, InterfaceKind, InterfaceList, InterfaceMember};
use crate::settings::Interfaces;

/// Names of routers' interfaces, RouterOS's own among them, and some that need quotes.
const NAMES: [&str; 20] = [
    "ether1",
    "ether2",
    "bridge",
    "WAN",
    "LAN",
    "wg0",
    "zerotier1",
    "lo",
    "pppoe-out1",
    "outside",
    "inside",
    "all-ethernet",
    "all-ppp",
    "all-vlan",
    "all-wireless",
    "all",
    "none",
    "dynamic",
    "a \"b\"] # \\",
    "c\nd",
];

/// A configuration with some of the names.
fn some_interfaces() -> impl Strategy<Value = Interfaces> {
    let some = || subsequence(&NAMES[..], 0..4);
    (some(), some(), some()).prop_map(|(outside, inside, elsewhere)| {
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let (outside, inside) = (owned(outside), owned(inside));
        let mut elsewhere = owned(elsewhere);
        elsewhere.retain(|name| !outside.contains(name) && !inside.contains(name));
        Interfaces { outside, inside, elsewhere }
    })
}

fn some_lists() -> impl Strategy<Value = Vec<InterfaceList>> {
    let some =
        || subsequence(&NAMES[..], 0..3).prop_map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let list = (select(&["LAN", "WAN", "tunnels"][..]), some(), some(), some());
    let list = list.prop_map(|(name, include, exclude, members)| InterfaceList {
        name: name.to_owned(),
        include,
        exclude,
        members: members
            .into_iter()
            .map(|interface| InterfaceMember { interface, ..InterfaceMember::default() })
            .collect(),
        comment: String::new(),
    });
    prop::collection::vec(list, 0..3)
}

/// Rules about interfaces, ports and lists.
fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    let kinds = [InterfaceKind::Interface, InterfaceKind::List, InterfaceKind::BridgePort];
    let directions = [Direction::In, Direction::Out];
    let interface = (any::<bool>(), select(kinds.to_vec()), select(directions.to_vec()), select(&NAMES[..])).prop_map(
        |(negated, kind, direction, name)| Matcher {
            negated,
            condition: Condition::Interface { direction, kind, name: name.to_owned() },
        },
    );
    let other = prop_oneof![
        Just(Condition::Protocol(protocol::TCP)),
        Just(Condition::SrcAddressList("a".to_owned())),
        Just(Condition::DstPort(crate::rule::PortSet(vec![1..=1]))),
    ];
    let other = (any::<bool>(), other).prop_map(|(negated, condition)| Matcher { negated, condition });
    let actions = [
        Action::Accept,
        Action::Drop,
        Action::Return,
        Action::Jump("other".to_owned()),
        add_src("a", 10),
        add_src("b", 10),
    ];
    let chain = select(&["input", "output", "other"][..]);
    let matchers = (prop::collection::vec(interface, 0..2), prop::collection::vec(other, 0..2));
    let rule = (chain, matchers, select(actions.to_vec())).prop_map(|(chain, (mut matchers, others), action)| {
        matchers.extend(others);
        let action = if chain == "other" && matches!(action, Action::Jump(_)) { Action::Log } else { action };
        Rule { matchers, ..Rule::new(Family::Ipv4, chain, action) }
    });
    prop::collection::vec(rule, 1..8).prop_map(|mut rules| {
        for (place, rule) in rules.iter_mut().enumerate() {
            rule.line = place as u32 + 1;
        }
        rules
    })
}

/// A configuration with the printed section.
#[derive(serde::Deserialize)]
struct Pasted {
    policy: PastedPolicy,
}

#[derive(serde::Deserialize)]
struct PastedPolicy {
    interfaces: Interfaces,
}

fn pasted(base: &Interfaces, rules: &RuleSet) -> Interfaces {
    let text = base.mapping(&base.unmapped(rules));
    toml::from_str::<Pasted>(&text).unwrap_or_else(|error| panic!("{error}: {text}")).policy.interfaces
}

/// For each packet, whether it is forwarded.
fn forwarded(rules: &RuleSet, interfaces: &Interfaces, packets: &[(Side, u16)]) -> Vec<bool> {
    let settings = Settings { interfaces: interfaces.clone(), ..Settings::default() };
    let mut evaluator = Evaluator::new(rules, &settings, 7);
    let frame = |(place, (side, port)): (usize, &(Side, u16))| {
        let frame = tcp((CLIENT, 9), (SERVER, *port), "S", (1, 1), b"");
        evaluator.evaluate(&view(*side, &frame), ms(place as u64)).verdict == crate::reason::Verdict::Forward
    };
    packets.iter().enumerate().map(frame).collect()
}

fn is_about(matcher: &Matcher, test: impl Fn(&Matcher) -> bool) -> bool {
    matches!(matcher.condition, Condition::Interface { .. }) && test(matcher)
}

proptest! {
    #![proptest_config(crate::cases::cases(2_000))]

    /// Checks that no packet is accepted that the file would not accept without the rules about unmapped names.
    #[test]
    fn the_printed_section_pasted_unchanged_accepts_no_further_packets(
        list in some_rules(),
        lists in some_lists(),
        base in some_interfaces(),
        packets in prop::collection::vec((select(&Side::ALL[..]), 1..3_u16), 1..8),
    ) {
        let mut rules = RuleSet { rules: list, interface_lists: lists, ..RuleSet::default() };
        rules.assign_ids();
        let with = pasted(&base, &rules);
        let mut alone = rules.clone();
        for rule in &mut alone.rules {
            let lists = &rules.interface_lists;
            rule.disabled = rule.matchers.iter().any(|matcher| is_about(matcher, |it| base.leave_open(it, lists)));
        }
        let [alone, with_it] = [(&alone, &base), (&rules, &with)].map(|(rules, names)| forwarded(rules, names, &packets));
        for (place, (alone, with_it)) in alone.iter().zip(&with_it).enumerate() {
            prop_assert!(!with_it || *alone, "packet {} is accepted with {}", place, base.mapping(&base.unmapped(&rules)));
        }
        prop_assert_eq!(with.unmapped(&rules), base.unmapped(&rules), "an answer was given");
    }

    /// The meaning of `elsewhere`: a rule about such a name never matches; negated, the matcher is always true.
    #[test]
    fn interfaces_that_are_elsewhere_are_on_no_side(
        list in some_rules(),
        packets in prop::collection::vec((select(&Side::ALL[..]), 1..3_u16), 1..8),
    ) {
        let mut rules = RuleSet { rules: list, ..RuleSet::default() };
        let names = NAMES.iter().filter(|name| !["outside", "inside", "all-ethernet", "all"].contains(name));
        let interfaces =
            Interfaces { elsewhere: names.map(|name| (*name).to_owned()).collect(), ..Interfaces::default() };
        prop_assert_eq!(interfaces.unmapped(&rules).len(), rules.rules.iter().flat_map(|rule| &rule.matchers).filter(|it| {
            matches!(&it.condition, Condition::Interface { kind, name, .. } if name == "all" && *kind != InterfaceKind::List)
        }).count());
        let with = forwarded(&rules, &interfaces, &packets);
        for rule in &mut rules.rules {
            let is_elsewhere = |matcher: &Matcher| is_about(matcher, |it| interfaces.is_elsewhere(it, &[]));
            let is_none = |matcher: &Matcher| {
                is_about(matcher, |it| matches!(&it.condition, Condition::Interface { name, .. } if name == "none" || name == "dynamic"))
            };
            let meant = |matcher: &Matcher| is_elsewhere(matcher) || is_none(matcher);
            rule.disabled = rule.matchers.iter().any(|matcher| meant(matcher) && !matcher.negated);
            rule.matchers.retain(|matcher| !meant(matcher));
        }
        prop_assert_eq!(with, forwarded(&rules, &interfaces, &packets));
    }
}
