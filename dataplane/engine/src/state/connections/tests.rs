use std::net::{IpAddr, Ipv4Addr};

use knockplane_policy::packet::Side;

use super::*;
use crate::pipeline::reset::resets;

fn at(second: u64) -> Time {
    Time::from_nanos(second * 1_000_000_000)
}

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

fn client(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

/// A datagram between a client and the server, there or back.
fn sees(flows: &Flows, number: u32, back: bool, now: Time) -> ConnectionState {
    let (source, destination) = if back { (SERVER, client(number)) } else { (client(number), SERVER) };
    let ports = if back { (53, 4000) } else { (4000, 53) };
    let packet = Packet { ports: Some(ports), ..Packet::bare(Side::Outside, source, destination, protocol::UDP) };
    flows.observe((&packet, Vlan::NONE), Some(FragmentPart::Whole), now, &Tracking::default(), None).state
}

#[test]
fn a_flood_of_new_connections_pushes_out_none_that_was_seen_both_ways() {
    let flows = Flows::new(1000, [1, 2]);
    for number in 0..200 {
        sees(&flows, number, false, at(0));
        assert_eq!(sees(&flows, number, true, at(0)), ConnectionState::Established);
    }
    for number in 1_000..50_000 {
        sees(&flows, number, false, at(1));
    }
    for number in 0..200 {
        assert_eq!(sees(&flows, number, false, at(2)), ConnectionState::Established, "{number}");
    }
    assert_eq!(flows.refused(), 0);
}

#[test]
fn of_those_seen_one_way_the_quiet_ones_give_way() {
    let flows = Flows::new(8, [1, 2]);
    assert_eq!(flows.sets.len(), 1);
    for number in 0..WAYS as u32 {
        sees(&flows, number, false, at(u64::from(number)));
    }
    sees(&flows, 0, false, at(20));
    sees(&flows, 100, false, at(20));
    // The next in line is gone, so its answer answers nothing, and begins anew; the first one spoke again.
    assert_eq!(sees(&flows, 1, true, at(20)), ConnectionState::New);
    assert_eq!(sees(&flows, 0, true, at(20)), ConnectionState::Established);
}

#[test]
fn without_room_a_newcomer_is_invalid_and_counted() {
    let flows = Flows::new(8, [1, 2]);
    for number in 0..WAYS as u32 {
        sees(&flows, number, false, at(0));
        sees(&flows, number, true, at(0));
    }
    assert_eq!(sees(&flows, 100, false, at(1)), ConnectionState::Invalid);
    assert_eq!(flows.refused(), 1);
    // Their time is over.
    assert_eq!(sees(&flows, 100, false, at(181)), ConnectionState::New);
}

#[test]
fn workers_share_a_connection_and_lose_no_byte_of_it() {
    let flows = Flows::new(1000, [1, 2]);
    std::thread::scope(|scope| {
        for back in [false, true] {
            let flows = &flows;
            scope.spawn(move || {
                for packet in 0..20_000 {
                    sees(flows, packet % 7, back, at(1));
                }
            });
        }
    });
    for number in 0..7 {
        let packet =
            Packet { ports: Some((4000, 53)), ..Packet::bare(Side::Outside, client(number), SERVER, protocol::UDP) };
        let seen = flows.observe((&packet, Vlan::NONE), None, at(1), &Tracking::default(), None);
        let packets = (0..20_000).filter(|packet| packet % 7 == number).count() as u64;
        assert_eq!(seen.flow.map(|flow| flow.bytes), Some((2 * packets + 1) * 20));
        assert_eq!(seen.state, ConnectionState::Established);
    }
    assert_eq!(flows.known(at(1)).len(), 7);
}

#[test]
fn the_connections_of_an_address_are_counted_and_its_oldest_and_newest_shown() {
    let flows = Flows::new(1000, [1, 2]);
    for number in 0..20 {
        sees(&flows, number, false, at(3 * u64::from(number)));
    }
    let now = at(57);
    sees(&flows, 19, true, now);
    let ends = |flows: &[AddressFlow]| flows.iter().map(|flow| flow.originator.0).collect::<Vec<_>>();
    let of_server = flows.of(SERVER, 3, now);
    // The first ones were not answered, and are forgotten.
    let known = of_server.count;
    assert!((10..20).contains(&known), "{known}");
    let first = 20 - known as u32;
    assert_eq!(ends(&of_server.oldest), [client(first), client(first + 1), client(first + 2)]);
    assert_eq!(ends(&of_server.newest), [client(19), client(18), client(17)]);
    let AddressFlow { responder, state, protocol, expiry, .. } = of_server.newest[0];
    assert_eq!((responder, state, protocol), ((SERVER, 53), ConnectionState::Established, protocol::UDP));
    assert!(expiry > now);
    let of_client = flows.of(client(19), 3, now);
    assert_eq!((of_client.count, of_client.oldest.len(), of_client.newest.len()), (1, 1, 0), "each is shown once");
    assert_eq!(flows.of(client(50), 3, now), AddressFlows::default());
}

#[test]
fn a_walk_in_parts_visits_each_connection_once() {
    use std::ops::ControlFlow;

    let flows = Flows::new(1000, [1, 2]);
    for number in 0..500 {
        sees(&flows, number, false, at(0));
    }
    for (sets, most) in [(1, 1), (3, 7), (7, 1_000), (usize::MAX, usize::MAX)] {
        let (mut visited, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            let mut left = most;
            next = flows.walk(from, sets, at(1), |flow| {
                visited.push(flow.originator.0);
                left -= 1;
                if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
        visited.sort_unstable();
        assert_eq!(visited, (0..500).map(client).collect::<Vec<_>>(), "{sets} sets, {most} connections");
    }
    assert_eq!(flows.walk(u64::MAX, 1, at(1), |_| panic!("there is nothing")), None);
}

/// Link header, source, destination, number and flags of a segment.
type SegmentRead = (Vec<u8>, End, End, u32, Vec<knockplane_policy::packet::TcpFlag>);

/// What a TCP segment's frame is: tags, addresses, ports, sequence number, flags; its checksums must be right.
fn read(side: Side, frame: &[u8]) -> SegmentRead {
    let packet = crate::headers::read(side, frame, 1_600).expect("a packet");
    assert_eq!(packet.tcp_checksum(), Some(true));
    let (source, destination) = packet.ports.expect("ports");
    let flags = packet.tcp_flags().expect("flags").iter().collect();
    let number = packet.tcp_sequence().expect("a number");
    (
        frame[..usize::from(packet.network)].to_vec(),
        (packet.source, source),
        (packet.destination, destination),
        number,
        flags,
    )
}

#[test]
fn a_connection_that_is_cut_tells_both_ends_with_the_numbers_that_they_expect_and_never_goes_on() {
    use etherparse::PacketBuilder;
    use knockplane_policy::packet::TcpFlag;

    let (there, here) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    for (v6, tagged) in [(false, false), (true, false), (false, true), (true, true)] {
        let ends: [IpAddr; 2] = match v6 {
            false => [client(1), SERVER],
            true => ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap()),
        };
        let segment = |back: bool, flags: &str, (sequence, ack): (u32, u32), data: &[u8]| {
            let [from, to] = if back { [ends[1], ends[0]] } else { ends };
            let (source, destination) = if back { (22, 50_000) } else { (50_000, 22) };
            let (mac, other) = if back { (here, there) } else { (there, here) };
            let link = PacketBuilder::ethernet2(mac, other);
            let ip = |from: IpAddr, to: IpAddr| match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => etherparse::IpHeaders::Ipv4(
                    etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, from.octets(), to.octets()).unwrap(),
                    Default::default(),
                ),
                (IpAddr::V6(from), IpAddr::V6(to)) => etherparse::IpHeaders::Ipv6(
                    etherparse::Ipv6Header {
                        hop_limit: 64,
                        source: from.octets(),
                        destination: to.octets(),
                        ..Default::default()
                    },
                    Default::default(),
                ),
                _ => panic!("one family"),
            };
            let step = match tagged {
                true => link.double_vlan(7.try_into().unwrap(), 9.try_into().unwrap()).ip(ip(from, to)),
                false => link.ip(ip(from, to)),
            };
            let mut tcp = step.tcp(source, destination, sequence, 1_000);
            tcp = if flags.contains('S') { tcp.syn() } else { tcp };
            tcp = if flags.contains('A') { tcp.ack(ack) } else { tcp };
            let mut frame = Vec::new();
            tcp.write(&mut frame, data).unwrap();
            frame
        };
        let flows = Flows::new(1000, [1, 2]);
        let sees = |frame: &[u8], back: bool, now| {
            let side = if back { Side::Inside } else { Side::Outside };
            let packet = crate::headers::read(side, frame, 1_600).unwrap();
            let seen = flows.observe((&packet, Vlan::NONE), Some(FragmentPart::Whole), now, &Tracking::default(), None);
            if seen.state == ConnectionState::New && !back {
                flows.let_in(&packet, &seen.flow.unwrap().key, ListId(3), now);
            }
            seen
        };
        let syn = segment(false, "S", (100, 0), b"");
        sees(&syn, false, at(0));
        sees(&segment(true, "SA", (500, 101), b""), true, at(0));
        sees(&segment(false, "A", (101, 501), b"hello"), false, at(0));
        sees(&segment(true, "A", (501, 106), b"hello there"), true, at(0));
        let found = || flows.of(ends[0], 1, at(1)).oldest[0];
        assert!(found().wants_reset && found().door == Some(ListId(3)));
        let cut = |flow: &AddressFlow, now| {
            flows.cut(flow, now, &Tracking::default()).iter().flat_map(resets).collect::<Vec<_>>()
        };
        let resets = cut(&found(), at(1));
        let told: Vec<_> =
            resets.iter().map(|reset| (reset.side, read(reset.side.opposite(), reset.frame()))).collect();
        let length = if tagged { 22 } else { 14 };
        let header = |to: [u8; 6], from: [u8; 6]| [&to[..], &from, &syn[12..length]].concat();
        let (client, server) = ((ends[0], 50_000), (ends[1], 22));
        let to_client = |number| (Side::Outside, (header(there, here), server, client, number, vec![TcpFlag::Rst]));
        let to_server = |number| (Side::Inside, (header(here, there), client, server, number, vec![TcpFlag::Rst]));
        // The client has not acknowledged the 11 bytes yet; the server has acknowledged everything.
        assert_eq!(told, [to_client(501), to_client(512), to_server(106)]);
        // Nothing more is said until an end goes on to send, and then once a second.
        assert!(cut(&found(), at(2)).is_empty());
        let late = segment(false, "A", (106, 512), b"still here");
        let seen = sees(&late, false, at(3));
        assert_eq!((seen.state, seen.flow.and_then(|flow| flow.door)), (ConnectionState::Invalid, Some(ListId(3))));
        assert_eq!(flows.of(ends[0], 1, at(3)).oldest[0].state, ConnectionState::Invalid);
        let again = flows.of(ends[0], 1, at(3)).oldest[0];
        assert_eq!(cut(&again, at(3)).len(), 4 - 1 - 1 + 1, "both ends, again");
        assert!(cut(&again, at(3)).is_empty());
        // The client may begin another one with the same port.
        assert_eq!(sees(&segment(false, "S", (9_000, 0), b""), false, at(4)).state, ConnectionState::New);
    }
}
