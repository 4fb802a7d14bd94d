//! Packets with which lints test the rules in the reference evaluator.

use std::net::IpAddr;

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};

use crate::packet::{Family, Packet, Side, TcpFlag, protocol};
use crate::word::Set;

/// Bytes before the IP header, and the lengths of the headers of IPv4, IPv6, TCP, UDP and ICMP, without options.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const UDP: usize = 8;
const ICMP: usize = 8;

/// An address and a port.
pub(super) type End = (IpAddr, u16);

/// A packet with its frame.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    side: Side,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: Option<(u16, u16)>,
    icmp: Option<(u8, u8)>,
    frame: Vec<u8>,
}

impl Probe {
    /// A TCP segment with sequence and acknowledgement number. Both ends must have the same family.
    pub(super) fn tcp(side: Side, from: End, to: End, flags: &[TcpFlag], numbers: (u32, u32), payload: &[u8]) -> Probe {
        let mut header = TcpHeader::new(from.1, to.1, numbers.0, 64_240);
        let flags: Set<TcpFlag> = flags.iter().copied().collect();
        header.acknowledgment_number = numbers.1;
        header.syn = flags.contains(TcpFlag::Syn);
        header.ack = flags.contains(TcpFlag::Ack);
        let frame = written(from.0, to.0, |ip, frame| ip.tcp_header(header).write(frame, payload).is_ok());
        Probe { ports: Some((from.1, to.1)), ..Probe::of(side, from.0, to.0, protocol::TCP, frame) }
    }

    /// A SYN or an empty datagram, as a port scan sends it.
    pub(super) fn scan(number: u8, from: End, to: End) -> Probe {
        if number == protocol::TCP {
            return Probe::tcp(Side::Outside, from, to, &[TcpFlag::Syn], (1, 0), &[]);
        }
        let frame = written(from.0, to.0, |ip, frame| ip.udp(from.1, to.1).write(frame, &[]).is_ok());
        Probe { ports: Some((from.1, to.1)), ..Probe::of(Side::Outside, from.0, to.0, protocol::UDP, frame) }
    }

    /// A ping.
    pub(super) fn ping(from: IpAddr, to: IpAddr) -> Probe {
        let kind = if from.is_ipv4() { 8 } else { 128 };
        Probe::message(Side::Outside, from, to, (kind, 0), [0, 7, 0, 1], &[0; 56])
    }

    /// The ICMP error that a router sends to the sender of this packet because the packet is longer than the next
    /// link's MTU. Source: RFC 1191, 4; RFC 4443, 3.2.
    pub(super) fn too_big(side: Side, router: IpAddr, about: &Probe, mtu: u16) -> Probe {
        let [high, low] = mtu.to_be_bytes();
        let kind = if router.is_ipv4() { (3, 4) } else { (2, 0) };
        let quoted = &about.frame[ETHERNET..];
        // Every router quotes at least the IP header and 8 bytes, RFC 792.
        let quoted = &quoted[..quoted.len().min(about.network_length() + 8)];
        Probe::message(side, router, about.source, kind, [0, 0, high, low], quoted)
    }

    fn message(side: Side, from: IpAddr, to: IpAddr, kind: (u8, u8), four: [u8; 4], payload: &[u8]) -> Probe {
        let (number, frame) = match from.is_ipv4() {
            true => (
                protocol::ICMP,
                written(from, to, |ip, frame| ip.icmpv4_raw(kind.0, kind.1, four).write(frame, payload).is_ok()),
            ),
            false => (
                protocol::ICMPV6,
                written(from, to, |ip, frame| ip.icmpv6_raw(kind.0, kind.1, four).write(frame, payload).is_ok()),
            ),
        };
        Probe { icmp: Some(kind), ..Probe::of(side, from, to, number, frame) }
    }

    const fn of(side: Side, source: IpAddr, destination: IpAddr, protocol: u8, frame: Vec<u8>) -> Probe {
        Probe { side, source, destination, protocol, ports: None, icmp: None, frame }
    }

    const fn network_length(&self) -> usize {
        if self.source.is_ipv4() { IPV4 } else { IPV6 }
    }

    /// The packet as rules see it.
    pub(super) fn packet(&self) -> Packet<'_> {
        let transport = ETHERNET + self.network_length();
        let header = match self.protocol {
            protocol::TCP => TCP,
            protocol::UDP => UDP,
            _ => ICMP,
        };
        Packet {
            ports: self.ports,
            icmp: self.icmp,
            ip_length: (self.frame.len() - ETHERNET) as u32,
            payload: self.frame.get(transport + header..).unwrap_or_default(),
            frame: &self.frame,
            network: ETHERNET as u16,
            transport: transport as u16,
            ..Packet::bare(self.side, self.source, self.destination, self.protocol)
        }
    }
}

/// The frame that `write` builds; empty if that fails.
fn written(
    from: IpAddr,
    to: IpAddr,
    write: impl FnOnce(PacketBuilderStep<etherparse::IpHeaders>, &mut Vec<u8>) -> bool,
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(128);
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => return frame,
    };
    if !write(ip, &mut frame) {
        frame.clear();
    }
    frame
}

/// Addresses of the packets, from networks for documentation, which rules of real files do not name.
pub(super) struct Hosts {
    /// Candidates for a stranger.
    pub(super) strangers: [IpAddr; 4],
    /// The destination if the rules name none.
    pub(super) server: IpAddr,
    /// A router on the path.
    pub(super) router: IpAddr,
}

/// Source: RFC 5737, RFC 3849; RFC 2544 for 198.18.0.0/15.
pub(super) fn hosts(family: Family) -> Hosts {
    let v4 = |bits: [u8; 4]| IpAddr::from(bits);
    let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0xffff, last, 0, 0, 0, 0x4d]);
    match family {
        Family::Ipv4 => Hosts {
            strangers: [[198, 51, 100, 77], [198, 18, 91, 77], [203, 0, 113, 77], [9, 9, 77, 77]].map(v4),
            server: v4([203, 0, 113, 9]),
            router: v4([198, 19, 13, 77]),
        },
        Family::Ipv6 => Hosts { strangers: [1, 2, 3, 4].map(v6), server: v6(9), router: v6(13) },
    }
}
