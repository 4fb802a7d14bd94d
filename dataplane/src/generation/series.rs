//! Selects the rules that have series of their own in the metrics, and adds the counts of the others.
//!
//! The dataplane selects them, and not the control process: counters must not decrease while the dataplane runs, also
//! if the control process restarts. A rule without series adds to one overflow counter. Its counts stay in the overflow
//! when the rule gets its own series or is removed, so that the overflow never decreases.
//!
//! The last rule of each chain always has series, because this rule commonly drops the rest. Of the other rules, at
//! most [`MAX_RULE_SERIES`] have series: those that `[metrics] rules` selects. A rule with series keeps them while it
//! runs and is selected.

use std::collections::{HashMap, HashSet};

use knockplane_policy::rule::{Rule, RuleId};
use knockplane_policy::wire::Counter;

use super::Totals;
use crate::config::RuleSeries;

/// Maximum number of rules with series of their own, besides the last rules of chains. It is enough for a rule set that
/// people read. Ten thousand rules with three series each would fill most of a small Prometheus server.
pub(crate) const MAX_RULE_SERIES: usize = 1_000;

/// Maximum number of chains whose last rule always has series: first the built-in chains, then the others in the order
/// of the rules.
const MAX_CHAINS: usize = 256;

/// The rules with series, and the overflow counter of the others.
#[derive(Default)]
pub(crate) struct Series {
    /// Rules of the running generation that have series.
    own: HashSet<RuleId>,
    /// Rules that have no series, or had none when they were removed, each with its counts before that time.
    shared: HashMap<RuleId, Counter>,
    /// The counts without series of rules that are not in `shared` any more.
    settled: Counter,
}

impl Series {
    /// No rule has series yet, and the overflow has this value.
    pub(super) fn with_overflow(settled: Counter) -> Series {
        Series { settled, ..Series::default() }
    }

    /// Selects again, from the rules that run now.
    pub(crate) fn choose(&mut self, wanted: &RuleSeries, rules: &[Rule], totals: &Totals) {
        let last = last_rules(rules);
        let mut own: HashSet<RuleId> = last.iter().map(|rule| rule.id.clone()).collect();
        let room = MAX_RULE_SERIES + own.len();
        let wanted: Vec<&Rule> = rules.iter().filter(|rule| wanted.wants(rule)).collect();
        let (kept, new): (Vec<&Rule>, Vec<&Rule>) = wanted.iter().partition(|rule| self.own.contains(&rule.id));
        for rule in kept.into_iter().chain(new) {
            if own.len() < room {
                own.insert(rule.id.clone());
            }
        }
        for rule in rules {
            if own.contains(&rule.id) {
                self.settle(&rule.id, totals);
            } else {
                self.shared.entry(rule.id.clone()).or_insert_with(|| totals.rule(&rule.id));
            }
        }
        self.own = own;
    }

    /// Removes a rule that gets series or that the book removes. Its counts without series stay in the overflow.
    pub(crate) fn settle(&mut self, rule: &RuleId, totals: &Totals) {
        if let Some(before) = self.shared.remove(rule) {
            add_since(&mut self.settled, totals.rule(rule), before);
        }
    }

    /// Whether a rule that runs has series.
    pub(crate) fn has(&self, rule: &RuleId) -> bool {
        self.own.contains(rule)
    }

    /// The overflow: the counts of rules without series.
    pub(crate) fn overflow(&self, totals: &Totals) -> Counter {
        let mut overflow = self.settled;
        for (rule, before) in &self.shared {
            add_since(&mut overflow, totals.rule(rule), *before);
        }
        overflow
    }
}

fn add_since(sum: &mut Counter, now: Counter, before: Counter) {
    sum.packets += now.packets.saturating_sub(before.packets);
    sum.bytes += now.bytes.saturating_sub(before.bytes);
}

/// The last running rule of each chain of each menu.
fn last_rules(rules: &[Rule]) -> Vec<&Rule> {
    let mut seen = HashSet::new();
    let run = rules.iter().rev().filter(|rule| rule.runs());
    let last = run.filter(|rule| seen.insert((rule.family, rule.table, rule.chain.as_str())));
    let (mut last, others): (Vec<_>, Vec<_>) =
        last.partition(|rule| rule.table.builtin_chains().contains(&&*rule.chain));
    last.extend(others.into_iter().rev());
    last.truncate(MAX_CHAINS);
    last
}
