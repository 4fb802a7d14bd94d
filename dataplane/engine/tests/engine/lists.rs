//! Address lists against the plain ones, when full, from many threads, and for operators.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use knockplane_engine::state::events::EventRoom;
use knockplane_engine::state::events::ring::{Cursor, Received};
use knockplane_engine::state::lists::{
    AddOutcome, FirstStepSettings, ListId, Lists, OPERATOR_LEVEL, ProgressChange, expiry,
};
use knockplane_policy::eval::{ListedAddress, PlainLists};
use knockplane_policy::event::EventKind;
use knockplane_policy::packet::Vlan;
use knockplane_policy::rule::{AddressSet, ListTimeout};
use knockplane_policy::time::Time;
use proptest::prelude::*;

use crate::common::{cases, events, live, seconds};

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

fn after(time: u64) -> Time {
    Time::from_nanos(0) + seconds(time)
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(number).into()
}

fn bound(lists: &Lists) -> [ListId; 3] {
    [0, 1, 2].map(|level| lists.bind(NAMES[usize::from(level)], level).unwrap())
}

#[derive(Clone, Debug)]
enum Turn {
    Pass(Duration),
    Add(usize, IpAddr, ListTimeout),
    Remove(usize, IpAddr),
    Sweep,
}

/// Few addresses, among them one whose number is the same in both families.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..6_u32).prop_map(v4),
        (0..4_u32).prop_map(|number| Ipv4Addr::from_bits(number).to_ipv6_mapped().into()),
        (0..3_u128).prop_map(|number| Ipv6Addr::from_bits(number).into()),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    let timeout = prop_oneof![
        8 => (1..6_u64).prop_map(|time| ListTimeout::After(seconds(time))),
        1 => Just(ListTimeout::After(Duration::ZERO)),
        1 => Just(ListTimeout::NoneDynamic),
        1 => Just(ListTimeout::NoneStatic),
    ];
    prop_oneof![
        2 => prop_oneof![Just(1), Just(999_999_999), Just(1_000_000_000)].prop_map(|ns| Turn::Pass(Duration::from_nanos(ns))),
        6 => (0..3_usize, address(), timeout).prop_map(|(list, address, timeout)| Turn::Add(list, address, timeout)),
        1 => (0..3_usize, address()).prop_map(|(list, address)| Turn::Remove(list, address)),
        1 => Just(Turn::Sweep),
    ]
}

