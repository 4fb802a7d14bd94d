//! No frame passes by a verdict that has ended: the kernel carries a flow at full rate while its reason to pass ends.
//!
//! Each kind of end is repeated ten times, and `make soak-fast-path` repeats it 1,000 times.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::{PacketBuilder, TcpHeader};
use knockplane_tests::{Filter, FilterOptions, Topology, VISITOR};

use crate::end::{End, mac_of};
use crate::fast_path::{PORT, RULES, carried, control, receiver, with_fast_path};
use crate::scenario::{CLIENT, PATIENCE, Stop, eventually, listed, udp_from, udp_to};

/// The time in which late frames would arrive.
const MOMENT: Duration = Duration::from_millis(20);

/// A knock adds its source for an hour.
const KNOCK: &str = "add action=add-src-to-address-list address-list=secured address-list-timeout=1h \
    chain=input dst-port=1234 protocol=udp\n";

/// Capacity of the lists in the test of evictions.
const CAPACITY: usize = 10;

/// Rounds of each kind of end.
fn rounds() -> usize {
    let soak: usize = std::env::var("KNOCKPLANE_SOAK").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    (10 * soak).min(1_000)
}

/// A UDP flow of the client.
struct UdpFlow<'f> {
    filter: &'f Filter<'f>,
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl<'f> UdpFlow<'f> {
    fn open(topology: &Topology, filter: &'f Filter<'_>) -> UdpFlow<'f> {
        let receiver = receiver(topology);
        receiver.set_read_timeout(Some(MOMENT / 4)).expect("a time limit");
        let sender = udp_to(topology, PORT);
        sender.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        UdpFlow { filter, sender, receiver }
    }

    /// Lets the flow pass with `begin` and ends that with `end`, which returns when no packet may pass any more; in each
    /// round. Packets arrive at full rate meanwhile.
    fn ends(&self, what: &str, begin: impl Fn(), end: impl Fn()) {
        for round in 0..rounds() {
            begin();
            let stale = self.stale(round as u8, &end);
            assert_eq!(stale, 0, "{what}, round {round}: packets that were sent after the end have passed");
        }
    }

    /// Sends packets, each with the round and a byte that tells whether `end` had returned before. Returns the number of
    /// those that arrived although it had. A packet of an earlier round may have waited for the worker until the flow
    /// passes again.
    fn stale(&self, round: u8, end: &impl Fn()) -> u64 {
        let (has_ended, is_over, stale) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = self.sender.send(&[round, u8::from(has_ended.load(Ordering::Acquire))]);
                }
            });
            scope.spawn(|| {
                let mut bytes = [0; 16];
                loop {
                    match self.receiver.recv(&mut bytes) {
                        Ok(_) if bytes[0] == round => stale.fetch_add(u64::from(bytes[1]), Ordering::Relaxed),
                        Ok(_) => 0,
                        Err(_) if is_over.load(Ordering::Relaxed) => return,
                        Err(_) => 0,
                    };
                }
            });
            let _over = Stop(&is_over);
            let before = carried(self.filter);
            eventually("the kernel carries the flow", || carried(self.filter) > before);
            end();
            has_ended.store(true, Ordering::Release);
            thread::sleep(MOMENT);
        });
        stale.into_inner()
    }
}

#[test]
fn no_frame_passes_after_the_answer_to_a_change_of_entries_or_rules() {
    with_fast_path(&FilterOptions::from_rules(RULES), |topology, filter| {
        let filter = &*filter;
        let flow = UdpFlow::open(topology, filter);
        let run = |arguments: &[&str]| control(filter, arguments);
        let add = || run(&["list", "add", "secured", CLIENT]);
        let add_for_an_hour = || run(&["list", "add", "secured", CLIENT, "--timeout", "1h"]);
        let remove = || run(&["list", "remove", "secured", CLIENT]);
        let flush = || run(&["list", "flush", "secured"]);
        flow.ends("a dynamic entry is removed", add_for_an_hour, remove);
        flow.ends("a dynamic entry is flushed", add_for_an_hour, flush);
        flow.ends("a static entry is removed", add, remove);
        flow.ends("a static entry is flushed", add, flush);

        let rules = |name: &str, text: &str| {
            let path = filter.path(name);
            std::fs::write(&path, text).expect("a file");
            path.to_str().expect("text").to_owned()
        };
        let others = rules("others.rsc", &RULES.replace("src-address-list=secured", "src-address-list=nobody"));
        let granted = rules("granted.rsc", RULES);
        add();
        flow.ends("rules are applied", || run(&["apply", &granted]), || run(&["apply", &others]));
    });
}

