mod clocks;
mod faults;
mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use knockplane_engine::state::lists::{Lists, OPERATOR_LEVEL};
use knockplane_limits::predecessor::Deadline;
use knockplane_policy::packet::Vlan;
use knockplane_policy::rule::AddressSet;
use knockplane_policy::time::Time;
use tempfile::TempDir;

use self::machine::Machine;
use super::record::{Batch, Change, ChangeByOperator, Mark, OperatorTerms, Scope, Terms};
use super::restore::StoredGrants;
use super::*;
use crate::state_dir::{ChangeLog, GRANTS, StateDir};

const SECOND: u64 = 1_000_000_000;
const HOUR: i64 = 3_600 * SECOND as i64;
const BOOT: [u8; 16] = [7; 16];

fn mark(seconds: u64) -> Mark {
    Mark { at: seconds * SECOND, wall: 1_800_000_000 * SECOND as i64, boot: BOOT }
}

fn scope(host: u8) -> Scope {
    Scope { address: IpAddr::from([192, 0, 2, host]), network: 0, destination: None }
}

/// An entry of the list `secured` until this second; `None` if it ended.
fn change(host: u8, until: Option<u64>) -> Change {
    let terms = until.map(|seconds| Terms { expiry: seconds * SECOND, is_operators: false });
    Change { list: 0, scope: scope(host), terms }
}

fn batch(at: u64, changes: &[Change]) -> Batch {
    Batch { lists: vec!["secured".to_owned()], changes: changes.to_vec(), ..Batch::new(mark(at)) }
}

/// A prefix of the list `secured` until this second; `None` if it ended.
fn prefix(third: u8, until: Option<u64>) -> ChangeByOperator {
    let terms = until.map(|seconds| OperatorTerms { expiry: seconds * SECOND, comment: "a prefix".to_owned() });
    ChangeByOperator { list: 0, set: format!("10.9.{third}.0/24"), terms }
}

struct Journalled {
    _folder: TempDir,
    state: Arc<StateDir>,
    file: Vec<u8>,
}

/// A state directory with a journal of these batches, one record for each.
fn journalled(batches: &[Batch]) -> Journalled {
    let folder = tempfile::tempdir().unwrap();
    let state = Arc::new(StateDir::open(&folder.path().join("state"), Deadline::over()).unwrap());
    let mut log = ChangeLog::new(Arc::clone(&state), GRANTS, FORMAT);
    log.replace(std::iter::empty()).unwrap();
    batches.iter().for_each(|batch| log.append(&batch.clone().into_record()).unwrap());
    let file = fs::read(state.file(GRANTS)).unwrap();
    Journalled { _folder: folder, state, file }
}

impl Journalled {
    /// Restores from the file, as it is or with these bytes.
    fn restore(&self, bytes: Option<&[u8]>, now: Mark) -> (BTreeMap<String, u64>, RestoreReport) {
        if let Some(bytes) = bytes {
            fs::write(self.state.file(GRANTS), bytes).unwrap();
        }
        let stored = StoredGrants::read(&self.state, now).unwrap();
        let lists = Lists::new(64).unwrap();
        let secured = lists.bind("secured", 1).unwrap();
        let timed = stored.by_operators().iter();
        let mut found: BTreeMap<String, u64> =
            timed.filter_map(|(_, entry)| Some((entry.set.to_string(), entry.until?.as_nanos()))).collect();
        let report = stored.install(&lists, Time::from_nanos(now.at));
        lists.visit(Time::from_nanos(now.at), |entry| {
            assert_eq!(entry.list, secured);
            found.insert(entry.address.to_string(), entry.expiry.as_nanos());
        });
        (found, report)
    }
}

/// The entries that batches leave, with their expiry, if none has expired.
fn left(batches: &[Batch]) -> BTreeMap<String, u64> {
    let mut left = BTreeMap::new();
    for Change { scope, terms, .. } in batches.iter().flat_map(|batch| &batch.changes) {
        match terms {
            Some(terms) => _ = left.insert(scope.address.to_string(), terms.expiry),
            None => _ = left.remove(&scope.address.to_string()),
        }
    }
    for ChangeByOperator { set, terms, .. } in batches.iter().flat_map(|batch| &batch.by_operators) {
        match terms {
            Some(terms) => _ = left.insert(set.clone(), terms.expiry),
            None => _ = left.remove(set),
        }
    }
    left
}

