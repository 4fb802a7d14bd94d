//! A port scan in the reference evaluator.
//!
//! The trial uses only rules that may match a packet of the scan, and only ports at which a rule begins or ceases to
//! match, with some ports in between. A scan of all ports in the same order has the same result.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::super::implies::has_memory;
use super::super::knock::Knocks;
use super::super::probe::{Probe, hosts};
use super::super::truth::Truth;
use super::super::view::{Chain, ChainKey, View, adds_source, denies, needed};
use crate::eval::{Evaluation, Evaluator};
use crate::packet::{Family, protocol};
use crate::reason::Verdict;
use crate::rule::{Action, Condition, Rule, RuleSet};
use crate::settings::Settings;
use crate::time::Time;

/// Maximum number of rules and of ports. Larger files are not tested, because the work grows with the product.
const MOST_RULES: usize = 300;
const MOST_PORTS: usize = 16_000;

/// Number of tried ports before and after each edge; more if rules count ports or packets.
const BETWEEN: usize = 3;
const MOST_BETWEEN: usize = 64;

/// Maximum number of accepts that are tried at an open door, from the first of the file on.
const MOST_ENTRIES: usize = 8;

/// Times after the last knock at which an open door is tried. The later times are longer than the memory of rules that
/// count.
const DELAYS: [Duration; 3] = [Duration::from_millis(1), Duration::from_secs(1), Duration::from_secs(5)];

/// The source port of scans.
const SOURCE_PORT: u16 = 40_077;

/// The remaining budget of rule evaluations of one file: some seconds at most.
pub(super) struct Budget(pub(super) usize);

impl Budget {
    fn spend(&mut self, tried: usize) -> bool {
        let left = self.0.checked_sub(tried);
        self.0 = left.unwrap_or_default();
        left.is_some()
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }
}

/// The behaviour of a scan between two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// The scan does not wait.
    Steady,
    /// The scan waits while its source is in a list that blocks it.
    Patient,
    /// The scan waits in the same way, but only before the ports of a knock. At other ports, a blocked source is then
    /// not added to lists that block it for longer.
    PatientAtKnocks,
}

/// A scanned port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shot {
    pub(super) port: u16,
    /// Time since the begin of the scan, without waits.
    pub(super) at: Duration,
    /// The number of equal ports that this one represents: a patient scan waits for each of them.
    pub(super) stands_for: u32,
}

/// A list to which the scan's source was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entered {
    pub(super) list: String,
    /// Index of the trial's rule that added it.
    pub(super) rule: usize,
    pub(super) port: u16,
}

/// The result of a scan.
#[derive(Clone, Debug, Default)]
pub(super) struct ScanOutcome {
    /// Lists of knocks, in the order of their first addition.
    pub(super) entered: Vec<Entered>,
    /// Opened doors, each with the index of the shot that opened it.
    pub(super) opened: BTreeMap<String, usize>,
}

/// The rules, and the parameters of scans.
pub(super) struct Trial<'k, 'r> {
    knocks: &'k Knocks<'r>,
    rules: RuleSet,
    settings: Settings,
    /// The index of each of `rules` in the file.
    pub(super) origins: Vec<&'r Rule>,
    pub(super) number: u8,
    source: IpAddr,
    destination: IpAddr,
    /// Ports at which rules begin or cease to match.
    pub(super) edges: Vec<u16>,
    /// The ports of a scan in ascending order, each with the number of ports that it represents.
    pub(super) ports: Vec<(u16, u32)>,
    /// Whether some rule counts ports or packets.
    pub(super) counts: bool,
    /// Number of ports that are tried before and after each edge.
    pub(super) between: usize,
    /// Lists that block a source.
    traps: BTreeSet<String>,
    /// The packets that are tried at an open door.
    entries: Vec<Probe>,
}

