//! Generations of rules: a compiled table with its counters, and the counts of rules across generations.
//!
//! A rule keeps its counters if it is removed and added again. The book adds the counters of a generation when no
//! worker can write them any more, so that each packet counts exactly once.

mod kept;
mod resets;
mod series;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use knockplane_engine::pipeline::counters::RuleCounters;
use knockplane_engine::state::lists::Lists;
use knockplane_engine::table::RuleTable;
use knockplane_policy::list_names;
use knockplane_policy::rule::{RuleId, RuleNumber, RuleSet, numbers};
use knockplane_policy::time::Time;
use knockplane_policy::wire::{Counter, MAX_COMMENT, RuleMetrics};

pub(crate) use self::kept::KeptCounts;
use self::resets::CounterResets;
use self::series::Series;
use crate::config::MetricsConfig;
use crate::fast_path::{GenerationStrangers, GenerationTrails, KernelFrames, SharedFastPath};

/// Running rules. A generation never changes: workers notice a new generation by a memory read.
pub(crate) struct Generation {
    /// Counted from 1.
    pub(crate) number: u64,
    /// The time when the generation replaced the previous one.
    pub(crate) since: Time,
    /// The same time by the wall clock, since the Unix epoch.
    pub(crate) since_epoch: Duration,
    /// The origin of the rules, for messages.
    pub(crate) source: String,
    pub(crate) table: RuleTable,
    /// The counters of each worker.
    pub(crate) counters: Vec<RuleCounters>,
    /// The counters of the kernel's fast path.
    pub(crate) trails: GenerationTrails,
    /// The drops of strangers in the kernel.
    pub(crate) strangers: GenerationStrangers,
    /// The lists that the rules and the doors name.
    pub(crate) lists: HashSet<String>,
    /// The number of each rule, in their order.
    pub(crate) numbers: Vec<RuleNumber>,
}

impl Generation {
    pub(crate) fn new(number: u64, since: Time, source: String, table: RuleTable, workers: usize) -> Self {
        let counters = (0..workers).map(|_| RuleCounters::new(table.rules().rules.len())).collect();
        let lists = list_names::named(table.rules(), &table.settings().doors);
        let lists = lists.into_iter().map(|list| list.into_owned()).collect();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let numbers = numbers(&table.rules().rules);
        let (trails, strangers) = Default::default();
        Generation { number, since, since_epoch, source, table, counters, trails, strangers, lists, numbers }
    }

    /// The same generation, whose flows this fast path may carry, and whose strangers it may drop.
    pub(crate) fn with_fast_path(self, fast_path: SharedFastPath, lists: &Lists) -> Self {
        if fast_path.tables().is_none() {
            return self;
        }
        let trails = GenerationTrails::new(fast_path);
        let strangers = GenerationStrangers::of(&self.table, lists, &trails);
        Generation { trails, strangers, ..self }
    }

    /// Identifies the generation, also among those of earlier processes.
    pub(crate) fn order(&self) -> String {
        format!("{}-{:x}", self.number, self.since_epoch.as_nanos())
    }

    pub(crate) fn rules(&self) -> &RuleSet {
        self.table.rules()
    }
}

/// Maximum number of rules in the book. Above it, the book removes the rules that do not run any more; such a rule
/// counts from 0 if it is added again. Without a limit, rules that a script generates every minute would fill the
/// memory.
const MAX_PAST: usize = 20_000;

/// The counts of all generations, and those that an earlier process kept.
#[derive(Default)]
pub(crate) struct Book {
    /// The counts of generations that do not run any more.
    past: Totals,
    /// Replaced generations that a worker may still run.
    leaving: Vec<Arc<Generation>>,
    /// Frames that the kernel carried or dropped by generations that do not run any more.
    past_frames: KernelFrames,
    resets: CounterResets,
    series: Series,
}

/// Counts of every rule that runs or ran, and of the three chain defaults.
#[derive(Clone, Default)]
pub(crate) struct Totals {
    rules: HashMap<RuleId, Counter>,
    pub(crate) chain_defaults: [Counter; 3],
}

impl Book {
    /// Creates a book for the first generation, which continues the counts of an earlier process.
    pub(crate) fn new(current: &Generation, metrics: &MetricsConfig, kept: KeptCounts) -> Book {
        let (past, resets, series) = kept.of_generation(current);
        let mut book = Book { past, resets, series, ..Book::default() };
        book.choose_series(current, metrics);
        book
    }

    /// Notes that `current` has replaced `generation`.
    pub(crate) fn replaced(&mut self, generation: Arc<Generation>, current: &Generation, metrics: &MetricsConfig) {
        self.leaving.push(generation);
        self.choose_series(current, metrics);
    }

