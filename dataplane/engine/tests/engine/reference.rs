//! The engine against the plain linear evaluation, for any rules and packets.
//!
//! There are few addresses, ports, sizes and lists, so that rules match packets and share state. The reference gets
//! each packet in its typed form, the engine as a frame that etherparse built.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use knockplane_engine::state::doors::DoorTally;
use knockplane_engine::state::events::logged::LoggedMatch;
use knockplane_engine::state::events::ring::Cursor;
use knockplane_policy::door::ports::PortBudget;
use knockplane_policy::door::{self, Attempts, Door, KnockStep, What};
use knockplane_policy::eval::{Evaluator, ListedAddress};
use knockplane_policy::event::EventKind;
use knockplane_policy::packet::{Family, Side};
use knockplane_policy::rule::{
    Action, AddressSet, Bytes, ClassifierFields, Comparison, Condition, Direction, EntryAddress, ExtensionHeader,
    InterfaceKind, Ipv4Option, Layer7Pattern, LimitMode, ListAdd, ListTimeout, Log, MacAddress, Matcher, PortSet, Rate,
    RateUnit, RejectWith, Relation, Rule, RuleFileEntry, RuleSet, Table, TcpFlag, Tracking, TrackingMode, Weekday,
};
use knockplane_policy::settings::{
    ChainDefaults, Choice, FrameClasses, FrameRate, Padding, Settings, SideChoice, Vlans,
};
use knockplane_policy::time::Time;
use knockplane_policy::wire::Counter;
use knockplane_policy::word::{Set, Word};
use proptest::prelude::*;
use proptest::sample::select;

use crate::common::{Details, Engine, SECRET, Spec, Transport, cases, events, live, seconds};
use crate::conversation::conversation;

const LISTS: [&str; 4] = ["one", "two", "three", "only read"];

/// Chains in order. Jumps lead only to later chains, so there is no circle.
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

fn set_of<T: Word>() -> impl Strategy<Value = Set<T>> {
    prop_oneof![
        1 => Just(Set::EMPTY),
        6 => prop::collection::vec(select(T::ALL.to_vec()), 1..4).prop_map(|words| words.into_iter().collect()),
    ]
}

fn comparison() -> impl Strategy<Value = Comparison> {
    (select(Relation::ALL.to_vec()), 62..66_u8).prop_map(|(relation, value)| Comparison { relation, value })
}

fn rate() -> impl Strategy<Value = Rate> {
    let unit = prop_oneof![3 => Just(RateUnit::Packet), 1 => Just(RateUnit::Bit)];
    (1..400_u64, 1..3_u64, 0..4_u64, unit).prop_map(|(count, per, burst, unit)| {
        let burst = if unit == RateUnit::Bit { burst * 400 } else { burst };
        Rate { count, per: seconds(per), burst, unit }
    })
}

/// The conditions that need only headers.
fn header_condition() -> impl Strategy<Value = Condition> {
    let side = select(vec!["outside", "inside"]);
    let flags = (set_of::<TcpFlag>(), set_of::<TcpFlag>());
    let headers = (set_of::<ExtensionHeader>(), any::<bool>());
    prop_oneof![
        2 => address_set().prop_map(Condition::SrcAddress),
        2 => address_set().prop_map(Condition::DstAddress),
        2 => select(vec![6_u8, 17, 1, 58, 47]).prop_map(Condition::Protocol),
        1 => sizes().prop_map(Condition::PacketSize),
        1 => ports().prop_map(Condition::SrcPort),
        3 => ports().prop_map(Condition::DstPort),
        1 => ports().prop_map(Condition::AnyPort),
        1 => (7..9_u8, 0..3_u8, 0..3_u8)
            .prop_map(|(kind, first, last)| Condition::IcmpOptions { kind, codes: first..=last }),
        1 => (1..4_u8).prop_map(|last| Condition::SrcMacAddress(MacAddress([2, 0, 0, 0, 0, last]))),
        1 => (select(Direction::ALL.to_vec()), select(InterfaceKind::ALL.to_vec()), side)
            .prop_map(|(direction, kind, name)| Condition::Interface { direction, kind, name: name.to_owned() }),
        1 => set_of().prop_map(Condition::SrcAddressType),
        1 => set_of().prop_map(Condition::DstAddressType),
        1 => comparison().prop_map(Condition::Ttl),
        1 => comparison().prop_map(Condition::HopLimit),
        1 => (0..3_u8).prop_map(Condition::Dscp),
        1 => (0..9_u8, 0..9_u8).prop_map(|(value, mask)| Condition::Tos { value, mask }),
        1 => select(Ipv4Option::ALL.to_vec()).prop_map(Condition::Ipv4Options),
        1 => headers.prop_map(|(headers, exact)| Condition::Headers { headers, exact }),
        2 => any::<bool>().prop_map(Condition::Fragment),
        2 => flags.prop_map(|(set, clear)| Condition::TcpFlags { set, clear }),
        1 => (0..2_u16).prop_map(|mss| Condition::TcpMss(mss..=1460)),
        1 => (0..2_u8).prop_map(Condition::Priority),
        1 => any::<bool>().prop_map(|ipsec| Condition::IpsecPolicy { direction: Direction::In, ipsec }),
        1 => set_of().prop_map(Condition::ConnectionNatState),
    ]
}

