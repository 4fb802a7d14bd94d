//! The packet generator on a real interface: every frame arrives, and fits its profile, in both ways of making frames. Needs
//! root.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, ensure};
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use knockplane_bench::generator::{Generator, Mode, Profile, Spec, parse_prefix};
use knockplane_generator::LiveFrames;
use knockplane_ring::Device;
use knockplane_tests::Topology;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SocketType, eth, recv, socket, sockopt};

/// Fewer frames than the smallest ring on the path holds, so that none can be lost; and two rounds of the mix.
const COUNT: usize = 200;

/// One network with varying hosts, in each family, and one prefix with varying networks.
const SOURCES: [&str; 3] = ["198.18.0.250/16", "2001:2::ffff:fffe/64", "2001:2::1/32"];

#[test]
fn every_frame_arrives_and_fits_its_profile() {
    let topology = topology();
    for from in SOURCES {
        for profile in Profile::ALL {
            let spec = Spec { profile, ..spec(from) };
            let live = sent(&topology, &spec);
            check(profile, from, &live);
            let from_userspace = sent(&topology, &Spec { mode: Mode::Xsk, ..spec });
            assert!(live == from_userspace, "{profile} from {from} differs by mode");
        }
    }
}

#[test]
fn frames_have_the_requested_length() {
    let topology = topology();
    for (from, lengths) in [(SOURCES[0], [60, 301, 1514]), (SOURCES[1], [74, 301, 1514])] {
        for frame_bytes in lengths {
            for mode in [Mode::Live, Mode::Xsk] {
                let spec = Spec { mode, frame_bytes: Some(frame_bytes), ..spec(from) };
                for frame in sent(&topology, &spec) {
                    assert_eq!(frame.len(), frame_bytes, "{mode} from {from}");
                    read(&frame);
                }
            }
        }
    }
}

#[test]
fn copies_of_a_frame_arrive() {
    let topology = topology();
    let tap = topology.filter.within(tap).expect("a packet socket");
    let frame: Vec<u8> = (0..100).collect();
    let send = || Ok(LiveFrames::new(&Device::open("eth0")?)?.send(&frame, COUNT as u32)?);
    topology.client.within(send).expect("live frames");
    assert!(arrived(&tap).expect("frames") == vec![frame.clone(); COUNT]);
}

#[test]
fn impossible_specs_are_refused() {
    let topology = topology();
    let refusal = |interface: &'static str, spec: Spec| {
        topology.client.within(|| Ok(Generator::new(&Device::open(interface)?, &spec).err().map(|e| e.to_string())))
    };
    topology.client.ip("link set eth0 mtu 1400").expect("a smaller MTU");
    let error = refusal("eth0", Spec { frame_bytes: Some(1415), ..spec(SOURCES[0]) }).expect("a refusal");
    assert!(error.as_ref().is_some_and(|error| error.contains("1414")), "{error:?}");
    topology.client.ip("link set eth0 down").expect("down");
    let error = refusal("eth0", spec(SOURCES[0])).expect("a refusal");
    assert!(error.as_ref().is_some_and(|error| error.contains("link set eth0 up")), "{error:?}");
}

#[test]
fn a_stopped_generator_sends_nothing() {
    let topology = topology();
    for mode in [Mode::Live, Mode::Xsk] {
        let summary = topology.client.within(|| {
            Generator::new(&Device::open("eth0")?, &Spec { mode, ..spec(SOURCES[0]) })?.run(&AtomicBool::new(true))
        });
        assert_eq!(summary.expect("an empty run").frames, 0);
    }
}

/// A veth takes live frames only if its other end has NAPI.
fn topology() -> Topology {
    let topology = Topology::new(1).expect("network namespaces, for which the tests run as root");
    let gro = topology.filter.run("ethtool -K outside gro on").expect("ethtool");
    assert!(gro.ok(), "{}", gro.stderr);
    topology
}

fn spec(from: &str) -> Spec {
    let source = parse_prefix(from).expect("a prefix");
    Spec { count: Some(COUNT as u64), ..Spec::new(Profile::Mix) }.between(Some(source), None)
}

