//! A profile as streams of frames that differ only in source address and ports, and the writer of single frames.
//!
//! ```text
//!   number of the frame        0   1   2   3   4   5  …
//!   pattern [0, 1], as knocks  0   1 │ 0   1 │ 0   1  …   which stream
//!   round                      0   0 │ 1   1 │ 2   2  …   gives the source; the number gives random ports
//! ```
//! `sequence` in `bench/generator/bpf/generate.c` writes the same frames in the kernel, byte for byte.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::bail;
use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};
use ipnet::IpNet;
use knockplane_generator::{HEADER_BYTES, Stream};
use std::net::IpAddr;

use super::profile::Profile;
use super::spec::Spec;

/// First source port of flows: the first port that is not well known.
pub(crate) const FIRST_SOURCE_PORT: u16 = 1024;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;

/// Offsets of the source address in IP headers, and of the checksum in others.
const IPV4_SOURCE: usize = ETHERNET + 12;
const IPV6_SOURCE: usize = ETHERNET + 8;
const IPV4_SUM: usize = ETHERNET + 10;
const UDP_SUM: usize = 6;
const TCP_SUM: usize = 16;

/// The receive window in a SYN; a plausible number.
const WINDOW: u16 = 64_240;
const HOPS: u8 = 64;

/// The shortest frame with room for its headers, in the words of 8 bytes that the program in the kernel writes.
pub(crate) const fn shortest_frame(is_ipv6: bool, has_tcp: bool) -> usize {
    match (is_ipv6, has_tcp) {
        (false, _) => 60,
        (true, false) => 64,
        (true, true) => ETHERNET + IPV6 + TCP,
    }
}

/// The streams of a profile and their order.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) streams: Vec<Stream>,
    /// Indices of streams.
    pub(crate) pattern: Vec<u8>,
}

impl Streams {
    pub(crate) fn new(spec: &Spec, frame_bytes: usize) -> anyhow::Result<Self> {
        let udp = || stream(spec, frame_bytes, false);
        let syn = |port| Ok(Stream { destination_port: Some(port), ..sources(stream(spec, frame_bytes, true)?, spec) });
        let random_ports = |stream| Stream { destination_port: None, ..stream };
        let (streams, pattern) = match spec.profile {
            Profile::Flow => (vec![udp()?], vec![0]),
            Profile::Flows(flows) => (vec![Stream { source_ports: flows, ..udp()? }], vec![0]),
            Profile::RandomPorts => (vec![random_ports(udp()?)], vec![0]),
            Profile::SourcesSequential => (vec![syn(spec.port)?], vec![0]),
            Profile::SourcesRandom => (vec![Stream { random_host: true, ..syn(spec.port)? }], vec![0]),
            Profile::Knock => {
                let knocks = spec.knock_ports.iter().copied().map(syn).collect::<anyhow::Result<Vec<_>>>()?;
                let pattern = (0..knocks.len() as u8).collect();
                (knocks, pattern)
            }
            Profile::FirstKnocks => (vec![syn(spec.knock_ports[0])?], vec![0]),
            Profile::Mix => {
                let first_knocks = syn(spec.knock_ports[0])?;
                // The first source is that of the flow, which must not knock.
                let first_knocks = Stream { host_first: first_knocks.host_first.wrapping_add(1), ..first_knocks };
                (vec![udp()?, random_ports(udp()?), first_knocks], mix())
            }
        };
        Ok(Streams { streams, pattern })
    }

    /// Writes the frame of this number into zeros, or over an earlier frame of these streams.
    pub(crate) fn write(&self, number: u64, frame: &mut [u8]) {
        let length = self.pattern.len() as u64;
        let (round, slot) = (number / length, (number % length) as usize);
        write(&self.streams[usize::from(self.pattern[slot])], round, number, frame);
    }
}

/// The three kinds, evenly distributed.
fn mix() -> Vec<u8> {
    (0..100)
        .map(|slot| match slot {
            50 => 2,
            slot if slot % 11 == 5 => 1,
            _ => 0,
        })
        .collect()
}

