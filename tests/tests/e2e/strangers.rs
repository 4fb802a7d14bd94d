//! Drops of strangers in the kernel, on real interfaces: what is counted, and whom they must not hit.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use etherparse::PacketBuilder;
use knockplane_tests::{Filter, FilterOptions, SERVER, Topology};

use crate::end::{End, mac_of};
use crate::scenario::{CLIENT, QUICK, eventually, knock, listed, ping, with};

const PORT: u16 = 5000;

/// A port where no rule accepts anybody.
pub(crate) const CLOSED: u16 = 4444;

/// A forged source that no other test uses.
pub(crate) const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// Frames to the server, with forged sources.
pub(crate) struct Forger {
    end: End,
    mac: [u8; 6],
}

impl Forger {
    pub(crate) fn new(topology: &Topology) -> Forger {
        Forger { end: End::open(&topology.client).expect("the outside's end"), mac: mac_of(&topology.server) }
    }

    fn ip(&self, source: Ipv4Addr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let server: Ipv4Addr = SERVER.parse().expect("IPv4");
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], self.mac).ipv4(source.octets(), server.octets(), 64)
    }

    pub(crate) fn udp(&self, source: Ipv4Addr, port: u16) {
        let mut frame = Vec::new();
        self.ip(source).udp(40_000, port).write(&mut frame, b"0123456789").expect("a frame");
        self.end.send(&frame).expect("sent");
    }

    fn syn(&self, source: Ipv4Addr, port: u16) {
        let mut frame = Vec::new();
        self.ip(source).tcp(40_000, port, 1, 1024).syn().write(&mut frame, b"").expect("a frame");
        self.end.send(&frame).expect("sent");
    }
}

/// One of 1,024 sources that knock nowhere.
fn crowd(number: u64) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + (number % 1024) as u32)
}

pub(crate) fn dropped(filter: &Filter<'_>) -> u64 {
    let status = filter.ask(&["show", "status"]).expect("the status");
    status["fast_path"]["dropped"].as_u64().expect("a count")
}

/// Packets that the last rule has matched.
fn matched_last(filter: &Filter<'_>) -> u64 {
    let rules = filter.ask(&["show", "rules"]).expect("the rules");
    let last = rules["rules"].as_array().expect("rules").last().expect("a rule").clone();
    last["counter"]["packets"].as_u64().expect("a count")
}

/// Runs a test while strangers send to a closed port. Returns the number of their frames.
pub(crate) fn amid_strangers(topology: &Topology, test: impl FnOnce()) -> u64 {
    let (ends, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let forger = Forger::new(topology);
            while !ends.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    forger.syn(crowd(sent.fetch_add(1, Ordering::Relaxed)), CLOSED);
                }
                // So that no queue on the way overflows.
                thread::sleep(Duration::from_micros(300));
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        ends.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    sent.load(Ordering::Relaxed)
}

fn receiver(topology: &Topology) -> UdpSocket {
    let socket = topology.server.within(|| Ok(UdpSocket::bind((SERVER, PORT))?)).expect("the port is free");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
    socket
}

/// Packets that arrive until none arrives for a while.
fn received(receiver: &UdpSocket) -> usize {
    let mut bytes = [0; 16];
    std::iter::from_fn(|| receiver.recv(&mut bytes).ok()).count()
}

fn control(filter: &Filter<'_>, arguments: &[&str]) {
    let output = filter.knockctl(arguments).expect("knockctl runs");
    assert!(output.ok(), "knockctl {arguments:?}: {output:?}");
}

#[test]
fn the_kernel_drops_strangers_and_every_frame_counts_for_its_rule() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let sent = amid_strangers(topology, || {
            eventually("the kernel drops", || dropped(filter) > 10_000);
            // A client gets in meanwhile.
            knock(topology, "1234:tcp");
            eventually("the first step counts", || listed(filter, "temporary", CLIENT));
            knock(topology, "4321:tcp");
            eventually("the second step counts", || listed(filter, "secured", CLIENT));
            assert!(ping(topology, ""), "the client is let in");
        });
        // Besides, neighbour discovery and the like.
        eventually("each frame counts for the last rule", || matched_last(filter) >= sent);
        let metric = |name: &str, labels: &[&str]| filter.metric(name, labels).expect("series") as u64;
        let by_kernel = metric("knockplane_packets_total", &["worker=\"kernel\"", "verdict=\"drop\""]);
        assert_eq!(by_kernel, dropped(filter));
        assert_eq!(
            metric("knockplane_packets_total", &["verdict=\"drop\"", "reason=\"rule\""]),
            sent + 2,
            "with the knocks"
        );
        assert_eq!(
            metric("knockplane_rx_packets_total", &["outside"]),
            metric("knockplane_xdp_frames_total", &["outside"])
        );
        let bytes = metric("knockplane_rx_bytes_total", &["worker=\"kernel\"", "outside"]);
        assert!(by_kernel > sent / 2 && bytes >= by_kernel * 54, "{by_kernel} of {sent} frames, {bytes} bytes");
    });
}

