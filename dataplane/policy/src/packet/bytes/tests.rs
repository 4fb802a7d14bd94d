use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::cases::cases;
use crate::packet::Side;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A packet of these bytes after 12 bytes of addresses and the given type fields.
fn packet<'a>(family: IpAddr, protocol: u8, frame: &'a [u8], network: u16, header: u16) -> Packet<'a> {
    Packet {
        frame,
        network,
        transport: network + header,
        ip_length: (frame.len() - usize::from(network)) as u32,
        ports: Some((1, 2)),
        ..Packet::bare(Side::Outside, family, family, protocol)
    }
}

#[test]
fn ethernet_ipv4_and_tcp() {
    let tcp = [
        &[0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x70, 0x12, 0x01, 0x00, 0, 0, 0, 0][..],
        &[1, 1, 2, 4, 0x05, 0xb4, 0, 0],
        b"payload",
    ]
    .concat();
    let ip = [0x47, 0xb9, 0, 0, 0, 0, 0x20, 0, 63, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1, 148, 4, 0, 0, 1, 7, 3, 4];
    let frame = [&[2; 6], &[0, 0x11, 0x22, 0xaa, 0xbb, 0xcc][..], &[0x81, 0, 0xa0, 7, 8, 0], &ip, &tcp].concat();
    let packet = packet(V4, 6, &frame, 18, 28);
    assert_eq!(packet.source_mac(), "00:11:22:AA:bb:cc".parse().ok());
    assert_eq!(packet.source_mac().unwrap().to_string(), "00:11:22:AA:BB:CC");
    assert_eq!(packet.vlan_priority(), Some(5));
    assert_eq!((packet.ttl(), packet.tos(), packet.dscp()), (Some(63), Some(0xb9), Some(46)));
    assert_eq!(packet.fragment(), Some(FragmentPart::First));
    let options = packet.ipv4_options().unwrap();
    assert_eq!(options.iter().collect::<Vec<_>>(), [OptionKind::RecordRoute, OptionKind::RouterAlert]);
    assert_eq!(packet.extension_headers(), None);
    assert_eq!(packet.tcp_flags(), Some([TcpFlag::Syn, TcpFlag::Ack].into_iter().collect()));
    assert_eq!((packet.tcp_sequence(), packet.tcp_acknowledgement()), (Some(3), Some(4)));
    assert_eq!((packet.tcp_window(), packet.tcp_mss()), (Some(256), Some(1460)));
    assert_eq!((packet.network().unwrap().len(), packet.transport()), (28 + tcp.len(), Some(&tcp[..])));
    let later = Packet { ports: None, ..packet };
    assert_eq!((later.tcp_flags(), later.tcp_mss()), (None, None));
}

#[test]
fn an_option_of_impossible_length_is_reported_and_ends_the_options() {
    for options in [[131, 1, 0, 0], [131, 0, 68, 4], [131, 5, 0, 0], [1, 1, 1, 131]] {
        let frame = [&[0x46; 20][..], &options].concat();
        let found = packet(V4, 6, &frame, 0, 24).ipv4_options().unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), [OptionKind::Other], "{options:?}");
    }
    for options in [[1, 1, 1, 1], [0, 131, 4, 0]] {
        let frame = [&[0x46; 20][..], &options].concat();
        assert!(packet(V4, 6, &frame, 0, 24).ipv4_options().unwrap().is_empty(), "{options:?}");
    }
}

#[test]
fn ipv6_and_its_extension_headers() {
    use ExtensionHeader::{Ah, Frag, Hop, None, Proto};
    let fixed = |next| [&[0x6b, 0x90, 0, 0, 0, 0, next, 255][..], &[0; 32]].concat();
    let frame = [&fixed(0)[..], &[44, 0, 1, 4, 0, 0, 0, 0], &[51, 0, 0x00, 0x08, 0, 0, 0, 1], &[17, 1], &[0; 10]];
    let frame = frame.concat();
    let later = packet(V6, 17, &frame, 0, frame.len() as u16);
    assert_eq!(later.extension_headers().unwrap().iter().collect::<Vec<_>>(), [Hop, Frag, Ah, Proto]);
    assert_eq!(later.fragment(), Some(FragmentPart::Later));
    assert_eq!((later.ttl(), later.tos(), later.dscp()), (Some(255), Some(0xb9), Some(46)));
    assert_eq!((later.ipv4_options(), later.vlan_priority()), (Option::None, Option::None));
    let frame = fixed(59);
    let nothing = packet(V6, 59, &frame, 0, 40);
    assert_eq!(nothing.extension_headers().unwrap().iter().collect::<Vec<_>>(), [None]);
    assert_eq!(nothing.fragment(), Some(FragmentPart::Whole));
    let mut frame = fixed(44);
    frame.extend([6, 0, 0, 1, 0, 0, 0, 1]);
    assert_eq!(packet(V6, 6, &frame, 0, 48).fragment(), Some(FragmentPart::First));
}

#[test]
fn a_bare_packet_has_no_fields_that_need_its_bytes() {
    let packet = Packet::bare(Side::Inside, V4, V4, 6);
    assert_eq!((packet.source_mac(), packet.ttl(), packet.fragment(), packet.network()), (None, None, None, None));
}

#[test]
fn ethernet_addresses_are_written_in_full() {
    for text in ["", "00:11:22:AA:BB", "00:11:22:AA:BB:CC:DD", "0:11:22:AA:BB:CC", "00:11:22:AA:BB:+C"] {
        assert!(text.parse::<MacAddress>().is_err(), "{text}");
    }
}

proptest! {
    #![proptest_config(cases(256))]

    /// Bytes that resemble headers often enough, and offsets that are mostly inside the frame.
    #[test]
    fn no_bytes_cause_a_panic(
        frame in prop::collection::vec(prop_oneof![0..8_u8, Just(44), Just(51), Just(0x46), Just(0x70), any::<u8>()], 0..120),
        offsets in prop_oneof![8 => (0..24_u16, 0..100_u16), 1 => (any::<u16>(), any::<u16>())],
        ip_length in prop_oneof![8 => 0..120_u32, 1 => any::<u32>()],
        protocol in prop_oneof![Just(6_u8), any::<u8>()],
        v6: bool,
    ) {
        let address = if v6 { V6 } else { V4 };
        let packet = Packet {
            frame: &frame,
            network: offsets.0,
            transport: offsets.1,
            ip_length,
            ports: Some((1, 2)),
            ..Packet::bare(Side::Outside, address, address, protocol)
        };
        let _ = (packet.source_mac(), packet.vlan_priority(), packet.ttl(), packet.tos(), packet.dscp());
        let _ = (packet.fragment(), packet.ipv4_options(), packet.extension_headers());
        let _ = (packet.tcp_flags(), packet.tcp_mss(), packet.tcp_window());
        let _ = (packet.tcp_sequence(), packet.tcp_acknowledgement());
        let (network, transport) = (packet.network(), packet.transport());
        prop_assert!(network.is_none_or(|bytes| bytes.len() == ip_length as usize));
        prop_assert!(transport.is_none_or(|bytes| network.is_some_and(|network| network.ends_with(bytes))));
    }
}