proptest! {
    #![proptest_config(cases(1_000))]

    /// The lists have capacity for all entries, in one shard or in several.
    #[test]
    fn lists_that_are_not_full_are_plain(
        turns in prop::collection::vec(turn(), 0..60),
        capacity in prop_oneof![Just(39_usize), Just(4_096)],
        secret in any::<[u64; 2]>(),
    ) {
        let lists = Lists::with_secret(capacity, secret).unwrap();
        let ids = bound(&lists);
        let mut plain = PlainLists::default();
        let mut removed = HashSet::new();
        let mut now = after(1);
        for turn in turns {
            match turn {
                Turn::Pass(time) => now = now + time,
                Turn::Add(list, address, timeout) => {
                    if removed.contains(&(list, address)) {
                        continue;
                    }
                    let was_there = plain.contains(NAMES[list], address, now);
                    plain.add(NAMES[list], address, timeout, now);
                    let added = lists.add(ids[list], address, expiry(timeout, now), now);
                    prop_assert_eq!(added, if was_there { AddOutcome::Refreshed } else { AddOutcome::New });
                }
                Turn::Remove(list, address) => {
                    // The plain lists cannot remove; from here on the comparison skips this pair.
                    let was_there = plain.contains(NAMES[list], address, now) && removed.insert((list, address));
                    prop_assert_eq!(lists.remove(ids[list], address, now), was_there);
                }
                Turn::Sweep => { lists.sweep(1_000_000, now); }
            }
            let mut expected = plain.live(now);
            let position = |name: &str| NAMES.iter().position(|known| *known == name).unwrap();
            expected.retain(|entry| !removed.contains(&(position(&entry.list), entry.address)));
            prop_assert_eq!(&live(&lists, now), &expected);
            for entry in &expected {
                prop_assert!(lists.membership(entry.address, 0, now).contains(ids[position(&entry.list)]));
            }
        }
        lists.sweep(1_000_000, now);
        let counted: u64 = lists.summaries().iter().map(|summary| summary.entries).sum();
        prop_assert_eq!(counted as usize, live(&lists, now).len());
    }

    /// Compares a single shard that is much too small with the permitted outcomes. An entry is removed only when it
    /// expires, or when an entry of the same or a higher level replaces it and there is no lower or older entry.
    #[test]
    fn a_full_table_keeps_to_its_order(
        turns in prop::collection::vec((0..3_usize, 0..40_u32, 1..30_u64, 0..3_u64), 0..120),
        // An addition finds all expired entries only among few slots. With more slots, no entry of this test expires.
        (capacity, expires) in prop_oneof![(1..5_usize, Just(true)), (1..12_usize, Just(false))],
    ) {
        let lists = Lists::with_secret(capacity, [3, 4]).unwrap();
        let ids = bound(&lists);
        // List, address, expiry, in the order of their last addition.
        let mut model: Vec<(usize, IpAddr, Time)> = Vec::new();
        let (mut evicted, mut refused) = ([0_u64; 3], [0_u64; 3]);
        let mut now = after(1);
        for (list, number, timeout, pause) in turns {
            now = now + seconds(pause);
            let (address, until) = (v4(number), if expires { now + seconds(timeout) } else { after(10_000) });
            model.retain(|(_, _, expiry)| now < *expiry);
            let expected = if let Some(known) = model.iter().position(|entry| (entry.0, entry.1) == (list, address)) {
                model.remove(known);
                model.push((list, address, until));
                AddOutcome::Refreshed
            } else {
                if model.len() == capacity {
                    let lowest = model.iter().map(|entry| entry.0).min().unwrap();
                    if lowest <= list {
                        let oldest = model.iter().position(|entry| entry.0 == lowest).unwrap();
                        evicted[model.remove(oldest).0] += 1;
                    }
                }
                if model.len() < capacity {
                    model.push((list, address, until));
                    AddOutcome::New
                } else {
                    refused[list] += 1;
                    AddOutcome::Refused
                }
            };
            prop_assert_eq!(lists.add(ids[list], address, until, now), expected);
            let mut expected: Vec<_> = model
                .iter()
                .map(|(list, address, expiry)| ListedAddress {
                    list: NAMES[*list].to_owned(),
                    address: *address,
                    vlan: Vlan::NONE,
                    time_left: Some(expiry.since(now)),
                })
                .collect();
            expected.sort();
            prop_assert_eq!(live(&lists, now), expected);
        }
        let told: Vec<_> = lists.summaries().into_iter().map(|list| (list.level, list.evicted, list.refused)).collect();
        prop_assert_eq!(told, (0..3).map(|list| (list as u8, evicted[list], refused[list])).collect::<Vec<_>>());
    }
}

#[test]
fn a_flood_of_first_knocks_leaves_whoever_is_further_along() {
    let lists = Lists::with_secret(64 * 1024, [5, 6]).unwrap();
    let [first, second, _] = bound(&lists);
    for number in 0..1_000 {
        assert_eq!(lists.add(second, v4(number), after(60), after(0)), AddOutcome::New);
    }
    for number in 0..1_000_000_u32 {
        lists.add(first, v4(0x0a00_0000 + number), after(60), after(1));
    }
    for number in 0..1_000 {
        assert!(lists.membership(v4(number), 0, after(2)).contains(second));
    }
    let [level0, level1, _] = &lists.summaries()[..] else { panic!() };
    assert_eq!((level1.entries, level1.evicted), (1_000, 0));
    assert_eq!(level0.entries + level0.evicted, 1_000_000);
    assert_eq!(level0.entries + level1.entries, lists.capacity() as u64);
}

#[test]
fn what_expires_is_counted_once_however_it_is_found() {
    let lists = Lists::with_secret(1, [5, 6]).unwrap();
    let [first, second, _] = bound(&lists);
    let expired = || lists.summaries().iter().map(|list| list.expired).sum::<u64>();
    let add = |list, time: u64| lists.add(list, v4(1), after(time + 1), after(time));
    add(first, 0);
    assert!(lists.remove(first, v4(1), after(0)), "taken out in time, it does not expire");
    add(first, 0);
    add(first, 0);
    assert_eq!(expired(), 0);
    add(first, 1);
    assert_eq!(expired(), 1, "the same address again");
    add(second, 2);
    assert_eq!(expired(), 2, "for want of room");
    assert!(!lists.remove(second, v4(1), after(3)));
    assert_eq!(expired(), 3, "taken out too late");
    let step =
        |time: u64| ProgressChange::Set { step: 1, peer_tag: 7, begun: after(time), level: 0, expiry: after(time + 1) };
    lists.in_vlan(Vlan::NONE).progress(first, v4(1), after(4), |_| step(4));
    lists.in_vlan(Vlan::NONE).progress(first, v4(1), after(4), |_| step(4));
    lists
        .in_vlan(Vlan::NONE)
        .progress(first, v4(1), after(5), |seen| if seen.is_none() { step(5) } else { ProgressChange::Keep });
    assert_eq!(expired(), 4, "a step too late");
    lists.in_vlan(Vlan::NONE).progress(first, v4(1), after(5), |_| ProgressChange::Clear);
    lists.sweep(1, after(9));
    assert_eq!(expired(), 4, "what led to the end does not expire");
    add(first, 9);
    lists.sweep(1, after(10));
    assert_eq!((expired(), lists.summaries()[0].entries), (5, 0));
}

