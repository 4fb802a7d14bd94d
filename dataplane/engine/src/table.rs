//! A rule set ready to run.
//!
//! [`Table::compile`] checks everything first and reports every problem, not the first; then it binds the lists; then
//! it emits a program per address family, in which nothing can fail any more. So a rule set that does not compile
//! changes nothing.
//!
//! Rules that are disabled are not run, and what only they refer to need not exist. What rules can say and this engine
//! cannot do is refused, see `unsupported`: a rule without one of its matchers would match more. Everything that is
//! counted or shown keeps the position in the declared rules. A jump to a chain without rules matches, counts and goes on.

mod program;
mod unsupported;

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use knockplane_policy::eval::MAX_JUMP_DEPTH;
use knockplane_policy::level;
use knockplane_policy::packet::Family;
use knockplane_policy::rule::{
    self, Action, AddressSet, BuiltinChain, Condition, Layer7Pattern, Rule, RuleId, RuleSet,
};
use knockplane_policy::settings::Settings;

use crate::layer7::{Pattern, PatternError};
use crate::lists::{ListId, Lists, OPERATOR_LEVEL, TooManyLists};

pub(crate) use program::{PatternId, Program, Span, StateTest, Step, View};

/// Rules that one packet may be held against: some milliseconds of a worker, which is far more than anyone wants.
const MAX_STEPS: u64 = 1_000_000;

/// See the module.
pub struct Table {
    rules: Arc<RuleSet>,
    settings: Settings,
    ipv4: Program,
    ipv6: Program,
    patterns: Box<[Pattern]>,
}

impl Table {
    /// Compiles the rules, and makes their lists known.
    ///
    /// # Errors
    /// Everything that keeps the rules from running; then nothing changed.
    pub fn compile(rules: Arc<RuleSet>, settings: &Settings, lists: &Lists) -> Result<Table, CompileError> {
        let mut problems = Vec::new();
        let chains = [Family::Ipv4, Family::Ipv6].map(|family| Chains::of(&rules, family));
        for chains in &chains {
            chains.check_jumps(&mut problems);
            if problems.is_empty() {
                chains.check_steps(&mut problems);
            }
        }
        check_addresses(&rules, &mut problems);
        unsupported::check(&rules, &mut problems);
        let (patterns, pattern_ids) = compile_patterns(&rules, &mut problems);
        if !problems.is_empty() {
            return Err(CompileError { problems });
        }

        let [ipv4, ipv6] = {
            let names = Names { lists: bind_lists(&rules, lists)?, patterns: pattern_ids };
            chains.map(|chains| Program::emit(&chains, &names, settings))
        };
        Ok(Table { rules, settings: settings.clone(), ipv4, ipv6, patterns })
    }

    /// The rules as they were declared.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// What decides besides the rules.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn program(&self, family: Family) -> &Program {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    pub(crate) fn pattern(&self, pattern: PatternId) -> &Pattern {
        &self.patterns[pattern.0]
    }
}

/// What names in rules stand for.
struct Names<'r> {
    lists: HashMap<&'r str, ListId>,
    patterns: HashMap<&'r str, PatternId>,
}

/// Everything that keeps a rule set from running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct CompileError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl From<TooManyLists> for CompileError {
    fn from(error: TooManyLists) -> Self {
        CompileError { problems: vec![error.into()] }
    }
}

