//! The rules of one address family, resolved: chains are spans of one array, names are ids, addresses are numbers.
//!
//! A rule's matchers are of two kinds. What only looks at headers gives the same answer whenever it is asked;
//! [`Program::classify`] asks it, and is the one place to know how candidates are found. What looks at state (lists) or
//! is dear (layer 7) is asked by the walk, when the rule's turn has come.

use std::net::IpAddr;

use knockplane_policy::packet::{Family, Packet, Side};
use knockplane_policy::rule::{
    Action, AddressSet, BuiltinChain, Condition, ListAdd, ListTimeout, Matcher, PortSet, Rule,
};
use knockplane_policy::settings::Settings;

use super::{Chains, Names};
use crate::lists::ListId;
use crate::shard::Key;

/// A pattern of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PatternId(pub(super) usize);

/// Rules of a program from the next to the one before `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    next: u32,
    end: u32,
}

/// See the module.
pub(crate) struct Program {
    rules: Box<[CompiledRule]>,
    builtin: [Span; BuiltinChain::ALL.len()],
    /// First and last addresses of what is protected.
    protected: Box<[(u128, u128)]>,
}

/// One rule.
pub(crate) struct CompiledRule {
    /// Its position among the declared rules.
    pub(crate) index: u32,
    pub(crate) step: Step,
    /// Most rules are passed over for this alone.
    glance: Glance,
    /// All questions about headers but the one that a glance answers.
    header: Box<[Test<HeaderTest>]>,
    /// What is left to ask of a candidate, in this order.
    pub(crate) state: Box<[Test<StateTest>]>,
}

/// What is seen of a rule without going through its questions.
struct Glance {
    /// The only protocol it can match, or [`ANY_PROTOCOL`]. This settles the question.
    protocol: u16,
    /// Lowest and highest destination port it can match, both ends included. What lies between is asked for; a packet
    /// without ports has 0 here, and is refused when it is asked.
    destination_ports: (u16, u16),
}

/// No IP protocol: they are numbers of 8 bits.
const ANY_PROTOCOL: u16 = 256;

/// What a rule does.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    Accept,
    Drop,
    Passthrough,
    AddSource(ListId, ListTimeout),
    AddDestination(ListId, ListTimeout),
    Jump(Span),
    Return,
}

/// A question and the answer that is wanted.
pub(crate) struct Test<Question> {
    pub(crate) negated: bool,
    pub(crate) question: Question,
}

/// What state answers, or what is dear.
#[derive(Clone, Copy)]
pub(crate) enum StateTest {
    Source(ListId),
    Destination(ListId),
    Layer7(PatternId),
}

/// What headers answer. Ranges include both ends.
enum HeaderTest {
    Source(u128, u128),
    Destination(u128, u128),
    Protocol(u8),
    Length(u32, u32),
    SourcePort(Ports),
    DestinationPort(Ports),
    EitherPort(Ports),
    Icmp {
        kind: u8,
        first: u8,
        last: u8,
    },
    /// Of no packet.
    Unsupported,
}

struct Ports(Box<[(u16, u16)]>);

/// A packet's headers as numbers.
pub(crate) struct View<'a> {
    pub(crate) source: Key,
    pub(crate) destination: Key,
    /// The rest is read where it stands: what was just written in small parts and is copied in large ones has to wait
    /// for the cache, which takes as long as all else that is done about a port.
    packet: &'a Packet<'a>,
}

impl Program {
    /// The chain that a packet from this side enters. Same as [`Settings::chain`], on numbers.
    pub(crate) fn entry(&self, side: Side, view: &View<'_>) -> BuiltinChain {
        let protects = |key: Key| self.protected.iter().any(|(first, last)| (*first..=*last).contains(&key.bits));
        match side {
            Side::Outside if protects(view.destination) => BuiltinChain::Input,
            Side::Inside if protects(view.source) => BuiltinChain::Output,
            _ => BuiltinChain::Forward,
        }
    }

    /// The rules of a built-in chain.
    pub(crate) fn chain(&self, chain: BuiltinChain) -> Span {
        self.builtin[chain as usize]
    }

