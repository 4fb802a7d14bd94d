//! The state of one source, for operators: its drops with their reasons, and its entries in lists, doors and matchers.

use std::net::IpAddr;

use knockplane_engine::pipeline::history::{HistoryCause, HistoryRecord, LastPacket};
use knockplane_engine::state::doors::KnockSource;
use knockplane_engine::state::lists::{AddressEntry, FirstStepSettings, Lists};
use knockplane_engine::table::{AddressMatcher, MatcherMemory};
use knockplane_policy::door::Failure;
use knockplane_policy::door::ports::PortBudget;
use knockplane_policy::packet::{Side, Vlan};
use knockplane_policy::reason::Reason;
use knockplane_policy::rsc;
use knockplane_policy::rule::{Action, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;

use crate::common::{Engine, Spec, Transport, door, dst_port, rule, rule_set, seconds};

const SOURCE: &str = "198.51.100.7";

fn at(second: u64) -> Time {
    Time::default() + seconds(second)
}

fn udp(source: &str, port: u16) -> Vec<u8> {
    Spec::new(source, Transport::Udp(40_000, port), b"").frame()
}

/// Decides about frames in one batch.
fn decide(engine: &mut Engine, frames: &[Vec<u8>], now: Time) {
    let frames: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
    engine.decide(Side::Outside, &frames, now);
}

fn records(engine: &Engine) -> Vec<HistoryRecord> {
    engine.decider.history().of(SOURCE.parse().unwrap()).records
}

fn to(port: u16) -> LastPacket {
    LastPacket { side: Side::Outside, vlan: Vlan::NONE, protocol: Some(17), port: Some(port) }
}

#[test]
fn drops_are_recorded_by_rule_and_reason_and_what_passes_is_not() {
    let rules = rule_set(vec![
        rule("input", vec![dst_port(7)], Action::Accept),
        rule("input", vec![dst_port(9)], Action::Drop),
    ]);
    let mut engine = Engine::new(rules, &Settings::default());
    let table = engine.table.number();
    let malformed = {
        let mut frame = udp(SOURCE, 9);
        frame[17] = 1;
        frame
    };
    // Three equal consecutive packets have one decision.
    let [passes, dropped, other] = [7, 9, 11].map(|port| udp(SOURCE, port));
    decide(&mut engine, &[passes, dropped.clone(), dropped.clone(), dropped, other, malformed], at(1));
    decide(&mut engine, &[udp(SOURCE, 9), udp("198.51.100.8", 9)], at(2));
    let record = |reason, rule, packet, count, last| HistoryRecord {
        refusal: HistoryCause::Dropped { reason, rule },
        packet,
        count,
        first: at(1),
        last: at(last),
    };
    let unreadable = LastPacket { protocol: None, port: None, ..to(0) };
    let expected = [
        record(Reason::Rule, Some((table, 1)), to(9), 4, 2),
        record(Reason::Ipv4Malformed, None, unreadable, 1, 1),
        record(Reason::ChainDefault, None, to(11), 1, 1),
    ];
    assert_eq!(records(&engine), expected);
}

#[test]
fn the_rule_that_decided_is_told_behind_many_that_matched() {
    let mut rules: Vec<_> = (0..6).map(|_| rule("input", Vec::new(), Action::Passthrough)).collect();
    rules.push(rule("input", Vec::new(), Action::Drop));
    let mut engine = Engine::new(rule_set(rules), &Settings::default());
    decide(&mut engine, &[udp(SOURCE, 9)], at(1));
    let refusal = HistoryCause::Dropped { reason: Reason::Rule, rule: Some((engine.table.number(), 6)) };
    assert_eq!(records(&engine).iter().map(|record| record.refusal).collect::<Vec<_>>(), [refusal]);
}

#[test]
fn steps_that_fail_are_recorded_and_ignored_sources_are_shown() {
    let mut strict = door("a", &["udp/7001", "udp/7002"], &[]);
    strict.max_attempts = "2/1m".parse().ok();
    let mut held = door("b", &["udp/7009"], &[]);
    held.hold_off = seconds(30);
    let settings = Settings {
        doors: vec![strict, held],
        port_budget: PortBudget { ports: 4, within: seconds(10), ignore_for: seconds(60) },
        ..Settings::default()
    };
    let mut engine = Engine::new(RuleSet::default(), &settings);
    let lists = |name: &str, engine: &Engine| engine.state.lists.id(name).unwrap();
    let (open, other) = (lists("door-a", &engine), lists("door-b", &engine));
    let ignored = |engine: &Engine, now| {
        let mut ignored = Vec::new();
        let visitors = engine.state.visitors().unwrap();
        visitors.visit_ignored(now, |list| (list == open).then_some(2), |source| ignored.push(source));
        ignored.sort_by_key(|source| source.why);
        ignored
            .iter()
            .map(|source| (source.source.to_string(), source.open, source.why, source.until))
            .collect::<Vec<_>>()
    };
    for (port, second) in [(7001, 1), (80, 2), (7001, 3)] {
        decide(&mut engine, &[udp(SOURCE, port)], at(second));
    }
    let failed = |engine: &Engine| {
        let failed = records(engine).into_iter().filter_map(|record| match record.refusal {
            HistoryCause::Failed { open, failure } => Some((open, failure, record.packet.port, record.count)),
            HistoryCause::Dropped { .. } => None,
        });
        failed.collect::<Vec<_>>()
    };
    assert_eq!(failed(&engine), [(open, Failure::StartedOver, Some(80), 1)]);
    let source = SOURCE.to_owned();
    assert_eq!(ignored(&engine, at(3)), [(source.clone(), Some(open), Failure::Attempts, at(61))]);
    decide(&mut engine, &[udp(SOURCE, 7009)], at(4));
    let visitors = engine.state.visitors().unwrap();
    let address: IpAddr = SOURCE.parse().unwrap();
    let knocker = KnockSource { address, vlan: Vlan::NONE };
    assert_eq!(visitors.held_until(other, knocker, at(4)), Some(at(34)));
    assert_eq!(visitors.attempts_of(open, knocker, at(4)), Some((2, at(61))));
    assert_eq!(
        (visitors.held_until(other, knocker, at(34)), visitors.attempts_of(open, knocker, at(61))),
        (None, None)
    );
    let ports = visitors.ports_of(knocker, at(4)).unwrap();
    assert!(ports.count() <= 3 && !ports.are_too_many(at(4)), "{ports:?}");
    (0..20).for_each(|port| decide(&mut engine, &[udp(SOURCE, 100 + port)], at(5)));
    let until = at(65);
    assert_eq!(
        ignored(&engine, at(5)),
        [
            (source.clone(), Some(other), Failure::HeldOff, at(34)),
            (source.clone(), Some(open), Failure::Attempts, at(61)),
            (source, None, Failure::Ports, until),
        ]
    );
    assert_eq!(ignored(&engine, until), []);
}

#[test]
fn the_entries_of_an_address_are_those_that_count_for_it() {
    let mut lists = Lists::with_secret(1_000, [1, 2]).unwrap();
    lists.set_first_steps(FirstStepSettings { quota: 4, v6_by_prefix: true, ..FirstStepSettings::default() }).unwrap();
    let (first, second) = (lists.bind("first", 0).unwrap(), lists.bind("second", 1).unwrap());
    let [one, neighbour, elsewhere]: [IpAddr; 3] =
        ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|address| address.parse().unwrap());
    lists.add(first, one, at(9), at(1));
    lists.add(second, one, at(8), at(1));
    let of = |address, now| {
        let told = |entry: AddressEntry| (entry.entry.list, entry.level, entry.by_network, entry.entry.expiry);
        lists.entries_of(address, now).into_iter().map(told).collect::<Vec<_>>()
    };
    let by_network = (first, 0, true, at(9));
    assert_eq!(of(one, at(2)), [by_network, (second, 1, false, at(8))]);
    assert_eq!((of(neighbour, at(2)), of(elsewhere, at(2))), (vec![by_network], vec![]));
    assert_eq!((of(one, at(8)), of(one, at(9))), (vec![by_network], vec![]));
    let used = |address| lists.quota_of(address).map(|quota| (quota.prefix.to_string(), quota.used, quota.quota));
    assert_eq!((used(neighbour), used(elsewhere).unwrap().1), (Some(("2001:db8::/64".to_owned(), 1, 4)), 0));
    assert_eq!(Lists::new(10).unwrap().quota_of(one), None);
}