/// The conditions that need state, or are expensive.
fn state_condition() -> impl Strategy<Value = Condition> {
    let mode = select(LimitMode::ALL.to_vec());
    let classifier = (select(ClassifierFields::ALL.to_vec()), 1..4_u32, 0..3_u32);
    let time = (0..4_u64, 0..4_u64, set_of::<Weekday>());
    prop_oneof![
        4 => list().prop_map(Condition::SrcAddressList),
        3 => list().prop_map(Condition::DstAddressList),
        2 => select(vec!["open", "any"]).prop_map(|pattern| Condition::Layer7(pattern.to_owned())),
        1 => select(vec![&b"open"[..], b"e", b""]).prop_map(|bytes| Condition::Content(Bytes(bytes.to_vec()))),
        1 => select(vec!["*.example.com", "www.*"]).prop_map(|name| Condition::TlsHost(name.to_owned())),
        1 => time.prop_map(|(from, to, days)| Condition::Time { from: seconds(from), to: seconds(to), days }),
        4 => set_of().prop_map(Condition::ConnectionState),
        1 => (0..200_u64, prop::option::of(0..200_u64)).prop_map(|(from, to)| Condition::ConnectionBytes { from, to }),
        1 => (0..2000_u64).prop_map(|rate| Condition::ConnectionRate(1..=rate)),
        1 => (0..3_u32, select(vec![0_u8, 24, 31, 32, 128]))
            .prop_map(|(count, prefix_length)| Condition::ConnectionLimit { count, prefix_length }),
        1 => (1..4_u32, 0..3_u64, 0..3_u32, 0..3_u32).prop_map(|(weight, delay, low_weight, high_weight)| {
            Condition::Psd { weight, delay: seconds(delay), low_weight, high_weight }
        }),
        1 => select(vec![0_u8, 50, 100]).prop_map(Condition::Random),
        1 => (1..4_u32, 1..4_u32).prop_map(|(every, packet)| Condition::Nth { every, packet }),
        1 => classifier.prop_map(|(fields, denominator, remainder)| {
            Condition::PerConnectionClassifier { fields, denominator, remainder }
        }),
        2 => rate().prop_map(Condition::Limit),
        1 => (rate(), mode, 1..3_u64).prop_map(|(rate, mode, expire)| {
            Condition::DstLimit { rate, mode, expire: seconds(expire) }
        }),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![3 => header_condition(), 2 => state_condition()]
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
    // Jumps lead to chains from index 3 on, and never to a built-in chain.
    let target = (chain.max(2) + 1..CHAINS.len()).prop_map(|target| CHAINS[target].to_owned());
    prop_oneof![
        2 => Just(Action::Accept),
        2 => Just(Action::Drop),
        1 => Just(Action::Passthrough),
        1 => Just(Action::Log),
        1 => select(RejectWith::ALL.to_vec()).prop_map(Action::Reject),
        1 => Just(Action::Tarpit),
        1 => Just(Action::FasttrackConnection),
        1 => Just(Action::Notrack),
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
    let [v6, raw, disabled, logs] = [0.3, 0.2, 0.1, 0.1].map(prop::bool::weighted);
    (rule, matchers, v6, raw, disabled, logs).prop_map(|((chain, action), matchers, v6, raw, disabled, logs)| {
        let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
        let log = logs.then(|| Log { prefix: "told".to_owned() });
        let (table, chain) = match CHAINS[chain] {
            "forward" | "input" if raw => (Table::Raw, "prerouting"),
            chain if raw => (Table::Raw, chain),
            chain => (Table::Filter, chain),
        };
        Rule { table, matchers, disabled, log, ..Rule::new(family, chain, action) }
    })
}

fn entry() -> impl Strategy<Value = RuleFileEntry> {
    let timeout = prop::option::of((1..4_u64).prop_map(seconds));
    (address_set(), list(), timeout, prop::bool::weighted(0.2)).prop_map(|(set, list, timeout, disabled)| {
        let first = match &set {
            AddressSet::Prefix(net) => net.network(),
            AddressSet::Range(first, _) => *first,
        };
        let (family, address, comment) = (Family::of(first), EntryAddress::Set(set), String::new());
        RuleFileEntry { family, list, address, timeout, disabled, comment, line: 0 }
    })
}

fn tracking() -> impl Strategy<Value = Tracking> {
    let enabled = select(vec![TrackingMode::Auto, TrackingMode::Auto, TrackingMode::Yes, TrackingMode::No]);
    (enabled, any::<bool>()).prop_map(|(enabled, loose_tcp)| Tracking {
        enabled,
        loose_tcp,
        tcp_syn_sent: seconds(2),
        udp: seconds(3),
        ..Tracking::default()
    })
}

pub(crate) fn rules() -> impl Strategy<Value = RuleSet> {
    let pattern = |name: &str, regexp: &str| Layer7Pattern {
        name: name.to_owned(),
        regexp: regexp.to_owned(),
        comment: String::new(),
        line: 0,
    };
    let layer7 = vec![pattern("open", "^open$"), pattern("any", "e")];
    let entries = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(entry(), 1..5)];
    let local = select(vec![vec![], vec!["10.0.0.1/24".parse().unwrap()]]);
    (prop::collection::vec(rule(), 0..16), entries, tracking(), local).prop_map(
        move |(rules, address_lists, tracking, local_addresses)| RuleSet {
            layer7: layer7.clone(),
            rules,
            address_lists,
            tracking,
            local_addresses,
            ..RuleSet::default()
        },
    )
}

fn door(name: &'static str) -> impl Strategy<Value = Door> {
    let steps = ["tcp/1", "tcp/2", "tcp/1 syn", "udp/1", "udp/2", "udp/2 \"open\"", "icmp"];
    let step = select(steps.map(|step| step.parse::<KnockStep>().unwrap()).to_vec());
    let steps = |most| prop::collection::vec(step.clone(), 1..most);
    let close = prop_oneof![2 => Just(Vec::new()), 1 => steps(3)];
    let times = (1..4_u64, 1..6_u64, 1..5_u64, 0..3_u64);
    let opens = prop_oneof![
        Just(Vec::new()),
        Just(vec!["tcp/3,1".parse().unwrap(), "udp/1-9".parse().unwrap()]),
        Just(vec!["icmp".parse().unwrap()]),
    ];
    let sources = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(address_set(), 1..3)];
    let attempts = prop::option::weighted(0.3, (1..3_u8, 1..4_u64));
    let [strict, cut] = [0.6, 0.3].map(prop::bool::weighted);
    (steps(4), close, times, opens, sources, attempts, strict, cut).prop_map(
        |(knock, close, (within, total, open_for, hold_off), opens, sources, attempts, strict, cut)| Door {
            name: name.to_owned(),
            knock,
            close,
            within: seconds(within),
            total: seconds(total),
            opens,
            open_for: seconds(open_for),
            strict,
            hold_off: seconds(hold_off),
            sources,
            max_attempts: attempts.map(|(count, per)| Attempts { count, per: seconds(per) }),
            log: true,
            cut,
        },
    )
}

