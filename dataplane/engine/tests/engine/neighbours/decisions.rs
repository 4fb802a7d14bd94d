//! The engine's decisions about ARP and neighbour discovery: classes, claims and rates. No rule widens them.

use std::thread;

use knockplane_engine::headers::max_frame;
use knockplane_engine::pipeline::{BATCH, Context, Decider, Decision};
use knockplane_policy::frames::FrameClass;
use knockplane_policy::packet::{Family, Side};
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rule::{Action, Condition, Rule, RuleSet};
use knockplane_policy::settings::{ChainDefaults, Choice, FrameClasses, FrameRate, Settings, SideChoice};
use knockplane_policy::time::Time;

use super::build::{Arp, Discovery, v6};
use super::with;
use crate::common::{Engine, SECRET, rule, rule_set};

const ROUTER: &str = "fe80::1";
const SERVER: &str = "2001:db8::5";
const CLIENT: &str = "2001:db8:1::7";

fn seconds(seconds: u64) -> Time {
    Time::from_nanos(seconds * 1_000_000_000)
}

/// Protects the server's networks alone; the router outside has an exception in them.
fn protecting() -> Settings {
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
    Settings {
        protect: nets(&["192.0.2.0/24", "2001:db8::/64", "fe80::5/128"]),
        frames: FrameClasses { outside_addresses: nets(&["192.0.2.1/32", "2001:db8::1/128"]), ..Default::default() },
        ..Settings::default()
    }
}

/// The decision about a batch with this single frame from this side.
fn decide(settings: &Settings, side: Side, frame: &[u8]) -> (Verdict, Reason) {
    let decision = Engine::new(RuleSet::default(), settings).decide(side, &[frame], seconds(1))[0];
    (decision.verdict, decision.reason)
}

#[test]
fn router_advertisements_and_redirects_pass_from_inside_alone_unless_settings_say_so() {
    let advertisement = Discovery::router_advertisement(ROUTER).frame();
    let redirect = Discovery::redirect(ROUTER, CLIENT, "fe80::2", "2001:db8:2::1").frame();
    let mut settings = Settings::default();
    for (frame, reason) in [(&advertisement, Reason::RouterAdvertisement), (&redirect, Reason::Redirect)] {
        assert_eq!(decide(&settings, Side::Outside, frame), (Verdict::Drop, reason));
        assert_eq!(decide(&settings, Side::Inside, frame), (Verdict::Forward, reason));
    }
    settings.frames.router_advertisement = SideChoice { outside: Choice::Accept, inside: Choice::Drop };
    let verdict = |side| decide(&settings, side, &advertisement);
    assert_eq!(verdict(Side::Outside), (Verdict::Forward, Reason::RouterAdvertisement));
    assert_eq!(verdict(Side::Inside), (Verdict::Drop, Reason::RouterAdvertisement));
    assert_eq!(decide(&settings, Side::Outside, &redirect), (Verdict::Drop, Reason::Redirect));
}

#[test]
fn no_rule_lets_malformed_neighbour_discovery_in() {
    let accept = |family, conditions| Rule { family, ..rule("input", conditions, Action::Accept) };
    let icmpv6 = vec![Condition::Protocol(58)];
    let rules =
        rule_set(vec![accept(Family::Ipv6, icmpv6), accept(Family::Ipv6, vec![]), accept(Family::Ipv4, vec![])]);
    let open = ChainDefaults { input: Choice::Accept, forward: Choice::Accept, output: Choice::Accept };
    let mut engine = Engine::new(rules, &Settings { chain_default: open, ..Settings::default() });
    let solicitation = Discovery::solicitation(CLIENT, SERVER);
    let changes: [fn(&mut Discovery); 6] = [
        |message| message.hop_limit = 64,
        |message| message.code = 1,
        |message| message.checksum_error = 1,
        |message| message.behind = vec![1; 20],
        |message| message.extensions = (60, vec![58, 0, 1, 4, 0, 0, 0, 0]),
        |message| message.options = vec![7; 200],
    ];
    for kind in 133..=137 {
        for change in changes {
            for side in Side::ALL {
                let message = with(&solicitation, |message| {
                    change(message);
                    message.kind = kind;
                });
                let decision = engine.decide(side, &[&message.frame()], seconds(1))[0];
                assert_eq!(decision.verdict, Verdict::Drop, "{message:?}");
                assert_eq!(decision.reason, Reason::NeighbourDiscoveryMalformed, "{message:?}");
            }
        }
    }
    // Fragments do not bypass this: the rest of a datagram shares the verdict of its first fragment.
    let part = |offset: u8, more: u8| {
        with(&solicitation, |message| {
            message.extensions = (44, vec![58, 0, 0, offset | more, 0, 0, 0, 1]);
            message.options.clear();
        })
    };
    let fragments = [part(0, 1).frame(), part(24, 0).frame()];
    let decisions = engine.decide(Side::Outside, &[&fragments[0], &fragments[1]], seconds(1));
    let reasons: Vec<_> = decisions.iter().map(|decision| decision.reason).collect();
    assert_eq!(reasons, [Reason::NeighbourDiscoveryMalformed, Reason::FragmentUnknown]);
    assert!(decisions.iter().all(|decision| decision.verdict == Verdict::Drop));
}