#[test]
fn many_threads_see_each_other() {
    let lists = Lists::new(20_000).unwrap();
    let ids = bound(&lists);
    let now = after(1);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let lists = &lists;
            scope.spawn(move || {
                for round in 0..5_000_u32 {
                    let list = ids[(round % 3) as usize];
                    let address = v4((thread << 16) | (round % 500));
                    lists.add(list, address, after(9), now);
                    assert!(lists.membership(address, 0, now).contains(list));
                    // An entry that has expired before it begins: work for the sweeps, on addresses that all threads
                    // share.
                    lists.add(list, v4(0x0a00_0000 | (round % 700)), now, now);
                    lists.sweep(64, now);
                    if round % 1_000 == 0 {
                        lists.visit(now, |_| ());
                        lists.summaries();
                    }
                }
            });
        }
    });
    let counted = || lists.summaries().iter().map(|list| list.entries).sum::<u64>();
    lists.sweep(1_000_000, now);
    assert_eq!((live(&lists, now).len(), counted()), (4 * 500 * 3, 4 * 500 * 3));
    lists.sweep(1_000_000, after(9));
    assert_eq!(counted(), 0);
}

#[test]
fn one_address_can_be_in_every_list() {
    let lists = Lists::new(5_000).unwrap();
    let ids: Vec<ListId> = (0..256).map(|list| lists.bind(&format!("list {list}"), 0).unwrap()).collect();
    for id in &ids {
        assert_eq!(lists.add(*id, v4(1), Time::NEVER, after(0)), AddOutcome::New);
    }
    let member = lists.membership(v4(1), 0, after(1_000_000));
    assert!(ids.iter().all(|id| member.contains(*id)));
    assert!(!ids.iter().any(|id| lists.membership(v4(2), 0, after(0)).contains(*id)));

    assert_eq!(lists.bind("list 7", 3), Ok(ids[7]));
    let error = lists.bind_all(&[("list 8", 9), ("one more", 0)]).unwrap_err();
    assert_eq!(error.name, "one more");
    assert!(error.to_string().contains("256 names"));
    assert_eq!((lists.level(ids[7]), lists.level(ids[8]), lists.id("one more")), (3, 0, None));
    assert_eq!(lists.name(ids[7]).as_deref(), Some("list 7"));
}

#[test]
fn summaries_are_in_the_order_of_names() {
    let lists = Lists::with_secret(10_000, [7, 8]).unwrap();
    let zebra = lists.bind("zebra", OPERATOR_LEVEL).unwrap();
    let ant = lists.bind("ant", 0).unwrap();
    for number in 0..2_000 {
        lists.add(zebra, v4(number), Time::NEVER, after(0));
    }
    lists.add(ant, v4(9), after(5), after(0));
    let levels: Vec<_> = lists.summaries().into_iter().map(|list| (list.list, list.level, list.entries)).collect();
    assert_eq!(levels, [("ant".to_owned(), 0, 1), ("zebra".to_owned(), 255, 2_000)]);
}

