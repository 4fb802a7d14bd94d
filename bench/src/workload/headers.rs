//! The readers of headers: `ours` is the engine's reader; `etherparse` slices the same frames and reads the same
//! fields.

use std::hint::black_box;
use std::net::IpAddr;

use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader, NetSlice, PacketBuilder,
    SingleVlanHeader, SlicedPacket, TransportSlice, VlanHeader, VlanId,
};
use knockplane_engine::headers::{max_frame, read};
use knockplane_policy::packet::Side;

use super::{BATCH, Workload};

/// The longest frames of common interfaces.
pub(super) const MAX_FRAME: usize = max_frame(1500);

/// Minimum length of a frame. Shorter frames are padded on the wire.
const SHORTEST: usize = 60;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    V4Tcp,
    V4Udp,
    Vlan,
    V6,
    V6Extensions,
}

pub(super) fn workloads<'a>() -> Vec<Workload<'a>> {
    let kinds = [
        ("v4-tcp", Kind::V4Tcp),
        ("v4-udp", Kind::V4Udp),
        ("vlan", Kind::Vlan),
        ("v6", Kind::V6),
        ("v6-extensions", Kind::V6Extensions),
    ];
    let of_kind = |(name, kind)| {
        let ours = Workload::new(format!("headers/{name}/ours"), move || {
            let frames = frames(kind);
            assert!(frames.iter().all(|frame| read(Side::Outside, frame, MAX_FRAME).is_ok()));
            move || {
                for frame in &frames {
                    _ = black_box(read(Side::Outside, black_box(frame), MAX_FRAME));
                }
            }
        });
        let etherparse = Workload::new(format!("headers/{name}/etherparse"), move || {
            let frames = frames(kind);
            assert!(frames.iter().all(|frame| seen(frame).is_some()));
            move || {
                for frame in &frames {
                    black_box(seen(black_box(frame)));
                }
            }
        });
        [ours, etherparse]
    };
    kinds.into_iter().flat_map(of_kind).collect()
}

/// A batch of different packets.
fn frames(kind: Kind) -> Vec<Vec<u8>> {
    (0..BATCH as u8).map(|host| frame(kind, host)).collect()
}

fn frame(kind: Kind, host: u8) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let v6 = Ipv6Header {
        hop_limit: 64,
        source: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host],
        destination: [0x20, 1, 0xd, 0xb8, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        ..Default::default()
    };
    let option = || Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[1, 4, 0, 0, 0, 0]).ok();
    let ip = match kind {
        Kind::V4Tcp | Kind::V4Udp | Kind::Vlan => {
            let mut header = Ipv4Header { time_to_live: 64, ..Default::default() };
            (header.source, header.destination) = ([198, 51, 100, host], [203, 0, 113, 1]);
            IpHeaders::Ipv4(header, Default::default())
        }
        Kind::V6 => IpHeaders::Ipv6(v6, Default::default()),
        Kind::V6Extensions => {
            let extensions =
                Ipv6Extensions { hop_by_hop_options: option(), destination_options: option(), ..Default::default() };
            IpHeaders::Ipv6(v6, extensions)
        }
    };
    let ip = match kind {
        Kind::Vlan => {
            let vlan_id = VlanId::try_new(7).expect("below 4096");
            ethernet.vlan(VlanHeader::Single(SingleVlanHeader { vlan_id, ..Default::default() })).ip(ip)
        }
        _ => ethernet.ip(ip),
    };
    let port = 40_000 + u16::from(host);
    let mut frame = Vec::new();
    let written = match kind {
        Kind::V4Udp => ip.udp(port, 1234).write(&mut frame, b"a passphrase of 24 bytes"),
        _ => ip.tcp(port, 1234, 1, 1024).syn().write(&mut frame, &[]),
    };
    written.expect("a vector takes any frame");
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

/// A TCP packet from 0.0.0.0 to this port.
pub(super) fn tcp_to(port: u16) -> [u8; SHORTEST] {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([0, 0, 0, 0], [203, 0, 113, 1], 64)
        .tcp(40_000, port, 1, 1024)
        .syn()
        .write(&mut frame, &[])
        .expect("a vector takes any frame");
    frame.resize(SHORTEST, 0);
    frame.try_into().expect("it was resized")
}

/// Offset of the source in [`tcp_to`].
pub(super) const SOURCE: std::ops::Range<usize> = 26..30;

/// The fields for rules: addresses, protocol, ports, payload.
type Seen<'a> = (IpAddr, IpAddr, u8, (u16, u16), &'a [u8]);

fn seen(frame: &[u8]) -> Option<Seen<'_>> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination, protocol) = match sliced.net? {
        NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.payload().ip_number)
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.payload().ip_number)
        }
        NetSlice::Arp(_) => return None,
    };
    let (ports, payload) = match sliced.transport? {
        TransportSlice::Tcp(tcp) => ((tcp.source_port(), tcp.destination_port()), tcp.payload()),
        TransportSlice::Udp(udp) => ((udp.source_port(), udp.destination_port()), udp.payload()),
        _ => return None,
    };
    Some((source, destination, protocol.0, ports, payload))
}
