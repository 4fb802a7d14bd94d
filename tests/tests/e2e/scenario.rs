//! Shared set-up and queries of the tests, from outside the filter.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use knockplane_tests::CLIENT;
use knockplane_tests::{Filter, FilterOptions, Output, SERVER, Topology};

/// Rules like `configs/two-ports.rsc`, with timeouts that are short enough for a test.
pub(crate) const QUICK: &str = "/ip firewall filter
add action=add-src-to-address-list address-list=temporary address-list-timeout=1s chain=input dst-port=1234 protocol=tcp
add action=add-src-to-address-list address-list=secured address-list-timeout=3s chain=input dst-port=4321 protocol=tcp src-address-list=temporary
add action=accept chain=input src-address-list=secured
add action=drop chain=input
";

/// Longest wait for an expected event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a test in a new topology with one queue.
pub(crate) fn with(options: &FilterOptions, test: impl FnOnce(&Topology, &mut Filter<'_>)) {
    with_queues(1, options, test);
}

/// Runs a test in a new topology. If the test fails, the logs of the processes are printed.
pub(crate) fn with_queues(queues: u32, options: &FilterOptions, test: impl FnOnce(&Topology, &mut Filter<'_>)) {
    let topology = Topology::new(queues).expect("the scene can be made (as root, with iproute2 and ethtool)");
    let mut filter = Filter::start(&topology, options).expect("the filter starts");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&topology, &mut filter)));
    if let Err(panic) = outcome {
        eprintln!("{}", filter.log());
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command line on the client; it must succeed.
pub(crate) fn client(topology: &Topology, line: &str) -> Output {
    let output = topology.client.run(line).expect("the command can be run");
    assert!(output.ok(), "{line}: {output:?}");
    output
}

/// The knock client of Debian's package knockd.
pub(crate) fn knock(topology: &Topology, steps: &str) {
    client(topology, &format!("knock {SERVER} {steps}"));
}

/// Whether the server answers a ping.
pub(crate) fn ping(topology: &Topology, options: &str) -> bool {
    topology.client.run(&format!("ping -n -c 2 -i 0.2 -W 1 {options} {SERVER}")).expect("ping can be run").ok()
}

/// Whether an echo server on the server's TCP port returns a line.
pub(crate) fn tcp_echo(topology: &Topology, port: u16) -> bool {
    let address: SocketAddr = format!("{SERVER}:{port}").parse().expect("an address");
    let echoed = topology.client.within(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"open sesame\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"open sesame\n")
    });
    echoed.unwrap_or(false)
}

/// An echo server in the server's namespace; it runs until the test process ends.
pub(crate) fn serve_tcp(topology: &Topology, port: u16) {
    let listener = topology.server.within(|| Ok(TcpListener::bind((SERVER, port))?)).expect("the port is free");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 64];
            if let Ok(count) = stream.read(&mut buffer) {
                let _ = stream.write_all(&buffer[..count]);
            }
        }
    });
}

/// A UDP socket of the client towards the server's port.
pub(crate) fn udp_to(topology: &Topology, port: u16) -> UdpSocket {
    udp_from(topology, CLIENT, port)
}

/// A UDP socket with one of the client's addresses towards the server's port.
pub(crate) fn udp_from(topology: &Topology, source: &str, port: u16) -> UdpSocket {
    let socket = topology.client.within(|| {
        let socket = UdpSocket::bind((source, 0))?;
        socket.connect((SERVER, port))?;
        Ok(socket)
    });
    socket.expect("a socket in the client's namespace")
}

/// Whether an address is in a list now.
pub(crate) fn listed(filter: &Filter<'_>, list: &str, address: &str) -> bool {
    let lists = filter.ask(&["show", "lists", list]).expect("lists are shown");
    let entries = lists["entries"].as_array().expect("entries");
    entries.iter().any(|entry| entry["list"] == list && entry["address"] == address)
}

/// The ids of the rules in `show rules`.
pub(crate) fn rule_ids(rules: &serde_json::Value) -> Vec<String> {
    rules["rules"].as_array().expect("rules").iter().map(|rule| rule["id"].to_string()).collect()
}

/// Waits until a condition holds; fails if it does not within [`PATIENCE`].
pub(crate) fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, is_so);
}

/// As [`eventually`], with another longest wait.
pub(crate) fn eventually_within(longest: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + longest;
    while !is_so() {
        assert!(Instant::now() < patience, "{what}: not within {longest:?}");
        thread::sleep(longest / 500);
    }
}

/// Ends the threads of a test when it is dropped, also if the test fails.
pub(crate) struct Stop<'s>(pub(crate) &'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
