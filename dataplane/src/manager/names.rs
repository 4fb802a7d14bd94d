//! Host names of address lists: what control asks of them, and what its answers change.

use knockplane_policy::rule::RuleSet;
use knockplane_policy::time::Time;
use knockplane_policy::wire::{NameAnswer, NameState};

use super::Manager;
use super::answer::Problem;

impl Manager {
    /// Every name in the lists of the rules that run.
    pub(super) fn names(&self) -> Vec<NameState> {
        self.names.states(self.shared.clock.now())
    }

    /// Has the lists go by these answers.
    pub(super) fn take_names(&mut self, answers: Vec<NameAnswer>) -> Result<(), Problem> {
        if !self.names.take(answers, self.shared.clock.now()) {
            return Ok(());
        }
        let generation = self.shared.generation.load_full();
        self.install_names(&[(generation.rules(), generation.table.begun())])
    }

    /// Has the engine go by the names of these rules, each with when its timeouts began.
    pub(super) fn install_names(&mut self, rules: &[(&RuleSet, Time)]) -> Result<(), Problem> {
        let entries = rules.iter().flat_map(|(rules, begun)| self.names.entries(rules, *begun)).collect();
        self.held.set_names(entries);
        self.held.install(&self.shared.state.lists).map_err(|error| Problem::Ours(error.to_string()))
    }
}
