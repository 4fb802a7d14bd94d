//! The engine against the plain linear evaluation, for any rules and packets.
//!
//! Few addresses, ports, sizes and lists, so that rules meet packets and each other. The reference sees each packet as
//! it was meant, the engine as a frame that etherparse built.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use knockplane_engine::events::Event;
use knockplane_policy::eval::Evaluator;
use knockplane_policy::packet::{Family, Side};
use knockplane_policy::rule::{
    Action, AddressSet, Condition, Layer7Pattern, ListAdd, ListTimeout, Matcher, PortSet, Rule, RuleSet,
};
use knockplane_policy::settings::{ChainDefaults, Choice, Settings};
use knockplane_policy::time::Time;
use knockplane_policy::wire::Counter;
use proptest::prelude::*;
use proptest::sample::select;

use crate::common::{Engine, Spec, Transport, cases, seconds};

const LISTS: [&str; 4] = ["one", "two", "three", "only read"];

/// Chains in an order: jumps lead to later ones, so never in a circle.
const CHAINS: [&str; 7] = ["forward", "input", "output", "knock", "ladder", "last", "without rules"];

fn address() -> impl Strategy<Value = IpAddr> {
    let addresses = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::1", "fd00::2", "::ffff:10.0.0.1"];
    select(addresses.map(|address| address.parse().unwrap()).to_vec())
}

fn address_set() -> impl Strategy<Value = AddressSet> {
    let prefixes = ["10.0.0.0/24", "10.0.0.2/32", "10.0.1.77/31", "0.0.0.0/0", "fd00::/127", "fd00::2/128", "::/0"];
    prop_oneof![
        select(prefixes.map(|prefix| AddressSet::Prefix(prefix.parse().unwrap())).to_vec()),
        (address(), address()).prop_map(|(one, other)| match Family::of(one) == Family::of(other) {
            true => AddressSet::Range(one, other),
            false => AddressSet::Range(one, one),
        }),
    ]
}

fn ports() -> impl Strategy<Value = PortSet> {
    let range = (0..4_u16, 0..3_u16).prop_map(|(first, more)| first..=first + more);
    prop::collection::vec(range, 0..3).prop_map(PortSet)
}

fn sizes() -> impl Strategy<Value = RangeInclusive<u16>> {
    let size = || select(vec![0_u16, 20, 28, 40, 41, 48, 60, 61, u16::MAX]);
    (size(), size()).prop_map(|(first, last)| first..=last)
}

fn list() -> impl Strategy<Value = String> {
    select(LISTS.to_vec()).prop_map(str::to_owned)
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        2 => address_set().prop_map(Condition::SrcAddress),
        2 => address_set().prop_map(Condition::DstAddress),
        2 => select(vec![6_u8, 17, 1, 58, 47]).prop_map(Condition::Protocol),
        4 => list().prop_map(Condition::SrcAddressList),
        3 => list().prop_map(Condition::DstAddressList),
        1 => sizes().prop_map(Condition::PacketSize),
        1 => ports().prop_map(Condition::SrcPort),
        3 => ports().prop_map(Condition::DstPort),
        1 => ports().prop_map(Condition::AnyPort),
        1 => (7..9_u8, 0..3_u8, 0..3_u8).prop_map(|(kind, first, last)| Condition::IcmpOptions { kind, codes: first..=last }),
        1 => select(vec!["open", "any"]).prop_map(|pattern| Condition::Layer7(pattern.to_owned())),
    ]
}

