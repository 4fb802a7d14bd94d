//! Applies that wait for a confirmation.
//!
//! The new rules run. `rules.state` contains the rules before them, so a restart of the dataplane begins with those, as
//! if the apply had not happened. Nothing outside this process takes part: the manager compares the deadline with the
//! clock at each tick, and begins [`JobTask::RollBack`](super::JobTask::RollBack). So a rollback does not need control,
//! the operator's connection, or room on the disk.
//!
//! Meanwhile no other apply and no reload is carried out, so that there is one rule set to return to, under the same
//! settings.

use std::sync::Arc;
use std::time::Duration;

use knockplane_log::target;
use knockplane_policy::time::{Time, format_duration};
use knockplane_policy::wire::PendingConfirmation;
use knockplane_policy::wire::history::RevisionOrigin;

use super::{Administration, RequestError};
use crate::generation::Generation;
use crate::history::RevisionCause;
use crate::stored_rules::SourcedRules;

/// The time until a rollback that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// An apply that waits for a confirmation.
pub(crate) struct Unconfirmed {
    /// The generation that runs unconfirmed.
    generation: u64,
    /// The time of the rollback.
    deadline: Time,
    /// The generation whose rules the rollback restores.
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
            generation: self.generation,
            time_left: self.deadline.since(now),
            back_to: self.before.number,
            back_to_source: self.before.source.clone(),
            back_to_rules: self.before.rules().rules.len(),
        }
    }
}

impl Administration {
    /// Begins the time for the confirmation of the rules that replace this generation.
    pub(super) fn await_confirmation(&self, time: Duration, before: &Arc<Generation>) {
        let generation = before.number + 1;
        tracing::info!(
            target: target!("operator"),
            generation,
            seconds = time.as_secs(),
            back_to = before.number,
            source = before.source,
            "waits for a confirmation, or is rolled back"
        );
        let deadline = self.shared.clock.now() + time;
        let unconfirmed = Unconfirmed { generation, deadline, before: Arc::clone(before) };
        self.published.unconfirmed.store(Some(Arc::new(unconfirmed)));
    }

    /// Refuses a change of rules while an apply waits for its confirmation.
    pub(super) fn require_confirmed(&self, change: &str) -> Result<(), RequestError> {
        let unconfirmed = self.published.unconfirmed.load();
        let Some(unconfirmed) = unconfirmed.as_deref() else { return Ok(()) };
        let PendingConfirmation { generation, time_left, back_to, .. } = unconfirmed.pending(self.shared.clock.now());
        Err(RequestError::Conflict(format!(
            "no {change} while generation {generation} waits for a confirmation; nothing changed: run `knockctl \
             confirm`, or wait {} for the rollback to the rules of generation {back_to}",
            format_duration(time_left)
        )))
    }

    /// Confirms the rules that wait for it. If they cannot be stored, they continue to wait.
    pub(super) fn confirm(&mut self) -> Result<u64, RequestError> {
        let running = self.shared.generation.load_full();
        if self.published.unconfirmed.load().is_none() {
            let (number, rules) = (running.number, running.rules().rules.len());
            return Err(RequestError::Conflict(format!(
                "no apply waits for a confirmation; nothing changed: generation {number} runs, {rules} rules from {}",
                running.source
            )));
        }
        self.rules.stored_rules.save(&SourcedRules::of(&running)).map_err(|error| {
            let kept = self.rules.stored_rules.path();
            RequestError::Ours(format!(
                "cannot keep the rules in {}: {error}; they still wait for a confirmation",
                kept.display()
            ))
        })?;
        self.published.unconfirmed.store(None);
        // The host names of the rules before are not needed any more.
        self.lists.names.run(running.rules(), None);
        let (generation, source) = (running.number, &running.source);
        tracing::info!(target: target!("operator"), generation, source, "confirmed");
        Ok(generation)
    }

    /// Restores the rules before the apply that waits for a confirmation. The timeouts of their own entries have
    /// continued, and removed entries are not added again.
    pub(super) fn roll_back(&mut self) -> Result<u64, RequestError> {
        let Some(unconfirmed) = self.published.unconfirmed.load_full() else {
            return Err(RequestError::Conflict("no apply waits for a confirmation".to_owned()));
        };
        let Unconfirmed { generation, before, .. } = &*unconfirmed;
        tracing::warn!(
            target: target!("operator"),
            generation = generation + 1,
            unconfirmed = generation,
            back_to = before.number,
            source = before.source,
            "not confirmed in time: rolled back"
        );
        let table = before.table.with_settings(&self.rules.config.settings, &self.shared.state);
        let table = table.map_err(|error| RequestError::Ours(format!("the rules before cannot run: {error}")));
        let rolled_back = table.and_then(|table| self.swap_with_names(table, before.source.clone(), None));
        let is_swapped = self.shared.generation.load().number > *generation;
        self.add_revision(RevisionCause::of(RevisionOrigin::Unconfirmed));
        let again = Unconfirmed {
            generation: *generation,
            deadline: self.shared.clock.now() + RETRY,
            before: Arc::clone(before),
        };
        self.published.unconfirmed.store((!is_swapped).then(|| Arc::new(again)));
        rolled_back
    }
}
