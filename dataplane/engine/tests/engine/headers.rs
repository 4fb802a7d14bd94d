//! The readers against etherparse, and the frames that they refuse.
//!
//! For each packet that the readers accept, etherparse's lax slices must have the same addresses, protocol, ports and
//! payload. In these cases the readers deliberately stop earlier than etherparse:
//! - IPv4: an authentication header is the packet's protocol, as in RouterOS; etherparse reads the headers behind it.
//! - IPv6: a payload length of 0 means no payload; etherparse takes the rest of the frame. The data of a later fragment
//!   is not parsed; etherparse reads on as if extension headers followed.
//! - MACsec is an unknown ethertype; etherparse reads the unencrypted part.

use std::net::IpAddr;

use etherparse::{
    Ethernet2Slice, IpNumber, LaxNetSlice, LaxSlicedPacket, SlicedPacket, TcpSlice, TransportSlice, UdpSlice,
};
use knockplane_engine::headers::read;
use knockplane_policy::packet::{FragmentPart, Packet, Side, TcpFlag};
use knockplane_policy::reason::Reason;
use knockplane_policy::rsc;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use knockplane_policy::word::Word;
use proptest::prelude::*;

use crate::common::{Details, Engine, Spec, Transport, cases, ethernet};

/// Checks that etherparse agrees with the packet.
fn assert_seen_alike(frame: &[u8], packet: &Packet<'_>) {
    let lax = LaxSlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination, fragment, sees_more) = match lax.net.as_ref().unwrap() {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let fragment = (header.is_fragmenting_payload(), header.fragments_offset().value() > 0);
            assert_eq!(packet.protocol, header.protocol().0);
            assert_eq!(packet.ip_length, u32::from(header.total_len()));
            assert_eq!((packet.ttl(), packet.dscp()), (Some(header.ttl()), Some(header.dcp().value())));
            let part = match (header.more_fragments(), header.fragments_offset().value()) {
                (false, 0) => FragmentPart::Whole,
                (true, 0) => FragmentPart::First,
                _ => FragmentPart::Later,
            };
            assert_eq!(packet.fragment(), Some(part));
            assert_eq!(
                packet.network().unwrap()[20..].strip_suffix(packet.transport().unwrap()),
                Some(header.options())
            );
            let sees_more = header.protocol() == IpNumber::AUTHENTICATION_HEADER;
            (header.source_addr().into(), header.destination_addr().into(), fragment, sees_more)
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(packet.ip_length, u32::from(header.payload_length()) + 40);
            assert_eq!((packet.ttl(), packet.tos()), (Some(header.hop_limit()), Some(header.traffic_class())));
            let fragment = (ip.payload().fragmented, packet.ports.is_none() && packet.payload.is_empty());
            let extension = IpNumber(packet.protocol).is_ipv6_ext_header_value();
            let sees_more = header.payload_length() == 0 || fragment.0 && extension;
            (header.source_addr().into(), header.destination_addr().into(), fragment, sees_more)
        }
        LaxNetSlice::Arp(_) => panic!("ARP was accepted as IP"),
    };
    assert_eq!((packet.source, packet.destination), (source, destination));
    assert_eq!(
        packet.source_mac().map(|mac| mac.0),
        Ethernet2Slice::from_slice_without_fcs(frame).ok().map(|slice| slice.source())
    );
    assert_eq!(packet.vlan_priority(), lax.vlan_ids().first().map(|_| frame[14] >> 5));
    if sees_more {
        return;
    }

    let ip_payload = lax.net.as_ref().unwrap().ip_payload_ref().unwrap();
    assert!(!ip_payload.incomplete);
    assert_eq!(packet.protocol, ip_payload.ip_number.0);
    let (fragmented, later) = fragment;
    assert_eq!(ip_payload.fragmented, fragmented);
    assert_eq!(packet.fragment() != Some(FragmentPart::Whole), fragmented);
    if fragmented && later && packet.icmp.is_none() {
        assert_eq!((packet.ports, packet.payload.len()), (None, 0));
        return;
    }
    let behind = ip_payload.payload;
    assert_eq!(packet.transport(), Some(behind));
    let (ports, icmp, payload) = match ip_payload.ip_number {
        IpNumber::TCP => {
            let tcp = TcpSlice::from_slice(behind).unwrap();
            let flags = [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack(), tcp.urg(), tcp.ece(), tcp.cwr()];
            assert_eq!(
                TcpFlag::ALL.iter().map(|flag| packet.tcp_flags().unwrap().contains(*flag)).collect::<Vec<_>>(),
                flags
            );
            let numbers = (packet.tcp_sequence(), packet.tcp_acknowledgement(), packet.tcp_window());
            let same = (tcp.sequence_number(), tcp.acknowledgment_number(), tcp.window_size());
            assert_eq!(numbers, (Some(same.0), Some(same.1), Some(same.2)));
            (Some((tcp.source_port(), tcp.destination_port())), None, tcp.payload())
        }
        IpNumber::UDP => {
            let udp = UdpSlice::from_slice_lax(behind).unwrap();
            (Some((udp.source_port(), udp.destination_port())), None, udp.payload())
        }
        IpNumber::ICMP | IpNumber::IPV6_ICMP => (None, Some((behind[0], behind[1])), &behind[8..]),
        _ => (None, None, behind),
    };
    assert_eq!((packet.ports, packet.icmp, packet.payload), (ports, icmp, payload));

    if !fragmented && matches!(ip_payload.ip_number, IpNumber::TCP | IpNumber::UDP) {
        let strict = SlicedPacket::from_ethernet(frame).unwrap();
        let payload = match strict.transport.unwrap() {
            TransportSlice::Tcp(tcp) => tcp.payload(),
            TransportSlice::Udp(udp) => udp.payload(),
            other => panic!("{other:?}"),
        };
        assert_eq!(packet.payload, payload);
    }
}

