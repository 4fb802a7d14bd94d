//! Events of list entries: the changes that are events, and the entries that a slow subscriber has in the end.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use knockplane_engine::state::events::ring::{Cursor, Received};
use knockplane_engine::state::events::{Cause, EventEntry, EventRoom, KnockPacket, ListEvent, RulePosition};
use knockplane_engine::state::lists::{AddOutcome, Changed, ListId, Lists, ProgressChange};
use knockplane_policy::event::{EventKind, Gap, Origin};
use knockplane_policy::packet::{Side, Vlan};
use knockplane_policy::rsc;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use crate::common::{Engine, Spec, Transport, cases, door, events, seconds};

fn after(time: u64) -> Time {
    Time::from_nanos(0) + seconds(time)
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(number).into()
}

/// Small lists with room for few events, and a list of each of the levels 0 to 2.
fn small(capacity: usize, room: EventRoom) -> (Lists, [ListId; 3]) {
    let lists = Lists::with_room(capacity, [1, 2], room).unwrap();
    let ids = [("first", 0), ("second", 1), ("third", 2)].map(|(name, level)| lists.bind(name, level).unwrap());
    (lists, ids)
}

/// The key of an entry.
type EntryId = (ListId, IpAddr, bool, Vlan, u32);

/// A subscriber that keeps the entries above a first step: it uses events alone, and after a gap the changes that the
/// lists return.
struct Follower {
    cursor: Cursor,
    entries: HashMap<EntryId, (u64, EventEntry)>,
    gaps: usize,
    /// The number of times that the lists no longer had all removals since a gap.
    incomplete: usize,
    /// The expected next number.
    next: u64,
}

impl Follower {
    fn new() -> Follower {
        Follower { cursor: Cursor::after(0), entries: HashMap::new(), gaps: 0, incomplete: 0, next: 1 }
    }

    fn apply(&mut self, number: u64, entry: EventEntry, has_ended: bool) {
        let id = (entry.list, entry.address, entry.by_network, entry.vlan, entry.peer_tag);
        match has_ended {
            true => _ = self.entries.remove(&id),
            false => _ = self.entries.insert(id, (number, entry)),
        }
    }

    fn apply_changes(&mut self, lists: &Lists, since: u64) -> bool {
        let mut changes = Vec::new();
        if lists.changes_since(since, |changed| changes.push(changed)).is_none() {
            return false;
        }
        for changed in changes {
            match changed {
                Changed::Ended(number, event) => self.apply(number, event.entry, true),
                Changed::Entry(number, entry) => self.apply(number, entry, false),
            }
        }
        true
    }

    /// Reads at most `most` events and gaps.
    fn follow(&mut self, lists: &Lists, most: usize) {
        for _ in 0..most {
            match lists.receive(&mut self.cursor) {
                Some(Received::Event(number, event)) => {
                    assert_eq!(number, self.next, "no number is missing");
                    self.next += 1;
                    self.apply(number, event.entry, event.kind.is_end());
                }
                Some(Received::Gap(Gap { first, last })) => {
                    assert!(first == self.next && first <= last, "{first} to {last} at {}", self.next);
                    self.next = last + 1;
                    self.gaps += 1;
                    if !self.apply_changes(lists, first - 1) {
                        self.incomplete += 1;
                        self.entries.clear();
                        assert!(self.apply_changes(lists, 0), "everything can always be read");
                    }
                }
                None => break,
            }
        }
    }

    /// Reads all events after the last change, and compares the entries.
    fn assert_equals(&mut self, lists: &Lists) {
        self.follow(lists, usize::MAX);
        assert_eq!(self.next, lists.last_event() + 1);
        let mut state = Follower::new();
        assert!(state.apply_changes(lists, 0));
        let ids = |entries: &HashMap<EntryId, (u64, EventEntry)>| {
            let told =
                |(number, entry): &(u64, EventEntry)| (*number, entry.level, entry.step, entry.peer, entry.origin);
            let mut ids: Vec<_> = entries.iter().map(|(id, entry)| (*id, told(entry))).collect();
            ids.sort_by_key(|(_, (number, ..))| *number);
            ids
        };
        assert_eq!(ids(&self.entries), ids(&state.entries));
    }
}

