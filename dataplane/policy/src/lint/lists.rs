//! Lists that rules match and that no rule and no entry fills.

use std::collections::{HashMap, HashSet};

use super::view::{View, adds};
use super::{Code, Lint};
use crate::door::Door;
use crate::packet::Family;
use crate::rsc::nearest;
use crate::rule::{Condition, EntryAddress, Matcher, Rule};

/// Maximum number of lists for which a similar name is searched, and of names that are compared. Bounds the work for a
/// file with many empty lists.
const MOST_SUGGESTIONS: usize = 100;
const MOST_CANDIDATES: usize = 1_000;

pub(super) fn lints(view: &View<'_>, lints: &mut Vec<Lint>) {
    let fillers = Fillers::new(view);
    let mut told: HashSet<ListKey<'_>> = HashSet::new();
    for (rule, _) in view.live() {
        for matcher in &rule.matchers {
            let (Condition::SrcAddressList(list) | Condition::DstAddressList(list)) = &matcher.condition else {
                continue;
            };
            let key = (rule.family, list.as_str());
            if !fillers.filled.contains(&key) && !fillers.doors.contains(list) && told.insert(key) {
                let suggests = told.len() <= MOST_SUGGESTIONS;
                lints.push(fillers.empty(rule, matcher, list, suggests));
            }
        }
    }
}

/// A list of one family: rules of the other family do not add to it.
type ListKey<'r> = (Family, &'r str);

/// The rules and entries that fill lists, including those that are disabled.
struct Fillers<'r> {
    filled: HashSet<ListKey<'r>>,
    /// Rules that do not run.
    idle: HashMap<ListKey<'r>, &'r Rule>,
    /// Entries that are disabled.
    disabled: HashSet<ListKey<'r>>,
    /// Lists of doors, which knocks fill.
    doors: HashSet<String>,
    /// Names for suggestions.
    names: Vec<ListKey<'r>>,
}

impl<'r> Fillers<'r> {
    fn new(view: &View<'r>) -> Fillers<'r> {
        let (mut filled, mut idle, mut disabled) = (HashSet::new(), HashMap::new(), HashSet::new());
        for rule in &view.rules.rules {
            let Some(list) = adds(rule) else { continue };
            if rule.runs() {
                filled.insert((rule.family, list));
            } else {
                idle.entry((rule.family, list)).or_insert(rule);
            }
        }
        for entry in &view.rules.address_lists {
            // An entry without an address adds nothing, but shows that an operator fills the list.
            let fills = !entry.disabled || entry.address == EntryAddress::None;
            if fills { &mut filled } else { &mut disabled }.insert((entry.family, entry.list.as_str()));
        }
        let of_doors = view.settings.doors.iter().flat_map(Door::lists);
        let doors: HashSet<String> = of_doors.collect();
        let mut names: Vec<ListKey<'_>> = filled.iter().copied().collect();
        names.sort_unstable_by_key(|(_, name)| *name);
        names.truncate(MOST_CANDIDATES);
        Fillers { filled, idle, disabled, doors, names }
    }

    fn empty(&self, rule: &Rule, matcher: &Matcher, list: &str, suggests: bool) -> Lint {
        let key = (rule.family, list);
        let so = if matcher.negated { "so no source is in it" } else { "so this rule never matches" };
        let (family, other) = match rule.family {
            Family::Ipv4 => ("IPv4", Family::Ipv6),
            Family::Ipv6 => ("IPv6", Family::Ipv4),
        };
        let with =
            if self.filled.contains(&(other, list)) { format!(" with {family} addresses") } else { String::new() };
        let sentence =
            format!("no rule and no entry of this file fills `{list}`{with}, {so} unless an operator fills it");
        let names = self.names.iter().filter(|(family, _)| *family == rule.family).map(|(_, name)| *name);
        let meant = if suggests { nearest(list, names) } else { None };
        let idle = self.idle.get(&key);
        let remedy = match (idle, meant) {
            (Some(idle), _) => format!("enable the rule of line {}, or disable this one", idle.line),
            (None, Some(name)) => format!("did you mean `{name}`?"),
            (None, None) if self.disabled.contains(&key) => {
                "enable its entries in `address-list`, or disable this rule".to_owned()
            }
            (None, None) => format!("fill `{list}` by a rule or in `address-list`, or remove the matcher"),
        };
        let lint = Lint::new(Code::EmptyList, rule, sentence, remedy).at(matcher.condition.name());
        match idle {
            Some(idle) => lint.also(idle, "this would fill it, but does not run"),
            None => lint,
        }
    }
}