#[test]
fn what_matchers_remember_of_a_source_is_told() {
    let text = "/ip firewall filter
add chain=input protocol=udp psd=21,3s,3,1 action=drop
add chain=input protocol=udp dst-limit=1,3,src-address/1m action=passthrough
add chain=input protocol=udp connection-limit=1,24 action=drop
add chain=input action=accept
";
    let reading = rsc::read(text.as_bytes());
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    let mut engine = Engine::new(reading.rules, &Settings::default());
    decide(&mut engine, &[udp(SOURCE, 22), udp(SOURCE, 2_000)], at(1));
    let of = |address: &str, now| engine.table.matchers_of(address.parse().unwrap(), now);
    let remembered = of(SOURCE, at(2));
    let [psd, limit, connections] = &remembered[..] else { panic!("{remembered:?}") };
    assert!(
        matches!(psd, AddressMatcher { rule: 0, memory: MatcherMemory::Psd { weight: 4, threshold: 21, .. } }),
        "{psd:?}"
    );
    let MatcherMemory::DstLimit { tokens, burst: 3, until } = limit.memory else { panic!("{limit:?}") };
    assert!((limit.rule, until) == (1, at(61)) && tokens <= 3, "{limit:?}");
    let memory = MatcherMemory::ConnectionLimit { connections: 2, limit: 1, prefix_length: 24 };
    assert_eq!(*connections, AddressMatcher { rule: 2, memory });
    assert_eq!(of("198.51.100.9", at(2)), [AddressMatcher { rule: 2, memory }], "a neighbour of the /24");
    assert_eq!(of("192.0.2.1", at(2)), []);
}

#[test]
fn connection_limit_counts_a_connection_once_whether_an_icmp_error_or_a_packet_of_it_comes_first() {
    let text =
        "/ip firewall filter\nadd chain=input connection-limit=1,24 action=drop\nadd chain=input action=accept\n";
    let reading = rsc::read(text.as_bytes());
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    for error_first in [true, false] {
        let mut engine = Engine::new(reading.rules.clone(), &Settings::default());
        let answer = Spec::new(SOURCE, Transport::Udp(53, 40_000), b"");
        let query = Spec { source: answer.destination, destination: answer.source, ..answer.clone() };
        let query = Spec { transport: Transport::Udp(40_000, 53), ..query };
        engine.decide(Side::Inside, &[&query.frame()], at(1));
        // Destination unreachable, with the IP and UDP header of the query.
        let error =
            Spec { transport: Transport::Icmp(3, 3), payload: query.frame()[14..42].to_vec(), ..answer.clone() };
        let mut frames = [error.frame(), answer.frame()];
        if !error_first {
            frames.reverse();
        }
        decide(&mut engine, &frames, at(1));
        let remembered = engine.table.matchers_of(SOURCE.parse().unwrap(), at(1));
        let memory = MatcherMemory::ConnectionLimit { connections: 1, limit: 1, prefix_length: 24 };
        assert_eq!(remembered, [AddressMatcher { rule: 0, memory }], "error first: {error_first}");
    }
}