fn action(chain: usize) -> impl Strategy<Value = Action> {
    let timeout = prop_oneof![
        8 => (1..5_u64).prop_map(|time| ListTimeout::After(seconds(time))),
        1 => Just(ListTimeout::After(Duration::ZERO)),
        1 => Just(ListTimeout::NoneDynamic),
        1 => Just(ListTimeout::NoneStatic),
    ];
    let add =
        (select(LISTS[..3].to_vec()), timeout).prop_map(|(list, timeout)| ListAdd { list: list.to_owned(), timeout });
    // From any built-in chain only to the others' successors: index 3 and behind.
    let target = (chain.max(2) + 1..CHAINS.len()).prop_map(|target| CHAINS[target].to_owned());
    prop_oneof![
        2 => Just(Action::Accept),
        2 => Just(Action::Drop),
        1 => Just(Action::Passthrough),
        6 => add.clone().prop_map(Action::AddSrcToAddressList),
        3 => add.prop_map(Action::AddDstToAddressList),
        4 => target.prop_map(Action::Jump),
        1 => Just(Action::Return),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    // The last chain has no rules.
    let chain = prop_oneof![3 => Just(1_usize), 3 => 0..CHAINS.len() - 1];
    let matcher =
        (prop::bool::weighted(0.25), condition()).prop_map(|(negated, condition)| Matcher { negated, condition });
    let matchers = prop::collection::vec(matcher, 0..4);
    let rule = chain.prop_flat_map(|chain| (Just(chain), action(chain)));
    (rule, matchers, prop::bool::weighted(0.3), prop::bool::weighted(0.1)).prop_map(
        |((chain, action), matchers, v6, disabled)| {
            let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
            Rule { matchers, disabled, ..Rule::new(family, CHAINS[chain], action) }
        },
    )
}

fn rules() -> impl Strategy<Value = RuleSet> {
    let pattern = |name: &str, regexp: &str| Layer7Pattern {
        name: name.to_owned(),
        regexp: regexp.to_owned(),
        comment: String::new(),
        line: 0,
    };
    let layer7 = vec![pattern("open", "^open$"), pattern("any", "e")];
    prop::collection::vec(rule(), 0..16).prop_map(move |rules| RuleSet {
        layer7: layer7.clone(),
        rules,
        ..RuleSet::default()
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let choice = || select(vec![Choice::Accept, Choice::Drop]);
    let some = ["10.0.0.0/24", "fd00::1/128"].map(|prefix| prefix.parse().unwrap()).to_vec();
    let protect = prop_oneof![Just(Settings::default().protect), Just(some), Just(Vec::new())];
    (protect, choice(), choice(), choice()).prop_map(|(protect, input, forward, output)| Settings {
        protect,
        chain_default: ChainDefaults { input, forward, output },
        ..Settings::default()
    })
}

fn spec() -> impl Strategy<Value = Spec> {
    let port = || 0..4_u16;
    let transport = prop_oneof![
        3 => (port(), port()).prop_map(|(source, destination)| Transport::Tcp(source, destination)),
        2 => (port(), port()).prop_map(|(source, destination)| Transport::Udp(source, destination)),
        1 => (7..9_u8, 0..3_u8).prop_map(|(kind, code)| Transport::Icmp(kind, code)),
        1 => Just(Transport::Other(47)),
    ];
    let payload = select(vec![&b""[..], b"open", b"O\0PEN", b"opened", b"\0"]);
    (address(), address(), transport, payload, 0..3_usize, 0..8_usize).prop_map(
        |(source, other, transport, payload, tags, padding)| {
            // Sometimes to itself: both its addresses are in the same lists then.
            let destination = if Family::of(other) == Family::of(source) { other } else { source };
            Spec { source, destination, transport, payload: payload.to_vec(), tags, padding }
        },
    )
}

/// Frames in a row: mostly alike, as in bursts; the last one perhaps in all but what it says.
fn burst() -> impl Strategy<Value = Vec<Spec>> {
    (spec(), 1..4_usize, any::<bool>()).prop_map(|(spec, count, says_other)| {
        let mut burst = vec![spec; count];
        if let Some(last) = burst.last_mut().filter(|_| says_other) {
            last.payload.reverse();
        }
        burst
    })
}

/// Time that passes, then a batch on one side.
type Turn = (Duration, Side, Vec<Spec>);

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let pause = select(vec![0, 1, 999_999_999, 1_000_000_000, 2_000_000_000]).prop_map(Duration::from_nanos);
    let side = prop_oneof![3 => Just(Side::Outside), 1 => Just(Side::Inside)];
    prop::collection::vec((pause, side, prop::collection::vec(burst(), 1..6).prop_map(|bursts| bursts.concat())), 0..10)
}

/// Runs both and compares everything that can be seen.
fn assert_equal(rules: &RuleSet, settings: &Settings, turns: &[Turn]) {
    let mut engine = Engine::new(rules.clone(), settings);
    let levels = knockplane_policy::level::levels(rules);
    let mut plain = Evaluator::new(rules, settings, 0);
    let mut counters = vec![Counter::default(); rules.rules.len()];
    let mut defaults = [Counter::default(); 3];
    let mut now = Time::from_nanos(5);
    for (pause, side, specs) in turns {
        now = now + *pause;
        let before = plain.lists().live(now);
        let frames: Vec<Vec<u8>> = specs.iter().map(Spec::frame).collect();
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let decisions = engine.decide(*side, &frames, now).to_vec();
        assert_eq!(decisions.len(), specs.len());
        for ((spec, frame), decision) in specs.iter().zip(&frames).zip(decisions) {
            let packet = spec.packet(*side, frame);
            let expected = plain.evaluate(&packet, now);
            assert_eq!((decision.verdict, decision.reason), (expected.verdict, expected.reason), "{spec:?}");
            let count = |counter: &mut Counter| {
                counter.packets += 1;
                counter.bytes += u64::from(packet.ip_length);
            };
            expected.matched.iter().for_each(|rule| count(&mut counters[*rule]));
            if expected.reason == knockplane_policy::reason::Reason::ChainDefault {
                count(&mut defaults[settings.chain(&packet) as usize]);
            }
        }

        let (entries, _) = engine.lists.entries(None, usize::MAX, now);
        let live: Vec<_> = entries.into_iter().map(|entry| (entry.list, entry.address, entry.time_left)).collect();
        let expected = plain.lists().live(now);
        assert_eq!(live, expected);
        let told: Vec<_> = std::iter::from_fn(|| engine.events.pop())
            .map(|Event::Listed { list, address, .. }| (engine.lists.name(list).unwrap(), address))
            .collect();
        for (list, address, _) in &expected {
            let knew = before.iter().any(|entry| (&entry.0, entry.1) == (list, *address));
            let first_step = levels[list] == 0;
            let was_told = told.contains(&(list.clone(), *address));
            assert!(knew || first_step || was_told, "nobody was told of {address} in {list}");
            assert!(!(first_step && was_told), "a first step is no news: {address} in {list}");
        }
    }
    let (mut counted, mut counted_defaults) = (vec![Counter::default(); rules.rules.len()], [Counter::default(); 3]);
    engine.counters.add_rules_to(&mut counted);
    engine.counters.add_defaults_to(&mut counted_defaults);
    assert_eq!((counted, counted_defaults), (counters, defaults));
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn the_engine_decides_as_the_reference_does(rules in rules(), settings in settings(), turns in turns()) {
        assert_equal(&rules, &settings, &turns);
    }
}