fn doors() -> impl Strategy<Value = (Vec<Door>, PortBudget)> {
    let budget = (select(vec![0_u8, 2, 32]), 1..4_u64, 1..4_u64).prop_map(|(ports, within, ignore_for)| PortBudget {
        ports,
        within: seconds(within),
        ignore_for: seconds(ignore_for),
    });
    let doors = prop_oneof![
        1 => Just(Vec::new()),
        1 => door("a").prop_map(|door| vec![door]),
        1 => (door("a"), door("b")).prop_map(|(one, other)| vec![one, other]),
    ];
    (doors, budget)
}

fn frames() -> impl Strategy<Value = FrameClasses> {
    let choice = || {
        let choices = vec![Choice::Accept, Choice::Accept, Choice::Drop];
        (select(choices.clone()), select(choices)).prop_map(|(outside, inside)| SideChoice { outside, inside })
    };
    let rate = select(vec![FrameRate::OFF, FrameRate::default(), FrameRate::per_second(1).unwrap()]);
    let outside = select(vec![vec![], vec!["10.0.0.2/32".parse().unwrap()]]);
    let more = (rate, select(vec![Padding::Zero, Padding::Any]), outside);
    (choice(), choice(), choice(), choice(), more).prop_map(
        |(arp, neighbour_discovery, router_advertisement, unknown, (rate, padding, outside_addresses))| FrameClasses {
            arp,
            neighbour_discovery,
            router_advertisement,
            redirect: router_advertisement,
            unknown,
            rate,
            padding,
            outside_addresses,
            ..FrameClasses::default()
        },
    )
}

