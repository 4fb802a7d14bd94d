//! Explains a decision that a worker made, from its record.
//!
//! The record is the truth: verdict, reason, the rules that matched, and the results at doors. The evaluator follows it, and
//! derives why the other rules did not match: from the packet, from the state of its connection, and from the lists that had its
//! addresses before it. A matcher that depends on other state of the dataplane (a limit, the bytes of a connection, a
//! stream) is not evaluated: the record says whether its rule matched.

use std::collections::HashSet;

use super::RuleOutcome;
use super::rule_evaluation::RuleEvaluation;
use crate::door::Door;
use crate::reason::{Reason, Verdict};
use crate::rule::{Condition, ConnectionState};
use crate::time::format_duration;
use crate::trace::{TracedFacts, TracedOutcome};
use crate::word::Word as _;

/// The decision of a worker, with its facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The verdict.
    pub verdict: Verdict,
    /// Its reason.
    pub reason: Reason,
    /// The facts.
    pub facts: TracedFacts,
    /// Whether all bytes of the frame are known.
    pub is_whole: bool,
}

/// A record, and the part of it that the evaluation has reached.
pub(super) struct Replay<'e> {
    record: &'e Record,
    /// The next rule among those that matched.
    next: usize,
    /// The number of rules whose derived outcome contradicts the record.
    pub(super) contradicted: usize,
    /// The lists of the source and of the destination.
    lists: [HashSet<String>; 2],
}