#[test]
fn what_is_held_for_good_takes_no_room_and_is_changed_by_no_packet() {
    let lists = Lists::new(1).unwrap();
    let [first, second, _] = bound(&lists);
    let held: [AddressSet; 3] = ["192.0.2.0/24", "198.51.100.7", "2001:db8::/32"].map(|set| set.parse().unwrap());
    let is_in = |list, address: &str| lists.membership(address.parse().unwrap(), 0, after(0)).contains(list);
    lists.set_static_entries(held.iter().map(|set| (first, set.bounds(), None)));
    for address in ["192.0.2.0", "192.0.2.255", "198.51.100.7", "2001:db8::1"] {
        assert!(is_in(first, address) && !is_in(second, address), "{address}");
        assert_eq!(lists.add(first, address.parse().unwrap(), after(1), after(0)), AddOutcome::Kept);
    }
    assert!(!is_in(first, "192.0.3.0"));
    assert_eq!(lists.add(second, v4(1), after(9), after(0)), AddOutcome::New, "there is room for one");
    lists.set_static_entries(held.iter().skip(1).map(|set| (second, set.bounds(), None)));
    assert!(!is_in(first, "192.0.2.0") && !is_in(first, "198.51.100.7") && is_in(second, "198.51.100.7"));
    lists.set_static_entries(std::iter::empty());
    assert!(!is_in(second, "198.51.100.7") && lists.membership(v4(1), 0, after(0)).contains(second));
}

#[test]
fn what_an_operator_would_meet_is_known_before() {
    let lists = Lists::with_secret(10, [1, 2]).unwrap();
    let [first, second, _] = bound(&lists);
    let room = |many: u32| lists.has_room_for((0..many).map(|number| (first, v4(number))), after(0));
    assert!(room(9) && !room(10), "a tenth is left to packets");
    (0..10).for_each(|number| _ = lists.add(first, v4(number), after(9), after(0)));
    assert!(room(9) && !room(10), "operators outrank them");
    (0..5).for_each(|number| _ = lists.add_by_operator(first, v4(number), after(9), after(0)));
    assert!(room(9) && !room(10), "whoever is in by an operator needs no more room");
    (0..5).for_each(|number| _ = lists.add_by_operator(second, v4(number), after(9), after(0)));
    assert!(room(5) && !room(6));
    (0..5).for_each(|number| _ = lists.remove(second, v4(number), after(0)));
    assert!(room(9) && Lists::new(1).unwrap().has_room_for([(first, v4(0))].into_iter(), after(0)));

    let mut lists = Lists::new(10).unwrap();
    lists.set_first_steps(FirstStepSettings { v6_by_prefix: true, ..FirstStepSettings::default() }).unwrap();
    let [first, second, _] = bound(&lists);
    let address: IpAddr = "2001:db8::1".parse().unwrap();
    for list in [first, second] {
        lists.add_for(list, address, 7, Time::NEVER, after(0));
        lists.add(list, v4(1), after(5), after(0));
        assert!(
            !lists.has_permanent_entry(list, address, after(0)) && !lists.has_permanent_entry(list, v4(1), after(0))
        );
        lists.add(list, address, Time::NEVER, after(0));
        assert!(lists.has_permanent_entry(list, address, after(0)), "also where its network is what is in");
    }
}

#[test]
fn the_lowest_levels_gauge_is_true_within_the_budget_of_a_second() {
    let lists = Lists::with_secret(100_000, [9, 9]).unwrap();
    let [first, _, third] = bound(&lists);
    for number in 0..40_000 {
        lists.add(first, v4(number), after(u64::from(number % 7)), after(0));
        lists.add(third, v4(number), Time::NEVER, after(0));
    }
    let budget = (lists.capacity() + 65_536) / 1_000;
    for now in 1..=7 {
        for _ in 0..1_000 {
            lists.sweep(budget, after(now));
        }
        let live = (0..40_000_u64).filter(|number| number % 7 > now).count() as u64;
        assert_eq!(lists.summaries()[0].entries, live, "after {now} s");
    }
}

#[test]
fn capacities_that_make_no_sense_are_refused_with_their_size() {
    for capacity in [0, usize::MAX, 2_000_000_000] {
        let Err(error) = Lists::new(capacity) else { panic!("{capacity} entries") };
        let told = error.to_string();
        assert!(told.contains(&format!("{capacity} entries")) && told.contains(&error.bytes.to_string()), "{told}");
    }
    assert_eq!(Lists::new(1).unwrap().capacity(), 1);
    let capacity = Lists::new(1_000_000).unwrap().capacity();
    assert!((1_000_000..1_010_000).contains(&capacity));
}

#[test]
fn what_an_operator_adds_outlives_every_flood() {
    let lists = Lists::new(64).unwrap();
    let first = lists.bind("first", 0).unwrap();
    lists.add_by_operator(first, v4(1), Time::NEVER, after(0));
    // An entry that a packet added, and that an operator then made static.
    lists.add(first, v4(2), after(60), after(0));
    lists.add_by_operator(first, v4(2), Time::NEVER, after(0));
    for source in 100..10_000 {
        lists.add(first, v4(source), after(60), after(1));
    }
    for kept in [1, 2] {
        assert!(lists.membership(v4(kept), 0, after(2)).contains(first), "{kept}");
    }
}