/// Ordinary packets of all kinds.
pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    let transport = prop_oneof![
        any::<(u16, u16)>().prop_map(|(source, destination)| Transport::Tcp(source, destination)),
        any::<(u16, u16)>().prop_map(|(source, destination)| Transport::Udp(source, destination)),
        // Neighbour discovery is no packet for rules.
        (prop_oneof![0..133_u8, 138..=255_u8], any::<u8>()).prop_map(|(kind, code)| Transport::Icmp(kind, code)),
        prop_oneof![Just(47), Just(50), Just(132), 144..253_u8].prop_map(Transport::Other),
    ];
    let payload = prop::collection::vec(any::<u8>(), 0..80);
    (any::<bool>(), any::<[u8; 32]>(), transport, payload, 0..3_usize, 0..20_usize).prop_map(
        |(v4, addresses, transport, payload, tags, padding)| {
            let [s0, s1, s2, s3, d0, d1, d2, d3, ..] = addresses;
            let octets = |from: usize| -> [u8; 16] { addresses[from..from + 16].try_into().unwrap() };
            let (source, destination) = match v4 {
                true => ([s0, s1, s2, s3].into(), [d0, d1, d2, d3].into()),
                false => (octets(0).into(), octets(16).into()),
            };
            Spec { source, destination, transport, payload, tags, padding, details: Details::default() }
        },
    )
}

/// IPv6 packets with any chain of extension headers, right and wrong.
fn extended() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(vec![0_u8, 43, 44, 44, 51, 60, 60, 135]);
    let extension = (kind, 0..3_u8, any::<[u8; 2]>(), 0..3_usize);
    let upper = prop::sample::select(vec![6_u8, 17, 58, 50, 59, 0, 44, 200]);
    (prop::collection::vec(extension, 0..11), upper, prop::collection::vec(any::<u8>(), 0..64)).prop_map(
        |(extensions, upper, payload)| {
            let kinds: Vec<u8> = extensions.iter().map(|extension| extension.0).chain([upper]).collect();
            let mut chain = Vec::new();
            for ((kind, units, field, plain), next) in extensions.iter().zip(&kinds[1..]) {
                let length = match kind {
                    44 => 8,
                    51 => (usize::from(*units) + 2) * 4,
                    _ => (usize::from(*units) + 1) * 8,
                };
                let mut header = vec![0; length];
                // Offset, reserved bits and flag of a fragment header: often valid ones.
                let field = [*field, [0, 1], [0, 0]][*plain];
                header[..4].copy_from_slice(&[*next, *units, field[0], field[1]]);
                chain.extend(header);
            }
            let mut udp_or_tcp = payload;
            if let (17, Some(length)) = (upper, udp_or_tcp.get_mut(4..6)) {
                length.copy_from_slice(&[0, 16]);
            }
            if let (6, Some(offset)) = (upper, udp_or_tcp.get_mut(12)) {
                *offset = 0x50 | *offset >> 4;
            }
            chain.extend(udp_or_tcp);
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((chain.len() as u16).to_be_bytes());
            packet.extend([kinds[0], 255]);
            packet.extend([0x20; 32]);
            packet.extend(chain);
            ethernet(&packet)
        },
    )
}