    /// The next rule of the span whose questions about headers this packet answers, if there is one; the span then
    /// begins behind it.
    pub(crate) fn classify(&self, span: &mut Span, view: &View<'_>) -> Option<&CompiledRule> {
        let rules = self.rules.get(span.next as usize..span.end as usize)?;
        let found =
            rules.iter().position(|rule| rule.glance.admits(view) && rule.header.iter().all(|test| test.holds(view)));
        span.next = found.map_or(span.end, |position| span.next + position as u32 + 1);
        rules.get(found?)
    }

    /// Lays the chains out one behind the other and resolves every name.
    pub(super) fn emit(chains: &Chains<'_>, names: &Names<'_>, settings: &Settings) -> Program {
        let mut spans = hashbrown::HashMap::<&str, Span>::new();
        let mut next = 0;
        for chain in &chains.order {
            let end = next + chains.rules[chain].len() as u32;
            spans.insert(chain, Span { next, end });
            next = end;
        }
        let span = |chain: &str| spans.get(chain).copied().unwrap_or_default();
        let step = |action: &Action| match action {
            Action::Accept => Step::Accept,
            // What is not run yet does not get here, see `unsupported`.
            Action::Drop | Action::Reject(_) | Action::Tarpit => Step::Drop,
            Action::Passthrough | Action::Log | Action::FasttrackConnection | Action::Notrack => Step::Passthrough,
            Action::AddSrcToAddressList(ListAdd { list, timeout }) => Step::AddSource(names.lists[&**list], *timeout),
            Action::AddDstToAddressList(ListAdd { list, timeout }) => {
                Step::AddDestination(names.lists[&**list], *timeout)
            }
            Action::Jump(target) => Step::Jump(span(target)),
            Action::Return => Step::Return,
        };
        let compile = |(index, rule): &(usize, &Rule)| {
            let protocol = rule.matchers.iter().position(|matcher| only_protocol(matcher).is_some());
            // A second one stays a question: a packet cannot have two protocols.
            let rest = rule.matchers.iter().enumerate().filter(|(index, _)| Some(*index) != protocol);
            CompiledRule {
                index: *index as u32,
                step: step(&rule.action),
                glance: Glance::at(&rule.matchers),
                header: rest.filter_map(|(_, matcher)| header_test(matcher, chains.family)).collect(),
                state: state_tests(&rule.matchers, names),
            }
        };
        let rules = chains.order.iter().flat_map(|chain| chains.rules[chain].iter().map(compile)).collect();
        let of_family = settings.protect.iter().filter(|net| Family::of(net.addr()) == chains.family);
        let protected = of_family.map(|net| (number(net.network()), number(net.broadcast()))).collect();
        Program { rules, builtin: BuiltinChain::ALL.map(|chain| span(chain.name())), protected }
    }
}

impl Glance {
    fn at(matchers: &[Matcher]) -> Glance {
        let mut destination_ports = (0, u16::MAX);
        for matcher in matchers.iter().filter(|matcher| !matcher.negated) {
            if let Condition::DstPort(set) = &matcher.condition {
                let lowest = set.0.iter().map(|range| *range.start()).min().unwrap_or(u16::MAX);
                let highest = set.0.iter().map(|range| *range.end()).max().unwrap_or(0);
                destination_ports = (lowest.max(destination_ports.0), highest.min(destination_ports.1));
            }
        }
        let protocol = matchers.iter().find_map(only_protocol).map_or(ANY_PROTOCOL, u16::from);
        Glance { protocol, destination_ports }
    }

    #[inline]
    fn admits(&self, view: &View<'_>) -> bool {
        let port = view.packet.ports.map_or(0, |(_, destination)| destination);
        (self.protocol == ANY_PROTOCOL || self.protocol == u16::from(view.packet.protocol))
            && (self.destination_ports.0..=self.destination_ports.1).contains(&port)
    }
}

/// The protocol that a packet must have for this matcher.
fn only_protocol(matcher: &Matcher) -> Option<u8> {
    match matcher.condition {
        Condition::Protocol(number) if !matcher.negated => Some(number),
        _ => None,
    }
}

