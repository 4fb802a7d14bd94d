//! The thread that writes the journal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use knockplane_engine::state::events::ring::{Cursor, Received};
use knockplane_engine::state::lists::{Changed, Lists};
use knockplane_policy::time::Time;
use knockplane_policy::wire::JournalStatus;

use super::operator::OperatorKey;
use super::record::{Batch, BatchBuilder, Mark};
use super::{FORMAT, Journal, boot};
use crate::shared::Shared;
use crate::state_dir::{ChangeLog, GRANTS, StateDir};

/// The time from a failed attempt to the next one.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes that a file may have before it is rewritten. A start reads this number in some 20 ms.
const FEW_BYTES: u64 = 8 << 20;

/// Changes in a record of a rewritten file.
const SNAPSHOT_CHANGES: usize = 1 << 14;

/// A duration of an attempt that is reported. A kill loses the changes of this time, and a removal by an operator is
/// answered before it is on the disk.
const SLOW: Duration = Duration::from_millis(JournalStatus::SLOW_MS);

/// The longest time without a record. After a boot, a wall clock that was set back can extend an entry by the time since
/// the last record.
const LONGEST_SILENCE: u64 = 60_000_000_000;

/// A change of the wall clock that is written down although no entry changed.
const CLOCK_STEP: u64 = 100_000_000;

/// Reads the events of the lists, and writes them down.
pub(crate) struct JournalWriter {
    shared: Arc<Shared>,
    journal: Arc<Journal>,
    log: ChangeLog,
    cursor: Cursor,
    /// The number of the last event whose changes are in the file.
    stored: u64,
    /// Whether the file lacks changes that the ring of events may no longer have.
    is_behind: bool,
    /// The length of the file when it was rewritten.
    snapshot: u64,
    next_attempt: Time,
    last: Option<Mark>,
    boot: [u8; 16],
}

impl JournalWriter {
    /// Starts the thread. It begins with a file of the present entries.
    ///
    /// # Errors
    /// If the kernel provides no thread.
    pub(crate) fn start(
        shared: Arc<Shared>,
        journal: Arc<Journal>,
        state: Arc<StateDir>,
    ) -> anyhow::Result<JoinHandle<()>> {
        let writer = JournalWriter::new(shared, journal, state, boot());
        thread::Builder::new().name("journal".to_owned()).spawn(|| writer.run()).context("cannot start a thread")
    }

    /// A writer whose first attempt writes a file of the present entries.
    pub(super) fn new(
        shared: Arc<Shared>,
        journal: Arc<Journal>,
        state: Arc<StateDir>,
        boot: [u8; 16],
    ) -> JournalWriter {
        JournalWriter {
            shared,
            journal,
            log: ChangeLog::new(state, GRANTS, FORMAT),
            cursor: Cursor::after(0),
            stored: 0,
            is_behind: true,
            snapshot: 0,
            next_attempt: Time::default(),
            last: None,
            boot,
        }
    }

    fn run(mut self) {
        loop {
            let is_last = self.journal.next_group();
            self.attempt(self.shared.clock.now(), is_last);
            if is_last {
                return;
            }
        }
    }

    /// Writes the changes since the last call, unless an attempt failed a moment ago.
    pub(super) fn attempt(&mut self, now: Time, is_last: bool) {
        if is_last || now >= self.next_attempt {
            self.journal.begin();
            let outcome = self.write(now);
            self.report(outcome, now);
        }
    }

    fn report(&mut self, outcome: io::Result<()>, now: Time) {
        let mut state = self.journal.lock();
        let failed_before = state.problem.is_some();
        let (took, before) = (state.began.take().map(|began| began.elapsed()).unwrap_or_default(), state.took);
        state.took = took;
        if took >= SLOW && before < SLOW {
            let path = self.log.path();
            tracing::warn!(
                "a write of {} took {took:.1?}: a kill loses the changes of grants since the last write",
                path.display()
            );
        }
        match outcome {
            Ok(()) => {
                state.problem = None;
                if failed_before {
                    tracing::info!("{} is complete again", self.log.path().display());
                }
            }
            Err(error) => {
                self.is_behind = true;
                self.next_attempt = now + RETRY;
                state.failures += 1;
                let problem = format!("{}: {error}", self.log.path().display());
                if !failed_before {
                    tracing::error!("grants are not on the disk, and a restart would lose them: {problem}");
                }
                state.problem = Some(problem);
            }
        }
        (state.stored, state.bytes) = (self.stored, self.log.length());
        drop(state);
        self.journal.tried.notify_all();
    }

