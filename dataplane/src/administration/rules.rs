//! Rule administration: applies of new rules, and the swap of generations.
//!
//! An apply compiles while the workers run, stores the rules for the next start, and then swaps: a failure changes
//! nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use knockplane_engine::table::RuleTable;
use knockplane_log::target;
use knockplane_policy::rule::{RuleId, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::history::{MAX_APPLY_COMMENT, RevisionOrigin};
use knockplane_policy::wire::{ApplyRequest, Response, RunningRules, UnconfirmedChange, check_confirm_within};
use knockplane_policy::word::Word as _;

use super::{Administration, RequestError, or_error};
use crate::config::Config;
use crate::generation::Generation;
use crate::history::{RevisionCause, RevisionHistory};
use crate::huge_pages;
use crate::memory::{self, ConnectionMemory};
use crate::stored_rules::{self, SourcedRules, StoredRules};
use crate::stored_settings::StoredSettings;

/// The maximum time that an apply waits until every worker runs the new rules. A worker notices them within a turn
/// after a wake.
const APPLY_PATIENCE: Duration = Duration::from_secs(2);

/// The state of rule administration.
pub(crate) struct RuleAdministration {
    pub(crate) config: Config,
    pub(crate) stored_rules: StoredRules,
    pub(crate) stored_settings: StoredSettings,
    pub(crate) history: RevisionHistory,
}

impl Administration {
    /// Counts the outcome of an apply or a reload, and logs a failure.
    pub(super) fn applied(&self, result: Result<Response, RequestError>) -> Response {
        match &result {
            Ok(_) => _ = self.published.applied.fetch_add(1, Relaxed),
            Err(
                RequestError::Conflict(error)
                | RequestError::NoEntry(error)
                | RequestError::Theirs(error)
                | RequestError::Ours(error),
            ) => {
                self.published.refused.fetch_add(1, Relaxed);
                tracing::warn!(target: target!("operator"), error, "not applied as it should be");
            }
        }
        or_error(result)
    }

    /// Applies other rules, which are rolled back unless they are confirmed within a time.
    pub(super) fn apply(&mut self, request: ApplyRequest) -> Result<u64, RequestError> {
        let ApplyRequest { mut rules, source, names, confirm_within, based_on, origin, note } = request;
        self.require_confirmed("apply")?;
        if let Some(based_on) = based_on {
            self.rules.history.overview().check_base(based_on).map_err(RequestError::Conflict)?;
        }
        if !origin.is_of_operator() {
            return Err(RequestError::Theirs(format!("no apply has the origin `{}`", origin.name())));
        }
        if note.comment.len().max(note.edit.len()) > MAX_APPLY_COMMENT {
            return Err(RequestError::Theirs(format!("the comment has more than {MAX_APPLY_COMMENT} bytes")));
        }
        if let Some(time) = confirm_within {
            check_confirm_within(time).map_err(RequestError::Theirs)?;
        }
        // The rules of doors are created again from the configuration, and are not stored.
        rules.rules.retain(|rule| !rule.dynamic);
        // A start refuses stored rules with other ids.
        rules.assign_ids();
        let settings = &self.rules.config.settings;
        self.check_memory(&rules, settings)?;
        let rules = Arc::new(rules);
        let table = RuleTable::compile(Arc::clone(&rules), settings, &self.shared.state, self.shared.clock.now());
        let table = table.map_err(|error| RequestError::Theirs(error.to_string()))?;
        let source = match origin {
            RevisionOrigin::Edit => stored_rules::edited(&source),
            _ => stored_rules::applied(&source).to_owned(),
        };
        let new = SourcedRules { source, rules };
        let running = self.shared.generation.load_full();
        // A start loads only rules that are confirmed. They may be those of the configured file, which can change.
        let stored = if confirm_within.is_some() { &SourcedRules::of(&running) } else { &new };
        if let Err(error) = self.rules.stored_rules.save(stored) {
            self.restore_levels();
            let kept = self.rules.stored_rules.path();
            return Err(RequestError::Ours(format!(
                "cannot keep the rules in {}: {error}; nothing changed",
                kept.display()
            )));
        }
        tracing::info!(
            target: target!("operator"),
            generation = running.number + 1,
            rules = table.rules().rules.len(),
            source = new.source,
            token = note.token.as_deref(),
            "apply"
        );
        self.lists.names.take_for(names, &new.rules, self.shared.clock.now());
        // Before the swap, so that rules that only some workers take are rolled back as well.
        if let Some(time) = confirm_within {
            self.await_confirmation(UnconfirmedChange::Apply, time, &running);
        }
        let applied = self.swap_with_names(table, new.source, confirm_within.and(Some(running.rules())));
        if self.shared.generation.load().number == running.number {
            self.published.unconfirmed.store(None);
        } else {
            self.add_revision(RevisionCause { origin, note, confirm_within });
        }
        applied
    }

    /// Adds the running rules to the history, if they are others than before. Rules that run on some workers count as
    /// well.
    pub(super) fn add_revision(&mut self, cause: RevisionCause) {
        self.rules.history.add(cause, &self.shared.generation.load());
    }

    /// Publishes this table to the workers, with the addresses of the host names in its lists. Keeps the addresses of
    /// the host names in the rules of a possible rollback.
    pub(super) fn swap_with_names(
        &mut self,
        mut table: RuleTable,
        source: String,
        rollback: Option<&RuleSet>,
    ) -> Result<u64, RequestError> {
        let running = self.shared.generation.load_full();
        let (rules, begun) = (Arc::clone(table.rules()), table.begun());
        // Until every worker has left the old rules, the host names of both rule sets count.
        let of_both = [(running.rules(), running.table.begun()), (&*rules, begun)];
        self.lists.install_names(&of_both, &self.shared)?;
        table.begin(&self.shared.state, self.shared.clock.now());
        let generation = self.swap(table, source)?;
        self.lists.names.run(&rules, rollback);
        self.lists.install_names(&[(&rules, begun)], &self.shared)?;
        Ok(generation)
    }

    /// Publishes this table to the workers, and waits until every worker runs it.
    pub(super) fn swap(&self, table: RuleTable, source: String) -> Result<u64, RequestError> {
        let shared = &self.shared;
        let running = shared.generation.load();
        // Its memory was written when it was allocated.
        if let Some(connections) = shared.state.connections().filter(|_| table.tracks() && !running.table.tracks()) {
            huge_pages::collapse_connections(connections);
        }
        let number = running.number + 1;
        drop(running);
        let generation = Generation::new(number, shared.clock.now(), source, table, self.workers.len());
        let generation = Arc::new(generation.with_fast_path(Arc::clone(&shared.fast_path), &shared.state.lists));
        shared.fast_path.change(&generation.table, &generation.strangers, &shared.state.lists, || {
            let mut ledger = self.published.ledger();
            ledger.metrics = self.rules.config.metrics.clone();
            let replaced = shared.generation.swap(Arc::clone(&generation));
            let ledger = &mut *ledger;
            // The manager adds the counters of the old generation when no worker runs it any more.
            ledger.book.replaced(replaced, &generation, &ledger.metrics);
        });
        for worker in &self.workers {
            // A worker whose wake fails wakes a little later without it.
            worker.waker.wake();
        }
        if self.await_workers(APPLY_PATIENCE, |counters| counters.generation.observe() >= number) {
            return Ok(number);
        }
        Err(RequestError::Ours(format!(
            "generation {number} is in place, but a worker hangs and has not taken it: see `knockctl show workers`"
        )))
    }

    /// Sets the levels of the lists to those of the running rules, after a table was compiled that does not run.
    pub(super) fn restore_levels(&self) {
        let running = self.shared.generation.load();
        let again = running.table.with_settings(running.table.settings(), &self.shared.state);
        debug_assert!(again.is_ok(), "rules that run can be compiled");
    }

    /// Checks the memory for the connections that these rules track.
    pub(super) fn check_memory(&self, rules: &RuleSet, settings: &Settings) -> Result<(), RequestError> {
        let bytes = self.shared.state.connections_to_come(rules, settings);
        memory::check_connections(ConnectionMemory { capacity: self.rules.config.connection_capacity, bytes })
            .map_err(|error| RequestError::Theirs(format!("{error}; nothing changed")))
    }

    /// The rules that run, with their counters.
    pub(super) fn rules(&self) -> RunningRules {
        let ledger = self.published.ledger();
        let generation = self.shared.generation.load_full();
        let totals = ledger.book.totals(&generation);
        let counters = ledger.book.since_reset(&generation, &totals);
        drop(ledger);
        let rules = generation.rules();
        let history = &self.rules.history;
        RunningRules {
            generation: generation.number,
            revision: history.last(),
            order: generation.order(),
            source: generation.source.clone(),
            configuration: self.rules.config.file.display().to_string(),
            rules: rules.clone(),
            origins: history.origins(&rules.rules),
            counters,
            chain_defaults: totals.chain_defaults,
        }
    }

    /// Sets the counters of these rules to zero, or those of all rules if none is named.
    pub(super) fn reset_counters(&mut self, ids: &[RuleId]) -> Result<(), RequestError> {
        let mut ledger = self.published.ledger();
        let generation = self.shared.generation.load_full();
        let rules = &generation.rules().rules;
        if let Some(unknown) = ids.iter().find(|id| !rules.iter().any(|rule| rule.id == **id)) {
            return Err(RequestError::Conflict(format!("no rule with the id {unknown} runs; no counter changed")));
        }
        ledger.book.reset(ids, &generation);
        tracing::info!(target: target!("operator"), rules = ids.len(), "counters of rules reset");
        Ok(())
    }
}