/// Asserts that exactly the spec's frames arrive at the other end, and returns them.
fn sent(topology: &Topology, spec: &Spec) -> Vec<Vec<u8>> {
    let tap = topology.filter.within(tap).expect("a packet socket");
    let summary = topology.client.within(|| {
        let generator = Generator::new(&Device::open("eth0")?, spec)?;
        generator.run(&AtomicBool::new(false))
    });
    let summary = summary.expect("the generator runs");
    assert_eq!(summary.frames, COUNT as u64, "{spec:?}");
    assert_eq!(summary.transmitted, Some(COUNT as u64), "{spec:?}");
    let frames = arrived(&tap).expect("frames");
    assert_eq!(frames.len(), COUNT, "{spec:?}");
    frames
}

/// A socket that sees every frame of its namespace, with room for all frames of a test.
fn tap() -> anyhow::Result<OwnedFd> {
    let tap = socket(AddressFamily::PACKET, SocketType::RAW, Some(eth::ALL))?;
    sockopt::set_socket_recv_buffer_size_force(&tap, 16 << 20)?;
    Ok(tap)
}

/// Waits long for expected frames, and shortly for unexpected ones.
fn arrived(tap: &OwnedFd) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    loop {
        let wait = if frames.len() < COUNT {
            Timespec { tv_sec: 5, tv_nsec: 0 }
        } else {
            Timespec { tv_sec: 0, tv_nsec: 5_000_000 }
        };
        if poll(&mut [PollFd::new(tap, PollFlags::IN)], Some(&wait))? == 0 {
            return Ok(frames);
        }
        let mut frame = [0; 2048];
        let (_, length) = recv(tap, &mut frame[..], RecvFlags::DONTWAIT).context("a frame")?;
        ensure!(length <= frame.len(), "a frame of {length} bytes");
        frames.push(frame[..length].to_vec());
    }
}

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
        TransportHeader::Tcp(tcp) => {
            assert!(tcp.syn && !tcp.ack);
            (source, tcp.source_port, tcp.destination_port)
        }
        other => panic!("{other:?}"),
    }
}

fn check(profile: Profile, from: &str, frames: &[Vec<u8>]) {
    let fields: Vec<_> = frames.iter().map(|frame| read(frame)).collect();
    let prefix = parse_prefix(from).expect("a prefix");
    let own = prefix.addr();
    let sources: HashSet<_> = fields.iter().map(|(source, ..)| *source).collect();
    let ports: HashSet<_> = fields.iter().map(|(.., port)| *port).collect();
    assert!(sources.iter().all(|source| prefix.contains(source)), "{profile} from {from}");
    match profile {
        Profile::Flow => assert_eq!(fields.iter().collect::<HashSet<_>>().len(), 1),
        Profile::Flows(_) => {
            assert_eq!((sources.len(), ports.len()), (1, 1));
            assert_eq!(fields.iter().map(|(_, port, _)| port).collect::<HashSet<_>>().len(), COUNT);
        }
        Profile::RandomPorts => assert!(sources.len() == 1 && ports.len() > COUNT * 9 / 10, "{ports:?}"),
        Profile::SourcesSequential | Profile::FirstKnocks => {
            assert_eq!((sources.len(), ports.len(), fields[0].0), (COUNT, 1, own));
        }
        Profile::SourcesRandom => assert!(sources.len() > COUNT * 9 / 10 && ports.len() == 1, "{sources:?}"),
        Profile::Knock => {
            let mut knocks: HashMap<IpAddr, Vec<u16>> = HashMap::new();
            for (source, _, port) in fields {
                knocks.entry(source).or_default().push(port);
            }
            assert_eq!(knocks.len(), COUNT / 2);
            assert!(knocks.values().all(|knocks| knocks == &[1234, 4321]), "{knocks:?}");
        }
        Profile::Mix => {
            let count = |wanted: &dyn Fn(IpAddr, u16) -> bool| {
                fields.iter().filter(|(source, _, port)| wanted(*source, *port)).count()
            };
            assert_eq!(count(&|source, port| source == own && port == 9), COUNT * 90 / 100);
            assert_eq!(count(&|source, port| source == own && port != 9), COUNT * 9 / 100);
            assert_eq!(count(&|source, port| source != own && port == 1234), COUNT / 100);
        }
    }
}