#[test]
fn no_frame_passes_after_an_entry_has_expired() {
    let timeout = Duration::from_secs(2);
    with_fast_path(&FilterOptions::from_rules(RULES), |topology, filter| {
        let filter = &*filter;
        let flow = UdpFlow::open(topology, filter);
        let expiry = std::cell::Cell::new(Instant::now());
        let begin = || {
            control(filter, &["list", "add", "secured", CLIENT, "--timeout", "2s"]);
            expiry.set(Instant::now() + timeout);
        };
        let end = || thread::sleep(expiry.get().saturating_duration_since(Instant::now()));
        flow.ends("an entry expires", begin, end);
    });
}

/// Knocks until the source is listed.
fn enter(knock: &UdpSocket, filter: &Filter<'_>, source: &str) {
    eventually("the source is listed", || {
        // Fails if the server has refused a knock of a source that was listed already.
        let _ = knock.send(b"knock");
        listed(filter, "secured", source)
    });
}

#[test]
fn no_frame_passes_after_an_entry_was_evicted() {
    let rules = RULES.replace("/ip firewall filter\n", &format!("/ip firewall filter\n{KNOCK}"));
    let options = FilterOptions { list_capacity: CAPACITY, ..FilterOptions::from_rules(&rules) };
    with_fast_path(&options, |topology, filter| {
        let filter = &*filter;
        let flow = UdpFlow::open(topology, filter);
        let [knock, knock_of_another] = [CLIENT, VISITOR].map(|source| udp_from(topology, source, 1234));
        // All but one place. Entries of operators precede those of packets.
        for host in 1..CAPACITY {
            control(filter, &["list", "add", "others", &format!("192.0.2.{host}"), "--timeout", "1h"]);
        }
        let begin = || {
            control(filter, &["list", "flush", "secured"]);
            enter(&knock, filter, CLIENT);
        };
        let end = || {
            enter(&knock_of_another, filter, VISITOR);
            assert!(!listed(filter, "secured", CLIENT), "it is evicted");
        };
        flow.ends("an entry is evicted", begin, end);
    });
}

#[test]
fn no_frame_passes_after_a_door_was_closed_or_removed() {
    let door = "[[door]]\nname = \"play\"\nknock = [\"udp/1111\", \"udp/2222\"]\nopens = [\"udp/5000\"]\nfor = \"1h\"\n\
        cut = true\n";
    let options = FilterOptions { sections: door.to_owned(), ..FilterOptions::from_rules("") };
    with_fast_path(&options, |topology, filter| {
        let filter = &*filter;
        let flow = UdpFlow::open(topology, filter);
        let steps = [1111, 2222].map(|port| udp_to(topology, port));
        let begin = || {
            eventually("the door opens", || {
                // Packets of the last round can fill the ring.
                steps.iter().for_each(|step| _ = step.send(b"knock").expect("the packet is sent"));
                listed(filter, "door-play", CLIENT)
            });
            // The kernel carries connections with packets in both directions.
            eventually("the server receives", || {
                flow.sender.send(&[0; 2]).expect("the packet is sent");
                flow.receiver.recv(&mut [0; 2]).is_ok()
            });
            flow.receiver.send_to(&[0; 2], flow.sender.local_addr().expect("an address")).expect("the answer is sent");
            flow.sender.recv(&mut [0]).expect("the answer arrives");
        };
        flow.ends("a door is closed", begin, || control(filter, &["list", "flush", "door-play"]));

        let file = filter.path("knockplane.toml");
        let with_door = std::fs::read_to_string(&file).expect("the configuration");
        let reload = |text: &str| {
            std::fs::write(&file, text).expect("written");
            control(filter, &["reload"]);
        };
        let begin = || {
            reload(&with_door);
            begin();
        };
        flow.ends("a door is removed", begin, || reload(&with_door.replace(door, "")));
    });
}