fn with_first_steps(capacity: usize, settings: FirstStepSettings) -> Lists {
    let mut lists = Lists::with_secret(capacity, [1, 2]).unwrap();
    lists.set_first_steps(settings).unwrap();
    lists
}

#[test]
fn first_steps_of_a_prefix_have_a_quota() {
    let lists = with_first_steps(10_000, FirstStepSettings { quota: 3, ..FirstStepSettings::default() });
    let [first, second, _] = bound(&lists);
    let neighbour = |number: u32| v4(0xc000_0200 | number);
    let add = |list, number, now| lists.add(list, neighbour(number), after(now + 5), after(now));
    let (new, again, refused) = (AddOutcome::New, AddOutcome::Refreshed, AddOutcome::Refused);
    assert_eq!([1, 2, 3, 4].map(|number| add(first, number, 0)), [new, new, new, refused]);
    assert_eq!((add(first, 1, 0), add(second, 4, 0)), (again, new));
    assert_eq!(lists.add(first, v4(0xc000_0301), after(5), after(0)), new, "another prefix");
    // An entry that is removed, swept, or moved to a higher level makes room.
    assert!(lists.remove(first, neighbour(1), after(0)));
    assert_eq!([4, 5].map(|number| add(first, number, 1)), [new, refused]);
    lists.sweep(20_000, after(5));
    assert_eq!([6, 7, 8].map(|number| add(first, number, 5)), [new, new, refused]);
    lists.add_by_operator(first, neighbour(6), Time::NEVER, after(5));
    assert_eq!([8, 9].map(|number| add(first, number, 5)), [new, refused]);
    assert_eq!(lists.summaries()[0].refused, 4);
}

#[test]
fn sequences_count_for_the_quota_while_they_begin() {
    let lists = with_first_steps(10_000, FirstStepSettings { quota: 1, ..FirstStepSettings::default() });
    let [list, ..] = bound(&lists);
    let step = |number, level| {
        let set = ProgressChange::Set { step: 1, peer_tag: 7, begun: after(1), level, expiry: after(9) };
        lists.in_vlan(Vlan::NONE).progress(list, v4(number), after(1), |_| set)
    };
    assert_eq!([step(1, 0), step(2, 0)], [Some(AddOutcome::New), Some(AddOutcome::Refused)]);
    assert_eq!([step(1, 1), step(2, 0)], [Some(AddOutcome::Refreshed), Some(AddOutcome::New)]);
    // After a reset to the first step, both sources count.
    assert_eq!([step(1, 0), step(3, 0)], [Some(AddOutcome::Refreshed), Some(AddOutcome::Refused)]);
    lists.in_vlan(Vlan::NONE).progress(list, v4(1), after(1), |_| ProgressChange::Clear);
    assert_eq!(step(3, 0), Some(AddOutcome::Refused));
    lists.in_vlan(Vlan::NONE).progress(list, v4(2), after(1), |_| ProgressChange::Clear);
    assert_eq!(step(3, 0), Some(AddOutcome::New));
}

#[test]
fn first_steps_of_ipv6_can_be_kept_by_the_network() {
    let settings = FirstStepSettings { v6_by_prefix: true, ..FirstStepSettings::default() };
    let lists = with_first_steps(100_000, settings);
    let [first, second, _] = bound(&lists);
    let address = |net: u128, host: u128| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96 | net << 64 | host));
    let is_in = |list, net, host| lists.membership(address(net, host), 0, after(1)).contains(list);
    let mut added = (0..100).map(|host| lists.add(first, address(1, host), after(5), after(0)));
    assert!(added.next() == Some(AddOutcome::New) && added.all(|added| added == AddOutcome::Refreshed));
    assert!(is_in(first, 1, 7) && is_in(first, 1, 1000) && !is_in(first, 2, 7));
    // A further step counts for its own address alone.
    lists.add(second, address(1, 0), after(5), after(0));
    assert!(is_in(second, 1, 0) && !is_in(second, 1, 1) && !is_in(first, 0, 0));
    let mut entries = 0;
    lists.visit(after(1), |_| entries += 1);
    assert_eq!(entries, 2);
    assert!(lists.remove(first, address(1, 9), after(1)) && !is_in(first, 1, 7) && is_in(second, 1, 0));
    // IPv4 and higher levels are unchanged.
    lists.add(first, v4(1), after(5), after(0));
    assert!(!lists.membership(v4(2), 0, after(1)).contains(first));
    for host in 0..1_000 {
        assert_eq!(lists.add(second, address(3, host), after(5), after(0)), AddOutcome::New);
    }
    lists.sweep(200_000, after(5));
    assert!(lists.summaries().iter().all(|list| list.entries == 0));
}