/// A stream from the only source of the spec to its port.
fn stream(spec: &Spec, frame_bytes: usize, is_tcp: bool) -> anyhow::Result<Stream> {
    let (source, header) = match (spec.source.addr(), spec.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (u64::from(u32::from(source)), ipv4_header(spec, destination, frame_bytes, is_tcp)?)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (u128::from(source) as u64, ipv6_header(spec, source, destination, frame_bytes, is_tcp)?)
        }
        (source, destination) => bail!("{source} and {destination} are not of one family"),
    };
    let is_ipv6 = spec.source.addr().is_ipv6();
    let (ip_bytes, protocol) = (if is_ipv6 { IPV6 } else { IPV4 }, if is_tcp { IpNumber::TCP } else { IpNumber::UDP });
    let addresses = if is_ipv6 { &header[IPV6_SOURCE..ETHERNET + IPV6] } else { &header[IPV4_SOURCE..ETHERNET + IPV4] };
    let transport_bytes = frame_bytes - ETHERNET - ip_bytes;
    // Words of the pseudo-header, whose order does not matter to the sum.
    let pseudo = [u16::from(protocol.0), transport_bytes as u16].map(u16::to_be_bytes);
    let transport_sum = sum(addresses) + sum(&header[ETHERNET + ip_bytes..]) + sum(pseudo.as_flattened());
    Ok(Stream {
        ip_sum: sum(&header[ETHERNET..ETHERNET + ip_bytes]),
        transport_sum,
        header,
        is_ipv6,
        is_tcp,
        varies_high: false,
        network: source,
        host_mask: 0,
        host_first: 0,
        random_host: false,
        source_port: FIRST_SOURCE_PORT,
        source_ports: 1,
        destination_port: Some(spec.port),
    })
}

/// A stream from all sources of the spec's prefix to its port.
fn sources(stream: Stream, spec: &Spec) -> Stream {
    let (prefix, most) = (spec.source.prefix_len(), spec.source.max_prefix_len());
    // A prefix of at least 64 bits leaves the upper half in the header; a shorter one leaves the lower half.
    let varies_high = most == 128 && prefix < 64;
    let bits = if varies_high { 64 - prefix } else { most - prefix };
    let host_mask = u64::MAX.checked_shr(64 - u32::from(bits)).unwrap_or(0);
    let IpNet::V6(source) = spec.source else { return vary(stream, stream.network, host_mask) };
    if !varies_high {
        return vary(stream, stream.network, host_mask);
    }
    let address = u128::from(source.addr());
    let (high, low) = ((address >> 64) as u64, address as u64);
    let mut stream = Stream { varies_high, ..vary(stream, high, host_mask) };
    let (in_header, was) = (&mut stream.header[IPV6_SOURCE..IPV6_SOURCE + 16], high.to_be_bytes());
    in_header[..8].fill(0);
    in_header[8..].copy_from_slice(&low.to_be_bytes());
    stream.transport_sum += sum(&low.to_be_bytes());
    stream.transport_sum -= sum(&was);
    stream
}

fn vary(stream: Stream, word: u64, host_mask: u64) -> Stream {
    Stream { network: word & !host_mask, host_first: word & host_mask, host_mask, ..stream }
}

type Header = [u8; HEADER_BYTES];

fn ipv4_header(spec: &Spec, destination: Ipv4Addr, frame_bytes: usize, is_tcp: bool) -> anyhow::Result<Header> {
    let payload = (frame_bytes - ETHERNET - IPV4) as u16;
    let protocol = if is_tcp { IpNumber::TCP } else { IpNumber::UDP };
    let ip = Ipv4Header::new(payload, HOPS, protocol, [0; 4], destination.octets())?;
    let mut bytes = ethernet(spec, EtherType::IPV4);
    bytes.extend_from_slice(&ip.to_bytes());
    bytes[IPV4_SUM..IPV4_SUM + 2].fill(0);
    Ok(with_transport(bytes, payload, is_tcp))
}

/// The header has the half of the source that does not vary by host.
fn ipv6_header(
    spec: &Spec,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    frame_bytes: usize,
    is_tcp: bool,
) -> anyhow::Result<Header> {
    let payload = (frame_bytes - ETHERNET - IPV6) as u16;
    let ip = Ipv6Header {
        payload_length: payload,
        next_header: if is_tcp { IpNumber::TCP } else { IpNumber::UDP },
        hop_limit: HOPS,
        source: (u128::from(source) & !u128::from(u64::MAX)).to_be_bytes(),
        destination: destination.octets(),
        ..Default::default()
    };
    let mut bytes = ethernet(spec, EtherType::IPV6);
    bytes.extend_from_slice(&ip.to_bytes());
    Ok(with_transport(bytes, payload, is_tcp))
}