    fn mark(&self, at: Time) -> Mark {
        Mark { at: at.as_nanos(), wall: self.shared.wall.load(Relaxed), boot: self.boot }
    }

    /// Writes the changes since the last call.
    fn write(&mut self, now: Time) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut builder = BatchBuilder::new(&shared.state.lists, self.mark(now));
        let needs_file = self.log.is_broken() || self.log.length() > FEW_BYTES.max(2 * self.snapshot);
        let through = if needs_file { None } else { self.collect(&shared.state.lists, &mut builder) };
        let Some(through) = through else { return self.rewrite(now) };
        // Read after the events, because a change is noted before its event is published.
        let (noted, changes) = {
            let operator = self.journal.operator();
            (operator.last(), operator.changes())
        };
        changes.into_iter().for_each(|change| builder.push_by_operator(change));
        self.append(builder.into_batch())?;
        self.is_stored(through, noted);
        Ok(())
    }

    /// Adds the changes since the last call. Returns the number of the last event; `None` if the lists no longer have all
    /// removals since then.
    fn collect(&mut self, lists: &Lists, builder: &mut BatchBuilder<'_>) -> Option<u64> {
        if !self.is_behind
            && let Some(through) = self.receive(lists, builder)
        {
            return Some(through);
        }
        // After a gap. These changes count more than those that were received before it, because they are added later.
        lists.changes_since(self.stored, |changed| match changed {
            Changed::Ended(_, event) => builder.push(&event.entry, true),
            Changed::Entry(_, entry) => builder.push(&entry, false),
        })
    }

    /// Receives the events up to now. Returns the number of the last one; `None` if some are missing.
    fn receive(&mut self, lists: &Lists, builder: &mut BatchBuilder<'_>) -> Option<u64> {
        let last = lists.last_event();
        while self.cursor.last() < last {
            match lists.receive(&mut self.cursor) {
                Some(Received::Event(_, event)) => builder.push(&event.entry, event.kind.is_end()),
                Some(Received::Gap(gap)) => {
                    self.journal.note_gap(gap);
                    return None;
                }
                None => break,
            }
        }
        Some(self.cursor.last())
    }

    fn append(&mut self, batch: Batch) -> io::Result<()> {
        let mark = batch.mark;
        let is_clock_set = self.last.is_none_or(|last| last.wall.abs_diff(mark.wall) > CLOCK_STEP);
        let is_silent = self.last.is_none_or(|last| mark.at.saturating_sub(last.at) >= LONGEST_SILENCE);
        if batch.is_empty() && !is_clock_set && !is_silent {
            return Ok(());
        }
        self.log.append(&batch.into_record())?;
        self.last = Some(mark);
        Ok(())
    }

    /// Replaces the file by one with the present entries.
    fn rewrite(&mut self, now: Time) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let lists = &shared.state.lists;
        let mark = self.mark(now);
        let journal = Arc::clone(&self.journal);
        let (mut through, mut noted) = (0, 0);
        self.log.replace_with(|put| {
            let mut builder = BatchBuilder::new(lists, mark);
            let mut failure = None;
            let found = lists.changes_since(0, |changed| {
                let Changed::Entry(_, entry) = changed else { return };
                builder.push(&entry, false);
                if builder.len() == SNAPSHOT_CHANGES && failure.is_none() {
                    let full = std::mem::replace(&mut builder, BatchBuilder::new(lists, mark));
                    failure = put(&full.into_batch().into_record()).err();
                }
            });
            through = found.unwrap_or_default();
            failure.map_or(Ok(()), Err)?;
            put(&builder.into_batch().into_record())?;
            noted = journal.operator().last();
            let mut last: Option<OperatorKey> = None;
            loop {
                let entries = journal.operator().after(last.as_ref(), SNAPSHOT_CHANGES);
                let Some(end) = entries.last() else { return Ok(()) };
                last = Some((end.list.clone(), end.bounds));
                let mut builder = BatchBuilder::new(lists, mark);
                entries.into_iter().for_each(|entry| builder.push_by_operator(entry));
                put(&builder.into_batch().into_record())?;
            }
        })?;
        (self.snapshot, self.last) = (self.log.length(), Some(mark));
        self.is_stored(through, noted);
        Ok(())
    }

    /// Notes that the file has the events up to `through`, and the changes by operators up to `noted`.
    fn is_stored(&mut self, through: u64, noted: u64) {
        (self.stored, self.is_behind) = (through, false);
        self.cursor = Cursor::after(through);
        self.journal.operator().are_stored(noted);
    }
}
