//! The two scripts of `configs/` in their typed form, and the packets of clients that use them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use etherparse::PacketBuilder;
use knockplane_engine::pipeline::{OutOfOrder, PendingSteps};
use knockplane_engine::state::events::ring::Cursor;
use knockplane_engine::state::events::{EventEntry, ListEvent};
use knockplane_policy::event::EventKind;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rule::{Action, BuiltinChain, Condition, Layer7Pattern, RuleSet};
use knockplane_policy::settings::{ChainDefaults, Choice, Settings, SideChoice};
use knockplane_policy::time::Time;
use knockplane_policy::wire::Counter;

use crate::common::{Engine, Spec, Transport, add_src, dst_port, events, live, rule, rule_set, seconds, src_list};

const CLIENT: &str = "198.51.100.7";
const STRANGER: &str = "198.51.100.8";

/// `configs/two-ports.rsc`
fn two_ports() -> RuleSet {
    let tcp = || Condition::Protocol(6);
    rule_set(vec![
        rule("input", vec![tcp(), dst_port(1234)], add_src("temporary", 10)),
        rule("input", vec![tcp(), src_list("temporary"), dst_port(4321)], add_src("secured", 60)),
        rule("input", vec![src_list("secured")], Action::Accept),
        rule("input", vec![], Action::Drop),
    ])
}

/// `configs/passphrases.rsc`
fn passphrases() -> RuleSet {
    let udp = || Condition::Protocol(17);
    let layer7 = |name: &str| Condition::Layer7(name.to_owned());
    let mut rules = rule_set(vec![
        rule("input", vec![udp(), dst_port(1234), layer7("knock1")], add_src("temporary", 10)),
        rule("input", vec![udp(), src_list("temporary"), dst_port(4321), layer7("knock2")], add_src("secured", 10)),
        rule("input", vec![src_list("secured")], Action::Accept),
        rule("input", vec![], Action::Drop),
    ]);
    rules.layer7 = [("knock1", "^supersecretpassword1$"), ("knock2", "^supersecretpassword2$")]
        .map(|(name, regexp)| Layer7Pattern {
            name: name.to_owned(),
            regexp: regexp.to_owned(),
            comment: String::new(),
            line: 0,
        })
        .to_vec();
    rules
}

/// An engine and a clock.
struct Scenario {
    engine: Engine,
    now: Time,
}

impl Scenario {
    fn of(rules: RuleSet) -> Scenario {
        Scenario { engine: Engine::new(rules, &Settings::default()), now: Time::from_nanos(1_000_000_007) }
    }

    fn wait(&mut self, time: Duration) -> &mut Scenario {
        self.now = self.now + time;
        self
    }

    fn send(&mut self, source: &str, transport: Transport, payload: &[u8]) -> Verdict {
        let frame = Spec::new(source, transport, payload).frame();
        let [decision] = self.engine.decide(Side::Outside, &[&frame], self.now) else { panic!("one decision") };
        assert_eq!(decision.reason, Reason::Rule);
        decision.verdict
    }

    fn tcp(&mut self, source: &str, port: u16) -> Verdict {
        self.send(source, Transport::Tcp(40_000, port), b"")
    }

    fn say(&mut self, port: u16, word: &[u8]) -> Verdict {
        self.send(CLIENT, Transport::Udp(40_000, port), word)
    }

    fn opens(&mut self) -> bool {
        self.tcp(CLIENT, 22) == Verdict::Forward
    }

    fn listed(&self, list: &str) -> Vec<IpAddr> {
        let live = live(&self.engine.state.lists, self.now).into_iter();
        live.filter(|entry| entry.list == list).map(|entry| entry.address).collect()
    }
}

#[test]
fn two_knocks_open_and_time_closes() {
    let mut scenario = Scenario::of(two_ports());
    assert!(!scenario.opens());
    assert_eq!(scenario.tcp(CLIENT, 1234), Verdict::Drop);
    assert!(!scenario.opens());
    // The second knock itself passes: the rule behind the addition finds the new entry.
    assert_eq!(scenario.wait(seconds(9)).tcp(CLIENT, 4321), Verdict::Forward);
    assert!(scenario.opens());
    assert!(scenario.wait(Duration::from_nanos(59_999_999_999)).opens());
    assert!(!scenario.wait(Duration::from_nanos(1)).opens());
}