    fn choose_series(&mut self, current: &Generation, metrics: &MetricsConfig) {
        let totals = self.totals(current);
        self.series.choose(&metrics.rules, &current.rules().rules, &totals);
    }

    /// Replaced generations that a worker may still run.
    pub(crate) fn leaving(&self) -> &[Arc<Generation>] {
        &self.leaving
    }

    /// Adds the counters of the generations that neither a worker nor a program of the fast path runs any more to the book.
    /// `oldest` is the number of the oldest generation that a worker runs.
    pub(crate) fn settle(&mut self, oldest: u64, current: &Generation) {
        let is_left = |generation: &Arc<Generation>| generation.number < oldest && generation.trails.is_quiet();
        let (left, leaving) = self.leaving.drain(..).partition(is_left);
        self.leaving = leaving;
        let left: Vec<Arc<Generation>> = left;
        for generation in left {
            self.past.add(&generation);
            generation.trails.add_frames_to(&mut self.past_frames);
            generation.trails.end();
        }
        if self.past.rules.len() > MAX_PAST {
            self.forget(current);
        }
    }

    /// Removes the counts of rules that are in no generation any more.
    fn forget(&mut self, current: &Generation) {
        let generations = self.leaving.iter().map(|generation| &**generation).chain([current]);
        let kept: HashSet<&RuleId> =
            generations.flat_map(|generation| &generation.rules().rules).map(|rule| &rule.id).collect();
        let totals = self.past.clone();
        self.past.rules.retain(|id, _| {
            let is_kept = kept.contains(id);
            if !is_kept {
                self.series.settle(id, &totals);
            }
            is_kept
        });
    }

    /// The rules that have series of their own, in their order.
    pub(crate) fn series(&self, current: &Generation, totals: &Totals, metrics: &MetricsConfig) -> Vec<RuleMetrics> {
        let rules = current.rules().rules.iter();
        let with_series = rules.zip(&current.numbers).filter(|(rule, _)| self.series.has(&rule.id));
        let series = with_series.map(|(rule, number)| RuleMetrics {
            id: rule.id.clone(),
            number: *number,
            chain: rule.chain.clone(),
            action: rule.action.name().to_owned(),
            comment: match metrics.comments {
                true => rule.comment.chars().take(MAX_COMMENT).collect(),
                false => String::new(),
            },
            counter: totals.rule(&rule.id),
        });
        series.collect()
    }

    /// The counts of rules from the time in which they had no series of their own.
    pub(crate) fn overflow(&self, totals: &Totals) -> Counter {
        self.series.overflow(totals)
    }

    /// Frames that the kernel has carried or dropped up to now.
    pub(crate) fn kernel_frames(&self, current: &Generation) -> KernelFrames {
        let mut frames = self.past_frames.clone();
        for generation in self.leaving.iter().map(|generation| &**generation).chain([current]) {
            generation.trails.add_frames_to(&mut frames);
        }
        frames
    }

    /// The counts of all generations up to now.
    pub(crate) fn totals(&self, current: &Generation) -> Totals {
        let mut totals = self.past.clone();
        for generation in &self.leaving {
            totals.add(generation);
        }
        totals.add(current);
        totals
    }

    /// The counts up to now that a restart continues.
    pub(crate) fn kept(&self, current: &Generation) -> KeptCounts {
        let totals = self.totals(current);
        let overflow = self.overflow(&totals);
        KeptCounts::of(totals, overflow, self.resets.clone())
    }

    /// Notes that an operator has set the counters of these rules to zero, or those of all rules if none is named.
    pub(crate) fn reset(&mut self, ids: &[RuleId], current: &Generation) {
        let totals = self.totals(current);
        let rules = &current.rules().rules;
        let named = rules.iter().map(|rule| &rule.id).filter(|id| ids.is_empty() || ids.contains(id));
        self.resets.reset(named.map(|id| (id.clone(), totals.rule(id))), rules);
    }

    /// The counts of the rules of a generation since their resets.
    pub(crate) fn since_reset(&self, current: &Generation, totals: &Totals) -> Vec<Counter> {
        let rules = current.rules().rules.iter();
        rules.map(|rule| self.resets.since(&rule.id, totals.rule(&rule.id))).collect()
    }
}

impl Totals {
    /// The counter of a rule.
    pub(crate) fn rule(&self, id: &RuleId) -> Counter {
        self.rules.get(id).copied().unwrap_or_default()
    }

