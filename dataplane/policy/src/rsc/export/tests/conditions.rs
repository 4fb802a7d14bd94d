//! Generates conditions that a file can have.

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::any::timeout;
use super::text::{content, list_name, name};
use crate::packet::{Family, MacAddress};
use crate::rule::{
    AddressSet, Bytes, ClassifierFields, Comparison, Condition, Direction, InterfaceKind, Ipv4Option, LimitMode, Mark,
    NatState, PortSet, Rate, RateUnit, Relation,
};
use crate::word::{Set, Word};

/// One of the words.
fn word<T: Word>() -> impl Strategy<Value = T> {
    select(T::ALL.to_vec())
}

/// This number of words.
fn words<T: Word>(least: usize) -> impl Strategy<Value = Set<T>> {
    subsequence(T::ALL.to_vec(), least..=T::ALL.len()).prop_map(Set::from_iter)
}

fn range<T: Arbitrary + PartialOrd + Copy>() -> impl Strategy<Value = RangeInclusive<T>> {
    let range = (any::<T>(), any::<T>()).prop_map(|(one, other)| if one <= other { one..=other } else { other..=one });
    prop_oneof![3 => range, 1 => any::<T>().prop_map(|only| only..=only)]
}

fn number<T: Arbitrary>(make: impl Fn(T) -> Condition) -> impl Strategy<Value = Condition> {
    any::<T>().prop_map(make)
}

/// Addresses of the family; ranges have more than one.
pub(super) fn addresses(family: Family) -> BoxedStrategy<AddressSet> {
    let prefix = |address, length| AddressSet::Prefix(IpNet::new(address, length).unwrap().trunc());
    match family {
        Family::Ipv4 => {
            let one = (any::<[u8; 4]>(), select(vec![0_u8, 8, 24, 31, 32, 32]));
            let range = (any::<u32>(), any::<u32>()).prop_filter("more than one", |(first, last)| first < last);
            prop_oneof![
                one.prop_map(move |(address, length)| prefix(address.into(), length)),
                range
                    .prop_map(|(first, last)| AddressSet::Range(first.to_be_bytes().into(), last.to_be_bytes().into())),
            ]
            .boxed()
        }
        Family::Ipv6 => (any::<[u8; 16]>(), select(vec![0_u8, 10, 64, 127, 128]))
            .prop_map(move |(address, length)| prefix(address.into(), length))
            .boxed(),
    }
}

fn ports() -> impl Strategy<Value = PortSet> {
    vec(range::<u16>(), 1..=PortSet::MAX_ITEMS).prop_map(PortSet)
}

fn comparison() -> impl Strategy<Value = Comparison> {
    (word::<Relation>(), any::<u8>()).prop_map(|(relation, value)| Comparison { relation, value })
}

fn rate(units: &[RateUnit]) -> impl Strategy<Value = Rate> {
    let number =
        || prop_oneof![0..100_u64, (0..1_000_000_u64).prop_map(|number| number * 1_000), 0..1_000_000_000_000_u64];
    let per = prop_oneof![Just(Duration::from_secs(1)), timeout()];
    (number(), per, number(), select(units.to_vec())).prop_map(|(count, per, burst, unit)| Rate {
        count: count.max(1),
        per,
        burst,
        unit,
    })
}

/// Conditions that are not supported.
fn other() -> impl Strategy<Value = Condition> {
    let name = select(vec![
        "connection-type",
        "hotspot",
        "p2p",
        "realm",
        "routing-table",
        "connection-mark",
        "packet-mark",
        "routing-mark",
    ]);
    let value = prop_oneof![select(vec!["", "auth,!http", "ftp", "mark 1"]).prop_map(str::to_owned), self::name()];
    (name, value).prop_map(|(name, value)| Condition::Other { name: name.to_owned(), value })
}

