//! The counters of rules on disk, in `counters.state`, which a restart continues.
//!
//! A thread writes the counts every [`PERIOD`], after each answer with metrics, and at the end of the process,
//! if a rule has counted since. So the counters that a start reads are at most that old, and never more than were counted.
//! No other thread waits for the disk. A disk that refuses is reported, and the next attempt follows after the same time.
//!
//! Prometheus takes a counter that decreases for one that began at 0 again, and adds its whole value. Therefore counts that
//! a scrape has shown are written at once.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use knockplane_policy::wire::StoredCountersStatus;

use crate::generation::KeptCounts;
use crate::state_dir::{COUNTERS, DamageError, FileFormat, StateDir};

/// The format of `counters.state`: JSON, a [`KeptCounts`].
const FORMAT: FileFormat = FileFormat { kind: "counters", version: 1 };

/// The longest time between two writes. A kill loses the counts of this time at most. A shorter time would write and sync
/// a file more often for numbers that nothing is decided by.
const PERIOD: Duration = Duration::from_secs(5);

/// The shortest time between two writes: frequent scrapes cause no more of them.
const GAP: Duration = Duration::from_millis(100);

/// The counters that a start has read.
#[derive(Debug, Default)]
pub(crate) struct StoredCounters {
    pub(crate) counts: KeptCounts,
    /// The damage of the file, in words. Then all counters begin at 0.
    damage: Option<String>,
}

impl StoredCounters {
    /// Reads the counters, and keeps a damaged file under another name.
    ///
    /// # Errors
    /// If the file cannot be read, or a newer version wrote it.
    pub(crate) fn load(state: &StateDir) -> anyhow::Result<StoredCounters> {
        let stored = StoredCounters::peek(state)?;
        if let Some(damage) = &stored.damage {
            let kept = state.keep_damaged(COUNTERS);
            tracing::error!("{damage}; {kept}");
        }
        Ok(stored)
    }

    /// Reads the counters, without changes to files.
    ///
    /// # Errors
    /// As [`StoredCounters::load`].
    pub(crate) fn peek(state: &StateDir) -> anyhow::Result<StoredCounters> {
        let shown = state.file(COUNTERS).display().to_string();
        let lost = |error: &dyn std::fmt::Display| {
            let damage = format!("{shown} is damaged: {error}: the counters of rules begin at 0");
            Ok(StoredCounters { damage: Some(damage), ..StoredCounters::default() })
        };
        match state.read(COUNTERS, FORMAT) {
            Ok(None) => Ok(StoredCounters::default()),
            Ok(Some(content)) => match serde_json::from_slice(&content) {
                Ok(counts) => Ok(StoredCounters { counts, damage: None }),
                Err(error) => lost(&error),
            },
            Err(error) => match error.downcast_ref() {
                None | Some(DamageError::Version { .. }) => Err(error),
                Some(damage) => lost(damage),
            },
        }
    }

    /// The store of a process that continues these counters.
    pub(crate) fn store(self) -> (KeptCounts, CounterStore) {
        (self.counts, CounterStore { damage: self.damage, ..CounterStore::default() })
    }
}

/// The store as other threads see it.
#[derive(Debug, Default)]
pub(crate) struct CounterStore {
    damage: Option<String>,
    state: Mutex<StoreState>,
    /// For the writer: there were metrics, or the end.
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct StoreState {
    /// An answer has shown counts since the last write.
    is_wanted: bool,
    ends: bool,
    /// Attempts that failed since the start.
    failures: u64,
    /// The error of the last attempt, if it failed.
    problem: Option<String>,
}

impl CounterStore {
    fn lock(&self) -> MutexGuard<'_, StoreState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread that writes the counts that `count` returns. It begins with a file of the present counts.
    ///
    /// # Errors
    /// If the kernel provides no thread.
    pub(crate) fn start_writer(
        self: &Arc<Self>,
        state: Arc<StateDir>,
        count: impl Fn() -> KeptCounts + Send + 'static,
    ) -> anyhow::Result<JoinHandle<()>> {
        let store = Arc::clone(self);
        let writer = thread::Builder::new().name("counters".to_owned());
        writer.spawn(move || store.write(&state, count)).context("cannot start a thread")
    }

    fn write(&self, state: &StateDir, count: impl Fn() -> KeptCounts) {
        // The counts in the file, if they are known.
        let mut stored = None;
        let mut is_last = false;
        loop {
            let counts = count();
            if stored.as_ref() != Some(&counts) {
                let path = state.file(COUNTERS);
                let outcome = write(state, &counts).map_err(|error| format!("{}: {error}", path.display()));
                stored = outcome.is_ok().then_some(counts);
                self.note(outcome);
            }
            if is_last {
                return;
            }
            is_last = self.next_write();
        }
    }

    /// The state for status and metrics.
    pub(crate) fn status(&self) -> StoredCountersStatus {
        let StoreState { failures, problem, .. } = &*self.lock();
        StoredCountersStatus { failures: *failures, problem: problem.clone(), damage: self.damage.clone() }
    }

    /// Lets the writer store the counts that metrics have just shown.
    pub(crate) fn want(&self) {
        self.lock().is_wanted = true;
        self.wanted.notify_one();
    }

    /// Lets the writer store the last counts and end.
    pub(crate) fn end(&self) {
        self.lock().ends = true;
        self.wanted.notify_one();
    }