impl<'k, 'r> Trial<'k, 'r> {
    /// Prepares trials. `None` if there are too many rules or ports.
    pub(super) fn new(
        view: &View<'r>,
        knocks: &'k Knocks<'r>,
        (family, number): (Family, u8),
        source: IpAddr,
        destination: IpAddr,
    ) -> Option<Self> {
        let filled: BTreeSet<&str> = knocks.steps.iter().map(|step| step.list).collect();
        let may_match = |(rule, chain): &(&'r Rule, &Chain<'r>)| {
            let idle = matches!(rule.action, Action::Log | Action::Passthrough);
            rule.family == family
                && chain.key.name != "output"
                && !idle
                && needed(rule).all(|list| filled.contains(list))
                && rule.matchers.iter().all(|matcher| match &matcher.condition {
                    Condition::SrcAddress(set) => set.contains(source) != matcher.negated,
                    Condition::DstAddress(set) => set.contains(destination) != matcher.negated,
                    _ => !matches!(view.truth(chain, matcher), Truth::Never(_)),
                })
        };
        let running = view.rules.rules.iter().filter(|rule| rule.runs());
        let met =
            running.filter_map(|rule| Some((rule, view.chain(ChainKey::of(rule)).filter(|it| !it.sides.is_empty())?)));
        let origins: Vec<&Rule> = met.filter(may_match).map(|(rule, _)| rule).collect();
        if origins.len() > MOST_RULES {
            return None;
        }
        let edges = edges(&origins);
        let rules = RuleSet {
            layer7: view.rules.layer7.clone(),
            rules: origins.iter().map(|rule| Rule { log: None, ..(*rule).clone() }).collect(),
            tracking: view.rules.tracking.clone(),
            interface_lists: view.rules.interface_lists.clone(),
            local_addresses: view.rules.local_addresses.clone(),
            ..RuleSet::default()
        };
        let settings = Settings { doors: Vec::new(), ..view.settings.clone() };
        let counts = origins.iter().any(|rule| rule.matchers.iter().any(|matcher| has_memory(&matcher.condition)));
        let keeps_out = |rule: &&Rule| denies(&rule.action) || matches!(rule.action, Action::Return);
        let traps = origins
            .iter()
            .filter(|rule| keeps_out(rule))
            .flat_map(|rule| needed(rule))
            .filter(|list| !knocks.leading.contains(list))
            .map(str::to_owned)
            .collect();
        let entries = entries(&origins, source, destination);
        let between = origins.iter().flat_map(|rule| &rule.matchers).map(|matcher| counted(&matcher.condition)).max();
        let between = between.unwrap_or_default().clamp(BETWEEN, MOST_BETWEEN);
        let ports = ports(&edges, between);
        let trial = Trial {
            knocks,
            rules,
            settings,
            origins,
            number,
            source,
            destination,
            edges,
            ports,
            counts,
            between,
            traps,
            entries,
        };
        (trial.edges.len() * 2 * trial.between <= MOST_PORTS).then_some(trial)
    }

    /// Runs a scan.
    pub(super) fn run(&self, shots: &[Shot], manner: Manner, budget: &mut Budget) -> ScanOutcome {
        let mut outcome = ScanOutcome::default();
        let mut waited = Duration::ZERO;
        let mut evaluator = Evaluator::new(&self.rules, &self.settings, 7);
        for (place, shot) in shots.iter().enumerate() {
            if !budget.spend(self.rules.rules.len()) {
                break;
            }
            let matched = self.send(&mut evaluator, shot, manner, &mut waited).matched;
            outcome.entered.extend(self.entered(&matched, shot.port, &outcome.entered));
            let added = matched.iter().filter_map(|rule| adds_source(self.origins[*rule]));
            for door in added.filter(|list| self.knocks.doors.contains(list)) {
                if !outcome.opened.contains_key(door) && self.opens(&shots[..=place], manner, door, budget) {
                    outcome.opened.insert(door.to_owned(), place);
                }
            }
        }
        outcome
    }

    /// Tries a port, and then waits if the scan is patient.
    fn send(&self, evaluator: &mut Evaluator<'_>, shot: &Shot, manner: Manner, waited: &mut Duration) -> Evaluation {
        if manner == Manner::PatientAtKnocks && self.rules_for(shot.port).any(|rule| self.is_step(rule)) {
            *waited += self.kept_out_for(evaluator, time(shot.at + *waited));
        }
        let now = time(shot.at + *waited);
        let probe = self.shot(shot.port);
        let evaluation = evaluator.evaluate(&probe.packet(), now);
        if manner == Manner::Patient {
            *waited += self.kept_out_for(evaluator, now).saturating_mul(shot.stands_for);
        }
        evaluation
    }

    fn shot(&self, port: u16) -> Probe {
        Probe::scan(self.number, (self.source, SOURCE_PORT), (self.destination, port))
    }

