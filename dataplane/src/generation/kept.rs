//! The counts that outlive the process.

use std::collections::{BTreeMap, HashSet};

use knockplane_policy::rule::RuleId;
use knockplane_policy::wire::Counter;
use serde::{Deserialize, Serialize};

use super::resets::CounterResets;
use super::series::Series;
use super::{Generation, Totals};

/// The counts of rules and chain defaults, their resets, and the overflow of the metrics. Counts of 0 are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeptCounts {
    rules: BTreeMap<RuleId, Counter>,
    chain_defaults: [Counter; 3],
    overflow: Counter,
    #[serde(default)]
    resets: CounterResets,
}

impl KeptCounts {
    pub(super) fn of(totals: Totals, overflow: Counter, resets: CounterResets) -> KeptCounts {
        let Totals { rules, chain_defaults } = totals;
        let rules = rules.into_iter().filter(|(_, counter)| *counter != Counter::default()).collect();
        KeptCounts { rules, chain_defaults, overflow, resets }
    }

    /// The counts of the rules of a generation, their resets, and its series. The counts of other rules are dropped.
    pub(super) fn of_generation(self, generation: &Generation) -> (Totals, CounterResets, Series) {
        let KeptCounts { rules, chain_defaults, overflow, mut resets } = self;
        let ids: HashSet<&RuleId> = generation.rules().rules.iter().map(|rule| &rule.id).collect();
        let rules = rules.into_iter().filter(|(id, _)| ids.contains(id)).collect();
        resets.retain(&ids);
        (Totals { rules, chain_defaults }, resets, Series::with_overflow(overflow))
    }
}

#[cfg(test)]
mod tests {
    use knockplane_engine::state::State;
    use knockplane_policy::rule::BuiltinChain;

    use super::*;
    use crate::config::{MetricsConfig, RuleSeries};
    use crate::generation::Book;
    use crate::generation::tests::generation;

    #[test]
    fn a_later_process_continues_the_counts_of_the_rules_that_it_has() {
        let state = State::new(16, 16).expect("a small state");
        let rule = |port: u32| format!("add chain=input dst-port={port} protocol=tcp\n");
        let metrics = MetricsConfig { rules: RuleSeries::Some(Vec::new()), ..MetricsConfig::default() };
        let first = generation(1, &state, &[rule(1), rule(2), rule(3)].concat());
        let mut book = Book::new(&first, &metrics, KeptCounts::default());
        first.counters[0].count_rule(0, 3, 40);
        first.counters[1].count_rule(1, 2, 100);
        first.counters[1].count_default(BuiltinChain::ALL[0], 1, 60);
        book.reset(&[first.rules().rules[1].id.clone()], &first);
        let kept = book.kept(&first);
        let stored = serde_json::to_vec(&kept).expect("plain data");
        assert_eq!(serde_json::from_slice::<KeptCounts>(&stored).expect("the same"), kept);
        assert_eq!(kept.rules.len(), 2, "a rule that counted nothing is left out");

        // The first rule is gone, and the others are in another order.
        let later = generation(1, &state, &[rule(3), rule(2)].concat());
        let book = Book::new(&later, &metrics, kept);
        later.counters[0].count_rule(1, 1, 100);
        let totals = book.totals(&later);
        let counts = later.rules().rules.iter().map(|rule| totals.rule(&rule.id));
        assert_eq!(counts.collect::<Vec<_>>(), [Counter::default(), Counter { packets: 3, bytes: 300 }]);
        let since = book.since_reset(&later, &totals);
        assert_eq!(since, [Counter::default(), Counter { packets: 1, bytes: 100 }], "a reset outlives the process");
        assert_eq!(totals.chain_defaults[0], Counter { packets: 1, bytes: 60 });
        // Before, the first two of the three rules had no series. Now, the last rule has series: with all its counts.
        assert_eq!(book.overflow(&totals), Counter { packets: 5, bytes: 320 });
        assert_eq!(book.kept(&later).rules.len(), 1, "a rule that is gone is dropped");
    }
}
