//! Knocks that a port scan completes by chance.
//!
//! A scan sends a SYN or an empty datagram to every port of one address: in ascending order, in descending order, or in
//! random order, as scanners do by default. The reference evaluator evaluates its packets, so all effects of the rules
//! count: their order, lists that block the source, port scan detection, limits. The lint tries scans of several
//! speeds, scans that wait while their source is blocked and scans that do not, and scans that begin shortly before the
//! knock.
//!
//! | module  | owns |
//! |---------|------|
//! | this    | the scans that are tried, and the lints about successful ones |
//! | `trial` | one scan in the reference evaluator |
//!
//! Not covered: scans of TCP and UDP together, scans of fewer than 1,000 ports in random order, scans from several
//! addresses or of some ports twice, speeds between the tried ones, pauses if rules count ports or packets, more than
//! `MOST_RULES` rules that a scan can match, and steps with other conditions than a port (a source port, flags other
//! than SYN, a payload).

mod trial;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use self::trial::{Budget, Entered, Manner, ScanOutcome, Shot, Trial, addresses};
use super::knock::Knocks;
use super::truth::allowed_ports;
use super::view::{View, needed};
use super::{Code, Lint};
use crate::packet::{Family, protocol};
use crate::rule::{Condition, Rule};
use crate::time::format_duration;

/// Maximum speed of a scan in ports per second. A machine can be much faster, but only a knock with very short timeouts
/// needs a faster scan.
const FASTEST: u64 = 10_000;

/// Time between two ports of the tried scans: from 10,000 ports a second to one port in eight seconds. A slower scan
/// than the first succeeds only if rules count ports or packets, or block a source for some time.
const INTERVALS: [Duration; 7] = [
    Duration::from_nanos(1_000_000_000 / FASTEST),
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// Budget of rule evaluations for one file and one kind of scan.
const MOST_TRIED: usize = 2_000_000;

/// Maximum number of steps of a knock for scans in random order.
const MOST_STEPS: usize = 8;

/// Number of ports of a scan in random order: nmap's default. Source: nmap manual, Port specification.
const RANDOM_PORTS: u32 = 1_000;

/// Minimum probability of success of a scan in random order that is reported.
const LEAST_LUCK: f64 = 1.0 / 1_000.0;

pub(super) fn lints(view: &View<'_>, lints: &mut Vec<Lint>) {
    let mut budgets =
        Budgets { all_ports: Budget(MOST_TRIED), later_begin: Budget(MOST_TRIED), search: Budget(MOST_TRIED) };
    for family in [Family::Ipv4, Family::Ipv6] {
        let knocks = Knocks::of(view, family);
        if knocks.doors.is_empty() {
            continue;
        }
        let Some((source, destinations)) = addresses(view, &knocks, family) else { continue };
        let mut told = HashSet::new();
        for number in [protocol::TCP, protocol::UDP] {
            for destination in &destinations {
                let Some(trial) = Trial::new(view, &knocks, (family, number), source, *destination) else { continue };
                let scans = ProtocolScans { knocks: &knocks, trial };
                for (door, lint) in scans.openings(&mut budgets) {
                    if told.insert(door) {
                        lints.push(lint);
                    }
                }
            }
        }
    }
}

/// The order in which a scan tries the ports.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ScanDirection {
    Ascending,
    Descending,
}

impl ScanDirection {
    const fn name(self) -> &'static str {
        match self {
            ScanDirection::Ascending => "ascending",
            ScanDirection::Descending => "descending",
        }
    }
}

/// A scan in ascending or descending order.
#[derive(Clone, Copy)]
struct OrderedScan {
    direction: ScanDirection,
    /// Time between two ports.
    interval: Duration,
    manner: Manner,
    /// The port with which the scan begins; `None` if it tries all ports.
    begin: Option<u16>,
}

/// The remaining budgets of one file, one for each kind of scan.
struct Budgets {
    all_ports: Budget,
    later_begin: Budget,
    /// The budget of the search for knocks that a scan in random order completes.
    search: Budget,
}

/// Scans of one protocol at one address.
struct ProtocolScans<'k, 'r> {
    knocks: &'k Knocks<'r>,
    trial: Trial<'k, 'r>,
}

