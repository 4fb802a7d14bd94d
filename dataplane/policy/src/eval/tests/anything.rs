//! Checks for any rules and any bytes that nothing panics, and that an explanation has the same result as an
//! evaluation.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::cases::cases;
use crate::reason::{Reason, Verdict};
use crate::rule::{Layer7Pattern, Log, RejectWith, Tracking, TrackingMode, one_of_each};
use crate::word::Word;

pub(super) fn actions() -> Vec<Action> {
    let rejects = RejectWith::ALL.iter().map(|with| Action::Reject(*with));
    let others = [
        Action::Accept,
        Action::Drop,
        Action::Tarpit,
        Action::Passthrough,
        Action::Log,
        add_src("a", 1),
        add_src("b", 0),
        Action::Jump("input".to_owned()),
        Action::Jump("other".to_owned()),
        Action::Return,
        Action::FasttrackConnection,
        Action::Notrack,
    ];
    others.into_iter().chain(rejects).collect()
}

fn a_rule() -> impl Strategy<Value = Rule> {
    let matcher =
        (any::<bool>(), select(one_of_each())).prop_map(|(negated, condition)| Matcher { negated, condition });
    let place = select(vec![
        (Table::Filter, "input"),
        (Table::Filter, "input"),
        (Table::Filter, "output"),
        (Table::Filter, "other"),
        (Table::Raw, "prerouting"),
    ]);
    (place, any::<bool>(), any::<bool>(), prop::collection::vec(matcher, 0..3), select(actions())).prop_map(
        |((table, chain), v6, log, matchers, action)| {
            let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
            Rule { table, matchers, log: log.then(Log::default), ..Rule::new(family, chain, action) }
        },
    )
}

/// A whole frame with some bytes changed after the Ethernet header.
fn a_frame() -> impl Strategy<Value = Vec<u8>> {
    let hello = crate::eval::tls::tests::client_hello("www.example.com");
    let datagram = udp((CLIENT, 1), (SERVER, 2), b"p");
    let frames = vec![
        tcp((CLIENT, 1), (SERVER, 2), "S", (1, 0), b""),
        tcp((SERVER, 2), (CLIENT, 1), "SA", (1, 2), b""),
        tcp((CLIENT, 1), (SERVER, 2), "A", (2, 2), &hello),
        tcp((CLIENT6, 1), (SERVER6, 2), "AF", (2, 2), &hello),
        datagram.clone(),
        udp((SERVER, 2), (CLIENT, 1), b"p"),
        udp((CLIENT6, 1), (SERVER6, 2), b"p"),
        fragment(datagram.clone(), 1, 0, true),
        fragment(datagram.clone(), 1, 2, false),
        echo(CLIENT, SERVER, 8, 1),
        echo(SERVER6, CLIENT6, 129, 1),
        icmp(SERVER, CLIENT, (3, 3), [0; 4], &datagram[14..]),
        icmp(SERVER6, CLIENT6, (1, 3), [0; 4], &udp((CLIENT6, 1), (SERVER6, 2), b"")[14..]),
        other(CLIENT, SERVER, 47),
    ];
    let byte = prop_oneof![Just(0_u8), Just(44), Just(60), Just(0xff), any::<u8>()];
    (select(frames), prop::collection::vec((any::<Index>(), byte), 0..4)).prop_map(|(mut frame, changes)| {
        for (place, byte) in changes {
            let place = 14 + place.index(frame.len() - 14);
            frame[place] = byte;
        }
        frame
    })
}

/// The packet as rules see it, although its bytes may have changed.
fn as_it_was<'f>(side: Side, frame: &'f [u8], cut: usize) -> Packet<'f> {
    let v4 = frame[12..14] == [8, 0];
    let (network, transport) = (14, if v4 { 34 } else { 54 });
    let address = |at: usize| -> IpAddr {
        match v4 {
            true => <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap().into(),
            false => <[u8; 16]>::try_from(&frame[at..at + 16]).unwrap().into(),
        }
    };
    let (source, destination) = if v4 { (address(26), address(30)) } else { (address(22), address(38)) };
    let protocol = if v4 { frame[23] } else { frame[20] };
    let two = |at| frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    Packet {
        ports: two(transport).zip(two(transport + 2)).filter(|_| matches!(protocol, 6 | 17)),
        icmp: frame
            .get(transport)
            .copied()
            .zip(frame.get(transport + 1).copied())
            .filter(|_| matches!(protocol, 1 | 58)),
        ip_length: (frame.len() - network - cut.min(frame.len() - network)) as u32,
        payload: frame.get(transport + 8..).unwrap_or_default(),
        frame,
        network: network as u16,
        transport: transport as u16,
        ..Packet::bare(side, source, destination, protocol)
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn nothing_panics_and_an_explanation_changes_nothing(
        list in prop::collection::vec(a_rule(), 0..8),
        mode in select(vec![TrackingMode::Auto, TrackingMode::Yes, TrackingMode::No]),
        packets in prop::collection::vec((a_frame(), any::<bool>(), select(vec![0_u64, 1, 1_000, 40_000]), 0..60_usize), 0..12),
    ) {
        let pattern = Layer7Pattern { name: "p".to_owned(), regexp: "p+".to_owned(), comment: String::new(), line: 0 };
        let tracking = Tracking { enabled: mode, ..Tracking::default() };
        let rules = RuleSet { rules: list, layer7: vec![pattern], tracking, ..RuleSet::default() };
        let settings = Settings::default();
        let (mut plain, mut telling) = (Evaluator::new(&rules, &settings, 7), Evaluator::new(&rules, &settings, 7));
        let mut now = 0;
        for (frame, inside, pause, cut) in &packets {
            now += pause;
            let side = if *inside { Side::Inside } else { Side::Outside };
            let packet = as_it_was(side, frame, *cut);
            let expected = plain.evaluate(&packet, ms(now));
            let explanation = telling.explain(&packet, ms(now));
            prop_assert_eq!(&explanation.evaluation, &expected);
            prop_assert_eq!(plain.lists(), telling.lists());
            let matched: Vec<usize> = explanation.tried.iter()
                .filter(|tried| matches!(tried.outcome, crate::eval::Outcome::Matched { .. }))
                .map(|tried| tried.rule)
                .collect();
            prop_assert_eq!(&matched, &expected.matched);
            // An answered packet is dropped, and a reply is shorter than its limit.
            prop_assert!(expected.replies.is_empty() || expected.verdict == Verdict::Drop);
            prop_assert!(expected.replies.iter().all(|reply| reply.len() <= 1280));
            prop_assert!(expected.reason != Reason::Rule || !expected.matched.is_empty());
        }
    }
}
