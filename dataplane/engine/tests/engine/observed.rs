//! Observed decisions are the decisions without an observer, and their records explain them.

use knockplane_engine::pipeline::Decision;
use knockplane_engine::pipeline::observer::{Observed, Observer};
use knockplane_engine::state::list_set::ListSet;
use knockplane_engine::state::lists::Lists;
use knockplane_policy::door;
use knockplane_policy::eval::Evaluator;
use knockplane_policy::eval::recorded::Record;
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::trace::{TracedFacts, TracedKnock};
use proptest::prelude::*;

use crate::common::{Engine, SECRET, Spec, Transport, cases};
use crate::reference::{Turn, rules, settings, turns};

/// Records the packets with an even destination port, and those without ports.
struct Recorder<'l> {
    lists: &'l Lists,
    /// Each with its position in the batch.
    records: Vec<(usize, Record)>,
    /// The position in `records` of the last packet that was evaluated, if that packet is there.
    last_evaluated: Option<usize>,
}

fn is_wanted(packet: &Packet<'_>) -> bool {
    packet.ports.is_none_or(|(_, destination)| destination % 2 == 0)
}

impl Observer for Recorder<'_> {
    const OBSERVES: bool = true;

    fn wants(&mut self, packet: &Packet<'_>) -> bool {
        self.last_evaluated = None;
        is_wanted(packet)
    }

    fn decided(&mut self, frame: usize, _packet: &Packet<'_>, observed: &Observed<'_>) {
        let Decision { verdict, reason } = observed.decision;
        let names = |set: ListSet| set.lists().filter_map(|list| self.lists.name(list)).collect();
        let knocks = observed.knocks.iter().filter_map(|(open, what)| {
            let door = self.lists.name(*open)?.strip_prefix("door-")?.to_owned();
            Some(TracedKnock { door, outcome: (*what).into() })
        });
        let facts = TracedFacts {
            matched: observed.rules.iter().map(|rule| *rule as usize).collect(),
            last: observed.last.map(|rule| rule as usize),
            state: observed.state,
            lists: observed.lists.map(names),
            knocks: knocks.collect(),
            answered: observed.answered,
        };
        self.last_evaluated = Some(self.records.len());
        self.records.push((frame, Record { verdict, reason, facts, is_whole: true }));
    }

    fn repeated(&mut self, frame: usize, _packet: &Packet<'_>) {
        if let Some(position) = self.last_evaluated {
            let (_, record) = self.records[position].clone();
            self.records.push((frame, record));
        }
    }

    fn unseen(&mut self, _frame: usize, _side: Side, _bytes: &[u8], _decision: Decision, _arrived: Time) {}
}

fn assert_explained(rules: &RuleSet, settings: &Settings, turns: &[Turn]) {
    let [mut plain, mut observed] = [(); 2].map(|()| Engine::new(rules.clone(), settings));
    let rules = &door::rules(settings, rules.clone());
    let mut now = Time::from_nanos(5);
    for (pause, side, specs) in turns {
        now = now + *pause;
        let frames: Vec<Vec<u8>> = specs.iter().map(Spec::frame).collect();
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let records = observed.with(|decider, context| {
            let mut recorder = Recorder { lists: &context.state.lists, records: Vec::new(), last_evaluated: None };
            decider.decide_observed(*side, &frames, (|_| now, false), context, &mut recorder);
            recorder.records
        });
        let decisions = plain.decide(*side, &frames, now).to_vec();
        assert_eq!(observed.decider.decisions(), decisions);
        let wanted = specs.iter().zip(&frames).enumerate().filter_map(|(index, (spec, frame))| {
            let packet = spec.packet(*side, frame);
            is_wanted(&packet).then_some((index, packet))
        });
        let wanted: Vec<_> = wanted.collect();
        assert!(records.iter().map(|(index, _)| index).eq(wanted.iter().map(|(index, _)| index)), "{wanted:?}");
        for ((index, record), (_, packet)) in records.iter().zip(&wanted) {
            let Decision { verdict, reason } = decisions[*index];
            let explanation = Evaluator::new(rules, settings, SECRET[0]).explain_recorded(packet, now, record);
            let evaluation = &explanation.evaluation;
            assert_eq!((evaluation.verdict, evaluation.reason), (verdict, reason), "{packet:?}");
            assert!(evaluation.matched.starts_with(&record.facts.matched), "{packet:?} {record:?} {explanation:?}");
            assert!(record.facts.last.is_some() || evaluation.matched.len() == record.facts.matched.len());
            assert_eq!(explanation.contradicted, 0, "{packet:?} {record:?} {explanation:?}");
        }
    }
    assert_eq!(plain.rule_packets(), observed.rule_packets());
}

#[test]
fn a_frame_that_rules_do_not_see_hides_no_repeated_packet() {
    let settings = Settings::default();
    let mut engine = Engine::new(RuleSet::default(), &settings);
    let dropped = Spec::new("198.51.100.7", Transport::Udp(40_000, 22), b"").frame();
    // A request of ARP.
    let mut request = vec![0xff; 60];
    request[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    let frames: [&[u8]; 5] = [&dropped, &dropped, &request, &dropped, &dropped];
    let now = Time::from_nanos(5);
    let (positions, evaluated) = engine.with(|decider, context| {
        let mut recorder = Recorder { lists: &context.state.lists, records: Vec::new(), last_evaluated: None };
        decider.decide_observed(Side::Outside, &frames, (|_| now, false), context, &mut recorder);
        let positions: Vec<_> = recorder.records.iter().map(|(frame, _)| *frame).collect();
        (positions, recorder.last_evaluated)
    });
    assert_eq!((positions, evaluated), (vec![0, 1, 3, 4], Some(0)), "all are in one run");
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn observed_decisions_are_the_same_and_their_records_explain_them(
        rules in rules(), settings in settings(), turns in turns()
    ) {
        assert_explained(&rules, &settings, &turns);
    }
}
