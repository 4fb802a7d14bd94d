//! VLANs and PPPoE sessions as separate networks: the same addresses are in each, and no state of one counts in
//! another.

use std::net::IpAddr;
use std::time::Duration;

use knockplane_engine::pipeline::history::Refusal;
use knockplane_engine::pipeline::reset::resets;
use knockplane_engine::state::connections::AddressConnections;
use knockplane_engine::state::lists::{AddOutcome, FirstStepSettings, Lists};
use knockplane_policy::door::{Door, Failure};
use knockplane_policy::packet::{Side, Vlan};
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rsc;
use knockplane_policy::rule::{Action, ConnectionState, RuleSet, Tracking};
use knockplane_policy::settings::{Settings, Vlans};
use knockplane_policy::time::Time;

use crate::common::{Details, Engine, Spec, Transport, door, in_session, live, rule, rule_set, seconds};

const CLIENT: &str = "10.0.0.7";

/// No tag, one tag, two tags, the same two in the other order and with other tag types, sessions, and a session in a
/// VLAN.
const NETWORKS: [&str; 10] =
    ["", "10", "20", "10@88a8", "10/20", "20/10", "10@8100/20", "pppoe 7", "pppoe 8", "10 pppoe 7"];

fn network(name: &str) -> Vlan {
    let (tags, session) = name.split_once("pppoe ").unwrap_or((name, "0"));
    let tags = tags.trim();
    let tags = if tags.is_empty() { Vlan::NONE } else { tags.parse().unwrap() };
    tags.in_session(session.parse().unwrap())
}

/// The frame in this network. Its outer tag has this priority.
fn within(name: &str, priority: u16, frame: &[u8]) -> Vec<u8> {
    let vlan = network(name);
    let mut tags: Vec<_> = vlan.stack().collect();
    if let Some((_, number)) = tags.first_mut() {
        *number |= priority << 13;
    }
    let tags: Vec<u8> = tags.into_iter().flat_map(|(kind, tag)| [kind, tag]).flat_map(u16::to_be_bytes).collect();
    let tagged = [&frame[..12], &tags, &frame[12..]].concat();
    vlan.session().map_or(tagged.clone(), |session| in_session(tagged, 12 + tags.len(), session))
}

struct Wire {
    engine: Engine,
    now: Time,
}

impl Wire {
    fn new(rules: RuleSet, settings: Settings) -> Wire {
        Wire { engine: Engine::new(rules, &settings), now: Time::default() + seconds(1) }
    }

    fn with_door(door: Door, vlans: Vlans) -> Wire {
        Wire::new(RuleSet::default(), Settings { doors: vec![door], vlans, ..Settings::default() })
    }

    fn send(&mut self, name: &str, side: Side, spec: &Spec) -> (Verdict, Reason) {
        self.send_frame(side, &within(name, 0, &spec.frame()))
    }

    fn send_frame(&mut self, side: Side, frame: &[u8]) -> (Verdict, Reason) {
        let [decision] = self.engine.decide(side, &[frame], self.now) else { panic!("one decision") };
        (decision.verdict, decision.reason)
    }

    fn udp(&mut self, name: &str, port: u16) -> Verdict {
        self.send(name, Side::Outside, &udp(CLIENT, port)).0
    }

    fn knock(&mut self, name: &str) {
        self.udp(name, 7001);
        self.udp(name, 7002);
    }

    /// The networks in which the client is admitted.
    fn open_in(&mut self) -> Vec<&'static str> {
        NETWORKS.into_iter().filter(|name| self.udp(name, 22) == Verdict::Forward).collect()
    }
}

fn udp(source: &str, port: u16) -> Spec {
    Spec::new(source, Transport::Udp(40_000, port), b"")
}

fn two_steps() -> Door {
    Door { opens: vec!["udp/22".parse().unwrap()], strict: false, ..door("ssh", &["udp/7001", "udp/7002"], &[]) }
}

#[test]
fn a_knock_opens_its_own_network_alone() {
    for name in NETWORKS {
        let mut wire = Wire::with_door(two_steps(), Vlans::Separate);
        wire.knock(name);
        assert_eq!(wire.open_in(), [name]);
    }
    let mut wire = Wire::with_door(two_steps(), Vlans::Shared);
    wire.knock("10");
    assert_eq!(wire.open_in(), NETWORKS);
}

