//! Chains that no packet enters, jumps without effect, and packets that no rule decides.

use std::collections::HashSet;

use super::view::{Chain, ChainKey, View, denies, is_verdict, needed};
use super::{Code, Lint};
use crate::reason::Verdict;
use crate::rsc::nearest;
use crate::rule::{Action, BuiltinChain, Rule, Table};

pub(super) fn lints(view: &View<'_>, lints: &mut Vec<Lint>) {
    for (rule, _) in view.live() {
        lints.extend(ChainKey::target(rule).and_then(|target| empty_jump(view, rule, target)));
    }
    let reached = reached(view);
    let idle_targets = view.rules.rules.iter().filter(|rule| !rule.runs()).filter_map(ChainKey::target).collect();
    for chain in view.chains.iter().filter(|chain| !chain.rules.is_empty()) {
        if !reached.contains(&chain.key) {
            lints.extend(unused(chain, &idle_targets));
        } else if chain.key.is_builtin() && chain.sides.is_empty() {
            lints.push(dead(view, chain));
        } else if chain.key.table == Table::Filter {
            no_final_drop(view, chain, lints);
        }
    }
}

fn empty_jump(view: &View<'_>, rule: &Rule, target: ChainKey<'_>) -> Option<Lint> {
    let (name, chain) = (target.name, view.chain(target));
    if chain.is_some_and(|chain| !chain.rules.is_empty()) {
        return None;
    }
    let idle = chain.map(|chain| chain.idle.as_slice()).unwrap_or_default();
    let disabled = idle.iter().filter(|rule| rule.disabled).count();
    let why = match (disabled, idle.len() - disabled) {
        (0, 0) => "has no rules".to_owned(),
        (disabled, 0) => format!("has no running rule ({disabled} disabled)"),
        (0, invalid) => format!("has no running rule ({invalid} invalid)"),
        (disabled, invalid) => format!("has no running rule ({disabled} disabled, {invalid} invalid)"),
    };
    let sentence = format!("this jump has no effect: the chain `{name}` {why}");
    let others = view.chains.iter().map(|chain| chain.key);
    let others =
        others.filter(|other| (other.table, other.family) == (target.table, target.family) && *other != target);
    let remedy = match nearest(name, others.map(|other| other.name)).filter(|_| chain.is_none()) {
        Some(other) => format!("did you mean `{other}`?"),
        None => "enable or write the chain's rules, or disable the jump".to_owned(),
    };
    let lint = Lint::new(Code::EmptyJump, rule, sentence, remedy).at("jump-target");
    Some(match idle.first() {
        Some(idle) => lint.also(idle, format!("the first rule of `{name}`")),
        None => lint,
    })
}

/// The chains that packets could enter with any value of `protect`.
fn reached<'r>(view: &View<'r>) -> HashSet<ChainKey<'r>> {
    let mut reached: HashSet<ChainKey<'_>> =
        view.chains.iter().map(|chain| chain.key).filter(|key| key.is_builtin()).collect();
    let mut waiting: Vec<ChainKey<'_>> = reached.iter().copied().collect();
    while let Some(key) = waiting.pop() {
        let rules = view.chain(key).map(|chain| chain.rules.as_slice()).unwrap_or_default();
        waiting.extend(rules.iter().filter_map(|rule| ChainKey::target(rule)).filter(|target| reached.insert(*target)));
    }
    reached
}

/// The lint about an unused chain. There is none for a chain whose jump is disabled, or whose rules have no effect:
/// RouterOS reserves such a chain as a place for rules.
fn unused(chain: &Chain<'_>, idle_targets: &HashSet<ChainKey<'_>>) -> Option<Lint> {
    let ChainKey { table, name, .. } = chain.key;
    let does_something = |rule: &&Rule| !matches!(rule.action, Action::Passthrough | Action::Return);
    if idle_targets.contains(&chain.key) {
        return None;
    }
    let first = chain.rules.iter().find(|rule| does_something(rule))?;
    let sentence =
        format!("no packet enters the chain `{name}`, because no jump leads there: its rules have no effect");
    let remedy = match nearest(name, table.builtin_chains().iter().copied()) {
        Some(builtin) => format!("did you mean `{builtin}`?"),
        None => format!("add a rule with `action=jump jump-target={name}`, or disable the chain's rules"),
    };
    Some(Lint::new(Code::UnusedChain, first, sentence, remedy).at("chain"))
}

