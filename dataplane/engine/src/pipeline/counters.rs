//! The counters of one worker for one table: the packets and bytes that each rule matched.
//!
//! Only the worker writes, so a count is a load and a store, without a locked instruction. Readers add the counters of all
//! workers. They may see one packet more or fewer in `packets` than in `bytes`. A new table gets new counters.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use knockplane_policy::rule::BuiltinChain;
use knockplane_policy::wire::Counter;

/// The counters of one worker for one table.
pub struct RuleCounters {
    /// The counters have their own cache lines, which they share with no counters of another worker.
    rules: Box<[CachePadded<[Cell; CELLS]>]>,
    chain_defaults: CachePadded<[Cell; BuiltinChain::ALL.len()]>,
    /// The number of packets of each rule that were not logged because the queue was full, since the last
    /// [`RuleCounters::take_unlogged`]. Workers seldom write these counters, so they share cache lines.
    unlogged: Box<[AtomicU64]>,
    /// Whether one of `unlogged` is not zero.
    has_unlogged: AtomicBool,
}

/// Number of cells in a padded block of 128 bytes.
const CELLS: usize = 8;

/// The counted packets and their IP bytes.
#[derive(Default)]
struct Cell {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Cell {
    fn count(&self, packets: u32, bytes: u32) {
        let add = |cell: &AtomicU64, more: u64| {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        };
        add(&self.packets, packets.into());
        add(&self.bytes, u64::from(packets) * u64::from(bytes));
    }

    fn add_to(&self, sum: &mut Counter) {
        sum.packets += self.packets.load(Ordering::Relaxed);
        sum.bytes += self.bytes.load(Ordering::Relaxed);
    }
}

impl RuleCounters {
    /// Creates counters with the value 0 for this number of declared rules, which includes disabled ones.
    pub fn new(rules: usize) -> RuleCounters {
        RuleCounters {
            rules: std::iter::repeat_with(CachePadded::default).take(rules.div_ceil(CELLS)).collect(),
            chain_defaults: Default::default(),
            unlogged: std::iter::repeat_with(AtomicU64::default).take(rules).collect(),
            has_unlogged: AtomicBool::default(),
        }
    }

    /// Counts `packets` packets, each of `bytes` IP bytes, for the rule at this position among the declared rules.
    pub fn count_rule(&self, rule: usize, packets: u32, bytes: u32) {
        if let Some(cells) = self.rules.get(rule / CELLS) {
            cells[rule % CELLS].count(packets, bytes);
        }
    }

    /// Counts a packet that the rule at this position among the declared rules could not log, because the queue was
    /// full.
    #[cold]
    pub fn count_unlogged(&self, rule: usize) {
        if let Some(unlogged) = self.unlogged.get(rule) {
            unlogged.fetch_add(1, Ordering::Relaxed);
            self.has_unlogged.store(true, Ordering::Release);
        }
    }

    /// Returns and resets the counts of packets that were not logged: the position of each such rule, and its number of
    /// packets.
    pub fn take_unlogged(&self) -> impl Iterator<Item = (usize, u64)> {
        let rules = if self.has_unlogged.swap(false, Ordering::Acquire) { &self.unlogged[..] } else { &[] };
        rules
            .iter()
            .enumerate()
            .map(|(rule, unlogged)| (rule, unlogged.swap(0, Ordering::Relaxed)))
            .filter(|(_, packets)| *packets > 0)
    }

    /// Counts `packets` packets, each of `bytes` IP bytes, that the default of the chain decided.
    pub fn count_default(&self, chain: BuiltinChain, packets: u32, bytes: u32) {
        self.chain_defaults[chain as usize].count(packets, bytes);
    }

    /// Adds the counters of the rules to `sums`, in the order of the declared rules.
    pub fn add_rules_to(&self, sums: &mut [Counter]) {
        for (cell, sum) in self.rules.iter().flat_map(|cells| cells.iter()).zip(sums) {
            cell.add_to(sum);
        }
    }

    /// Adds the counters of the chains to `sums`: input, forward, output.
    pub fn add_defaults_to(&self, sums: &mut [Counter; BuiltinChain::ALL.len()]) {
        for (cell, sum) in self.chain_defaults.iter().zip(sums) {
            cell.add_to(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_add_the_counters_of_all_workers() {
        let workers = [RuleCounters::new(2), RuleCounters::new(2)];
        workers[0].count_rule(1, 1, 48);
        workers[1].count_rule(1, 2, 52);
        workers[1].count_rule(7, 1, 1);
        workers[1].count_default(BuiltinChain::Output, 1, 40);
        let (mut rules, mut defaults) = ([Counter::default(); 2], [Counter::default(); 3]);
        for worker in &workers {
            worker.add_rules_to(&mut rules);
            worker.add_defaults_to(&mut defaults);
        }
        assert_eq!(rules, [Counter::default(), Counter { packets: 3, bytes: 152 }]);
        assert_eq!(defaults[2], Counter { packets: 1, bytes: 40 });
    }

    #[test]
    fn packets_that_were_not_logged_are_taken_once() {
        let counters = RuleCounters::new(3);
        for rule in [2, 0, 2, 7] {
            counters.count_unlogged(rule);
        }
        assert_eq!(counters.take_unlogged().collect::<Vec<_>>(), [(0, 1), (2, 2)]);
        assert_eq!(counters.take_unlogged().count(), 0);
    }
}
