use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TcpHeader, TransportSlice};

use crate::eval::Evaluator;
use crate::eval::tests::*;
use crate::packet::Family;
use crate::reason::Verdict;
use crate::rule::{Action, Condition, Matcher, RejectWith, Rule, RuleSet};
use crate::settings::Settings;

fn rejecting(with: RejectWith) -> RuleSet {
    let reject = |family| Rule::new(family, "input", Action::Reject(with));
    rules(vec![reject(Family::Ipv4), reject(Family::Ipv6)])
}

/// The answer to a frame, with verified checksums.
fn answered(rules: &RuleSet, frame: &[u8]) -> Option<Vec<u8>> {
    let settings = Settings::default();
    let evaluation = Evaluator::new(rules, &settings, 1).outside(frame, ms(0));
    assert_eq!((evaluation.verdict, evaluation.matched.len()), (Verdict::Drop, 1));
    assert!(evaluation.replies.len() <= 1);
    evaluation.replies.into_iter().next().inspect(|reply| check(reply))
}

/// The other library builds the same checksums.
fn check(reply: &[u8]) {
    let packet = SlicedPacket::from_ip(reply).unwrap();
    let transport = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), reply.len());
            assert!(header.dont_fragment && header.identification == 0 && header.time_to_live == 64);
            match packet.transport.unwrap() {
                TransportSlice::Tcp(tcp) => {
                    (tcp.checksum(), tcp.calc_checksum_ipv4(header.source, header.destination).unwrap())
                }
                TransportSlice::Icmpv4(icmp) => {
                    (icmp.checksum(), Icmpv4Header::with_checksum(icmp.icmp_type(), icmp.payload()).checksum)
                }
                other => panic!("{other:?}"),
            }
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(header.payload_length) + 40, reply.len());
            match packet.transport.unwrap() {
                TransportSlice::Tcp(tcp) => {
                    (tcp.checksum(), tcp.calc_checksum_ipv6(header.source, header.destination).unwrap())
                }
                TransportSlice::Icmpv6(icmp) => {
                    assert!(icmp.is_checksum_valid(header.source, header.destination));
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
        NetSlice::Arp(_) => panic!("not IP"),
    };
    assert_eq!(transport.0, transport.1);
}

/// The TCP header of a reply from the server to the client.
fn segment(reply: &[u8]) -> TcpHeader {
    let TransportSlice::Tcp(tcp) = SlicedPacket::from_ip(reply).unwrap().transport.unwrap() else { panic!("not TCP") };
    let header = tcp.to_header();
    assert_eq!((header.source_port, header.destination_port), (22, 40_000));
    header
}

fn flags(header: &TcpHeader) -> String {
    let all = [(header.syn, 'S'), (header.ack, 'A'), (header.fin, 'F'), (header.rst, 'R'), (header.psh, 'P')];
    all.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect()
}

fn to_server(flags: &str, payload: &[u8]) -> Vec<u8> {
    tcp((CLIENT, 40_000), (SERVER, 22), flags, (u32::MAX, 777), payload)
}

#[test]
fn icmp_errors_quote_the_packet_and_come_from_its_destination() {
    let datagram = udp((CLIENT, 1), (SERVER, 2), &[7; 1000]);
    let reply = answered(&rejecting(RejectWith::AdminProhibited), &datagram).unwrap();
    let packet = SlicedPacket::from_ip(&reply).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) = (packet.net, packet.transport) else {
        panic!("not ICMP")
    };
    assert_eq!(ip.header().source_addr().to_string(), SERVER);
    assert_eq!(ip.header().destination_addr().to_string(), CLIENT);
    assert_eq!((icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8()), (3, 13, [0; 4]));
    assert!(matches!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(_)));
    assert_eq!((reply.len(), icmp.payload()), (576, &datagram[14..][..548]));

    let datagram = udp((CLIENT6, 1), (SERVER6, 2), &[7; 1300]);
    let reply = answered(&rejecting(RejectWith::PortUnreachable), &datagram).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = SlicedPacket::from_ip(&reply).unwrap().transport else {
        panic!("not ICMPv6")
    };
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (1, 4));
    assert!(matches!(icmp.icmp_type(), Icmpv6Type::DestinationUnreachable(_)));
    assert_eq!((reply.len(), icmp.payload()), (1280, &datagram[14..][..1232]));
    // A short packet of odd length is quoted whole.
    let short = udp((CLIENT6, 1), (SERVER6, 2), b"abc");
    assert_eq!(answered(&rejecting(RejectWith::NoRoute), &short).unwrap()[48..], short[14..]);
}

#[test]
fn there_is_no_answer_that_a_family_or_protocol_does_not_have() {
    let (datagram, datagram6) = (udp((CLIENT, 1), (SERVER, 2), b""), udp((CLIENT6, 1), (SERVER6, 2), b""));
    assert_eq!(answered(&rejecting(RejectWith::NoRoute), &datagram), None);
    assert_eq!(answered(&rejecting(RejectWith::HostProhibited), &datagram6), None);
    assert_eq!(answered(&rejecting(RejectWith::TcpReset), &datagram), None);
    assert!(answered(&rejecting(RejectWith::HostProhibited), &datagram).is_some());
}

