//! Traffic through an open door, and traffic that always passes; the balance of frames.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use knockplane_tests::{CLIENT, CLIENT6, FilterOptions, Process, SERVER, SERVER6};

use crate::scenario::{PATIENCE, QUICK, eventually, knock, ping, serve_tcp, tcp_echo, udp_to, with, with_queues};

/// Rules that accept all packets from outside, so that only the wire is tested.
const OPEN: &str = "/ip firewall filter\nadd chain=input\n/ipv6 firewall filter\nadd chain=input\n";

#[test]
fn arp_passes_a_closed_door() {
    with(&FilterOptions::from_rules(QUICK), |topology, _| {
        assert!(!ping(topology, ""), "the door is closed");
        let neighbour = topology.client.ip(&format!("neigh show {SERVER}")).expect("neighbours");
        assert!(neighbour.contains("lladdr"), "the server's link address is known: {neighbour}");
    });
}

#[test]
fn ipv6_neighbour_discovery_passes_a_closed_door_and_nothing_else_does() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        topology.add_ipv6().expect("IPv6");
        let ping6 = || topology.client.run(&format!("ping -6 -n -c 2 -i 0.2 -W 1 {SERVER6}")).expect("ping").ok();
        assert!(!ping6(), "rules for IPv4 leave IPv6 closed");
        let neighbour = topology.client.ip(&format!("-6 neigh show {SERVER6}")).expect("neighbours");
        assert!(neighbour.contains("lladdr"), "the server's link address is known: {neighbour}");
        filter.knockctl(&["list", "add", "secured", CLIENT6]).expect("knockctl");
        assert!(!ping6(), "a list without an IPv6 rule lets nobody in");
    });
}

#[test]
fn ipv6_rules_open_for_ipv6() {
    let rules = QUICK.replace("/ip ", "/ipv6 ");
    with(&FilterOptions::from_rules(&rules), |topology, _| {
        topology.add_ipv6().expect("IPv6");
        let ping6 = || topology.client.run(&format!("ping -6 -n -c 2 -i 0.2 -W 1 {SERVER6}")).expect("ping").ok();
        assert!(!ping6());
        let knocked = topology.client.run(&format!("knock -6 {SERVER6} 1234:tcp 4321:tcp")).expect("knock");
        assert!(knocked.ok() && ping6());
    });
}

#[test]
fn icmp_tcp_and_udp_pass_an_open_door_both_ways() {
    let options = FilterOptions::from_configs("two-ports.rsc").expect("configs/two-ports.rsc");
    with(&options, |topology, _| {
        serve_tcp(topology, 8080);
        knock(topology, "1234:tcp 4321:tcp");
        assert!(ping(topology, "") && ping(topology, "-s 1472 -M do"), "small and full-sized pings");
        assert!(tcp_echo(topology, 8080));

        let server = topology.server.within(|| Ok(UdpSocket::bind((SERVER, 9000))?)).expect("a socket");
        server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let client = udp_to(topology, 9000);
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.send(b"there").expect("sent");
        let mut buffer = [0; 16];
        let (count, from) = server.recv_from(&mut buffer).expect("arrived");
        assert_eq!(&buffer[..count], b"there");
        server.send_to(b"and back", from).expect("sent");
        assert_eq!(client.recv(&mut buffer).map(|count| buffer[..count].to_vec()).expect("arrived"), b"and back");

        // Pings from inside. The packets pass through chain output, and the answers need the open door.
        let outbound = topology.server.run(&format!("ping -n -c 2 -i 0.2 -W 1 {CLIENT}")).expect("ping");
        assert!(outbound.ok(), "{outbound:?}");
    });
}

#[test]
fn a_large_transfer_arrives_without_a_wrong_byte_in_both_directions() {
    const BYTES: usize = 64 << 20;
    with(&FilterOptions::from_rules(OPEN), |topology, _| {
        let listener = topology.server.within(|| Ok(TcpListener::bind((SERVER, 9001))?)).expect("the port is free");
        // The server returns all data.
        let echo = thread::spawn(move || -> std::io::Result<u64> {
            let (mut from, _) = listener.accept()?;
            let mut to = from.try_clone()?;
            std::io::copy(&mut from, &mut to)
        });
        let stream = topology.client.within(|| Ok(TcpStream::connect((SERVER, 9001))?)).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut sending = stream.try_clone().expect("a second handle");
        let sender = thread::spawn(move || -> std::io::Result<()> {
            for block in (0..BYTES).step_by(1 << 16) {
                let bytes: Vec<u8> = (block..block + (1 << 16)).map(pattern).collect();
                sending.write_all(&bytes)?;
            }
            sending.shutdown(std::net::Shutdown::Write)
        });
        let mut receiving = std::io::BufReader::with_capacity(1 << 16, stream);
        let mut byte = [0; 1 << 12];
        for block in (0..BYTES).step_by(byte.len()) {
            receiving.read_exact(&mut byte).expect("all bytes come back");
            let wrong = byte.iter().enumerate().find(|(index, byte)| **byte != pattern(block + index));
            assert!(wrong.is_none(), "byte {wrong:?} after {block}");
        }
        sender.join().expect("the sender lives").expect("sent");
        assert_eq!(echo.join().expect("the echo lives").expect("echoed"), BYTES as u64);
    });
}