#[test]
fn a_listed_source_is_no_stranger_from_the_answer_on() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let (forger, receiver) = (Forger::new(topology), receiver(topology));
        amid_strangers(topology, || {
            for round in 0..10 {
                let before = dropped(filter);
                (0..2_000).for_each(|_| forger.udp(SOURCE, PORT));
                eventually("the kernel drops", || dropped(filter) > before + 500);
                assert_eq!(received(&receiver), 0, "round {round}");
                // A dynamic entry, and a static one of its network.
                let entry: &[&str] = if round % 2 == 0 { &["192.0.2.77"] } else { &["192.0.2.64/26"] };
                control(filter, &[&["list", "add", "secured"], entry].concat());
                (0..50).for_each(|_| forger.udp(SOURCE, PORT));
                assert_eq!(received(&receiver), 50, "round {round}: every frame after the answer");
                control(filter, &[&["list", "remove", "secured"], entry].concat());
            }
        });
    });
}

#[test]
fn a_frame_right_behind_a_knock_is_no_strangers() {
    const RULES: &str = "/ip firewall filter
add chain=input protocol=udp dst-port=7000 action=add-src-to-address-list address-list=temporary address-list-timeout=2s
add chain=input protocol=udp dst-port=7001 src-address-list=temporary action=add-src-to-address-list address-list=secured address-list-timeout=2s
add chain=input src-address-list=secured action=accept
add chain=input action=drop
";
    with(&FilterOptions::from_rules(RULES), |topology, filter| {
        let (forger, receiver) = (Forger::new(topology), receiver(topology));
        amid_strangers(topology, || {
            eventually("the kernel drops", || dropped(filter) > 10_000);
            for round in 0..20 {
                for client in 0..50 {
                    let source = Ipv4Addr::new(198, 51, 100 + round, client);
                    [7000, 7001, PORT].into_iter().for_each(|port| forger.udp(source, port));
                }
                // The packets to the knock's port are dropped.
                assert_eq!(received(&receiver), 50, "round {round}");
            }
        });
    });
}

#[test]
fn a_scan_in_the_order_of_ports_opens_no_door() {
    const DOOR: &str = r#"
[[door]]
name = "adjacent"
knock = ["tcp/7000", "tcp/7001", "tcp/7002"]
strict = false
opens = ["udp/5000"]
"#;
    let options = FilterOptions {
        sections: DOOR.to_owned(),
        ..FilterOptions::from_rules("/ip firewall filter\nadd chain=input action=drop\n")
    };
    with(&options, |topology, filter| {
        let forger = Forger::new(topology);
        amid_strangers(topology, || {
            eventually("the kernel drops", || dropped(filter) > 10_000);
            (6_000..8_000).for_each(|port| forger.syn(SOURCE, port));
            let about = || filter.ask(&["explain-source", "192.0.2.77"]).expect("the source is explained");
            eventually("the source is ignored", || about()["ports"][0]["ignored"] == true);
            assert!(!listed(filter, "door-adjacent", "192.0.2.77"), "{}", about());
        });
    });
}

#[test]
fn a_watched_source_is_seen_by_a_worker() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let filter: &Filter<'_> = filter;
        let forger = Forger::new(topology);
        amid_strangers(topology, || {
            eventually("the kernel drops", || dropped(filter) > 10_000);
            thread::scope(|scope| {
                let watch = || filter.knockctl(&["--json", "explain-source", "192.0.2.77", "--watch", "4s"]);
                let watched = scope.spawn(watch);
                let about = || filter.ask(&["explain-source", "192.0.2.77"]).expect("the source is explained");
                eventually("the watch begins", || !about()["drops"]["watch"].is_null());
                (0..300).for_each(|_| forger.udp(SOURCE, PORT));
                let output = watched.join().expect("no panic").expect("knockctl");
                let source: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
                let drops = &source["drops"];
                assert_eq!(drops["watch"]["drops"][0]["packets"], 300, "{drops}");
                // Of other sources, the records are not complete.
                let complete_for = drops["complete_for_seconds"].as_f64();
                assert!(complete_for.is_some_and(|seconds| seconds < 2.0), "{drops}");
            });
        });
    });
}
