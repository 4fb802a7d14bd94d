//! The kernel's fast path on real interfaces: it carries flows and counts them, and workers do if it cannot.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use knockplane_tests::{Filter, FilterOptions, SERVER, Topology};

use crate::scenario::{CLIENT, PATIENCE, eventually, knock, udp_to, with};

/// Sources in the list may pass, and so may the answers.
pub(crate) const RULES: &str = "/ip firewall filter
add action=accept chain=input src-address-list=secured comment=granted
add action=drop chain=input comment=others
";

pub(crate) const PORT: u16 = 5000;

/// Runs a test in a topology in which the kernel can carry flows in both directions.
pub(crate) fn with_fast_path(options: &FilterOptions, test: impl FnOnce(&Topology, &mut Filter<'_>)) {
    with(options, |topology, filter| {
        topology.allow_redirects().expect("GRO can be turned on");
        eventually("both sides can send", || fast_path(filter)["reason"].is_null());
        test(topology, filter);
    });
}

pub(crate) fn fast_path(filter: &Filter<'_>) -> serde_json::Value {
    filter.ask(&["show", "status"]).expect("the status")["fast_path"].clone()
}

pub(crate) fn carried(filter: &Filter<'_>) -> u64 {
    let fast_path = fast_path(filter);
    ["outside", "inside"].map(|side| fast_path["carried"][side].as_u64().expect("a count")).iter().sum()
}

/// Packets that the rule with this comment has matched.
pub(crate) fn matched(filter: &Filter<'_>, comment: &str) -> u64 {
    let rules = filter.ask(&["show", "rules"]).expect("the rules");
    let rule = rules["rules"].as_array().expect("rules").iter().find(|rule| rule["comment"] == comment);
    rule.unwrap_or_else(|| panic!("{rules}"))["counter"]["packets"].as_u64().expect("a count")
}

pub(crate) fn control(filter: &Filter<'_>, arguments: &[&str]) {
    let output = filter.knockctl(arguments).expect("knockctl runs");
    assert!(output.ok(), "knockctl {arguments:?}: {output:?}");
}

/// A socket of the server, for packets of the client.
pub(crate) fn receiver(topology: &Topology) -> UdpSocket {
    let socket = topology.server.within(|| Ok(UdpSocket::bind((SERVER, PORT))?)).expect("the port is free");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
    socket
}

/// Packets that arrive until none arrives for a tenth of a second.
pub(crate) fn received(receiver: &UdpSocket) -> u64 {
    let mut bytes = [0; 16];
    std::iter::from_fn(|| receiver.recv(&mut bytes).ok()).count() as u64
}

/// Sends packets in groups, so that no queue on the way overflows. Returns the number of those that arrived.
pub(crate) fn send(sender: &UdpSocket, receiver: &UdpSocket, groups: usize) -> u64 {
    (0..groups)
        .map(|_| {
            for _ in 0..100 {
                sender.send(b"0123456789").expect("the packet is sent");
            }
            received(receiver)
        })
        .sum()
}

#[test]
fn a_flow_is_carried_by_the_kernel_and_counts_as_before() {
    with_fast_path(&FilterOptions::from_rules(RULES), |topology, filter| {
        let (sender, receiver) = (udp_to(topology, PORT), receiver(topology));
        assert_eq!(send(&sender, &receiver, 1), 0, "a stranger");
        control(filter, &["list", "add", "secured", CLIENT]);
        assert_eq!(send(&sender, &receiver, 5), 500);
        let carried = carried(filter);
        assert!((400..500).contains(&carried), "{carried} of 500 packets were carried");
        assert_eq!((matched(filter, "granted"), matched(filter, "others")), (500, 100));
        let packets = |labels: &[&str]| filter.metric("knockplane_packets_total", labels).expect("series") as u64;
        assert_eq!(packets(&["worker=\"kernel\"", "verdict=\"forward\"", "reason=\"rule\""]), carried);
        assert_eq!(packets(&["verdict=\"forward\"", "reason=\"rule\""]), 500, "of all workers and the kernel");
        let workers = filter.ask(&["show", "workers"]).expect("the workers");
        assert_eq!(workers["fast_path"]["carried"]["outside"].as_u64(), Some(carried));
        let arrived = filter.metric("knockplane_xdp_frames_total", &["outside"]).expect("series") as u64;
        let received = filter.metric("knockplane_rx_packets_total", &["outside"]).expect("series") as u64;
        assert_eq!(arrived, received, "each frame is in one place");
        // It is explained, and so are frames that the kernel does not carry.
        let port = sender.local_addr().expect("an address").port();
        let kernel = |packet: &str| {
            let explained = filter.ask(&["explain", packet]).expect("the packet is explained");
            explained["kernel"]["verdict"].as_str().expect("a verdict").to_owned()
        };
        assert_eq!(kernel(&format!("udp {CLIENT}:{port} > {SERVER}:{PORT}")), "carries");
        assert_eq!(kernel(&format!("udp {CLIENT}:{port} > {SERVER}:9")), "passes", "the source is known");
        assert_eq!(kernel(&format!("udp 198.51.100.9:{port} > {SERVER}:{PORT}")), "drops", "a stranger");
        // Answers of the server are another flow, which the default of the chain accepts.
        let answers = received_answers(&receiver, &sender);
        assert_eq!(answers, 50);
    });
}

/// Packets from the server to the client.
fn received_answers(server: &UdpSocket, client: &UdpSocket) -> u64 {
    let to = client.local_addr().expect("an address");
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
    for _ in 0..50 {
        server.send_to(b"answer", to).expect("the packet is sent");
    }
    received(client)
}

#[test]
fn an_entry_ends_at_its_time() {
    let rules = RULES.replace(
        "/ip firewall filter\n",
        "/ip firewall filter\nadd action=add-src-to-address-list \
        address-list=secured address-list-timeout=1s chain=input dst-port=1234 protocol=udp\n",
    );
    with_fast_path(&FilterOptions::from_rules(&rules), |topology, filter| {
        let (knock, sender, receiver) = (udp_to(topology, 1234), udp_to(topology, PORT), receiver(topology));
        knock.send(b"knock").expect("the packet is sent");
        assert_eq!(send(&sender, &receiver, 3), 300);
        assert!(carried(filter) >= 200);
        thread::sleep(Duration::from_millis(1_100));
        assert_eq!(send(&sender, &receiver, 1), 0, "the entry has expired");
    });
}

#[test]
fn a_far_end_that_cannot_take_redirected_frames_is_served_by_the_worker() {
    with_fast_path(&FilterOptions::from_rules(RULES), |topology, filter| {
        let (sender, receiver) = (udp_to(topology, PORT), receiver(topology));
        control(filter, &["list", "add", "secured", CLIENT]);
        assert_eq!(send(&sender, &receiver, 3), 300);
        let before = carried(filter);
        assert!(before >= 200);
        assert!(topology.server.run("ethtool -K eth0 gro off").expect("ethtool runs").ok());
        // The first frames that the interface refuses are lost, and counted. All others come up.
        let arrived = send(&sender, &receiver, 3);
        let fast_path = fast_path(filter);
        let lost = fast_path["lost"]["inside"].as_u64().expect("a count");
        assert_eq!(arrived + lost, 300, "{fast_path}");
        assert!(lost <= 64, "the kernel forbids further frames at the first loss: {lost}");
        eventually("the reason is shown", || !self::fast_path(filter)["reason"].is_null());
        assert_eq!(send(&sender, &receiver, 1), 100);
        topology.allow_redirects().expect("GRO can be turned on");
        eventually("the kernel carries again", || self::fast_path(filter)["reason"].is_null());
        let before = carried(filter);
        assert_eq!(send(&sender, &receiver, 2), 200);
        assert!(carried(filter) >= before + 100);
    });
}

#[test]
fn the_kernel_tries_again_after_a_refusal_that_no_check_explains() {
    with_fast_path(&FilterOptions::from_rules(RULES), |topology, filter| {
        let (sender, receiver) = (udp_to(topology, PORT), receiver(topology));
        control(filter, &["list", "add", "secured", CLIENT]);
        assert_eq!(send(&sender, &receiver, 3), 300);
        // The far end cannot take frames for less time than the filter takes to check it.
        assert!(topology.server.run("ethtool -K eth0 gro off").expect("ethtool runs").ok());
        for _ in 0..100 {
            sender.send(b"0123456789").expect("the packet is sent");
        }
        topology.allow_redirects().expect("GRO can be turned on");
        let arrived = received(&receiver);
        let lost = fast_path(filter)["lost"]["inside"].as_u64().expect("a count");
        assert_eq!(arrived + lost, 100, "each frame arrives or is counted");
        assert!(lost <= 64, "the kernel forbids further frames at the first refusal: {lost}");
        eventually("the kernel carries again", || {
            let before = carried(filter);
            assert_eq!(send(&sender, &receiver, 1), 100);
            carried(filter) == before + 100
        });
    });
}

#[test]
fn it_is_off_if_the_configuration_says_so() {
    let options = FilterOptions { dataplane: "fast-path = \"off\"\n".to_owned(), ..FilterOptions::from_rules(RULES) };
    with(&options, |topology, filter| {
        topology.allow_redirects().expect("GRO can be turned on");
        let (sender, receiver) = (udp_to(topology, PORT), receiver(topology));
        control(filter, &["list", "add", "secured", CLIENT]);
        assert_eq!(send(&sender, &receiver, 2), 200);
        let fast_path = fast_path(filter);
        assert_eq!((carried(filter), &fast_path["on"]), (0, &serde_json::Value::Bool(false)));
        assert!(fast_path["reason"].as_str().expect("a reason").contains("fast-path"), "{fast_path}");
    });
}

/// Bytes of a transfer: some ten thousand segments.
const TRANSFER: usize = 20 << 20;

/// A server that counts the bytes of a connection until its end, answers with the number, and closes.
fn serve_count(topology: &Topology) {
    let listener = topology.server.within(|| Ok(TcpListener::bind((SERVER, PORT))?)).expect("the port is free");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = vec![0; 1 << 16];
            let mut count = 0;
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                count += read as u64;
            }
            let _ = stream.write_all(&count.to_be_bytes());
        }
    });
}

