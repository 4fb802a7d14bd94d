//! Matchers about the fields of a packet.

use super::*;
use crate::packet::{ExtensionHeader, TcpFlag};
use crate::rule::*;
use crate::word::Set;

fn set(prefix: &str) -> AddressSet {
    AddressSet::Prefix(prefix.parse().unwrap())
}

fn ports(port: u16) -> PortSet {
    PortSet(vec![port..=port])
}

fn syn() -> Vec<u8> {
    tcp((CLIENT, 40_000), (SERVER, 22), "S", (1, 0), b"")
}

#[test]
fn addresses_protocol_size_and_mac() {
    let syn = syn();
    let cases = [
        (Condition::SrcAddress(set("198.51.100.0/24")), true),
        (Condition::SrcAddress(set("198.51.101.0/24")), false),
        (
            Condition::DstAddress(AddressSet::Range("203.0.113.1".parse().unwrap(), "203.0.113.1".parse().unwrap())),
            true,
        ),
        (Condition::Protocol(6), true),
        (Condition::Protocol(17), false),
        (Condition::PacketSize(40..=40), true),
        (Condition::PacketSize(41..=99), false),
        (Condition::SrcMacAddress("02:00:00:00:00:01".parse().unwrap()), true),
        (Condition::SrcMacAddress("02:00:00:00:00:02".parse().unwrap()), false),
        (Condition::SrcAddressList("nobody".to_owned()), false),
        (Condition::NoMark(Mark::Packet), true),
        (Condition::Priority(0), true),
        (Condition::IngressPriority(3), false),
        (Condition::IpsecPolicy { direction: Direction::In, ipsec: false }, true),
        (Condition::IpsecPolicy { direction: Direction::Out, ipsec: true }, false),
        (Condition::ConnectionNatState([NatState::Dstnat].into_iter().collect()), false),
    ];
    for (condition, expected) in cases {
        assert_eq!(answer(condition.clone(), &syn), Some(expected), "{condition:?}");
    }
    let other = Condition::Other { name: "p2p".to_owned(), value: "all".to_owned() };
    assert_eq!(answer(other, &syn), None);
}

#[test]
fn a_packet_without_ports_is_not_another_port() {
    let gre = other(CLIENT, SERVER, 47);
    let later = fragment(udp((CLIENT, 5), (SERVER, 22), &[0; 16]), 7, 2, false);
    for port in [Condition::SrcPort(ports(22)), Condition::DstPort(ports(22)), Condition::AnyPort(ports(22))] {
        assert_eq!(answer(port.clone(), &gre), None, "{port:?}");
        assert_eq!(answer(port, &later), None);
    }
    assert_eq!(answer(Condition::SrcPort(ports(22)), &syn()), Some(false));
    assert_eq!(answer(Condition::DstPort(ports(22)), &syn()), Some(true));
    assert_eq!(answer(Condition::AnyPort(ports(22)), &syn()), Some(true));
    assert_eq!(answer(Condition::AnyPort(ports(40_000)), &syn()), Some(true));
    assert_eq!(answer(Condition::AnyPort(ports(23)), &syn()), Some(false));
}

#[test]
fn interfaces_are_sides() {
    let settings = Settings {
        interfaces: crate::settings::Interfaces {
            outside: vec!["ether1".to_owned()],
            inside: vec!["bridge".to_owned()],
            elsewhere: vec!["wg0".to_owned()],
        },
        ..Settings::default()
    };
    let lists =
        vec![InterfaceList { name: "LAN".to_owned(), members: vec!["bridge".to_owned().into()], ..Default::default() }];
    let rules = RuleSet { interface_lists: lists, ..RuleSet::default() };
    let of = |direction, kind, name: &str| {
        answer_with(&rules, &settings, Condition::Interface { direction, kind, name: name.to_owned() }, &syn())
    };
    assert_eq!(of(Direction::In, InterfaceKind::Interface, "ether1"), Some(true));
    assert_eq!(of(Direction::In, InterfaceKind::BridgePort, "bridge"), Some(false));
    assert_eq!(of(Direction::Out, InterfaceKind::List, "LAN"), Some(true));
    assert_eq!(of(Direction::In, InterfaceKind::List, "LAN"), Some(false));
    assert_eq!(of(Direction::In, InterfaceKind::List, "all"), Some(true));
    // A name without a side is false, negated or not.
    assert_eq!(of(Direction::In, InterfaceKind::Interface, "ether9"), None);
}

