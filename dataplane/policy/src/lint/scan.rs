//! Knocks that a port scan gives by chance: ports that all go up, or all go down.
//!
//! A scan sends a SYN or an empty datagram to every port of one address, in order. Steps that ask for anything which such
//! a packet may not have are not passed, and nothing is said if a rule may stop the scan on its way: one that notices
//! scans, or adds the source to a list that keeps it out, on a port in between.

use std::collections::{HashMap, HashSet, VecDeque};

use super::implies::has_memory;
use super::knock::{Knocks, Step};
use super::ranges::Ranges;
use super::truth::{Truth, allowed_ports};
use super::view::{Chain, Key, View, adds_source, denies, needed};
use super::{Code, Lint};
use crate::packet::{Family, Side, TcpFlag, protocol};
use crate::rule::{Action, Condition, ConnectionState, Matcher, Rule};
use crate::time::format_duration;
use crate::word::Set;

/// Ports a second that a scan is taken to try at most. One machine manages many times that; a knock that is given only by
/// faster scans than this is told apart by its timeout.
const FASTEST: u64 = 10_000;

/// How many steps a knock is taken to have at most: nobody gives more.
const MOST_STEPS: usize = 64;

/// How often each step is looked at, on average. Knocks are done after one or two times; only steps that lead to each
/// other in circles take more.
const MOST_LOOKS: usize = 64;

pub(super) fn lints(view: &View<'_>, lints: &mut Vec<Lint>) {
    let jumps = jumps(view);
    for family in [Family::Ipv4, Family::Ipv6] {
        let knocks = Knocks::of(view, family);
        let mut doors: Vec<&str> = knocks.doors.iter().copied().collect();
        doors.sort_unstable();
        let mut told = HashSet::new();
        for number in [protocol::TCP, protocol::UDP] {
            for down in [false, true] {
                let scan = Scan::new(view, &knocks, &jumps, (family, number), down);
                for door in &doors {
                    if let Some(lint) = scan.lint(door).filter(|_| !told.contains(door)) {
                        told.insert(door);
                        lints.push(lint);
                    }
                }
            }
        }
    }
}

/// The jumps that lead to each chain, with the chains they are in.
type Jumps<'v, 'r> = HashMap<Key<'r>, Vec<(&'r Rule, &'v Chain<'r>)>>;

fn jumps<'v, 'r>(view: &'v View<'r>) -> Jumps<'v, 'r> {
    let mut jumps = Jumps::new();
    for (rule, chain) in view.live() {
        if let Some(target) = Key::target(rule) {
            jumps.entry(target).or_default().push((rule, chain));
        }
    }
    jumps
}

/// A scan of one address, and what it gets into.
struct Scan<'s, 'v, 'r> {
    view: &'v View<'r>,
    knocks: &'s Knocks<'v, 'r>,
    jumps: &'s Jumps<'v, 'r>,
    protocol: u8,
    /// What all steps ask of the destination: it is the address that is scanned.
    destination: Vec<&'r Matcher>,
    /// At which ports some rule would notice the scan.
    noticed: Vec<Ranges>,
    /// From the highest port to the lowest.
    down: bool,
    /// By list: the ports at which the scan gets into it.
    reached: HashMap<&'r str, Ranges>,
    /// By list: the step that it is first got into by.
    by: HashMap<&'r str, &'s Step<'v, 'r>>,
}

impl<'s, 'v, 'r> Scan<'s, 'v, 'r> {
    fn new(
        view: &'v View<'r>,
        knocks: &'s Knocks<'v, 'r>,
        jumps: &'s Jumps<'v, 'r>,
        (family, protocol): (Family, u8),
        down: bool,
    ) -> Self {
        let (reached, by) = Default::default();
        let destination = destination(knocks);
        let noticed = noticed(view, knocks, family, protocol);
        let mut scan = Scan { view, knocks, jumps, protocol, destination, noticed, down, reached, by };
        let mut entered = HashMap::new();
        let mut steps: Vec<(&Step<'_, '_>, Ranges)> = Vec::new();
        for step in knocks.leading_steps().filter(|step| step.needs.len() < 2 && !step.needs.contains(&step.list)) {
            let (Some(ports), Some(entering)) =
                (scan.ports(step.chain, step.rule), scan.enters(step.chain, &mut entered))
            else {
                continue;
            };
            steps.push((step, ports.intersection(&entering)));
        }
        scan.follow(&steps);
        scan
    }