#[test]
fn steps_in_two_networks_are_no_knock_and_each_goes_on_in_its_own() {
    let mut wire = Wire::with_door(Door { strict: true, ..two_steps() }, Vlans::Separate);
    wire.udp("10", 7001);
    wire.udp("20", 7002);
    assert_eq!(wire.open_in(), [""; 0]);
    // A packet in another network, to any port, does not reset the sequence.
    wire.udp("10", 7001);
    wire.udp("20", 9);
    wire.udp("10/20", 7001);
    wire.udp("10", 7002);
    wire.udp("10/20", 7002);
    assert_eq!(wire.open_in(), ["10", "10/20"]);
}

#[test]
fn the_priority_of_a_tag_is_no_network_and_neither_is_a_tag_without_a_vlan() {
    let mut wire = Wire::with_door(two_steps(), Vlans::Separate);
    let step = |port: u16| udp(CLIENT, port).frame();
    wire.send_frame(Side::Outside, &within("10", 1, &step(7001)));
    wire.send_frame(Side::Outside, &within("10", 7, &step(7002)));
    assert_eq!(wire.open_in(), ["10"]);
    let with_priority = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0xa0, 0], &frame[12..]].concat();
    wire.send_frame(Side::Outside, &with_priority(step(7001)));
    wire.send_frame(Side::Outside, &with_priority(step(7002)));
    assert_eq!(wire.open_in(), ["", "10"]);
}

#[test]
fn the_same_address_is_let_in_in_more_networks_than_it_has_grants_in_one() {
    let mut wire = Wire::with_door(two_steps(), Vlans::Separate);
    let names: Vec<String> = (1..=50).map(|vlan| vlan.to_string()).collect();
    names.iter().for_each(|name| wire.knock(name));
    assert!(names.iter().all(|name| wire.udp(name, 22) == Verdict::Forward));
}

#[test]
fn what_rules_add_counts_in_all_networks_unless_lists_are_separate() {
    let rules = "/ip firewall filter\n\
                 add chain=input protocol=udp dst-port=7001 action=add-src-to-address-list address-list=in \
                 address-list-timeout=1m\n\
                 add chain=input protocol=udp dst-port=22 src-address-list=in\n";
    let wire = |vlans| Wire::new(rsc::read(rules.as_bytes()).rules, Settings { vlans, ..Settings::default() });
    for vlans in [Vlans::Separate, Vlans::Shared] {
        let mut wire = wire(vlans);
        wire.udp("10", 7001);
        assert_eq!(wire.open_in(), NETWORKS, "{vlans:?}");
    }
    for name in NETWORKS {
        let mut wire = wire(Vlans::SeparateLists);
        wire.udp(name, 7001);
        assert_eq!(wire.open_in(), [name]);
        // An operator's entry counts in all networks.
        let list = wire.engine.state.lists.id("in").unwrap();
        wire.engine.state.lists.add_by_operator(list, CLIENT.parse().unwrap(), Time::NEVER, wire.now);
        assert_eq!(wire.open_in(), NETWORKS);
    }
}

fn tcp(back: bool, flags: u8, (sequence, acknowledgement): (u32, u32)) -> Spec {
    let (client, server): (IpAddr, IpAddr) = (CLIENT.parse().unwrap(), "203.0.113.1".parse().unwrap());
    let (source, destination) = if back { (server, client) } else { (client, server) };
    let transport = if back { Transport::Tcp(22, 40_000) } else { Transport::Tcp(40_000, 22) };
    let details = Details { flags, sequence, acknowledgement, ..Details::default() };
    Spec { destination, details, ..Spec::new(&source.to_string(), transport, b"") }
}

#[test]
fn a_connection_goes_on_in_its_own_network_alone() {
    let established = rsc::read(
        b"/ip firewall filter\nadd chain=input connection-state=established\n\
          add chain=input protocol=tcp dst-port=22 tcp-flags=syn,!ack\n",
    );
    for name in NETWORKS {
        let mut wire = Wire::new(established.rules.clone(), Settings::default());
        wire.send(name, Side::Outside, &tcp(false, 0x02, (100, 0)));
        wire.send(name, Side::Inside, &tcp(true, 0x12, (500, 101)));
        let goes_on = tcp(false, 0x10, (101, 501));
        let passes: Vec<_> = NETWORKS
            .into_iter()
            .filter(|name| wire.send(name, Side::Outside, &goes_on).0 == Verdict::Forward)
            .collect();
        assert_eq!(passes, [name]);
        // A reset in another network has no effect.
        for other in NETWORKS.into_iter().filter(|other| *other != name) {
            wire.send(other, Side::Outside, &tcp(false, 0x04, (101, 0)));
        }
        assert_eq!(wire.send(name, Side::Outside, &goes_on).0, Verdict::Forward);
    }
}