#[test]
fn the_first_knock_lasts_to_the_tenth_second_and_not_at_it() {
    for (nanos, verdict) in [(9_999_999_999, Verdict::Forward), (10_000_000_000, Verdict::Drop)] {
        let mut scenario = Scenario::of(two_ports());
        scenario.tcp(CLIENT, 1234);
        assert_eq!(scenario.wait(Duration::from_nanos(nanos)).tcp(CLIENT, 4321), verdict, "after {nanos} ns");
    }
}

#[test]
fn knocking_again_sets_the_time_anew_and_only_getting_in_is_an_event() {
    let mut scenario = Scenario::of(two_ports());
    scenario.tcp(CLIENT, 1234);
    scenario.wait(seconds(9)).tcp(CLIENT, 1234);
    assert_eq!(scenario.wait(seconds(9)).tcp(CLIENT, 4321), Verdict::Forward);
    let in_at = scenario.now;
    assert_eq!(scenario.wait(seconds(1)).tcp(CLIENT, 4321), Verdict::Forward);
    let mut events = events(&scenario.engine.state.lists, &mut Cursor::after(0));
    events.retain(|event| event.kind != EventKind::Refreshed);
    let [ListEvent { kind: EventKind::Listed, entry, .. }] = events[..] else { panic!("{events:?}") };
    let EventEntry { list, level: 1, address, expiry, .. } = entry else { panic!("{entry:?}") };
    assert_eq!(scenario.engine.state.lists.name(list).as_deref(), Some("secured"));
    assert_eq!(address, CLIENT.parse::<IpAddr>().unwrap());
    assert_eq!(expiry.since(in_at), seconds(60));
}

#[test]
fn the_wrong_order_the_wrong_source_and_the_wrong_protocol_do_not_open() {
    let mut scenario = Scenario::of(two_ports());
    scenario.tcp(CLIENT, 4321);
    scenario.tcp(CLIENT, 1234);
    assert!(!scenario.opens());

    let mut scenario = Scenario::of(two_ports());
    scenario.tcp(CLIENT, 1234);
    scenario.tcp(STRANGER, 4321);
    assert!(!scenario.opens());
    assert_eq!(scenario.tcp(STRANGER, 22), Verdict::Drop);

    let mut scenario = Scenario::of(two_ports());
    scenario.send(CLIENT, Transport::Udp(40_000, 1234), b"\0");
    scenario.send(CLIENT, Transport::Udp(40_000, 4321), b"\0");
    assert!(!scenario.opens() && scenario.listed("temporary").is_empty());
}

#[test]
fn both_knocks_in_one_batch_are_two_steps() {
    let mut scenario = Scenario::of(two_ports());
    let frames = [1234, 4321, 22].map(|port| Spec::new(CLIENT, Transport::Tcp(40_000, port), b"").frame());
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let verdicts = scenario.engine.decide(Side::Outside, &frames, scenario.now).iter().map(|decision| decision.verdict);
    assert_eq!(verdicts.collect::<Vec<_>>(), [Verdict::Drop, Verdict::Forward, Verdict::Forward]);
}

#[test]
fn passphrases_open_in_any_case_and_with_nuls_but_not_with_a_newline() {
    let mut scenario = Scenario::of(passphrases());
    assert_eq!(scenario.say(1234, b"SuperSecretPassword1\0"), Verdict::Drop);
    assert_eq!(scenario.say(4321, b"super\0secretpassword2"), Verdict::Forward);
    assert!(scenario.wait(Duration::from_nanos(9_999_999_999)).opens());
    assert!(!scenario.wait(Duration::from_nanos(1)).opens());

    for (first, second) in [
        (&b"supersecretpassword1\n"[..], &b"supersecretpassword2"[..]),
        (b"supersecretpassword1", b" supersecretpassword2"),
        (b"supersecretpassword2", b"supersecretpassword1"),
        (b"", b""),
    ] {
        let mut scenario = Scenario::of(passphrases());
        scenario.say(1234, first);
        assert_eq!(scenario.say(4321, second), Verdict::Drop);
        assert!(!scenario.opens());
    }
}

