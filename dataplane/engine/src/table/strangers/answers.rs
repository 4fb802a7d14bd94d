//! The answers of a rule's tests about the frames of strangers of one class.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knockplane_policy::packet::{Family, Side, TcpFlag, protocol};
use knockplane_policy::rule::ConnectionState;
use knockplane_policy::strangers::PacketKind;
use knockplane_policy::word::Set;

use super::ports::PortSet;
use crate::state::lists::ListSet;
use crate::table::question::{Closer, HeaderTest, PortRanges, Test};
use crate::table::{CompiledAction, CompiledRule, RuleTable, StateTest};

/// A class of frames of strangers from outside.
#[derive(Clone, Copy)]
pub(super) struct Class {
    pub(super) family: Family,
    pub(super) kind: PacketKind,
    /// The lists in which no stranger is.
    pub(super) noted: ListSet,
}

/// The ports of the frames that a rule matches, and of those for which that depends on more than class and port.
pub(super) struct Matching {
    pub(super) ports: PortSet,
    pub(super) open: PortSet,
}

/// The answer of a test.
enum Answer {
    Yes,
    No,
    /// It does not apply: the rule does not match, negated or not.
    Never,
    /// It depends on more than class and port.
    Open,
    /// Yes for these ports.
    Ports(PortSet),
    /// Yes for these ports, open for all others.
    PortsOrOpen(PortSet),
    /// No for these ports, open for all others.
    NotPortsOrOpen(PortSet),
}

impl Answer {
    const fn of(answer: bool) -> Answer {
        if answer { Answer::Yes } else { Answer::No }
    }

    fn negated(self) -> Answer {
        match self {
            Answer::Yes => Answer::No,
            Answer::No => Answer::Yes,
            Answer::Ports(ports) => {
                let mut others = PortSet::all();
                others.remove_all(&ports);
                Answer::Ports(others)
            }
            Answer::PortsOrOpen(ports) => Answer::NotPortsOrOpen(ports),
            Answer::NotPortsOrOpen(ports) => Answer::PortsOrOpen(ports),
            Answer::Never | Answer::Open => self,
        }
    }

    /// Whether the rule matches no frame.
    const fn excludes(&self) -> bool {
        matches!(self, Answer::No | Answer::Never)
    }
}

impl Class {
    pub(super) const fn protocol(self) -> u8 {
        match self.kind {
            PacketKind::Syn | PacketKind::Segment => protocol::TCP,
            PacketKind::Datagram => protocol::UDP,
        }
    }

    /// The states that the connections of frames can have.
    pub(super) fn states(self, table: &RuleTable, untracked: bool) -> Set<ConnectionState> {
        match self.kind {
            _ if untracked || !table.tracks => [ConnectionState::Untracked].into_iter().collect(),
            PacketKind::Syn | PacketKind::Datagram => [ConnectionState::New].into_iter().collect(),
            PacketKind::Segment => [ConnectionState::New, ConnectionState::Invalid].into_iter().collect(),
        }
    }

    fn covers_all(self, first: u128, last: u128) -> bool {
        let highest = match self.family {
            Family::Ipv4 => u32::MAX.into(),
            Family::Ipv6 => u128::MAX,
        };
        first == 0 && last >= highest
    }

    fn header_answer(self, question: &HeaderTest) -> Answer {
        let ports = |ranges: &PortRanges| PortSet::of(&ranges.0);
        match question {
            HeaderTest::Source(first, last) => Answer::of(self.covers_all(*first, *last)),
            HeaderTest::Destination(first, last) if self.covers_all(*first, *last) => Answer::Yes,
            HeaderTest::Destination(first, last) if first > last => Answer::No,
            HeaderTest::Protocol(number) => Answer::of(*number == self.protocol()),
            HeaderTest::DestinationPort(ranges) => Answer::Ports(ports(ranges)),
            HeaderTest::EitherPort(ranges) => Answer::PortsOrOpen(ports(ranges)),
            HeaderTest::Icmp { .. } => Answer::Never,
            HeaderTest::Closer(closer) => self.closer_answer(closer),
            HeaderTest::Destination(..) | HeaderTest::Length(..) | HeaderTest::SourcePort(_) => Answer::Open,
        }
    }

    fn closer_answer(self, question: &Closer) -> Answer {
        match question {
            Closer::Side(sides) => Answer::of(sides.contains(Side::Outside)),
            Closer::LaterFragment(later) => Answer::of(!later),
            Closer::TcpFlags { .. } if self.protocol() != protocol::TCP => Answer::Never,
            Closer::TcpFlags { set, clear } if self.kind == PacketKind::Syn => {
                let flags = [TcpFlag::Syn].into_iter().collect();
                Answer::of(set.is_subset(flags) && !clear.intersects(flags))
            }
            Closer::Constant(answer) => Answer::of(*answer),
            Closer::Never => Answer::Never,
            _ => Answer::Open,
        }
    }