    /// The lists of knocks to which these rules have added the source for the first time.
    fn entered(&self, matched: &[usize], port: u16, before: &[Entered]) -> Vec<Entered> {
        let mut new: Vec<Entered> = Vec::new();
        for rule in matched {
            let list = adds_source(self.origins[*rule]).filter(|list| self.knocks.leading.contains(list));
            if let Some(list) = list
                && !before.iter().chain(&new).any(|entered| entered.list == list)
            {
                new.push(Entered { list: list.to_owned(), rule: *rule, port });
            }
        }
        new
    }

    /// The rules whose ports contain this port, or that have no ports.
    pub(super) fn rules_for(&self, port: u16) -> impl Iterator<Item = usize> + '_ {
        let matches = move |rule: &Rule| {
            rule.matchers.iter().all(|matcher| match &matcher.condition {
                Condition::DstPort(set) | Condition::AnyPort(set) => set.contains(port) != matcher.negated,
                _ => true,
            })
        };
        (0..self.origins.len()).filter(move |rule| matches(self.origins[*rule]))
    }

    /// Whether the rule is a step of a knock.
    pub(super) fn is_step(&self, rule: usize) -> bool {
        adds_source(self.origins[rule]).is_some_and(|list| self.knocks.leading.contains(list))
    }

    /// Whether some list blocks the source.
    pub(super) fn has_traps(&self) -> bool {
        !self.traps.is_empty()
    }

    /// The time until no list blocks the source, plus a millisecond.
    fn kept_out_for(&self, evaluator: &Evaluator<'_>, now: Time) -> Duration {
        if self.traps.is_empty() {
            return Duration::ZERO;
        }
        let live = evaluator.lists().live(now);
        let traps = live.into_iter().filter(|entry| entry.address == self.source && self.traps.contains(&entry.list));
        let longest = traps.filter_map(|entry| entry.time_left).max();
        longest.map_or(Duration::ZERO, |left| left + Duration::from_millis(1))
    }

    /// Whether some packet is accepted after these shots because the source is in the list. The test is a separate run,
    /// because the packet changes the state of rules.
    fn opens(&self, shots: &[Shot], manner: Manner, door: &str, budget: &mut Budget) -> bool {
        let Some(last) = shots.last() else { return false };
        let again = Probe::scan(self.number, (self.source, SOURCE_PORT + 1), (self.destination, last.port));
        let delays = if self.counts { &DELAYS[..] } else { &DELAYS[..1] };
        let entries = self.entries.iter().chain([&again]);
        entries.flat_map(|entry| delays.iter().map(move |delay| (entry, *delay))).any(|(entry, delay)| {
            if !budget.spend(self.rules.rules.len() * (shots.len() + 1)) {
                return false;
            }
            let mut waited = Duration::ZERO;
            let mut evaluator = Evaluator::new(&self.rules, &self.settings, 7);
            for shot in shots {
                self.send(&mut evaluator, shot, manner, &mut waited);
            }
            if manner == Manner::PatientAtKnocks {
                waited += self.kept_out_for(&evaluator, time(last.at + waited));
            }
            let evaluation = evaluator.evaluate(&entry.packet(), time(last.at + waited + delay));
            let asks = |rule: &usize| needed(self.origins[*rule]).any(|list| list == door);
            evaluation.verdict == Verdict::Forward && evaluation.matched.iter().any(asks)
        })
    }
}

