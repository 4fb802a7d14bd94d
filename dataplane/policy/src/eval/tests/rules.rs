//! Chains, actions, lists, the log, and explanations.

use super::*;
use crate::eval::{MAX_JUMP_DEPTH, RuleOutcome};
use crate::reason::{Reason, Verdict};
use crate::rule::{
    AddressSet, ConnectionState, EntryAddress, Layer7Pattern, Log, PortSet, RuleFileEntry, Tracking, TrackingMode,
};

fn knock(port: u16) -> Vec<u8> {
    udp((CLIENT, 40_000), (SERVER, port), b"")
}

fn port(port: u16) -> Condition {
    Condition::DstPort(PortSet(vec![port..=port]))
}

fn listed(list: &str) -> Condition {
    Condition::SrcAddressList(list.to_owned())
}

fn jump(target: &str) -> Action {
    Action::Jump(target.to_owned())
}

#[test]
fn an_address_that_a_rule_adds_is_in_the_list_for_the_next_one() {
    let rules = rules(vec![
        rule(vec![port(1)], add_src("a", 10)),
        rule(vec![listed("a")], add_src("b", 10)),
        rule(vec![listed("b")], Action::Accept),
    ]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    assert_eq!(evaluator.outside(&knock(2), ms(0)).reason, Reason::ChainDefault);
    let knocked = evaluator.outside(&knock(1), ms(0));
    assert_eq!((knocked.verdict, knocked.reason, knocked.matched), (Verdict::Forward, Reason::Rule, vec![0, 1, 2]));
    // The second rule renews its own entry until the entry of the first rule expires.
    assert_eq!(evaluator.outside(&knock(2), ms(9_999)).matched, [1, 2]);
    assert_eq!(evaluator.outside(&knock(2), ms(19_998)).matched, [2]);
    assert_eq!(evaluator.outside(&knock(2), ms(19_999)).verdict, Verdict::Drop);
}

#[test]
fn entries_of_the_file_count_from_the_time_the_rules_are_applied() {
    let entry = RuleFileEntry {
        family: Family::Ipv4,
        list: "a".to_owned(),
        address: EntryAddress::Set(AddressSet::Prefix("198.51.100.0/24".parse().unwrap())),
        timeout: Some(Duration::from_secs(5)),
        disabled: false,
        comment: String::new(),
        line: 0,
    };
    let rules = RuleSet { address_lists: vec![entry], ..rules(vec![rule(vec![listed("a")], add_src("a", 60))]) };
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1).at_wall(ms(1_000), Duration::ZERO);
    assert_eq!(evaluator.outside(&knock(1), ms(5_999)).matched, [0]);
    // A set contained the address, so it got no separate entry.
    assert!(evaluator.outside(&knock(1), ms(6_000)).matched.is_empty());
}

