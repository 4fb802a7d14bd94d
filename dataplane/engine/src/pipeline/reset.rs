//! The resets to both ends of a connection that a door cuts.
//!
//! A receiver accepts a reset only with exactly the sequence number that it expects (RFC 5961, 3.2). This is the number
//! that the receiver has acknowledged, or, while its acknowledgement is in transit, the number after the last byte sent
//! to it. If the two numbers differ, the end gets a reset with each. An end that continues to send gets further resets,
//! once a second.

use knockplane_policy::eval::replies::{Answer, ReplySegment};
use knockplane_policy::eval::tracking::End;
use knockplane_policy::packet::{Packet, Side, TcpFlag, link, protocol};

use crate::pipeline::reply::Reply;
use crate::state::connections::{CutConnection, LinkHeader};

/// The frame of a reset.
#[derive(Clone, Copy, Debug)]
pub struct Reset {
    /// The side on which the frame leaves.
    pub side: Side,
    bytes: [u8; Reset::LONGEST],
    length: usize,
}

impl Reset {
    /// Maximum length of a reset, in bytes: an IPv6 frame with all VLAN tags and a PPPoE header.
    const LONGEST: usize = link::MAX_LENGTH + 40 + 20;

    /// The frame.
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The resets to both ends: at most two for each end.
pub fn resets(cut: &CutConnection) -> impl Iterator<Item = Reset> {
    let CutConnection { link, side, originator, responder, to_originator, to_responder } = *cut;
    // Each reset is a reply to a packet that its receiver would send.
    let to_originator = answers(link, (originator, responder), side, to_originator);
    to_originator.chain(answers(link.reversed(), (responder, originator), side.opposite(), to_responder))
}

/// The resets with these sequence numbers, as replies to a packet from the first end that arrives on this side with
/// this link header.
fn answers(
    link: LinkHeader,
    (source, destination): (End, End),
    side: Side,
    [acknowledged, next]: [u32; 2],
) -> impl Iterator<Item = Reset> {
    let network = link.bytes().len() as u16;
    let numbers = [Some(acknowledged), Some(next).filter(|next| *next != acknowledged)];
    numbers.into_iter().flatten().filter(move |_| network > 0).filter_map(move |sequence| {
        let bare = Packet::bare(side, source.0, destination.0, protocol::TCP);
        let packet = Packet { ports: Some((source.1, destination.1)), frame: link.bytes(), network, ..bare };
        let flags = [TcpFlag::Rst].into_iter().collect();
        let mut reply = Reply::default();
        let segment = ReplySegment { flags, sequence, acknowledgement: 0, window: 0 };
        let mut reset = Reset { side, bytes: [0; Reset::LONGEST], length: 0 };
        if !reply.write(&packet, &Answer::Tcp(segment)) {
            return None;
        }
        reset.length = reply.frame().len();
        reset.bytes.get_mut(..reset.length)?.copy_from_slice(reply.frame());
        Some(reset)
    })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use etherparse::PacketBuilder;
    use knockplane_policy::packet::{FragmentPart, Vlan};
    use knockplane_policy::rule::{ConnectionState, Tracking};
    use knockplane_policy::time::Time;

    use super::*;
    use crate::state::connections::{ConnectionInfo, ConnectionTable, Observation, Storage};
    use crate::state::list_set::ListId;

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    /// Link header, source, destination, number and flags of a segment.
    type SegmentRead = (Vec<u8>, End, End, u32, Vec<knockplane_policy::packet::TcpFlag>);

    /// Reads the frame of a TCP segment: tags, addresses, ports, sequence number, flags. Its checksums must be right.
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
        let (there, here) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        for (v6, tagged) in [(false, false), (true, false), (false, true), (true, true)] {
            let ends: [IpAddr; 2] = match v6 {
                false => [CLIENT, SERVER],
                true => ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap()),
            };
            let segment = |back: bool, flags: &str, (sequence, ack): (u32, u32), data: &[u8]| {
                let [from, to] = if back { [ends[1], ends[0]] } else { ends };
                let (source, destination) = if back { (22, 50_000) } else { (50_000, 22) };
                let (mac, other) = if back { (here, there) } else { (there, here) };
                let link = PacketBuilder::ethernet2(mac, other);
                let ip = |from: IpAddr, to: IpAddr| match (from, to) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => etherparse::IpHeaders::Ipv4(
                        etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, from.octets(), to.octets())
                            .unwrap(),
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
            let flows = ConnectionTable::new(1000, [1, 2]);
            let sees = |frame: &[u8], back: bool, now| {
                let side = if back { Side::Inside } else { Side::Outside };
                let packet = crate::headers::read(side, frame, 1_600).unwrap();
                let prepared = flows.prepare(&packet, Vlan::NONE);
                let how = Observation { tracking: &Tracking::default(), payload_matchers: None, storage: Storage::Now };
                let seen = flows.observe(&packet, &prepared, Some(FragmentPart::Whole), now, &how);
                if seen.state == ConnectionState::New && !back {
                    flows.set_door(&packet, &seen.flow.unwrap().key, ListId(3), now);
                }
                seen
            };
            let syn = segment(false, "S", (100, 0), b"");
            sees(&syn, false, at(0));
            sees(&segment(true, "SA", (500, 101), b""), true, at(0));
            sees(&segment(false, "A", (101, 501), b"hello"), false, at(0));
            let seen = sees(&segment(true, "A", (501, 106), b"hello there"), true, at(0));
            flows.fasttrack(&seen.flow.expect("a connection").key, at(0));
            let found = || flows.of(ends[0], 1, at(1)).oldest[0];
            assert!(found().wants_reset && found().door == Some(ListId(3)));
            let cut = |flow: &ConnectionInfo, now| {
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
            // No further reset follows until an end sends again, and then one each second.
            assert!(cut(&found(), at(2)).is_empty());
            let late = segment(false, "A", (106, 512), b"still here");
            let seen = sees(&late, false, at(3));
            assert_eq!((seen.state, seen.flow.and_then(|flow| flow.door)), (ConnectionState::Invalid, Some(ListId(3))));
            assert!(seen.flow.is_some_and(|flow| !flow.fasttracked), "rules decide about its packets");
            assert_eq!(flows.of(ends[0], 1, at(3)).oldest[0].state, ConnectionState::Invalid);
            let again = flows.of(ends[0], 1, at(3)).oldest[0];
            assert_eq!(cut(&again, at(3)).len(), 4 - 1 - 1 + 1, "both ends, again");
            assert!(cut(&again, at(3)).is_empty());
            // The client may begin another connection with the same port.
            assert_eq!(sees(&segment(false, "S", (9_000, 0), b""), false, at(4)).state, ConnectionState::New);
        }
    }
}