impl ProtocolScans<'_, '_> {
    /// The doors that scans open, each with its lint.
    fn openings(&self, budgets: &mut Budgets) -> BTreeMap<String, Lint> {
        let mut found = BTreeMap::new();
        let depends = self.trial.counts || self.trial.has_traps();
        let intervals = if depends { &INTERVALS[..] } else { &INTERVALS[..1] };
        for interval in intervals {
            for direction in [ScanDirection::Ascending, ScanDirection::Descending] {
                for manner in [Manner::Steady, Manner::Patient, Manner::PatientAtKnocks] {
                    let scan = OrderedScan { direction, interval: *interval, manner, begin: None };
                    self.try_scan(scan, &mut found, &mut budgets.all_ports);
                }
            }
        }
        if self.trial.counts {
            self.try_later_begins(&mut found, &mut budgets.later_begin);
        }
        for (door, lint) in self.in_random_order(budgets) {
            found.entry(door).or_insert(lint);
        }
        found
    }

    /// Tries scans that begin shortly before the port of a first knock. Rules that count ports or packets may not yet
    /// detect such a scan. The packets that exceed a limit depend on the port with which the scan begins.
    fn try_later_begins(&self, found: &mut BTreeMap<String, Lint>, budget: &mut Budget) {
        for direction in [ScanDirection::Ascending, ScanDirection::Descending] {
            for begin in self.later_begins(direction, budget) {
                for interval in INTERVALS {
                    let scan = OrderedScan { direction, interval, manner: Manner::Steady, begin: Some(begin) };
                    self.try_scan(scan, found, budget);
                }
            }
        }
    }

    /// The ports of first knocks, each with the ports before it, as many as rules count, in the order of the scan.
    fn later_begins(&self, direction: ScanDirection, budget: &mut Budget) -> Vec<u16> {
        let ports = self.ports(direction);
        let mut ports_left = 0;
        let mut begins: Vec<u16> = Vec::new();
        for (port, _) in ports.iter().rev() {
            if self.trial.edges.contains(port) && !self.run(&[*port], budget).entered.is_empty() {
                ports_left = self.trial.between + 1;
            }
            if ports_left > 0 {
                begins.push(*port);
                ports_left -= 1;
            }
        }
        begins.reverse();
        begins
    }

    /// Runs the scan if there is a door that no scan has opened.
    fn try_scan(&self, scan: OrderedScan, found: &mut BTreeMap<String, Lint>, budget: &mut Budget) {
        if found.len() == self.knocks.doors.len() {
            return;
        }
        let outcome = self.trial.run(&self.shots(scan), scan.manner, budget);
        for door in outcome.opened.keys() {
            if !found.contains_key(door)
                && let Some(lint) = self.in_order(door, &outcome, scan)
            {
                found.insert(door.clone(), lint);
            }
        }
    }

    fn ports(&self, direction: ScanDirection) -> Vec<(u16, u32)> {
        let mut ports = self.trial.ports.clone();
        if direction == ScanDirection::Descending {
            ports.reverse();
        }
        ports
    }

    fn shots(&self, scan: OrderedScan) -> Vec<Shot> {
        let ports = self.ports(scan.direction);
        let is_before = |port: u16| scan.begin.is_some_and(|begin| port != begin);
        let ports: Vec<(u16, u32)> = ports.into_iter().skip_while(|(port, _)| is_before(*port)).collect();
        let first = ports.first().map_or(0, |(port, _)| *port);
        let shot = |(port, stands_for): (u16, u32)| Shot {
            port,
            at: scan.interval.saturating_mul(port.abs_diff(first).into()),
            stands_for,
        };
        ports.into_iter().map(shot).collect()
    }

    fn in_order(&self, door: &str, outcome: &ScanOutcome, scan: OrderedScan) -> Option<Lint> {
        let way = self.way(door, &outcome.entered)?;
        if let Some(lint) = self.at_once(door, &way) {
            return Some(lint);
        }
        let OrderedScan { direction, interval, manner, begin } = scan;
        let undetected = if begin.is_none() { ", which the rules do not detect" } else { "" };
        let when = match (manner, interval == INTERVALS[0]) {
            (Manner::Patient | Manner::PatientAtKnocks, _) => "if it pauses while its source is blocked".to_owned(),
            (Manner::Steady, true) => format!("from {} ports a second on", self.rate(&way)),
            (Manner::Steady, false) if interval.as_secs() == 0 => {
                format!("at {} ports a second{undetected}", 1_000 / interval.as_millis())
            }
            (Manner::Steady, false) => format!("at one port in {}{undetected}", format_duration(interval)),
        };
        let begin = begin.map_or_else(String::new, |port| format!(" that begins at port {port}"));
        let sentence = format!(
            "a port scan in {} order{begin} completes this knock by chance ({}) and opens `{door}`, {when}",
            direction.name(),
            ports(&way)
        );
        Some(self.lint(&way, sentence))
    }

