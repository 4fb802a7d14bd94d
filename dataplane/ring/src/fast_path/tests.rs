//! The tables and the real XDP program, by test runs of the kernel.

use std::process::Command;
use std::thread;

use knockplane_policy::packet::Side;
use knockplane_policy::time::Time;
use proptest::prelude::*;

use super::*;
use crate::program::LoadedProgram;
use crate::test_run::{XDP_DROP, XDP_REDIRECT, test_run};

const MAX_FRAME: u32 = 1522;
const SIZES: FastPathSizes = FastPathSizes { flows: [1024, 1024], epochs: 64, records: 4, sources: 1 << 16 };

/// The program between the two ends of a veth pair, which nothing attaches.
struct Lab {
    devices: [Device; 2],
    program: LoadedProgram,
    fast_path: FastPath,
}

impl Lab {
    /// Runs a test on a thread in a network namespace of its own, which ends with the thread.
    fn run(test: impl FnOnce(Lab) + Send) {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: the call changes the namespace of this thread alone.
                assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "network namespaces need root");
                let made = Command::new("ip").args("link add dev one type veth peer name two".split(' ')).status();
                assert!(made.expect("ip runs").success());
                let devices = ["one", "two"].map(|name| Device::open(name).expect("the interface exists"));
                let both = [&devices[0], &devices[1]];
                let fast_path = FastPath::create(both, &SIZES, 1, 7, MAX_FRAME).expect("maps can be created, as root");
                let program =
                    LoadedProgram::load(both, 1, MAX_FRAME).and_then(|program| program.with_fast_path(&fast_path));
                let program = program.expect("programs can be loaded, as root");
                for side in Side::ALL {
                    fast_path.set_may_send(side, true);
                }
                fast_path.set_clock(Time::from_nanos(1_000));
                fast_path.resume();
                test(Lab { devices, program, fast_path });
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }

    /// Whether the program carries a frame.
    fn carries(&self, side: Side, frame: &[u8]) -> bool {
        let device = &self.devices[side.index()];
        let verdict = test_run(self.program.program(), device.index(), frame).expect("the kernel runs it");
        assert!([XDP_REDIRECT, XDP_DROP].contains(&verdict), "no queue has a socket");
        verdict == XDP_REDIRECT
    }

    fn verdict(&self) -> FlowVerdict {
        FlowVerdict {
            generation: self.fast_path.generation().expect("it is on"),
            until: Time::NEVER,
            epochs: [Epoch::default(); 3],
            trail: 3,
            connection: None,
        }
    }

    fn write(&self, side: Side, frame: &[u8], verdict: &FlowVerdict) -> Written {
        let flow = Flow::of(side, frame).expect("the frame has a flow");
        self.fast_path.write(0, &flow, verdict, Time::from_nanos(1_000))
    }
}

/// A UDP packet in a frame, with these addresses and ports.
fn udp4(source: [u8; 4], destination: [u8; 4], ports: [u16; 2]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(source.into_iter().chain(destination));
    frame.extend(ports.into_iter().flat_map(u16::to_be_bytes));
    frame.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    frame.resize(60, 0);
    frame
}

