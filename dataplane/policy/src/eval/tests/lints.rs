//! Rules and matchers that lints call impossible never match in the reference evaluator.

use proptest::prelude::*;
use proptest::sample::select;

use super::anything::actions;
use super::*;
use crate::lint::{Code, Subject, lint};
use crate::packet::{MacAddress, TcpFlag};
use crate::rule::{
    AddressSet, AddressType, Comparison, ConnectionState, Direction, InterfaceKind, Layer7Pattern, Mark, NatState,
    PortSet, Relation, Tracking, TrackingMode, one_of_each,
};
use crate::word::{Set, Word};

/// Similar conditions, about the packets below.
fn conditions() -> Vec<Condition> {
    let mut all = one_of_each();
    all.extend([protocol::ICMP, protocol::TCP, protocol::UDP, 47].map(Condition::Protocol));
    for net in ["198.51.100.7/32", "198.51.100.0/24", "203.0.113.1/32", "203.0.113.0/24", "0.0.0.0/0", "192.0.2.0/24"] {
        let set = AddressSet::Prefix(net.parse().unwrap());
        all.extend([Condition::SrcAddress(set.clone()), Condition::DstAddress(set)]);
    }
    let range = AddressSet::Range("198.51.100.1".parse().unwrap(), "203.0.113.9".parse().unwrap());
    all.extend([Condition::SrcAddress(range.clone()), Condition::DstAddress(range)]);
    for ports in [vec![1..=1], vec![2..=2], vec![1..=2], vec![0..=u16::MAX], vec![3..=9, 1..=1], vec![]] {
        let ports = PortSet(ports);
        all.extend([Condition::SrcPort(ports.clone()), Condition::DstPort(ports.clone()), Condition::AnyPort(ports)]);
    }
    let flags = |flags: &[TcpFlag]| -> Set<TcpFlag> { flags.iter().copied().collect() };
    for (set, clear) in
        [(&[TcpFlag::Syn][..], &[][..]), (&[TcpFlag::Syn], &[TcpFlag::Ack]), (&[], &[]), (&[], &[TcpFlag::Syn])]
    {
        all.push(Condition::TcpFlags { set: flags(set), clear: flags(clear) });
    }
    all.extend([(8, 0..=0), (8, 0..=255), (0, 0..=0)].map(|(kind, codes)| Condition::IcmpOptions { kind, codes }));
    all.extend([0..=19, 0..=u16::MAX, 20..=40, 28..=33, 0..=30].map(Condition::PacketSize));
    for (relation, value) in
        [(Relation::LessThan, 64), (Relation::LessThan, 65), (Relation::Equal, 64), (Relation::GreaterThan, 255)]
    {
        all.push(Condition::Ttl(Comparison { relation, value }));
    }
    let states = |bits| Condition::ConnectionState(Set::from_bits(bits));
    all.extend([0, 0b1, 0b10, 0b1000, 0b1010, 0b1_1111, 0b1_0000].map(states));
    let types = |bits| Set::<AddressType>::from_bits(bits);
    for bits in [0, 0b1, 0b10, 0b11, 0b1_0000, 0b1111] {
        all.extend([Condition::SrcAddressType(types(bits)), Condition::DstAddressType(types(bits))]);
    }
    for list in ["a", "b"] {
        all.extend([Condition::SrcAddressList(list.to_owned()), Condition::DstAddressList(list.to_owned())]);
    }
    for (direction, name) in [
        (Direction::In, "inside"),
        (Direction::In, "outside"),
        (Direction::Out, "inside"),
        (Direction::Out, "elsewhere"),
    ] {
        all.push(Condition::Interface { direction, kind: InterfaceKind::Interface, name: name.to_owned() });
    }
    let mac = Condition::SrcMacAddress(MacAddress([2, 0, 0, 0, 0, 1]));
    let nat = Condition::ConnectionNatState([NatState::Dstnat].into_iter().collect());
    all.extend([mac, nat, Condition::NoMark(Mark::Packet), Condition::Fragment(false)]);
    all
}

/// Rules with similar matchers, from a small set. Often a rule matches a list that earlier rules add to.
fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    let matcher = (any::<bool>(), select(conditions())).prop_map(|(negated, condition)| Matcher { negated, condition });
    let listed = Matcher { negated: false, condition: Condition::SrcAddressList("a".to_owned()) };
    (prop::collection::vec(matcher, 1..5), any::<bool>()).prop_flat_map(move |(mut few, knocks)| {
        few.extend(std::iter::repeat_n(listed.clone(), if knocks { few.len() } else { 0 }));
        prop::collection::vec(a_rule(few), 1..14)
    })
}

