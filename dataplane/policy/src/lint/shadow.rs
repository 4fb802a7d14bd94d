//! Rules that an earlier rule of the chain makes unreachable, and knocks that are not needed.
//!
//! A rule covers another rule if each of its matchers follows from a matcher of the other rule. The lint does not find
//! rules that cover another one only together.

use super::implies::has_memory;
use super::truth::{allowed_ports, ends};
use super::view::{Chain, ChainKey, View, adds, denies, needed};
use super::{Code, Lint};
use crate::rule::{Action, Condition, ConnectionState, MATCHERS, Matcher, Rule};

/// Maximum number of pairs of rules that are compared, which takes some seconds. The remaining rules of a larger rule
/// set are not compared.
const MOST_PAIRS: usize = 100_000_000;

/// The remaining number of pairs.
struct Budget(usize);

impl Budget {
    /// Spends pairs. Returns false if there are not enough left.
    fn spend(&mut self, pairs: usize) -> bool {
        let left = self.0.checked_sub(pairs);
        self.0 = left.unwrap_or_default();
        left.is_some()
    }
}

pub(super) fn lints(view: &View<'_>, lints: &mut Vec<Lint>) {
    let mut budget = Budget(MOST_PAIRS);
    for chain in view.live_chains() {
        let rules: Vec<Sketch<'_, '_>> = chain.rules.iter().map(|rule| Sketch::new(view, chain, rule)).collect();
        let mut deciders: Vec<usize> = Vec::new();
        for (place, sketch) in rules.iter().enumerate().filter(|(_, sketch)| !sketch.is_never) {
            if !budget.spend(deciders.len()) {
                return;
            }
            let covering = deciders.iter().find(|decider| {
                rules[**decider].covers(sketch, view)
                    && budget.spend(place - **decider)
                    && !view.grows_between(chain, **decider, place, &rules[**decider].asked)
            });
            match covering {
                Some(decider) => lints.push(covered(view, chain.rules[*decider], sketch.rule)),
                None if sketch.decides(view) => deciders.push(place),
                None => {}
            }
        }
        open_doors(view, &rules, &mut budget, lints);
    }
}

/// A rule in the form for comparison.
struct Sketch<'v, 'r> {
    rule: &'r Rule,
    /// The matchers that are not always true.
    asked: Vec<&'v Matcher>,
    /// The kinds of these matchers, and the kinds that may follow from them: one bit for each kind.
    needs: u64,
    gives: u64,
    glance: Glance,
    is_never: bool,
}

/// The bounds of a rule's matchers without `!`: they distinguish most pairs of rules.
#[derive(Default)]
struct Glance {
    source: Option<(u128, u128)>,
    destination: Option<(u128, u128)>,
    source_port: Option<(u16, u16)>,
    destination_port: Option<(u16, u16)>,
}

impl Glance {
    fn new(asked: &[&Matcher]) -> Glance {
        let mut glance = Glance::default();
        for matcher in asked.iter().filter(|matcher| !matcher.negated) {
            match &matcher.condition {
                Condition::SrcAddress(set) => glance.source = Some(ends(set)),
                Condition::DstAddress(set) => glance.destination = Some(ends(set)),
                Condition::SrcPort(ports) => glance.source_port = allowed_ports(ports, false).ends(),
                Condition::DstPort(ports) => glance.destination_port = allowed_ports(ports, false).ends(),
                _ => {}
            }
        }
        glance
    }

    /// False only if some value of the other rule is outside the bounds of this one.
    fn may_cover(&self, other: &Glance) -> bool {
        is_within(other.source, self.source)
            && is_within(other.destination, self.destination)
            && is_within(other.source_port, self.source_port)
            && is_within(other.destination_port, self.destination_port)
    }
}

fn is_within<T: PartialOrd>(inner: Option<(T, T)>, outer: Option<(T, T)>) -> bool {
    match (inner, outer) {
        (Some(inner), Some(outer)) => outer.0 <= inner.0 && inner.1 <= outer.1,
        _ => true,
    }
}

impl<'v, 'r: 'v> Sketch<'v, 'r> {
    fn new(view: &View<'_>, chain: &Chain<'_>, rule: &'r Rule) -> Sketch<'v, 'r> {
        let asked: Vec<&Matcher> = rule.matchers.iter().filter(|matcher| !view.is_always(chain, matcher)).collect();
        let needs = asked.iter().fold(0, |kinds, matcher| kinds | kind(&matcher.condition));
        let gives = asked.iter().fold(0, |kinds, matcher| kinds | kinds_given(&matcher.condition));
        let glance = Glance::new(&asked);
        Sketch { rule, asked, needs, gives, glance, is_never: view.never(chain, rule).is_some() }
    }

    /// Whether this rule matches every packet that the other rule matches, if no list grows in between.
    fn covers(&self, other: &Sketch<'_, '_>, view: &View<'_>) -> bool {
        self.needs & !other.gives == 0
            && (!other.rule.is_for_fragments() || self.decides_fragments())
            && self.glance.may_cover(&other.glance)
            && follow(view, &self.asked, &other.asked)
    }

    /// Whether later fragments meet the rule, and no rule of another chain decides them.
    fn decides_fragments(&self) -> bool {
        self.rule.is_for_fragments() && ChainKey::target(self.rule).is_none()
    }

    /// Whether no packet that the rule matches meets later rules.
    fn decides(&self, view: &View<'_>) -> bool {
        let ends = self.rule.action == Action::Return || view.decides(self.rule);
        ends && !self.asked.iter().any(|matcher| has_memory(&matcher.condition))
    }
}

fn follow(view: &View<'_>, then: &[&Matcher], given: &[&Matcher]) -> bool {
    then.iter().all(|then| given.iter().any(|given| view.implies(given, then)))
}