#[test]
fn the_outside_claims_no_protected_address() {
    let settings = protecting();
    let claims = [
        (Arp::request("192.0.2.5", "192.0.2.9").frame(), Reason::ArpClaim),
        (Arp::reply("192.0.2.5", "192.0.2.9").frame(), Reason::ArpClaim),
        (Arp::request("192.0.2.5", "192.0.2.5").frame(), Reason::ArpClaim),
        (Arp::request("0.0.0.0", "192.0.2.5").frame(), Reason::ArpClaim),
        (Discovery::solicitation(SERVER, "2001:db8::9").frame(), Reason::NeighbourDiscoveryClaim),
        (Discovery::solicitation("::", SERVER).frame(), Reason::NeighbourDiscoveryClaim),
        (Discovery::advertisement(CLIENT, "ff02::1", SERVER).frame(), Reason::NeighbourDiscoveryClaim),
        (Discovery::advertisement(SERVER, "2001:db8::9", CLIENT).frame(), Reason::NeighbourDiscoveryClaim),
        (Discovery::router_solicitation(SERVER).frame(), Reason::NeighbourDiscoveryClaim),
        (Discovery::router_solicitation("fe80::5").frame(), Reason::NeighbourDiscoveryClaim),
    ];
    for (frame, reason) in &claims {
        assert_eq!(decide(&settings, Side::Outside, frame), (Verdict::Drop, *reason), "{frame:02x?}");
        assert_eq!(decide(&settings, Side::Inside, frame).0, Verdict::Forward, "{frame:02x?}");
        assert_eq!(
            decide(&Settings::default(), Side::Outside, frame).0,
            Verdict::Forward,
            "nothing is known to be inside"
        );
    }
    let mut open = settings.clone();
    open.frames.router_advertisement = SideChoice::both(Choice::Accept);
    open.frames.redirect = SideChoice::both(Choice::Accept);
    let claims = [
        Discovery::router_advertisement("fe80::5"),
        Discovery::redirect("fe80::5", CLIENT, "fe80::2", "2001:db8:2::1"),
        Discovery::redirect(ROUTER, CLIENT, SERVER, SERVER),
        Discovery::redirect(ROUTER, CLIENT, "fe80::2", SERVER),
    ];
    for message in claims {
        let decision = decide(&open, Side::Outside, &message.frame());
        assert_eq!(decision, (Verdict::Drop, Reason::NeighbourDiscoveryClaim), "{message:?}");
    }
}

#[test]
fn the_outside_asks_for_protected_addresses_and_speaks_for_its_own() {
    let asked = with(&Discovery::solicitation(CLIENT, SERVER), |message| {
        (message.to, message.destination) = (super::INSIDE_MAC, v6(SERVER));
    });
    let frames = [
        Arp::request("198.51.100.7", "192.0.2.5").frame(),
        Arp::reply("198.51.100.7", "192.0.2.5").frame(),
        Arp::request("0.0.0.0", "198.51.100.7").frame(),
        Arp::request("192.0.2.1", "192.0.2.5").frame(),
        Discovery::solicitation(CLIENT, SERVER).frame(),
        asked.frame(),
        Discovery::solicitation("2001:db8::1", SERVER).frame(),
        Discovery::solicitation("::", CLIENT).frame(),
        Discovery::advertisement(CLIENT, SERVER, CLIENT).frame(),
        Discovery::advertisement("2001:db8::1", SERVER, "2001:db8::1").frame(),
        Discovery::router_solicitation("::").frame(),
        Discovery::router_solicitation("fe80::7").frame(),
    ];
    for frame in frames {
        assert_eq!(decide(&protecting(), Side::Outside, &frame).0, Verdict::Forward, "{frame:02x?}");
    }
}