    /// Waits for the next write. Returns whether it is the last one.
    fn next_write(&self) -> bool {
        let waited = self.wanted.wait_timeout_while(self.lock(), GAP, |state| !state.ends);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let waited = self.wanted.wait_timeout_while(state, PERIOD - GAP, |state| !state.is_wanted && !state.ends);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_wanted = false;
        state.ends
    }

    /// Notes the outcome of an attempt.
    fn note(&self, outcome: Result<(), String>) {
        let mut state = self.lock();
        match (&outcome, state.problem.is_some()) {
            (Err(problem), false) => {
                tracing::error!(
                    "the counters of rules are not on the disk, and a restart would lose counts: {problem}"
                );
            }
            (Ok(()), true) => tracing::info!("the counters of rules are on the disk again"),
            _ => {}
        }
        state.failures += u64::from(outcome.is_err());
        state.problem = outcome.err();
    }
}

fn write(state: &StateDir, counts: &KeptCounts) -> io::Result<()> {
    state.write(COUNTERS, FORMAT, &serde_json::to_vec(counts)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use knockplane_limits::predecessor::Deadline;

    use super::*;
    use crate::state_dir::disk::faults::DiskCall;

    #[test]
    fn what_a_scrape_has_shown_is_stored_at_once_and_a_failure_is_reported_until_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateDir::open(&folder.path().join("state"), Deadline::over()).expect("a state directory");
        let state = Arc::new(state);
        state.disk.faults.fail(&[DiskCall::Write], 0..1);
        let counts = |packets: u64| -> KeptCounts {
            let json = format!(r#"{{"packets":{packets},"bytes":0}}"#);
            serde_json::from_str(&format!(
                r#"{{"rules":{{"0badcafe":{json}}},"chain_defaults":[{json},{json},{json}],"overflow":{json}}}"#
            ))
            .expect("counts")
        };
        let present = Arc::new(Mutex::new(counts(1)));
        let store = Arc::new(StoredCounters::default().store().1);
        let counted = Arc::clone(&present);
        let writer = store.start_writer(Arc::clone(&state), move || counted.lock().expect("unpoisoned").clone());
        let begin = Instant::now();
        let eventually = |is_true: &dyn Fn() -> bool| {
            while !is_true() {
                assert!(begin.elapsed() < PERIOD, "sooner than without a scrape");
                thread::sleep(Duration::from_millis(5));
            }
        };
        let stored = || StoredCounters::peek(&state).expect("intact").counts;
        eventually(&|| store.status().problem.is_some_and(|problem| problem.contains("No space left on device")));
        assert_eq!(store.status().failures, 1);
        store.want();
        eventually(&|| store.status().problem.is_none() && stored() == counts(1));
        *present.lock().expect("unpoisoned") = counts(2);
        store.want();
        eventually(&|| stored() == counts(2));
        *present.lock().expect("unpoisoned") = counts(3);
        store.end();
        writer.expect("a thread").join().expect("it ends");
        assert_eq!((stored(), store.status().failures), (counts(3), 1));
    }

    #[test]
    fn a_damaged_file_costs_the_counts_and_a_newer_version_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateDir::open(&folder.path().join("state"), Deadline::over()).expect("a state directory");
        assert_eq!(StoredCounters::load(&state).expect("no file").damage, None);
        let json = r#"{"rules":{"0badcafe":{"packets":7,"bytes":420}},"chain_defaults":[{"packets":1,"bytes":60},
            {"packets":0,"bytes":0},{"packets":0,"bytes":0}],"overflow":{"packets":3,"bytes":180}}"#;
        let counts: KeptCounts = serde_json::from_str(json).expect("counts");
        write(&state, &counts).expect("written");
        let loaded = StoredCounters::load(&state).expect("intact");
        assert_eq!((loaded.counts, loaded.damage), (counts, None));

        let intact = fs::read(state.file(COUNTERS)).expect("a file");
        let newer = String::from_utf8_lossy(&intact).replacen("counters 1 ", "counters 2 ", 1);
        fs::write(state.file(COUNTERS), newer).expect("written");
        let error = format!("{:#}", StoredCounters::load(&state).expect_err("refused"));
        assert!(error.contains("a newer version wrote the file") && error.contains("counters.state"), "{error}");

        // A changed digit of the version is a newer version, as far as anybody can tell.
        let version = "knockplane counters ".len();
        for bit in 0..8 * intact.len() {
            let mut damaged = intact.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(state.file(COUNTERS), &damaged).expect("written");
            match StoredCounters::peek(&state) {
                Ok(StoredCounters { counts, damage: Some(damage) }) => {
                    assert!(
                        counts == KeptCounts::default() && damage.contains("counters.state is damaged"),
                        "{damage}"
                    );
                }
                Err(error) => {
                    let is_version = (version..=version + 1).contains(&(bit / 8));
                    assert!(is_version && format!("{error:#}").contains("a newer version"), "bit {bit}: {error:#}");
                }
                Ok(_) => panic!("bit {bit} is not noticed"),
            }
        }
        for length in 0..intact.len() {
            fs::write(state.file(COUNTERS), &intact[..length]).expect("written");
            assert!(StoredCounters::peek(&state).expect("no version").damage.is_some(), "{length} bytes");
        }
        StoredCounters::load(&state).expect("damaged");
        assert!(state.file("counters.state.aside-1").exists(), "kept for the operator");
    }
}