fn kind(condition: &Condition) -> u64 {
    match condition {
        // All eight matchers of interfaces have the same kind, because all depend on sides.
        Condition::Interface { .. } => 1 << 63,
        Condition::IngressPriority(value) => kind(&Condition::Priority(*value)),
        _ => 1 << condition.rank().min(62),
    }
}

fn kinds_given(condition: &Condition) -> u64 {
    const { assert!(MATCHERS.len() < 62) }
    let ports = || kind(&Condition::AnyPort(Default::default()));
    kind(condition)
        | match condition {
            Condition::SrcPort(_) | Condition::DstPort(_) => ports(),
            Condition::AnyPort(_) => {
                kind(&Condition::SrcPort(Default::default())) | kind(&Condition::DstPort(Default::default()))
            }
            _ => 0,
        }
}

impl<'r> View<'r> {
    /// Whether, between two rules of the chain, an address may be added to a list that these matchers name.
    fn grows_between(&self, chain: &Chain<'r>, from: usize, to: usize, asked: &[&Matcher]) -> bool {
        let lists: Vec<&str> = asked.iter().filter(|matcher| !matcher.negated).filter_map(|it| list(it)).collect();
        let grows = |rule: &Rule| match ChainKey::target(rule).and_then(|target| self.chain(target)) {
            Some(target) => lists.iter().any(|list| target.may_grow(list)),
            None => adds(rule).is_some_and(|list| lists.contains(&list)),
        };
        !lists.is_empty() && chain.rules[from..to].iter().any(|rule| grows(rule))
    }
}

fn list(matcher: &Matcher) -> Option<&str> {
    match &matcher.condition {
        Condition::SrcAddressList(list) | Condition::DstAddressList(list) => Some(list),
        _ => None,
    }
}

fn covered<'r>(view: &View<'r>, decider: &Rule, rule: &'r Rule) -> Lint {
    if let Some(list) = door(view, rule).filter(|_| is_for_everybody(decider)) {
        return open(decider, rule, list);
    }
    let how = match &decider.action {
        Action::Return => "returns from the chain for",
        Action::Jump(_) => "passes to another chain",
        _ => "decides about",
    };
    let sentence =
        format!("no packet reaches this rule: the rule of line {} {how} all packets that it could match", decider.line);
    let remedy = format!("move it before line {}, or remove it", decider.line);
    Lint::new(Code::UnreachableRule, rule, sentence, remedy).also(decider, format!("this one {how} them first"))
}

/// The knock's list that an accept matches.
fn door<'r>(view: &View<'r>, rule: &'r Rule) -> Option<&'r str> {
    (rule.action == Action::Accept).then(|| needed(rule).find(|list| view.fills(rule.family, list))).flatten()
}

/// Whether the rule accepts without matching a list.
fn is_for_everybody(rule: &Rule) -> bool {
    rule.action == Action::Accept && needed(rule).next().is_none()
}

/// Reports accepts after a door that accept the packets of the door from all sources.
fn open_doors<'r>(view: &View<'r>, rules: &[Sketch<'_, 'r>], budget: &mut Budget, lints: &mut Vec<Lint>) {
    let doors: Vec<(usize, &str)> = rules
        .iter()
        .enumerate()
        .filter(|(_, sketch)| !sketch.is_never)
        .filter_map(|(place, sketch)| Some((place, door(view, sketch.rule)?)))
        .collect();
    if doors.is_empty() {
        return;
    }
    // The last point at which other sources are dropped.
    let stops: Vec<usize> = (0..rules.len()).filter(|place| stops_others(view, rules[*place].rule)).collect();
    let open_to_all = |sketch: &Sketch<'_, '_>| {
        !sketch.is_never
            && is_for_everybody(sketch.rule)
            && !sketch.asked.iter().any(|matcher| has_memory(&matcher.condition))
    };
    let accepts: Vec<usize> = (0..rules.len()).filter(|place| open_to_all(&rules[*place])).collect();
    for (place, list) in doors {
        let end = stops[stops.partition_point(|stop| *stop <= place)..].first().copied().unwrap_or(rules.len());
        let behind = accepts.partition_point(|accept| *accept < place)..accepts.partition_point(|accept| *accept < end);
        if !budget.spend(behind.len()) {
            return;
        }
        let mut accepts = accepts[behind].iter().map(|accept| &rules[*accept]);
        if let Some(accept) = accepts.find(|accept| accept.covers(&rules[place], view)) {
            lints.push(open(accept.rule, rules[place].rule, list));
        }
    }
}

/// Whether the rule may prevent a packet that is not invalid, from a source that is in no list, from reaching later
/// rules.
fn stops_others(view: &View<'_>, rule: &Rule) -> bool {
    let spares = |rule: &Rule| {
        needed(rule).next().is_some()
            || rule.matchers.iter().any(|matcher| match matcher.condition {
                Condition::ConnectionState(states) => {
                    !matcher.negated && states == [ConnectionState::Invalid].into_iter().collect()
                }
                _ => false,
            })
    };
    match &rule.action {
        Action::Return => !spares(rule),
        Action::Jump(_) if !spares(rule) => ChainKey::target(rule)
            .is_some_and(|target| view.within(target).into_iter().any(|rule| denies(&rule.action) && !spares(rule))),
        action => denies(action) && !spares(rule),
    }
}

fn open(accept: &Rule, door: &Rule, list: &str) -> Lint {
    let sentence = format!(
        "this rule accepts from all sources the packets that line {} accepts from `{list}` only: the knock is not needed",
        door.line
    );
    let remedy = format!("add `src-address-list={list}` to it, restrict it further, or remove it");
    Lint::new(Code::MootKnock, accept, sentence, remedy).also(door, format!("this accepts from `{list}` only"))
}