fn a_rule(few: Vec<Matcher>) -> impl Strategy<Value = Rule> {
    let place = select(vec![
        (Table::Filter, "input"),
        (Table::Filter, "input"),
        (Table::Filter, "input"),
        (Table::Filter, "forward"),
        (Table::Filter, "output"),
        (Table::Filter, "other"),
        (Table::Raw, "prerouting"),
    ]);
    let often =
        [Action::Drop, Action::Passthrough, Action::Passthrough, add_src("a", 1), Action::Jump("other".to_owned())];
    let action = prop_oneof![4 => select(often.to_vec()), 1 => select(actions())];
    (place, prop::collection::vec(select(few), 0..3), action).prop_map(|((table, chain), matchers, action)| {
        let action = match action {
            // No jumps in this chain: a cycle would be refused.
            Action::Jump(_) if chain == "other" => Action::Log,
            Action::Jump(target) if target != "other" => Action::Log,
            action => action,
        };
        Rule { table, matchers, ..Rule::new(Family::Ipv4, chain, action) }
    })
}

/// Packets between two hosts, and between each of them and a third.
fn a_frame() -> impl Strategy<Value = Vec<u8>> {
    let host = select(vec![CLIENT, SERVER, "192.0.2.9"]);
    let port = select(vec![1_u16, 2, 7]);
    let flags = select(vec!["S", "SA", "A", "R", "F", ""]);
    (host.clone(), host, port.clone(), port, flags, 0..5_u8).prop_map(|(from, to, source, destination, flags, kind)| {
        match kind {
            0 | 1 => tcp((from, source), (to, destination), flags, (1, 1), b"p"),
            2 => udp((from, source), (to, destination), b"p"),
            3 => echo(from, to, if source == 1 { 8 } else { 0 }, 1),
            _ => fragment(udp((from, source), (to, destination), b"0123456789"), 1, 1, false),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_that_never_match_match_nothing(
        list in some_rules(),
        mode in select(vec![TrackingMode::Auto, TrackingMode::Yes, TrackingMode::No]),
        protect in select(vec!["0.0.0.0/0", "203.0.113.0/24", "2001:db8::/32"]),
        packets in prop::collection::vec((a_frame(), any::<bool>(), 0..2_000_u64), 0..40),
    ) {
        let pattern = Layer7Pattern { name: "p".to_owned(), regexp: "p+".to_owned(), comment: String::new(), line: 0 };
        let tracking = Tracking { enabled: mode, ..Tracking::default() };
        let mut rules = RuleSet { rules: list, layer7: vec![pattern], tracking, ..RuleSet::default() };
        rules.assign_ids();
        let settings = Settings { protect: vec![protect.parse().unwrap()], ..Settings::default() };
        let silent: Vec<_> = lint(&rules, &settings)
            .into_iter()
            .filter(|lint| {
                matches!(lint.code, Code::UnreachableRule | Code::NeverMatches | Code::UnusedChain | Code::DeadChain)
                    || lint.sentence.contains("never matches")
            })
            .collect();
        // The test also adds entries to the lists.
        let mut evaluator = Evaluator::new(&rules, &settings, 7);
        evaluator.lists_mut().add("b", CLIENT.parse().unwrap(), ListTimeout::NoneDynamic, ms(0));
        let silent: Vec<_> = silent.into_iter().filter(|lint| lint.code != Code::EmptyList).collect();
        let mut now = 0;
        for (frame, inside, pause) in &packets {
            now += pause;
            let side = if *inside { Side::Inside } else { Side::Outside };
            for matched in evaluator.evaluate(&view(side, frame), ms(now)).matched {
                let lint = silent.iter().find(|lint| lint.subject == Subject::Rule(rules.rules[matched].id.clone()));
                prop_assert!(lint.is_none(), "{:?} is reported for {:?}", lint, rules.rules[matched]);
            }
        }
    }
}

/// Checks that an empty set matches every packet, negated or not. In `raw`, a packet has no connection state yet, and
/// both matchers are true there as well.
#[test]
fn empty_sets_exclude_each_other_in_no_table() {
    let empty_sets = [
        Condition::ConnectionState(Set::EMPTY),
        Condition::ConnectionNatState(Set::EMPTY),
        Condition::SrcAddressType(Set::EMPTY),
        Condition::DstAddressType(Set::EMPTY),
    ];
    for condition in empty_sets {
        for (table, chain) in [(Table::Raw, "prerouting"), (Table::Filter, "input")] {
            let matchers = [false, true].map(|negated| Matcher { negated, condition: condition.clone() }).into();
            let rule = Rule { table, matchers, ..Rule::new(Family::Ipv4, chain, Action::Passthrough) };
            let rules = RuleSet { rules: vec![rule], ..RuleSet::default() };
            let settings = Settings::default();
            let frame = tcp((CLIENT, 1), (SERVER, 2), "S", (1, 0), b"");
            let matched = Evaluator::new(&rules, &settings, 7).evaluate(&view(Side::Outside, &frame), ms(0)).matched;
            assert_eq!(matched, [0], "{condition:?} in {chain}");
            let lints = lint(&rules, &settings);
            assert!(lints.iter().all(|lint| lint.code == Code::NoFinalDrop), "{lints:?}");
        }
    }
}

/// Checks that the names above have the order of the words.
#[test]
fn states_and_types_are_in_this_order() {
    assert_eq!(ConnectionState::ALL[4], ConnectionState::Untracked);
    assert_eq!(AddressType::ALL[4], AddressType::Blackhole);
}