#[test]
fn each_class_of_each_side_has_a_rate_of_its_own() {
    let mut settings = Settings::default();
    settings.frames.rate = FrameRate::per_second(10).unwrap();
    settings.frames.lldp = SideChoice::both(Choice::Accept);
    settings.frames.unknown = SideChoice::both(Choice::Accept);
    let other = |ethertype: u16| [&[2; 12], &ethertype.to_be_bytes()[..], &[7; 46]].concat();
    let frames = [
        (Arp::request("192.0.2.7", "192.0.2.5").frame(), Reason::Arp),
        (Discovery::solicitation(CLIENT, SERVER).frame(), Reason::NeighbourDiscovery),
        (other(0x88cc), Reason::Lldp),
        (other(0x1234), Reason::UnknownEthertype),
    ];
    let mut engine = Engine::new(RuleSet::default(), &settings);
    for side in Side::ALL {
        for (frame, reason) in &frames {
            let passed = |engine: &mut Engine, now, times| {
                let decisions = engine.decide(side, &vec![&frame[..]; times], seconds(now));
                let (passed, exceeded): (Vec<&Decision>, Vec<&Decision>) =
                    decisions.iter().partition(|decision| decision.verdict == Verdict::Forward);
                assert!(passed.iter().all(|decision| decision.reason == *reason));
                assert!(exceeded.iter().all(|decision| decision.reason == Reason::FrameClassRate));
                passed.len()
            };
            assert_eq!(passed(&mut engine, 10, 64), 10, "{reason} from {side}");
            assert_eq!(passed(&mut engine, 10, 64), 0);
            assert_eq!(passed(&mut engine, 11, 64), 10);
            assert_eq!(passed(&mut engine, 1000, 5), 5);
        }
    }
    settings.frames.rate = FrameRate::OFF;
    let mut engine = Engine::new(RuleSet::default(), &settings);
    let all = |engine: &mut Engine| engine.decide(Side::Outside, &[&frames[0].0[..]; 64], seconds(1)).to_vec();
    assert!((0..100).flat_map(|_| all(&mut engine)).all(|decision| decision.verdict == Verdict::Forward));
}

#[test]
fn what_is_refused_uses_up_no_rate() {
    let mut settings = protecting();
    settings.frames.rate = FrameRate::per_second(1).unwrap();
    let mut engine = Engine::new(RuleSet::default(), &settings);
    let right = Arp::request("198.51.100.7", "192.0.2.5");
    let claim = Arp::request("192.0.2.5", "192.0.2.5").frame();
    let [long, dirty] = [vec![0; 100], vec![1; 18]].map(|padding| Arp { padding, ..right.clone() }.frame());
    let right = right.frame();
    let refused = [&claim[..], &long, &dirty].into_iter().cycle().take(BATCH - 1);
    let frames: Vec<&[u8]> = refused.chain([&right[..]]).collect();
    let decisions = engine.decide(Side::Outside, &frames, seconds(1));
    assert_eq!(decisions[BATCH - 1].verdict, Verdict::Forward);
    let reasons: Vec<_> = decisions[..3].iter().map(|decision| decision.reason).collect();
    assert_eq!(reasons, [Reason::ArpClaim, Reason::ArpMalformed, Reason::ArpMalformed]);
}

#[test]
fn workers_share_the_rate() {
    let mut settings = Settings::default();
    settings.frames.rate = FrameRate::per_second(1000).unwrap();
    let Engine { table, state, counters, logged, .. } = Engine::new(RuleSet::default(), &settings);
    let context = Context { table: &table, state: &state, counters: &counters, logged: &logged, wall: 0 };
    let frame = Arp::request("192.0.2.7", "192.0.2.5").frame();
    let work = || {
        let mut decider = Decider::new(max_frame(1500), SECRET[0]);
        let turns = (0..50).map(|_| {
            let decisions = decider.decide(Side::Outside, &[&frame[..]; 20], seconds(5), context);
            decisions.iter().filter(|decision| decision.verdict == Verdict::Forward).count()
        });
        turns.sum::<usize>()
    };
    let passed: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(passed, 1000, "of 4000");
}

#[test]
fn a_class_that_is_dropped_has_its_own_reason() {
    let mut settings = Settings::default();
    for choice in [&mut settings.frames.arp, &mut settings.frames.neighbour_discovery] {
        *choice = SideChoice { outside: Choice::Drop, inside: Choice::Accept };
    }
    let dirty = Arp { padding: vec![1; 18], ..Arp::request("192.0.2.7", "192.0.2.5") };
    assert_eq!(decide(&settings, Side::Outside, &dirty.frame()), (Verdict::Drop, Reason::Arp));
    assert_eq!(decide(&settings, Side::Inside, &dirty.frame()), (Verdict::Drop, Reason::ArpMalformed));
    let solicitation = Discovery::solicitation(CLIENT, SERVER).frame();
    assert_eq!(decide(&settings, Side::Outside, &solicitation), (Verdict::Drop, Reason::NeighbourDiscovery));
    assert_eq!(FrameClass::of(Reason::NeighbourDiscovery), Some(FrameClass::NeighbourDiscovery));
}
