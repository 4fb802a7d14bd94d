//! What must stay the same from scrape to scrape, for as long as one dataplane process lives.
//!
//! *Which rules have a series.* The first [`MAX_RULE_SERIES`] rules seen keep theirs; the others are counted together. A
//! rule does not change sides when a reload reorders the rules, so that every series and the sum of the others only
//! grow. Only when there is no room for a rule that runs does one that no longer runs give way.
//!
//! *Points in time.* The dataplane says ages, which are a few milliseconds different each time when they are turned
//! into points in time. The first result is kept, so that `changes()` counts reloads and nothing else.

use std::collections::HashSet;
use std::time::Duration;

use knockplane_policy::rule::RuleId;
use knockplane_policy::wire::Metrics;

/// How many rules get series of their own. Enough for a rule set that people read; ten thousand rules in two series
/// each would be most of what a small Prometheus holds.
pub(super) const MAX_RULE_SERIES: usize = 1_000;

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pid: u32,
    generation: u64,
    /// When the dataplane started, since the Unix epoch.
    pub(super) started: Duration,
    /// When its generation was swapped in, since the Unix epoch.
    pub(super) reloaded: Duration,
    rules: HashSet<RuleId>,
}

impl Memory {
    /// Takes in what is new in this answer. A dataplane with another process id starts from nothing.
    pub(super) fn look_at(&mut self, answer: &Metrics, now: Duration) {
        let status = &answer.status;
        if self.pid != status.pid {
            *self = Memory { pid: status.pid, started: now.saturating_sub(status.uptime), ..Memory::default() };
        }
        if self.generation != status.generation {
            self.generation = status.generation;
            self.reloaded = now.saturating_sub(status.generation_age);
        }
        let (running, past): (Vec<_>, Vec<_>) = answer.rules.iter().partition(|rule| rule.runs);
        let told: HashSet<&RuleId> = answer.rules.iter().map(|rule| &rule.id).collect();
        self.rules.retain(|id| told.contains(id));
        let mut may_give_way = past.iter().map(|rule| &rule.id);
        for rule in running.iter().chain(&past) {
            if self.rules.contains(&rule.id) {
                continue;
            }
            if self.rules.len() == MAX_RULE_SERIES {
                let gives_way = may_give_way.find(|id| self.rules.contains(*id));
                match gives_way.filter(|_| rule.runs) {
                    Some(id) => self.rules.remove(id),
                    None => break,
                };
            }
            self.rules.insert(rule.id.clone());
        }
    }

    /// Whether the rule has series of its own.
    pub(super) fn has_series(&self, rule: &RuleId) -> bool {
        self.rules.contains(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn id(number: usize) -> RuleId {
        RuleId(format!("{number:08x}"))
    }

    fn answer(numbers: impl Iterator<Item = usize>) -> Metrics {
        let rules = numbers.map(|number| sample::rule_metrics(&id(number).0, 1)).collect();
        Metrics { rules, ..sample::metrics() }
    }

    #[test]
    fn a_rule_keeps_its_side_when_rules_are_reordered() {
        let mut memory = Memory::default();
        memory.look_at(&answer(0..MAX_RULE_SERIES + 1), Duration::ZERO);
        memory.look_at(&answer((0..MAX_RULE_SERIES + 1).rev()), Duration::ZERO);
        assert!(memory.has_series(&id(0)) && memory.has_series(&id(MAX_RULE_SERIES - 1)));
        assert!(!memory.has_series(&id(MAX_RULE_SERIES)));
    }

    #[test]
    fn a_rule_that_runs_gets_the_series_of_one_that_does_not() {
        let mut memory = Memory::default();
        memory.look_at(&answer(0..MAX_RULE_SERIES), Duration::ZERO);
        let mut reloaded = answer(0..MAX_RULE_SERIES + 2);
        for rule in &mut reloaded.rules[..MAX_RULE_SERIES] {
            rule.runs = false;
        }
        memory.look_at(&reloaded, Duration::ZERO);
        assert!(memory.has_series(&id(MAX_RULE_SERIES)) && memory.has_series(&id(MAX_RULE_SERIES + 1)));
        assert_eq!(memory.rules.len(), MAX_RULE_SERIES);
        memory.look_at(&answer(7_000..7_001), Duration::ZERO);
        assert!(memory.has_series(&id(7_000)) && memory.rules.len() == 1, "what is told no longer is forgotten");
    }

    #[test]
    fn a_restarted_dataplane_starts_from_nothing() {
        let mut memory = Memory::default();
        memory.look_at(&answer(0..MAX_RULE_SERIES), Duration::from_secs(1_000));
        let mut restarted = answer(5_000..5_001);
        restarted.status.pid += 1;
        memory.look_at(&restarted, Duration::from_secs(2_000));
        assert!(memory.has_series(&id(5_000)) && !memory.has_series(&id(0)));
        assert_eq!(memory.started, Duration::from_secs(1_910));
    }

    #[test]
    fn points_in_time_do_not_jitter() {
        let mut memory = Memory::default();
        memory.look_at(&answer(0..1), Duration::from_secs(1_000));
        memory.look_at(&answer(0..1), Duration::from_millis(1_000_003));
        assert_eq!((memory.started, memory.reloaded), (Duration::from_secs(910), Duration::from_secs(970)));
        let mut reloaded = answer(0..1);
        reloaded.status.generation += 1;
        memory.look_at(&reloaded, Duration::from_secs(1_100));
        assert_eq!(memory.reloaded, Duration::from_secs(1_070));
    }
}