impl<'e> Replay<'e> {
    pub(super) fn of(record: &'e Record) -> Replay<'e> {
        let lists = record.facts.lists.each_ref().map(|lists| lists.iter().cloned().collect());
        Replay { record, next: 0, contradicted: 0, lists }
    }

    pub(super) fn decision(&self) -> (Verdict, Reason) {
        (self.record.verdict, self.record.reason)
    }

    pub(super) fn state(&self) -> ConnectionState {
        self.record.facts.state.unwrap_or(ConnectionState::Untracked)
    }

    pub(super) fn is_answered(&self) -> bool {
        self.record.facts.answered
    }

    /// The lists of the source, or of the destination.
    pub(super) fn lists(&self, of_source: bool) -> &HashSet<String> {
        &self.lists[usize::from(!of_source)]
    }

    /// Removes a list from those of the source or the destination, if its entry has ended.
    pub(super) fn unlist(&mut self, list: &str, of: [bool; 2]) {
        for (lists, _) in self.lists.iter_mut().zip(of).filter(|(_, is)| *is) {
            lists.remove(list);
        }
    }

    /// Whether the packet and the recorded facts decide about a condition.
    pub(super) fn decides(&self, condition: &Condition) -> bool {
        match condition {
            Condition::ConnectionBytes { .. }
            | Condition::ConnectionRate(_)
            | Condition::ConnectionLimit { .. }
            | Condition::ConnectionDoor(_)
            | Condition::Psd { .. }
            | Condition::Random(_)
            | Condition::Nth { .. }
            | Condition::PerConnectionClassifier { .. }
            | Condition::Limit(_)
            | Condition::DstLimit { .. }
            | Condition::Layer7(_)
            | Condition::TlsHost(_) => false,
            Condition::Content(_) => self.record.is_whole,
            _ => true,
        }
    }

    /// The result of the packet at a door, in words. Later rules see its effect on the lists.
    pub(super) fn knock(&mut self, door: &Door) -> Option<String> {
        let name = &door.name;
        let knocks = self.record.facts.knocks.iter().filter(|knock| knock.door == *name);
        let mut told = Vec::new();
        for knock in knocks {
            told.push(match knock.outcome {
                TracedOutcome::Step(step) => format!("step {step} of door {name}"),
                TracedOutcome::Opened => {
                    self.lists[0].insert(door.open_list());
                    self.lists[0].remove(&door.knocking_list());
                    format!("door {name} opened for {}", format_duration(door.open_for))
                }
                TracedOutcome::Closed => {
                    self.lists[0].remove(&door.open_list());
                    format!("door {name} closed")
                }
                TracedOutcome::Failed(failure) => format!("a failed step of door {name}: {}", failure.name()),
            });
        }
        (!told.is_empty()).then(|| told.join("; "))
    }
}

impl RuleEvaluation<'_, '_> {
    /// The outcome of a rule according to the record, if there is one: `None` if it matched. `missed` is the derived outcome.
    pub(super) fn corrected(&mut self, index: usize, missed: Option<RuleOutcome>) -> Option<RuleOutcome> {
        let Some(replay) = &mut self.record else { return missed };
        let facts = &replay.record.facts;
        let has_matched = match facts.matched.get(replay.next) {
            Some(next) => *next == index,
            // The record has no further rules except the last one.
            None if facts.last.is_some() => return missed.filter(|_| facts.last != Some(index)),
            None => false,
        };
        if has_matched {
            replay.next += 1;
            replay.contradicted += usize::from(missed.is_some());
            return None;
        }
        if missed.is_some() {
            return missed;
        }
        let matchers = &self.evaluator.rules.rules[index].matchers;
        let mut order = self.evaluator.orders[index].iter().copied();
        let matcher = order.find(|matcher| !replay.decides(&matchers[*matcher].condition));
        replay.contradicted += usize::from(matcher.is_none());
        Some(RuleOutcome::Unexplained { matcher })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::eval::Evaluator;
    use crate::packet::{Packet, Side, protocol};
    use crate::rsc;
    use crate::settings::Settings;
    use crate::time::Time;

    const RULES: &str = "/ip firewall filter
add chain=input protocol=tcp dst-port=1 action=add-src-to-address-list address-list=first address-list-timeout=9s
add chain=input src-address-list=first protocol=tcp dst-port=2 action=add-src-to-address-list address-list=second address-list-timeout=9s
add chain=input src-address-list=second action=accept
add chain=input connection-state=established action=accept
add chain=input protocol=tcp limit=1,5:packet action=accept
add chain=input action=drop
";

    fn outcomes(facts: TracedFacts, (verdict, reason): (Verdict, Reason), port: u16) -> (Vec<RuleOutcome>, usize) {
        let rules = rsc::read(RULES.as_bytes());
        assert_eq!(rules.problems, []);
        let [source, destination] = ["192.0.2.1", "203.0.113.5"].map(|address| address.parse::<IpAddr>().expect("one"));
        let ports = Some((40_000, port));
        let packet = Packet { ports, ..Packet::bare(Side::Outside, source, destination, protocol::TCP) };
        let settings = Settings::default();
        let record = Record { verdict, reason, facts, is_whole: true };
        let explanation =
            Evaluator::new(&rules.rules, &settings, 0).explain_recorded(&packet, Time::default(), &record);
        assert_eq!((explanation.evaluation.verdict, explanation.evaluation.reason), (verdict, reason));
        (explanation.tried.into_iter().map(|tried| tried.outcome).collect(), explanation.contradicted)
    }

    fn observed(outcome: &RuleOutcome) -> &str {
        match outcome {
            RuleOutcome::Missed { observed, .. } => observed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn misses_follow_from_the_recorded_lists_and_state() {
        let state = Some(ConnectionState::New);
        let lists = [vec!["first".to_owned()], Vec::new()];
        let facts = TracedFacts { matched: vec![1, 2], state, lists, ..TracedFacts::default() };
        let (outcomes, contradicted) = outcomes(facts, (Verdict::Forward, Reason::Rule), 2);
        assert_eq!(contradicted, 0);
        assert_eq!(observed(&outcomes[0]), "dst-port is 2");
        let effect = "added 192.0.2.1 to second for 9s".to_owned();
        assert_eq!(outcomes[1], RuleOutcome::Matched { effect: Some(effect) });
        assert_eq!((&outcomes[2], outcomes.len()), (&RuleOutcome::Matched { effect: None }, 3));
    }

    #[test]
    fn a_limit_is_as_the_record_says() {
        let state = Some(ConnectionState::New);
        let facts = |matched| TracedFacts { matched, state, ..TracedFacts::default() };
        let (dropped, contradicted) = outcomes(facts(vec![5]), (Verdict::Drop, Reason::Rule), 3);
        assert_eq!(contradicted, 0);
        assert_eq!(observed(&dropped[2]), "192.0.2.1 is not in second");
        assert_eq!(observed(&dropped[3]), "connection-state is new");
        assert!(matches!(dropped[4], RuleOutcome::Unexplained { matcher: Some(_) }), "{:?}", dropped[4]);
        let (accepted, _) = outcomes(facts(vec![4]), (Verdict::Forward, Reason::Rule), 3);
        assert_eq!((&accepted[4], accepted.len()), (&RuleOutcome::Matched { effect: None }, 5));
    }

    #[test]
    fn the_record_decides_where_the_derived_outcome_differs() {
        // The source was in the list for the worker, and the record does not have it.
        let facts = TracedFacts { matched: vec![2], ..TracedFacts::default() };
        let (matched, contradicted) = outcomes(facts, (Verdict::Forward, Reason::Rule), 3);
        assert_eq!((matched.last(), contradicted), (Some(&RuleOutcome::Matched { effect: None }), 1));
        let facts =
            TracedFacts { matched: vec![5], state: Some(ConnectionState::Established), ..TracedFacts::default() };
        let (missed, contradicted) = outcomes(facts, (Verdict::Drop, Reason::Rule), 3);
        assert_eq!((&missed[3], contradicted), (&RuleOutcome::Unexplained { matcher: None }, 1));
    }
}
