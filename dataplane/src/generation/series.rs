//! Which rules have series of their own in metrics, and what the others have counted together.
//!
//! The dataplane decides it, and not the control process: counters must not sink while the dataplane lives, also if the
//! control process restarts. A rule without series adds to one overflow counter. What it has added stays there when it gets
//! series of its own or is removed, so that the overflow never sinks.
//!
//! The last rule of each chain always has series: it commonly is the one that drops. Of the others, those that
//! `[metrics] rules` chooses have series, at most [`MAX_RULE_SERIES`]; a rule that has them keeps them while it is among the
//! rules.

use std::collections::{HashMap, HashSet};

use knockplane_policy::rule::{Rule, RuleId};
use knockplane_policy::wire::Counter;

use super::Totals;
use crate::config::RuleSeries;

/// How many rules get series of their own, besides the last rules of chains. Enough for a rule set that people read; ten
/// thousand rules in three series each would be most of what a small Prometheus holds.
pub(crate) const MAX_RULE_SERIES: usize = 1_000;

/// Chains whose last rule has series in any case, at most: built-in ones first, then in the order of the rules.
const MAX_CHAINS: usize = 256;

/// See the top of this file.
#[derive(Default)]
pub(crate) struct Series {
    /// Rules of the running generation that have series.
    own: HashSet<RuleId>,
    /// Rules that have none, or had none when they were removed: what each had counted before.
    shared: HashMap<RuleId, Counter>,
    /// What rules had counted without series that are not among `shared` any more.
    settled: Counter,
}

impl Series {
    /// Decides anew, for the rules that run now.
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

    /// A rule is forgotten, or gets series: what it has counted without them stays in the overflow.
    pub(crate) fn settle(&mut self, rule: &RuleId, totals: &Totals) {
        if let Some(before) = self.shared.remove(rule) {
            add_since(&mut self.settled, totals.rule(rule), before);
        }
    }

    /// Whether a rule that runs has series.
    pub(crate) fn has(&self, rule: &RuleId) -> bool {
        self.own.contains(rule)
    }

    /// What rules without series have counted.
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

/// The last rule of each chain that runs, of each menu.
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
