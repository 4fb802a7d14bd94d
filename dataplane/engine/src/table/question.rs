//! Tests of a packet's headers, with resolved names: names are sets, addresses are numbers.
//!
//! A test always gives the same answer for the same packet. [`Condition`] defines the meaning of each test; this module
//! only makes the tests fast.

use std::cell::Cell;
use std::net::IpAddr;

use knockplane_policy::eval::address::address_type;
use knockplane_policy::packet::{ExtensionHeader, Family, FragmentPart, MacAddress, Packet, Side, TcpFlag};
use knockplane_policy::rule::{
    AddressSet, AddressType, Comparison, Condition, Direction, Ipv4Option, Matcher, PortSet, RuleSet,
};
use knockplane_policy::settings::Settings;
use knockplane_policy::word::Set;

use crate::state::key::AddressKey;

/// A test and the expected answer.
#[derive(Debug)]
pub(crate) struct Test<Question> {
    pub(crate) negated: bool,
    pub(crate) question: Question,
}

/// A test that headers answer. Ranges include both ends.
#[derive(Debug)]
pub(crate) enum HeaderTest {
    Source(u128, u128),
    Destination(u128, u128),
    Protocol(u8),
    Length(u32, u32),
    SourcePort(PortRanges),
    DestinationPort(PortRanges),
    EitherPort(PortRanges),
    Icmp {
        kind: u8,
        first: u8,
        last: u8,
    },
    /// A test that few rules use. Most of them read a field outside the key of the run cache, see
    /// [`HeaderView::looked_closer`].
    Closer(Closer),
}

/// A test that few rules use.
#[derive(Debug)]
pub(crate) enum Closer {
    SourceMac(MacAddress),
    /// The side that the packet came from.
    Side(Set<Side>),
    SourceType(Set<AddressType>),
    DestinationType(Set<AddressType>),
    Ttl(Comparison),
    Dscp(u8),
    Tos {
        value: u8,
        mask: u8,
    },
    Ipv4Options(Ipv4Option),
    Headers {
        headers: Set<ExtensionHeader>,
        exact: bool,
    },
    LaterFragment(bool),
    TcpFlags {
        set: Set<TcpFlag>,
        clear: Set<TcpFlag>,
    },
    TcpMss(u16, u16),
    Priority(u8),
    /// The same answer for every packet.
    Constant(bool),
    /// Matches no packet, negated or not.
    Never,
}

#[derive(Debug)]
pub(crate) struct PortRanges(pub(super) Box<[(u16, u16)]>);

/// A packet's headers as numbers.
pub(crate) struct HeaderView<'a> {
    pub(crate) source: AddressKey,
    pub(crate) destination: AddressKey,
    /// All other fields are read in place. A copy in large units of data that was just written in small units would
    /// stall until the writes reach the cache, which takes as long as all other work for a port.
    pub(crate) packet: &'a Packet<'a>,
    /// Whether a test read a field outside the key of the run cache.
    looked_closer: Cell<bool>,
    /// Whether a test read the length of the packet.
    asked_length: Cell<bool>,
}

impl<'a> From<&'a Packet<'a>> for HeaderView<'a> {
    fn from(packet: &'a Packet<'a>) -> HeaderView<'a> {
        let [looked_closer, asked_length] = [false, false].map(Cell::new);
        HeaderView {
            source: packet.source.into(),
            destination: packet.destination.into(),
            packet,
            looked_closer,
            asked_length,
        }
    }
}

impl HeaderView<'_> {
    /// Whether a test read a field other than side, addresses, protocol, ports, ICMP type and code, and length.
    pub(crate) fn looked_closer(&self) -> bool {
        self.looked_closer.get()
    }

    /// Whether a test read the length of the packet.
    pub(crate) fn asked_length(&self) -> bool {
        self.asked_length.get()
    }
}

impl Test<HeaderTest> {
    /// False, negated or not, if the test does not apply to the packet.
    #[inline]
    pub(crate) fn holds(&self, view: &HeaderView<'_>, about: About<'_>) -> bool {
        self.question.asks(view, about).is_some_and(|answer| answer != self.negated)
    }
}

/// The settings that address types depend on.
#[derive(Clone, Copy)]
pub(crate) struct About<'t> {
    pub(crate) rules: &'t RuleSet,
    pub(crate) settings: &'t Settings,
}

impl HeaderTest {
    /// A test that matches no packet, negated or not.
    pub(super) const NEVER: HeaderTest = HeaderTest::Closer(Closer::Never);

    /// The answer, if the test applies. See [`Condition::applies`].
    #[inline]
    pub(crate) fn asks(&self, view: &HeaderView<'_>, about: About<'_>) -> Option<bool> {
        Some(match self {
            HeaderTest::Source(first, last) => (*first..=*last).contains(&view.source.bits),
            HeaderTest::Destination(first, last) => (*first..=*last).contains(&view.destination.bits),
            HeaderTest::Protocol(number) => view.packet.protocol == *number,
            HeaderTest::Length(first, last) => {
                view.asked_length.set(true);
                (*first..=*last).contains(&view.packet.ip_length)
            }
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
            HeaderTest::Closer(question) => {
                if question.reads_beyond_key() {
                    view.looked_closer.set(true);
                }
                question.asks(view.packet, about)?
            }
        })
    }
}