#[test]
fn jumps_come_back_and_returns_end_a_chain() {
    let rules = rules(vec![
        rule(vec![port(1)], jump("knock")),
        rule(vec![port(2)], Action::Return),
        rule(vec![], Action::Accept),
        in_chain("knock", rule(vec![], Action::Passthrough)),
        in_chain("knock", rule(vec![], Action::Return)),
        in_chain("knock", rule(vec![], Action::Drop)),
        Rule { table: Table::Raw, ..in_chain("knock", rule(vec![], Action::Drop)) },
    ]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    assert_eq!(evaluator.outside(&knock(1), ms(0)).matched, [0, 3, 4, 2]);
    let returned = evaluator.outside(&knock(2), ms(0));
    assert_eq!((returned.verdict, returned.reason, returned.matched), (Verdict::Drop, Reason::ChainDefault, vec![1]));
}

#[test]
fn a_cycle_of_jumps_ends_in_a_drop() {
    let rules = rules(vec![rule(vec![], jump("input")), rule(vec![], Action::Accept)]);
    let settings = Settings::default();
    let dropped = Evaluator::new(&rules, &settings, 1).outside(&knock(1), ms(0));
    assert_eq!((dropped.verdict, dropped.matched.len()), (Verdict::Drop, MAX_JUMP_DEPTH + 1));
}

#[test]
fn disabled_and_invalid_rules_never_match() {
    let disabled = Rule { disabled: true, ..rule(vec![], Action::Accept) };
    let invalid = Rule { invalid: Some("it asks for a mark".to_owned()), ..rule(vec![], Action::Accept) };
    let v6 = Rule { family: Family::Ipv6, ..rule(vec![], Action::Accept) };
    let rules = rules(vec![disabled, invalid, v6]);
    let settings = Settings::default();
    let explanation = Evaluator::new(&rules, &settings, 1).explain(&view(Side::Outside, &knock(1)), ms(0));
    assert!(explanation.evaluation.matched.is_empty());
    let outcomes: Vec<_> = explanation.tried.into_iter().map(|tried| tried.outcome).collect();
    assert_eq!(
        outcomes,
        [RuleOutcome::Disabled, RuleOutcome::Invalid("it asks for a mark".to_owned()), RuleOutcome::OtherFamily]
    );
}

#[test]
fn raw_comes_first_and_can_drop_or_accept() {
    let rules = rules(vec![
        rule(vec![], Action::Accept),
        raw("prerouting", vec![port(1)], Action::Drop),
        raw("prerouting", vec![port(2)], Action::Accept),
        raw("prerouting", vec![], add_src("seen", 10)),
        raw("output", vec![], Action::Drop),
    ]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let dropped = evaluator.outside(&knock(1), ms(0));
    assert_eq!((dropped.verdict, dropped.reason, dropped.matched), (Verdict::Drop, Reason::Rule, vec![1]));
    assert_eq!(evaluator.outside(&knock(2), ms(0)).matched, [2, 0]);
    assert_eq!(evaluator.lists().live(ms(0)), []);
    assert_eq!(evaluator.outside(&knock(3), ms(0)).matched, [3, 0]);
    assert_eq!(evaluator.inside(&udp((SERVER, 1), (CLIENT, 2), b""), ms(0)).matched, [4]);
}

#[test]
fn notrack_and_fasttrack() {
    let state = |state| Condition::ConnectionState([state].into_iter().collect());
    let rules = rules(vec![
        raw("prerouting", vec![port(1)], Action::Notrack),
        rule(vec![state(ConnectionState::Untracked)], Action::Accept),
        rule(vec![port(2)], Action::FasttrackConnection),
        rule(vec![port(2)], Action::Accept),
    ]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    assert_eq!(evaluator.outside(&knock(1), ms(0)).matched, [0, 1]);
    let first = evaluator.outside(&knock(2), ms(0));
    assert_eq!((first.verdict, first.matched), (Verdict::Forward, vec![2, 3]));
    let next = evaluator.outside(&knock(2), ms(29_999));
    assert_eq!((next.verdict, next.reason, next.matched), (Verdict::Forward, Reason::Fasttracked, vec![]));
    let back = evaluator.inside(&udp((SERVER, 2), (CLIENT, 40_000), b""), ms(29_999));
    assert_eq!(back.reason, Reason::Fasttracked);
    // The connection has expired.
    assert_eq!(evaluator.outside(&knock(2), ms(29_999 + 180_000)).matched, [2, 3]);
}

#[test]
fn the_two_passphrases_open_with_tracking_and_without() {
    let layer7 = |name: &str| Condition::Layer7(name.to_owned());
    let knocks = || {
        vec![
            rule(vec![port(1234), layer7("knock1")], add_src("temporary", 10)),
            rule(vec![port(4321), listed("temporary"), layer7("knock2")], add_src("secured", 10)),
            rule(vec![listed("secured")], Action::Accept),
            rule(vec![], Action::Drop),
        ]
    };
    let pattern = |name: &str, regexp: &str| Layer7Pattern {
        name: name.to_owned(),
        regexp: regexp.to_owned(),
        comment: String::new(),
        line: 0,
    };
    let patterns = vec![pattern("knock1", "^supersecretpassword1$"), pattern("knock2", "^supersecretpassword2$")];
    let settings = Settings::default();
    for enabled in [TrackingMode::Auto, TrackingMode::Yes] {
        let tracking = Tracking { enabled, ..Tracking::default() };
        let rules = RuleSet { layer7: patterns.clone(), tracking, ..rules(knocks()) };
        let mut evaluator = Evaluator::new(&rules, &settings, 1);
        let mut say = |from: u16, to: u16, what: &[u8]| {
            evaluator.outside(&udp((CLIENT, from), (SERVER, to), what), ms(0)).verdict
        };
        assert_eq!(say(40_000, 4321, b"supersecretpassword2"), Verdict::Drop);
        assert_eq!(say(40_001, 1234, b"supersecretpassword1\n"), Verdict::Drop);
        assert_eq!(say(40_002, 4321, b"supersecretpassword2"), Verdict::Drop);
        assert_eq!(say(40_003, 1234, b"SuperSecret\0Password1"), Verdict::Drop);
        assert_eq!(say(40_004, 4321, b"supersecretpassword2"), Verdict::Forward, "{enabled:?}");
    }
}

#[test]
fn rules_log_packets_that_they_match() {
    let log = Some(Log { prefix: "knock".to_owned() });
    let rules = rules(vec![
        Rule { log: log.clone(), ..rule(vec![], Action::Log) },
        rule(vec![], Action::Log),
        Rule { log, ..rule(vec![port(2)], Action::Accept) },
        Rule { log: Some(Log::default()), ..Rule::new(Family::Ipv6, "input", Action::Accept) },
    ]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let mut log = |frame: Vec<u8>| -> Vec<(usize, String)> {
        evaluator.outside(&frame, ms(0)).logged.into_iter().map(|line| (line.rule, line.text)).collect()
    };
    let line = "input: in:outside out:inside, connection-state:untracked src-mac 02:00:00:00:00:01, proto TCP (SYN,ACK), \
                198.51.100.7:40000->203.0.113.1:1, len 42";
    let expected = [(0, format!("knock {line}")), (1, line.to_owned())];
    assert_eq!(log(tcp((CLIENT, 40_000), (SERVER, 1), "SA", (1, 1), b"ab")), expected);
    assert_eq!(log(knock(2)).len(), 3);
    let [(_, line), _] = &log(echo(CLIENT, SERVER, 8, 1))[..] else { panic!("two lines") };
    assert!(line.ends_with("proto ICMP (type 8, code 0), 198.51.100.7->203.0.113.1, len 32"), "{line}");
    let [(3, line)] = &log(udp((CLIENT6, 1), (SERVER6, 2), b""))[..] else { panic!("one line") };
    assert!(line.ends_with("proto UDP, [2001:db8::7]:1->[2001:db8:ff::1]:2, len 48"), "{line}");
}

#[test]
fn an_explanation_lists_the_tried_rules_and_changes_state_as_an_evaluation() {
    let rules = rules(vec![
        rule(vec![port(1), Condition::Protocol(17)], add_src("temporary", 10)),
        rule(vec![listed("secured")], Action::Accept),
        rule(vec![], jump("knock")),
        in_chain("knock", rule(vec![port(7)], Action::Accept)),
        rule(vec![], Action::Drop),
    ]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let mut plain = Evaluator::new(&rules, &settings, 1);
    let frame = knock(1);
    let packet = view(Side::Outside, &frame);
    let explanation = evaluator.explain(&packet, ms(0));
    assert_eq!(explanation.evaluation, plain.evaluate(&packet, ms(0)));
    assert_eq!(evaluator.lists(), plain.lists());
    let tried: Vec<_> = explanation.tried.into_iter().map(|it| (it.rule, it.chain, it.depth, it.outcome)).collect();
    let matched = |effect: Option<&str>| RuleOutcome::Matched { effect: effect.map(str::to_owned) };
    let missed =
        |matcher, observed: &str| RuleOutcome::Missed { matcher, observed: observed.to_owned(), workers_decide: None };
    assert_eq!(
        tried,
        [
            (0, "input".to_owned(), 0, matched(Some("added 198.51.100.7 to temporary for 10s"))),
            (1, "input".to_owned(), 0, missed(0, "198.51.100.7 is not in secured")),
            (2, "input".to_owned(), 0, matched(None)),
            (3, "knock".to_owned(), 1, missed(0, "dst-port is 1")),
            (4, "input".to_owned(), 0, matched(None)),
        ]
    );
    let again = evaluator.explain(&packet, ms(0)).tried.swap_remove(0).outcome;
    assert_eq!(again, matched(Some("kept 198.51.100.7 in temporary for 10s")));
    // The protocol is evaluated first in any written order. Its index is that of the written order.
    let syn = tcp((CLIENT, 1), (SERVER, 2), "S", (1, 0), b"");
    let outcome = evaluator.explain(&view(Side::Outside, &syn), ms(0)).tried.swap_remove(0).outcome;
    assert_eq!(outcome, missed(1, "protocol is tcp"));
}

#[test]
fn every_matcher_reports_what_it_observed() {
    let conditions = crate::rule::one_of_each();
    let settings = Settings::default();
    let frames =
        [knock(9), echo(CLIENT, SERVER, 8, 1), other(CLIENT, SERVER, 47), udp((CLIENT6, 1), (SERVER6, 2), b"")];
    for (condition, frame) in conditions.iter().flat_map(|it| frames.iter().map(move |frame| (it, frame))) {
        let packet = view(Side::Outside, frame);
        for negated in [false, true] {
            let matchers = vec![Matcher { negated, condition: condition.clone() }];
            let rules = rules(vec![Rule { matchers, ..Rule::new(packet.family(), "input", Action::Accept) }]);
            let explanation = Evaluator::new(&rules, &settings, 1).explain(&packet, ms(0));
            match &explanation.tried[0].outcome {
                RuleOutcome::Missed { matcher: 0, observed, .. } => assert!(!observed.is_empty(), "{condition:?}"),
                outcome => assert_eq!(*outcome, RuleOutcome::Matched { effect: None }),
            }
        }
    }
}