    /// The lint if a single packet opens the door.
    fn at_once(&self, door: &str, way: &[&Entered]) -> Option<Lint> {
        let ([first, ..], [.., last]) = (way, way) else { return None };
        if first.port != last.port {
            return None;
        }
        let sentence = format!("one packet to port {} opens `{door}`: every port scan opens it by chance", last.port);
        let remedy = "add further knocks, or a passphrase with `layer7-protocol` or `content`";
        Some(Lint::new(Code::ScanOpens, self.trial.origins[last.rule], sentence, remedy).at("dst-port"))
    }

    fn lint(&self, way: &[&Entered], sentence: String) -> Lint {
        let remedy = "add a passphrase with `layer7-protocol` or `content`; or, before the rules of the knock, drop sources \
                      in a list of scanners, and add sources that try any other port to that list";
        let times: Vec<String> = way[..way.len() - 1]
            .iter()
            .map(|step| self.knocks.longest(&step.list).map_or_else(|| "for good".to_owned(), format_duration))
            .collect();
        let what = format!("the first knock; each counts for {}", times.join(", then "));
        let rule = |step: &Entered| self.trial.origins[step.rule];
        let (first, last) = (way[0], way[way.len() - 1]);
        Lint::new(Code::ScanOpens, rule(last), sentence, remedy).at("dst-port").also(rule(first), what)
    }

    /// The steps that lead to the door, in order.
    fn way<'e>(&self, door: &str, entered: &'e [Entered]) -> Option<Vec<&'e Entered>> {
        let mut wanted: HashSet<&str> = HashSet::from([door]);
        let mut way: Vec<&Entered> = Vec::new();
        for step in entered.iter().rev() {
            if wanted.contains(step.list.as_str()) {
                wanted.extend(needed(self.trial.origins[step.rule]));
                way.push(step);
            }
        }
        way.reverse();
        (!way.is_empty()).then_some(way)
    }

    /// The minimum speed in ports per second at which each knock arrives before the previous one expires.
    fn rate(&self, way: &[&Entered]) -> u64 {
        let needed = way.windows(2).map(|pair| {
            let [before, next] = pair else { return 1 };
            let seconds = self.knocks.longest(&before.list).map_or(u64::MAX, |longest| longest.as_secs());
            u64::from(before.port.abs_diff(next.port)).div_ceil(seconds.max(1))
        });
        needed.max().unwrap_or(1).max(1)
    }
}

/// A search for ports in an order that opens doors.
struct Search {
    /// The ports to try, each with the rules that match it.
    ports: Vec<(u16, Vec<usize>)>,
    /// The ports so far.
    knock: Vec<u16>,
    /// The doors that a knock has opened, each with its result.
    opened: BTreeMap<String, ScanOutcome>,
}

/// Scans in random order. The search tries ports one after the other to find the knock, and then determines the number
/// of ports in between that would prevent it.
impl ProtocolScans<'_, '_> {
    fn in_random_order(&self, budgets: &mut Budgets) -> Vec<(String, Lint)> {
        let mut search = Search { ports: self.ports_by_use(), knock: Vec::new(), opened: BTreeMap::new() };
        self.search(&mut search, &ScanOutcome::default(), &mut budgets.search);
        let mut found = Vec::new();
        for (door, outcome) in search.opened {
            let Some(way) = self.way(&door, &outcome.entered) else { continue };
            let mut ports: Vec<u16> = way.iter().map(|step| step.port).collect();
            ports.dedup();
            let luck = self.luck(&door, &ports, &way, &mut budgets.all_ports);
            if luck < LEAST_LUCK {
                continue;
            }
            let lint = self.at_once(&door, &way).unwrap_or_else(|| {
                let sentence = format!(
                    "one of {:.0} port scans in random order, as scanners do by default, completes this knock by chance ({}) \
                     and opens `{door}`",
                    1.0 / luck,
                    self::ports(&way)
                );
                self.lint(&way, sentence)
            });
            found.push((door, lint));
        }
        found
    }

    /// The ports to try in a knock, each with the rules that match it. A knock uses each port once. Ports that few
    /// steps need come first, so that ports of several steps remain for the other steps.
    fn ports_by_use(&self) -> Vec<(u16, Vec<usize>)> {
        let rules = |(port, _): &(u16, u32)| (*port, self.trial.rules_for(*port).collect());
        let mut ports: Vec<(u16, Vec<usize>)> = self.trial.ports.iter().map(rules).collect();
        ports.sort_by_key(|(_, rules)| rules.iter().filter(|rule| self.trial.is_step(**rule)).count());
        ports
    }