/// The question about headers that a matcher asks.
fn header_test(matcher: &Matcher, family: Family) -> Option<Test<HeaderTest>> {
    let question = match &matcher.condition {
        Condition::SrcAddress(set) => {
            let (first, last) = address_range(set, family);
            HeaderTest::Source(first, last)
        }
        Condition::DstAddress(set) => {
            let (first, last) = address_range(set, family);
            HeaderTest::Destination(first, last)
        }
        Condition::Protocol(number) => HeaderTest::Protocol(*number),
        Condition::PacketSize(sizes) => HeaderTest::Length((*sizes.start()).into(), (*sizes.end()).into()),
        Condition::SrcPort(ports) => HeaderTest::SourcePort(ports.into()),
        Condition::DstPort(ports) => HeaderTest::DestinationPort(ports.into()),
        Condition::AnyPort(ports) => HeaderTest::EitherPort(ports.into()),
        Condition::IcmpOptions { kind, codes } => {
            HeaderTest::Icmp { kind: *kind, first: *codes.start(), last: *codes.end() }
        }
        Condition::SrcAddressList(_) | Condition::DstAddressList(_) | Condition::Layer7(_) => return None,
        // Does not get here, see `unsupported`.
        _ => HeaderTest::Unsupported,
    };
    Some(Test { negated: matcher.negated, question })
}

/// The questions that are left, layer 7 last.
fn state_tests(matchers: &[Matcher], names: &Names<'_>) -> Box<[Test<StateTest>]> {
    let mut ordered: Vec<&Matcher> = matchers.iter().collect();
    ordered.sort_by_key(|matcher| matcher.condition.rank());
    let test = |matcher: &&Matcher| {
        let question = match &matcher.condition {
            Condition::SrcAddressList(list) => StateTest::Source(names.lists[&**list]),
            Condition::DstAddressList(list) => StateTest::Destination(names.lists[&**list]),
            Condition::Layer7(pattern) => StateTest::Layer7(names.patterns[&**pattern]),
            _ => return None,
        };
        Some(Test { negated: matcher.negated, question })
    };
    ordered.iter().filter_map(test).collect()
}

/// First and last address of a set. Sets of the other family hold none of this one: the range is empty.
fn address_range(set: &AddressSet, family: Family) -> (u128, u128) {
    let (first, last) = match set {
        AddressSet::Prefix(net) => (net.network(), net.broadcast()),
        AddressSet::Range(first, last) => (*first, *last),
    };
    if Family::of(first) == family { (number(first), number(last)) } else { (1, 0) }
}

fn number(address: IpAddr) -> u128 {
    Key::from(address).bits
}

impl From<&PortSet> for Ports {
    fn from(set: &PortSet) -> Ports {
        Ports(set.0.iter().map(|range| (*range.start(), *range.end())).collect())
    }
}

impl Ports {
    fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }
}

impl<'a> From<&'a Packet<'a>> for View<'a> {
    fn from(packet: &'a Packet<'a>) -> View<'a> {
        View { source: packet.source.into(), destination: packet.destination.into(), packet }
    }
}

impl Test<HeaderTest> {
    /// False, negated or not, if the question does not apply to the packet.
    fn holds(&self, view: &View<'_>) -> bool {
        self.question.asks(view).is_some_and(|answer| answer != self.negated)
    }
}

impl HeaderTest {
    /// The answer, if the question applies. See [`Condition::applies`].
    fn asks(&self, view: &View<'_>) -> Option<bool> {
        Some(match self {
            HeaderTest::Source(first, last) => (*first..=*last).contains(&view.source.bits),
            HeaderTest::Destination(first, last) => (*first..=*last).contains(&view.destination.bits),
            HeaderTest::Protocol(number) => view.packet.protocol == *number,
            HeaderTest::Length(first, last) => (*first..=*last).contains(&view.packet.ip_length),
            HeaderTest::SourcePort(ports) => ports.contains(view.packet.ports?.0),
            HeaderTest::DestinationPort(ports) => ports.contains(view.packet.ports?.1),
            HeaderTest::EitherPort(ports) => {
                let (source, destination) = view.packet.ports?;
                ports.contains(source) || ports.contains(destination)
            }
            HeaderTest::Icmp { kind, first, last } => {
                let (its_kind, code) = view.packet.icmp?;
                its_kind == *kind && (*first..=*last).contains(&code)
            }
            HeaderTest::Unsupported => return None,
        })
    }
}
