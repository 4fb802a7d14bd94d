//! Tests of state outside the headers: lists, connections, payloads, the clock, and matcher state.

use std::time::Duration;

use knockplane_policy::packet::Family;
use knockplane_policy::rule::{ClassifierFields, Condition, ConnectionState, LimitMode, Matcher, Rate, Weekday};
use knockplane_policy::word::Set;
use memchr::memmem::Finder;

use super::RuleNames;
use super::question::{About, HeaderTest, Test, header_test};
use crate::state::lists::ListId;
use crate::state::matchers::connection_limits::MatcherId;
use crate::state::matchers::rate_limiters::{LimiterId, ScanWeights};

/// A test of state. Ranges include both ends.
pub(crate) enum StateTest {
    /// A test of headers behind a test that changes state. It runs in its turn.
    Header(HeaderTest),
    Source(ListId),
    Destination(ListId),
    /// The position of the name among the server names.
    TlsHost(usize),
    Time {
        from: Duration,
        to: Duration,
        days: Set<Weekday>,
    },
    ConnectionState(Set<ConnectionState>),
    /// The door's open list.
    ConnectionDoor(ListId),
    ConnectionBytes {
        from: u64,
        to: u64,
    },
    ConnectionRate(u64, u64),
    ConnectionLimit {
        matcher: MatcherId,
        count: u32,
        prefix_length: u8,
    },
    Content(Box<Finder<'static>>),
    Psd(LimiterId, ScanWeights),
    /// The position of the pattern among the patterns.
    Layer7(usize),
    Random(u8),
    Nth {
        limiter: LimiterId,
        every: u32,
        packet: u32,
    },
    Classifier {
        fields: ClassifierFields,
        denominator: u32,
        remainder: u32,
    },
    Limit(LimiterId, Rate),
    DstLimit {
        limiter: LimiterId,
        rate: Rate,
        mode: LimitMode,
        expire: Duration,
    },
}

impl StateTest {
    /// Whether the test changes state. Such a test must run only for packets that match all tests before it, and the
    /// tests behind it must run after it.
    pub(crate) const fn learns(&self) -> bool {
        matches!(
            self,
            StateTest::ConnectionLimit { .. }
                | StateTest::Psd(..)
                | StateTest::Random(_)
                | StateTest::Nth { .. }
                | StateTest::Limit(..)
                | StateTest::DstLimit { .. }
        )
    }

    /// The place of the test where the order is free: cheap tests come first, and those whose answer is the same for all
    /// packets of a flow before those of each packet.
    const fn cost(&self) -> u8 {
        match self {
            StateTest::ConnectionState(_) | StateTest::ConnectionDoor(_) => 0,
            StateTest::Source(_) | StateTest::Destination(_) | StateTest::Classifier { .. } => 1,
            StateTest::Layer7(_) | StateTest::Content(_) | StateTest::TlsHost(_) => 3,
            _ => 2,
        }
    }
}

/// The tests of a rule: those of headers, in any order, then the rest in this order. The tests up to the first one that
/// changes state can run in any order. From there on, the order is that of RouterOS.
pub(super) type Questions = (Box<[Test<HeaderTest>]>, Box<[Test<StateTest>]>);

/// Compiles a rule's matchers into tests.
pub(super) fn questions(
    matchers: &[Matcher],
    family: Family,
    names: &mut RuleNames<'_>,
    about: About<'_>,
) -> Questions {
    let mut ordered: Vec<&Matcher> = matchers.iter().filter(|matcher| !matcher.condition.asks_nothing()).collect();
    ordered.sort_by_key(|matcher| matcher.condition.rank());
    let (mut headers, mut free, mut in_turn) = (Vec::new(), Vec::new(), Vec::new());
    for matcher in ordered {
        let negated = matcher.negated;
        let state = match header_test(matcher, family, about) {
            Some(test) if in_turn.is_empty() => {
                headers.push((matcher.condition.reads_packet_header(family), test));
                continue;
            }
            Some(test) => Test { negated, question: StateTest::Header(test.question) },
            None => Test { negated, question: state_test(&matcher.condition, names) },
        };
        let turn = if in_turn.is_empty() && !state.question.learns() { &mut free } else { &mut in_turn };
        turn.push(state);
    }
    // More decisions hold for all packets of a flow if those that another header or state decides read nothing else.
    headers.sort_by_key(|(reads_packet_header, _)| *reads_packet_header);
    free.sort_by_key(|test| test.question.cost());
    free.extend(in_turn);
    (headers.into_iter().map(|(_, test)| test).collect(), free.into())
}

fn state_test(condition: &Condition, names: &mut RuleNames<'_>) -> StateTest {
    match condition {
        Condition::SrcAddressList(list) => StateTest::Source(names.lists[&**list]),
        Condition::DstAddressList(list) => StateTest::Destination(names.lists[&**list]),
        Condition::TlsHost(name) => StateTest::TlsHost(names.tls[&**name]),
        Condition::Time { from, to, days } => StateTest::Time { from: *from, to: *to, days: *days },
        Condition::ConnectionState(states) => StateTest::ConnectionState(*states),
        Condition::ConnectionDoor(door) => match names.doors.get(&**door) {
            Some((_, open)) => StateTest::ConnectionDoor(*open),
            None => StateTest::Header(HeaderTest::NEVER),
        },
        Condition::ConnectionBytes { from, to } => {
            StateTest::ConnectionBytes { from: *from, to: to.unwrap_or(u64::MAX) }
        }
        Condition::ConnectionRate(range) => StateTest::ConnectionRate(*range.start(), *range.end()),
        Condition::ConnectionLimit { count, prefix_length } => StateTest::ConnectionLimit {
            matcher: names.connection_limit(),
            count: *count,
            prefix_length: *prefix_length,
        },
        Condition::Content(bytes) => StateTest::Content(Box::new(Finder::new(&bytes.0).into_owned())),
        Condition::Psd { weight, delay, low_weight, high_weight } => StateTest::Psd(
            names.limiters.scan(),
            ScanWeights { threshold: *weight, delay: *delay, low: *low_weight, high: *high_weight },
        ),
        Condition::Layer7(pattern) => StateTest::Layer7(names.patterns[&**pattern]),
        Condition::Random(percent) => StateTest::Random(*percent),
        Condition::Nth { every, packet } => {
            StateTest::Nth { limiter: names.limiters.count(), every: *every, packet: *packet }
        }
        Condition::PerConnectionClassifier { fields, denominator, remainder } => {
            StateTest::Classifier { fields: *fields, denominator: *denominator, remainder: *remainder }
        }
        Condition::Limit(rate) => StateTest::Limit(names.limiters.limit(), *rate),
        Condition::DstLimit { rate, mode, expire } => {
            StateTest::DstLimit { limiter: names.limiters.bucket(), rate: *rate, mode: *mode, expire: *expire }
        }
        // All other matchers test headers. A matcher without such a test would match nothing.
        _ => StateTest::Header(HeaderTest::NEVER),
    }
}
