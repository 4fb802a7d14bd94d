//! PPP over Ethernet: frames of a session that the reader accepts or refuses. The other libraries of the tests do not
//! read PPPoE, so etherparse builds the frames, and the tests insert the bytes of RFC 2516.

use knockplane_engine::headers::{self, max_frame, read};
use knockplane_policy::frames::FrameClass;
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::reason::{Reason, Verdict};
use knockplane_policy::rule::{Action, RuleSet};
use knockplane_policy::settings::{Choice, FrameClasses, Settings, SideChoice};
use knockplane_policy::time::Time;
use proptest::prelude::*;

use crate::common::{Details, Engine, Spec, Transport, cases, in_session, rule, rule_set};
use crate::headers::spec;
use crate::neighbours::build::{Discovery, INSIDE_MAC};

/// The places in a frame without tags where the header of a session begins, and where its length is.
const HEADER: usize = 14;
const LENGTH: usize = HEADER + 4;

fn reads(frame: &[u8]) -> Result<Packet<'_>, Reason> {
    read(Side::Outside, frame, max_frame(1500))
}

/// All fields of a packet except its frame.
fn seen<'f>(packet: &Packet<'f>) -> impl PartialEq + std::fmt::Debug + use<'f> {
    let Packet { side, source, destination, protocol, ports, icmp, ip_length, payload, .. } = *packet;
    (
        (side, source, destination, protocol, ports, icmp, ip_length, payload),
        (packet.network(), packet.transport(), packet.fragment(), packet.tcp_flags(), packet.source_mac()),
    )
}

/// A session's frame with these words behind the Ethernet addresses and 46 bytes behind them.
fn words(words: &[u16]) -> Vec<u8> {
    let words: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    [&[2; 12][..], &words, &[0x45; 46]].concat()
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// A packet in a session equals the same packet outside a session, with any padding of PPP or Ethernet.
    #[test]
    fn a_packet_in_a_session_is_the_packet(spec in spec(), session in 1..u16::MAX, ppp in 0..9_u16, ethernet in 0..9_usize) {
        let bare = Spec { padding: 0, ..spec.clone() }.frame();
        let Ok(packet) = reads(&bare) else { return Ok(()) };
        let mut frame = in_session(bare.clone(), 12 + 4 * spec.tags, session);
        let length_at = LENGTH + 4 * spec.tags;
        let length = u16::from_be_bytes([frame[length_at], frame[length_at + 1]]) + ppp;
        frame[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        frame.extend(vec![0xee; usize::from(ppp) + ethernet]);
        let inside = reads(&frame).expect("it is read");
        prop_assert_eq!(seen(&inside), seen(&packet));
        prop_assert_eq!(inside.vlan(), packet.vlan().in_session(session));
        // Lengths that are a byte less than the packet, or more than the frame, and lengths that contradict each other.
        for wrong in [length - ppp - 1, length + ethernet as u16 + 1, 0, 1, u16::MAX] {
            frame[length_at..length_at + 2].copy_from_slice(&wrong.to_be_bytes());
            let reason = reads(&frame).expect_err("lengths contradict each other");
            let is_within = matches!(reason, Reason::Ipv4Malformed | Reason::Ipv6Malformed);
            prop_assert!(reason == Reason::PppoeMalformed || is_within && wrong < length, "{:?} for {}", reason, wrong);
        }
    }

    /// Any bytes behind the type give a result, and an accepted packet agrees with its lengths.
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..80), is_session: bool) {
        let kind = if is_session { [0x88, 0x64] } else { [0x88, 0x63] };
        let frame = [&[2; 12][..], &kind, &bytes].concat();
        if let Ok(packet) = reads(&frame) {
            let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
            prop_assert!(is_session && 2 + packet.ip_length as usize <= length && 6 + length <= bytes.len());
        }
        let _ = headers::source(&frame);
        let _ = headers::class_frame(Side::Outside, FrameClass::Pppoe, &frame);
    }
}

#[test]
fn what_is_no_session_of_plain_ip_is_refused_and_control_is_a_class() {
    let cases: [(&[u16], Reason); 22] = [
        // LCP, PAP, CHAP, IPCP, IPV6CP, EAP, and the control of compression.
        (&[0x8864, 0x1100, 7, 10, 0xc021], Reason::Pppoe),
        (&[0x8864, 0x1100, 7, 10, 0xc023], Reason::Pppoe),
        (&[0x8864, 0x1100, 7, 10, 0xc223], Reason::Pppoe),
        (&[0x8864, 0x1100, 7, 10, 0x8021], Reason::Pppoe),
        (&[0x8864, 0x1100, 7, 10, 0x8057], Reason::Pppoe),
        (&[0x8864, 0x1100, 7, 10, 0xc227], Reason::Pppoe),
        (&[0x8864, 0x1100, 7, 10, 0x80fd], Reason::Pppoe),
        // A compressed protocol field, compressed headers, compressed and encrypted data, multilink, MPLS, IPX.
        (&[0x8864, 0x1100, 7, 40, 0x2145], Reason::PppUnreadable),
        (&[0x8864, 0x1100, 7, 40, 0x002d], Reason::PppUnreadable),
        (&[0x8864, 0x1100, 7, 40, 0x002f], Reason::PppUnreadable),
        (&[0x8864, 0x1100, 7, 40, 0x00fd], Reason::PppUnreadable),
        (&[0x8864, 0x1100, 7, 40, 0x0053], Reason::PppUnreadable),
        (&[0x8864, 0x1100, 7, 40, 0x003d], Reason::PppUnreadable),
        (&[0x8864, 0x1100, 7, 40, 0x0281], Reason::PppUnreadable),
        (&[0x8864, 0x1100, 7, 40, 0x0020], Reason::PppoeMalformed),
        // Version, code, reserved session numbers, lengths.
        (&[0x8864, 0x2100, 7, 40, 0x0021], Reason::PppoeMalformed),
        (&[0x8864, 0x1101, 7, 40, 0x0021], Reason::PppoeMalformed),
        (&[0x8864, 0x1100, 0, 40, 0x0021], Reason::PppoeMalformed),
        (&[0x8864, 0x1100, 0xffff, 40, 0x0021], Reason::PppoeMalformed),
        (&[0x8864, 0x1100, 7, 1, 0xc021], Reason::PppoeMalformed),
        (&[0x8864, 0x1100, 7, 49, 0xc021], Reason::PppoeMalformed),
        // The packet is longer than the length of the session header.
        (&[0x8864, 0x1100, 7, 21, 0x0021], Reason::Ipv4Malformed),
    ];
    for (of, reason) in cases {
        assert_eq!(reads(&words(of)), Err(reason), "{of:04x?}");
    }
    for length in HEADER..HEADER + 8 {
        assert_eq!(reads(&words(&[0x8864, 0x1100, 7, 0, 0xc021])[..length]), Err(Reason::PppoeMalformed));
    }
}

