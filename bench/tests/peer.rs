//! This project's rings and those of the crate `xsk-rs` at the two ends of real wires: every frame arrives, in order, byte for byte,
//! and every chunk is returned. Needs root.

use std::thread;
use std::time::{Duration, Instant};

use knockplane_peer::{Forwarded, PeerSockets};
use knockplane_policy::packet::Side;
use knockplane_ring::{
    Buffers, Device, Dispositions, Endpoint, LoadedProgram, ReceiveDrops, RingSettings, Rings, SocketStatistics,
    XdpProgram, ZeroCopy, raise_memlock_limit,
};
use knockplane_tests::{Namespace, Topology};

/// Enough to use every ring several times, and not a multiple of their size.
const COUNT: usize = 1_000;

/// Entries of the rings.
const RING_SIZE: u32 = 128;

/// Fewer frames than any ring on the path holds, so that none can be lost.
const BURST: usize = 50;

/// Longest wait for expected frames.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends frames between hosts on `xsk-rs` through [`Rings`], which forward, answer or drop them in turns.
#[test]
fn frames_of_the_library_pass_our_rings_and_come_back() {
    raise_memlock_limit();
    let topology = Topology::new(1).expect("network namespaces, for which the tests run as root");
    let mut hosts = [host(&topology.client), host(&topology.server)];
    let (mut rings, _programs) = wire(&topology.filter);
    for frame_bytes in [60, 301, 1514] {
        for from in Side::ALL {
            let (mut arrived, mut replied) = (Vec::new(), Vec::new());
            let (mut to_arrive, mut to_be_replied) = (Vec::new(), Vec::new());
            for first in (0..COUNT).step_by(BURST) {
                let sent: Vec<_> = (first..first + BURST).map(|number| frame(from, number, frame_bytes)).collect();
                for (index, bytes) in sent.iter().enumerate() {
                    assert!(hosts[from.index()].peer.send(0, bytes));
                    match index % 3 {
                        0 => to_arrive.push(bytes.clone()),
                        1 => to_be_replied.push(reply_to(bytes)),
                        _ => {}
                    }
                }
                hosts[from.index()].peer.kick(0);
                let seen = pass_through(&mut rings, from, BURST);
                assert!(seen == sent, "frames from {first} on, of {frame_bytes} bytes, from {from:?}");
                await_frames(&mut hosts[from.opposite().index()].peer, to_arrive.len(), &mut arrived);
                await_frames(&mut hosts[from.index()].peer, to_be_replied.len(), &mut replied);
                assert_eq!((rings.lost(), rings.drops()), (0, ReceiveDrops::default()));
            }
            assert!(arrived == to_arrive, "forwarded frames of {frame_bytes} bytes, from {from:?}");
            assert!(replied == to_be_replied, "replies of {frame_bytes} bytes, from {from:?}");
        }
    }
    // No further frame arrives, no chunk is missing, and no side has counted a loss.
    for side in Side::ALL {
        rings.kick(side);
        assert_eq!((rings.receive(side), rings.statistics(side)), (0, SocketStatistics::default()));
        let peer = &mut hosts[side.index()].peer;
        peer.kick(0);
        assert_eq!((peer.receive(0, |frame| panic!("a frame too many: {frame:?}")), peer.in_flight(0)), (0, 0));
        assert_eq!(peer.statistics(0), SocketStatistics::default());
    }
    assert_eq!((rings.in_flight(), rings.lost()), (0, 0));
}

/// Sends frames between hosts on the project's rings through a forwarder on `xsk-rs`.
#[test]
fn frames_of_our_rings_pass_a_forwarder_on_the_library() {
    raise_memlock_limit();
    let topology = Topology::new(1).expect("network namespaces, for which the tests run as root");
    let (mut peer, _programs) = topology
        .filter
        .within(|| {
            let devices = [Device::open("outside")?, Device::open("inside")?];
            let both = [&devices[0], &devices[1]];
            let mut programs = LoadedProgram::load(both, 1, devices[0].mtu()? + 22)?.attach(both)?;
            let peer = PeerSockets::bind(&both, RING_SIZE)?;
            for side in Side::ALL {
                programs[side.index()].set_socket(0, peer.fd(side.index()))?;
            }
            Ok((peer, programs))
        })
        .expect("two AF_XDP sockets");
    for frame_bytes in [60, 1514] {
        let mut hosts = [endpoint(&topology.client, frame_bytes), endpoint(&topology.server, frame_bytes)];
        for from in Side::ALL {
            let (here, there) = (from.index(), from.opposite().index());
            for first in (0..COUNT).step_by(BURST) {
                let sent: Vec<_> = (first..first + BURST).map(|number| frame(from, number, frame_bytes)).collect();
                let mut next = sent.iter();
                let write = |bytes: &mut [u8]| bytes.copy_from_slice(next.next().expect("as many as asked for"));
                hosts[here].0.send(BURST, write);
                let (mut forwarded, mut arrived) = (Forwarded::default(), Vec::new());
                let patience = Instant::now() + PATIENCE;
                while arrived.len() < BURST && Instant::now() < patience {
                    hosts[here].0.kick();
                    let Forwarded { received, tx_full } = peer.forward(here, there);
                    forwarded.received += received;
                    forwarded.tx_full += tx_full;
                    peer.kick(here);
                    peer.kick(there);
                    hosts[there].0.receive(|frame| arrived.push(frame.to_vec()));
                    thread::yield_now();
                }
                assert!(arrived == sent, "frames from {first} on, of {frame_bytes} bytes, from {from:?}");
                assert_eq!(forwarded, Forwarded { received: BURST, tx_full: 0 });
            }
            assert_eq!(hosts[there].0.receive(|frame| panic!("a frame too many: {frame:?}")), 0);
        }
    }
}

