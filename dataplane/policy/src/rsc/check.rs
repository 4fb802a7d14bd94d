//! Checks relations between the commands of a file: referenced patterns exist, and jumps form no cycle. A jump to a
//! chain without rules is valid, as on a router where other programs add its rules: a lint reports it.
//!
//! Entries of refused commands still count as existing, so that one error is not reported twice. A rule with a wrong
//! reference is refused. Every name and every jump is checked once.

use std::collections::{HashMap, HashSet};

use super::problem::{Complaint, Problems, show};
use super::{filter, layer7};
use crate::eval::MAX_JUMP_DEPTH;
use crate::packet::Family;
use crate::rule::Table;

/// Maximum number of unknown names for which suggestions are searched, and of names to compare. Bounds the work for a
/// file with many wrong names.
const MOST_SUGGESTIONS: usize = 100;
const MOST_CANDIDATES: usize = 1_000;

/// Checks a whole file, and removes the rules and patterns with errors.
pub(super) fn check(rules: &mut [filter::RuleDraft], patterns: &mut [layer7::PatternDraft], problems: &mut Problems) {
    pattern_names(patterns, problems);
    let names = patterns.iter().filter_map(|entry| entry.name.as_ref()).map(|(name, _)| name.as_str());
    pattern_references(rules, names.collect(), problems);
    jump_depth(rules, problems);
}

/// Checks that each pattern has a unique name.
fn pattern_names(patterns: &mut [layer7::PatternDraft], problems: &mut Problems) {
    let mut seen = HashSet::new();
    for entry in patterns {
        let Some((name, span)) = &entry.name else { continue };
        if !seen.insert(name.clone()) {
            let complaint = Complaint::new(format!("a pattern named `{}` exists already", show(name.as_bytes())))
                .expected("a unique name")
                .help("rename one of the two, and the rules that use it");
            problems.add(span.clone(), complaint);
            entry.pattern = None;
        }
    }
}

/// Checks that `layer7-protocol` names a pattern.
fn pattern_references(rules: &mut [filter::RuleDraft], names: Vec<&str>, problems: &mut Problems) {
    let known: HashSet<&str> = names.iter().copied().collect();
    let mut suggestions = 0;
    for entry in rules {
        let Some((name, span)) = entry.pattern.as_ref().filter(|(name, _)| !known.contains(name.as_str())) else {
            continue;
        };
        let complaint = Complaint::new(format!("no pattern is named `{}`", show(name.as_bytes())))
            .expected("the name of a pattern in `/ip firewall layer7-protocol`")
            .help("add the pattern to this file");
        problems.add(span.clone(), suggest(complaint, name, &names, &mut suggestions));
        entry.rule = None;
    }
}

/// The menu of a rule. Jumps stay in their menu.
const fn menu(entry: &filter::RuleDraft) -> (Table, Family) {
    (entry.table, entry.family)
}

fn suggest(complaint: Complaint, name: &str, names: &[&str], suggestions: &mut usize) -> Complaint {
    *suggestions += 1;
    if *suggestions > MOST_SUGGESTIONS {
        return complaint;
    }
    complaint.did_you_mean(name, names.iter().copied().take(MOST_CANDIDATES))
}

/// An enabled jump, as an edge between chains.
struct Jump {
    to: usize,
    entry: usize,
}

/// Checks that jumps form no cycle and are not nested deeper than evaluation allows. Disabled jumps do not count.
fn jump_depth(rules: &mut [filter::RuleDraft], problems: &mut Problems) {
    let mut chains: HashMap<((Table, Family), String), usize> = HashMap::new();
    let mut names: Vec<String> = Vec::new();
    let mut jumps: Vec<Vec<Jump>> = Vec::new();
    let mut chain = |menu: (Table, Family), name: &str, jumps: &mut Vec<Vec<Jump>>| {
        *chains.entry((menu, name.to_owned())).or_insert_with(|| {
            names.push(name.to_owned());
            jumps.push(Vec::new());
            names.len() - 1
        })
    };
    for (entry, rule) in rules.iter().enumerate() {
        if let (Some(from), Some((to, _)), false) = (&rule.chain, &rule.jump, rule.disabled) {
            let from = chain(menu(rule), from, &mut jumps);
            let to = chain(menu(rule), to, &mut jumps);
            jumps[from].push(Jump { to, entry });
        }
    }
    for (entry, complaint) in walk(&jumps, &names) {
        if let Some((_, span)) = rules[entry].jump.clone() {
            problems.add(span, complaint);
        }
        rules[entry].rule = None;
    }
}

/// Depth-first search over all chains, with an explicit stack: a file may have a sequence of a million jumps.
fn walk(jumps: &[Vec<Jump>], names: &[String]) -> Vec<(usize, Complaint)> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        /// The chain is on the path, at this position.
        Open(usize),
        /// The chain is complete: the depth of the jumps from it.
        Done(usize),
    }
    let mut complaints = Vec::new();
    let mut states = vec![State::New; names.len()];
    for start in 0..names.len() {
        if states[start] != State::New {
            continue;
        }
        // Each chain on the path, the number of followed jumps from it, and their depth.
        let mut way = vec![(start, 0, 0)];
        states[start] = State::Open(0);
        while let Some((chain, followed, depth)) = way.last_mut() {
            let Some(jump) = jumps[*chain].get(*followed) else {
                states[*chain] = State::Done(*depth);
                way.pop();
                continue;
            };
            match states[jump.to] {
                State::New => {
                    states[jump.to] = State::Open(way.len());
                    way.push((jump.to, 0, 0));
                }
                State::Open(place) => {
                    *followed += 1;
                    complaints.push((jump.entry, circle(&way[place..], names)));
                }
                State::Done(below) => {
                    *followed += 1;
                    *depth = (*depth).max(below.saturating_add(1));
                    // The problem is reported once, at the first jump above the limit.
                    if below == MAX_JUMP_DEPTH {
                        complaints.push((jump.entry, too_deep()));
                    }
                }
            }
        }
    }
    complaints
}