#[test]
fn counters_are_ip_bytes_of_every_rule_that_matched() {
    let mut scenario = Scenario::of(two_ports());
    scenario.tcp(CLIENT, 1234);
    scenario.tcp(CLIENT, 4321);
    scenario.tcp(STRANGER, 22);
    let mut rules = [Counter::default(); 4];
    scenario.engine.counters.add_rules_to(&mut rules);
    let counter = |packets| Counter { packets, bytes: packets * 40 };
    assert_eq!(rules, [1, 1, 1, 2].map(counter));
}

/// A ladder whose last step is the first rule, as in recipes against brute force. For the same packet, the rules before
/// an addition must not find the new entry. The rules after the addition must find it, also after a jump that returned.
#[test]
fn an_addition_is_seen_by_the_rules_behind_it_on_the_same_packet_and_not_before() {
    let add = |needs: &[&str], list: &str| {
        rule("knock", needs.iter().map(|list| src_list(list)).collect(), add_src(list, 60))
    };
    let mut scenario = Scenario::of(rule_set(vec![
        rule("input", vec![src_list("third")], Action::Accept),
        rule("input", vec![dst_port(1)], Action::Jump("knock".to_owned())),
        rule("input", vec![], Action::Drop),
        add(&["second"], "third"),
        rule("knock", vec![src_list("third")], Action::Return),
        add(&["first"], "second"),
        rule("knock", vec![src_list("second")], Action::Return),
        add(&[], "first"),
        rule("knock", vec![src_list("first")], Action::Return),
        add(&[], "never"),
    ]));
    for known in [&["first"][..], &["first", "second"], &["first", "second", "third"]] {
        assert_eq!(scenario.tcp(CLIENT, 1), Verdict::Drop);
        for list in ["first", "second", "third", "never"] {
            assert_eq!(scenario.listed(list).len(), usize::from(known.contains(&list)), "{list} after {known:?}");
        }
    }
    assert!(scenario.opens());
}

#[test]
fn a_timeout_of_nothing_ends_an_entry_for_the_next_rule_too() {
    let mut scenario = Scenario::of(rule_set(vec![
        rule("input", vec![dst_port(1)], add_src("friends", 60)),
        rule("input", vec![dst_port(2), src_list("friends")], add_src("friends", 0)),
        rule("input", vec![src_list("friends")], Action::Accept),
        rule("input", vec![], Action::Drop),
    ]));
    assert_eq!(scenario.tcp(CLIENT, 1), Verdict::Forward);
    assert_eq!(scenario.tcp(CLIENT, 2), Verdict::Drop);
    assert!(!scenario.opens());
}

#[test]
fn frames_that_rules_cannot_see_are_decided_by_the_settings() {
    let mut settings = Settings::default();
    settings.frames.lldp = SideChoice::both(Choice::Accept);
    let mut engine = Engine::new(two_ports(), &settings);
    let frame = |ethertype: u16| [&[2; 12], &ethertype.to_be_bytes()[..], &[0; 46]].concat();
    let frames = [frame(0x0806), frame(0x88cc), frame(0x8809), frame(0x0800), vec![1, 2, 3]];
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let decisions = engine.decide(Side::Inside, &frames, Time::default());
    let told: Vec<_> = decisions.iter().map(|decision| (decision.verdict, decision.reason)).collect();
    assert_eq!(
        told,
        [
            (Verdict::Drop, Reason::ArpMalformed),
            (Verdict::Forward, Reason::Lldp),
            (Verdict::Drop, Reason::Lacp),
            (Verdict::Drop, Reason::Ipv4Malformed),
            (Verdict::Drop, Reason::EthernetTruncated),
        ]
    );
}