pub(crate) fn settings() -> impl Strategy<Value = Settings> {
    let choice = || select(vec![Choice::Accept, Choice::Drop]);
    let some = ["10.0.0.0/24", "fd00::1/128"].map(|prefix| prefix.parse().unwrap()).to_vec();
    let protect = prop_oneof![Just(Settings::default().protect), Just(some), Just(Vec::new())];
    let choices = (choice(), choice(), choice());
    let vlans = select(vec![Vlans::Separate, Vlans::Separate, Vlans::Shared, Vlans::SeparateLists]);
    (protect, choices, frames(), doors(), vlans).prop_map(
        |(protect, (input, forward, output), frames, doors, vlans)| Settings {
            protect,
            vlans,
            frames,
            doors: doors.0,
            port_budget: doors.1,
            chain_default: ChainDefaults { input, forward, output },
            ..Settings::default()
        },
    )
}

/// The network of a frame: the number of tags, their VLANs, the outer tag's priority, the session. Mostly there is no
/// tag. Otherwise the frame is in one of a few networks with the same addresses, some of which differ only in one tag,
/// in the order of tags, or in the session; or it has a tag without a VLAN.
pub(crate) fn network() -> impl Strategy<Value = (usize, [u16; 2], u8, u16)> {
    let vlans = select(vec![[7_u16, 8], [8, 7], [7, 7], [0, 7], [7, 0]]);
    let session = select(vec![0_u16, 0, 0, 7, 8]);
    prop_oneof![
        2 => Just((0, [0, 0], 0, 0)),
        3 => (0..3_usize, vlans, 0..2_u8, session),
    ]
}

fn details() -> impl Strategy<Value = Details> {
    // Mostly the flags of connections: SYN, SYN-ACK, ACK, FIN-ACK, RST; and flags that no host sends.
    let flags = prop_oneof![8 => select(vec![0x02_u8, 0x12, 0x10, 0x11, 0x04]), 1 => any::<u8>()];
    let fragment = prop::option::weighted(0.2, (0..3_u16, select(vec![0_u16, 3]), any::<bool>()));
    // Few and small numbers, so that many are in windows, acknowledge each other, or are exactly the next ones.
    let numbers = (0..9_u32, prop_oneof![8 => 0..9_u32, 1 => any::<u32>()], prop::bool::weighted(0.1));
    (1..4_u8, 62..66_u8, select(vec![0_u8, 4, 8, 9]), flags, numbers, fragment).prop_map(
        |(mac, ttl, tos, flags, (sequence, acknowledgement, broken), fragment)| Details {
            mac,
            ttl,
            tos,
            flags,
            sequence,
            acknowledgement,
            broken,
            fragment,
            ..Details::default()
        },
    )
}

pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    let port = || 0..4_u16;
    let transport = prop_oneof![
        3 => (port(), port()).prop_map(|(source, destination)| Transport::Tcp(source, destination)),
        2 => (port(), port()).prop_map(|(source, destination)| Transport::Udp(source, destination)),
        1 => (7..9_u8, 0..3_u8).prop_map(|(kind, code)| Transport::Icmp(kind, code)),
        1 => Just(Transport::Other(47)),
    ];
    let payload = select(vec![&b""[..], b"open", b"O\0PEN", b"opened", b"\0", b"op", b"en", b"www.example.com"]);
    (address(), address(), transport, payload, (network(), 0..8_usize, details())).prop_map(
        |(source, other, transport, payload, ((tags, vlans, priority, session), padding, details))| {
            let mut details = Details { vlans, priority, session, ..details };
            // A fragment consists of units of eight bytes.
            let payload = match details.fragment {
                Some(_) if payload.is_empty() => vec![b'e'; 8],
                Some(_) => payload.repeat(8),
                None => payload.to_vec(),
            };
            let is_tcp = matches!(transport, Transport::Tcp(..));
            if let Some((_, offset, more)) = &mut details.fragment {
                // The reader refuses a fragment that starts in a TCP header, or that has an incomplete unit at its end.
                *more &= !is_tcp;
                *offset = if *more { *offset } else { 3 };
            }
            // Sometimes source and destination are equal, and therefore in the same lists.
            let destination = if Family::of(other) == Family::of(source) { other } else { source };
            Spec { source, destination, transport, payload, tags, padding, details }
        },
    )
}

/// A run of mostly equal frames, as in bursts. The last one may differ in its payload, or in its network.
fn burst() -> impl Strategy<Value = Vec<Spec>> {
    let elsewhere = prop::option::weighted(0.3, network());
    (spec(), 1..4_usize, any::<bool>(), elsewhere).prop_map(|(spec, count, says_other, elsewhere)| {
        let mut burst = vec![spec; count];
        if let Some(last) = burst.last_mut().filter(|_| says_other) {
            last.payload.reverse();
        }
        if let (Some(last), Some((tags, vlans, priority, session))) = (burst.last_mut(), elsewhere) {
            last.tags = tags;
            last.details = Details { vlans, priority, session, ..last.details };
        }
        burst
    })
}

/// The time before a batch, and the batch on one side.
pub(crate) type Turn = (Duration, Side, Vec<Spec>);

pub(crate) fn pause() -> impl Strategy<Value = Duration> {
    select(vec![0, 1, 999_999_999, 1_000_000_000, 2_000_000_000]).prop_map(Duration::from_nanos)
}

pub(crate) fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let side = prop_oneof![3 => Just(Side::Outside), 1 => Just(Side::Inside)];
    let any = (pause(), side, prop::collection::vec(burst(), 1..6).prop_map(|bursts| bursts.concat()));
    let turns = prop_oneof![4 => any.prop_map(|turn| vec![turn]), 1 => conversation()];
    prop::collection::vec(turns, 0..10).prop_map(|turns| turns.concat())
}

/// `steps` is the number of steps of the knock.
fn note(tally: &mut DoorTally, what: What, steps: usize) {
    match what {
        What::Stepped(step) => tally.steps[usize::from(step) - 1] += 1,
        What::Opened => {
            tally.opened += 1;
            tally.steps[steps - 1] += 1;
        }
        What::Closed => tally.closed += 1,
        What::Failed(failure) => tally.failed[failure as usize] += 1,
    }
}