/// Names the chains of a cycle, up to a limit.
fn circle(circle: &[(usize, usize, usize)], names: &[String]) -> Complaint {
    const MOST_NAMES: usize = 6;
    let shown = circle.iter().chain(circle.first()).map(|(chain, ..)| show(names[*chain].as_bytes()));
    let mut path: Vec<String> = shown.take(MOST_NAMES).collect();
    if circle.len() >= MOST_NAMES {
        path.push("…".to_owned());
    }
    Complaint::new(format!("this jump forms a cycle: {}", path.join(" → ")))
        .expected("a chain that does not jump back here")
        .help("use `action=return` to return to the chain that jumped")
}

fn too_deep() -> Complaint {
    Complaint::new(format!("jumps nest deeper than {MAX_JUMP_DEPTH} here"))
        .expected("fewer nested jumps")
        .help("merge some of the chains")
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    /// The text at each problem and its message.
    fn problems(text: &str) -> Vec<(String, String)> {
        read(text.as_bytes())
            .problems
            .into_iter()
            .map(|problem| (text[problem.span].to_owned(), problem.help.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn referenced_names_must_exist() {
        let text = "/ip firewall filter\nadd chain=input action=jump jump-target=knok\nadd chain=knock\n\
            add chain=input layer7-protocol=knock2\n/ipv6 firewall filter\nadd chain=input action=jump jump-target=knock\n\
            /ip firewall layer7-protocol\nadd name=knock1 regexp=a\nadd name=knock1 regexp=b\n";
        let found = problems(text);
        let (at, help): (Vec<_>, Vec<_>) = found.iter().map(|(at, help)| (at.as_str(), help.as_str())).unzip();
        assert_eq!(at, ["knock2", "knock1"]);
        assert_eq!(help[..1], ["did you mean `knock1`?"]);
        let reading = read(text.as_bytes());
        assert_eq!((reading.rules.rules.len(), reading.rules.layer7.len()), (3, 1));
    }

    /// `raw` and filter, each for IPv4 and IPv6, have four separate sets of chains.
    #[test]
    fn jumps_stay_in_their_menu() {
        let rule = |table, family, chain: &str, jump: Option<&str>| filter::RuleDraft {
            rule: None,
            table,
            family,
            chain: Some(chain.to_owned()),
            disabled: false,
            jump: jump.map(|target| (target.to_owned(), 0..1)),
            pattern: None,
            spans: super::super::SourceSpans::default(),
        };
        let (filter, raw) = (Table::Filter, Table::Raw);
        let mut rules = [
            rule(filter, Family::Ipv4, "a", Some("b")),
            rule(raw, Family::Ipv4, "b", Some("a")),
            rule(filter, Family::Ipv6, "b", None),
        ];
        let mut problems = Problems::default();
        check(&mut rules, &mut [], &mut problems);
        assert_eq!(problems.count(), 0);
        let mut rules = [
            rule(filter, Family::Ipv4, "a", Some("b")),
            rule(raw, Family::Ipv4, "b", Some("a")),
            rule(filter, Family::Ipv4, "b", None),
            rule(raw, Family::Ipv4, "a", None),
        ];
        let mut problems = Problems::default();
        check(&mut rules, &mut [], &mut problems);
        assert_eq!(problems.count(), 0);
    }

    #[test]
    fn jumps_to_refused_rules_are_not_reported_again() {
        let text = "/ip firewall filter\nadd chain=input action=jump jump-target=k\nadd chain=k limit=1\n\
            add chain=k layer7-protocol=p\n/ip firewall layer7-protocol\nadd name=p regexp=\"(\"\n";
        assert_eq!(problems(text).iter().map(|(at, _)| at.as_str()).collect::<Vec<_>>(), ["1", "\"(\""]);
    }

    #[test]
    fn cycles_are_reported_at_the_closing_jump() {
        let jump = |from: &str, to: &str| format!("add chain={from} action=jump jump-target={to}\n");
        let text = format!(
            "/ip firewall filter\n{}{}{}{}",
            jump("input", "a"),
            jump("a", "b"),
            jump("b", "a"),
            jump("c", "c")
        );
        let reading = read(text.as_bytes());
        let messages: Vec<_> =
            reading.problems.iter().map(|problem| (problem.line, problem.message.as_str())).collect();
        assert_eq!(messages, [(4, "this jump forms a cycle: a → b → a"), (5, "this jump forms a cycle: c → c")]);
        let disabled =
            text.replace("add chain=b", "add disabled=yes chain=b").replace("add chain=c", "add disabled=yes chain=c");
        assert_eq!(read(disabled.as_bytes()).problems, []);
    }

    #[test]
    fn jumps_nest_to_the_depth_of_evaluation() {
        let file = |depth: usize| {
            let mut text = "/ip firewall filter\n".to_owned();
            for chain in 0..depth {
                text.push_str(&format!("add chain=c{chain} action=jump jump-target=c{}\n", chain + 1));
            }
            text + &format!("add chain=c{depth}\n")
        };
        assert_eq!(read(file(MAX_JUMP_DEPTH).as_bytes()).problems, []);
        let too_deep = read(file(MAX_JUMP_DEPTH + 1).as_bytes()).problems;
        assert_eq!(too_deep.iter().map(|problem| problem.line).collect::<Vec<_>>(), [2]);
        assert_eq!(read(file(100_000).as_bytes()).problems.len(), 1);
    }
}