/// Conditions about headers.
fn of_headers(family: Family) -> impl Strategy<Value = Condition> {
    let tos = (any::<u8>(), any::<u8>()).prop_map(|(value, mask)| Condition::Tos { value: value & mask, mask });
    let flags = (words(0), words(0)).prop_map(|(set, clear)| Condition::TcpFlags { set, clear });
    let host = "[a-zA-Z0-9._*?-]{1,30}".prop_map(Condition::TlsHost);
    let names = prop_oneof![
        list_name().prop_map(Condition::SrcAddressList),
        list_name().prop_map(Condition::DstAddressList),
        words(0).prop_map(Condition::SrcAddressType),
        words(0).prop_map(Condition::DstAddressType),
        number(|octets| Condition::SrcMacAddress(MacAddress(octets))),
        (word::<Direction>(), word::<InterfaceKind>(), list_name())
            .prop_map(|(direction, kind, name)| Condition::Interface { direction, kind, name }),
    ];
    let ip = prop_oneof![
        addresses(family).prop_map(Condition::SrcAddress),
        addresses(family).prop_map(Condition::DstAddress),
        comparison().prop_map(Condition::Ttl),
        comparison().prop_map(Condition::HopLimit),
        (0..64_u8).prop_map(Condition::Dscp),
        tos,
        range().prop_map(Condition::PacketSize),
        word::<Ipv4Option>().prop_map(Condition::Ipv4Options),
        (words(1), any::<bool>()).prop_map(|(headers, exact)| Condition::Headers { headers, exact }),
        number(Condition::Fragment),
        (word::<Direction>(), any::<bool>()).prop_map(|(direction, ipsec)| Condition::IpsecPolicy { direction, ipsec }),
    ];
    let transport = prop_oneof![
        host,
        ports().prop_map(Condition::SrcPort),
        ports().prop_map(Condition::DstPort),
        ports().prop_map(Condition::AnyPort),
        flags,
        range().prop_map(Condition::TcpMss),
        (any::<u8>(), range()).prop_map(|(kind, codes)| Condition::IcmpOptions { kind, codes }),
    ];
    prop_oneof![2 => names, 2 => ip, 2 => transport]
}

/// Conditions about connections, payloads, time and random numbers.
fn of_the_rest(family: Family) -> impl Strategy<Value = Condition> {
    const DAY: u64 = 86_400;
    let longest = if family == Family::Ipv4 { 32 } else { 128_u8 };
    let time = (0..DAY, 0..=DAY, words(1)).prop_filter("some time", |(from, to, _)| from != to);
    let connections = prop_oneof![
        words(0).prop_map(Condition::ConnectionState),
        words::<NatState>(1).prop_map(Condition::ConnectionNatState),
        (any::<u64>(), option::of(1..=u64::MAX)).prop_map(|(from, to)| match to {
            Some(to) => Condition::ConnectionBytes { from: from.min(to), to: Some(to) },
            None => Condition::ConnectionBytes { from, to: None },
        }),
        range().prop_map(Condition::ConnectionRate),
        (any::<u32>(), 0..=longest)
            .prop_map(|(count, prefix_length)| Condition::ConnectionLimit { count, prefix_length }),
        word::<Mark>().prop_map(Condition::NoMark),
        (0..64_u8).prop_map(Condition::Priority),
        (0..64_u8).prop_map(Condition::IngressPriority),
    ];
    let more = prop_oneof![
        content().prop_map(|bytes| Condition::Content(Bytes(bytes))),
        name().prop_map(Condition::Layer7),
        time.prop_map(|(from, to, days)| Condition::Time {
            from: Duration::from_secs(from),
            to: Duration::from_secs(to),
            days,
        }),
        (1..=u32::MAX, timeout(), any::<u32>(), any::<u32>()).prop_map(|(weight, delay, low_weight, high_weight)| {
            Condition::Psd { weight, delay, low_weight, high_weight }
        }),
        (1..=99_u8).prop_map(Condition::Random),
        (1..=u32::MAX, 1..=u32::MAX)
            .prop_map(|(one, other)| Condition::Nth { every: one.max(other), packet: one.min(other) }),
        (word::<ClassifierFields>(), 1..=u32::MAX, any::<u32>()).prop_map(|(fields, denominator, hash)| {
            Condition::PerConnectionClassifier { fields, denominator, remainder: hash % denominator }
        }),
        rate(RateUnit::ALL).prop_map(Condition::Limit),
        (rate(&[RateUnit::Packet]), word::<LimitMode>(), timeout())
            .prop_map(|(rate, mode, expire)| Condition::DstLimit { rate, mode, expire }),
    ];
    prop_oneof![4 => connections, 4 => more, 1 => other()]
}

/// All but `protocol`, on which others depend.
pub(super) fn condition(family: Family) -> impl Strategy<Value = Condition> {
    prop_oneof![of_headers(family), of_the_rest(family)]
}