fn dead(view: &View<'_>, chain: &Chain<'_>) -> Lint {
    let name = chain.key.name;
    let (some, _) = view.protects(chain.key.family);
    let sentence = match some {
        true => format!(
            "no packet enters `{name}`, so none of its rules ever matches: every address is protected, and so packets from \
             outside are `input` and those from inside are `output`"
        ),
        false => format!(
            "no packet enters `{name}`, so none of its rules ever matches: no address of this family is protected, and so \
             every packet is `forward`"
        ),
    };
    let remedy = match some {
        true => format!("list the router's own addresses in `protect` of [policy], or move the rules out of `{name}`"),
        false => format!("list such addresses in `protect` of [policy], or move the rules out of `{name}`"),
    };
    Lint::new(Code::DeadChain, chain.rules[0], sentence, remedy).at("chain")
}

/// Reports chains in which packets may reach the default of the chain, which for most chains differs from RouterOS's
/// default.
fn no_final_drop(view: &View<'_>, chain: &Chain<'_>, lints: &mut Vec<Lint>) {
    let Some(builtin) = BuiltinChain::ALL.into_iter().find(|builtin| builtin.name() == chain.key.name) else { return };
    let rest = match view.settings.chain_default.verdict(builtin) {
        Verdict::Drop => {
            lints.extend(chain.rules.iter().filter(|rule| rule.action == Action::Return).map(|rule| returned(rule)));
            rest_is_dropped(view, chain)
        }
        Verdict::Forward => rest_is_accepted(view, chain),
    };
    lints.extend(rest.filter(|_| !chain.rules.iter().any(|rule| view.may_decide_all(chain, rule))));
}

fn returned(rule: &Rule) -> Lint {
    let name = &rule.chain;
    let sentence = format!(
        "packets that this rule returns from `{name}` are dropped ({}); RouterOS accepts them",
        setting(name, "drop")
    );
    Lint::new(Code::NoFinalDrop, rule, sentence, "write `action=accept` or `action=drop` instead").at("action")
}

fn rest_is_dropped(view: &View<'_>, chain: &Chain<'_>) -> Option<Lint> {
    let (name, last) = (chain.key.name, chain.rules.last()?);
    view.within(chain.key).iter().any(|rule| is_verdict(&rule.action)).then(|| {
        let sentence = format!(
            "packets that no rule of `{name}` decides about are dropped ({}); RouterOS accepts them",
            setting(name, "drop")
        );
        let remedy = format!("end the chain with `add chain={name} action=drop`, or with another verdict");
        Lint::new(Code::NoFinalDrop, last, sentence, remedy)
    })
}

/// The lint about a chain that accepts the rest of the packets. It is reported only if sources without a knock are
/// accepted as well.
fn rest_is_accepted(view: &View<'_>, chain: &Chain<'_>) -> Option<Lint> {
    let (name, last) = (chain.key.name, chain.rules.last().filter(|last| !denies(&last.action))?);
    let within = view.within(chain.key);
    let door = within.iter().find(|rule| rule.action == Action::Accept && needed(rule).next().is_some())?;
    let sentence = format!(
        "packets that no rule of `{name}` decides about are accepted ({}), from listed sources and all others",
        setting(name, "accept")
    );
    let remedy = format!("end the chain with `add chain={name} action=drop`");
    let lint = Lint::new(Code::NoFinalDrop, last, sentence, remedy);
    Some(lint.also(door, "this accepts only sources in a list"))
}

fn setting(chain: &str, choice: &str) -> String {
    format!("`{chain} = \"{choice}\"` in [policy.chain-default]")
}