    /// From list to list.
    fn follow(&mut self, steps: &[(&'s Step<'v, 'r>, Ranges)]) {
        let mut next: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, (step, _)) in steps.iter().enumerate() {
            if let Some(needed) = step.needs.first() {
                next.entry(needed).or_default().push(place);
            }
        }
        let firsts = (0..steps.len()).filter(|place| steps[*place].0.needs.is_empty());
        let mut waiting: VecDeque<usize> = firsts.collect();
        for _ in 0..MOST_LOOKS * steps.len() {
            let Some(place) = waiting.pop_front() else { break };
            let (step, ports) = &steps[place];
            let new = match step.needs.first() {
                None => ports.clone(),
                Some(needed) => match self.reached.get(needed) {
                    Some(before) => before.followers(self.most(needed), self.down).intersection(ports),
                    None => continue,
                },
            };
            let before = self.reached.entry(step.list).or_default();
            if !new.is_subset(before) {
                *before = before.union(&new);
                self.by.entry(step.list).or_insert(step);
                waiting.extend(next.get(step.list).into_iter().flatten());
            }
        }
    }

    /// How many ports the scan gets on while an address is in the list.
    fn most(&self, list: &str) -> u16 {
        let seconds = self.knocks.longest(list).map_or(u64::MAX, |longest| longest.as_secs());
        u16::try_from(seconds.saturating_mul(FASTEST)).unwrap_or(u16::MAX)
    }

    /// The ports at which the scan's packets match the rule, lists aside; none if they may lack something.
    fn ports(&self, chain: &Chain<'_>, rule: &Rule) -> Option<Ranges> {
        let mut ports = Ranges::all();
        let mut has_protocol = false;
        for matcher in &rule.matchers {
            match (&matcher.condition, self.view.truth(chain, matcher)) {
                (_, Truth::Always) | (Condition::SrcAddressList(_), _) => {}
                (_, Truth::Never(_)) => return None,
                (Condition::Protocol(number), _) => {
                    has_protocol = true;
                    ((*number == self.protocol) != matcher.negated).then_some(())?;
                }
                (Condition::DstPort(set), _) => ports = ports.intersection(&allowed_ports(set, matcher.negated)),
                (Condition::AnyPort(set), _) if !matcher.negated => {
                    ports = ports.intersection(&allowed_ports(set, false));
                }
                (condition, _) => self.has(condition, matcher).then_some(())?,
            }
        }
        has_protocol.then_some(ports)
    }

    /// Whether the scan's packets have what is asked besides.
    fn has(&self, condition: &Condition, matcher: &Matcher) -> bool {
        match condition {
            Condition::DstAddress(_) => self.destination.contains(&matcher),
            Condition::Interface { .. } => self.view.sides(matcher).is_some_and(|sides| sides.contains(Side::Outside)),
            Condition::ConnectionState(states) => states.contains(ConnectionState::New) != matcher.negated,
            Condition::TcpFlags { set, clear } => {
                let syn: Set<TcpFlag> = [TcpFlag::Syn].into_iter().collect();
                !matcher.negated && set.is_subset(syn) && !clear.contains(TcpFlag::Syn)
            }
            _ => false,
        }
    }

    /// The ports at which the scan's packets get into the chain; none if they may not at all.
    fn enters(&self, chain: &Chain<'r>, known: &mut HashMap<Key<'r>, Option<Ranges>>) -> Option<Ranges> {
        if let Some(ports) = known.get(&chain.key) {
            return ports.clone();
        }
        // A chain that is being looked at adds nothing to itself.
        known.insert(chain.key, None);
        let mut entering = None;
        if chain.key.is_builtin() && chain.key.name != "output" {
            entering = Some(Ranges::all());
        } else {
            for (jump, from) in self.jumps.get(&chain.key).into_iter().flatten() {
                if needed(jump).next().is_some() {
                    continue;
                }
                let asked = if jump.matchers.is_empty() { Some(Ranges::all()) } else { self.ports(from, jump) };
                let Some(ports) = asked.zip(self.enters(from, known)).map(|(asked, from)| asked.intersection(&from))
                else {
                    continue;
                };
                entering = Some(entering.unwrap_or_else(Ranges::default).union(&ports));
            }
        }
        known.insert(chain.key, entering.clone());
        entering
    }

    /// If the door is opened by the scan.
    fn lint(&self, door: &'r str) -> Option<Lint> {
        let way = self.way(door)?;
        let (last, _) = way.last()?;
        let asks_for_port = |step: &Step<'_, '_>| {
            step.rule.matchers.iter().any(|it| matches!(it.condition, Condition::DstPort(_) | Condition::AnyPort(_)))
        };
        if !asks_for_port(last) || self.is_stopped(&way) {
            return None;
        }
        let (first, port) = way.first()?;
        if way.len() == 1 {
            let sentence = format!(
                "one packet to port {port} opens `{door}`: whoever scans the ports is in, without knowing of it"
            );
            let remedy = "ask for further knocks, or for a passphrase with `layer7-protocol` or `content`";
            return Some(Lint::new(Code::ScanOpens, last.rule, sentence, remedy).at("dst-port"));
        }
        let order = if self.down { "descending" } else { "ascending" };
        let ports: Vec<String> = way.iter().map(|(_, port)| port.to_string()).collect();
        let sentence = format!(
            "a port scan in {order} order gives these knocks by chance ({}) and opens `{door}`, from {} ports a second on",
            ports.join(", "),
            self.rate(&way)
        );
        let remedy = "let the ports go up and down, as 4321, 1234, 2345; ask for a passphrase with `layer7-protocol`; or put \
                      who tries a port in between in a list that is dropped";
        let times: Vec<String> = way[..way.len() - 1]
            .iter()
            .map(|(step, _)| self.knocks.longest(step.list).map_or_else(|| "for good".to_owned(), format_duration))
            .collect();
        let what = format!("the first knock; each counts for {}", times.join(", then "));
        Some(Lint::new(Code::ScanOpens, last.rule, sentence, remedy).at("dst-port").also(first.rule, what))
    }

    /// The steps up to the list, each with its port.
    fn way(&self, door: &str) -> Option<Vec<(&'s Step<'v, 'r>, u16)>> {
        let mut way = Vec::new();
        let (lowest, highest) = self.reached.get(door)?.ends()?;
        let mut port = if self.down { highest } else { lowest };
        let mut list = door;
        loop {
            let step = *self.by.get(list)?;
            way.push((step, port));
            let Some(needed) = step.needs.first().filter(|_| way.len() <= self.by.len()) else { break };
            (way.len() <= MOST_STEPS).then_some(())?;
            // The nearest port before: the other way round from this one.
            let before = Ranges::of([port..=port]).followers(self.most(needed), !self.down);
            let (lowest, highest) = before.intersection(self.reached.get(needed)?).ends()?;
            (port, list) = (if self.down { lowest } else { highest }, needed);
        }
        way.reverse();
        Some(way)
    }

    /// Ports a second at which each knock comes while the one before it counts.
    fn rate(&self, way: &[(&Step<'_, '_>, u16)]) -> u64 {
        let needed = way.windows(2).map(|pair| {
            let [(before, from), (_, to)] = pair else { return 1 };
            let seconds = self.knocks.longest(before.list).map_or(u64::MAX, |longest| longest.as_secs());
            u64::from(from.abs_diff(*to)).div_ceil(seconds.max(1))
        });
        needed.max().unwrap_or(1).max(1)
    }

    /// Whether some rule may notice the scan between its first and last knock.
    fn is_stopped(&self, way: &[(&Step<'_, '_>, u16)]) -> bool {
        let ports = way.iter().map(|(_, port)| *port);
        let (Some(lowest), Some(highest)) = (ports.clone().min(), ports.clone().max()) else { return true };
        let knocks = Ranges::of(ports.map(|port| port..=port));
        let between = Ranges::of([lowest..=highest]).intersection(&knocks.complement());
        self.noticed.iter().any(|ports| ports.intersects(&between))
    }
}

/// What all steps that lead to a door ask of the destination's address.
fn destination<'r>(knocks: &Knocks<'_, 'r>) -> Vec<&'r Matcher> {
    let mut steps = knocks.leading_steps().map(|step| step.rule);
    let first = steps.next().map(|rule| rule.matchers.iter()).unwrap_or_default();
    let mut common: Vec<&Matcher> =
        first.filter(|matcher| matches!(matcher.condition, Condition::DstAddress(_))).collect();
    for rule in steps {
        common.retain(|matcher| rule.matchers.contains(matcher));
    }
    common
}

/// At which ports rules notice a scan: those that remember packets and stop them, and those that put the source in a
/// list that keeps out.
fn noticed(view: &View<'_>, knocks: &Knocks<'_, '_>, family: Family, protocol: u8) -> Vec<Ranges> {
    let rules = || view.live().map(|(rule, _)| rule).filter(|rule| rule.family == family);
    // Lists of the knocks themselves do not count.
    let lists = rules().flat_map(|rule| {
        rule.matchers.iter().filter_map(move |matcher| match &matcher.condition {
            Condition::SrcAddressList(list) if matcher.negated || ends(rule) => Some(list.as_str()),
            _ => None,
        })
    });
    let keeping_out: HashSet<&str> = lists.filter(|list| !knocks.leading.contains(list)).collect();
    let notices = |rule: &&Rule| {
        let has_memory = || rule.matchers.iter().any(|matcher| has_memory(&matcher.condition));
        ends(rule) && has_memory() || adds_source(rule).is_some_and(|list| keeping_out.contains(list))
    };
    rules().filter(notices).filter_map(|rule| sees(rule, protocol)).collect()
}

/// The ports of the protocol at which the rule may match; none if it is about other protocols.
fn sees(rule: &Rule, protocol: u8) -> Option<Ranges> {
    let mut ports = Ranges::all();
    for matcher in &rule.matchers {
        match &matcher.condition {
            Condition::Protocol(number) => ((*number == protocol) != matcher.negated).then_some(())?,
            Condition::DstPort(set) => ports = ports.intersection(&allowed_ports(set, matcher.negated)),
            _ => {}
        }
    }
    Some(ports)
}

/// Whether it keeps the packet from what comes behind it.
const fn ends(rule: &Rule) -> bool {
    denies(&rule.action) || matches!(rule.action, Action::Return)
}