#[test]
fn discovery_is_a_class_by_its_codes_and_its_length() {
    for code in [0x09_u16, 0x07, 0x19, 0x65, 0xa7] {
        assert_eq!(reads(&words(&[0x8863, 0x1100 | code, 0, 46])), Err(Reason::Pppoe), "{code:x}");
    }
    for wrong in
        [&[0x8863_u16, 0x1100, 0, 4][..], &[0x8863, 0x1108, 0, 4], &[0x8863, 0x2109, 0, 4], &[0x8863, 0x1109, 0, 47]]
    {
        assert_eq!(reads(&words(wrong)), Err(Reason::PppoeMalformed), "{wrong:04x?}");
    }
    assert_eq!(reads(&words(&[0x8863, 0x1109, 0])[..19]), Err(Reason::PppoeMalformed));
}

#[test]
fn the_class_is_dropped_unless_the_settings_say_otherwise_and_ip_is_left_to_the_rules() {
    let decide = |frames: FrameClasses, side, frame: &[u8]| {
        let rules = rule_set(vec![rule("input", Vec::new(), Action::Accept)]);
        let mut engine = Engine::new(rules, &Settings { frames, ..Settings::default() });
        let decision = engine.decide(side, &[frame], Time::default())[0];
        (decision.verdict, decision.reason)
    };
    let padi = words(&[0x8863, 0x1109, 0, 4]);
    let lcp = words(&[0x8864, 0x1100, 7, 10, 0xc021]);
    let compressed = words(&[0x8864, 0x1100, 7, 40, 0x002d]);
    let ip = in_session(Spec::new("198.51.100.7", Transport::Udp(1, 2), b"").frame(), 12, 7);
    let accepts = SideChoice { outside: Choice::Drop, inside: Choice::Accept };
    let accepting =
        FrameClasses { pppoe: accepts, unknown: SideChoice::both(Choice::Accept), ..FrameClasses::default() };
    for frame in [&padi, &lcp] {
        assert_eq!(decide(FrameClasses::default(), Side::Inside, frame), (Verdict::Drop, Reason::Pppoe));
        assert_eq!(decide(accepting.clone(), Side::Outside, frame), (Verdict::Drop, Reason::Pppoe));
        assert_eq!(decide(accepting.clone(), Side::Inside, frame), (Verdict::Forward, Reason::Pppoe));
    }
    // No setting accepts frames that rules cannot read.
    assert_eq!(decide(accepting.clone(), Side::Inside, &compressed), (Verdict::Drop, Reason::PppUnreadable));
    assert_eq!(decide(FrameClasses::default(), Side::Outside, &ip), (Verdict::Forward, Reason::Rule));
    let mut closed = Engine::new(RuleSet::default(), &Settings { frames: accepting, ..Settings::default() });
    assert_eq!(closed.decide(Side::Outside, &[&ip], Time::default())[0].verdict, Verdict::Drop);
}

#[test]
fn the_longest_frame_has_room_for_two_tags_and_a_session_of_1492_bytes() {
    let of = |length: usize| {
        let spec = Spec {
            tags: 2,
            details: Details { session: 7, ..Details::default() },
            ..Spec::new("198.51.100.7", Transport::Udp(1, 2), &vec![0; length - 28])
        };
        let frame = spec.frame();
        read(Side::Outside, &frame, max_frame(1500)).map(|packet| packet.ip_length)
    };
    assert_eq!((of(1492), of(1493)), (Ok(1492), Err(Reason::FrameTooLong)));
}

#[test]
fn neighbour_discovery_in_a_session_is_its_class() {
    // In a session, the destination of the Ethernet header is always the peer.
    let advertisement = Discovery { to: INSIDE_MAC, ..Discovery::router_advertisement("fe80::1") }.frame();
    assert_eq!(reads(&advertisement), Err(Reason::RouterAdvertisement));
    let frame = in_session(advertisement, 12, 7);
    assert_eq!(reads(&frame), Err(Reason::RouterAdvertisement));
    let claims = headers::class_frame(Side::Outside, FrameClass::RouterAdvertisement, &frame).claims;
    assert!(claims[0].is_some(), "it claims its source");
    // A message with bytes behind it, within the session, is malformed.
    let mut longer = frame.clone();
    let length = u16::from_be_bytes([longer[LENGTH], longer[LENGTH + 1]]) + 4;
    longer[LENGTH..LENGTH + 2].copy_from_slice(&length.to_be_bytes());
    longer.extend([0; 4]);
    assert_eq!(reads(&longer), Err(Reason::NeighbourDiscoveryMalformed));
}
