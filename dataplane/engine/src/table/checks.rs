//! Checks of a rule set before it is compiled.

use knockplane_policy::door;
use knockplane_policy::packet::Family;
use knockplane_policy::rule::{AddressSet, Condition, EntryAddress, RuleFileEntry, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::MAX_NAMES;

use super::{RuleSetError, running};
use crate::state::matchers::connection_limits::MOST_MATCHERS;
use crate::state::matchers::rate_limiters::ScanWeights;

pub(super) fn check_addresses(rules: &RuleSet, problems: &mut Vec<RuleSetError>) {
    let mixed = |condition: &Condition| match condition {
        Condition::SrcAddress(AddressSet::Range(first, last))
        | Condition::DstAddress(AddressSet::Range(first, last)) => Family::of(*first) != Family::of(*last),
        _ => false,
    };
    for (_, rule) in running(rules) {
        if rule.matchers.iter().any(|matcher| mixed(&matcher.condition)) {
            problems.push(RuleSetError::MixedRange { rule: rule.into() });
        }
    }
}

/// Refuses a rule that can never run, unless it is disabled: its action may be to drop.
pub(super) fn check_invalid(rules: &RuleSet, problems: &mut Vec<RuleSetError>) {
    for rule in rules.rules.iter().filter(|rule| !rule.disabled) {
        if let Some(reason) = &rule.invalid {
            problems.push(RuleSetError::Invalid { rule: rule.into(), reason: reason.clone() });
        }
    }
}

/// Checks that only knocks fill the lists of doors, and that the number of host names is within the limit of the
/// control process.
pub(super) fn check_entries(rules: &RuleSet, settings: &Settings, problems: &mut Vec<RuleSetError>) {
    let of_doors: Vec<String> = door::levels(&settings.doors).map(|(list, _)| list).collect();
    for entry in rules.address_lists.iter().filter(|entry| !entry.disabled) {
        if of_doors.contains(&entry.list) {
            problems.push(RuleSetError::DoorsList { line: entry.line, list: entry.list.clone() });
        }
    }
    let is_name = |entry: &&RuleFileEntry| !entry.disabled && matches!(entry.address, EntryAddress::Name(_));
    if let Some(entry) = rules.address_lists.iter().filter(is_name).nth(MAX_NAMES) {
        problems.push(RuleSetError::TooManyNames { line: entry.line });
    }
}

/// Refuses a matcher of an interface without a side. The matcher would never match, even in a rule that drops packets.
pub(super) fn check_interfaces(rules: &RuleSet, settings: &Settings, problems: &mut Vec<RuleSetError>) {
    for (_, rule) in running(rules) {
        for matcher in &rule.matchers {
            if let Condition::Interface { name, .. } = &matcher.condition
                && settings.interfaces.leave_open(matcher, &rules.interface_lists)
            {
                problems.push(RuleSetError::Unmapped { rule: rule.into(), name: name.clone() });
            }
        }
    }
}

/// Checks the limits of matcher state.
pub(super) fn check_memories(rules: &RuleSet, problems: &mut Vec<RuleSetError>) {
    let mut connection_limits = 0;
    for (_, rule) in running(rules) {
        for matcher in &rule.matchers {
            match matcher.condition {
                Condition::Psd { weight, delay, low_weight, high_weight } => {
                    let weights = ScanWeights { threshold: weight, delay, low: low_weight, high: high_weight };
                    if let Some(ports) = weights.too_many_ports() {
                        problems.push(RuleSetError::TooManyPorts { rule: rule.into(), ports });
                    }
                }
                Condition::ConnectionLimit { .. } => {
                    connection_limits += 1;
                    if connection_limits == MOST_MATCHERS + 1 {
                        problems.push(RuleSetError::TooManyConnectionLimits { rule: rule.into() });
                    }
                }
                _ => {}
            }
        }
    }
}
