//! Applies and reloads that wait for a confirmation.
//!
//! The new rules or settings run. `rules.state` contains the rules before them, and `settings.state` the doors and
//! `[policy]`, so a restart of the dataplane begins with those, as if the change had not happened. Nothing outside this
//! process takes part: the manager compares the deadline with the clock at each tick, and begins
//! [`JobTask::RollBack`](super::JobTask::RollBack). So a rollback does not need control, the operator's connection, or
//! room on the disk.
//!
//! Meanwhile no other apply and no other reload is carried out, so that there is one rule set, with its settings, to return
//! to.
//!
//! After the rollback of a reload, `settings.state` remains, because the configuration file still has the settings that
//! nobody confirmed.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use knockplane_log::target;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::{Time, format_duration};
use knockplane_policy::wire::history::{ApplyNote, RevisionOrigin};
use knockplane_policy::wire::{PendingConfirmation, UnconfirmedChange};
use knockplane_policy::word::Word as _;

use super::{Administration, RequestError};
use crate::generation::Generation;
use crate::history::RevisionCause;
use crate::stored_rules::SourcedRules;

/// The time until a rollback that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// An apply or a reload that waits for a confirmation.
pub(crate) struct Unconfirmed {
    change: UnconfirmedChange,
    /// The generation that runs unconfirmed.
    generation: u64,
    /// The time of the rollback.
    deadline: Time,
    /// The generation whose rules and settings the rollback restores.
    before: Arc<Generation>,
}

impl Unconfirmed {
    /// Whether the rollback is due.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        now >= self.deadline
    }

    /// The state for operators.
    pub(crate) fn pending(&self, now: Time) -> PendingConfirmation {
        PendingConfirmation {
            change: self.change,
            generation: self.generation,
            time_left: self.deadline.since(now),
            back_to: self.before.number,
            back_to_source: self.before.source.clone(),
            back_to_rules: self.before.rules().rules.len(),
        }
    }
}

impl Administration {
    /// Begins the time for the confirmation of the generation that replaces this one.
    pub(super) fn await_confirmation(&self, change: UnconfirmedChange, time: Duration, before: &Arc<Generation>) {
        let generation = before.number + 1;
        tracing::info!(
            target: target!("operator"),
            change = change.name(),
            generation,
            seconds = time.as_secs(),
            back_to = before.number,
            source = before.source,
            "waits for a confirmation, or is rolled back"
        );
        let deadline = self.shared.clock.now() + time;
        let unconfirmed = Unconfirmed { change, generation, deadline, before: Arc::clone(before) };
        self.published.unconfirmed.store(Some(Arc::new(unconfirmed)));
    }

    /// Refuses a change of rules or settings while an earlier one waits for its confirmation.
    pub(super) fn require_confirmed(&self, change: &str) -> Result<(), RequestError> {
        let unconfirmed = self.published.unconfirmed.load();
        let Some(unconfirmed) = unconfirmed.as_deref() else { return Ok(()) };
        let pending = unconfirmed.pending(self.shared.clock.now());
        let PendingConfirmation { generation, time_left, back_to, .. } = pending;
        Err(RequestError::Conflict(format!(
            "no {change} while generation {generation} waits for a confirmation; nothing changed: run `knockctl \
             confirm` or `knockctl cancel`, or wait {} for the rollback to the {} of generation {back_to}",
            format_duration(time_left),
            pending.change.replaces()
        )))
    }

