//! What rules can say and the engine cannot do yet.
//!
//! Both lists name what is supported, so that whatever the language gains is refused until somebody runs it.

use knockplane_policy::rule::{Action, Condition, EntryAddress, Rule, RuleSet, Table};

use super::{Problem, running};

/// One problem for each rule that says such a thing, and one for all entries that lists hold from the start.
///
/// A rule that nobody can run is refused as well, unless it is disabled: it may be the one that was to drop.
pub(super) fn check(rules: &RuleSet, problems: &mut Vec<Problem>) {
    for rule in rules.rules.iter().filter(|rule| !rule.disabled) {
        if let Some(reason) = &rule.invalid {
            problems.push(Problem::Invalid { rule: rule.into(), reason: reason.clone() });
        }
    }
    for (_, rule) in running(rules) {
        let what = of(rule);
        if !what.is_empty() {
            problems.push(Problem::NotYet { rule: rule.into(), what });
        }
    }
    let live = || rules.address_lists.iter().filter(|entry| !entry.disabled && entry.address != EntryAddress::None);
    if let Some(first) = live().next() {
        let (line, list, entries) = (first.line, first.list.clone(), live().count());
        problems.push(Problem::EntriesNotYet { line, list, entries });
    }
}

fn of(rule: &Rule) -> Vec<String> {
    let table = (rule.table == Table::Raw).then_some("raw");
    let matchers = rule.matchers.iter().map(|matcher| &matcher.condition).filter(|condition| !answers(condition));
    let action = (!does(&rule.action)).then_some(rule.action.name());
    let log = (rule.log.is_some() && rule.action != Action::Log).then_some("log");
    let what = table.into_iter().chain(matchers.map(Condition::name)).chain(action).chain(log);
    what.map(str::to_owned).collect()
}

const fn answers(condition: &Condition) -> bool {
    matches!(
        condition,
        Condition::SrcAddress(_)
            | Condition::DstAddress(_)
            | Condition::Protocol(_)
            | Condition::SrcAddressList(_)
            | Condition::DstAddressList(_)
            | Condition::PacketSize(_)
            | Condition::SrcPort(_)
            | Condition::DstPort(_)
            | Condition::AnyPort(_)
            | Condition::IcmpOptions { .. }
            | Condition::Layer7(_)
    )
}

const fn does(action: &Action) -> bool {
    matches!(
        action,
        Action::Accept
            | Action::Drop
            | Action::Passthrough
            | Action::AddSrcToAddressList(_)
            | Action::AddDstToAddressList(_)
            | Action::Jump(_)
            | Action::Return
    )
}
