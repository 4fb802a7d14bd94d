//! The rules in the form for lints: chains, the ways in which packets enter them, and their sides.

use std::collections::{BTreeSet, HashMap, HashSet};

use ipnet::IpNet;

use crate::eval::MAX_JUMP_DEPTH;
use crate::packet::{Family, Side};
use crate::rule::{Action, Condition, Direction, Matcher, Rule, RuleSet, Table};
use crate::settings::Settings;
use crate::word::Set;

/// A chain's name and menu: chains of the same name in different menus are different chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChainKey<'r> {
    pub(super) table: Table,
    pub(super) family: Family,
    pub(super) name: &'r str,
}

impl<'r> ChainKey<'r> {
    /// The chain that the rule is in.
    pub(super) fn of(rule: &'r Rule) -> ChainKey<'r> {
        ChainKey { table: rule.table, family: rule.family, name: &rule.chain }
    }

    /// The chain that the rule jumps to.
    pub(super) fn target(rule: &'r Rule) -> Option<ChainKey<'r>> {
        match &rule.action {
            Action::Jump(name) => Some(ChainKey { name, ..ChainKey::of(rule) }),
            _ => None,
        }
    }

    pub(super) fn is_builtin(self) -> bool {
        self.table.builtin_chains().contains(&self.name)
    }
}

/// Maximum number of lists of a chain that are distinguished.
const MOST_GROWING: usize = 32;

/// Maximum depth of jumps in the check whether a chain always decides. The reader allows no more.
const MOST_ROUNDS: usize = MAX_JUMP_DEPTH + 1;

/// The rules of a chain.
pub(super) struct Chain<'r> {
    pub(super) key: ChainKey<'r>,
    /// The running rules, in order.
    pub(super) rules: Vec<&'r Rule>,
    /// The rules that do not run.
    pub(super) idle: Vec<&'r Rule>,
    /// The sides of the packets that can enter the chain; empty if no packet can.
    pub(super) sides: Set<Side>,
    /// Whether a running rule jumps to the chain.
    pub(super) is_target: bool,
    /// The lists to which rules of this chain, and of all chains that it leads to, add; `None` if there are many.
    grows: Option<BTreeSet<&'r str>>,
    /// Whether the chain decides every packet that enters it.
    always_decides: bool,
}

impl<'r> Chain<'r> {
    fn new(key: ChainKey<'r>, sides: Set<Side>) -> Chain<'r> {
        let (rules, idle, grows) = (Vec::new(), Vec::new(), Some(BTreeSet::new()));
        Chain { key, rules, idle, sides, is_target: false, grows, always_decides: false }
    }

    /// Whether a rule of the chain may add to the list. True if that is not known.
    pub(super) fn may_grow(&self, list: &str) -> bool {
        self.grows.as_ref().is_none_or(|lists| lists.contains(list))
    }

    /// Adds to the lists that grow in the chain. Returns whether that changed them.
    fn grow(&mut self, more: Option<&BTreeSet<&'r str>>) -> bool {
        let Some(lists) = &mut self.grows else { return false };
        let before = lists.len();
        match more {
            Some(more) => lists.extend(more),
            None => self.grows = None,
        }
        let after = self.grows.as_ref().map(BTreeSet::len);
        if after.is_some_and(|after| after > MOST_GROWING) {
            self.grows = None;
        }
        after != Some(before)
    }
}

/// Rules and settings, and facts derived from them.
pub(super) struct View<'r> {
    pub(super) rules: &'r RuleSet,
    pub(super) settings: &'r Settings,
    /// The chains, in the order of their first rules.
    pub(super) chains: Vec<Chain<'r>>,
    places: HashMap<ChainKey<'r>, usize>,
    /// The lists to which running rules add sources of a family.
    filled: HashSet<(Family, &'r str)>,
}

impl<'r> View<'r> {
    pub(super) fn new(rules: &'r RuleSet, settings: &'r Settings) -> View<'r> {
        let running = rules.rules.iter().filter(|rule| rule.runs());
        let filled = running.filter_map(|rule| Some((rule.family, adds_source(rule)?))).collect();
        let mut view = View { rules, settings, chains: Vec::new(), places: HashMap::new(), filled };
        for rule in &rules.rules {
            let key = ChainKey::of(rule);
            let place = *view.places.entry(key).or_insert_with(|| {
                view.chains.push(Chain::new(key, entering(key, settings)));
                view.chains.len() - 1
            });
            let chain = &mut view.chains[place];
            if rule.runs() { &mut chain.rules } else { &mut chain.idle }.push(rule);
        }
        view.follow_jumps();
        view.follow_growth();
        view.follow_decisions();
        view
    }