    /// Confirms the rules or the settings that wait for it. If that cannot be stored, they continue to wait.
    pub(super) fn confirm(&mut self) -> Result<u64, RequestError> {
        let running = self.shared.generation.load_full();
        let Some(unconfirmed) = self.published.unconfirmed.load_full() else { return Err(self.nothing_waits()) };
        let (stored, kept) = match unconfirmed.change {
            UnconfirmedChange::Apply => {
                let stored_rules = &self.rules.stored_rules;
                (stored_rules.save(&SourcedRules::of(&running)), stored_rules.path())
            }
            UnconfirmedChange::Reload => (self.rules.stored_settings.remove(), self.rules.stored_settings.path()),
        };
        stored.map_err(|error| {
            let what = unconfirmed.change.replaces();
            RequestError::Ours(format!(
                "cannot change {}: {error}; the {what} still wait for a confirmation",
                kept.display()
            ))
        })?;
        self.published.unconfirmed.store(None);
        // The host names of the rules before are not needed any more.
        self.lists.names.run(running.rules(), None);
        self.forget_grants(&unconfirmed.before.table.settings().doors);
        let (change, generation, source) = (unconfirmed.change.name(), running.number, &running.source);
        tracing::info!(target: target!("operator"), change, generation, source, "confirmed");
        Ok(generation)
    }

    fn nothing_waits(&self) -> RequestError {
        let running = self.shared.generation.load();
        let (number, rules) = (running.number, running.rules().rules.len());
        RequestError::Conflict(format!(
            "no apply and no reload waits for a confirmation; nothing changed: generation {number} runs, {rules} rules from {}",
            running.source
        ))
    }

    /// Restores the rules and the settings before the change that waits for a confirmation: its time is over, or the operator of
    /// this note cancels it. The timeouts of the rules' own entries have continued, and removed entries are not added again.
    pub(super) fn roll_back(&mut self, cancelled: Option<ApplyNote>) -> Result<u64, RequestError> {
        let Some(unconfirmed) = self.published.unconfirmed.load_full() else { return Err(self.nothing_waits()) };
        let Unconfirmed { change, generation, before, .. } = &*unconfirmed;
        let cause = if cancelled.is_some() { "cancelled" } else { "not confirmed in time" };
        tracing::warn!(
            target: target!("operator"),
            change = change.name(),
            generation = generation + 1,
            unconfirmed = generation,
            back_to = before.number,
            source = before.source,
            "{cause}: rolled back"
        );
        // The steps of `knockctl undo` ignore reloads, and therefore their rollbacks.
        let (origin, comment) = match change {
            UnconfirmedChange::Apply => (RevisionOrigin::Unconfirmed, ""),
            UnconfirmedChange::Reload => (RevisionOrigin::Reload, cause),
        };
        let note = ApplyNote { comment: comment.to_owned(), ..cancelled.unwrap_or_default() };
        let settings = before.table.settings();
        let table = before.table.with_settings(settings, &self.shared.state);
        let table = table.map_err(|error| RequestError::Ours(format!("the rules before cannot run: {error}")));
        let rolled_back = table.and_then(|table| self.swap_with_names(table, before.source.clone(), None));
        let is_swapped = self.shared.generation.load().number > *generation;
        self.add_revision(RevisionCause { note, ..RevisionCause::of(origin) });
        if is_swapped && *change == UnconfirmedChange::Reload {
            self.take_back(settings);
        }
        let again = Unconfirmed {
            change: *change,
            generation: *generation,
            deadline: self.shared.clock.now() + RETRY,
            before: Arc::clone(before),
        };
        self.published.unconfirmed.store((!is_swapped).then(|| Arc::new(again)));
        rolled_back
    }

    /// Notes that these settings run again, and not those of the configuration file.
    fn take_back(&mut self, settings: &Settings) {
        let unconfirmed = mem::replace(&mut self.rules.config.settings, settings.clone());
        self.forget_steps(&unconfirmed.doors);
        self.forget_grants(&unconfirmed.doors);
        if unconfirmed == *settings {
            return;
        }
        self.published.differs_from_file.store(true, Relaxed);
        let (file, kept) = (self.rules.config.file.display(), self.rules.stored_settings.path());
        tracing::warn!(
            target: target!("operator"),
            "running the doors and [policy] from before the reload, kept in {}; {file} has others, which do not run: to run \
             them, use `knockctl reload`",
            kept.display()
        );
    }
}
