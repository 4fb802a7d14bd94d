//! Entries that count for one peer alone, and sequences of steps.

use std::net::{IpAddr, Ipv4Addr};

use knockplane_engine::state::lists::{AddOutcome, ListId, Lists, ProgressChange, SequenceProgress};
use knockplane_policy::packet::Vlan;
use knockplane_policy::time::Time;

use crate::common::seconds;

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn after(time: u64) -> Time {
    Time::from_nanos(0) + seconds(time)
}

fn lists(capacity: usize) -> (Lists, ListId) {
    let lists = Lists::with_secret(capacity, [1, 2]).unwrap();
    let list = lists.bind("door", 2).unwrap();
    (lists, list)
}

#[test]
fn an_entry_for_one_end_counts_for_no_other() {
    let (lists, door) = lists(100);
    let is_in = |to, now| lists.membership(SOURCE, to, after(now)).contains(door);
    assert_eq!(lists.add_for(door, SOURCE, 7, after(5), after(0)), AddOutcome::New);
    assert_eq!([0, 7, 8].map(|to| is_in(to, 4)), [false, true, false]);
    assert_eq!(lists.add_for(door, SOURCE, 8, after(9), after(0)), AddOutcome::New);
    assert_eq!(lists.add_for(door, SOURCE, 8, after(8), after(1)), AddOutcome::Refreshed);
    assert_eq!([0, 7, 8].map(|to| is_in(to, 5)), [false, false, true]);
    assert!(!is_in(8, 8));
    assert_eq!(lists.add(door, SOURCE, after(20), after(10)), AddOutcome::New);
    assert_eq!([0, 7, 8].map(|to| is_in(to, 10)), [true; 3]);
}

#[test]
fn an_entry_is_removed_for_one_end_or_for_all() {
    let (lists, door) = lists(100);
    for to in [0, 7, 8] {
        lists.add_for(door, SOURCE, to, after(5), after(0));
    }
    let is_in = |to| lists.membership(SOURCE, to, after(1)).contains(door);
    assert!(
        lists.in_vlan(Vlan::NONE).remove_for(door, SOURCE, 0, after(1))
            && !lists.in_vlan(Vlan::NONE).remove_for(door, SOURCE, 0, after(1))
    );
    assert_eq!([0, 7, 8].map(is_in), [false, true, true]);
    assert!(lists.remove(door, SOURCE, after(1)) && !lists.remove(door, SOURCE, after(1)));
    assert_eq!([0, 7, 8].map(is_in), [false; 3]);
    assert_eq!(lists.summaries()[0].entries, 0);
}

