use super::*;
use crate::packet::Side;
use crate::rule::{RateUnit, Relation};

/// One condition of each name, in order.
pub(crate) fn one_of_each() -> Vec<Condition> {
    let set = AddressSet::Prefix("192.0.2.0/24".parse().unwrap());
    let ports = PortSet(vec![1..=2]);
    let seconds = Duration::from_secs;
    let rate = Rate { count: 5, per: seconds(1), burst: 10, unit: RateUnit::Packet };
    let comparison = Comparison { relation: Relation::LessThan, value: 5 };
    let interface = |direction, kind| Condition::Interface { direction, kind, name: "ether1".to_owned() };
    let mut conditions = vec![Condition::SrcMacAddress(MacAddress([1, 2, 3, 4, 5, 6]))];
    for (one, list) in
        [(InterfaceKind::Interface, InterfaceKind::List), (InterfaceKind::BridgePort, InterfaceKind::BridgePortList)]
    {
        for direction in [Direction::In, Direction::Out] {
            conditions.extend([interface(direction, one), interface(direction, list)]);
        }
    }
    conditions.extend([
        Condition::SrcAddress(set.clone()),
        Condition::DstAddress(set),
        Condition::Protocol(6),
        Condition::SrcAddressType([AddressType::Local].into_iter().collect()),
        Condition::DstAddressType(Set::EMPTY),
        Condition::SrcAddressList("a".to_owned()),
        Condition::DstAddressList("b".to_owned()),
        Condition::Ttl(comparison),
        Condition::HopLimit(comparison),
        Condition::Dscp(46),
        Condition::Tos { value: 16, mask: 255 },
        Condition::PacketSize(1..=2),
        Condition::TlsHost("*.example.com".to_owned()),
        Condition::Ipv4Options(Ipv4Option::Any),
        Condition::Headers { headers: [ExtensionHeader::Frag].into_iter().collect(), exact: true },
        Condition::Fragment(true),
        Condition::SrcPort(ports.clone()),
        Condition::DstPort(ports.clone()),
        Condition::AnyPort(ports),
        Condition::TcpFlags {
            set: [TcpFlag::Syn].into_iter().collect(),
            clear: [TcpFlag::Ack, TcpFlag::Rst].into_iter().collect(),
        },
        Condition::TcpMss(0..=500),
        Condition::IcmpOptions { kind: 8, codes: 0..=255 },
        Condition::NoMark(Mark::Connection),
        Condition::NoMark(Mark::Packet),
        Condition::NoMark(Mark::Routing),
        Condition::Priority(7),
        Condition::IngressPriority(1),
        Condition::IpsecPolicy { direction: Direction::In, ipsec: false },
        Condition::Time {
            from: seconds(8 * 3_600),
            to: seconds(17 * 3_600),
            days: [Weekday::Monday, Weekday::Friday].into_iter().collect(),
        },
        Condition::ConnectionState([ConnectionState::New, ConnectionState::Invalid].into_iter().collect()),
        Condition::ConnectionNatState([NatState::Dstnat].into_iter().collect()),
        Condition::ConnectionBytes { from: 1, to: None },
        Condition::ConnectionRate(0..=100_000),
        Condition::ConnectionLimit { count: 30, prefix_length: 32 },
        Condition::Content(Bytes(b"a\xe1\0".to_vec())),
        Condition::Psd { weight: 21, delay: seconds(3), low_weight: 3, high_weight: 1 },
        Condition::Layer7("p".to_owned()),
        Condition::Random(50),
        Condition::Nth { every: 2, packet: 1 },
        Condition::PerConnectionClassifier { fields: ClassifierFields::BothAddresses, denominator: 2, remainder: 0 },
        Condition::Limit(rate),
        Condition::DstLimit { rate, mode: LimitMode::DstAddress, expire: seconds(100) },
    ]);
    conditions
}

#[test]
fn every_matcher_has_a_condition_and_a_position_in_the_order() {
    let all = one_of_each();
    assert_eq!(all.iter().map(Condition::name).collect::<Vec<_>>(), MATCHERS);
    assert!(all.iter().enumerate().all(|(place, condition)| condition.rank() == place));
    let other = Condition::Other { name: "p2p".to_owned(), value: "all-p2p".to_owned() };
    assert_eq!((other.name(), other.rank()), ("p2p", MATCHERS.len()));
}

#[test]
fn every_condition_survives_json() {
    for condition in one_of_each() {
        let json = serde_json::to_string(&condition).unwrap();
        assert_eq!(serde_json::from_str::<Condition>(&json).unwrap(), condition, "{json}");
    }
    let content = serde_json::to_string(&Condition::Content(Bytes(b"a\xe1".to_vec()))).unwrap();
    assert_eq!(content, r#"{"content":"aá"}"#);
}

#[test]
fn a_condition_does_not_apply_to_a_packet_without_its_field() {
    let address = "192.0.2.1".parse().unwrap();
    let gre = Packet::bare(Side::Outside, address, address, 47);
    let applying: Vec<_> =
        one_of_each().into_iter().filter(|condition| !condition.applies(&gre)).map(|it| it.name().to_owned()).collect();
    assert_eq!(
        applying,
        [
            "src-mac-address",
            "ttl",
            "hop-limit",
            "dscp",
            "tos",
            "tls-host",
            "ipv4-options",
            "headers",
            "fragment",
            "src-port",
            "dst-port",
            "port",
            "tcp-flags",
            "tcp-mss",
            "icmp-options",
            "psd",
        ]
    );
    let other = Condition::Other { name: "p2p".to_owned(), value: String::new() };
    assert!(!other.applies(&gre));
}