struct Host {
    peer: PeerSockets,
    _program: XdpProgram,
}

/// A host on `xsk-rs`.
fn host(namespace: &Namespace) -> Host {
    let bind = || {
        let device = Device::open("eth0")?;
        let mut program = XdpProgram::attach(&device, 1, device.mtu()? + 22)?;
        let peer = PeerSockets::bind(&[&device], RING_SIZE)?;
        program.set_socket(0, peer.fd(0))?;
        Ok(Host { peer, _program: program })
    };
    namespace.within(bind).expect("an AF_XDP socket")
}

/// A host on the project's rings.
fn endpoint(namespace: &Namespace, frame_bytes: usize) -> (Endpoint, XdpProgram) {
    let bind = || {
        let device = Device::open("eth0")?;
        let mut program = XdpProgram::attach(&device, 1, device.mtu()? + 22)?;
        let endpoint = Endpoint::bind(&device, 0, frame_bytes)?;
        endpoint.connect(&mut program, 0)?;
        Ok((endpoint, program))
    };
    namespace.within(bind).expect("an AF_XDP socket")
}

/// The project's rings between both interfaces.
fn wire(namespace: &Namespace) -> (Rings, [XdpProgram; 2]) {
    let bind = || {
        let devices = [Device::open("outside")?, Device::open("inside")?];
        let both = [&devices[0], &devices[1]];
        let max_frame = devices[0].mtu()? + 22;
        let mut programs = LoadedProgram::load(both, 1, max_frame)?.attach(both)?;
        let buffers = Buffers::choose([devices[0].driver(), devices[1].driver()], max_frame, ZeroCopy::Auto)?;
        let rings = Rings::bind(both, 0, &RingSettings { ring_size: RING_SIZE, buffers })?;
        rings.connect(&mut programs, 0)?;
        Ok((rings, programs))
    };
    namespace.within(bind).expect("two AF_XDP sockets")
}

/// A unique frame: its bytes are made from its number.
fn frame(from: Side, number: usize, frame_bytes: usize) -> Vec<u8> {
    let side = from.index() as u8;
    let mut frame = vec![2, 0, 0, 0, 0, side, 2, 0, 0, 0, 0, 1 - side, 0x88, 0xb5];
    frame.extend_from_slice(&(number as u32).to_be_bytes());
    frame.extend((frame.len()..frame_bytes).map(|at| (number * 31 + at) as u8));
    frame
}

/// The reply to a frame: of another length, and with other bytes.
fn reply_to(frame: &[u8]) -> Vec<u8> {
    let mut reply: Vec<u8> = frame[..60].iter().map(|byte| byte ^ 1).collect();
    reply.push(frame.len() as u8);
    reply
}

/// Receives `count` frames from one side. Forwards frames 0, 3, 6, …, answers frames 1, 4, 7, …, and drops the others.
/// Returns all of them.
fn pass_through(rings: &mut Rings, from: Side, count: usize) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    let patience = Instant::now() + PATIENCE;
    while seen.len() < count && Instant::now() < patience {
        rings.receive(from);
        let frames: Vec<_> = rings.frames().iter().map(|frame| frame.to_vec()).collect();
        let replies: Vec<_> = frames.iter().map(|frame| reply_to(frame)).collect();
        let every_third = |rest: usize| {
            let indices = (0..frames.len()).filter(|index| (seen.len() + index) % 3 == rest);
            indices.fold(0, |set, index| set | 1_u64 << index)
        };
        let wanted = Dispositions { forward: every_third(0), reply: every_third(1) };
        let settled = rings.settle(wanted, |index| Some(&replies[index]));
        assert_eq!((settled.forwarded, settled.replied), (wanted.forward, wanted.reply));
        seen.extend(frames);
        for side in Side::ALL {
            rings.kick(side);
        }
        thread::yield_now();
    }
    seen
}

/// Receives until `arrived` has `count` frames.
fn await_frames(peer: &mut PeerSockets, count: usize, arrived: &mut Vec<Vec<u8>>) {
    let patience = Instant::now() + PATIENCE;
    while arrived.len() < count && Instant::now() < patience {
        peer.receive(0, |frame| arrived.push(frame.to_vec()));
        peer.kick(0);
        thread::yield_now();
    }
    assert_eq!(arrived.len(), count);
}