#[test]
fn packets_that_must_not_be_answered_get_no_answer() {
    let rules = rejecting(RejectWith::PortUnreachable);
    let datagram = |source: &str, destination: &str| udp((source, 1), (destination, 2), &[0; 16]);
    for frame in [
        datagram(CLIENT, "255.255.255.255"),
        datagram(CLIENT, "224.0.0.251"),
        datagram("0.0.0.0", SERVER),
        datagram("127.0.0.1", SERVER),
        datagram("239.1.1.1", SERVER),
        datagram("255.255.255.255", SERVER),
        datagram("::", SERVER6),
        datagram(CLIENT6, "ff02::fb"),
        icmp(CLIENT, SERVER, (3, 3), [0; 4], &datagram(SERVER, CLIENT)[14..]),
        icmp(CLIENT6, SERVER6, (1, 4), [0; 4], &datagram(SERVER6, CLIENT6)[14..]),
        icmp(CLIENT6, SERVER6, (137, 0), [0; 4], &[0; 32]),
    ] {
        assert_eq!(answered(&rules, &frame), None, "{frame:02x?}");
    }
    // Only rules with `fragment=yes` are evaluated for such a fragment.
    let later = fragment(datagram(CLIENT, SERVER), 1, 1, false);
    let matchers = vec![Matcher { negated: false, condition: Condition::Fragment(true) }];
    let of_fragments = |rule: &Rule| Rule { matchers: matchers.clone(), ..rule.clone() };
    let of_fragments = RuleSet { rules: rules.rules.iter().map(of_fragments).collect(), ..RuleSet::default() };
    assert_eq!(answered(&of_fragments, &later), None);
    let mut to_group = datagram(CLIENT, SERVER);
    to_group[0] |= 1;
    assert_eq!(answered(&rules, &to_group), None);
    assert!(answered(&rules, &echo(CLIENT, SERVER, 8, 1)).is_some());
    assert!(answered(&rules, &fragment(datagram(CLIENT, SERVER), 1, 0, true)).is_some());
}

#[test]
fn icmp_errors_are_limited_and_resets_are_not() {
    let (datagram, syn) = (udp((CLIENT, 1), (SERVER, 2), b""), to_server("S", b""));
    let settings = Settings::default();
    let count = |with, frame: &[u8]| {
        let rules = rejecting(with);
        let mut evaluator = Evaluator::new(&rules, &settings, 1);
        let mut at = |now| (0..200).map(|_| evaluator.outside(frame, ms(now)).replies.len()).sum::<usize>();
        [at(0), at(9), at(10), at(1_000)]
    };
    assert_eq!(count(RejectWith::PortUnreachable, &datagram), [100, 0, 1, 99]);
    assert_eq!(count(RejectWith::TcpReset, &syn), [200; 4]);
}

#[test]
fn resets_have_the_numbers_that_the_sender_expects() {
    let rules = rejecting(RejectWith::TcpReset);
    let of = |flags: &str, payload| answered(&rules, &to_server(flags, payload)).map(|reply| segment(&reply));
    let syn = of("S", b"").unwrap();
    assert_eq!((flags(&syn), syn.sequence_number, syn.acknowledgment_number), ("AR".to_owned(), 0, 0));
    let data = of("SF", b"abc").unwrap();
    assert_eq!((flags(&data), data.acknowledgment_number), ("AR".to_owned(), 4));
    let ack = of("AP", b"abc").unwrap();
    assert_eq!((flags(&ack), ack.sequence_number, ack.acknowledgment_number), ("R".to_owned(), 777, 0));
    assert_eq!((of("R", b""), of("RA", b"")), (None, None));
    let v6 = tcp((CLIENT6, 40_000), (SERVER6, 22), "S", (5, 0), b"");
    assert_eq!(segment(&answered(&rules, &v6).unwrap()).acknowledgment_number, 6);
}

#[test]
fn a_tarpit_answers_and_never_acknowledges_data() {
    let rules = rules(vec![rule(vec![], Action::Tarpit)]);
    let of = |flags: &str, payload| answered(&rules, &to_server(flags, payload)).map(|reply| segment(&reply));
    let syn_ack = of("S", b"").unwrap();
    assert_eq!((flags(&syn_ack), syn_ack.acknowledgment_number, syn_ack.window_size), ("SA".to_owned(), 0, 5));
    assert_eq!(of("S", b"").unwrap().sequence_number, syn_ack.sequence_number);
    let ack = of("AP", b"data").unwrap();
    assert_eq!((flags(&ack), ack.window_size), ("A".to_owned(), 0));
    assert_eq!((ack.sequence_number, ack.acknowledgment_number), (777, u32::MAX));
    let reset = of("SA", b"").unwrap();
    assert_eq!((flags(&reset), reset.sequence_number), ("R".to_owned(), 777));
    for silent in ["FA", "R", "RA", "F", "SF", "", "P"] {
        assert_eq!(of(silent, b""), None, "{silent}");
    }
    assert_eq!(answered(&rules, &udp((CLIENT, 1), (SERVER, 2), b"")), None);
}

#[test]
fn a_tarpit_acknowledges_once_a_second_for_each_peer() {
    let rules = rules(vec![rule(vec![], Action::Tarpit)]);
    let settings = Settings::default();
    let mut evaluator = Evaluator::new(&rules, &settings, 1);
    let mut answers = |source: &str, flags: &str, now| {
        evaluator.outside(&tcp((source, 40_000), (SERVER, 22), flags, (1, 1), b""), ms(now)).replies.len()
    };
    let counted = [
        answers(CLIENT, "A", 500),
        answers(CLIENT, "A", 1_499),
        answers("198.51.100.8", "A", 1_499),
        answers(CLIENT, "S", 1_499),
        answers(CLIENT, "A", 1_500),
        answers(CLIENT, "A", 1_501),
    ];
    assert_eq!(counted, [1, 0, 1, 1, 1, 0]);
}