fn ethernet(spec: &Spec, ether_type: EtherType) -> Vec<u8> {
    let header = Ethernet2Header { source: spec.source_mac, destination: spec.destination_mac, ether_type };
    header.to_bytes().to_vec()
}

/// Appends a transport header whose ports and checksum are zero.
fn with_transport(mut bytes: Vec<u8>, payload: u16, is_tcp: bool) -> Header {
    if is_tcp {
        let mut syn = TcpHeader::new(0, 0, 1, WINDOW);
        syn.syn = true;
        bytes.extend_from_slice(&syn.to_bytes());
    } else {
        let udp = UdpHeader { source_port: 0, destination_port: 0, length: payload, checksum: 0 };
        bytes.extend_from_slice(&udp.to_bytes());
    }
    let mut header = [0; HEADER_BYTES];
    header[..bytes.len()].copy_from_slice(&bytes);
    header
}

/// Writes a frame of the stream into zeros, or over an earlier frame.
fn write(stream: &Stream, round: u64, number: u64, frame: &mut [u8]) {
    // Writes all headers, because the earlier frame may belong to another stream.
    let headers = shortest_frame(stream.is_ipv6, true).min(frame.len());
    frame[..headers].copy_from_slice(&stream.header[..headers]);

    let host = if stream.random_host { scramble(round) } else { stream.host_first.wrapping_add(round) };
    let word = stream.network | (host & stream.host_mask);
    let mut transport_sum = stream.transport_sum;
    let transport = if stream.is_ipv6 {
        let at = if stream.varies_high { IPV6_SOURCE } else { IPV6_SOURCE + 8 };
        frame[at..at + 8].copy_from_slice(&word.to_be_bytes());
        transport_sum += sum(&word.to_be_bytes());
        ETHERNET + IPV6
    } else {
        let source = (word as u32).to_be_bytes();
        frame[IPV4_SOURCE..IPV4_SOURCE + 4].copy_from_slice(&source);
        frame[IPV4_SUM..IPV4_SUM + 2].copy_from_slice(&checksum(stream.ip_sum + sum(&source)).to_ne_bytes());
        transport_sum += sum(&source);
        ETHERNET + IPV4
    };
    let turn = (round as u32 % u32::from(stream.source_ports)) as u16;
    let destination_port =
        stream.destination_port.unwrap_or_else(|| 1 + (((scramble(!number) >> 32) * 65535) >> 32) as u16);
    let ports = [stream.source_port + turn, destination_port].map(u16::to_be_bytes);
    frame[transport..transport + 4].copy_from_slice(ports.as_flattened());
    transport_sum += sum(ports.as_flattened());
    let (at, checksum) = match checksum(transport_sum) {
        checksum if stream.is_tcp => (TCP_SUM, checksum),
        // A UDP checksum of 0 means that there is none (RFC 768).
        0 => (UDP_SUM, u16::MAX),
        checksum => (UDP_SUM, checksum),
    };
    frame[transport + at..transport + at + 2].copy_from_slice(&checksum.to_ne_bytes());
}

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
const fn scramble(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The sum of 16-bit words in the order of memory (RFC 1071, section 2B). The length is even.
fn sum(bytes: &[u8]) -> u64 {
    bytes.as_chunks::<2>().0.iter().map(|word| u64::from(u16::from_ne_bytes(*word))).sum()
}

fn checksum(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

    use super::*;

    /// Source, source port and destination port of a frame, after a check of its checksums.
    fn read(frame: &[u8]) -> (IpAddr, u16, u16) {
        let headers = PacketHeaders::from_ethernet_slice(frame).expect("a frame that can be read");
        let transport = headers.transport.expect("TCP or UDP");
        let mut expected = transport.clone();
        let source = match headers.net.expect("IP") {
            NetHeaders::Ipv4(ip, _) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                expected.update_checksum_ipv4(&ip, headers.payload.slice()).expect("it fits");
                ip.source.into()
            }
            NetHeaders::Ipv6(ip, _) => {
                expected.update_checksum_ipv6(&ip, headers.payload.slice()).expect("it fits");
                ip.source.into()
            }
            NetHeaders::Arp(arp) => panic!("{arp:?}"),
        };
        assert_eq!(transport, expected, "its checksum");
        match transport {
            TransportHeader::Udp(udp) => (source, udp.source_port, udp.destination_port),
            TransportHeader::Tcp(tcp) => (source, tcp.source_port, tcp.destination_port),
            other => panic!("{other:?}"),
        }
    }

    fn frames(profile: Profile, from: &str, frame_bytes: usize, count: u64) -> Vec<(IpAddr, u16, u16)> {
        let from = super::super::parse_prefix(from).expect("a prefix");
        let spec = Spec::new(profile).between(Some(from), None);
        let streams = Streams::new(&spec, frame_bytes).expect("it fits together");
        let mut frame = vec![0; frame_bytes];
        let frame = |number| {
            streams.write(number, &mut frame);
            read(&frame)
        };
        (0..count).map(frame).collect()
    }

    #[test]
    fn checksums_are_right_for_every_profile_family_and_length() {
        for profile in Profile::ALL {
            for (from, least) in [("198.18.255.254/16", 60), ("2001:2::ffff/112", 74), ("2001:2::1/32", 74)] {
                for frame_bytes in [least, least + 1, 301, 1514] {
                    frames(profile, from, frame_bytes, 250);
                }
            }
        }
    }

    #[test]
    fn knocks_come_in_pairs() {
        let frames = frames(Profile::Knock, "198.18.0.7/16", 60, 6);
        let expected = [(7, 1234), (7, 4321), (8, 1234), (8, 4321), (9, 1234), (9, 4321)];
        for ((source, _, port), (host, knock)) in frames.into_iter().zip(expected) {
            assert_eq!((source, port), (Ipv4Addr::new(198, 18, 0, host).into(), knock));
        }
    }

    #[test]
    fn sources_stay_in_their_prefix_and_wrap() {
        let sources = |profile, from, count| frames(profile, from, 74, count).into_iter().map(|frame| frame.0);
        let all: HashSet<_> = sources(Profile::SourcesSequential, "198.18.3.200/24", 300).collect();
        assert_eq!(all.len(), 256);
        let random: HashSet<_> = sources(Profile::SourcesRandom, "198.18.3.200/16", 1000).collect();
        assert!(random.len() > 980, "{}", random.len());
        for (from, network) in
            [("fd77::1/64", "fd77::/64"), ("fd77:1::5/32", "fd77:1::/32"), ("fd77::9/120", "fd77::/120")]
        {
            let network: IpNet = network.parse().expect("a network");
            let all: HashSet<_> = sources(Profile::SourcesRandom, from, 200).collect();
            assert!(all.len() > 100 && all.iter().all(|source| network.contains(source)), "{from}: {all:?}");
        }
        let networks: HashSet<_> = sources(Profile::FirstKnocks, "fd77::5/32", 100)
            .map(|source| match source {
                IpAddr::V6(source) => source.octets()[..8].to_vec(),
                IpAddr::V4(source) => panic!("{source}"),
            })
            .collect();
        assert_eq!(networks.len(), 100);
    }

    #[test]
    fn the_mix_has_its_proportions() {
        let frames = frames(Profile::Mix, "198.18.0.1/16", 60, 1000);
        let own: IpAddr = [198, 18, 0, 1].into();
        assert_eq!(frames.iter().filter(|frame| frame.0 == own && frame.2 == 9).count(), 900);
        assert_eq!(frames.iter().filter(|frame| frame.0 == own && frame.2 != 9).count(), 90);
        assert_eq!(
            frames.iter().filter(|frame| frame.2 == 1234).map(|frame| frame.0).collect::<HashSet<_>>().len(),
            10
        );
    }

    #[test]
    fn flows_differ_by_source_port() {
        let all: HashSet<_> = frames(Profile::Flows(100), "198.18.0.1", 60, 250).into_iter().collect();
        assert_eq!(all.len(), 100);
        assert_eq!(frames(Profile::Flow, "198.18.0.1", 60, 50).into_iter().collect::<HashSet<_>>().len(), 1);
        let ports: HashSet<_> = frames(Profile::RandomPorts, "198.18.0.1", 60, 1000).into_iter().map(|f| f.2).collect();
        assert!(ports.len() > 950 && !ports.contains(&0), "{}", ports.len());
    }
}