#[derive(Clone, Debug)]
enum Turn {
    Pass(u64),
    Add(usize, u32, u64),
    Grant(u32, u32, u64),
    GrantV6(u8, u8, u64),
    Step(u32, u8, u32, u8),
    Clear(u32),
    Close(u32, u32),
    Operator(usize, u32, u64),
    Remove(usize, u32),
    Flush(usize),
    Sweep,
    Level(u8),
    Follow(usize),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        2 => (0..4_u64).prop_map(Turn::Pass),
        6 => (0..3_usize, 0..8_u32, 0..9_u64).prop_map(|(list, address, time)| Turn::Add(list, address, time)),
        4 => (0..3_u32, 1..12_u32, 1..9_u64).prop_map(|(address, peer, time)| Turn::Grant(address, peer, time)),
        1 => (0..3_u8, 1..4_u8, 1..9_u64).prop_map(|(address, peer, time)| Turn::GrantV6(address, peer, time)),
        3 => (0..3_u32, 1..4_u8, 1..3_u32, 0..3_u8).prop_map(|(address, step, peer, level)| Turn::Step(address, step, peer, level)),
        1 => (0..3_u32).prop_map(Turn::Clear),
        1 => (0..3_u32, 1..12_u32).prop_map(|(address, peer)| Turn::Close(address, peer)),
        1 => (0..3_usize, 0..8_u32, 1..9_u64).prop_map(|(list, address, time)| Turn::Operator(list, address, time)),
        1 => (0..3_usize, 0..8_u32).prop_map(|(list, address)| Turn::Remove(list, address)),
        1 => (0..3_usize).prop_map(Turn::Flush),
        1 => Just(Turn::Sweep),
        1 => (0..3_u8).prop_map(Turn::Level),
        2 => (0..6_usize).prop_map(Turn::Follow),
    ]
}

/// Makes the change of a turn. Reads are separate.
fn take(lists: &Lists, [first, second, third]: [ListId; 3], turn: &Turn, now: &mut Time) {
    let (ids, at) = ([first, second, third], *now);
    let v6 = |last: u8| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(last)));
    match *turn {
        Turn::Pass(time) => *now = at + seconds(time) + Duration::from_nanos(1),
        Turn::Add(list, address, time) => _ = lists.add(ids[list], v4(address), at + seconds(time), at),
        Turn::Grant(address, peer, time) => _ = lists.add_for(third, v4(address), peer, at + seconds(time), at),
        Turn::GrantV6(address, peer, time) => {
            let knock = KnockPacket { destination: v6(100 + peer), vlan: Vlan::NONE };
            let cause = Cause { knock: Some(knock), ..Cause::of(Origin::Packet) };
            let by = lists.in_vlan("7".parse().unwrap()).by(&cause);
            by.add_for(first, v6(address), lists.peer_tag(v6(100 + peer)), at + seconds(time), at);
        }
        Turn::Step(address, step, peer_tag, level) => {
            let set = ProgressChange::Set { step, peer_tag, begun: at, level, expiry: at + seconds(4) };
            lists.in_vlan(Vlan::NONE).progress(second, v4(100 + address), at, |_| set);
        }
        Turn::Clear(address) => {
            _ = lists.in_vlan(Vlan::NONE).progress(second, v4(100 + address), at, |_| ProgressChange::Clear)
        }
        Turn::Close(address, peer) => _ = lists.in_vlan(Vlan::NONE).remove_for(third, v4(address), peer, at),
        Turn::Operator(list, address, time) => {
            _ = lists.add_by_operator(ids[list], v4(address), at + seconds(time), at);
        }
        Turn::Remove(list, address) => _ = lists.remove(ids[list], v4(address), at),
        Turn::Flush(list) => _ = lists.flush(ids[list], at),
        Turn::Sweep => _ = lists.sweep(lists.capacity(), at),
        Turn::Level(level) => _ = lists.bind("first", level).unwrap(),
        Turn::Follow(_) => {}
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn a_slow_subscriber_ends_up_with_the_entries_of_the_lists(
        turns in prop::collection::vec(turn(), 0..120),
        (ring, removals, capacity) in (1..9_usize, 0..9_usize, 2..24_usize),
    ) {
        let (lists, ids) = small(capacity, EventRoom { ring, removals });
        let (mut follower, mut now) = (Follower::new(), after(1));
        for turn in &turns {
            take(&lists, ids, turn, &mut now);
            if let Turn::Follow(most) = turn {
                follower.follow(&lists, *most);
            }
        }
        follower.assert_equals(&lists);
    }
}

