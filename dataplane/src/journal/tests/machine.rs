//! A machine whose clocks the test moves: it runs dataplanes, with the real lists, writer and files, and kills them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64};

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam::queue::ArrayQueue;
use knockplane_engine::state::State;
use knockplane_engine::state::events::logged::LoggedPackets;
use knockplane_engine::state::lists::{ListId, Lists, StaticChange};
use knockplane_engine::table::RuleTable;
use knockplane_limits::predecessor::Deadline;
use knockplane_policy::event::EventKind;
use knockplane_policy::rule::{AddressSet, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::wire::RestoreReport;
use tempfile::TempDir;

use super::SECOND;
use crate::clock::Clock;
use crate::fast_path::FastPathSwitch;
use crate::generation::Generation;
use crate::journal::record::Mark;
use crate::journal::restore::StoredGrants;
use crate::journal::{Journal, JournalWriter};
use crate::shared::Shared;
use crate::state_dir::StateDir;
use crate::static_entries::{OperatorChange, OperatorEntry};

/// The entries of the list `secured` with their expiry: addresses, and the prefixes of operators.
pub(super) type Entries = BTreeMap<String, u64>;

pub(super) struct Machine {
    _folder: TempDir,
    pub(super) state: Arc<StateDir>,
    /// Nanoseconds, which no setting of a clock changes.
    pub(super) time: u64,
    /// The time of the last boot, when CLOCK_MONOTONIC was 0.
    booted: u64,
    /// The wall clock, less `time`.
    pub(super) offset: i64,
    boots: u8,
}

/// A dataplane that runs.
pub(super) struct Run {
    pub(super) shared: Arc<Shared>,
    pub(super) journal: Arc<Journal>,
    writer: JournalWriter,
    secured: ListId,
    /// Prefixes with a timeout.
    prefixes: Entries,
    pub(super) report: RestoreReport,
}

impl Machine {
    pub(super) fn new() -> Machine {
        // In memory, because the tests sync some ten thousand times.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let state = StateDir::open(&folder.path().join("state"), Deadline::over()).expect("a state directory");
        let (time, offset) = (1_000_000 * SECOND, 1_700_000_000 * SECOND as i64);
        Machine { _folder: folder, state: Arc::new(state), time, booted: time - 100 * SECOND, offset, boots: 1 }
    }

    /// Now, by CLOCK_MONOTONIC.
    pub(super) fn now(&self) -> Time {
        Time::from_nanos(self.time - self.booted)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { at: self.now().as_nanos(), wall: self.offset + self.booted as i64, boot: [self.boots; 16] }
    }

    /// The machine boots, after a time without power.
    pub(super) fn boot(&mut self, off: u64) {
        self.time += off;
        self.booted = self.time - 5 * SECOND;
        self.boots += 1;
    }

    /// The entries that a start would restore.
    pub(super) fn stored(&self) -> (Entries, RestoreReport) {
        let stored = StoredGrants::read(&self.state, self.mark()).expect("a journal");
        let lists = Lists::new(1_024).expect("memory");
        let secured = lists.bind("secured", 1).expect("a list");
        let mut entries = prefixes(stored.by_operators());
        let report = stored.install(&lists, self.now());
        entries.extend(addresses(&lists, secured, self.now()));
        (entries, report)
    }

    /// Starts a dataplane. It has written nothing yet.
    pub(super) fn start(&self) -> Run {
        let stored = StoredGrants::read(&self.state, self.mark()).expect("a journal");
        let state = State::new(1_024, 16).expect("memory");
        let secured = state.lists.bind("secured", 1).expect("a list");
        let by_operators = stored.by_operators().to_vec();
        let report = stored.install(&state.lists, self.now());
        let table = RuleTable::compile(Arc::new(RuleSet::default()), &Settings::default(), &state, self.now());
        let generation = Generation::new(1, self.now(), String::new(), table.expect("no rules"), 1);
        let shared = Arc::new(Shared {
            clock: Clock::start(),
            generation: ArcSwap::new(Arc::new(generation)),
            state,
            wall: AtomicI64::new(self.mark().wall),
            logged: LoggedPackets::new(16),
            links: [const { AtomicBool::new(true) }; 2],
            stamped: AtomicBool::new(false),
            sample: ArcSwapOption::empty(),
            trace: ArcSwapOption::empty(),
            resets: ArrayQueue::new(1),
            fast_path: Arc::new(FastPathSwitch::off(String::new())),
            stop: AtomicBool::new(false),
        });
        let journal = Arc::new(Journal::new(report.clone(), &by_operators));
        let writer =
            JournalWriter::new(Arc::clone(&shared), Arc::clone(&journal), Arc::clone(&self.state), self.mark().boot);
        Run { shared, journal, writer, secured, prefixes: prefixes(&by_operators), report }
    }
}

impl Run {
    pub(super) fn add(&mut self, machine: &Machine, host: u8, until: u64) {
        let lists = &self.shared.state.lists;
        lists.add(self.secured, [192, 0, 2, host].into(), Time::from_nanos(until), machine.now());
    }

    pub(super) fn remove(&mut self, machine: &Machine, host: u8) {
        self.shared.state.lists.remove(self.secured, [192, 0, 2, host].into(), machine.now());
    }

    pub(super) fn flush(&mut self, machine: &Machine) {
        self.shared.state.lists.flush(self.secured, machine.now());
    }

    /// Adds a prefix until this time, or removes it, for an operator.
    pub(super) fn set_prefix(&mut self, machine: &Machine, third: u8, until: Option<u64>) {
        let set: AddressSet = format!("10.9.{third}.0/24").parse().expect("a prefix");
        match until {
            Some(until) => _ = self.prefixes.insert(set.to_string(), until),
            None => _ = self.prefixes.remove(&set.to_string()),
        }
        let bounds = set.bounds();
        let entry = until.map(Time::from_nanos);
        let entry = entry.map(|until| OperatorEntry { set, comment: "a prefix".to_owned(), until: Some(until) });
        self.journal.change(vec![OperatorChange { list: "secured".to_owned(), bounds, entry }]);
        let kind = if until.is_some() { EventKind::Listed } else { EventKind::Removed };
        let change = StaticChange { kind, list: self.secured, bounds, until: until.map(Time::from_nanos) };
        self.shared.state.lists.publish_static(change, machine.now());
    }

    /// The writer's turn, after the manager's, which reads the wall clock.
    pub(super) fn turn(&mut self, machine: &Machine) {
        self.shared.wall.store(machine.mark().wall, Relaxed);
        self.writer.attempt(machine.now(), false);
    }

    /// The answer to an operator: whether the last changes are on the disk, or the disk has refused them.
    pub(super) fn is_settled(&self) -> bool {
        self.journal.settle(self.shared.state.lists.last_event())
    }

    /// The present entries.
    pub(super) fn entries(&self, machine: &Machine) -> Entries {
        let mut entries = addresses(&self.shared.state.lists, self.secured, machine.now());
        let live = self.prefixes.iter().filter(|(_, until)| **until > machine.now().as_nanos());
        entries.extend(live.map(|(set, until)| (set.clone(), *until)));
        entries
    }
}

fn addresses(lists: &Lists, secured: ListId, now: Time) -> Entries {
    let mut entries = Entries::new();
    lists.visit(now, |entry| {
        assert_eq!(entry.list, secured);
        let address: IpAddr = entry.address;
        entries.insert(address.to_string(), entry.expiry.as_nanos());
    });
    entries
}

fn prefixes(by_operators: &[(String, OperatorEntry)]) -> Entries {
    let entries = by_operators.iter().filter_map(|(_, entry)| Some((entry.set.to_string(), entry.until?.as_nanos())));
    entries.collect()
}