/// The number of ports or packets after which the condition changes.
fn counted(condition: &Condition) -> usize {
    let count = match condition {
        Condition::Psd { weight, low_weight, high_weight, .. } => {
            u64::from(weight.div_ceil((*low_weight).min(*high_weight).max(1))).saturating_add(1)
        }
        Condition::Limit(rate) | Condition::DstLimit { rate, .. } => {
            rate.burst.saturating_add(rate.count).saturating_add(1)
        }
        Condition::ConnectionLimit { count, .. } => u64::from(*count).saturating_add(1),
        Condition::Nth { every, .. } => u64::from(*every),
        _ => 0,
    };
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn time(at: Duration) -> Time {
    Time::default() + at
}

/// The ports at which some rule begins to match or has just ceased to, in order.
fn edges(rules: &[&Rule]) -> Vec<u16> {
    let mut edges = BTreeSet::from([1, u16::MAX]);
    for matcher in rules.iter().flat_map(|rule| &rule.matchers) {
        let (Condition::DstPort(set) | Condition::AnyPort(set)) = &matcher.condition else { continue };
        for range in set.0.iter().filter(|range| !range.is_empty()) {
            edges.extend([*range.start(), *range.end()]);
            edges.extend(range.start().checked_sub(1).into_iter().chain(range.end().checked_add(1)));
        }
    }
    edges.remove(&0);
    edges.into_iter().collect()
}

/// The ports of a scan in ascending order, each with the number of ports that it represents: the edges, and up to
/// `most` ports behind and before each.
fn ports(edges: &[u16], most: usize) -> Vec<(u16, u32)> {
    let mut ports = Vec::new();
    for (place, edge) in edges.iter().enumerate() {
        ports.push((*edge, 1));
        let next = edges.get(place + 1).copied().unwrap_or(*edge);
        let between = edge.saturating_add(1).min(next)..next;
        // Keeps ports at both ends, because the counts of rules depend on the ports directly before.
        let skipped = between.len().saturating_sub(2 * most);
        ports.extend(between.clone().take(most).map(|port| (port, 1)));
        if let Some((_, stands_for)) = ports.last_mut().filter(|_| skipped > 0) {
            *stands_for += skipped as u32;
        }
        ports.extend(between.skip(most + skipped).map(|port| (port, 1)));
    }
    ports
}

/// Packets with the protocols and ports of the accepts.
fn entries(rules: &[&Rule], source: IpAddr, destination: IpAddr) -> Vec<Probe> {
    let mut wanted: Vec<(u8, u16)> = Vec::new();
    for rule in rules.iter().filter(|rule| rule.action == Action::Accept) {
        let (mut number, mut port) = (protocol::TCP, 22);
        for matcher in rule.matchers.iter().filter(|matcher| !matcher.negated) {
            match &matcher.condition {
                Condition::Protocol(of) => number = *of,
                Condition::DstPort(set) | Condition::AnyPort(set) => {
                    port = set.0.first().map_or(port, |range| *range.start());
                }
                _ => {}
            }
        }
        if !wanted.contains(&(number, port)) && wanted.len() < MOST_ENTRIES {
            wanted.push((number, port));
        }
    }
    let from = (source, SOURCE_PORT + 1);
    let probe = |(number, port)| match number {
        protocol::TCP | protocol::UDP => Probe::scan(number, from, (destination, port)),
        _ => Probe::ping(source, destination),
    };
    wanted.into_iter().map(probe).collect()
}

/// Source and destinations of scans: a stranger that no rule names, and every address of a knock.
pub(super) fn addresses(view: &View<'_>, knocks: &Knocks<'_>, family: Family) -> Option<(IpAddr, Vec<IpAddr>)> {
    const MOST_DESTINATIONS: usize = 4;

    let hosts = hosts(family);
    let is_named = |address: &IpAddr| {
        view.rules.rules.iter().flat_map(|rule| &rule.matchers).any(|matcher| match &matcher.condition {
            Condition::SrcAddress(set) => {
                let (first, last) = set.bounds();
                set.contains(*address) && !(first.is_unspecified() && last != first)
            }
            _ => false,
        })
    };
    let source = hosts.strangers.into_iter().find(|address| !is_named(address))?;
    let protected = view.settings.protect.iter().filter(|net| Family::of(net.addr()) == family);
    let all = protected.clone().any(|net| net.prefix_len() == 0);
    let mut destinations = vec![];
    if all || protected.clone().next().is_none() {
        destinations.push(hosts.server);
    } else {
        destinations.extend(protected.take(1).map(|net| net.hosts().next().unwrap_or(net.addr())));
        destinations.push(hosts.server);
    }
    let asked =
        knocks.leading_steps().flat_map(|step| &step.rule.matchers).filter_map(|matcher| match &matcher.condition {
            Condition::DstAddress(set) if !matcher.negated => Some(set.bounds().0),
            _ => None,
        });
    for address in asked.filter(|address| Family::of(*address) == family) {
        if destinations.len() < MOST_DESTINATIONS && !destinations.contains(&address) {
            destinations.push(address);
        }
    }
    Some((source, destinations))
}