proptest! {
    #![proptest_config(cases(4_000))]

    #[test]
    fn what_was_built_is_read(spec in spec()) {
        let frame = spec.frame();
        let packet = read(Side::Inside, &frame, 1522);
        prop_assert_eq!(packet, Ok(spec.packet(Side::Inside, &frame)));
        assert_seen_alike(&frame, &packet.unwrap());
    }

    #[test]
    fn what_is_accepted_of_mutilated_frames_is_seen_alike(
        spec in spec(),
        changes in prop::collection::vec((12..100_usize, any::<u8>()), 0..4),
        // Fragments: flags and offset of IPv4.
        fragment in prop::option::of(prop_oneof![Just(0x2000_u16), Just(1), Just(0x2001), Just(0x1fff), any::<u16>()]),
        keep in prop_oneof![3 => Just(usize::MAX), 1 => 0..100_usize],
    ) {
        let mut frame = spec.frame();
        if let (Some(field), true) = (fragment, spec.source.is_ipv4()) {
            let at = 14 + spec.tags * 4 + 6;
            frame[at..at + 2].copy_from_slice(&field.to_be_bytes());
        }
        for (position, value) in changes {
            let position = position % frame.len();
            frame[position] = value;
        }
        frame.truncate(keep);
        if let Ok(packet) = read(Side::Outside, &frame, 1522) {
            assert_seen_alike(&frame, &packet);
        }
    }

    #[test]
    fn what_is_accepted_of_extension_headers_is_seen_alike(frame in extended(), cut in 0..4_usize, cuts in any::<bool>()) {
        let frame = &frame[..frame.len() - if cuts { cut } else { 0 }];
        if let Ok(packet) = read(Side::Outside, frame, 1522) {
            assert_seen_alike(frame, &packet);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        ethertype in prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x8100), any::<u16>()],
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        first in prop_oneof![Just(0x45_u8), Just(0x46), Just(0x60), any::<u8>()],
    ) {
        let mut frame = [&[2; 12], &ethertype.to_be_bytes()[..], &bytes].concat();
        if let Some(byte) = frame.get_mut(14) {
            *byte = first;
        }
        for frame in [&frame[..], &bytes] {
            if let Ok(packet) = read(Side::Outside, frame, 1522) {
                assert_seen_alike(frame, &packet);
            }
        }
    }
}

/// An IPv4 packet: flags and offset, protocol, the data behind the header.
fn v4(fragment: u16, protocol: u8, data: &[u8]) -> Vec<u8> {
    let [t0, t1] = (20 + data.len() as u16).to_be_bytes();
    let [f0, f1] = fragment.to_be_bytes();
    let header = [0x45, 0, t0, t1, 0, 1, f0, f1, 64, protocol, 0, 0, 192, 0, 2, 1, 203, 0, 113, 1];
    ethernet(&[&header, data].concat())
}

/// An IPv6 packet: first next header, hop limit, the data behind the header.
fn v6(next: u8, hop_limit: u8, data: &[u8]) -> Vec<u8> {
    let [l0, l1] = (data.len() as u16).to_be_bytes();
    ethernet(&[&[0x60, 0, 0, 0, l0, l1, next, hop_limit], &[0x20; 32][..], data].concat())
}

fn reason(frame: &[u8]) -> Option<Reason> {
    read(Side::Outside, frame, 1522).err()
}

const MORE: u16 = 0x2000;
const TCP_SYN: [u8; 20] = [0, 9, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0];
const UDP: [u8; 8] = [0, 9, 0, 53, 0, 8, 0, 0];

