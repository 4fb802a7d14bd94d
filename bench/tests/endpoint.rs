//! Two AF_XDP endpoints at the two ends of a real wire: every frame arrives, in order, byte for byte, and every frame's memory
//! is returned. Needs root.

use std::thread;
use std::time::{Duration, Instant};

use knockplane_ring::{Device, Endpoint, XdpProgram, raise_memlock_limit};
use knockplane_tests::{Namespace, Topology};

/// Enough to use every ring several times, and not a multiple of their size.
const COUNT: usize = 2_000;

/// Fewer frames than the smallest ring on the path and the receiving endpoint hold, so that none can be lost.
const BURST: usize = 64;

/// Longest wait for expected frames.
const PATIENCE: Duration = Duration::from_secs(5);

struct End {
    endpoint: Endpoint,
    _program: XdpProgram,
}

#[test]
fn every_frame_arrives_as_it_was_sent_both_ways() {
    raise_memlock_limit();
    for frame_bytes in [60, 301, 1514] {
        let topology = Topology::new(1).expect("network namespaces, for which the tests run as root");
        let mut from = end(&topology.client, "eth0", frame_bytes);
        let mut to = end(&topology.filter, "outside", frame_bytes);
        let room = from.endpoint.room();
        for way in 0..2 {
            for first in (0..COUNT).step_by(BURST) {
                let numbers = first..COUNT.min(first + BURST);
                let sent: Vec<_> = numbers.map(|number| frame(way, number, frame_bytes)).collect();
                let arrived = pass(&sent, &mut from, &mut to);
                assert!(arrived == sent, "frames from {first} on, of {frame_bytes} bytes, way {way}");
            }
            assert_eq!(rest(&mut from), room, "frames that can be sent, once all were");
            assert_eq!(to.endpoint.receive(|frame| panic!("a frame too many: {frame:?}")), 0);
            (from, to) = (to, from);
        }
    }
}

#[test]
fn nothing_is_received_before_it_is_connected() {
    raise_memlock_limit();
    let topology = Topology::new(1).expect("network namespaces, for which the tests run as root");
    let mut client = end(&topology.client, "eth0", 60);
    let (mut endpoint, mut program) = bound(&topology.filter, "outside", 60);
    let room = client.endpoint.room();
    client.endpoint.send(BURST, |frame| frame.fill(1));
    assert_eq!(rest(&mut client), room);
    let unbound: u64 = program.counts().expect("counters").iter().map(|core| core.unbound).sum();
    assert_eq!((unbound, endpoint.receive(|_| ())), (BURST as u64, 0));
    endpoint.connect(&mut program, 0).expect("a socket that is bound to this queue");
    let sent = [frame(0, 0, 60)];
    assert!(pass(&sent, &mut client, &mut End { endpoint, _program: program }) == sent);
}

fn end(namespace: &Namespace, interface: &str, frame_bytes: usize) -> End {
    let (endpoint, mut program) = bound(namespace, interface, frame_bytes);
    endpoint.connect(&mut program, 0).expect("a socket that is bound to this queue");
    End { endpoint, _program: program }
}

fn bound(namespace: &Namespace, interface: &str, frame_bytes: usize) -> (Endpoint, XdpProgram) {
    let bind = || {
        let device = Device::open(interface)?;
        let program = XdpProgram::attach(&device, 1, device.mtu()? + 22)?;
        Ok((Endpoint::bind(&device, 0, frame_bytes)?, program))
    };
    namespace.within(bind).expect("an AF_XDP socket")
}

/// A unique frame: its bytes are made from its number.
fn frame(way: u8, number: usize, frame_bytes: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, way, 2, 0, 0, 0, 0, 1 - way, 0x88, 0xb5];
    frame.extend_from_slice(&(number as u32).to_be_bytes());
    frame.extend((frame.len()..frame_bytes).map(|at| (number * 31 + at) as u8));
    frame
}

/// Sends the frames and returns those that arrive, until as many have arrived.
fn pass(frames: &[Vec<u8>], from: &mut End, to: &mut End) -> Vec<Vec<u8>> {
    let mut next = frames.iter();
    from.endpoint.send(frames.len(), |frame| frame.copy_from_slice(next.next().expect("as many as asked for")));
    let mut arrived = Vec::new();
    let patience = Instant::now() + PATIENCE;
    while arrived.len() < frames.len() && Instant::now() < patience {
        from.endpoint.kick();
        to.endpoint.receive(|frame| arrived.push(frame.to_vec()));
        thread::yield_now();
    }
    arrived
}

/// Number of frames that can be sent after the kernel has sent all earlier ones.
fn rest(end: &mut End) -> usize {
    let patience = Instant::now() + PATIENCE;
    while end.endpoint.in_flight() > 0 && Instant::now() < patience {
        end.endpoint.kick();
        thread::yield_now();
    }
    end.endpoint.room()
}