/// Runs the engine and the reference, and compares all observable results.
fn assert_equal(rules: &RuleSet, settings: &Settings, turns: &[Turn]) {
    let mut engine = Engine::new(rules.clone(), settings);
    let mut cursor = Cursor::after(0);
    let rules = &door::rules(settings, rules.clone());
    let levels = knockplane_policy::level::levels(rules, &settings.doors);
    let mut tallies = BTreeMap::<String, DoorTally>::new();
    let mut plain = Evaluator::new(rules, settings, SECRET[0]);
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
        let mut logged = Vec::new();
        for (index, ((spec, frame), decision)) in specs.iter().zip(&frames).zip(decisions).enumerate() {
            let packet = spec.packet(*side, frame);
            let expected = plain.evaluate(&packet, now);
            assert_eq!((decision.verdict, decision.reason), (expected.verdict, expected.reason), "{spec:?}");
            let network = usize::from(packet.network);
            let reply = engine.decider.reply(index).map(|reply| reply[network..].to_vec());
            assert_eq!(reply.as_ref(), expected.replies.first(), "{spec:?}");
            let count = |counter: &mut Counter| {
                counter.packets += 1;
                counter.bytes += u64::from(packet.ip_length);
            };
            expected.matched.iter().for_each(|rule| count(&mut counters[*rule]));
            if expected.reason == knockplane_policy::reason::Reason::ChainDefault {
                count(&mut defaults[settings.chain(&packet) as usize]);
            }
            for event in expected.doors {
                let steps =
                    settings.doors.iter().find(|door| door.name == event.door).map_or(0, |door| door.knock.len());
                note(tallies.entry(event.door).or_default(), event.what, steps);
            }
            logged.extend(expected.logged.into_iter().map(|logged| (logged.rule, logged.text)));
        }

        // Static entries of the rules are not in the engine's lists, but in its table.
        let lasting = |list: &str, address: IpAddr| {
            let holds = |entry: &RuleFileEntry| match &entry.address {
                EntryAddress::Set(set) => set.contains(address),
                EntryAddress::Name(_) | EntryAddress::None => false,
            };
            let of_list = rules.address_lists.iter().filter(|entry| entry.list == list && !entry.disabled);
            of_list.filter(|entry| entry.timeout.is_none()).any(holds)
        };
        let mut live = live(&engine.state.lists, now);
        // For a source that is in a door's list for several destinations: the entry that expires last.
        live.reverse();
        live.dedup_by_key(|entry| (entry.list.clone(), entry.address, entry.vlan));
        live.reverse();
        let mut expected = plain.listed(now);
        expected.retain(|entry| !lasting(&entry.list, entry.address));
        assert_eq!(live, expected);
        let added =
            events(&engine.state.lists, &mut cursor).into_iter().filter(|event| event.kind == EventKind::Listed);
        let added = added.map(|event| event.entry);
        let told: Vec<_> =
            added.map(|entry| (engine.state.lists.name(entry.list).unwrap(), entry.address, entry.vlan)).collect();
        let mut lines = Vec::new();
        while let Some(LoggedMatch { rule, packet }) = engine.logged.pop() {
            let rule = rule.rule as usize;
            let prefix = rules.rules[rule].log.as_ref().map_or("", |log| &log.prefix);
            lines.push((rule, packet.line(prefix, &rules.rules[rule].chain)));
        }
        assert_eq!(lines, logged);
        for ListedAddress { list, address, vlan, .. } in &expected {
            let knew = before.iter().any(|entry| (&entry.list, entry.address, entry.vlan) == (list, *address, *vlan));
            let of_door = settings.doors.iter().any(|door| list.starts_with(&door.open_list()));
            let Some(level) = levels.get(list).filter(|_| !of_door) else { continue };
            let was_told = told.contains(&(list.clone(), *address, *vlan));
            assert!(knew || *level == 0 || was_told, "nobody was told of {address} in {list}");
            assert!(!(*level == 0 && was_told), "a first step is no news: {address} in {list}");
        }
    }
    let (mut counted, mut counted_defaults) = (vec![Counter::default(); rules.rules.len()], [Counter::default(); 3]);
    engine.counters.add_rules_to(&mut counted);
    engine.counters.add_defaults_to(&mut counted_defaults);
    assert_eq!((counted, counted_defaults), (counters, defaults));
    for door in &settings.doors {
        let counts = engine.state.visitors().unwrap().counts(&door.name);
        assert_eq!(counts.tally(), tallies.remove(&door.name).unwrap_or_default(), "{}", door.name);
    }
    if let Some(flows) = engine.state.connections() {
        let known: BTreeMap<String, bool> =
            flows.known(now).into_iter().map(|(key, both)| (format!("{key:?}"), both)).collect();
        let expected: BTreeMap<String, bool> =
            plain.connections(now).into_iter().map(|(key, both)| (format!("{key:?}"), both)).collect();
        assert_eq!(known, expected);
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn the_engine_decides_as_the_reference_does(rules in rules(), settings in settings(), turns in turns()) {
        assert_equal(&rules, &settings, &turns);
    }
}
