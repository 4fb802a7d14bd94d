//! Checks that forged segments from outside have no effect on idle sessions whose grant has expired.

use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::Duration;

use etherparse::{PacketBuilder, TcpHeader};
use knockplane_tests::{CLIENT, FilterOptions, SERVER};

use crate::doors::{goes_on, session};
use crate::end::{End, mac_of};
use crate::random::Random;
use crate::scenario::{eventually, knock, listed, serve_tcp, tcp_echo, with};

const PORT: u16 = 8080;
const SESSIONS: usize = 20;
/// Number of forged segments and ICMP errors for each session.
const FORGED: usize = 1_000;

const DOOR: &str = r#"
[[door]]
name = "echo"
knock = ["tcp/7000 syn", "udp/4321", "tcp/1234 syn"]
opens = ["tcp/8080"]
for = "2s"
"#;

/// Closed and reset connections expire soon.
const RULES: &str = "/ip firewall connection tracking
set tcp-close-timeout=1s tcp-fin-wait-timeout=1s tcp-close-wait-timeout=1s tcp-last-ack-timeout=1s
/ip firewall filter
add chain=output action=drop
";

#[test]
fn forged_segments_end_no_idle_session_that_outlived_its_door() {
    let options = FilterOptions { sections: DOOR.to_owned(), ..FilterOptions::from_rules(RULES) };
    with(&options, |topology, filter| {
        serve_tcp(topology, PORT);
        knock(topology, "7000:tcp 4321:udp 1234:tcp");
        eventually("the door opens", || listed(filter, "door-echo", CLIENT));
        let mut sessions: Vec<TcpStream> = (0..SESSIONS).map(|_| session(topology, PORT)).collect();
        eventually("the door closes", || !listed(filter, "door-echo", CLIENT));
        assert!(!tcp_echo(topology, PORT), "no new connection is accepted");

        let forger = End::open(&topology.client).expect("the outside's end");
        let mac = mac_of(&topology.server);
        let mut dice = Random(7);
        for session in &sessions {
            let port = session.local_addr().expect("an address").port();
            for _ in 0..FORGED {
                forger.send(&forged(&mut dice, mac, port)).expect("sent");
            }
        }
        // This time is longer than the timeout of a closed connection.
        thread::sleep(Duration::from_secs(3));
        sessions.iter_mut().for_each(goes_on);
    });
}

/// A segment of a session, or an ICMP error about a segment, with the right addresses and ports, and random numbers.
fn forged(dice: &mut Random, mac: [u8; 6], port: u16) -> Vec<u8> {
    let (client, server): (Ipv4Addr, Ipv4Addr) = (CLIENT.parse().expect("IPv4"), SERVER.parse().expect("IPv4"));
    let is_back = dice.percent(50);
    let (from, to) = if is_back { (server, client) } else { (client, server) };
    let ports = if is_back { (PORT, port) } else { (port, PORT) };
    let mut header = TcpHeader::new(ports.0, ports.1, dice.below(1 << 32) as u32, dice.of(&[0, 502, u16::MAX]));
    let kind = dice.of(&["R", "R", "RA", "FA", "A", "S"]);
    (header.rst, header.fin) = (kind.contains('R'), kind.contains('F'));
    (header.syn, header.ack) = (kind.contains('S'), kind.contains('A'));
    header.acknowledgment_number = if header.ack { dice.below(1 << 32) as u32 } else { 0 };
    let ip = |from: Ipv4Addr, to: Ipv4Addr| {
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], mac).ipv4(from.octets(), to.octets(), 64)
    };
    let mut frame = Vec::new();
    ip(from, to).tcp_header(header).write(&mut frame, &[]).expect("a vector takes any frame");
    if dice.percent(50) {
        // The checksum.
        frame[50] ^= 0x55;
    }
    if dice.percent(20) {
        let quoted = frame[14..42].to_vec();
        frame.clear();
        let code = dice.of(&[1, 3, 4]);
        let error = ip(to, from).icmpv4_raw(3, code, [0; 4]);
        error.write(&mut frame, &quoted).expect("a vector takes any frame");
    }
    frame
}