/// A TCP segment over IPv6 in VLAN 7.
fn tcp6(last: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x81, 0, 0x20, 7, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
    frame.extend([0x20; 15]);
    frame.push(last);
    frame.extend([0x21; 16]);
    frame.extend([0, 9, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    frame
}

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const SERVER: [u8; 4] = [203, 0, 113, 5];

#[test]
fn a_verdict_carries_its_flow_and_no_other() {
    Lab::run(|lab| {
        let frame = udp4(CLIENT, SERVER, [1000, 53]);
        assert!(!lab.carries(Side::Outside, &frame), "before the verdict");
        assert_eq!(lab.write(Side::Outside, &frame, &lab.verdict()), Written::Stored);
        assert!(lab.carries(Side::Outside, &frame));
        let expected = CarriedCounts { packets: 1, ip_bytes: 32, frame_bytes: 60 };
        assert_eq!(lab.fast_path.carried(3), expected);
        assert!(!lab.carries(Side::Inside, &frame), "the other side");
        for other in
            [udp4(SERVER, SERVER, [1000, 53]), udp4(CLIENT, CLIENT, [1000, 53]), udp4(CLIENT, SERVER, [53, 1000])]
        {
            assert!(!lab.carries(Side::Outside, &other));
        }
        let mut tagged = frame.clone();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert!(!lab.carries(Side::Outside, &tagged), "another network");
        let six = tcp6(1);
        lab.write(Side::Inside, &six, &lab.verdict());
        assert!(lab.carries(Side::Inside, &six) && !lab.carries(Side::Inside, &tcp6(2)));
        assert_eq!(lab.fast_path.flows(Time::from_nanos(1_000)), [1, 1]);
    });
}

#[test]
fn a_verdict_ends_with_each_of_its_conditions() {
    Lab::run(|lab| {
        let frame = udp4(CLIENT, SERVER, [1000, 53]);
        let epochs = lab.fast_path.epochs();
        let bump = |place: usize| epochs.as_ref().as_ref()[place].fetch_add(1, Relaxed);
        let carries = || lab.carries(Side::Outside, &frame);
        let write = |verdict: FlowVerdict| lab.write(Side::Outside, &frame, &verdict);
        // Its time.
        let until = Time::from_nanos(5_000);
        write(FlowVerdict { until, ..lab.verdict() });
        lab.fast_path.set_clock(Time::from_nanos(4_999));
        assert!(carries());
        lab.fast_path.set_clock(until);
        assert!(!carries(), "an entry has expired at its expiry");
        lab.fast_path.set_clock(Time::from_nanos(1_000));
        // Its epochs.
        for place in 0..3 {
            let epoch =
                |at: usize| Epoch { place: 10 + at as u32, value: epochs.as_ref().as_ref()[10 + at].load(Relaxed) };
            write(FlowVerdict { epochs: [0, 1, 2].map(epoch), ..lab.verdict() });
            bump(20);
            assert!(carries());
            bump(10 + place);
            assert!(!carries(), "epoch {place}");
        }
        // The side of departure.
        write(lab.verdict());
        lab.fast_path.set_may_send(Side::Inside, false);
        assert!(!carries());
        lab.fast_path.set_may_send(Side::Inside, true);
        assert!(carries());
        // Its generation.
        lab.fast_path.suspend();
        assert!(!carries() && lab.fast_path.generation().is_none());
        lab.fast_path.resume();
        assert!(!carries());
        write(lab.verdict());
        assert!(carries());
        lab.fast_path.set_max_frame(59);
        assert!(!carries(), "a frame that is too long comes up");
    });
}

#[test]
fn a_sample_of_the_table_stands_for_all_flows() {
    Lab::run(|lab| {
        for (host, port) in (1..=50).flat_map(|host| (1..=10).map(move |port| (host, port))) {
            lab.write(Side::Outside, &udp4([192, 0, 2, host], SERVER, [port, 53]), &lab.verdict());
        }
        let now = Time::from_nanos(1_000);
        let exact = lab.fast_path.flows(now)[0];
        assert_eq!(lab.fast_path.flows_in_sample(now, 1024), [exact, 0], "the sample is the whole table");
        let estimate = lab.fast_path.flows_in_sample(now, 256)[0];
        assert!(exact > 300 && (exact / 2..exact * 2).contains(&estimate), "{estimate} of {exact}");
    });
}

#[test]
fn the_flows_of_one_host_do_not_displace_those_of_others() {
    Lab::run(|lab| {
        let of_others: Vec<_> = (0..64).map(|host| udp4([192, 0, 2, host], SERVER, [1000, 53])).collect();
        for frame in &of_others {
            assert_eq!(lab.write(Side::Outside, frame, &lab.verdict()), Written::Stored);
        }
        let flood = (1..=10_000).map(|port| udp4([198, 51, 100, 1], SERVER, [port, 53]));
        let (mut stored, mut full) = (0, 0);
        for frame in flood {
            match lab.write(Side::Outside, &frame, &lab.verdict()) {
                Written::Stored => stored += 1,
                Written::Full => full += 1,
            }
        }
        assert!(stored <= lab.fast_path.capacity()[0] / 16 && full > 9_000, "{stored} stored, {full} not");
        for frame in &of_others {
            assert!(lab.carries(Side::Outside, frame), "no flow is displaced");
        }
        // Places of flows without packets are reused.
        let later = Time::from_nanos(1_000) + IDLE;
        let flow = Flow::of(Side::Outside, &udp4([198, 51, 100, 1], SERVER, [20_000, 53])).expect("a flow");
        assert_eq!(lab.fast_path.write(0, &flow, &lab.verdict(), later), Written::Stored);
    });
}

#[test]
fn a_changer_can_wait_for_the_programs() {
    Lab::run(|lab| lab.fast_path.wait_for_programs().expect("the kernel waits"));
}

/// Frames with headers, and changes of single bytes.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let header = prop_oneof![Just(udp4(CLIENT, SERVER, [1000, 53])), Just(tcp6(1)), Just(tcp_of_udp())];
    let changes = proptest::collection::vec((0_usize..80, any::<u8>()), 0..3);
    (header, changes, 14_usize..100).prop_map(|(mut frame, changes, length)| {
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        if length < 34 {
            frame.truncate(14 + length);
        } else {
            frame.resize(frame.len().max(length), 0);
        }
        frame
    })
}

fn tcp_of_udp() -> Vec<u8> {
    let mut frame = udp4(CLIENT, SERVER, [1000, 53]);
    frame[17] = 40;
    frame[23] = 6;
    frame[46] = 0x50;
    frame
}

#[test]
fn the_program_reads_the_same_flows() {
    Lab::run(|lab| {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(4_000)
        });
        let carried = runner.run(&(frames(), any::<bool>()), |(frame, is_inside)| {
            let side = if is_inside { Side::Inside } else { Side::Outside };
            lab.fast_path.suspend();
            lab.fast_path.resume();
            let flow = Flow::of(side, &frame);
            if let Some(flow) = &flow {
                lab.fast_path.write(0, flow, &lab.verdict(), Time::from_nanos(1_000));
            }
            prop_assert_eq!(lab.carries(side, &frame), flow.is_some(), "{:02x?}", frame);
            Ok(())
        });
        carried.expect("the program and `Flow::of` read the same flows");
    });
}