    fn add(&mut self, generation: &Generation) {
        for (rule, counter) in generation.rules().rules.iter().zip(rule_totals(generation)) {
            add(self.rules.entry(rule.id.clone()).or_default(), counter);
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
    generation.trails.add_rules_to(&mut totals);
    totals
}

fn default_totals(generation: &Generation) -> [Counter; 3] {
    let mut totals = [Counter::default(); 3];
    for counters in &generation.counters {
        counters.add_defaults_to(&mut totals);
    }
    generation.trails.add_defaults_to(&mut totals);
    totals
}

fn add(total: &mut Counter, counter: Counter) {
    total.packets += counter.packets;
    total.bytes += counter.bytes;
}

#[cfg(test)]
mod tests {
    use knockplane_engine::state::State;
    use knockplane_policy::packet::Family;
    use knockplane_policy::rsc;
    use knockplane_policy::rule::{Action, Rule};
    use knockplane_policy::settings::Settings;

    use super::*;
    use crate::config::RuleSeries;
    use crate::generation::series::MAX_RULE_SERIES;

    pub(super) fn generation(number: u64, state: &State, rules: &str) -> Arc<Generation> {
        of_rules(number, state, rsc::read(format!("/ip firewall filter\n{rules}").as_bytes()).rules)
    }

    fn of_rules(number: u64, state: &State, rules: RuleSet) -> Arc<Generation> {
        let table =
            RuleTable::compile(Arc::new(rules), &Settings::default(), state, Time::default()).expect("valid rules");
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
        book.replaced(Arc::clone(&first), &second, &MetricsConfig::default());
        book.settle(1, &second);
        // This worker has not noticed the new generation yet.
        first.counters[1].count_rule(1, 1, 40);
        second.counters[0].count_rule(0, 1, 40);
        for _ in 0..2 {
            let totals = book.totals(&second);
            assert_eq!(totals.rule(&id(&second, 0)), Counter { packets: 3, bytes: 120 });
            assert_eq!(totals.rule(&id(&first, 0)), Counter { packets: 1, bytes: 100 });
            book.settle(2, &second);
        }
        assert!(book.leaving.is_empty());
    }

    /// A rule whose port distinguishes it from the others.
    fn of_port(port: u32) -> String {
        format!("add chain=input protocol=tcp dst-port={port} comment=\"rule {port}\"\n")
    }

    #[test]
    fn no_series_and_no_overflow_sinks_over_random_applies() {
        let state = State::new(16, 16).expect("a small state");
        let choices: [RuleSeries; 3] = [
            RuleSeries::default(),
            RuleSeries::Some(vec!["comment=*7".parse().expect("a choice")]),
            RuleSeries::Some(Vec::new()),
        ];
        let mut random = 1_u64;
        let mut dice = move |sides: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % sides
        };
        let mut metrics = MetricsConfig::default();
        let mut current = generation(1, &state, "add chain=input action=drop\n");
        let mut book = Book::new(&current, &metrics, KeptCounts::default());
        let mut before = HashMap::<RuleId, Counter>::new();
        let mut overflow = Counter::default();
        for number in 2..60 {
            // Some generations have more rules than there are series, and each generation has a different part of the
            // rules.
            let (first, count) = (1 + dice(1_500), 1 + dice(2_500));
            let rules: String = (first..first + count).map(|port| of_port(port as u32)).collect();
            let next = generation(number, &state, &format!("{rules}add chain=input action=drop\n"));
            metrics.rules = choices[dice(3) as usize].clone();
            book.replaced(std::mem::replace(&mut current, Arc::clone(&next)), &current, &metrics);
            for _ in 0..3 {
                for _ in 0..500 {
                    // A worker of the present generation, or a worker that still runs the previous one.
                    let counting = book.leaving().last().filter(|_| dice(4) == 0).unwrap_or(&current);
                    let rule = dice(counting.rules().rules.len() as u64) as usize;
                    counting.counters[dice(2) as usize].count_rule(rule, 1, 60);
                }
                let totals = book.totals(&current);
                let series = book.series(&current, &totals, &metrics);
                let runs: HashSet<&RuleId> = current.rules().rules.iter().map(|rule| &rule.id).collect();
                assert!(series.len() <= MAX_RULE_SERIES + 1);
                assert_eq!(series.last().map(|rule| &*rule.action), Some("drop"), "the last rule has series");
                for rule in &series {
                    assert!(runs.contains(&rule.id), "no series of what does not run");
                    let before = before.insert(rule.id.clone(), rule.counter).unwrap_or_default();
                    assert!(before.packets <= rule.counter.packets && before.bytes <= rule.counter.bytes);
                }
                let now = book.overflow(&totals);
                assert!(overflow.packets <= now.packets && overflow.bytes <= now.bytes, "{overflow:?} {now:?}");
                overflow = now;
            }
            book.settle(number - dice(2), &current);
        }
        assert!(overflow.packets > 1_000, "there was an overflow to speak of: {overflow:?}");
    }

    #[test]
    fn the_last_rule_of_each_chain_has_series_whatever_is_chosen() {
        let state = State::new(16, 16).expect("a small state");
        let mut rules = String::from("add chain=input action=jump jump-target=knocks\nadd chain=knocks action=drop\n");
        rules.extend((0..1_200).map(|port| of_port(1 + port)));
        rules += "add chain=input action=drop comment=end\nadd chain=input action=accept disabled=yes\n\
                  add chain=forward action=drop comment=end\n";
        let metrics = MetricsConfig { rules: RuleSeries::Some(Vec::new()), ..MetricsConfig::default() };
        for metrics in [metrics, MetricsConfig::default()] {
            let current = generation(1, &state, &rules);
            let book = Book::new(&current, &metrics, KeptCounts::default());
            let series = book.series(&current, &book.totals(&current), &metrics);
            let ends = series.iter().filter(|rule| rule.action == "drop").map(|rule| &*rule.chain);
            assert_eq!(ends.collect::<Vec<_>>(), ["knocks", "input", "forward"]);
            assert!([3, MAX_RULE_SERIES + 3].contains(&series.len()), "{}", series.len());
        }
    }

    #[test]
    fn what_the_choice_leaves_out_is_in_the_overflow_from_then_on() {
        let state = State::new(16, 16).expect("a small state");
        let rules = format!("{}{}add chain=input action=drop\n", of_port(1), of_port(2));
        let first = generation(1, &state, &rules);
        let all = MetricsConfig::default();
        let mut book = Book::new(&first, &all, KeptCounts::default());
        first.counters[0].count_rule(0, 5, 40);
        assert_eq!(book.overflow(&book.totals(&first)), Counter::default());
        let second = generation(2, &state, &rules);
        let some =
            MetricsConfig { rules: RuleSeries::Some(vec!["comment=*2".parse().expect("a choice")]), ..all.clone() };
        book.replaced(Arc::clone(&first), &second, &some);
        second.counters[0].count_rule(0, 2, 40);
        let told = |book: &Book, current: &Generation, metrics: &MetricsConfig| {
            let series = book.series(current, &book.totals(current), metrics);
            series.iter().map(|rule| (rule.number.number(), rule.counter.packets)).collect::<Vec<_>>()
        };
        assert_eq!(
            (told(&book, &second, &some), book.overflow(&book.totals(&second)).packets),
            (vec![(1, 0), (2, 0)], 2)
        );
        // The rule gets its series back with all of its counts. The overflow does not change.
        let third = generation(3, &state, &rules);
        book.replaced(second, &third, &all);
        third.counters[0].count_rule(0, 1, 40);
        assert_eq!(told(&book, &third, &all), [(0, 8), (1, 0), (2, 0)]);
        assert_eq!(book.overflow(&book.totals(&third)).packets, 2);
    }

    #[test]
    fn rules_that_run_are_not_forgotten_when_there_are_too_many() {
        let state = State::new(16, 16).expect("a small state");
        let ids = |from: usize| RuleSet {
            rules: (from..from + 11_000)
                .map(|number| Rule {
                    id: RuleId(format!("{number:08x}")),
                    ..Rule::new(Family::Ipv4, "input", Action::Passthrough)
                })
                .collect(),
            ..RuleSet::default()
        };
        let [first, second, third] =
            [(1, 0), (2, 11_000), (3, 0)].map(|(number, from)| of_rules(number, &state, ids(from)));
        let mut book = Book::new(&first, &MetricsConfig::default(), KeptCounts::default());
        first.counters[0].count_rule(0, 7, 40);
        first.counters[0].count_rule(10_999, 3, 40);
        second.counters[0].count_rule(10_999, 2, 40);
        book.replaced(Arc::clone(&first), &second, &MetricsConfig::default());
        book.replaced(Arc::clone(&second), &third, &MetricsConfig::default());
        let overflow = book.overflow(&book.totals(&third));
        book.settle(3, &third);
        assert_eq!(book.past.rules.len(), 11_000, "those of the second generation are forgotten");
        let totals = book.totals(&third);
        assert_eq!(totals.rule(&third.rules().rules[0].id).packets, 7, "a rule that runs is not");
        assert!(overflow.packets <= book.overflow(&totals).packets, "nor what those have counted that are");
    }
}