#[test]
fn what_no_rule_decides_is_left_to_the_chain() {
    let settings = Settings {
        protect: vec!["203.0.113.0/24".parse().unwrap()],
        chain_default: ChainDefaults { input: Choice::Accept, forward: Choice::Drop, output: Choice::Accept },
        ..Settings::default()
    };
    let mut engine = Engine::new(RuleSet::default(), &settings);
    let mut decide = |side, source: &str, destination: &str| {
        let mut spec = Spec::new(source, Transport::Tcp(1, 2), b"");
        spec.destination = destination.parse().unwrap();
        let decision = engine.decide(side, &[&spec.frame()], Time::default())[0];
        assert_eq!(decision.reason, Reason::ChainDefault);
        decision.verdict
    };
    assert_eq!(decide(Side::Outside, CLIENT, "203.0.113.9"), Verdict::Forward);
    assert_eq!(decide(Side::Outside, CLIENT, "192.0.2.1"), Verdict::Drop);
    assert_eq!(decide(Side::Inside, "203.0.113.9", CLIENT), Verdict::Forward);
    let mut defaults = [Counter::default(); BuiltinChain::ALL.len()];
    engine.counters.add_defaults_to(&mut defaults);
    assert_eq!(defaults, [Counter { packets: 1, bytes: 40 }; 3]);
}

#[test]
fn a_batch_is_decided_to_its_end_and_no_further() {
    let mut engine = Engine::new(two_ports(), &Settings::default());
    let frame = Spec::new(CLIENT, Transport::Tcp(1, 2), b"").frame();
    for (frames, decisions) in [(0, 0), (1, 1), (64, 64), (65, 64)] {
        assert_eq!(engine.decide(Side::Outside, &vec![&frame[..]; frames], Time::default()).len(), decisions);
    }
}

/// Hits of one source, each with the time of its arrival, in the order in which several workers decide them.
struct Hit {
    port: u16,
    arrived: u64,
}

impl Hit {
    fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        let address = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(address(CLIENT), address("198.51.100.1"), 64)
            .tcp(40_000, self.port, 1, 1024)
            .syn()
            .write(&mut frame, &[])
            .unwrap();
        frame
    }

    /// Decides about the packet. Returns whether it was out of order.
    fn decide(&self, engine: &mut Engine) -> bool {
        let arrived = Time::from_nanos(self.arrived);
        engine.with(|decider, context| {
            decider.decide_arrived(Side::Outside, &[&self.frame()], |_| arrived, context);
            decider.out_of_order() == 1
        })
    }

    fn re_evaluate(&self, engine: &mut Engine) -> bool {
        let arrived = Time::from_nanos(self.arrived);
        let (side, frame, pending) = (Side::Outside, &self.frame(), PendingSteps::ADDITION);
        engine.with(|decider, context| {
            !decider.re_evaluate(OutOfOrder { side, frame, arrived, pending, is_last: false }, context).is_any()
        })
    }
}

#[test]
fn a_step_that_was_decided_too_early_is_made_up_for_and_one_that_came_too_early_is_not() {
    for (first_arrived, second_arrived, opens) in [(100, 200, true), (200, 100, false)] {
        let mut engine = Engine::new(two_ports(), &Settings::default());
        let first = Hit { port: 1234, arrived: first_arrived };
        let second = Hit { port: 4321, arrived: second_arrived };
        assert!(second.decide(&mut engine), "the second step knows that it may be early");
        assert!(!second.re_evaluate(&mut engine), "nothing has changed");
        assert!(!first.decide(&mut engine));
        let before = engine.rule_packets();
        assert_eq!(second.re_evaluate(&mut engine), opens);
        let after = engine.rule_packets();
        assert_eq!(after[1] - before[1], u64::from(opens), "the step counts once, where it is taken");
        assert_eq!((after[0], after[2], after[3]), (before[0], before[2], before[3]), "and nothing else does");
        assert!(!second.re_evaluate(&mut engine), "a step is taken once");
        let later = Hit { port: 22, arrived: 300 };
        later.decide(&mut engine);
        assert_eq!(engine.decider.decisions()[0].verdict == Verdict::Forward, opens);
    }
}
