//! The rules and doors that may accept the first packet of a connection from outside. A change of the rules must not
//! close the last of them unnoticed.

use super::view::{Chain, ChainKey, View};
use crate::packet::{Family, Side};
use crate::reason::Verdict;
use crate::rule::{Action, BuiltinChain, Condition, ConnectionState, Rule, RuleSet, Table};
use crate::settings::Settings;

/// A rule, door or default that may accept a packet from outside without a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayIn {
    /// A door of the configuration, by its name.
    Door(String),
    /// A rule that accepts, by its index in the rule set. The rule may match lists that knocks or operators fill.
    Rule(usize),
    /// A chain that accepts packets without a deciding rule.
    Default(BuiltinChain),
}

/// All ways in, in the order of doors, rules and defaults. A rule is omitted if an analysis of single rules shows that
/// no new packet from outside can meet or match it.
pub fn ways_in(rules: &RuleSet, settings: &Settings) -> Vec<WayIn> {
    let view = View::new(rules, settings);
    let doors = settings.doors.iter().map(|door| WayIn::Door(door.name.clone()));
    let accepts = rules.rules.iter().enumerate().filter(|(_, rule)| !rule.dynamic && lets_in(&view, rule));
    let defaults = [BuiltinChain::Input, BuiltinChain::Forward].into_iter().filter(|chain| is_open(&view, *chain));
    doors.chain(accepts.map(|(place, _)| WayIn::Rule(place))).chain(defaults.map(WayIn::Default)).collect()
}

fn lets_in(view: &View<'_>, rule: &Rule) -> bool {
    let accepts = rule.runs() && rule.table == Table::Filter && rule.action == Action::Accept;
    let Some(chain) = view.chain(ChainKey::of(rule)).filter(|_| accepts) else { return false };
    let before = chain.rules.iter().take_while(|other| !std::ptr::eq(**other, rule));
    from_outside(view, chain, rule)
        && !excludes_new(rule)
        && view.never(chain, rule).is_none()
        && !before.into_iter().any(|other| view.decides_all(chain, other))
}

/// Whether packets from outside meet the rule, and its interfaces match them.
fn from_outside(view: &View<'_>, chain: &Chain<'_>, rule: &Rule) -> bool {
    let is_right = |sides: crate::word::Set<Side>| sides.contains(Side::Outside);
    chain.sides.contains(Side::Outside) && rule.matchers.iter().filter_map(|matcher| view.sides(matcher)).all(is_right)
}

/// Whether the rule matches packets of existing connections only.
fn excludes_new(rule: &Rule) -> bool {
    rule.matchers.iter().any(|matcher| match &matcher.condition {
        Condition::ConnectionState(states) if !states.is_empty() => {
            let may_begin = [ConnectionState::New, ConnectionState::Untracked];
            may_begin.iter().all(|state| states.contains(*state) == matcher.negated)
        }
        _ => false,
    })
}

/// Whether packets of some family from outside enter the chain, and no rule decides all of them.
fn is_open(view: &View<'_>, builtin: BuiltinChain) -> bool {
    view.settings.chain_default.verdict(builtin) == Verdict::Forward
        && [Family::Ipv4, Family::Ipv6].into_iter().any(|family| {
            let key = ChainKey { table: Table::Filter, family, name: builtin.name() };
            let (some, all) = view.protects(family);
            let enters = if builtin == BuiltinChain::Input { some } else { !all };
            let decided = |chain: &Chain<'_>| chain.rules.iter().any(|rule| view.decides_all(chain, rule));
            enters && !view.chain(key).is_some_and(decided)
        })
}
