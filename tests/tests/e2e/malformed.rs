//! Sends malformed frames from both sides through the real rings: no process ends, and no frame is lost or duplicated.

use std::collections::HashMap;

use knockplane_policy::packet::Side;
use knockplane_tests::{CLIENT, FilterOptions, Topology};

use crate::end::{EXPERIMENTS_PASS, End, LOCAL_EXPERIMENT};
use crate::random::Random;
use crate::scenario::{eventually, with_queues};

/// Rules with every kind of answer, state and jump.
const RULES: &str = r#"/ip firewall layer7-protocol
add name=word regexp="^.*sesame"
/ip firewall raw
add chain=prerouting protocol=47 action=notrack
/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input fragment=yes action=accept
add chain=input protocol=tcp dst-port=1-20000 action=add-src-to-address-list address-list=seen address-list-timeout=1s
add chain=input protocol=tcp psd=21,3s,3,1 action=drop
add chain=input protocol=tcp dst-port=20001-30000 action=tarpit
add chain=input protocol=tcp dst-port=30001-40000 action=reject reject-with=tcp-reset
add chain=input layer7-protocol=word action=add-src-to-address-list address-list=said address-list-timeout=none-dynamic
add chain=input protocol=udp dst-limit=100,5,addresses-and-dst-port/1m40s action=accept
add chain=input protocol=udp action=reject
add chain=input src-address-list=seen action=accept
add chain=input protocol=icmp nth=2,1 action=accept
add chain=input connection-state=invalid action=drop
/ipv6 firewall filter
add chain=input connection-state=established,related action=accept
add chain=input protocol=udp action=reject
add chain=input headers=frag:contains action=accept
add chain=input random=50 action=accept
"#;

const ROUNDS: usize = 600;
const ROUND: usize = 50;

#[test]
fn malformed_frames_are_neither_lost_nor_doubled() {
    let seed = std::env::var("NONSENSE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut options = FilterOptions::from_rules(RULES);
    options.sections = EXPERIMENTS_PASS.to_owned();
    with_queues(2, &options, |topology, filter| {
        let mut ends = [&topology.client, &topology.server].map(|host| End::open(host).expect("an end"));
        let mut random = Random(seed);
        let mut number = 0;
        for round in 0..ROUNDS {
            for from in Side::ALL {
                let mut sent = HashMap::new();
                for _ in 0..ROUND {
                    number += 1;
                    let frame = malformed_header(&mut random, number);
                    ends[from.index()].send(&frame).unwrap_or_else(|error| panic!("{frame:02x?}: {error}"));
                    sent.insert(number, 0_u32);
                }
                number += 1;
                ends[from.index()].send(&end_mark(number)).expect("sent");
                let mut room = vec![0; 4096];
                loop {
                    let arrived = ends[from.opposite().index()].next(&mut room);
                    let frame = arrived.unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
                    match of(frame) {
                        Some(last) if last == number => break,
                        Some(of_this_turn) => *sent.entry(of_this_turn).or_default() += 1,
                        None => {}
                    }
                }
                let doubled = sent.iter().find(|(_, times)| **times > 1);
                assert_eq!(doubled, None, "seed {seed}, round {round}: a frame arrived twice");
            }
        }
        let count = |name: &str, labels: &[&str]| filter.metric(name, labels).expect("a series");
        let balance = || {
            let decided = count("knockplane_packets_total", &[]);
            let received = count("knockplane_rx_packets_total", &[]);
            (received, decided, count("knockplane_frames_lost", &[]), count("knockplane_frames_in_flight", &[]))
        };
        eventually("every frame is decided, and none is lost", || {
            let (received, decided, lost, in_flight) = balance();
            received >= (2 * ROUNDS * ROUND) as f64 && received == decided && lost == 0.0 && in_flight == 0.0
        });
        assert!(count("knockplane_packets_total", &["verdict=\"forward\""]) > 1000.0, "some of it passes");
        still_works(topology);
    });
}

fn still_works(topology: &Topology) {
    eventually("the inside reaches the outside", || {
        let pinged = topology.server.run(&format!("ping -n -c 1 -W 1 {CLIENT}"));
        pinged.expect("ping can be run").ok()
    });
}

/// A frame that passes and has a number marks the end of a turn.
fn end_mark(number: u32) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &LOCAL_EXPERIMENT].concat();
    frame.resize(54, 0);
    with_number(frame, number)
}

const MARK: [u8; 4] = *b"KPN!";

fn with_number(mut frame: Vec<u8>, number: u32) -> Vec<u8> {
    frame.extend(MARK);
    frame.extend(number.to_be_bytes());
    frame
}

/// The number at the end of a frame. `None` for an answer that quotes the frame, which travels in the other direction.
fn of(frame: &[u8]) -> Option<u32> {
    let (mark, number) = frame.last_chunk::<8>()?.split_at(4);
    (mark == MARK).then(|| u32::from_be_bytes(number.try_into().expect("four bytes")))
}

/// A header that is often valid, and often wrong in a few places; its number is at the end.
fn malformed_header(random: &mut Random, number: u32) -> Vec<u8> {
    let mut frame = [&[2, 0, 0, 0, 0, 1][..], &[2, 0, 0, 0, 0, 9]].concat();
    for _ in 0..[0, 0, 0, 1, 2, 3][random.below(6)] {
        frame.extend(random.of(&[[0x81, 0x00, 0, 7], [0x88, 0xa8, 0, 8]]));
    }
    let length = random.of(&[0, 8, 20, 100, 600, 1400]);
    match random.below(8) {
        0 => frame.extend((0..2 + length.min(64)).map(|_| random.below(256) as u8)),
        1 | 2 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(((length + 8) as u16).to_be_bytes());
            frame.extend([random.of(&[0, 6, 17, 43, 44, 58, 60]), 64]);
            frame.extend([0x20; 31]);
            frame.push(random.below(4) as u8);
        }
        _ => {
            frame.extend([0x08, 0x00, random.of(&[0x45, 0x45, 0x45, 0x46, 0x4f, 0x44]), 0]);
            frame.extend(((length + 28) as u16).to_be_bytes());
            let part = random.of(&[[0, 0], [0, 0], [0, 0], [0x20, 0], [0, 3], [0x3f, 0xff]]);
            frame.extend([0, random.below(3) as u8, part[0], part[1], 64, random.of(&[1, 6, 6, 17, 17, 47, 50]), 0, 0]);
            frame.extend([192, 0, 2, random.below(4) as u8, 198, 51, 100, random.below(4) as u8]);
        }
    }
    // Ports, or the beginning of another header.
    frame.extend((0..8).map(|_| random.below(256) as u8));
    let words = random.of(&[&b"open sesame"[..], b"\x45\x00", b"\x00"]);
    frame.extend(words.iter().cycle().take(length));
    for _ in 0..random.of(&[0, 0, 1, 3]) {
        let place = 12 + random.below(frame.len() - 12);
        frame[place] = random.below(256) as u8;
    }
    with_number(frame, number)
}