fn history() -> Vec<Batch> {
    vec![
        batch(10, &[change(1, Some(100)), change(2, Some(90))]),
        batch(11, &[change(3, Some(80)), change(1, None)]),
        Batch {
            by_operators: vec![prefix(1, Some(80)), prefix(2, Some(90))],
            ..batch(12, &[change(4, Some(70)), change(2, Some(200))])
        },
        Batch { by_operators: vec![prefix(1, None)], ..batch(13, &[change(3, None)]) },
        batch(14, &[change(5, Some(60))]),
    ]
}

#[test]
fn what_was_written_is_restored_with_its_expiry() {
    let journalled = journalled(&history());
    let (found, report) = journalled.restore(None, mark(20));
    assert_eq!(found, left(&history()));
    assert_eq!((report.restored, report.expired, report.damage), (4, 0, None));
    let (found, report) = journalled.restore(None, mark(65));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["10.9.2.0/24", "192.0.2.2", "192.0.2.4"]);
    assert_eq!((report.restored, report.expired), (3, 1));
}

#[test]
fn a_file_that_ends_anywhere_in_its_last_records_gives_a_prefix() {
    let history = history();
    let journalled = journalled(&history);
    // The lengths of files with fewer batches.
    let ends: Vec<usize> = (0..=history.len()).map(|count| self::journalled(&history[..count]).file.len()).collect();
    for length in ends[2]..=journalled.file.len() {
        let whole = ends.iter().filter(|end| **end <= length).count() - 1;
        let (found, report) = journalled.restore(Some(&journalled.file[..length]), mark(20));
        assert_eq!(found, left(&history[..whole]), "{length} bytes, which end in batch {whole}");
        assert_eq!(report.damage, None, "{length} bytes");
    }
}

#[test]
fn a_flipped_bit_gives_the_part_before_it_without_what_later_parts_end() {
    let history = history();
    let journalled = journalled(&history);
    let ends: Vec<usize> = (0..=history.len()).map(|count| self::journalled(&history[..count]).file.len()).collect();
    for bit in 8 * ends[1]..8 * journalled.file.len() {
        let mut bytes = journalled.file.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let damaged = ends.iter().filter(|end| **end <= bit / 8).count() - 1;
        let mut expected = left(&history[..damaged]);
        let ended = history[(damaged + 1).min(history.len())..].iter().flat_map(|batch| &batch.changes);
        for change in ended.filter(|change| change.terms.is_none()) {
            expected.remove(&change.scope.address.to_string());
        }
        let ended = history[(damaged + 1).min(history.len())..].iter().flat_map(|batch| &batch.by_operators);
        for change in ended.filter(|change| change.terms.is_none()) {
            expected.remove(&change.set);
        }
        let (found, report) = journalled.restore(Some(&bytes), mark(20));
        assert_eq!(found, expected, "bit {bit}, in batch {damaged}");
        // A last record that seems longer than the file was interrupted, as far as anybody can tell.
        assert!(report.damage.is_some() || damaged == history.len() - 1, "bit {bit}");
    }
}

#[test]
fn a_damaged_first_line_restores_nothing_and_a_newer_version_is_refused() {
    let journalled = journalled(&history());
    let mut bytes = journalled.file.clone();
    bytes[3] ^= 1;
    let (found, report) = journalled.restore(Some(&bytes), mark(20));
    assert!(found.is_empty() && report.damage.is_some_and(|damage| damage.contains("grants.state is damaged")));
    let newer = String::from_utf8_lossy(&journalled.file[..24]).replace("grants 1", "grants 2");
    fs::write(journalled.state.file(GRANTS), newer).unwrap();
    let error = StoredGrants::read(&journalled.state, mark(20)).unwrap_err();
    assert!(format!("{error:#}").contains("newer version"), "{error:#}");
}

#[test]
fn the_wall_clock_does_not_count_within_a_boot() {
    let journalled = journalled(&history());
    for step in [-HOUR, HOUR] {
        let now = Mark { wall: mark(0).wall + step, ..mark(20) };
        assert_eq!(journalled.restore(None, now).0, left(&history()), "{step} ns");
    }
}

#[test]
fn after_a_boot_the_time_since_the_last_batch_is_that_of_the_wall_clock() {
    let journalled = journalled(&history());
    // The last batch is of second 14. The machine booted, 5 s ago by its own clock.
    let after = |seconds: i64| {
        let wall_time = mark(14).wall_time() + i128::from(seconds) * i128::from(SECOND);
        Mark { at: 5 * SECOND, wall: (wall_time - i128::from(5 * SECOND)) as i64, boot: [8; 16] }
    };
    let (found, _) = journalled.restore(None, after(30));
    let expected: BTreeMap<String, u64> = left(&history())
        .into_iter()
        .map(|(address, expiry)| (address, expiry - 14 * SECOND - 30 * SECOND + 5 * SECOND))
        .collect();
    assert_eq!(found, expected);
    let (found, report) = journalled.restore(None, after(50));
    assert_eq!((found.len(), report.expired), (3, 1), "one had 46 s left");
    let (found, report) = journalled.restore(None, after(-1));
    assert_eq!((found.len(), report.expired, report.clock_was_set_back), (0, 4, true));
}

