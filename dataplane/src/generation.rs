//! Generations of rules: a compiled table with its counters, and the counts of rules across generations.
//!
//! A rule keeps its counters as long as its id stays in the rules. A generation's counters are folded into the book
//! once no worker can write to them any more, so that no packet is counted twice or lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use knockplane_engine::counters::RuleCounters;
use knockplane_engine::table::Table;
use knockplane_policy::rule::{RuleId, RuleNumber, RuleSet, numbers};
use knockplane_policy::time::Time;
use knockplane_policy::wire::{Counter, RuleMetrics};

/// Rules as they run, never changed: workers notice a new one by a memory read.
pub(crate) struct Generation {
    /// Counted from 1.
    pub(crate) number: u64,
    /// When it was swapped in.
    pub(crate) since: Time,
    /// Where the rules came from, for people.
    pub(crate) source: String,
    pub(crate) table: Table,
    /// One for each worker.
    pub(crate) counters: Vec<RuleCounters>,
    /// The number of each rule, in their order.
    pub(crate) numbers: Vec<RuleNumber>,
}

impl Generation {
    pub(crate) fn new(number: u64, since: Time, source: String, table: Table, workers: usize) -> Self {
        let counters = (0..workers).map(|_| RuleCounters::new(table.rules().rules.len())).collect();
        let numbers = numbers(&table.rules().rules);
        Generation { number, since, source, table, counters, numbers }
    }

    pub(crate) fn rules(&self) -> &RuleSet {
        self.table.rules()
    }
}

/// Rules remembered at most; beyond it, those that do not run any more are forgotten. Rules that are generated anew every
/// minute would fill memory otherwise.
const MAX_PAST: usize = 20_000;

/// What was counted by all generations since start.
#[derive(Default)]
pub(crate) struct Book {
    /// Of generations that no longer run.
    past: Totals,
    /// Replaced, but perhaps still in a worker's hands.
    leaving: Vec<Arc<Generation>>,
}

/// Counts of every rule that runs or ran, and of the three chain defaults.
#[derive(Clone, Default)]
pub(crate) struct Totals {
    rules: HashMap<RuleId, RuleMetrics>,
    pub(crate) chain_defaults: [Counter; 3],
}

impl Book {
    /// The generation was replaced.
    pub(crate) fn replaced(&mut self, generation: Arc<Generation>) {
        self.leaving.push(generation);
    }

    /// Generations that were replaced, but that a worker may still run.
    pub(crate) fn leaving(&self) -> &[Arc<Generation>] {
        &self.leaving
    }

    /// Folds in what generations counted that every worker has left; `oldest` is the oldest one that still runs.
    pub(crate) fn settle(&mut self, oldest: u64) {
        let (left, leaving) = self.leaving.drain(..).partition(|generation| generation.number < oldest);
        self.leaving = leaving;
        let left: Vec<Arc<Generation>> = left;
        for generation in left {
            self.past.add(&generation);
            if self.past.rules.len() > MAX_PAST {
                let last = generation.rules().rules.iter().map(|rule| &rule.id).collect::<HashSet<_>>();
                self.past.rules.retain(|id, _| last.contains(id));
            }
        }
    }

    /// Everything counted up to now.
    pub(crate) fn totals(&self, current: &Generation) -> Totals {
        let mut totals = self.past.clone();
        for generation in &self.leaving {
            totals.add(generation);
        }
        totals.add(current);
        for rule in &current.rules().rules {
            totals.rules.entry(rule.id.clone()).and_modify(|rule| rule.runs = true);
        }
        totals
    }
}

impl Totals {
    /// The counter of a rule.
    pub(crate) fn rule(&self, id: &RuleId) -> Counter {
        self.rules.get(id).map(|rule| rule.counter).unwrap_or_default()
    }

    /// Every rule, in the order of ids.
    pub(crate) fn into_rules(self) -> Vec<RuleMetrics> {
        let mut rules: Vec<_> = self.rules.into_values().collect();
        rules.sort_by(|one, other| one.id.cmp(&other.id));
        rules
    }

    fn add(&mut self, generation: &Generation) {
        for (rule, counter) in generation.rules().rules.iter().zip(rule_totals(generation)) {
            let counted = self.rules.entry(rule.id.clone()).or_insert_with(|| RuleMetrics {
                id: rule.id.clone(),
                family: rule.family,
                chain: rule.chain.clone(),
                counter: Counter::default(),
                runs: false,
            });
            add(&mut counted.counter, counter);
        }
        for (total, counter) in self.chain_defaults.iter_mut().zip(default_totals(generation)) {
            add(total, counter);
        }
    }
}

fn rule_totals(generation: &Generation) -> Vec<Counter> {
    let mut totals = vec![Counter::default(); generation.rules().rules.len()];
    for counters in &generation.counters {
        counters.add_rules_to(&mut totals);
    }
    totals
}

fn default_totals(generation: &Generation) -> [Counter; 3] {
    let mut totals = [Counter::default(); 3];
    for counters in &generation.counters {
        counters.add_defaults_to(&mut totals);
    }
    totals
}

fn add(total: &mut Counter, counter: Counter) {
    total.packets += counter.packets;
    total.bytes += counter.bytes;
}

#[cfg(test)]
mod tests {
    use knockplane_engine::state::State;
    use knockplane_policy::rsc;
    use knockplane_policy::settings::Settings;

    use super::*;

    fn generation(number: u64, state: &State, rules: &str) -> Arc<Generation> {
        let rules = rsc::read(format!("/ip firewall filter\n{rules}").as_bytes()).rules;
        let table = Table::compile(Arc::new(rules), &Settings::default(), state, Time::default()).expect("valid rules");
        Arc::new(Generation::new(number, Time::default(), String::new(), table, 2))
    }

    #[test]
    fn counts_go_with_the_rule_and_none_is_lost_while_a_worker_still_runs_the_old_rules() {
        let state = State::new(16, 16).expect("a small state");
        let (accept, drop) = ("add chain=input dst-port=1 protocol=tcp\n", "add chain=input action=drop\n");
        let first = generation(1, &state, &format!("{accept}{drop}"));
        let second = generation(2, &state, drop);
        let id = |generation: &Generation, rule: usize| generation.rules().rules[rule].id.clone();
        assert_eq!(id(&first, 1), id(&second, 0));

        let mut book = Book::default();
        first.counters[0].count_rule(0, 1, 100);
        first.counters[1].count_rule(1, 1, 40);
        book.replaced(Arc::clone(&first));
        book.settle(1);
        // A worker that has not noticed yet.
        first.counters[1].count_rule(1, 1, 40);
        second.counters[0].count_rule(0, 1, 40);
        for _ in 0..2 {
            let totals = book.totals(&second);
            assert_eq!(totals.rule(&id(&second, 0)), Counter { packets: 3, bytes: 120 });
            assert_eq!(totals.rule(&id(&first, 0)), Counter { packets: 1, bytes: 100 });
            assert_eq!(totals.into_rules().len(), 2, "a rule that ran is still told");
            book.settle(2);
        }
        assert!(book.leaving.is_empty());
    }
}