#[test]
fn a_door_that_closes_ends_what_began_through_it_in_no_other_network() {
    let door = Door { open_for: seconds(5), opens: vec!["tcp/22".parse().unwrap()], ..two_steps() };
    let mut wire = Wire::with_door(door, Vlans::Separate);
    for name in ["10", "20"] {
        wire.knock(name);
        assert_eq!(wire.send(name, Side::Outside, &tcp(false, 0x02, (100, 0))).0, Verdict::Forward);
        assert_eq!(wire.send(name, Side::Inside, &tcp(true, 0x12, (500, 101))).0, Verdict::Forward);
    }
    let goes_on = tcp(false, 0x10, (101, 501));
    let passes = |wire: &mut Wire, name: &str| wire.send(name, Side::Outside, &goes_on).0 == Verdict::Forward;
    assert!(passes(&mut wire, "10") && passes(&mut wire, "20"));
    wire.now = wire.now + seconds(6);
    assert_eq!(["10", "20", "", "10/20"].map(|name| passes(&mut wire, name)), [true, true, false, false]);
}

#[test]
fn a_fragment_shares_no_verdict_of_another_network_whatever_the_settings() {
    let rules = rule_set(vec![rule("input", vec![], Action::Accept)]);
    let part = |offset, more| Spec {
        payload: vec![b'x'; 16],
        details: Details { fragment: Some((7, offset, more)), ..Details::default() },
        ..udp(CLIENT, 9)
    };
    for vlans in [Vlans::Separate, Vlans::Shared, Vlans::SeparateLists] {
        for name in NETWORKS {
            let mut wire = Wire::new(rules.clone(), Settings { vlans, ..Settings::default() });
            assert_eq!(wire.send(name, Side::Outside, &part(0, true)).0, Verdict::Forward);
            let passes: Vec<_> = NETWORKS
                .into_iter()
                .filter(|name| wire.send(name, Side::Outside, &part(3, false)).0 == Verdict::Forward)
                .collect();
            assert_eq!(passes, [name], "{vlans:?}");
        }
    }
}

#[test]
fn what_silences_a_source_does_so_in_one_network() {
    let door = Door { hold_off: seconds(50), max_attempts: "2/1m".parse().ok(), ..two_steps() };
    let mut wire = Wire::with_door(door, Vlans::Separate);
    // A scan in one network, too many attempts in the other.
    (0..60).for_each(|port| _ = wire.udp("20", 1000 + port));
    (0..3).for_each(|_| {
        wire.udp("30", 7001);
        wire.now = wire.now + seconds(11);
    });
    ["10", "20", "30"].iter().for_each(|name| wire.knock(name));
    assert_eq!(["10", "20", "30"].map(|name| wire.udp(name, 22)), [Verdict::Forward, Verdict::Drop, Verdict::Drop]);
    let visitors = wire.engine.state.visitors().unwrap();
    let mut ignored = Vec::new();
    visitors.visit_ignored(wire.now, |_| Some(2), |of| ignored.push((of.vlan.to_string(), of.why)));
    ignored.sort_by(|one, other| one.0.cmp(&other.0));
    let told: Vec<_> = ignored.iter().map(|(vlan, why)| (&**vlan, *why)).collect();
    let expected = [("vlan 10", Failure::HeldOff), ("vlan 20", Failure::Ports), ("vlan 30", Failure::Attempts)];
    assert_eq!(told, expected);
    let vlans = visitors.vlans_of(CLIENT.parse().unwrap(), wire.now);
    assert_eq!(vlans, ["10", "20", "30"].map(network));
}

#[test]
fn packets_of_a_batch_that_differ_in_their_network_are_decided_each() {
    let rules = rsc::read(b"/ip firewall filter\nadd chain=input src-address-list=door-ssh\n").rules;
    let mut wire = Wire::new(rules, Settings { doors: vec![two_steps()], ..Settings::default() });
    wire.knock("10");
    let frames: Vec<Vec<u8>> =
        ["10", "20", "10", "10", "", "10"].iter().map(|name| within(name, 0, &udp(CLIENT, 9).frame())).collect();
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let verdicts: Vec<_> =
        wire.engine.decide(Side::Outside, &frames, wire.now).iter().map(|decision| decision.verdict).collect();
    let (open, shut) = (Verdict::Forward, Verdict::Drop);
    assert_eq!(verdicts, [open, shut, open, open, shut, open]);
}

