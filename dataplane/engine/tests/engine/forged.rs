//! A million forged segments and ICMP errors, and a thousand idle sessions that outlive the grants of their door.
//!
//! The forger knows all addresses and ports and sends in both directions, most segments from the outside and some from
//! the inside. It does not know the sequence numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::{ChainDefaults, Choice, Settings};
use knockplane_policy::time::Time;

use crate::common::{Details, Engine, Spec, Transport, door};

const SESSIONS: u32 = 1_000;
const FORGED: u64 = 1_000_000;
/// The duration of the forgery, in milliseconds.
const MINUTES: u64 = 5 * 60 * 1_000;
/// The time at which all doors have closed.
const CLOSED: u64 = 100_000;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.next() as usize % choices.len()]
    }
}

/// A client that knocks and begins a session, and the server.
struct Session {
    ends: [(IpAddr, u16); 2],
    /// The next numbers.
    next: [u32; 2],
}

impl Session {
    fn new(number: u32, random: &mut Random) -> Session {
        let port = 40_000 + (random.next() % 20_000) as u16;
        // Every second session uses IPv6.
        let (client, server): (IpAddr, IpAddr) = match number % 2 {
            0 => (Ipv4Addr::from_bits(0x0a00_0000 + number).into(), Ipv4Addr::new(203, 0, 113, 1).into()),
            _ => (
                Ipv6Addr::from_bits(0xfd00_u128 << 112 | u128::from(number)).into(),
                Ipv6Addr::from_bits(0xfd01_u128 << 112 | 1).into(),
            ),
        };
        Session { ends: [(client, port), (server, 22)], next: [random.next() as u32, random.next() as u32] }
    }

    /// A segment from one end, with these numbers.
    fn segment(&self, from: usize, flags: u8, (sequence, acknowledgement): (u32, u32), payload: &[u8]) -> Spec {
        let [(source, source_port), (destination, port)] = [self.ends[from], self.ends[1 - from]];
        let scale = (flags & SYN != 0).then_some(7);
        let details = Details { flags, sequence, acknowledgement, window: 502, scale, ..Details::default() };
        Spec {
            source,
            destination,
            payload: payload.to_vec(),
            details,
            ..Spec::new("10.0.0.1", Transport::Tcp(source_port, port), b"")
        }
    }

    /// The next segment of this end.
    fn says(&mut self, from: usize, flags: u8, payload: &[u8]) -> Spec {
        let spec = self.segment(from, flags, (self.next[from], self.next[1 - from]), payload);
        let marks = u32::from(flags & (SYN | FIN) != 0);
        self.next[from] = self.next[from].wrapping_add(payload.len() as u32 + marks);
        spec
    }

    /// The segment of a forger that guesses the numbers.
    fn forged(&self, random: &mut Random) -> Spec {
        let from = random.of(&[0, 1]);
        let flags = random.of(&[RST, RST | ACK, FIN | ACK, ACK, ACK | PSH, SYN, SYN | ACK]);
        let payload: &[u8] = if flags & PSH != 0 { &[b'x'; 100] } else { b"" };
        let mut spec = self.segment(from, flags, (random.next() as u32, random.next() as u32), payload);
        spec.details.window = random.of(&[0, 502, u16::MAX]);
        spec.details.broken = random.of(&[false, true]);
        if random.of(&[false, false, false, true]) {
            // An ICMP error about the segment instead, to the segment's sender.
            let (kinds, header): (&[(u8, u8)], _) = match spec.source.is_ipv4() {
                true => (&[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)], 20),
                false => (&[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)], 40),
            };
            let (kind, code) = random.of(kinds);
            spec = Spec {
                source: spec.destination,
                destination: spec.source,
                payload: spec.frame()[14..][..header + 8].to_vec(),
                transport: Transport::Icmp(kind, code),
                ..spec
            };
        }
        spec
    }
}

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn side(from: usize) -> Side {
    [Side::Outside, Side::Inside][from]
}