    /// Propagates sides to the targets of jumps. Conditions of jumps are ignored, so the result may contain more than
    /// is possible.
    fn follow_jumps(&mut self) {
        let mut waiting: Vec<usize> = (0..self.chains.len()).collect();
        while let Some(place) = waiting.pop() {
            let sides = self.chains[place].sides;
            let targets = self.chains[place].rules.iter().filter_map(|rule| ChainKey::target(rule));
            let targets: Vec<usize> = targets.filter_map(|target| self.places.get(&target).copied()).collect();
            for target in targets {
                self.chains[target].is_target = true;
                let before = self.chains[target].sides;
                if !sides.is_subset(before) {
                    self.chains[target].sides = before.iter().chain(sides.iter()).collect();
                    waiting.push(target);
                }
            }
        }
    }

    /// Propagates growing lists from the rules that add to them back along the jumps.
    fn follow_growth(&mut self) {
        let mut callers: HashMap<usize, BTreeSet<usize>> = HashMap::new();
        for place in 0..self.chains.len() {
            let own: Vec<&str> = self.chains[place].rules.iter().filter_map(|rule| adds(rule)).collect();
            self.chains[place].grow(Some(&own.into_iter().collect()));
            for target in self.chains[place].rules.iter().filter_map(|rule| ChainKey::target(rule)) {
                if let Some(target) = self.places.get(&target) {
                    callers.entry(*target).or_default().insert(place);
                }
            }
        }
        let mut waiting: Vec<usize> = callers.keys().copied().collect();
        while let Some(place) = waiting.pop() {
            let grows = self.chains[place].grows.clone();
            let of = callers.get(&place).into_iter().flatten().copied();
            waiting.extend(of.filter(|caller| self.chains[*caller].grow(grows.as_ref())));
        }
    }

    /// Finds the chains that always decide: one of their rules is a verdict without matchers, or a jump without
    /// matchers to a chain that always decides, and no earlier rule may return.
    fn follow_decisions(&mut self) {
        for _ in 0..MOST_ROUNDS {
            let found = |chain: &Chain<'r>| {
                let mut rules = chain.rules.iter().take_while(|rule| rule.action != Action::Return);
                !chain.always_decides && rules.any(|rule| self.decides_all(chain, rule))
            };
            let found: Vec<usize> = (0..self.chains.len()).filter(|place| found(&self.chains[*place])).collect();
            if found.is_empty() {
                break;
            }
            for place in found {
                self.chains[place].always_decides = true;
            }
        }
    }

    /// Whether some running rule adds a source of this family to the list.
    pub(super) fn fills(&self, family: Family, list: &'r str) -> bool {
        self.filled.contains(&(family, list))
    }

    pub(super) fn chain(&self, key: ChainKey<'_>) -> Option<&Chain<'r>> {
        self.places.get(&key).map(|place| &self.chains[*place])
    }

    /// The chains with running rules that packets enter.
    pub(super) fn live_chains(&self) -> impl Iterator<Item = &Chain<'r>> {
        self.chains.iter().filter(|chain| !chain.sides.is_empty() && !chain.rules.is_empty())
    }

    /// The rules that packets meet, each with its chain.
    pub(super) fn live(&self) -> impl Iterator<Item = (&'r Rule, &Chain<'r>)> {
        self.live_chains().flat_map(|chain| chain.rules.iter().map(move |rule| (*rule, chain)))
    }