#[test]
fn drops_are_recorded_for_each_network() {
    let mut wire = Wire::new(RuleSet::default(), Settings::default());
    for name in NETWORKS {
        wire.udp(name, 9);
        wire.udp(name, 9);
    }
    // A packet that the reader refuses: an IPv4 header with an invalid version.
    let mut frame = within("10/20 pppoe 7", 0, &udp(CLIENT, 9).frame());
    frame[14 + 8 + 8] = 0;
    assert_eq!(wire.send_frame(Side::Outside, &frame).1, Reason::Ipv4Malformed);
    let records = wire.engine.decider.history().of(CLIENT.parse().unwrap()).records;
    // The history has room for seven records of a source.
    assert_eq!(records.len(), 7);
    let mut seen: Vec<Vlan> = records.iter().map(|record| record.packet.vlan).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 7, "{seen:?}");
    let of = |reason| {
        records
            .iter()
            .filter(move |record| matches!(record.refusal, Refusal::Dropped { reason: of, .. } if of == reason))
    };
    assert!(of(Reason::ChainDefault).count() == 6 && of(Reason::ChainDefault).all(|record| record.count == 2));
    assert_eq!(
        of(Reason::Ipv4Malformed).map(|record| record.packet.vlan).collect::<Vec<_>>(),
        [network("10/20 pppoe 7")]
    );
}

#[test]
fn replies_are_in_the_network_of_what_they_answer() {
    let rules = rsc::read(
        b"/ip firewall filter\nadd chain=input protocol=tcp action=reject reject-with=tcp-reset\n\
          add chain=input action=reject reject-with=icmp-port-unreachable\n\
          /ipv6 firewall filter\nadd chain=input action=reject reject-with=icmp-port-unreachable\n",
    );
    let specs = [
        tcp(false, 0x02, (100, 0)),
        udp(CLIENT, 9),
        Spec::new("2001:db8::7", Transport::Udp(40_000, 9), &[b'x'; 1400]),
    ];
    for name in NETWORKS {
        for spec in &specs {
            let mut wire = Wire::new(rules.rules.clone(), Settings::default());
            let frame = within(name, 5, &spec.frame());
            wire.send_frame(Side::Outside, &frame);
            let reply = wire.engine.decider.reply(0).expect("an answer").to_vec();
            let mut plain = Wire::new(rules.rules.clone(), Settings::default());
            plain.send_frame(Side::Outside, &spec.frame());
            let untagged = plain.engine.decider.reply(0).expect("an answer").to_vec();
            // The priority is compared as well.
            assert_eq!(reply, within(name, 5, &untagged), "{name}");
            assert!(reply.len() <= knockplane_engine::pipeline::reply::LONGEST);
        }
    }
}

#[test]
fn operators_see_and_remove_an_address_in_all_networks() {
    let source: IpAddr = CLIENT.parse().unwrap();
    let lists = Lists::with_secret(100_000, [1, 2]).unwrap();
    let list = lists.bind("in", 1).unwrap();
    let now = Time::default() + seconds(1);
    for name in NETWORKS {
        assert_eq!(lists.in_vlan(network(name)).add_for(list, source, 7, now + seconds(9), now), AddOutcome::New);
        // Entries of a neighbouring address, which remain.
        lists.in_vlan(network(name)).add_for(list, "10.0.0.8".parse().unwrap(), 7, now + seconds(9), now);
    }
    let is_in = |name: &str, to| lists.in_vlan(network(name)).membership(source, to, now).contains(list);
    assert!(NETWORKS.iter().all(|name| is_in(name, 7) && !is_in(name, 8)));
    let mut expected = NETWORKS.map(network);
    expected.sort_unstable();
    let seen: Vec<_> = lists.entries_of(source, now).iter().map(|entry| (entry.entry.vlan, entry.level)).collect();
    assert_eq!(seen, expected.map(|vlan| (vlan, 1)));
    assert!(lists.in_vlan(network("20")).remove(list, source, now) && !is_in("20", 7) && is_in("10", 7));
    assert!(lists.remove(list, source, now) && !lists.remove(list, source, now));
    assert_eq!((lists.entries_of(source, now).len(), live(&lists, now).len()), (0, NETWORKS.len()));
    // Cached lookups are renewed, and expired entries are freed.
    assert!(NETWORKS.iter().all(|name| !is_in(name, 7)));
    assert_eq!(lists.sweep(1_000_000, now + seconds(10)), NETWORKS.len());
    assert_eq!(lists.summaries()[0].entries, 0);
}