/// The addresses of a connection: nobody has them, so that no host answers its segments.
const ENDS: [[u8; 4]; 2] = [[10, 77, 0, 201], [10, 77, 0, 202]];

/// A TCP connection by raw frames, without hosts that take part.
struct RawConnection<'e> {
    /// The interfaces and hardware addresses of the client and of the server.
    ends: &'e [(End, [u8; 6]); 2],
    /// The port of the client.
    port: u16,
}

impl RawConnection<'_> {
    /// Sends a segment, from the client or from the server if `back`. `header` has neither ports nor a window yet.
    fn send(&self, back: bool, header: TcpHeader, payload: &[u8]) {
        let (from, to) = (usize::from(back), usize::from(!back));
        let mut ports = [self.port, PORT];
        ports.rotate_left(from);
        let header = TcpHeader { source_port: ports[0], destination_port: ports[1], window_size: u16::MAX, ..header };
        let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], self.ends[to].1).ipv4(ENDS[from], ENDS[to], 64);
        let mut frame = Vec::new();
        packet.tcp_header(header).write(&mut frame, payload).expect("a vector takes any frame");
        self.ends[from].0.send(&frame).expect("sent");
    }

    /// Opens the connection. The client's next byte has number 1.
    fn open(&self, filter: &Filter<'_>) {
        let header = TcpHeader::default();
        // The two sides have different rings: each segment is decided before the next one is sent.
        let is_in = |state| eventually(state, || self.state(filter).as_deref() == Some(state));
        self.send(false, TcpHeader { syn: true, ..header.clone() }, &[]);
        is_in("syn-sent");
        self.send(true, TcpHeader { syn: true, ack: true, acknowledgment_number: 1, ..header.clone() }, &[]);
        is_in("syn-received");
        self.send(false, TcpHeader { ack: true, sequence_number: 1, acknowledgment_number: 1, ..header }, &[]);
    }

    /// Sends the client's first byte.
    fn send_byte(&self) {
        let header =
            TcpHeader { ack: true, psh: true, sequence_number: 1, acknowledgment_number: 1, ..TcpHeader::default() };
        self.send(false, header, b"1");
    }

    /// Resets the connection, after the first byte.
    fn reset(&self) {
        self.send(false, TcpHeader { rst: true, sequence_number: 2, ..TcpHeader::default() }, &[]);
    }

    /// The state that the filter shows, if it knows the connection.
    fn state(&self, filter: &Filter<'_>) -> Option<String> {
        let connections = filter.ask(&["show", "connections"]).expect("connections are shown");
        let mut shown = connections["connections"].as_array().expect("connections").iter();
        let connection = shown.find(|connection| connection["source_port"] == self.port)?;
        Some(connection["tcp_state"].as_str().expect("a state").to_owned())
    }
}

#[test]
fn no_segment_is_carried_after_a_reset() {
    let rules = "/ip firewall filter\n\
        add action=accept chain=input connection-state=established,new dst-port=5000 protocol=tcp\n\
        add action=drop chain=input\n";
    with_fast_path(&FilterOptions::from_rules(rules), |topology, filter| {
        let filter = &*filter;
        let ends = [&topology.client, &topology.server].map(|host| (End::open(host).expect("an end"), mac_of(host)));
        for round in 0..rounds() {
            let connection = RawConnection { ends: &ends, port: 10_000 + round as u16 };
            let before = carried(filter);
            connection.open(filter);
            let (is_over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        connection.send_byte();
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                });
                let _over = Stop(&is_over);
                eventually("the kernel carries segments", || carried(filter) > before);
                eventually("the filter has seen the reset", || {
                    connection.reset();
                    connection.state(filter).as_deref() == Some("close")
                });
                let (carried_before, sent_before) = (carried(filter), sent.load(Ordering::Relaxed));
                eventually("further segments are sent", || sent.load(Ordering::Relaxed) > sent_before + 1_000);
                assert_eq!(carried(filter), carried_before, "round {round}: segments were carried after the reset");
            });
        }
    });
}