    /// The answer of a test of state. `states` are those of connections; `None` before tracking.
    fn state_answer(self, question: &StateTest, states: Option<Set<ConnectionState>>) -> Answer {
        let is_tracked = states.is_some_and(|states| !states.contains(ConnectionState::Untracked));
        match question {
            StateTest::Header(question) => self.header_answer(question),
            StateTest::Source(list) if self.noted.contains(*list) => Answer::No,
            StateTest::ConnectionState(_) if states.is_none() => Answer::Never,
            StateTest::ConnectionState(asked) => {
                let states = states.unwrap_or_default();
                match (states.is_subset(*asked), states.intersects(*asked)) {
                    (true, _) => Answer::Yes,
                    (false, false) => Answer::No,
                    (false, true) => Answer::Open,
                }
            }
            StateTest::ConnectionDoor(_) if !is_tracked => Answer::Never,
            StateTest::ConnectionDoor(_) => Answer::No,
            _ => Answer::Open,
        }
    }
}

impl CompiledRule {
    /// The frames with these ports that the rule matches. `None` if it matches none.
    pub(super) fn matching(
        &self,
        class: Class,
        states: Option<Set<ConnectionState>>,
        ports: &PortSet,
    ) -> Option<Matching> {
        let adds = matches!(self.action, CompiledAction::AddSource(..) | CompiledAction::AddDestination(..));
        let of_header = |test: &Test<HeaderTest>| {
            let answer = class.header_answer(&test.question);
            if test.negated { answer.negated() } else { answer }
        };
        let of_state = |test: &Test<StateTest>| match &test.question {
            // An earlier frame of the source may be at another worker: then this one waits for it.
            StateTest::Source(_) if adds && !test.negated => Answer::Open,
            // An invalid segment has no connection, and the test does not apply to it.
            StateTest::ConnectionDoor(_) if class.kind == PacketKind::Segment && test.negated => Answer::Open,
            question => {
                let answer = class.state_answer(question, states);
                if test.negated { answer.negated() } else { answer }
            }
        };
        // A test that learns runs only for packets that match all tests before it.
        let learning = self.state.iter().position(|test| test.question.learns());
        let before = &self.state[..learning.unwrap_or(self.state.len())];
        if self.header_tests().iter().any(|test| of_header(test).excludes())
            || before.iter().any(|test| of_state(test).excludes())
        {
            return None;
        }
        let mut matching = Matching { ports: ports.clone(), open: PortSet::none() };
        let answers = self.header_tests().iter().map(of_header).chain(before.iter().map(of_state));
        answers.for_each(|answer| matching.apply(answer));
        if learning.is_some() {
            matching.apply(Answer::Open);
        }
        (!matching.ports.is_empty() || !matching.open.is_empty()).then_some(matching)
    }

    /// The networks of sources that the rule names, except all addresses.
    pub(super) fn named_sources(&self, family: Family) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let in_state = self.state.iter().filter_map(|test| match &test.question {
            StateTest::Header(question) => Some(question),
            _ => None,
        });
        let questions = self.header_tests().iter().map(|test| &test.question).chain(in_state);
        questions.filter_map(move |question| {
            let HeaderTest::Source(first, last) = question else { return None };
            let class = Class { family, kind: PacketKind::Syn, noted: ListSet::EMPTY };
            (first <= last && !class.covers_all(*first, *last))
                .then(|| [*first, *last].map(|bits| address(family, bits)).into())
        })
    }
}

fn address(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::from_bits(bits as u32).into(),
        Family::Ipv6 => Ipv6Addr::from_bits(bits).into(),
    }
}

impl Matching {
    /// Restricts it to frames that match one more test.
    fn apply(&mut self, answer: Answer) {
        match answer {
            Answer::Yes => {}
            Answer::No | Answer::Never => (self.ports, self.open) = (PortSet::none(), PortSet::none()),
            Answer::Open => self.open.insert_all(&std::mem::replace(&mut self.ports, PortSet::none())),
            Answer::Ports(ports) => {
                self.ports.retain(&ports);
                self.open.retain(&ports);
            }
            Answer::PortsOrOpen(ports) => {
                self.open.insert_all(&self.ports);
                self.ports.retain(&ports);
                // Open stays open, also where this test says yes.
                let decided = self.ports.clone();
                self.open.remove_all(&decided);
            }
            Answer::NotPortsOrOpen(ports) => {
                self.open.insert_all(&std::mem::replace(&mut self.ports, PortSet::none()));
                self.open.remove_all(&ports);
            }
        }
    }
}