    /// Continues a knock with this result by each port that adds the source to another list, until every door is open.
    fn search(&self, search: &mut Search, result: &ScanOutcome, budget: &mut Budget) {
        for door in result.opened.keys() {
            search.opened.entry(door.clone()).or_insert_with(|| result.clone());
        }
        let mut tried: HashSet<Vec<usize>> = HashSet::new();
        for place in 0..search.ports.len() {
            if search.opened.len() == self.knocks.doors.len() || search.knock.len() == MOST_STEPS || budget.is_spent() {
                return;
            }
            let (port, rules) = &search.ports[place];
            // Ports that match the same rules add the source to the same lists.
            if search.knock.contains(port) || tried.contains(rules) {
                continue;
            }
            tried.insert(rules.clone());
            search.knock.push(*port);
            let longer = self.run(&search.knock, budget);
            if longer.entered.len() > result.entered.len() {
                self.search(search, &longer, budget);
            }
            search.knock.pop();
        }
    }

    fn run(&self, knock: &[u16], budget: &mut Budget) -> ScanOutcome {
        // The average distance of the knocks in such a scan.
        let gap = INTERVALS[0] * (RANDOM_PORTS / (knock.len() as u32 + 1));
        self.trial.run(&shots(knock, gap), Manner::Steady, budget)
    }

    /// The fraction of scans in random order that complete the knock before they reach a port that blocks the source.
    fn luck(&self, door: &str, knock: &[u16], way: &[&Entered], budget: &mut Budget) -> f64 {
        if self.trial.counts && !self.is_unnoticed(door, knock, budget) {
            return 0.0;
        }
        let spoiling: f64 = self
            .classes()
            .into_iter()
            .filter(|(port, _)| !knock.contains(port))
            .filter(|(port, _)| {
                (0..knock.len()).all(|place| {
                    let mut with = knock.to_vec();
                    with.insert(place, *port);
                    !self.run(&with, budget).opened.contains_key(door)
                })
            })
            .map(|(_, size)| f64::from(size))
            .sum();
        let sizes: Vec<f64> = way.iter().map(|step| f64::from(ports_of(self.trial.origins[step.rule]))).collect();
        let luck = |place: usize| sizes[place] / (spoiling + sizes[place..].iter().sum::<f64>());
        (0..sizes.len()).map(luck).product()
    }

    /// Whether the knocks still open the door with other ports in between, as many as a scan tries. The counts of rules
    /// depend on the ports directly before and after a knock.
    fn is_unnoticed(&self, door: &str, knock: &[u16], budget: &mut Budget) -> bool {
        let others: Vec<u16> =
            self.trial.ports.iter().map(|(port, _)| *port).filter(|port| !knock.contains(port)).collect();
        let slot = RANDOM_PORTS / (knock.len() as u32 + 1);
        let between = slot.min(others.len() as u32 / (knock.len() as u32 + 1));
        let mut others = others.into_iter();
        let mut tried: Vec<(u16, u32)> = Vec::new();
        for (place, port) in (1..).zip(knock) {
            let begin = (place - 1) * slot;
            let when = |at: u32| if at < between / 2 { begin + at + 1 } else { begin + slot - (between - at) };
            tried.extend((0..between).map(when).zip(others.by_ref()).map(|(at, port)| (port, at)));
            tried.push((*port, place * slot));
        }
        INTERVALS.iter().any(|interval| {
            let shot = |(port, at): &(u16, u32)| Shot { port: *port, at: *interval * *at, stands_for: 1 };
            let shots: Vec<Shot> = tried.iter().map(shot).collect();
            self.trial.run(&shots, Manner::Steady, budget).opened.contains_key(door)
        })
    }

    /// Ports that the rules distinguish: one of each kind, and the number of each kind.
    fn classes(&self) -> Vec<(u16, u16)> {
        let edges = &self.trial.edges;
        let inner =
            edges.windows(2).filter(|pair| pair[1] - pair[0] > 1).map(|pair| (pair[0] + 1, pair[1] - pair[0] - 1));
        edges.iter().map(|edge| (*edge, 1)).chain(inner).collect()
    }
}

/// The ports in this order, at equal intervals.
fn shots(ports: &[u16], interval: Duration) -> Vec<Shot> {
    let shot = |(place, port): (usize, &u16)| Shot { port: *port, at: interval * place as u32, stands_for: 1 };
    ports.iter().enumerate().map(shot).collect()
}

fn ports(way: &[&Entered]) -> String {
    way.iter().map(|step| step.port.to_string()).collect::<Vec<_>>().join(", ")
}

/// The number of ports that the rule matches.
fn ports_of(rule: &Rule) -> u32 {
    let sizes = rule.matchers.iter().filter_map(|matcher| match &matcher.condition {
        Condition::DstPort(set) | Condition::AnyPort(set) => Some(allowed_ports(set, matcher.negated).len()),
        _ => None,
    });
    sizes.min().unwrap_or(1 << 16)
}