/// One thing that keeps a rule set from running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A jump that could lead back to its own chain.
    #[error("{rule}: the jump to `{target}` leads back to its own chain")]
    JumpCircle {
        /// The jump.
        rule: Place,
        /// Where it jumps.
        target: String,
    },
    /// A jump behind too many others.
    #[error("{rule}: the jump to `{target}` nests deeper than {MAX_JUMP_DEPTH} jumps")]
    JumpTooDeep {
        /// The jump.
        rule: Place,
        /// Where it jumps.
        target: String,
    },
    /// Jumps that multiply.
    #[error("chain `{chain}`: a packet could be held against {steps} rules, jumps included; {MAX_STEPS} is the most")]
    TooManySteps {
        /// The built-in chain.
        chain: &'static str,
        /// How many.
        steps: u64,
    },
    /// An address range whose ends are of different families.
    #[error("{rule}: an address range goes from IPv4 to IPv6 or back")]
    MixedRange {
        /// The rule.
        rule: Place,
    },
    /// `layer7-protocol` names nothing.
    #[error("{rule}: there is no layer-7 pattern `{pattern}`; add it, or disable the rule")]
    PatternMissing {
        /// The rule.
        rule: Place,
        /// What it names.
        pattern: String,
    },
    /// A layer-7 pattern cannot run.
    #[error("line {line}: layer-7 pattern `{pattern}`: {error}")]
    Pattern {
        /// Its name.
        pattern: String,
        /// Its line.
        line: u32,
        /// Why not.
        error: PatternError,
    },
    /// A rule that can be read and never be run.
    #[error("{rule}: it can never run: {reason}; disable it, or leave it out")]
    Invalid {
        /// The rule.
        rule: Place,
        /// Why not.
        reason: String,
    },
    /// A rule says what cannot be run.
    #[error("{rule}: the dataplane does not run `{}` yet", what.join("`, `"))]
    NotYet {
        /// The rule.
        rule: Place,
        /// Names of its matchers, action and so on; at least one.
        what: Vec<String>,
    },
    /// Lists hold addresses from the start.
    #[error("line {line}: list `{list}`: the dataplane does not run entries of `address-list` yet; {entries} in all")]
    EntriesNotYet {
        /// The line of the first one.
        line: u32,
        /// Its list.
        list: String,
        /// How many there are.
        entries: usize,
    },
    /// The rules use more lists than there is room for.
    #[error(transparent)]
    TooManyLists(#[from] TooManyLists),
}

impl Problem {
    /// The rule that it is about; none if it is about more than one.
    pub const fn place(&self) -> Option<&Place> {
        match self {
            Problem::JumpCircle { rule, .. }
            | Problem::JumpTooDeep { rule, .. }
            | Problem::MixedRange { rule }
            | Problem::PatternMissing { rule, .. }
            | Problem::Invalid { rule, .. }
            | Problem::NotYet { rule, .. } => Some(rule),
            _ => None,
        }
    }

    /// What it says of that rule, for whoever shows the rule itself.
    pub fn sentence(&self) -> String {
        let text = self.to_string();
        let prefix = self.place().map(|place| format!("{place}: ")).unwrap_or_default();
        text.strip_prefix(&prefix).map(str::to_owned).unwrap_or(text)
    }
}

/// A rule, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: rule {id}")]
pub struct Place {
    /// Its id.
    pub id: RuleId,
    /// Its line.
    pub line: u32,
}

impl From<&Rule> for Place {
    fn from(rule: &Rule) -> Self {
        Place { id: rule.id.clone(), line: rule.line }
    }
}

/// The rules that run, each with its position among the declared ones.
fn running(rules: &RuleSet) -> impl Iterator<Item = (usize, &Rule)> {
    rules.rules.iter().enumerate().filter(|(_, rule)| rule.runs())
}

/// The chains of one family.
struct Chains<'r> {
    family: Family,
    /// Their names in the order of first appearance.
    order: Vec<&'r str>,
    rules: HashMap<&'r str, Vec<(usize, &'r Rule)>>,
}

impl<'r> Chains<'r> {
    fn of(rules: &'r RuleSet, family: Family) -> Chains<'r> {
        let mut chains = Chains { family, order: Vec::new(), rules: HashMap::new() };
        for (index, rule) in
            running(rules).filter(|(_, rule)| rule.table == rule::Table::Filter && rule.family == family)
        {
            let of_chain = chains.rules.entry(rule.chain.as_str()).or_default();
            if of_chain.is_empty() {
                chains.order.push(&rule.chain);
            }
            of_chain.push((index, rule));
        }
        chains
    }

    fn check_jumps(&self, problems: &mut Vec<Problem>) {
        let mut heights = HashMap::new();
        for chain in &self.order {
            self.height(&mut vec![chain], &mut heights, problems);
        }
    }

    /// How many jumps nest in the last chain of the path of jumps. Never follows a path longer than the limit, and each
    /// chain only once.
    fn height<'c>(
        &'c self,
        path: &mut Vec<&'c str>,
        heights: &mut HashMap<&'c str, usize>,
        problems: &mut Vec<Problem>,
    ) -> usize {
        let chain = path[path.len() - 1];
        if let Some(height) = heights.get(chain) {
            return *height;
        }
        let mut height = 0;
        for (_, rule) in self.rules.get(chain).into_iter().flatten() {
            let Action::Jump(target) = &rule.action else { continue };
            if path.contains(&target.as_str()) {
                problems.push(Problem::JumpCircle { rule: (*rule).into(), target: target.clone() });
                continue;
            }
            let jumps = path.len();
            let mut below = 0;
            if jumps <= MAX_JUMP_DEPTH {
                path.push(target);
                below = self.height(path, heights, problems);
                path.pop();
            }
            if jumps + below > MAX_JUMP_DEPTH {
                problems.push(Problem::JumpTooDeep { rule: (*rule).into(), target: target.clone() });
            } else {
                height = height.max(below + 1);
            }
        }
        heights.insert(chain, height);
        height
    }
}

