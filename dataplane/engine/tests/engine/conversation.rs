//! Both ends of a TCP connection, mostly with the sequence numbers of a correct TCP, and sometimes with others.

use std::net::IpAddr;
use std::time::Duration;

use knockplane_policy::packet::Side;
use proptest::prelude::*;
use proptest::sample::select;

use crate::common::{Details, Spec, Transport};
use crate::reference::{Turn, network, pause};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A connection from its beginning to its end: the sender of each segment, and its flags.
const SCRIPT: &[(usize, u8)] = &[
    (0, SYN),
    (1, SYN | ACK),
    (0, ACK),
    (0, ACK),
    (1, ACK),
    (1, ACK),
    (0, ACK),
    (0, FIN | ACK),
    (1, ACK),
    (1, FIN | ACK),
    (0, ACK),
    (1, RST),
];

/// A segment at one point of the connection.
#[derive(Clone, Debug)]
struct Saying {
    pause: Duration,
    /// The sender and the flags, in place of those of the next segment of the script.
    instead: Option<(usize, u8)>,
    /// The difference of its numbers from the correct ones.
    off: (u32, u32),
    /// Number of copies that are sent at once.
    times: usize,
    payload: &'static [u8],
    broken: bool,
    scale: Option<u8>,
    window: u16,
    /// An ICMP error to the sender quotes the segment, in place of the segment itself.
    is_quoted: bool,
    /// The segment arrives on the side of the other end.
    is_elsewhere: bool,
    /// The segment arrives in another VLAN.
    strays: bool,
}

/// The error of the numbers: mostly 0, otherwise small, near the limits of windows, or arbitrary.
fn off() -> impl Strategy<Value = u32> {
    prop_oneof![
        30 => Just(0_u32),
        3 => select(vec![1, u32::MAX, 4, 0_u32.wrapping_sub(4)]),
        2 => select(vec![1023_u32, 1024, 1025, 1 << 17, (1 << 17) + 1, 66_000, 67_100]),
        1 => select(vec![0_u32.wrapping_sub(66_000), 0_u32.wrapping_sub(67_100), 1 << 31]),
        1 => any::<u32>(),
    ]
}

fn saying() -> impl Strategy<Value = Saying> {
    let flags = select(vec![SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK, 0]);
    let instead = prop::option::weighted(0.25, (0..2_usize, flags));
    let payload = select(vec![&b""[..], b"", b"open", b"www.example.com"]);
    let [broken, is_quoted, is_elsewhere, strays] = [0.1, 0.1, 0.05, 0.05].map(prop::bool::weighted);
    let pause = prop_oneof![6 => Just(Duration::ZERO), 1 => pause()];
    let header =
        (prop::option::weighted(0.5, select(vec![0_u8, 2, 7, 14, 99])), select(vec![1024_u16, 0, 1, u16::MAX]));
    (pause, instead, (off(), off()), 1..3_usize, payload, (broken, is_quoted, is_elsewhere, strays), header).prop_map(
        |(pause, instead, off, times, payload, (broken, is_quoted, is_elsewhere, strays), (scale, window))| Saying {
            pause,
            instead,
            off,
            times,
            payload,
            broken,
            scale,
            window,
            is_quoted,
            is_elsewhere,
            strays,
        },
    )
}

/// A connection between two ends, one on each side.
pub(crate) fn conversation() -> impl Strategy<Value = Vec<Turn>> {
    let hosts = prop_oneof![
        3 => Just(["10.0.0.1", "10.0.1.1"]),
        1 => Just(["fd00::1", "fd00::2"]),
    ];
    let begins = select(vec![0_usize, 0, 0, 1]);
    // Zero, numbers shortly before 2³², and numbers at a change of sign.
    let isns = (select(vec![0_u32, u32::MAX - 3, (1 << 31) - 2]), select(vec![7_u32, u32::MAX, 1 << 31]));
    // Sometimes the test starts in the middle of the connection.
    let start = select(vec![0_usize, 0, 0, 3]);
    let sayings = prop::collection::vec(saying(), 1..SCRIPT.len() + 3);
    (hosts, begins, (0..4_u16, 0..4_u16), isns, start, (sayings, network())).prop_map(
        |(hosts, begins, ports, isns, start, (sayings, (tags, vlans, priority, session)))| {
            let hosts: [IpAddr; 2] = hosts.map(|host| host.parse().unwrap());
            let sides = [Side::Outside, Side::Inside];
            let ends = [(hosts[begins], ports.0, sides[begins]), (hosts[1 - begins], ports.1, sides[1 - begins])];
            let mut next = [isns.0, isns.1];
            let mut script = SCRIPT.iter().cycle().skip(start);
            sayings
                .iter()
                .map(|saying| {
                    let (from, flags) = saying.instead.unwrap_or_else(|| *script.next().expect("it goes round"));
                    let mut spec = spec(saying, ends[from], ends[1 - from], flags, (next[from], next[1 - from]));
                    spec.tags = if saying.strays { 1 } else { tags };
                    spec.details = Details { vlans, priority, session, ..spec.details };
                    // A segment that differs from the correct one does not advance the numbers.
                    let is_said = saying.off == (0, 0) && !saying.is_quoted && !saying.strays;
                    if is_said && (saying.instead.is_none() || flags & (SYN | FIN | RST) == 0) {
                        let marks = u32::from(flags & (SYN | FIN) != 0);
                        next[from] = next[from].wrapping_add(saying.payload.len() as u32 + marks);
                    }
                    let to_sender = usize::from(saying.is_quoted) ^ usize::from(saying.is_elsewhere);
                    let side = [ends[from].2, ends[1 - from].2][to_sender];
                    (saying.pause, side, vec![spec; saying.times])
                })
                .collect()
        },
    )
}

fn spec(saying: &Saying, from: (IpAddr, u16, Side), to: (IpAddr, u16, Side), flags: u8, numbers: (u32, u32)) -> Spec {
    let details = Details {
        flags,
        sequence: numbers.0.wrapping_add(saying.off.0),
        acknowledgement: if flags & ACK == 0 { 0 } else { numbers.1.wrapping_add(saying.off.1) },
        window: saying.window,
        scale: saying.scale.filter(|_| flags & SYN != 0),
        broken: saying.broken,
        ..Details::default()
    };
    let said = Spec {
        source: from.0,
        destination: to.0,
        transport: Transport::Tcp(from.1, to.1),
        payload: saying.payload.to_vec(),
        tags: 0,
        padding: 0,
        details,
    };
    if !saying.is_quoted {
        return said;
    }
    let frame = said.frame();
    let (kind, header) = if from.0.is_ipv4() { (3, 20) } else { (1, 40) };
    let payload = frame[14..][..header + 8].to_vec();
    Spec {
        source: to.0,
        destination: from.0,
        transport: Transport::Icmp(kind, 1),
        payload,
        details: Details::default(),
        ..said
    }
}