impl Closer {
    /// Whether packets with the same key can have different answers. A fragment has no key.
    const fn reads_beyond_key(&self) -> bool {
        !matches!(
            self,
            Closer::Side(_)
                | Closer::SourceType(_)
                | Closer::DestinationType(_)
                | Closer::LaterFragment(_)
                | Closer::Constant(_)
                | Closer::Never
        )
    }

    #[inline(never)]
    fn asks(&self, packet: &Packet<'_>, about: About<'_>) -> Option<bool> {
        let kind = |address| address_type(about.rules, about.settings, address);
        Some(match self {
            Closer::SourceMac(address) => packet.source_mac()? == *address,
            Closer::Side(sides) => sides.contains(packet.side),
            Closer::SourceType(types) => types.contains(kind(packet.source)),
            Closer::DestinationType(types) => types.contains(kind(packet.destination)),
            Closer::Ttl(comparison) => comparison.holds(packet.ttl()?),
            Closer::Dscp(value) => packet.dscp()? == *value,
            Closer::Tos { value, mask } => packet.tos()? & mask == *value,
            Closer::Ipv4Options(option) => option.holds(packet.ipv4_options()?),
            Closer::Headers { headers, exact: true } => packet.extension_headers()? == *headers,
            Closer::Headers { headers, exact: false } => headers.is_subset(packet.extension_headers()?),
            Closer::LaterFragment(later) => (packet.fragment()? == FragmentPart::Later) == *later,
            Closer::TcpFlags { set, clear } => {
                let flags = packet.tcp_flags()?;
                set.is_subset(flags) && !clear.intersects(flags)
            }
            Closer::TcpMss(first, last) => (*first..=*last).contains(&packet.tcp_mss()?),
            Closer::Priority(value) => packet.vlan_priority().unwrap_or_default() == *value,
            Closer::Constant(answer) => *answer,
            Closer::Never => return None,
        })
    }
}

/// The test of headers of a matcher; `None` if the matcher does not test headers.
pub(super) fn header_test(matcher: &Matcher, family: Family, about: About<'_>) -> Option<Test<HeaderTest>> {
    let closer = |question| HeaderTest::Closer(question);
    if matcher.condition.family().is_some_and(|its| its != family) {
        return Some(Test { negated: matcher.negated, question: HeaderTest::NEVER });
    }
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
        Condition::SrcMacAddress(address) => closer(Closer::SourceMac(*address)),
        Condition::Interface { direction, kind, name } => {
            let sides = about.settings.interfaces.sides(*kind, name, &about.rules.interface_lists);
            closer(sides.map_or(Closer::Never, |sides| Closer::Side(came_in(sides, *direction))))
        }
        Condition::SrcAddressType(types) => closer(Closer::SourceType(*types)),
        Condition::DstAddressType(types) => closer(Closer::DestinationType(*types)),
        Condition::Ttl(comparison) | Condition::HopLimit(comparison) => closer(Closer::Ttl(*comparison)),
        Condition::Dscp(value) => closer(Closer::Dscp(*value)),
        Condition::Tos { value, mask } => closer(Closer::Tos { value: *value, mask: *mask }),
        Condition::Ipv4Options(option) => closer(Closer::Ipv4Options(*option)),
        Condition::Headers { headers, exact } => closer(Closer::Headers { headers: *headers, exact: *exact }),
        Condition::Fragment(later) => closer(Closer::LaterFragment(*later)),
        Condition::TcpFlags { set, clear } => closer(Closer::TcpFlags { set: *set, clear: *clear }),
        Condition::TcpMss(range) => closer(Closer::TcpMss(*range.start(), *range.end())),
        Condition::Priority(value) | Condition::IngressPriority(value) => closer(Closer::Priority(*value)),
        // The dataplane sets no marks, does not encrypt, and does not translate addresses.
        Condition::NoMark(_) => closer(Closer::Constant(true)),
        Condition::IpsecPolicy { ipsec, .. } => closer(Closer::Constant(!ipsec)),
        Condition::ConnectionNatState(_) => closer(Closer::Constant(false)),
        Condition::Other { .. } => closer(Closer::Never),
        _ => return None,
    };
    Some(Test { negated: matcher.negated, question })
}

/// The sides that packets in this direction come from. A packet that leaves on one side came from the other.
fn came_in(sides: Set<Side>, direction: Direction) -> Set<Side> {
    match direction {
        Direction::In => sides,
        Direction::Out => sides.iter().map(Side::opposite).collect(),
    }
}

/// The first and last address of a set. A set of the other family contains no address of this one: the range is empty.
pub(super) fn address_range(set: &AddressSet, family: Family) -> (u128, u128) {
    let (first, last) = match set {
        AddressSet::Prefix(net) => (net.network(), net.broadcast()),
        AddressSet::Range(first, last) => (*first, *last),
    };
    if Family::of(first) == family { (number(first), number(last)) } else { (1, 0) }
}

/// An address as a number of its family.
pub(super) fn number(address: IpAddr) -> u128 {
    AddressKey::from(address).bits
}

impl From<&PortSet> for PortRanges {
    fn from(set: &PortSet) -> PortRanges {
        PortRanges(set.0.iter().map(|range| (*range.start(), *range.end())).collect())
    }
}

impl PortRanges {
    fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }
}
