use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::question::{About, PortRanges};
use super::*;

/// Edges of ranges, and numbers near them.
const NUMBERS: [u128; 9] = [0, 1, 2, 255, 256, 257, 0x1_0000, u32::MAX as u128 - 1, u32::MAX as u128];
const PORTS: [u16; 9] = [0, 1, 22, 255, 256, 511, 512, 65534, 65535];

fn question() -> impl Strategy<Value = HeaderTest> {
    let number = || select(NUMBERS.to_vec());
    let port = || select(PORTS.to_vec());
    let ports = || prop::collection::vec((port(), port()), 0..3).prop_map(|ranges| PortRanges(ranges.into()));
    prop_oneof![
        (number(), number()).prop_map(|(first, last)| HeaderTest::Source(first, last)),
        (number(), number()).prop_map(|(first, last)| HeaderTest::Destination(first, last)),
        select(vec![0, 1, 6, 17, 255]).prop_map(HeaderTest::Protocol),
        ports().prop_map(HeaderTest::SourcePort),
        ports().prop_map(HeaderTest::DestinationPort),
        ports().prop_map(HeaderTest::EitherPort),
    ]
}

fn rule() -> impl Strategy<Value = Vec<Test<HeaderTest>>> {
    let test = (prop::bool::weighted(0.2), question()).prop_map(|(negated, question)| Test { negated, question });
    prop::collection::vec(test, 0..4)
}

fn packet(family: Family) -> impl Strategy<Value = Packet<'static>> {
    let address = move || {
        select(NUMBERS.to_vec()).prop_map(move |number| match family {
            Family::Ipv4 => IpAddr::from(Ipv4Addr::from_bits(number as u32)),
            Family::Ipv6 => IpAddr::from(Ipv6Addr::from_bits(number)),
        })
    };
    let ports = prop::option::weighted(0.9, (select(PORTS.to_vec()), select(PORTS.to_vec())));
    (address(), address(), select(vec![0_u8, 1, 6, 17, 58, 255]), ports).prop_map(
        |(source, destination, protocol, ports)| Packet {
            ports,
            ..Packet::bare(Side::Outside, source, destination, protocol)
        },
    )
}

/// The candidates between two rules, in order.
fn found(index: &Index, view: &HeaderView<'_>, from: usize, end: usize) -> Vec<usize> {
    let mut candidates = Candidates::default();
    index.candidates(view, &mut candidates);
    let mut next = from;
    std::iter::from_fn(|| {
        let found = index.next(&mut candidates, next, end)?;
        next = found + 1;
        Some(found)
    })
    .collect()
}

fn check(family: Family, rules: &[Vec<Test<HeaderTest>>], packets: &[Packet<'_>], from: usize) {
    let (rule_set, settings) = (RuleSet::default(), Settings::default());
    let about = About { rules: &rule_set, settings: &settings };
    let tests: Vec<&[Test<HeaderTest>]> = rules.iter().map(Vec::as_slice).collect();
    let index = Index::build(family, &tests);
    for packet in packets {
        let view = HeaderView::from(packet);
        let all = found(&index, &view, 0, rules.len());
        let found = found(&index, &view, from, rules.len());
        // Searches go forwards and backwards, as behind a jump: no candidate is found twice or skipped.
        let mut candidates = Candidates::default();
        index.candidates(&view, &mut candidates);
        for from in [from, rules.len(), 0, from] {
            let expected = all.iter().copied().find(|rule| *rule >= from);
            assert_eq!(index.next(&mut candidates, from, rules.len()), expected);
        }
        let matching = |rule: &usize| rules[*rule].iter().all(|test| test.holds(&view, about));
        let missing: Vec<usize> = (from..rules.len()).filter(matching).filter(|rule| !found.contains(rule)).collect();
        assert!(missing.is_empty(), "{missing:?} match {packet:?}, candidates {found:?}");
        assert!(found.is_sorted() && found.first().is_none_or(|first| *first >= from));
    }
}

proptest! {
    #[test]
    fn no_rule_that_matches_is_left_out(
        // Few rules form one group, many rules several.
        rules in prop_oneof![prop::collection::vec(rule(), 0..100), prop::collection::vec(rule(), 300..500)],
        four in prop::collection::vec(packet(Family::Ipv4), 1..20),
        six in prop::collection::vec(packet(Family::Ipv6), 1..20),
        from in 0..500_usize,
    ) {
        check(Family::Ipv4, &rules, &four, from.min(rules.len()));
        check(Family::Ipv6, &rules, &six, from.min(rules.len()));
    }
}

/// A rule for each port.
fn by_port(rules: usize) -> Vec<Vec<Test<HeaderTest>>> {
    let ports = |port: usize| PortRanges(Box::new([(port as u16, port as u16)]));
    (0..rules).map(|port| vec![Test { negated: false, question: HeaderTest::DestinationPort(ports(port)) }]).collect()
}

#[test]
fn of_thousands_of_rules_only_those_are_looked_at_that_one_field_leaves() {
    let rules = by_port(10_000);
    let tests: Vec<&[Test<HeaderTest>]> = rules.iter().map(Vec::as_slice).collect();
    let index = Index::build(Family::Ipv4, &tests);
    let to = |port| Packet {
        ports: Some((1, port)),
        ..Packet::bare(Side::Outside, [192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 6)
    };
    for port in [0, 63, 64, 4095, 4096, 9_999] {
        assert_eq!(found(&index, &HeaderView::from(&to(port)), 0, 10_000), [usize::from(port)]);
        assert_eq!(found(&index, &HeaderView::from(&to(port)), usize::from(port) + 1, 10_000), [0; 0]);
        assert_eq!(found(&index, &HeaderView::from(&to(port)), 0, usize::from(port)), [0; 0]);
    }
    assert_eq!(found(&index, &HeaderView::from(&to(10_000)), 0, 10_000), [0; 0]);
}

#[test]
fn what_takes_too_much_memory_is_left_to_the_rules() {
    let rules = by_port(1_000);
    let tests: Vec<&[Test<HeaderTest>]> = rules.iter().map(Vec::as_slice).collect();
    let index = Index::within(10_000, Family::Ipv4, &tests);
    assert!(index.words.len() <= 10_000);
    let packet =
        Packet { ports: Some((1, 7)), ..Packet::bare(Side::Outside, [192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 6) };
    assert_eq!(found(&index, &HeaderView::from(&packet), 0, rules.len()).len(), rules.len());
}
