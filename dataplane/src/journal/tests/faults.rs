//! Writes, syncs and renames that fail, each at every place of a history, and a disk that takes its time.

use std::time::{Duration, Instant};

use super::machine::{Entries, Machine, Run};
use super::*;
use crate::state_dir::disk::faults::DiskCall;

/// The steps of a history.
const STEPS: usize = 12;

/// A change of the entries.
fn step(run: &mut Run, machine: &Machine, number: usize) {
    let until = machine.now().as_nanos() + 3_600 * SECOND;
    match number {
        0 => run.add(machine, 1, until),
        1 => run.set_prefix(machine, 1, Some(until)),
        2 => (2..60).for_each(|host| run.add(machine, host, until)),
        3 => run.remove(machine, 1),
        4 => {
            run.add(machine, 3, until + 1_800 * SECOND);
            run.set_prefix(machine, 2, Some(until));
        }
        5 => run.set_prefix(machine, 1, None),
        6 => run.flush(machine),
        7 => run.add(machine, 1, until),
        8 => run.set_prefix(machine, 1, Some(until)),
        9 => run.add(machine, 2, machine.now().as_nanos() + SECOND),
        10 => run.remove(machine, 1),
        11 => run.set_prefix(machine, 2, None),
        _ => unreachable!("{STEPS} steps"),
    }
}

/// Runs the history while calls fail. Returns whether one failed.
fn history(kinds: &[DiskCall], failing: std::ops::Range<u64>) -> bool {
    let what = format!("{kinds:?}, {failing:?}");
    let mut machine = Machine::new();
    let mut run = machine.start();
    machine.state.disk.faults.fail(kinds, failing);
    // The states of the true history, and the last one that must not be lost.
    let (mut states, mut kept) = (vec![Entries::new()], 0);
    let mut check = |machine: &Machine, run: &Run, state: usize, states: &[Entries]| {
        kept = if run.is_settled() { state } else { kept };
        let (found, report) = machine.stored();
        let is_state = |number: &usize| states[*number] == live(&found, &states[*number], machine);
        let number = (0..=state).rev().find(is_state);
        assert!(number.is_some_and(|number| number >= kept), "{what}: after step {state}, kept {kept}: {found:?}");
        assert_eq!(report.damage, None, "{what}");
    };
    for number in 0..STEPS {
        step(&mut run, &machine, number);
        states.push(run.entries(&machine));
        run.turn(&machine);
        check(&machine, &run, states.len() - 1, &states);
        machine.time += 700_000_000;
    }
    let has_failed = machine.state.disk.faults.has_failed();
    machine.state.disk.faults.fail(&[], 0..0);
    machine.time += 2 * SECOND;
    run.turn(&machine);
    assert!(run.is_settled() && run.journal.status(0).problem.is_none(), "{what}: {:?}", run.journal.status(0));
    let present = run.entries(&machine);
    assert_eq!(machine.stored().0, present, "{what}: the file is complete again");
    // A later dataplane continues from it.
    let later = machine.start();
    assert_eq!(later.entries(&machine), present, "{what}");
    has_failed
}

/// The stored entries, with those that have expired since a state.
fn live(found: &Entries, state: &Entries, machine: &Machine) -> Entries {
    let now = machine.now().as_nanos();
    let expired = state.iter().filter(|(_, until)| **until <= now);
    found.iter().chain(expired).map(|(name, until)| (name.clone(), *until)).collect()
}

#[test]
fn a_disk_that_fails_at_any_call_leaves_a_state_of_the_history_and_catches_up() {
    use DiskCall::{Cut, Rename, Sync, Write};
    let mut failures = 0;
    let all: &[DiskCall] = &[Write, Sync, Cut, Rename];
    for kinds in [&[Write][..], &[Sync], &[Rename], &[Write, Cut], &[Sync, Cut], all] {
        for width in [1, 2, 4, 40] {
            let mut first = 0;
            while history(kinds, first..first + width) {
                first += 1;
                failures += 1;
            }
            assert!(first > 0, "{kinds:?} are called");
        }
    }
    assert!(failures > 300, "{failures} histories with a failure");
}

#[test]
fn a_disk_that_takes_a_second_for_each_sync_delays_no_decision_and_is_reported() {
    let machine = Machine::new();
    let Run { shared, journal, .. } = machine.start();
    machine.state.disk.faults.slow_down(Duration::from_secs(1));
    let writer = JournalWriter::start(Arc::clone(&shared), Arc::clone(&journal), Arc::clone(&machine.state));
    let writer = writer.expect("a thread");
    let lists = &shared.state.lists;
    let secured = lists.id("secured").expect("a list");
    let begin = Instant::now();
    let (mut slowest, mut was_reported) = (Duration::ZERO, false);
    let mut number = 0_u32;
    while begin.elapsed() < Duration::from_secs(4) {
        let address = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number % 200));
        let now = shared.clock.now();
        let before = Instant::now();
        lists.add(secured, address, now + Duration::from_secs(3_600), now);
        assert!(lists.membership(address, 0, now).contains(secured));
        slowest = slowest.max(before.elapsed());
        let status = journal.status(lists.last_event());
        was_reported |= status.waiting > 0 && status.delay_ms >= 500;
        number += 1;
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert!(was_reported && number > 1_000, "{number}");
    // An operator's change is not on the disk within the time that he waits.
    let before = Instant::now();
    assert!(!journal.settle(lists.last_event() + 1));
    assert!(before.elapsed() < Duration::from_secs(2));
    machine.state.disk.faults.slow_down(Duration::ZERO);
    let until = Instant::now() + Duration::from_secs(10);
    while journal.status(lists.last_event()).waiting > 0 {
        assert!(Instant::now() < until, "the journal catches up");
        std::thread::sleep(Duration::from_millis(10));
    }
    journal.end();
    writer.join().expect("it ends");
    let stored = StoredGrants::read(&machine.state, now()).expect("a journal");
    let later = Lists::new(1_024).expect("memory");
    later.bind("secured", 1).expect("a list");
    assert_eq!(stored.install(&later, shared.clock.now()).restored, 200);
}