#[test]
fn of_nine_ends_the_oldest_gives_way() {
    let (lists, door) = lists(100);
    for to in 1..=8 {
        lists.add_for(door, SOURCE, to, after(50), after(u64::from(to)));
    }
    lists.add(door, [192, 0, 2, 2].into(), after(50), after(0));
    lists.add_for(door, SOURCE, 1, after(60), after(10));
    assert_eq!(lists.add_for(door, SOURCE, 9, after(61), after(11)), AddOutcome::New);
    let kept: Vec<u32> = (1..=9).filter(|to| lists.membership(SOURCE, *to, after(12)).contains(door)).collect();
    assert_eq!(kept, [1, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!((lists.summaries()[0].entries, lists.summaries()[0].evicted), (9, 1));
    // An addition first removes expired entries, which are no evictions.
    lists.add_for(door, SOURCE, 9, after(13), after(12));
    assert_eq!(lists.add_for(door, SOURCE, 10, after(61), after(13)), AddOutcome::New);
    assert!(lists.membership(SOURCE, 3, after(13)).contains(door));
    assert_eq!(lists.summaries()[0].evicted, 1);
    // A new entry evicts none of a higher level.
    lists.bind("door", 1).unwrap();
    assert_eq!(lists.add_for(door, SOURCE, 11, after(61), after(13)), AddOutcome::Refused);
    assert!(lists.membership(SOURCE, 3, after(13)).contains(door));
}

#[test]
fn ends_are_shown_as_far_as_they_are_known() {
    let (lists, door) = lists(100);
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let inside: [IpAddr; 2] = ["198.51.100.9".parse().unwrap(), "2001:db8:9::9".parse().unwrap()];
    for (source, end) in [SOURCE, v6].into_iter().zip(inside) {
        lists.add_for(door, source, lists.peer_tag(end), after(5), after(0));
        assert!(lists.membership(source, lists.peer_tag(end), after(1)).contains(door));
    }
    let mut told = Vec::new();
    lists.visit(after(1), |seen| told.push((seen.address, seen.peer())));
    told.sort();
    assert_eq!(told, [(SOURCE, Some(inside[0])), (v6, Some("::".parse().unwrap()))]);
    assert_ne!(lists.peer_tag("0.0.0.0".parse().unwrap()), 0);
}

fn set(step: u8, to: u32, begun: Time, level: u8, expiry: Time) -> ProgressChange {
    ProgressChange::Set { step, peer_tag: to, begun, level, expiry }
}

#[test]
fn a_sequence_is_read_and_written_in_one() {
    let (lists, door) = lists(100);
    let begun = Time::from_nanos(1_700_000);
    let first = |seen: Option<SequenceProgress>| {
        assert_eq!(seen, None);
        set(1, 7, begun, 0, after(10))
    };
    assert_eq!(lists.in_vlan(Vlan::NONE).progress(door, SOURCE, begun, first), Some(AddOutcome::New));
    let mut seen = None;
    let second = |stored: Option<SequenceProgress>| {
        seen = stored;
        set(2, 9, begun, 1, after(12))
    };
    assert_eq!(lists.in_vlan(Vlan::NONE).progress(door, SOURCE, after(3), second), Some(AddOutcome::Refreshed));
    assert_eq!(seen, Some(SequenceProgress { step: 1, peer_tag: 7, begun, since: begun, expiry: after(10) }));

    let look = |now| {
        let mut seen = None;
        let keep = |stored| {
            seen = stored;
            ProgressChange::Keep
        };
        assert_eq!(lists.in_vlan(Vlan::NONE).progress(door, SOURCE, now, keep), None);
        seen
    };
    let stored = look(after(2)).unwrap();
    // Exact to the millisecond, and never later than the expiry.
    assert_eq!((stored.begun, stored.since), (Time::from_nanos(1_000_000), after(3)));
    assert!(stored.is_ahead_of(after(2)) && !stored.is_ahead_of(after(3)));
    assert_eq!(look(after(12)), None);
    let counts = |to, now| lists.membership(SOURCE, to, after(now)).contains(door);
    assert!(counts(9, 3) && !counts(9, 2) && !counts(7, 3) && !counts(0, 3));

    assert_eq!(lists.in_vlan(Vlan::NONE).progress(door, SOURCE, after(4), |_| ProgressChange::Clear), None);
    assert_eq!(look(after(4)), None);
    assert_eq!(lists.summaries()[0].entries, 0);
}

#[test]
fn a_sequence_keeps_to_the_levels() {
    let (lists, door) = lists(2);
    let step = |source: u8, level| {
        lists
            .in_vlan(Vlan::NONE)
            .progress(door, [192, 0, 2, source].into(), after(1), |_| set(1, 7, after(1), level, after(9)))
    };
    assert_eq!(
        [step(1, 1), step(2, 1), step(3, 0)],
        [Some(AddOutcome::New), Some(AddOutcome::New), Some(AddOutcome::Refused)]
    );
    // After a reset, the source is at the first step again, and its entry can be evicted.
    assert_eq!([step(1, 0), step(3, 0)], [Some(AddOutcome::Refreshed), Some(AddOutcome::New)]);
    let told = &lists.summaries()[0];
    assert_eq!((told.entries, told.evicted, told.refused), (2, 1, 1));
}