#[test]
fn address_types_and_empty_sets() {
    let types = |address_type| [address_type].into_iter().collect();
    assert_eq!(answer(Condition::SrcAddressType(types(AddressType::Unicast)), &syn()), Some(true));
    assert_eq!(answer(Condition::DstAddressType(types(AddressType::Local)), &syn()), Some(false));
    let own = RuleSet { local_addresses: vec!["203.0.113.1/24".parse().unwrap()], ..RuleSet::default() };
    let local = Condition::DstAddressType(types(AddressType::Local));
    assert_eq!(answer_with(&own, &Settings::default(), local, &syn()), Some(true));
    for condition in [
        Condition::SrcAddressType(Set::EMPTY),
        Condition::DstAddressType(Set::EMPTY),
        Condition::ConnectionState(Set::EMPTY),
        Condition::ConnectionNatState(Set::EMPTY),
    ] {
        for negated in [false, true] {
            let matchers = vec![Matcher { negated, condition: condition.clone() }];
            let rules = rules(vec![Rule { matchers, ..rule(vec![], Action::Accept) }]);
            assert_eq!(Evaluator::new(&rules, &Settings::default(), 1).outside(&syn(), ms(0)).matched, [0]);
        }
    }
}

#[test]
fn the_ip_header() {
    let mut frame = syn();
    frame[15] = 46 << 2 | 1;
    frame[22] = 5;
    let than = |relation, value| Comparison { relation, value };
    let cases = [
        (Condition::Dscp(46), Some(true)),
        (Condition::Tos { value: 46 << 2, mask: 0xfc }, Some(true)),
        (Condition::Tos { value: 46 << 2, mask: 0xff }, Some(false)),
        (Condition::Ttl(than(Relation::LessThan, 6)), Some(true)),
        (Condition::Ttl(than(Relation::NotEqual, 5)), Some(false)),
        (Condition::HopLimit(than(Relation::Equal, 5)), None),
        (Condition::Headers { headers: Set::EMPTY, exact: false }, None),
        (Condition::Fragment(true), Some(false)),
        (Condition::Fragment(false), Some(true)),
        (Condition::Ipv4Options(Ipv4Option::None), Some(true)),
        (Condition::Ipv4Options(Ipv4Option::Any), Some(false)),
    ];
    for (condition, expected) in cases {
        assert_eq!(answer(condition.clone(), &frame), expected, "{condition:?}");
    }
    for (part, expected) in [(fragment(syn(), 1, 0, true), false), (fragment(syn(), 1, 5, true), true)] {
        assert_eq!(answer(Condition::Fragment(true), &part), Some(expected));
    }
    let mut tagged = syn();
    tagged.splice(12..12, [0x81, 0, 0xa0, 7]);
    assert_eq!(answer(Condition::Priority(5), &tagged), Some(true));
}

#[test]
fn options_of_the_ip_header() {
    let with = |options: [u8; 4]| {
        let mut frame = syn();
        frame.splice(34..34, options);
        frame[14] = 0x46;
        frame[17] += 4;
        frame
    };
    let holds = |options, asked| answer(Condition::Ipv4Options(asked), &with(options)).unwrap();
    use Ipv4Option::*;
    assert!(holds([148, 4, 0, 0], RouterAlert) && holds([148, 4, 0, 0], Any) && holds([148, 4, 0, 0], NoTimestamp));
    assert!(!holds([148, 4, 0, 0], NoRouterAlert) && !holds([148, 4, 0, 0], None));
    assert!(holds([131, 3, 4, 0], LooseSourceRouting) && !holds([131, 3, 4, 0], NoSourceRouting));
    assert!(holds([137, 3, 4, 0], StrictSourceRouting) && holds([7, 3, 4, 0], RecordRoute));
    assert!(
        holds([68, 4, 5, 0], Timestamp) && holds([68, 4, 5, 0], NoRecordRoute) && holds([68, 4, 5, 0], NoSourceRouting)
    );
    assert!(holds([1, 1, 1, 0], None));
}

