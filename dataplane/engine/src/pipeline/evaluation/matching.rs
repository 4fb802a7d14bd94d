//! The matchers of a rule that need more than the headers.

use knockplane_policy::eval::{clock, keyed};

use super::RuleEvaluation;
use crate::pipeline::Context;
use crate::pipeline::dependencies::Dependency;
use crate::pipeline::effects::Effects;
use crate::state::server_name::ServerName;
use crate::table::{CompiledRule, StateTest, Test};

impl<E: Effects> RuleEvaluation<'_, E> {
    /// The first matcher of a rule that does not match. A matcher that does not apply to the packet never matches, also
    /// if it is negated.
    pub(super) fn first_miss<'r>(&mut self, rule: &'r CompiledRule) -> Option<&'r Test<StateTest>> {
        rule.state.iter().find(|test| {
            let answer = self.ask(&test.question);
            answer.is_none_or(|answer| answer == test.negated)
        })
    }

    /// The result of a matcher. `None` if it does not apply to the packet.
    fn ask(&mut self, question: &StateTest) -> Option<bool> {
        let RuleEvaluation { facts, effects } = self;
        let Context { table, state, wall, .. } = facts.context;
        let packet = facts.packet;
        Some(match question {
            StateTest::Header(test) => test.asks(&facts.view, table.about())?,
            StateTest::Source(list) => facts.is_source_listed(*list),
            StateTest::Destination(list) => facts.is_destination_listed(*list),
            StateTest::ConnectionState(states) => states.contains(facts.seen?.state),
            StateTest::ConnectionDoor(open) => facts.flow()?.door == Some(*open),
            StateTest::TlsHost(name) => match facts.server_name()? {
                ServerName::Unknown => return None,
                ServerName::Fits(names) => names.contains(*name),
            },
            StateTest::Time { from, to, days } => {
                facts.dependencies.insert(Dependency::Time);
                let utc = (wall + i128::from(facts.now.as_nanos())).div_euclid(1_000_000_000);
                clock::holds(utc + i128::from(table.settings().time_zone.seconds()), *from, *to, *days)
            }
            StateTest::ConnectionBytes { from, to } => {
                facts.dependencies.insert(Dependency::ConnectionTraffic);
                (*from..=*to).contains(&facts.flow()?.bytes)
            }
            StateTest::ConnectionRate(from, to) => {
                facts.dependencies.insert(Dependency::ConnectionTraffic);
                (*from..=*to).contains(&facts.flow()?.last_second.saturating_mul(8))
            }
            StateTest::Content(content) => {
                facts.dependencies.insert(Dependency::Payload);
                content.find(packet.payload).is_some()
            }
            StateTest::Layer7(pattern) => facts.patterns().contains(*pattern),
            StateTest::Classifier { fields, denominator, remainder } => {
                keyed::classifier(state.secret(), *fields, packet).checked_rem(*denominator)? == *remainder
            }
            StateTest::ConnectionLimit { .. }
            | StateTest::Psd(..)
            | StateTest::Random(_)
            | StateTest::Nth { .. }
            | StateTest::Limit(..)
            | StateTest::DstLimit { .. } => effects.ask_memory(facts, question)?,
        })
    }
}