/// A byte that depends on its position in the stream.
fn pattern(offset: usize) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

#[test]
fn iperf3_runs_through_two_queues() {
    with_queues(2, &FilterOptions::from_rules(OPEN), |topology, _| {
        let mut command = topology.server.command("iperf3");
        command.args(["--server", "--bind", SERVER]);
        let log = std::env::temp_dir().join(format!("{}-iperf3.log", topology.server.name()));
        let mut server = Process::start("iperf3", &mut command, &log).expect("iperf3 starts");
        eventually("iperf3 listens and runs", || {
            let line = format!("iperf3 --json --client {SERVER} --time 2 --parallel 4 --bidir");
            let output = topology.client.run(&line).expect("iperf3 can be run");
            let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_default();
            let bytes = |direction: &str| report["end"][direction]["bytes"].as_f64().unwrap_or_default();
            bytes("sum_received") > 1e6 && bytes("sum_received_bidir_reverse") > 1e6
        });
        server.kill().expect("ended");
        let _ = std::fs::remove_file(log);
    });
}

#[test]
fn every_frame_is_accounted_for_and_none_leaks_after_a_million() {
    const FRAMES: u64 = 1_000_000;
    with(&FilterOptions::from_configs("two-ports.rsc").expect("configs/two-ports.rsc"), |topology, filter| {
        // Half of the frames arrive at a closed door, half at an open one. No host answers.
        topology.server.ip("route add blackhole 10.77.0.1/32").expect("a route");
        let socket = udp_to(topology, 9);
        let received = || filter.metric("knockplane_rx_packets_total", &[]).expect("a counter");
        let flood = |frames: u64| {
            let enough = received() + frames as f64;
            while received() < enough {
                for _ in 0..frames / 10 {
                    // A full buffer is not an error of the filter; the interface's counter has the number of sent
                    // frames.
                    let _ = socket.send(b"a frame");
                }
            }
        };
        flood(FRAMES / 2);
        assert!(filter.knockctl(&["list", "add", "secured", CLIENT]).expect("knockctl").ok());
        flood(FRAMES / 2);
        topology.server.ip("route del blackhole 10.77.0.1/32").expect("a route");

        let count = |name: &str, labels: &[&str]| filter.metric(name, labels).expect("a series");
        eventually("nothing is in flight", || count("knockplane_frames_in_flight", &[]) == 0.0);
        // Housekeeping reads the kernel's counters ten times a second.
        thread::sleep(Duration::from_millis(300));
        let received = received();
        let forwarded = count("knockplane_packets_total", &["verdict=\"forward\""]);
        let dropped = count("knockplane_packets_total", &["verdict=\"drop\""]);
        assert_eq!(received, forwarded + dropped, "received = forwarded + dropped");
        let sent = count("knockplane_tx_packets_total", &[]);
        assert_eq!(sent, forwarded, "every forwarded frame was sent");
        assert_eq!(count("knockplane_frames_lost", &[]), 0.0, "no frame of the pool is missing");

        // And by the interfaces' own counters: every frame that left the client was received or is a named loss.
        let (from_client, _) = topology.client.traffic("eth0").expect("counters");
        let (from_server, to_server) = topology.server.traffic("eth0").expect("counters");
        let losses = count("knockplane_ring_drops_total", &[]);
        assert!(received >= FRAMES as f64 && forwarded > FRAMES as f64 / 3.0 && dropped > FRAMES as f64 / 3.0);
        let missing = (from_client + from_server) as f64 - received;
        assert!(missing >= 0.0 && missing <= losses, "{missing} frames missing, {losses} counted as lost");
        let outward = count("knockplane_tx_packets_total", &["side=\"inside\""]);
        assert_eq!(to_server as f64, outward, "what was sent inside arrived there");

        assert!(ping(topology, ""), "and the wire still works");
    });
}

/// Tests the statements of docs/capture.md about the places at which a capture contains the filter's frames.
#[test]
fn a_capture_sees_the_frames_beside_the_filter_and_not_on_its_interfaces() {
    with(&FilterOptions::from_rules(OPEN), |topology, filter| {
        let places = [
            ("outside", &topology.filter, "outside"),
            ("inside", &topology.filter, "inside"),
            ("client", &topology.client, "eth0"),
            ("server", &topology.server, "eth0"),
        ];
        let log = |name: &str| filter.path(&format!("tcpdump-{name}.log"));
        let seen = |name: &str| fs::read_to_string(log(name)).unwrap_or_default();
        let captures = places.map(|(name, namespace, interface)| {
            let mut command = namespace.command("tcpdump");
            command.args(["-n", "-l", "--immediate-mode", "-i", interface, "icmp"]);
            Process::start("tcpdump", &mut command, &log(name)).expect("tcpdump is installed")
        });
        eventually("all listen", || places.iter().all(|(name, ..)| seen(name).contains("listening on")));
        assert!(ping(topology, ""));
        for name in ["client", "server"] {
            let both = || seen(name).contains("echo request") && seen(name).contains("echo reply");
            eventually("the far ends see both directions", both);
        }
        for name in ["outside", "inside"] {
            assert!(!seen(name).contains("echo"), "{name}: {}", seen(name));
        }
        drop(captures);
    });
}
