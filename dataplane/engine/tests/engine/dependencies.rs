//! The dependencies of a decision: a cache may repeat the decision exactly while they are current.
//!
//! A new decider, whose caches are empty, makes every decision.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use knockplane_engine::headers::max_frame;
use knockplane_engine::pipeline::dependencies::{Dependencies, Dependency};
use knockplane_engine::pipeline::{Context, Decider, Decision};
use knockplane_engine::table::RuleTable;
use knockplane_policy::eval::Evaluator;
use knockplane_policy::packet::{Family, FragmentPart, Side};
use knockplane_policy::reason::Verdict;
use knockplane_policy::rsc;
use knockplane_policy::rule::{
    Action, AddressSet, Condition, EntryAddress, Matcher, Rule, RuleFileEntry, RuleSet, TrackingMode,
};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use crate::common::{Details, Engine, SECRET, Spec, Transport, cases, door, live, seconds};
use crate::reference;

fn at(second: u64) -> Time {
    Time::from_nanos(second * 1_000_000_000)
}

/// A decision about one frame, and its effects except those on lists and connections.
#[derive(Debug)]
struct DecisionOutcome {
    decision: Decision,
    dependencies: Option<Dependencies>,
    /// The number of times that each rule counted the packet.
    counted: Vec<u64>,
    has_reply: bool,
    has_pending_steps: bool,
    events: u64,
}

fn decide(engine: &Engine, side: Side, frame: &[u8], now: Time) -> DecisionOutcome {
    let mut decider = Decider::new(max_frame(1500), SECRET[0]);
    let Engine { table, state, counters, logged, .. } = engine;
    let context = Context { table, state, counters, logged, wall: 0 };
    let (before, last_event) = (engine.rule_packets(), state.lists.last_event());
    let decision = decider.decide(side, &[frame], now, context)[0];
    DecisionOutcome {
        decision,
        dependencies: decider.dependencies(0).copied(),
        counted: engine.rule_packets().iter().zip(before).map(|(after, before)| after - before).collect(),
        has_reply: decider.answered() != 0,
        has_pending_steps: decider.out_of_order() != 0,
        events: std::iter::from_fn(|| logged.pop()).count() as u64 + state.lists.last_event() - last_event,
    }
}

/// The lists and connections, and the counts of doors.
fn observable_state(engine: &Engine, now: Time) -> String {
    let flows = engine.state.connections().map(|flows| flows.known(now));
    let doors = engine.table.settings().doors.iter();
    let tallies = doors.map(|door| engine.state.visitors().unwrap().counts(&door.name).tally());
    format!("{:?} {flows:?} {:?}", live(&engine.state.lists, now), tallies.collect::<Vec<_>>())
}