#[test]
fn fragments_are_safe_by_themselves() {
    let malformed = Some(Reason::FragmentMalformed);
    let first = [&TCP_SYN[..], &[7; 12]].concat();
    let cases: [(&str, Vec<u8>, Option<Reason>); 13] = [
        ("a first one with the whole header", v4(MORE, 6, &first), None),
        ("a tiny first one", v4(MORE, 6, &TCP_SYN[..8]), malformed),
        ("a first one that ends in TCP's options", v4(MORE, 6, &[&TCP_SYN[..12], &[0xf0; 20]].concat()), malformed),
        ("a first one that is no multiple of 8", v4(MORE, 6, &[&TCP_SYN[..], &[7; 5]].concat()), malformed),
        ("a first one of UDP whose length is the datagram's", v4(MORE, 17, &[0, 9, 0, 53, 5, 0, 0, 0]), None),
        ("one over TCP's flags", v4(1, 6, &[0; 64]), malformed),
        ("the same place, but UDP", v4(1, 17, &[0; 64]), None),
        ("a later one", v4(100, 6, &[0; 3]), None),
        ("a later one with nothing in it", v4(100, 6, &[]), malformed),
        ("one to exactly 65,535 bytes", v4(0x1fff, 17, &[0; 3]), malformed),
        ("one to 65,535 bytes with the header", v4(0x1ffd, 17, &[0; 3]), None),
        ("one beyond", v4(0x1ffd, 17, &[0; 4]), malformed),
        ("no fragment, though it must not become one", v4(0x4000, 17, &UDP), None),
    ];
    for (what, frame, expected) in cases {
        assert_eq!(reason(&frame), expected, "{what}");
    }
    let later = v4(100, 17, &UDP);
    let packet = read(Side::Outside, &later, 1522).unwrap();
    assert_eq!((packet.protocol, packet.ports, packet.payload, packet.ip_length), (17, None, &[][..], 28));
    let first = v4(MORE, 17, &[0, 9, 0, 53, 5, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(read(Side::Outside, &first, 1522).unwrap().payload, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn ipv6_extension_headers_are_walked_to_the_end_or_refused() {
    let extensions = Some(Reason::Ipv6Extensions);
    let malformed = Some(Reason::FragmentMalformed);
    let chain = |headers: &[&[u8]]| headers.concat();
    let options = |next: u8| [next, 0, 0, 0, 0, 0, 0, 0];
    let fragment = |next: u8, field: u16| {
        let [f0, f1] = field.to_be_bytes();
        [next, 0, f0, f1, 0, 0, 0, 1]
    };
    let eight = [options(60); 7].concat();
    let cases: [(&str, Vec<u8>, Option<Reason>); 18] = [
        ("hop-by-hop first", v6(0, 64, &chain(&[&options(17), &UDP])), None),
        ("hop-by-hop second", v6(60, 64, &chain(&[&options(0), &options(17), &UDP])), extensions),
        ("eight", v6(60, 64, &chain(&[&eight, &options(17), &UDP])), None),
        ("nine", v6(60, 64, &chain(&[&eight, &options(60), &options(17), &UDP])), extensions),
        ("authentication", v6(51, 64, &chain(&[&[17, 1], &[0; 10], &UDP])), None),
        ("authentication too short for itself", v6(51, 64, &chain(&[&[17, 0], &[0; 6], &UDP])), extensions),
        ("one that ends the packet early", v6(60, 64, &[17, 1, 0, 0, 0, 0, 0, 0]), extensions),
        ("one cut off", v6(60, 64, &[17, 0, 0]), extensions),
        ("a jumbogram", v6(0, 64, &[]), extensions),
        ("an atomic fragment", v6(44, 64, &chain(&[&fragment(17, 0), &UDP])), None),
        ("a fragment in a fragment", v6(44, 64, &chain(&[&fragment(44, 0), &fragment(17, 0), &UDP])), extensions),
        ("a first fragment without its header", v6(44, 64, &chain(&[&fragment(6, 1), &TCP_SYN[..8]])), malformed),
        ("a later one over TCP's flags", v6(44, 64, &chain(&[&fragment(6, 8), &UDP])), malformed),
        ("a later one", v6(44, 64, &chain(&[&fragment(6, 80), &UDP])), None),
        ("an empty one", v6(44, 64, &fragment(6, 80)), malformed),
        ("one to 65,535 bytes", v6(44, 64, &chain(&[&fragment(17, 0xfff0), &[0; 15]])), None),
        (
            "the same behind 8 bytes more of the datagram",
            v6(60, 64, &chain(&[&options(44), &fragment(17, 0xfff0), &[0; 15]])),
            malformed,
        ),
        ("no next header", v6(59, 64, &[]), None),
    ];
    for (what, frame, expected) in cases {
        assert_eq!(reason(&frame), expected, "{what}");
    }
    for frame in [v6(0, 64, &chain(&[&options(17), &UDP])), v6(44, 64, &chain(&[&fragment(17, 0), &UDP]))] {
        let packet = read(Side::Outside, &frame, 1522).unwrap();
        assert_eq!((packet.protocol, packet.ports, packet.ip_length), (17, Some((9, 53)), 56));
    }
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let truncated = Some(Reason::TransportTruncated);
    let malformed = Some(Reason::TransportMalformed);
    let tcp = |words: u8| v4(0, 6, &[&TCP_SYN[..12], &[words << 4], &TCP_SYN[13..]].concat());
    let udp = |length: u8| v4(0, 17, &[&UDP[..5], &[length], &UDP[6..], &[1; 4]].concat());
    let cases: [(Vec<u8>, Option<Reason>); 12] = [
        (v4(0, 6, &TCP_SYN[..19]), truncated),
        (tcp(4), malformed),
        (tcp(5), None),
        (tcp(6), malformed),
        (v4(0, 17, &UDP[..7]), truncated),
        (udp(0), malformed),
        (udp(7), malformed),
        (udp(8), None),
        (udp(12), None),
        (udp(13), malformed),
        (v4(0, 1, &[8; 7]), truncated),
        (v4(0, 1, &[8; 8]), None),
    ];
    for (frame, expected) in cases {
        assert_eq!(reason(&frame), expected, "{frame:02x?}");
    }
    assert_eq!(read(Side::Outside, &udp(10), 1522).unwrap().payload, [1; 2]);

    let ok = v4(0, 17, &UDP);
    let with = |at: usize, value: u8| {
        let mut frame = ok.clone();
        frame[14 + at] = value;
        reason(&frame)
    };
    for (at, value) in [(0, 0x55), (0, 0x44), (0, 0x4f), (3, 19), (3, 29)] {
        assert_eq!(with(at, value), Some(Reason::Ipv4Malformed), "byte {at} = {value:#x}");
    }
    assert_eq!(reason(&ok[..33]), Some(Reason::Ipv4Malformed));
    assert_eq!(reason(&v6(17, 64, &UDP)[..61]), Some(Reason::Ipv6Malformed));
}

/// Writes the checksum field as Linux does for a packet whose checksum the interface is to compute: the sum of
/// addresses, protocol and length, folded and not inverted (`CHECKSUM_PARTIAL`).
fn leave_to_interface(frame: &mut [u8], packet: &Packet<'_>) {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = packet.transport().unwrap().len() as u32;
    let addresses = [octets(packet.source), octets(packet.destination)].concat();
    let words = addresses.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = words.sum::<u32>() + u32::from(packet.protocol) + length;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let place = usize::from(packet.transport) + if packet.protocol == 6 { 16 } else { 6 };
    frame[place..place + 2].copy_from_slice(&(sum as u16).to_be_bytes());
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_checksum_that_is_left_to_an_interface_is_told_from_one_that_is_right_or_wrong(spec in spec(), wrong in 1..u16::MAX) {
        let frame = spec.frame();
        let packet = read(Side::Outside, &frame, 1522).unwrap();
        prop_assert!(!packet.lacks_checksum());
        if matches!(packet.protocol, 6 | 17) {
            let mut left = frame.clone();
            leave_to_interface(&mut left, &packet);
            prop_assert!(read(Side::Outside, &left, 1522).unwrap().lacks_checksum());
            let place = usize::from(packet.transport) + if packet.protocol == 6 { 16 } else { 6 };
            let field = u16::from_be_bytes([left[place], left[place + 1]]).wrapping_add(wrong);
            left[place..place + 2].copy_from_slice(&field.to_be_bytes());
            prop_assert!(!read(Side::Outside, &left, 1522).unwrap().lacks_checksum());
        }
    }
}

#[test]
fn what_begins_something_without_a_checksum_is_counted_by_its_side() {
    let file = b"/ip firewall filter\nadd chain=input connection-state=new protocol=tcp dst-port=22\n";
    let mut engine = Engine::new(rsc::read(file).rules, &Settings::default());
    let frame = |port| Spec::new("198.51.100.7", Transport::Tcp(40_000, port), b"").frame();
    let without = |port| {
        let whole = frame(port);
        let mut left = whole.clone();
        leave_to_interface(&mut left, &read(Side::Outside, &whole, 1522).unwrap());
        left
    };
    // The connection begins with a right checksum. The packets without a checksum are dropped, or belong to this
    // connection.
    for frame in [frame(22), without(23), without(22), without(22), without(22)] {
        engine.decide(Side::Outside, &[&frame], Time::default());
    }
    assert_eq!(
        Side::ALL.map(|side| engine.state.without_checksum(side)),
        [0, 0],
        "the connection began with the right one"
    );
    let mut engine = Engine::new(rsc::read(file).rules, &Settings::default());
    (0..3).for_each(|_| _ = engine.decide(Side::Outside, &[&without(22)], Time::default()));
    assert_eq!(Side::ALL.map(|side| engine.state.without_checksum(side)), [1, 0]);
}
