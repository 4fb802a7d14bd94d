//! Host names of address lists: requests of control for names, and the changes by its answers.

use knockplane_policy::rule::RuleSet;
use knockplane_policy::time::Time;
use knockplane_policy::wire::{NameAnswer, NameState};

use super::{ListAdministration, RequestError};
use crate::shared::Shared;

impl ListAdministration {
    /// The state of every host name in the lists of the rules that run.
    pub(crate) fn name_states(&self, now: Time) -> Vec<NameState> {
        self.names.states(now)
    }

    /// Updates the lists with these answers.
    pub(crate) fn take_names(&mut self, answers: Vec<NameAnswer>, shared: &Shared) -> Result<(), RequestError> {
        if !self.names.take(answers, shared.clock.now()) {
            return Ok(());
        }
        let generation = shared.generation.load_full();
        self.install_names(&[(generation.rules(), generation.table.begun())], shared)
    }

    /// Installs the host names of these rules in the engine. Each rule set has the start of its timeouts.
    pub(crate) fn install_names(&mut self, rules: &[(&RuleSet, Time)], shared: &Shared) -> Result<(), RequestError> {
        let entries = rules.iter().flat_map(|(rules, begun)| self.names.entries(rules, *begun)).collect();
        self.entries.set_names(entries);
        self.entries.install(&shared.state.lists).map_err(|error| RequestError::Ours(error.to_string()))
    }
}
