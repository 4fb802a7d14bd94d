//! Resolves the names in rules.

use hashbrown::HashMap;
use knockplane_policy::rule::{Rule, RuleSet};

use crate::state::doors::DoorId;
use crate::state::lists::ListId;
use crate::state::matchers::connection_limits::MatcherId;
use crate::state::matchers::rate_limiters::LimiterCounts;

/// The ids of the names in rules, and the number of matchers that need state.
pub(super) struct RuleNames<'r> {
    pub(super) lists: HashMap<String, ListId>,
    /// The positions of the patterns.
    pub(super) patterns: HashMap<&'r str, usize>,
    pub(super) tls: HashMap<&'r str, usize>,
    /// The id of each door, and its open list.
    pub(super) doors: HashMap<&'r str, (DoorId, ListId)>,
    pub(super) limiters: LimiterCounts,
    pub(super) connection_limits: u32,
}

impl RuleNames<'_> {
    pub(super) fn connection_limit(&mut self) -> MatcherId {
        self.connection_limits += 1;
        MatcherId(self.connection_limits - 1)
    }
}

/// The rules that are not disabled, each with its position among the declared rules.
pub(super) fn running(rules: &RuleSet) -> impl Iterator<Item = (usize, &Rule)> {
    rules.rules.iter().enumerate().filter(|(_, rule)| rule.runs())
}