#[test]
fn first_steps_by_network_and_their_quota_are_of_one_vlan() {
    let settings = FirstStepSettings { quota: 2, v6_by_prefix: true, ..FirstStepSettings::default() };
    let mut lists = Lists::with_secret(100_000, [1, 2]).unwrap();
    lists.set_first_steps(settings).unwrap();
    let list = lists.bind("first", 0).unwrap();
    let now = Time::default() + seconds(1);
    let add = |name: &str, source: &str| {
        lists.in_vlan(network(name)).add_for(list, source.parse().unwrap(), 0, now + seconds(9), now)
    };
    let is_in = |name: &str, source: &str| {
        lists.in_vlan(network(name)).membership(source.parse().unwrap(), 0, now).contains(list)
    };
    assert_eq!((add("10", "2001:db8::1"), add("10", "2001:db8::2")), (AddOutcome::New, AddOutcome::Refreshed));
    assert!(is_in("10", "2001:db8::3") && !is_in("20", "2001:db8::3") && !is_in("", "2001:db8::3"));
    let [first, second, third] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    assert_eq!(
        [first, second, third].map(|source| add("10", source)),
        [AddOutcome::New, AddOutcome::New, AddOutcome::Refused]
    );
    assert_eq!(add("20", third), AddOutcome::New, "another VLAN has a quota of its own");
    let entries = lists.entries_of("2001:db8::9".parse().unwrap(), now);
    assert_eq!(
        entries.iter().map(|entry| (entry.entry.vlan, entry.by_network)).collect::<Vec<_>>(),
        [(network("10"), true)]
    );
    assert!(lists.remove(list, "2001:db8::9".parse().unwrap(), now) && !is_in("10", "2001:db8::1"));
}

#[test]
fn connections_are_known_with_their_network() {
    let rules = rsc::read(b"/ip firewall filter\nadd chain=input connection-state=new,established\n").rules;
    let mut wire = Wire::new(rules, Settings::default());
    for name in NETWORKS {
        wire.udp(name, 53);
        wire.now = wire.now + Duration::from_nanos(1);
    }
    let flows = wire.engine.state.connections().unwrap().of(CLIENT.parse().unwrap(), 100, wire.now);
    assert_eq!(flows.count, NETWORKS.len() as u64);
    let seen: Vec<_> = flows.oldest.iter().map(|flow| (flow.vlan, flow.state)).collect();
    assert_eq!(seen, NETWORKS.map(|name| (network(name), ConnectionState::New)));
}

#[test]
fn a_connection_that_is_cut_is_reset_in_its_own_network() {
    let resets_in = |name: &str| {
        let door = Door { opens: vec!["tcp/22".parse().unwrap()], cut: true, ..two_steps() };
        let mut wire = Wire::with_door(door, Vlans::Separate);
        wire.knock(name);
        wire.send(name, Side::Outside, &tcp(false, 0x02, (100, 0)));
        wire.send(name, Side::Inside, &tcp(true, 0x12, (500, 101)));
        wire.send(name, Side::Outside, &tcp(false, 0x10, (101, 501)));
        let flows = wire.engine.state.connections().unwrap();
        let AddressConnections { oldest, .. } = flows.of(CLIENT.parse().unwrap(), 9, wire.now);
        let flow = oldest.iter().find(|flow| flow.door.is_some()).expect("the connection is the door's");
        let cut = flows.cut(flow, wire.now, &Tracking::default()).expect("it is cut");
        resets(&cut).map(|reset| (reset.side, reset.frame().to_vec())).collect::<Vec<_>>()
    };
    let plain = resets_in("");
    assert!(!plain.is_empty());
    for name in NETWORKS {
        let expected: Vec<_> = plain.iter().map(|(side, frame)| (*side, within(name, 0, frame))).collect();
        assert_eq!(resets_in(name), expected, "{name}");
    }
}