/// Sends `TRANSFER` bytes over a new connection and closes it. Returns the number that the server has counted.
fn transfer(topology: &Topology) -> u64 {
    let counted = topology.client.within(|| {
        let mut stream = TcpStream::connect((SERVER, PORT))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&vec![0x2e; TRANSFER])?;
        stream.shutdown(Shutdown::Write)?;
        let mut count = [0; 8];
        stream.read_exact(&mut count)?;
        Ok(u64::from_be_bytes(count))
    });
    counted.expect("the transfer ends")
}

#[test]
fn a_connection_through_a_door_is_carried_from_its_handshake_to_its_end() {
    let door =
        "[[door]]\nname = \"upload\"\nknock = [\"tcp/1111\", \"tcp/2222\"]\nopens = [\"tcp/5000\"]\nfor = \"1m\"\n";
    let options = FilterOptions { sections: door.to_owned(), ..FilterOptions::from_rules("") };
    with_fast_path(&options, |topology, filter| {
        serve_count(topology);
        knock(topology, "1111:tcp 2222:tcp");
        for round in 0..3 {
            let before = carried(filter);
            assert_eq!(transfer(topology), TRANSFER as u64, "round {round}");
            let fast_path = fast_path(filter);
            assert!(carried(filter) > before + 1_000, "round {round}: {fast_path}");
        }
        let connections = filter.ask(&["show", "connections"]).expect("connections");
        let shown = connections["connections"].as_array().expect("connections");
        assert!(shown.len() >= 3, "{connections}");
        for connection in shown {
            let bytes = connection["bytes"].as_u64().expect("bytes");
            assert!(bytes > TRANSFER as u64, "bytes that the kernel carried count: {connection}");
            // A host that is slow to acknowledge a FIN receives it twice. The server answers the second acknowledgement with a
            // reset, because it has closed the connection.
            let state = connection["tcp_state"].as_str().expect("a state");
            assert!(["time-wait", "close"].contains(&state), "the worker has seen both FINs: {connection}");
        }
    });
}
