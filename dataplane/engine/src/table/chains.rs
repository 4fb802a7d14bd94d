//! The chains of one menu, and the jumps between them.

use hashbrown::HashMap;
use knockplane_policy::eval::MAX_JUMP_DEPTH;
use knockplane_policy::packet::Family;
use knockplane_policy::rule::{self, Action, Rule, RuleSet};

use super::{MAX_STEPS, Problem, running};

/// The chains of one menu.
pub(super) struct Chains<'r> {
    pub(super) table: rule::Table,
    pub(super) family: Family,
    /// The names of the chains in the order of first appearance.
    pub(super) order: Vec<&'r str>,
    pub(super) rules: HashMap<&'r str, Vec<(usize, &'r Rule)>>,
}

impl<'r> Chains<'r> {
    pub(super) fn of(rules: &'r RuleSet, table: rule::Table, family: Family) -> Chains<'r> {
        let mut chains = Chains { table, family, order: Vec::new(), rules: HashMap::new() };
        for (index, rule) in running(rules).filter(|(_, rule)| rule.table == table && rule.family == family) {
            let of_chain = chains.rules.entry(rule.chain.as_str()).or_default();
            if of_chain.is_empty() {
                chains.order.push(&rule.chain);
            }
            of_chain.push((index, rule));
        }
        chains
    }

    pub(super) fn check_jumps(&self, problems: &mut Vec<Problem>) {
        let mut heights = HashMap::new();
        for chain in &self.order {
            self.height(&mut vec![chain], &mut heights, problems);
        }
    }

    /// The nesting depth of the jumps in the last chain of the path. Never follows a path longer than the limit, and
    /// visits each chain only once.
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
    /// Checks that the rule evaluation of one packet is bounded: if several chains each jump to the next chain several
    /// times, the number of evaluated rules multiplies.
    pub(super) fn check_steps(&self, problems: &mut Vec<Problem>) {
        let mut known = HashMap::new();
        for chain in self.table.builtin_chains() {
            let steps = self.steps(chain, &mut known);
            if steps > MAX_STEPS {
                problems.push(Problem::TooManySteps { chain, steps });
            }
        }
    }

    /// The number of rules of a chain and of the chains that it jumps to, counted once for each jump. There are no
    /// circles.
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