#[test]
fn prefixes_and_comments_return_until_they_end() {
    let machine = Machine::new();
    let mut run = machine.start();
    let hour = machine.now().as_nanos() + 3_600 * SECOND;
    let comment = |address: &str, comment: &str| {
        let set: AddressSet = address.parse().unwrap();
        let bounds = set.bounds();
        let entry = (!comment.is_empty()).then(|| OperatorEntry { set, comment: comment.to_owned(), until: None });
        OperatorChange { list: "secured".to_owned(), bounds, entry }
    };
    run.add(&machine, 1, hour);
    run.journal.change(vec![comment("192.0.2.1", "Ada"), comment("192.0.2.2", "Bob"), comment("192.0.2.3", "Eve")]);
    run.set_prefix(&machine, 1, Some(hour));
    run.set_prefix(&machine, 2, Some(hour));
    run.turn(&machine);
    run.set_prefix(&machine, 1, Some(hour - SECOND));
    run.set_prefix(&machine, 2, None);
    run.journal.change(vec![comment("192.0.2.2", ""), comment("192.0.2.3", "Mallory")]);
    run.turn(&machine);
    // From the changes, and from a file that is written anew.
    for number in 0..2 {
        let stored = StoredGrants::read(&machine.state, machine.mark()).unwrap();
        let found: Vec<_> = stored.by_operators().iter().map(|(list, entry)| (list.as_str(), entry.clone())).collect();
        let entry = |set: &str, comment: &str, until: Option<u64>| {
            let (set, comment) = (set.parse().unwrap(), comment.to_owned());
            ("secured", OperatorEntry { set, comment, until: until.map(Time::from_nanos) })
        };
        let expected = [
            entry("10.9.1.0/24", "a prefix", Some(hour - SECOND)),
            entry("192.0.2.1", "Ada", None),
            entry("192.0.2.3", "Mallory", None),
        ];
        assert_eq!(found, expected, "{number}");
        machine.start().turn(&machine);
    }
}

#[test]
fn a_grant_counts_for_its_destination_and_its_network_again() {
    let [source, server, other]: [IpAddr; 3] =
        ["2001:db8::7", "2001:db8:1::5", "2001:db8:1::6"].map(|a| a.parse().unwrap());
    let network: Vlan = "10".parse().unwrap();
    let scope = Scope { address: source, network: network.bits(), destination: Some(server) };
    let terms = Some(Terms { expiry: Time::NEVER.as_nanos(), is_operators: false });
    let lists_of = |name: &str| vec![name.to_owned()];
    let of_door =
        Batch { lists: lists_of("door-ssh"), changes: vec![Change { list: 0, scope, terms }], ..Batch::new(mark(10)) };
    let of_operator = Change {
        list: 0,
        scope: Scope { address: source, network: 0, destination: None },
        terms: Some(Terms { expiry: 90 * SECOND, is_operators: true }),
    };
    let by_operator = Batch { lists: lists_of("friends"), changes: vec![of_operator], ..Batch::new(mark(11)) };
    let gone = Batch { lists: lists_of("door-gone"), ..of_door.clone() };
    let journalled = journalled(&[of_door, by_operator, gone]);
    let lists = Lists::new(64).unwrap();
    let door = lists.bind("door-ssh", 1).unwrap();
    let now = Time::from_nanos(20 * SECOND);
    let report = StoredGrants::read(&journalled.state, mark(20)).unwrap().install(&lists, now);
    assert_eq!((report.restored, report.without_list), (2, 1));
    let is_in = |vlan: Vlan, to: IpAddr| lists.in_vlan(vlan).membership(source, lists.peer_tag(to), now).contains(door);
    assert!(is_in(network, server));
    assert!(!is_in(network, other) && !is_in(Vlan::NONE, server) && !is_in("11".parse().unwrap(), server));
    let friends = lists.id("friends").expect("an operator's list is bound");
    assert_eq!(lists.level(friends), OPERATOR_LEVEL);
    assert!(lists.membership(source, 0, now).contains(friends));
}