/// The verdicts about these frames, as one batch.
fn verdicts(engine: &mut Engine, side: Side, specs: &[Spec], now: u64) -> Vec<Verdict> {
    let frames: Vec<Vec<u8>> = specs.iter().map(Spec::frame).collect();
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    engine.decide(side, &frames, at(now)).iter().map(|decision| decision.verdict).collect()
}

/// Sessions that began through a door: the door's own rules accept them, and no rule accepts any other packet in either
/// direction.
fn begun(engine: &mut Engine, random: &mut Random) -> Vec<Session> {
    (0..SESSIONS)
        .map(|number| {
            let mut session = Session::new(number, random);
            let (client, server) = (session.ends[0].0, session.ends[1].0);
            let knock =
                Spec { source: client, destination: server, ..Spec::new("10.0.0.1", Transport::Tcp(1, 7), b"") };
            verdicts(engine, Side::Outside, &[knock], 0);
            for (from, flags) in [(0, SYN), (1, SYN | ACK), (0, ACK), (1, ACK), (0, ACK)] {
                let payload: &[u8] = if flags == ACK { b"hello" } else { b"" };
                let spec = session.says(from, flags, payload);
                assert_eq!(verdicts(engine, side(from), &[spec], 1), [Verdict::Forward], "session {number}");
            }
            session
        })
        .collect()
}

#[test]
fn a_million_forged_segments_end_none_of_a_thousand_idle_sessions() {
    let mut random = Random(7);
    let settings = Settings {
        doors: vec![door("ssh", &["tcp/7"], &[])],
        chain_default: ChainDefaults { input: Choice::Drop, forward: Choice::Drop, output: Choice::Drop },
        ..Settings::default()
    };
    let mut engine = Engine::with_room(RuleSet::default(), &settings, 4 * SESSIONS as usize);
    let mut sessions = begun(&mut engine, &mut random);
    // No other source begins a session any more.
    let mut late = Session::new(SESSIONS, &mut random);
    let syn = late.says(0, SYN, b"");
    assert_eq!(verdicts(&mut engine, Side::Outside, &[syn], CLOSED), [Verdict::Drop]);

    const BATCH: u64 = 50;
    let mut passed = 0;
    for batch in 0..FORGED / BATCH {
        let forged: Vec<Spec> = (0..BATCH)
            .map(|_| {
                let session = random.next() as usize % sessions.len();
                sessions[session].forged(&mut random)
            })
            .collect();
        let from = random.of(&[Side::Outside, Side::Outside, Side::Outside, Side::Inside]);
        let now = CLOSED + batch * BATCH * MINUTES / FORGED;
        let verdicts = verdicts(&mut engine, from, &forged, now);
        // SYNs and SYN-ACKs are forwarded, because the end may have lost its state of the connection.
        let is_syn = |spec: &Spec| matches!(spec.transport, Transport::Tcp(..)) && spec.details.flags & SYN != 0;
        passed += verdicts
            .iter()
            .zip(&forged)
            .filter(|(verdict, spec)| **verdict == Verdict::Forward && !is_syn(spec))
            .count();
    }

    let now = CLOSED + MINUTES;
    assert_eq!(
        engine.state.connections().unwrap().known(at(now)).iter().filter(|(_, both)| *both).count(),
        sessions.len()
    );
    let mut works = 0;
    for session in &mut sessions {
        let exchange = [(1, ACK), (0, ACK), (0, ACK), (1, ACK)].map(|(from, flags)| {
            let spec = session.says(from, flags, b"still here");
            verdicts(&mut engine, side(from), &[spec], now)
        });
        works += u32::from(exchange.iter().flatten().all(|verdict| *verdict == Verdict::Forward));
    }
    println!("{works} of {SESSIONS} sessions work; {passed} of {FORGED} forged segments but SYNs passed");
    assert_eq!(works, SESSIONS);
    assert!(passed < FORGED as usize / 10_000, "{passed} forged segments passed");
}