#[test]
fn headers_of_ipv6() {
    let mut frame = udp((CLIENT6, 1), (SERVER6, 2), b"");
    let asks = |headers: &[ExtensionHeader], exact, frame: &[u8]| {
        answer(Condition::Headers { headers: headers.iter().copied().collect(), exact }, frame).unwrap()
    };
    use ExtensionHeader::{Dst, Hop, Proto};
    assert!(asks(&[Proto], true, &frame) && !asks(&[Dst, Proto], false, &frame));
    // Destination options with padding.
    frame.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    frame[20] = 60;
    frame[19] += 8;
    assert!(asks(&[Dst], false, &frame) && asks(&[Dst, Proto], true, &frame));
    assert!(!asks(&[Dst], true, &frame) && !asks(&[Hop], false, &frame));
    let equal = Comparison { relation: Relation::Equal, value: 64 };
    assert_eq!(answer(Condition::HopLimit(equal), &frame), Some(true));
    assert_eq!(answer(Condition::Ttl(equal), &frame), None);
    assert_eq!(answer(Condition::Ipv4Options(Ipv4Option::None), &frame), None);
}

#[test]
fn tcp_and_icmp() {
    let flags = |set: &[TcpFlag], clear: &[TcpFlag]| Condition::TcpFlags {
        set: set.iter().copied().collect(),
        clear: clear.iter().copied().collect(),
    };
    use TcpFlag::{Ack, Fin, Syn};
    let syn_ack = tcp((CLIENT, 1), (SERVER, 2), "SA", (1, 1), b"");
    assert_eq!(answer(flags(&[Syn], &[Ack, Fin]), &syn()), Some(true));
    assert_eq!(answer(flags(&[Syn], &[Ack, Fin]), &syn_ack), Some(false));
    assert_eq!(answer(flags(&[Syn, Ack], &[]), &syn_ack), Some(true));
    assert_eq!(answer(flags(&[], &[]), &syn()), Some(true));
    let datagram = udp((CLIENT, 1), (SERVER, 2), b"");
    assert_eq!(answer(flags(&[], &[]), &datagram), None);

    let mut mss = syn();
    mss.extend([2, 4, 0x05, 0xb4]);
    (mss[46], mss[17]) = (6 << 4, mss[17] + 4);
    assert_eq!(answer(Condition::TcpMss(1460..=1460), &mss), Some(true));
    assert_eq!(answer(Condition::TcpMss(0..=500), &mss), Some(false));
    assert_eq!(answer(Condition::TcpMss(0..=500), &syn()), None);

    let ping = echo(CLIENT, SERVER, 8, 1);
    assert_eq!(answer(Condition::IcmpOptions { kind: 8, codes: 0..=255 }, &ping), Some(true));
    assert_eq!(answer(Condition::IcmpOptions { kind: 8, codes: 1..=255 }, &ping), Some(false));
    assert_eq!(answer(Condition::IcmpOptions { kind: 8, codes: 0..=255 }, &syn()), None);
}

#[test]
fn content_is_found_anywhere_in_the_payload() {
    let says = |payload: &[u8], content: &[u8]| {
        answer(Condition::Content(Bytes(content.to_vec())), &udp((CLIENT, 1), (SERVER, 2), payload)).unwrap()
    };
    assert!(says(b"GET /secret HTTP", b"secret") && says(b"a\0b", b"\0b") && says(b"", b""));
    assert!(!says(b"GET /Secret HTTP", b"secret") && !says(b"secre", b"secret") && !says(b"", b"\0"));
}

#[test]
fn time_uses_the_configured_time_zone() {
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let monday = [Weekday::Monday].into_iter().collect();
    let rules =
        rules(vec![rule(vec![Condition::Time { from: hours(8), to: hours(17), days: monday }], Action::Accept)]);
    let settings = Settings { time_zone: "+02:00".parse().unwrap(), ..Settings::default() };
    // 2026-10-12 is a Monday; 6 in the morning, UTC.
    let morning = Duration::from_secs(20_738 * 86_400 + 6 * 3_600);
    let mut evaluator = Evaluator::new(&rules, &settings, 1).at_wall(ms(5_000), morning);
    for (now, expected) in
        [(4_999, false), (5_000, true), (5_000 + 9 * 3_600_000, true), (6_000 + 9 * 3_600_000, false)]
    {
        assert_eq!(evaluator.outside(&syn(), ms(now)).matched == [0], expected, "{now}");
    }
}