/// The entries that ended since the last sweep, including those that this complete sweep ends.
fn ended(lists: &Lists, cursor: &mut Cursor, now: u64) -> Vec<(u8, IpAddr, EventKind)> {
    lists.sweep(200_000, after(now));
    let ended = events(lists, cursor).into_iter().filter(|event| event.kind.is_end());
    ended.map(|event| (event.entry.level, event.entry.address, event.kind)).collect()
}

#[test]
fn entries_above_the_lowest_level_are_events_when_they_end() {
    let lists = Lists::with_secret(2, [1, 2]).unwrap();
    let [first, second, third] = bound(&lists);
    let mut cursor = Cursor::after(0);
    lists.add(first, v4(1), after(5), after(0));
    lists.add(second, v4(1), after(5), after(0));
    assert_eq!(ended(&lists, &mut cursor, 4), []);
    assert_eq!(ended(&lists, &mut cursor, 5), [(1, v4(1), EventKind::Expired)]);
    assert_eq!(ended(&lists, &mut cursor, 6), []);
    // The event also occurs if another addition finds the entry.
    lists.add(second, v4(1), after(8), after(7));
    lists.add(second, v4(1), after(10), after(9));
    assert_eq!(ended(&lists, &mut cursor, 9), [(1, v4(1), EventKind::Expired)]);
    lists.remove(second, v4(1), after(9));
    for number in 0..3 {
        lists.add(if number == 0 { second } else { third }, v4(number), after(20), after(10));
    }
    let expected = [(1, v4(1), EventKind::Removed), (1, v4(0), EventKind::Evicted)];
    assert_eq!(ended(&lists, &mut cursor, 10), expected);
}

#[test]
fn expiry_is_an_event_within_a_second() {
    let lists = Lists::with_secret(100_000, [1, 2]).unwrap();
    let [_, second, _] = bound(&lists);
    let milliseconds = |ms: u32| after(0) + Duration::from_millis(ms.into());
    for number in 0..20_000 {
        lists.add(second, v4(number), milliseconds(number / 4), after(0));
    }
    // Sweeps a fifth of all slots ten times a second, as the dataplane's manager does.
    let (mut ended, mut cursor) = (0, Cursor::after(lists.last_event()));
    for tick in 0..=60 {
        let now = milliseconds(100 * tick);
        lists.sweep((lists.capacity() + 65_536) / 5, now);
        for event in events(&lists, &mut cursor) {
            let IpAddr::V4(address) = event.entry.address else { panic!("{event:?}") };
            let expired = milliseconds(address.to_bits() / 4);
            assert_eq!(event.kind, EventKind::Expired);
            assert!(expired <= now && now.since(expired) < seconds(1), "{expired:?} found at {now:?}");
            ended += 1;
        }
    }
    assert_eq!(ended, 20_000);
}

#[test]
fn entries_that_end_at_once_are_events_or_in_a_gap() {
    let lists = Lists::with_secret(100_000, [1, 2]).unwrap();
    let [_, second, _] = bound(&lists);
    for number in 0..20_000 {
        lists.add(second, v4(number), after(5), after(0));
    }
    let mut cursor = Cursor::after(lists.last_event());
    lists.sweep(200_000, after(5));
    let (mut read, mut missed) = (0, 0);
    while let Some(received) = lists.receive(&mut cursor) {
        match received {
            Received::Event(_, event) => read += u64::from(event.kind == EventKind::Expired),
            Received::Gap(gap) => missed += gap.last - gap.first + 1,
        }
    }
    assert!(read > 0 && missed > 0 && read + missed == 20_000, "{read} and {missed}");
    // Each new entry takes the place of the one before, without a sweep.
    let lists = Lists::with_room(1, [1, 2], EventRoom::default()).unwrap();
    let [_, second, _] = bound(&lists);
    for number in 0..2_001 {
        lists.add(second, v4(number), after(5), after(0));
    }
    assert_eq!(ended(&lists, &mut Cursor::after(0), 0).len(), 2_000);
}