#[test]
fn four_writers_and_two_subscribers_with_gaps_end_up_with_the_same_entries() {
    const TURNS: usize = 3_000;
    let (lists, ids) = small(64, EventRoom { ring: 16, removals: 16 });
    let writing = AtomicBool::new(true);
    let [mut one, mut other] = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u64)
            .map(|writer| {
                let lists = &lists;
                scope.spawn(move || {
                    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
                        prop::test_runner::Config::default(),
                        prop::test_runner::TestRng::from_seed(
                            prop::test_runner::RngAlgorithm::ChaCha,
                            &[writer as u8; 32],
                        ),
                    );
                    let mut now = after(1);
                    for _ in 0..TURNS {
                        let turn = turn().new_tree(&mut runner).unwrap().current();
                        // Only the rules change the level of a list that other lists add to.
                        if !matches!(turn, Turn::Level(_)) {
                            take(lists, ids, &turn, &mut now);
                        }
                    }
                })
            })
            .collect();
        let subscribers = [1, 7].map(|most| {
            let (lists, writing) = (&lists, &writing);
            scope.spawn(move || {
                let mut follower = Follower::new();
                while writing.load(Ordering::Acquire) {
                    follower.follow(lists, most);
                    std::thread::yield_now();
                }
                follower
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        writing.store(false, Ordering::Release);
        subscribers.map(|subscriber| subscriber.join().unwrap())
    });
    for follower in [&mut one, &mut other] {
        follower.assert_equals(&lists);
        assert!(follower.gaps > 0, "the ring is small");
    }
}

/// Kind, origin and address of each event since the cursor.
fn told(lists: &Lists, cursor: &mut Cursor) -> Vec<(EventKind, Option<Origin>, IpAddr)> {
    let told = |event: ListEvent| (event.kind, event.cause.map(|cause| cause.origin), event.entry.address);
    events(lists, cursor).into_iter().map(told).collect()
}

#[test]
fn every_kind_of_change_is_an_event_with_its_origin() {
    let (lists, [first, second, third]) = small(100, EventRoom::default());
    let mut cursor = Cursor::after(0);
    let packet = Some(Origin::Packet);
    // No change of a first step is an event.
    lists.add(first, v4(1), after(5), after(1));
    lists.add(first, v4(1), after(6), after(2));
    lists.remove(first, v4(1), after(2));
    assert_eq!(told(&lists, &mut cursor), []);
    lists.add(second, v4(1), after(60), after(2));
    lists.in_vlan(Vlan::NONE).remove(second, v4(1), after(3));
    lists.add_for(third, v4(2), 9, after(60), after(3));
    lists.add_for(third, v4(2), 9, after(61), after(4));
    let expected = [
        (EventKind::Listed, packet, v4(1)),
        (EventKind::Removed, packet, v4(1)),
        (EventKind::Granted, packet, v4(2)),
        (EventKind::Refreshed, packet, v4(2)),
    ];
    assert_eq!(told(&lists, &mut cursor), expected);
    let operator = Some(Origin::Operator);
    lists.add_by_operator(first, v4(3), after(60), after(5));
    lists.remove(first, v4(3), after(5));
    lists.flush(third, after(5));
    lists.in_vlan(Vlan::NONE).by(&Cause::of(Origin::Rules)).add_for(second, v4(4), 0, after(7), after(6));
    lists.sweep(1_000, after(7));
    let expected = [
        (EventKind::Listed, operator, v4(3)),
        (EventKind::Removed, operator, v4(3)),
        (EventKind::Flushed, operator, v4(2)),
        (EventKind::Listed, Some(Origin::Rules), v4(4)),
        (EventKind::Expired, None, v4(4)),
    ];
    assert_eq!(told(&lists, &mut cursor), expected);
    // Two steps of a knock, the second one above level 0; then a reset of the knock.
    let step = |step, level| ProgressChange::Set { step, peer_tag: 9, begun: after(8), level, expiry: after(20) };
    for change in [step(1, 0), step(2, 1), step(1, 0), step(2, 1), ProgressChange::Clear] {
        lists.in_vlan(Vlan::NONE).progress(second, v4(5), after(8), |_| change);
    }
    let expected = [EventKind::Stepped, EventKind::Removed, EventKind::Stepped, EventKind::Removed];
    assert_eq!(told(&lists, &mut cursor), expected.map(|kind| (kind, packet, v4(5))));
}

#[test]
fn a_flow_that_refreshes_its_entry_causes_few_events() {
    let (lists, [_, second, _]) = small(100, EventRoom::default());
    let mut cursor = Cursor::after(0);
    // One minute of a thousand packets a second.
    for ms in 0..60_000 {
        let now = after(1) + Duration::from_millis(ms);
        lists.add(second, v4(1), now + seconds(60), now);
    }
    let announced: Vec<_> = events(&lists, &mut cursor);
    assert!((8..=20).contains(&announced.len()), "{}", announced.len());
    let last = announced.last().unwrap().entry.expiry;
    let mut expiry = None;
    lists.changes_since(0, |changed| match changed {
        Changed::Entry(_, entry) => expiry = Some(entry.expiry),
        Changed::Ended(..) => panic!("{changed:?}"),
    });
    let behind = expiry.unwrap().since(last);
    assert!(behind < seconds(60) / 8, "{behind:?}");
}

#[test]
fn an_entry_says_when_it_changed_and_the_lists_how_far_they_remember() {
    let (lists, [_, second, _]) = small(100, EventRoom { ring: 4, removals: 2 });
    let since = |number| {
        let mut changes = Vec::new();
        let through = lists.changes_since(number, |changed| changes.push(changed))?;
        let number = |changed| match changed {
            Changed::Ended(number, event) => (number, event.entry.address, true),
            Changed::Entry(number, entry) => (number, entry.address, false),
        };
        let mut changes: Vec<_> = changes.into_iter().map(number).collect();
        changes.sort();
        Some((through, changes))
    };
    for number in 1..=4 {
        assert_eq!(lists.add(second, v4(number), after(60), after(1)), AddOutcome::New);
    }
    assert_eq!(since(2), Some((4, vec![(3, v4(3), false), (4, v4(4), false)])));
    lists.remove(second, v4(2), after(2));
    lists.remove(second, v4(4), after(2));
    assert_eq!(since(3), Some((6, vec![(5, v4(2), true), (6, v4(4), true)])));
    // A third removal displaces the first one.
    lists.remove(second, v4(1), after(2));
    assert_eq!(since(4), None);
    assert_eq!(since(5), Some((7, vec![(6, v4(4), true), (7, v4(1), true)])));
    assert_eq!(since(0), Some((7, vec![(3, v4(3), false)])));
}

#[test]
fn a_grant_over_ipv6_is_known_by_its_destination_to_its_end() {
    let door = door("a", &["tcp/1234"], &["tcp/4321"]);
    let settings = Settings { doors: vec![door], ..Settings::default() };
    let mut engine = Engine::new(RuleSet::default(), &settings);
    let spec = Spec::new("2001:db8::1", Transport::Tcp(40_000, 1234), b"");
    engine.decide(Side::Outside, &[&spec.frame()], after(1));
    engine.state.lists.sweep(10_000, after(1_000));
    let events = events(&engine.state.lists, &mut Cursor::after(0));
    let [granted, expired] = &events[..] else { panic!("{events:?}") };
    assert_eq!((granted.kind, expired.kind), (EventKind::Granted, EventKind::Expired));
    for event in [granted, expired] {
        assert_eq!((event.entry.address, event.entry.peer), (spec.source, Some(spec.destination)));
    }
    assert_eq!(granted.cause.unwrap().knock.unwrap().destination, spec.destination);
}

#[test]
fn an_event_names_the_rule_that_added_the_address() {
    let text = "/ip firewall filter\n\
        add chain=input protocol=tcp dst-port=1 action=accept\n\
        add chain=input src-address-list=known action=add-src-to-address-list address-list=further address-list-timeout=1m\n\
        add chain=input protocol=tcp dst-port=22 action=add-src-to-address-list address-list=known address-list-timeout=1m\n";
    let mut engine = Engine::new(rsc::read(text.as_bytes()).rules, &Settings::default());
    let frame = Spec::new("192.0.2.1", Transport::Tcp(40_000, 22), b"").frame();
    engine.decide(Side::Outside, &[&frame], after(1));
    engine.decide(Side::Outside, &[&frame], after(2));
    let events = events(&engine.state.lists, &mut Cursor::after(0));
    let [ListEvent { kind: EventKind::Listed, cause: Some(cause), .. }] = events[..] else { panic!("{events:?}") };
    assert_eq!(cause.rule, Some(RulePosition { table: engine.table.number(), rule: 1 }));
}

#[test]
fn a_flood_of_logged_packets_displaces_no_grant() {
    let text = "/ip firewall filter\nadd chain=input action=drop log=yes\n";
    let settings = Settings { doors: vec![door("a", &["tcp/1234"], &[])], ..Settings::default() };
    let mut engine = Engine::with_room(rsc::read(text.as_bytes()).rules, &settings, 10_000);
    let flood = Spec::new("198.51.100.1", Transport::Tcp(40_000, 9), b"").frame();
    for number in 0..1_000 {
        let source = v4(0x0a00_0000 + number);
        let knock = Spec { source, ..Spec::new("192.0.2.1", Transport::Tcp(40_000, 1234), b"") }.frame();
        engine.decide(Side::Outside, &[&flood, &flood, &flood, &knock, &flood], after(1));
    }
    assert!(engine.logged.lost() > 1_000, "{} packets were lost: the queue is full", engine.logged.lost());
    let granted = events(&engine.state.lists, &mut Cursor::after(0));
    let sources: Vec<_> =
        granted.iter().filter(|event| event.kind == EventKind::Granted).map(|event| event.entry.address).collect();
    assert_eq!(sources, (0..1_000).map(|number| v4(0x0a00_0000 + number)).collect::<Vec<_>>());
}