impl Chains<'_> {
    /// Checks that no packet can be held against more rules than a worker has time for: a few chains that each jump to
    /// the next several times multiply.
    fn check_steps(&self, problems: &mut Vec<Problem>) {
        let mut known = HashMap::new();
        for chain in BuiltinChain::ALL.map(BuiltinChain::name) {
            let steps = self.steps(chain, &mut known);
            if steps > MAX_STEPS {
                problems.push(Problem::TooManySteps { chain, steps });
            }
        }
    }

    /// Rules of a chain and of the chains that it jumps to, as often as it does. There are no circles.
    fn steps<'s>(&'s self, chain: &'s str, known: &mut HashMap<&'s str, u64>) -> u64 {
        if let Some(steps) = known.get(chain) {
            return *steps;
        }
        let mut steps = 0_u64;
        for (_, rule) in self.rules.get(chain).into_iter().flatten() {
            steps = steps.saturating_add(1);
            if let Action::Jump(target) = &rule.action {
                steps = steps.saturating_add(self.steps(target, known));
            }
        }
        known.insert(chain, steps);
        steps
    }
}

fn check_addresses(rules: &RuleSet, problems: &mut Vec<Problem>) {
    let mixed = |condition: &Condition| match condition {
        Condition::SrcAddress(AddressSet::Range(first, last))
        | Condition::DstAddress(AddressSet::Range(first, last)) => Family::of(*first) != Family::of(*last),
        _ => false,
    };
    for (_, rule) in running(rules) {
        if rule.matchers.iter().any(|matcher| mixed(&matcher.condition)) {
            problems.push(Problem::MixedRange { rule: rule.into() });
        }
    }
}

/// Compiles the patterns that are used, each once.
fn compile_patterns<'r>(
    rules: &'r RuleSet,
    problems: &mut Vec<Problem>,
) -> (Box<[Pattern]>, HashMap<&'r str, PatternId>) {
    let (mut patterns, mut ids, mut refused) = (Vec::new(), HashMap::new(), HashSet::new());
    for (_, rule) in running(rules) {
        for matcher in &rule.matchers {
            let Condition::Layer7(name) = &matcher.condition else { continue };
            if ids.contains_key(name.as_str()) || refused.contains(name.as_str()) {
                continue;
            }
            let Some(pattern) = rules.pattern(name) else {
                problems.push(Problem::PatternMissing { rule: rule.into(), pattern: name.clone() });
                continue;
            };
            match Pattern::compile(pattern) {
                Ok(compiled) => {
                    ids.insert(name.as_str(), PatternId(patterns.len()));
                    patterns.push(compiled);
                }
                Err(error) => {
                    let Layer7Pattern { name: pattern, line, .. } = pattern.clone();
                    problems.push(Problem::Pattern { pattern, line, error });
                    refused.insert(name.as_str());
                }
            }
        }
    }
    (patterns.into(), ids)
}

/// Makes all lists of the rules known. Lists that no rule fills can be filled by operators alone.
fn bind_lists<'r>(rules: &'r RuleSet, lists: &Lists) -> Result<HashMap<&'r str, ListId>, TooManyLists> {
    let levels = level::levels(rules);
    let mut names: Vec<&str> = running(rules).flat_map(|(_, rule)| rule_lists(rule)).collect();
    names.sort_unstable();
    names.dedup();
    let wanted: Vec<(&str, u8)> =
        names.iter().map(|name| (*name, levels.get(*name).copied().unwrap_or(OPERATOR_LEVEL))).collect();
    Ok(names.into_iter().zip(lists.bind_all(&wanted)?).collect())
}

/// The lists that a rule reads and adds to.
fn rule_lists(rule: &Rule) -> impl Iterator<Item = &str> {
    let read = rule.matchers.iter().filter_map(|matcher| match &matcher.condition {
        Condition::SrcAddressList(list) | Condition::DstAddressList(list) => Some(list.as_str()),
        _ => None,
    });
    let added = match &rule.action {
        Action::AddSrcToAddressList(add) | Action::AddDstToAddressList(add) => Some(add.list.as_str()),
        _ => None,
    };
    read.chain(added)
}
