//! Checks whether one packet may match two rules, one after the other, in one evaluation.

use std::collections::HashMap;

use crate::packet::Family;
use crate::rule::{Action, AddressSet, Condition, Matcher, PortSet, Rule, Table};

/// The position of each rule in the order of evaluation.
pub(super) struct Passes<'r> {
    rules: &'r [Rule],
    /// The place of each rule; `None` if a packet may meet the rule several times, or never.
    places: Vec<Option<Place<'r>>>,
}

/// The built-in chain that leads to a rule, and the positions of the jumps to it and its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place<'r> {
    chain: &'r str,
    path: Vec<usize>,
}

type ChainKey<'r> = (Table, Family, &'r str);

fn key(rule: &Rule) -> ChainKey<'_> {
    (rule.table, rule.family, &rule.chain)
}

impl<'r> Passes<'r> {
    pub(super) fn new(rules: &'r [Rule]) -> Passes<'r> {
        let mut chains: HashMap<ChainKey<'_>, Vec<usize>> = HashMap::new();
        let mut jumps: HashMap<ChainKey<'_>, usize> = HashMap::new();
        for (place, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.runs()) {
            chains.entry(key(rule)).or_default().push(place);
            if let Action::Jump(target) = &rule.action {
                *jumps.entry((rule.table, rule.family, target)).or_default() += 1;
            }
        }
        let mut passes = Passes { rules, places: vec![None; rules.len()] };
        let is_root = |(table, family, name): &&ChainKey<'_>| {
            table.builtin_chains().contains(name) && !jumps.contains_key(&(*table, *family, *name))
        };
        // Chains that packets meet once, each with the path of jumps to it.
        let mut waiting: Vec<(ChainKey<'_>, &str, Vec<usize>)> =
            chains.keys().filter(is_root).map(|key| (*key, key.2, Vec::new())).collect();
        while let Some((chain, root, way)) = waiting.pop() {
            for place in chains.get(&chain).into_iter().flatten() {
                let path: Vec<usize> = way.iter().copied().chain([*place]).collect();
                if let Action::Jump(target) = &rules[*place].action {
                    let target = (chain.0, chain.1, target.as_str());
                    // Bounds the memory of the paths. The position of deeper rules is not known.
                    if jumps.get(&target) == Some(&1) && !target.0.builtin_chains().contains(&target.2) && way.len() < 8
                    {
                        waiting.push((target, root, path.clone()));
                    }
                }
                passes.places[*place] = Some(Place { chain: root, path });
            }
        }
        passes
    }

    /// Whether some packet may match the first rule and then the second. False only if that is certain.
    pub(super) fn may_match_both(&self, first: usize, then: usize) -> bool {
        let (one, other) = (&self.rules[first], &self.rules[then]);
        one.family == other.family
            && self.may_follow(first, then)
            && !one.matchers.iter().any(|one| other.matchers.iter().any(|other| exclude(one, other)))
    }

    fn may_follow(&self, first: usize, then: usize) -> bool {
        let before = match (self.rules[first].table, self.rules[then].table) {
            (Table::Filter, Table::Raw) => return false,
            (Table::Raw, Table::Filter) => true,
            _ => false,
        };
        match (&self.places[first], &self.places[then]) {
            (Some(first), Some(then)) if !before => first.chain == then.chain && first.path < then.path,
            (Some(first), Some(then)) => (first.chain == "output") == (then.chain == "output"),
            _ => true,
        }
    }
}

/// Whether no packet can match both. Lists and payloads are not compared.
fn exclude(one: &Matcher, other: &Matcher) -> bool {
    use Condition as C;
    let negated = (one.negated, other.negated);
    match (&one.condition, &other.condition) {
        (C::Protocol(a), C::Protocol(b)) => apart(negated, a != b, a == b),
        (C::DstPort(a), C::DstPort(b)) | (C::SrcPort(a), C::SrcPort(b)) => match negated {
            (false, false) => !a.0.iter().any(|a| b.0.iter().any(|b| a.start() <= b.end() && b.start() <= a.end())),
            (false, true) => is_within(a, b),
            (true, false) => is_within(b, a),
            (true, true) => false,
        },
        (C::PacketSize(a), C::PacketSize(b)) => {
            negated == (false, false) && (a.end() < b.start() || b.end() < a.start())
        }
        (C::IcmpOptions { kind: a, codes: x }, C::IcmpOptions { kind: b, codes: y }) => {
            negated == (false, false) && (a != b || x.end() < y.start() || y.end() < x.start())
        }
        (C::TcpFlags { set: a, clear: x }, C::TcpFlags { set: b, clear: y }) => {
            negated == (false, false) && (a.intersects(*y) || b.intersects(*x))
        }
        (C::ConnectionState(a), C::ConnectionState(b)) => {
            negated == (false, false) && !a.is_empty() && !b.is_empty() && !a.intersects(*b)
        }
        (C::SrcAddress(a), C::SrcAddress(b)) | (C::DstAddress(a), C::DstAddress(b)) => {
            apart(negated, !overlap(a, b), a == b)
        }
        _ => false,
    }
}

/// Whether two sets, each possibly negated, have no common element, from the relation of the sets.
const fn apart(negated: (bool, bool), disjoint: bool, same: bool) -> bool {
    match negated {
        (false, false) => disjoint,
        (true, true) => false,
        _ => same,
    }
}

fn overlap(one: &AddressSet, other: &AddressSet) -> bool {
    one.family() == other.family() && one.overlaps(other)
}

fn is_within(inner: &PortSet, outer: &PortSet) -> bool {
    let is_in = |inner: &std::ops::RangeInclusive<u16>| {
        outer.0.iter().any(|outer| outer.start() <= inner.start() && inner.end() <= outer.end())
    };
    inner.0.iter().all(is_in)
}
