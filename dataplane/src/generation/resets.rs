//! Counters of rules that an operator has set to zero.
//!
//! The counters themselves only increase, because metrics must. An operator sees their increase since the reset.

use std::collections::{BTreeMap, HashSet};

use knockplane_policy::rule::{Rule, RuleId};
use knockplane_policy::wire::Counter;
use serde::{Deserialize, Serialize};

/// The counters of rules at their resets. It keeps rules that run and rules of the last reset, so it is bounded by the
/// number of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CounterResets(BTreeMap<RuleId, Counter>);

impl CounterResets {
    /// Notes the counters at a reset, and drops those of rules that do not run any more.
    pub(super) fn reset(&mut self, counters: impl Iterator<Item = (RuleId, Counter)>, running: &[Rule]) {
        let running: HashSet<&RuleId> = running.iter().map(|rule| &rule.id).collect();
        self.retain(&running);
        self.0.extend(counters);
    }

    /// Drops the counters of all other rules.
    pub(super) fn retain(&mut self, running: &HashSet<&RuleId>) {
        self.0.retain(|id, _| running.contains(id));
    }

    /// The increase since the reset. A counter below the one at the reset was dropped meanwhile and began again.
    pub(super) fn since(&self, id: &RuleId, counter: Counter) -> Counter {
        match self.0.get(id) {
            Some(reset) if reset.packets <= counter.packets && reset.bytes <= counter.bytes => {
                Counter { packets: counter.packets - reset.packets, bytes: counter.bytes - reset.bytes }
            }
            _ => counter,
        }
    }
}

#[cfg(test)]
mod tests {
    use knockplane_policy::packet::Family;
    use knockplane_policy::rule::Action;

    use super::*;

    #[test]
    fn a_reset_counter_shows_its_increase() {
        let counter = |packets| Counter { packets, bytes: 40 * packets };
        let [first, second] = ["a", "b"].map(|id| RuleId(id.to_owned()));
        let rule = |id: &RuleId| Rule { id: id.clone(), ..Rule::new(Family::Ipv4, "input", Action::Accept) };
        let mut resets = CounterResets::default();
        resets.reset([(first.clone(), counter(5))].into_iter(), &[rule(&first), rule(&second)]);
        assert_eq!((resets.since(&first, counter(5)), resets.since(&first, counter(7))), (counter(0), counter(2)));
        assert_eq!(resets.since(&second, counter(7)), counter(7));
        assert_eq!(resets.since(&first, counter(4)), counter(4), "it began again");
        resets.reset([(second.clone(), counter(9))].into_iter(), &[rule(&second)]);
        assert_eq!(resets.since(&first, counter(7)), counter(7), "the rule did not run any more");
        assert_eq!(resets.since(&second, counter(9)), counter(0));
    }
}
