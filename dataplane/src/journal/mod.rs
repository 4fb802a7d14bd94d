//! The journal: grants and other entries with a timeout outlive the dataplane, however it ends.
//!
//! The journal is a reader of the events of the lists. A thread writes the changes to `grants.state` in the state
//! directory, and syncs them in groups. Workers never wait for it. The next start adds to the lists what still counts,
//! before it forwards the first packet.
//!
//! | file         | owns |
//! |--------------|------|
//! | this         | what other threads see: the state, and the wait for a change to be on the disk |
//! | `writer.rs`  | the thread: groups of changes, gaps, a file that is rewritten, a disk that refuses |
//! | `operator.rs` | entries and comments of operators that the events do not describe |
//! | `record.rs`  | changes as bytes |
//! | `restore.rs` | the start: which entries still count |
//!
//! Promises:
//! - An entry is in the file some [`PERIOD`] after its event. A kill loses younger changes, a power failure those since
//!   the last sync.
//! - What was removed, closed, flushed or has expired does not return. A removal by an operator is on the disk before the
//!   answer, if the disk takes it within [`PATIENCE`].
//! - The wall clock extends nothing: see `restore.rs`.
//! - Of a damaged file, the part in front of the damage counts, without the entries that later parts end.
//! - A disk that is full, slow or read-only stops nothing. The file is complete again when the disk takes it.
//!
//! Not kept: first steps and the progress of knocks, which are no grants; static entries, entries of the rules and of host
//! names, which have files of their own.

mod operator;
mod record;
mod restore;
#[cfg(test)]
mod tests;
mod writer;

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use knockplane_policy::event::Gap;
use knockplane_policy::wire::{EventReader, JournalStatus, RestoreReport};

use self::operator::OperatorEntries;
use self::record::Mark;
pub(crate) use self::restore::StoredGrants;
pub(crate) use self::writer::JournalWriter;
use crate::clock::{self, Clock};
use crate::state_dir::FileFormat;
use crate::static_entries::{OperatorChange, OperatorEntry};

/// The format of `grants.state`.
const FORMAT: FileFormat = FileFormat { kind: "grants", version: 1 };

/// The longest time between two groups of changes.
const PERIOD: Duration = Duration::from_millis(50);

/// The longest time that the answer to an operator waits for the disk.
const PATIENCE: Duration = Duration::from_millis(500);

/// Logs what was restored and what was not, if there was anything.
pub(crate) fn log_restore(report: &RestoreReport) {
    let RestoreReport { restored, expired, without_list, without_room, clock_was_set_back, damage: _ } = *report;
    if clock_was_set_back {
        tracing::warn!(
            entries = expired,
            "the wall clock was set back since the last start, so nobody knows which grants have expired: none was restored"
        );
    }
    if restored + expired + without_list + without_room > 0 {
        tracing::info!(restored, expired, without_list, without_room, "restored grants and entries with a timeout");
    }
}

/// The journal as other threads see it.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    restore: RestoreReport,
    operator: Mutex<OperatorEntries>,
    state: Mutex<State>,
    /// For the writer: a wait began, or the end.
    wanted: Condvar,
    /// For waits: the writer has tried.
    tried: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last event whose changes are on the disk.
    stored: u64,
    /// Somebody waits for the disk.
    is_wanted: bool,
    ends: bool,
    /// Bytes of the file.
    bytes: u64,
    /// Attempts that failed since the start.
    failures: u64,
    /// The error of the last attempt, if it failed.
    problem: Option<String>,
    /// The begin of the present attempt.
    began: Option<Instant>,
    /// The duration of the last attempt.
    took: Duration,
    /// The number of gaps in the events since the start, and of events in them.
    missed: (u64, u64),
}

impl Journal {
    /// The journal of a start that has restored these entries and comments of operators.
    pub(crate) fn new(restore: RestoreReport, operator: &[(String, OperatorEntry)]) -> Journal {
        Journal { restore, operator: Mutex::new(OperatorEntries::new(operator)), ..Journal::default() }
    }

    /// Notes changes of prefixes and ranges with a timeout, and of comments of addresses with one. Called before the event
    /// of the change.
    pub(crate) fn change(&self, changes: Vec<OperatorChange>) {
        let mut operator = self.operator();
        changes.into_iter().for_each(|change| operator.change(change));
    }

    fn operator(&self) -> MutexGuard<'_, OperatorEntries> {
        self.operator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state for status and metrics. `last` is the number of the last event.
    pub(crate) fn status(&self, last: u64) -> JournalStatus {
        let State { stored, bytes, failures, problem, began, took, .. } = &*self.lock();
        let delay = began.map_or(*took, |began| began.elapsed().max(*took));
        JournalStatus {
            bytes: *bytes,
            waiting: last.saturating_sub(*stored),
            failures: *failures,
            problem: problem.clone(),
            delay_ms: delay.as_millis() as u64,
            restore: self.restore.clone(),
        }
    }

    /// Counts events that the writer was too slow to read. It reads their changes from the lists.
    fn note_gap(&self, gap: Gap) {
        let missed = &mut self.lock().missed;
        missed.0 += 1;
        missed.1 += gap.last - gap.first + 1;
    }

    /// The gaps since the start.
    pub(crate) fn gaps(&self) -> EventReader {
        let (gaps, missed) = self.lock().missed;
        EventReader { reader: "journal".to_owned(), gaps, missed }
    }

    /// Waits until the changes up to an event are on the disk, or the disk has refused them. Returns whether they are.
    pub(crate) fn settle(&self, event: u64) -> bool {
        let mut state = self.lock();
        if state.stored < event && state.problem.is_none() {
            state.is_wanted = true;
            self.wanted.notify_one();
            let waits = |state: &mut State| state.stored < event && state.problem.is_none() && !state.ends;
            let waited = self.tried.wait_timeout_while(state, PATIENCE, waits);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.stored >= event
    }

    /// Notes the begin of an attempt.
    fn begin(&self) {
        self.lock().began = Some(Instant::now());
    }

    /// Lets the writer store the last changes and end.
    pub(crate) fn end(&self) {
        self.lock().ends = true;
        self.wanted.notify_one();
    }

    /// Waits for the next group. Returns whether it is the last one.
    fn next_group(&self) -> bool {
        let sleeps = |state: &mut State| !state.is_wanted && !state.ends;
        let waited = self.wanted.wait_timeout_while(self.lock(), PERIOD, sleeps);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_wanted = false;
        state.ends
    }
}

/// Now, by all clocks.
fn now() -> Mark {
    Mark { at: Clock::start().now().as_nanos(), wall: clock::wall(), boot: boot() }
}

/// The id of the machine's boot. If it is not known, a random one: then the wall clock counts.
fn boot() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16);
    id.unwrap_or_else(|_| RandomState::new().hash_one("boot").into()).to_be_bytes()
}