/// A change between two decisions.
#[derive(Clone, Debug)]
enum StateChange {
    Packet(Side, Spec),
    Add(&'static str, IpAddr, u64),
    AddByOperator(&'static str, IpAddr, u64),
    Remove(&'static str, IpAddr),
    /// Replaces all static entries by this one, with a timeout in seconds.
    SetStaticEntry(&'static str, IpAddr, Option<u64>),
    ClearStaticEntries,
    Sweep,
    /// The same rules and settings, compiled again.
    Swap,
}

impl StateChange {
    fn apply(&self, engine: &mut Engine, rules: &RuleSet, settings: &Settings, now: Time) {
        let Engine { table, state, .. } = engine;
        let lists = &state.lists;
        let id = |list: &str| lists.id(list).unwrap_or_else(|| lists.bind(list, 0).unwrap());
        match self {
            StateChange::Packet(side, spec) => {
                decide(engine, *side, &spec.frame(), now);
            }
            StateChange::Add(list, address, timeout) => {
                lists.add(id(list), *address, now + seconds(*timeout), now);
            }
            StateChange::AddByOperator(list, address, timeout) => {
                lists.add_by_operator(id(list), *address, now + seconds(*timeout), now);
            }
            StateChange::Remove(list, address) => {
                lists.remove(id(list), *address, now);
            }
            StateChange::SetStaticEntry(list, address, timeout) => {
                let until = timeout.map(|timeout| now + seconds(timeout));
                lists.set_static_entries(std::iter::once((id(list), (*address, *address), until)));
            }
            StateChange::ClearStaticEntries => lists.set_static_entries(std::iter::empty()),
            StateChange::Sweep => {
                lists.sweep(lists.capacity(), now);
            }
            StateChange::Swap => {
                *table = RuleTable::compile(Arc::new(rules.clone()), settings, state, now).unwrap();
                table.begin(state, now);
            }
        }
    }
}

fn change() -> impl Strategy<Value = StateChange> {
    let list = || select(LISTS.to_vec());
    let address =
        || select(["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"].map(|text| text.parse::<IpAddr>().unwrap()).to_vec());
    let side = select(vec![Side::Outside, Side::Outside, Side::Inside]);
    prop_oneof![
        4 => (side, reference::spec()).prop_map(|(side, spec)| StateChange::Packet(side, spec)),
        3 => (list(), address(), 0..4_u64).prop_map(|(list, address, timeout)| StateChange::Add(list, address, timeout)),
        1 => (list(), address(), 1..4_u64).prop_map(|(list, address, timeout)| StateChange::AddByOperator(list, address, timeout)),
        3 => (list(), address()).prop_map(|(list, address)| StateChange::Remove(list, address)),
        1 => (list(), address(), prop::option::of(1..4_u64))
            .prop_map(|(list, address, timeout)| StateChange::SetStaticEntry(list, address, timeout)),
        1 => Just(StateChange::ClearStaticEntries),
        1 => Just(StateChange::Sweep),
        1 => Just(StateChange::Swap),
    ]
}

/// The number of decisions that a property has compared, so that it fails if it compares none.
#[derive(Debug, Default)]
struct Met {
    cacheable: AtomicU32,
    /// Decisions that were repeated while the dependencies were current.
    repeated: AtomicU32,
    /// Decisions that were repeated with another result when the dependencies were not current.
    changed: AtomicU32,
}

/// A rule set, settings, changes, a packet, more changes.
type Case = (RuleSet, Settings, Vec<(Duration, StateChange)>, (Side, Spec), Vec<(Duration, StateChange)>);

/// Checks the property for many cases.
fn met(count: u32, strategy: &impl Strategy<Value = Case>) -> Met {
    let met = Met::default();
    let run = TestRunner::new(cases(count)).run(strategy, |(rules, settings, before, (side, probe), after)| {
        assert_holds_while_current(&rules, &settings, &before, (side, &probe), &after, &met);
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{met:?}");
    met
}

/// Decides about the packet before and after the changes. The first decision holds while its dependencies are current.
fn assert_holds_while_current(
    rules: &RuleSet,
    settings: &Settings,
    before: &[(Duration, StateChange)],
    (side, probe): (Side, &Spec),
    after: &[(Duration, StateChange)],
    met: &Met,
) {
    let mut engine = Engine::new(rules.clone(), settings);
    let mut now = Time::from_nanos(5);
    for (pause, change) in before {
        now = now + *pause;
        change.apply(&mut engine, rules, settings, now);
    }
    let frame = probe.frame();
    let first = decide(&engine, side, &frame, now);
    let Some(dependencies) = first.dependencies else { return };
    if !dependencies.is_cacheable() {
        return;
    }
    met.cacheable.fetch_add(1, Relaxed);
    assert!(dependencies.are_current(&engine.table, &engine.state, now), "at once: {dependencies:?}");
    for (pause, change) in std::iter::once(&(Duration::ZERO, StateChange::Sweep)).chain(after) {
        now = now + *pause;
        change.apply(&mut engine, rules, settings, now);
        let is_current = dependencies.are_current(&engine.table, &engine.state, now);
        let state = observable_state(&engine, now);
        let again = decide(&engine, side, &frame, now);
        if !is_current {
            met.changed.fetch_add(u32::from(again.decision != first.decision), Relaxed);
            continue;
        }
        met.repeated.fetch_add(1, Relaxed);
        assert_eq!((again.decision, &again.counted), (first.decision, &first.counted), "{dependencies:?}");
        assert!(!again.has_reply && !again.has_pending_steps && again.events == 0, "{again:?}");
        assert_eq!(observable_state(&engine, now), state);
        assert!(dependencies.are_current(&engine.table, &engine.state, now), "the repetition changed something");
    }
}

#[test]
fn a_cacheable_decision_holds_while_its_dependencies_are_current() {
    let rules = (reference::rules(), prop::bool::weighted(0.8)).prop_map(|(mut rules, untracked)| {
        if untracked {
            rules.tracking.enabled = TrackingMode::No;
        }
        rules
    });
    let settings = (reference::settings(), prop::bool::weighted(0.8)).prop_map(|(mut settings, without_doors)| {
        if without_doors {
            settings.doors.clear();
        }
        settings
    });
    let changes = |most| prop::collection::vec((reference::pause(), change()), 0..most);
    let side = select(vec![Side::Outside, Side::Outside, Side::Inside]);
    let met = met(300, &(rules, settings, changes(8), (side, reference::spec()), changes(12)));
    assert!(met.cacheable.into_inner() > 0 && met.repeated.into_inner() > 0, "nothing was compared");
}

const LISTS: [&str; 4] = ["one", "two", "three", "only read"];

/// Rules that match lists, and static entries of the rules that expire.
fn rules_about_lists() -> impl Strategy<Value = RuleSet> {
    let list = || select(LISTS.to_vec()).prop_map(str::to_owned);
    let condition = prop_oneof![list().prop_map(Condition::SrcAddressList), list().prop_map(Condition::DstAddressList)];
    let matcher =
        (prop::bool::weighted(0.3), condition).prop_map(|(negated, condition)| Matcher { negated, condition });
    let action = select(vec![Action::Accept, Action::Drop, Action::Accept, Action::Drop, Action::Passthrough]);
    let rule = (prop::collection::vec(matcher, 1..3), action)
        .prop_map(|(matchers, action)| Rule { matchers, ..Rule::new(Family::Ipv4, "input", action) });
    let prefixes = ["10.0.0.1/32", "10.0.0.2/31"].map(|prefix| AddressSet::Prefix(prefix.parse().unwrap())).to_vec();
    let entry = (select(prefixes), list(), prop::option::of(1..4_u64)).prop_map(|(set, list, timeout)| RuleFileEntry {
        family: Family::Ipv4,
        list,
        address: EntryAddress::Set(set),
        timeout: timeout.map(seconds),
        disabled: false,
        comment: String::new(),
        line: 0,
    });
    (prop::collection::vec(rule, 1..5), prop::collection::vec(entry, 0..2)).prop_map(|(rules, address_lists)| RuleSet {
        rules,
        address_lists,
        ..RuleSet::default()
    })
}

/// Adds and removes entries of the packet's addresses, so that every second decision changes.
#[test]
fn a_decision_by_lists_holds_while_its_dependencies_are_current() {
    let addresses = ["10.0.0.1", "10.0.0.2"].map(address);
    let list = || select(LISTS.to_vec());
    let of_packet = move || select(addresses.to_vec());
    let change = prop_oneof![
        4 => (list(), of_packet(), 1..4_u64).prop_map(|(list, address, timeout)| StateChange::Add(list, address, timeout)),
        2 => (list(), of_packet()).prop_map(|(list, address)| StateChange::Remove(list, address)),
        1 => (list(), of_packet(), prop::option::of(1..4_u64))
            .prop_map(|(list, address, timeout)| StateChange::SetStaticEntry(list, address, timeout)),
        1 => Just(StateChange::ClearStaticEntries),
        2 => Just(StateChange::Sweep),
    ];
    let changes = |least, most| prop::collection::vec((reference::pause(), change.clone()), least..most);
    let [source, destination] = addresses;
    let probe = Spec { source, destination, ..Spec::new(SOURCE, Transport::Udp(1, 2), b"") };
    let settings = Just(Settings::default());
    let met = met(400, &(rules_about_lists(), settings, changes(2, 6), Just((Side::Outside, probe)), changes(2, 8)));
    let [cacheable, repeated, changed] = [met.cacheable, met.repeated, met.changed].map(AtomicU32::into_inner);
    assert!(cacheable > 100 && repeated > 100 && changed > 100, "too little was compared");
}

fn engine(file: &str, settings: &Settings) -> Engine {
    Engine::new(rsc::read(file.as_bytes()).rules, settings)
}

const SOURCE: &str = "198.51.100.1";
const DESTINATION: &str = "203.0.113.1";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn packet() -> Vec<u8> {
    Spec::new(SOURCE, Transport::Tcp(40_000, 22), b"x").frame()
}

/// An accepted packet whose source is in one list until second 9, and whose destination is in another until second 7.
fn listed() -> (RuleSet, Engine) {
    let file = "/ip firewall filter\nadd chain=input src-address-list=one dst-address-list=two action=accept\n";
    let rules = rsc::read(file.as_bytes()).rules;
    let engine = Engine::new(rules.clone(), &Settings::default());
    let lists = &engine.state.lists;
    lists.add(lists.id("one").unwrap(), address(SOURCE), at(9), at(0));
    lists.add(lists.id("two").unwrap(), address(DESTINATION), at(7), at(0));
    (rules, engine)
}

#[test]
fn a_decision_lasts_until_the_first_expiry_of_what_it_read() {
    let (_, engine) = listed();
    let lists = &engine.state.lists;
    let until = |now| {
        let dependencies = decide(&engine, Side::Outside, &packet(), now).dependencies.unwrap();
        assert!(dependencies.is_cacheable(), "{dependencies:?}");
        dependencies.until
    };
    assert_eq!(until(at(1)), at(7), "the destination");
    lists.add(lists.id("two").unwrap(), address(DESTINATION), at(20), at(2));
    assert_eq!(until(at(2)), at(9), "the source");
    lists.set_static_entries(std::iter::once((
        lists.id("one").unwrap(),
        (address(SOURCE), address(SOURCE)),
        Some(at(5)),
    )));
    assert_eq!(until(at(3)), at(5), "a static entry");
    assert_eq!(until(at(5)), at(9), "after that entry");
    assert_eq!(until(at(9)), Time::NEVER, "the source is in no list, and the destination is not asked for");
}

#[test]
fn dependencies_are_current_until_something_that_was_read_changes() {
    let changes = [
        (None, true),
        (Some(StateChange::Sweep), true),
        (Some(StateChange::Add("one", address(SOURCE), 30)), false),
        (Some(StateChange::Remove("one", address(SOURCE))), false),
        (Some(StateChange::Remove("two", address(DESTINATION))), false),
        (Some(StateChange::AddByOperator("two", address(DESTINATION), 30)), false),
        (Some(StateChange::SetStaticEntry("one", address("192.0.2.1"), None)), false),
        (Some(StateChange::Swap), false),
    ];
    for (change, stay_current) in changes {
        let (rules, mut engine) = listed();
        let dependencies = decide(&engine, Side::Outside, &packet(), at(1)).dependencies.unwrap();
        assert!(dependencies.source.is_some() && dependencies.destination.is_some());
        if let Some(change) = &change {
            change.apply(&mut engine, &rules, &Settings::default(), at(2));
        }
        let are_current = |now| dependencies.are_current(&engine.table, &engine.state, now);
        assert_eq!((are_current(at(2)), are_current(at(7))), (stay_current, false), "{change:?}");
    }
}

#[test]
fn each_effect_and_matcher_that_a_cache_cannot_repeat_is_named() {
    let tcp = || Spec::new(SOURCE, Transport::Tcp(40_000, 22), b"x");
    let cases = [
        ("action=add-src-to-address-list address-list=one address-list-timeout=1m", Dependency::Addition),
        ("action=reject reject-with=icmp-network-unreachable", Dependency::Reply),
        ("action=tarpit protocol=tcp", Dependency::Reply),
        ("action=log", Dependency::Log),
        ("action=accept connection-state=new", Dependency::Connection),
        (
            "src-address-list=one action=add-src-to-address-list address-list=two address-list-timeout=1m",
            Dependency::PendingSteps,
        ),
        ("action=accept limit=1,5:packet", Dependency::Limit),
        ("action=accept dst-limit=1,5,dst-address", Dependency::DstLimit),
        ("action=accept nth=2,1", Dependency::Nth),
        ("action=accept random=50", Dependency::Random),
        ("action=accept psd=21,3s,3,1 protocol=tcp", Dependency::Psd),
        ("action=accept connection-limit=1,32 protocol=tcp", Dependency::ConnectionLimit),
        ("action=accept time=0s-1h,mon", Dependency::Time),
        ("action=accept tls-host=*.example.com protocol=tcp", Dependency::Stream),
        ("action=accept content=x", Dependency::Payload),
        ("action=accept ttl=equal:64", Dependency::HeaderField),
        ("action=accept packet-size=0-100", Dependency::Length),
    ];
    for (rule, dependency) in cases {
        let engine = engine(&format!("/ip firewall filter\nadd chain=input {rule}\n"), &Settings::default());
        let dependencies = decide(&engine, Side::Outside, &tcp().frame(), at(1)).dependencies.unwrap();
        assert!(dependencies.set.contains(dependency), "{rule}: {dependencies:?}");
        assert_eq!(dependencies.is_cacheable(), dependency == Dependency::Length, "{rule}: {dependencies:?}");
    }

    let settings = Settings { doors: vec![door("a", &["tcp/7000", "tcp/8000"], &[])], ..Settings::default() };
    let dependencies = decide(&engine("", &settings), Side::Outside, &tcp().frame(), at(1)).dependencies.unwrap();
    assert!(dependencies.set.contains(Dependency::Door) && !dependencies.is_cacheable(), "{dependencies:?}");

    let details = Details { fragment: Some((1, 0, true)), ..Details::default() };
    let fragment = Spec { payload: vec![b'e'; 8], details, ..Spec::new(SOURCE, Transport::Udp(1, 2), b"") };
    let engine = engine("", &Settings::default());
    let dependencies = decide(&engine, Side::Outside, &fragment.frame(), at(1)).dependencies.unwrap();
    assert!(dependencies.set.contains(Dependency::Fragment) && !dependencies.is_cacheable(), "{dependencies:?}");
}

#[test]
fn packets_of_a_run_have_the_dependencies_of_its_first_packet_and_other_frames_have_none() {
    let (_, mut engine) = listed();
    let (packet, other) = (packet(), Spec::new("198.51.100.2", Transport::Tcp(40_000, 22), b"").frame());
    let arp = [&[0xff_u8; 6][..], &[2; 6], &[0x08, 0x06], &[0; 46]].concat();
    engine.decide(Side::Outside, &[&arp, &packet, &packet, &arp, &packet, &other, &other], at(1));
    let until: Vec<_> = (0..8).map(|frame| engine.decider.dependencies(frame).map(|it| it.until)).collect();
    let (of_packet, of_other) = (Some(at(7)), Some(Time::NEVER));
    assert_eq!(until, [None, of_packet, of_packet, None, of_packet, of_other, of_other, None]);
    assert_eq!(engine.rule_packets(), [3]);
}

/// The explanation names a rule exactly if the kernel cannot carry the flow of an accepted packet.
#[test]
fn the_explanation_knows_whether_the_kernel_carries_a_flow() {
    let rules = reference::rules().prop_map(|mut rules| {
        // Without it, this packet alone decides, and not the state of its connection.
        rules.tracking.enabled = TrackingMode::No;
        // Of several such conditions, the explanation knows only the first in RouterOS's order.
        let is_exact = |rule: &Rule| rule.matchers.iter().filter(|matcher| is_late(&matcher.condition)).count() < 2;
        rules.rules.retain(is_exact);
        rules
    });
    let spec = reference::spec().prop_filter("a whole UDP packet", |spec| {
        matches!(spec.transport, Transport::Udp(..)) && !spec.frame().is_empty()
    });
    let settings = reference::settings().prop_map(|settings| Settings { doors: Vec::new(), ..settings });
    let [carried, kept] = [AtomicU32::new(0), AtomicU32::new(0)];
    let run = TestRunner::new(cases(500)).run(&(rules, settings, spec), |(rules, settings, spec)| {
        let engine = Engine::new(rules.clone(), &settings);
        let (frame, now) = (spec.frame(), Time::from_nanos(5));
        let packet = spec.packet(Side::Outside, &frame);
        let explanation = Evaluator::new(&rules, &settings, SECRET[0]).explain(&packet, now);
        let reason = explanation.workers_decide(&rules, &packet);
        let mut decider = Decider::new(max_frame(1500), SECRET[0]);
        decider.keep_flow_decisions(true);
        let Engine { table, state, counters, logged, .. } = &engine;
        let decision =
            decider.decide(Side::Outside, &[&frame], now, Context { table, state, counters, logged, wall: 0 })[0];
        if decision.verdict == Verdict::Forward && packet.fragment() == Some(FragmentPart::Whole) {
            let is_carried = decider.flow_decision(0).is_some();
            prop_assert_eq!(is_carried, reason.is_none(), "{:?} {:?}", reason, decider.dependencies(0));
            if is_carried { &carried } else { &kept }.fetch_add(1, Relaxed);
        }
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    let [carried, kept] = [carried, kept].map(AtomicU32::into_inner);
    assert!(carried > 20 && kept > 20, "{carried} flows are carried, {kept} are not");
}

/// Whether the condition reads state other than lists and the connection's state, or contents.
fn is_late(condition: &Condition) -> bool {
    matches!(
        condition,
        Condition::Layer7(_)
            | Condition::Content(_)
            | Condition::TlsHost(_)
            | Condition::Time { .. }
            | Condition::ConnectionBytes { .. }
            | Condition::ConnectionRate(_)
            | Condition::ConnectionLimit { .. }
            | Condition::Psd { .. }
            | Condition::Random(_)
            | Condition::PerConnectionClassifier { .. }
            | Condition::Nth { .. }
            | Condition::Limit(_)
            | Condition::DstLimit { .. }
    )
}