    /// The running rules of the chain, and of all chains that it leads to.
    pub(super) fn within(&self, key: ChainKey<'r>) -> Vec<&'r Rule> {
        let (mut found, mut seen, mut waiting) = (Vec::new(), HashSet::from([key]), vec![key]);
        while let Some(key) = waiting.pop() {
            let rules = self.chain(key).map(|chain| chain.rules.clone()).unwrap_or_default();
            waiting
                .extend(rules.iter().filter_map(|rule| ChainKey::target(rule)).filter(|target| seen.insert(*target)));
            found.extend(rules);
        }
        found
    }

    /// Whether the chain decides every packet that enters it.
    fn always_decides(&self, key: ChainKey<'_>) -> bool {
        self.chain(key).is_some_and(|chain| chain.always_decides)
    }

    /// Whether this rule of the chain decides every packet that it meets.
    pub(super) fn decides_all(&self, chain: &Chain<'r>, rule: &Rule) -> bool {
        self.decides(rule) && rule.matchers.iter().all(|matcher| self.is_always(chain, matcher))
    }

    /// As [`decides_all`](Self::decides_all), if all interfaces of unknown side match.
    pub(super) fn may_decide_all(&self, chain: &Chain<'r>, rule: &Rule) -> bool {
        let is_unknown = |matcher: &Matcher| {
            matches!(matcher.condition, Condition::Interface { .. }) && self.sides(matcher).is_none()
        };
        let mut matchers = rule.matchers.iter();
        self.decides(rule) && matchers.all(|matcher| is_unknown(matcher) || self.is_always(chain, matcher))
    }

    /// Whether the rule decides every packet that it matches.
    pub(super) fn decides(&self, rule: &Rule) -> bool {
        match &rule.action {
            Action::Jump(_) => ChainKey::target(rule).is_some_and(|target| self.always_decides(target)),
            action => is_verdict(action),
        }
    }

    /// The sides of the packets for which an interface matcher is true. `None` for another matcher, or if the sides are
    /// not configured.
    pub(super) fn sides(&self, matcher: &Matcher) -> Option<Set<Side>> {
        let Condition::Interface { direction, kind, name } = &matcher.condition else { return None };
        if self.settings.interfaces.leave_open(matcher, &self.rules.interface_lists) {
            return None;
        }
        let meant = self.settings.interfaces.sides(*kind, name, &self.rules.interface_lists)?;
        let is_true = |side: &Side| {
            let on = match direction {
                Direction::In => *side,
                Direction::Out => side.opposite(),
            };
            meant.contains(on) != matcher.negated
        };
        Some(Side::ALL.into_iter().filter(is_true).collect())
    }

    /// Whether the matcher names interfaces that are not a side of the filter.
    pub(super) fn is_elsewhere(&self, matcher: &Matcher) -> bool {
        self.settings.interfaces.is_elsewhere(matcher, &self.rules.interface_lists)
    }

    /// Whether an address of the family is protected, and whether all of them are.
    pub(super) fn protects(&self, family: Family) -> (bool, bool) {
        protects(self.settings, family)
    }
}

/// The sides from which packets enter the chain without a jump.
fn entering(key: ChainKey<'_>, settings: &Settings) -> Set<Side> {
    let (some, all) = protects(settings, key.family);
    let sides = match key.name {
        _ if !key.is_builtin() => [false, false],
        "input" => [some, false],
        "output" => [false, some],
        // Packets from outside enter `prerouting` with any value of `protect`.
        "prerouting" => [true, !all],
        _ => [!all, !all],
    };
    Side::ALL.into_iter().filter(|side| sides[side.index()]).collect()
}

fn protects(settings: &Settings, family: Family) -> (bool, bool) {
    let nets: Vec<IpNet> = settings.protect.iter().filter(|net| Family::of(net.addr()) == family).copied().collect();
    let all = IpNet::aggregate(&nets).iter().any(|net| net.prefix_len() == 0);
    (!nets.is_empty(), all)
}

/// Whether the action decides the packet.
pub(super) const fn is_verdict(action: &Action) -> bool {
    matches!(action, Action::Accept | Action::AcceptDoor(_)) || denies(action)
}

/// Whether the action drops the packet.
pub(super) const fn denies(action: &Action) -> bool {
    matches!(action, Action::Drop | Action::Reject(_) | Action::Tarpit)
}

/// The list that the rule adds the source to.
pub(super) fn adds_source(rule: &Rule) -> Option<&str> {
    match &rule.action {
        Action::AddSrcToAddressList(add) => Some(&add.list),
        _ => None,
    }
}

/// The list that the rule adds to.
pub(super) fn adds(rule: &Rule) -> Option<&str> {
    match &rule.action {
        Action::AddSrcToAddressList(add) | Action::AddDstToAddressList(add) => Some(&add.list),
        _ => None,
    }
}

/// The lists that the source must be in.
pub(super) fn needed(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.matchers.iter().filter(|matcher| !matcher.negated).filter_map(|matcher| match &matcher.condition {
        Condition::SrcAddressList(list) => Some(list.as_str()),
        _ => None,
    })
}
