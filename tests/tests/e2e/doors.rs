//! Doors of the configuration: knocks and scans that open them, and knocks and scans that do not.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use knockplane_tests::{CLIENT, Filter, FilterOptions, SERVER, Topology, VISITOR};

use crate::scenario::{
    client, eventually, knock, listed, ping, rule_ids, serve_tcp, tcp_echo, udp_to, with, with_queues,
};

/// A knock of three steps that no port scan meets in this order.
const DOOR: &str = r#"
[[door]]
name = "echo"
knock = ["tcp/7000 syn", "udp/4321", "tcp/1234 syn"]
opens = ["tcp/8080"]
for = "3s"
"#;

/// The door's knock, as arguments of Debian's client.
const KNOCK: &str = "7000:tcp 4321:udp 1234:tcp";

fn doors(doors: &str) -> FilterOptions {
    FilterOptions { sections: doors.to_owned(), ..FilterOptions::from_rules("/ip firewall filter\n") }
}

fn is_open(filter: &Filter<'_>) -> bool {
    listed(filter, "door-echo", CLIENT)
}

/// An open connection that has sent no data yet.
pub(crate) fn session(topology: &Topology, port: u16) -> TcpStream {
    let address: SocketAddr = format!("{SERVER}:{port}").parse().expect("an address");
    let session = topology.client.within(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(5))?));
    session.expect("the door is open")
}

/// Checks that the echo server still answers on the connection.
pub(crate) fn goes_on(session: &mut TcpStream) {
    session.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    session.write_all(b"still here").expect("sent");
    let mut echo = [0; 10];
    session.read_exact(&mut echo).expect("a session continues");
    assert_eq!(&echo, b"still here");
}

#[test]
fn a_door_opens_its_openings_and_a_session_outlives_the_grant() {
    with(&doors(DOOR), |topology, filter| {
        serve_tcp(topology, 8080);
        serve_tcp(topology, 8081);
        assert!(!tcp_echo(topology, 8080));
        knock(topology, KNOCK);
        eventually("the door opens", || is_open(filter));
        let mut session = session(topology, 8080);
        assert!(!tcp_echo(topology, 8081) && !ping(topology, ""), "it opens no more than it says");
        eventually("the door closes", || !is_open(filter));
        assert!(!tcp_echo(topology, 8080), "no new connection is accepted");
        goes_on(&mut session);
        eventually("the log has it", || filter.log().contains("door opened"));
    });
}

#[test]
fn knocks_in_the_wrong_order_or_with_other_packets_in_between_open_nothing() {
    with(&doors(DOOR), |topology, filter| {
        for wrong in ["7000:tcp 1234:tcp 4321:udp", "7000:tcp 4321:udp 80:tcp 1234:tcp", "4321:udp 1234:tcp"] {
            knock(topology, &format!("-d 20 {wrong}"));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!is_open(filter), "{wrong}");
        }
        // Retransmissions, as by clients without an answer. They neither reset nor advance the knock.
        knock(topology, "-d 20 7000:tcp 7000:tcp 4321:udp 7000:tcp 4321:udp 1234:tcp");
        eventually("repeats change nothing", || is_open(filter));
    });
}

/// Makes the client resolve the MAC address of the server. Until then, the kernel of the client holds packets back, and
/// then sends all of them at once. The receive queues of the filter receive them one after the other, and the XDP
/// program stamps the packets of each queue then: the third step can arrive before the second one, and the door resets
/// the progress.
fn resolve_mac_address(topology: &Topology) {
    udp_to(topology, 9).send(b"not a step").expect("sent");
    eventually("the client knows the MAC address of the server", || {
        client(topology, &format!("ip neighbour show {SERVER}")).stdout.contains("lladdr")
    });
}

#[test]
fn knocks_without_a_pause_open_on_two_queues() {
    with_queues(2, &doors(&DOOR.replace("3s", "1s")), |topology, filter| {
        resolve_mac_address(topology);
        for round in 0..20 {
            knock(topology, KNOCK);
            eventually(&format!("round {round} opens"), || is_open(filter));
            eventually("and closes", || !is_open(filter));
        }
        for _ in 0..20 {
            knock(topology, "1234:tcp 4321:udp 7000:tcp");
        }
        std::thread::sleep(Duration::from_secs(1));
        assert!(!is_open(filter), "backwards never opens");
    });
}

/// Runs code while datagrams arrive at the server's port every 20 ms, like those of a mosh client.
fn beside_datagrams<T>(topology: &Topology, port: u16, act: impl FnOnce() -> T) -> T {
    let (socket, over) = (udp_to(topology, port), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                // The port may be closed.
                let _ = socket.send(b"mosh");
                thread::sleep(Duration::from_millis(20));
            }
        });
        // A failure must end the datagrams too.
        let done = panic::catch_unwind(panic::AssertUnwindSafe(act));
        over.store(true, Relaxed);
        done.unwrap_or_else(|failure| panic::resume_unwind(failure))
    })
}

#[test]
fn a_service_that_sends_continuously_does_not_prevent_its_clients_knock() {
    let door = DOOR.replace("[\"tcp/8080\"]", "[\"tcp/22\", \"udp/60000-61000\"]").replace("3s", "1s");
    let other = "[[door]]\nname = \"other\"\nknock = [\"udp/7001\"]\nopens = [\"udp/9999\"]\nfor = \"1h\"\n";
    with(&doors(&format!("{door}{other}")), |topology, filter| {
        let knock = || knock(topology, "-d 100 7000:tcp 4321:udp 1234:tcp");
        beside_datagrams(topology, 60_001, || {
            for round in 0..3 {
                knock();
                eventually(&format!("knock {round} opens"), || is_open(filter));
                eventually("the door closes", || !is_open(filter));
            }
        });
        // Ports of another door, before and after it is open.
        beside_datagrams(topology, 9_999, || {
            knock();
            thread::sleep(Duration::from_millis(200));
            assert!(!is_open(filter), "datagrams to closed ports restart a knock");
            client(topology, &format!("knock {SERVER} 7001:udp"));
            eventually("the other door opens", || listed(filter, "door-other", CLIENT));
            knock();
            eventually("datagrams to its open ports restart no knock", || is_open(filter));
        });
        // A scan of the door's own ports does not open it.
        eventually("the door closes", || !is_open(filter));
        knock_beside_a_scan(topology);
        thread::sleep(Duration::from_millis(200));
        assert!(!is_open(filter), "a scan restarts a knock");
    });
}

/// The knock, with a port between its steps that no door opens.
fn knock_beside_a_scan(topology: &Topology) {
    knock(topology, "-d 20 60002:udp 7000:tcp 60003:udp 61001:udp 4321:udp 1234:tcp");
}

/// The ports in nmap's output, one per line; nmap groups closed ports of a large number.
fn nmap(topology: &Topology, options: &str) -> String {
    let output = topology.client.run(&format!("nmap -n -Pn -T5 --max-retries 0 {options} {SERVER}")).expect("nmap");
    assert!(output.ok(), "{output:?}");
    output.stdout
}

#[test]
fn no_scan_opens_a_door_and_its_ports_look_like_all_others() {
    // A knock that an ascending scan meets in order, one for a descending scan, and one of UDP.
    let doors = doors(
        r#"
[[door]]
name = "ascending"
knock = ["tcp/100", "tcp/200", "tcp/300"]
[[door]]
name = "descending"
knock = ["tcp/310", "tcp/210", "tcp/110"]
[[door]]
name = "datagrams"
knock = ["udp/400", "udp/410", "udp/420"]
"#,
    );
    // The port budget would ignore the scan as well: this tests the order alone.
    let doors = FilterOptions { sections: format!("{}\n[policy.port-budget]\nports = 0\n", doors.sections), ..doors };
    with(&doors, |topology, filter| {
        serve_tcp(topology, 100);
        let ascending = nmap(topology, "-sS -r -p 1-1024 --reason");
        assert!(ascending.contains("All 1024 scanned ports") && !ascending.contains("open"), "{ascending}");
        let descending: Vec<String> = (1..=400).rev().map(|port| format!("{port}:tcp")).collect();
        knock(topology, &descending.join(" "));
        nmap(topology, "-sS -p 1-1024");
        nmap(topology, "-sF -r -p 1-1024");
        nmap(topology, "-sA -r -p 1-1024");
        let datagrams = nmap(topology, "-sU -r -p 390-430 --reason");
        assert!(datagrams.contains("All 41 scanned ports") && datagrams.contains("no-response"), "{datagrams}");
        let all = nmap(topology, "-sS -p- --min-rate 20000");
        assert!(all.contains("All 65535 scanned ports"), "{all}");
        assert!(!filter.log().contains("door opened"), "{}", filter.log());
        knock(topology, "-d 20 100:tcp 200:tcp 300:tcp");
        eventually("the knock itself opens the door", || listed(filter, "door-ascending", CLIENT));
    });
}

#[test]
fn the_port_budget_stops_a_scan_that_meets_adjacent_steps() {
    with(&doors("[[door]]\nname = \"echo\"\nknock = [\"tcp/500\", \"tcp/501\"]\n"), |topology, filter| {
        nmap(topology, "-sS -r -p 1-1024");
        assert!(!is_open(filter) && !filter.log().contains("door opened"), "{}", filter.log());
        filter.knockctl(&["list", "add", "door-echo", CLIENT]).expect("knockctl");
        assert!(ping(topology, ""), "a grant stays, whatever is sent with the source's address");
    });
}

#[test]
fn results_of_knocks_are_shown_and_counted() {
    let door = DOOR.replace("for = \"3s\"", "for = \"1m\"\nwithin = \"1s\"");
    with(&doors(&door), |topology, filter| {
        let shown = || filter.ask(&["show", "doors", "echo"]).expect("doors");
        let failed = |reason: &str| {
            let failed = &shown()["doors"][0]["failed"];
            let count = failed.as_array().and_then(|failed| failed.iter().find(|count| count["reason"] == reason));
            count.expect("every reason is there")["times"].as_u64().expect("a number")
        };
        knock(topology, "-d 20 7000:tcp 4321:udp");
        eventually("two steps are taken", || shown()["knocking"][0]["steps"] == 2);
        let knocking = &shown()["knocking"][0];
        assert_eq!((&knocking["address"], &knocking["to"]["address"]), (&CLIENT.into(), &SERVER.into()));
        eventually("the third comes too late", || failed("timed-out") == 1);
        knock(topology, "-d 20 7000:tcp 80:tcp");
        eventually("another packet restarts the knock", || failed("started-over") == 1);
        knock(topology, KNOCK);
        eventually("the door opens", || is_open(filter));
        let told = shown();
        assert_eq!((&told["doors"][0]["steps"], &told["doors"][0]["open"]), (&vec![3, 2, 1].into(), &1.into()));
        assert_eq!((&told["open"][0]["address"], &told["open"][0]["to"]["address"]), (&CLIENT.into(), &SERVER.into()));
        let table = filter.knockctl(&["show", "doors"]).expect("knockctl").stdout;
        for (step, taken, packet) in [("1", "3", "tcp/7000 syn"), ("2", "2", "udp/4321"), ("3", "1", "tcp/1234 syn")] {
            let row: Vec<_> = ["echo", "opens", step, taken].into_iter().chain(packet.split(' ')).collect();
            assert!(table.lines().any(|line| line.split_whitespace().eq(row.iter().copied())), "{row:?}: {table}");
        }
        let metric = |name: &str, label: &str| filter.metric(name, &["door=\"echo\"", label]).expect("a series");
        assert_eq!(metric("knockplane_door_steps_total", "step=\"2\""), 2.0);
        assert_eq!(metric("knockplane_door_opened_total", ""), 1.0);
        assert_eq!(metric("knockplane_door_failed_total", "reason=\"timed-out\""), 1.0);
        assert_eq!(metric("knockplane_door_failed_total", "reason=\"held-off\""), 0.0);
        let explain =
            |to: &str| filter.ask(&["explain", &format!("tcp {CLIENT}:4000 > {to}:8080")]).expect("explained");
        assert_eq!(explain(SERVER)["verdict"], "forward");
        assert_eq!(explain(VISITOR)["verdict"], "drop", "it is open towards one address");
    });
}

#[test]
fn a_reload_changes_doors_and_keeps_sessions_and_grants() {
    with(&doors(&DOOR.replace("3s", "5m")), |topology, filter| {
        serve_tcp(topology, 8080);
        serve_tcp(topology, 8081);
        knock(topology, KNOCK);
        eventually("the door opens", || is_open(filter));
        let [mut first, mut second, mut third] = [(); 3].map(|()| session(topology, 8080));
        let file = filter.path("knockplane.toml");
        let before = fs::read_to_string(&file).expect("the configuration");
        let write = |text: &str| fs::write(&file, text).expect("written");
        let reload = || filter.knockctl(&["reload"]).expect("knockctl");
        let counted = || filter.metric("knockplane_door_steps_total", &["door=\"echo\""]).expect("a series");

        let other = "[[door]]\nname = \"other\"\nknock = [\"udp/7001\"]\nopens = [\"tcp/8081\"]\n";
        write(&format!("{}{other}", before.replace("list-capacity = 10000", "list-capacity = 20000")));
        let reloaded = reload();
        assert!(reloaded.ok() && reloaded.stdout.contains("2 doors"), "{reloaded:?}");
        assert!(reloaded.stdout.contains("wait for a restart of the dataplane: list-capacity\n"), "{reloaded:?}");
        assert!(is_open(filter) && counted() == 3.0, "what is open stays open, and is counted on");
        goes_on(&mut first);
        knock(topology, "7001:udp");
        eventually("the new door opens", || tcp_echo(topology, 8081));

        let rules = filter.ask(&["show", "rules"]).expect("rules");
        let line = before.lines().count() + 1;
        for (broken, expected) in [
            ("[[door]]\nname = \"other\"\nknock = [\"tcp/x\"]\n", "door `other`: `knock`: step 1".to_owned()),
            ("nonsense\n", format!("knockplane.toml:{line}:")),
            ("[policy]\nprotekt = []\n", format!("knockplane.toml:{}:1: unknown field `protekt`", line + 1)),
        ] {
            write(&format!("{before}{broken}"));
            let refused = reload();
            assert!(refused.code == Some(3) && refused.stderr.contains(&expected), "{expected} in {refused:?}");
        }
        fs::remove_file(&file).expect("removed");
        let refused = reload();
        assert!(refused.code == Some(3) && refused.stderr.contains("cannot be read"), "{refused:?}");
        let after = filter.ask(&["show", "rules"]).expect("rules");
        assert_eq!((rule_ids(&rules), &rules["generation"]), (rule_ids(&after), &after["generation"]));
        assert!(is_open(filter) && tcp_echo(topology, 8081));
        goes_on(&mut second);

        write(&before);
        let pid = rustix::process::Pid::from_raw(filter.dataplane.id() as i32).expect("a process has an id");
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("sent");
        eventually("the other door is removed", || {
            filter.ask(&["show", "doors"]).expect("doors")["doors"].as_array().expect("doors").len() == 1
        });
        assert!(!tcp_echo(topology, 8081), "and it accepts no connection");
        goes_on(&mut third);
    });
}

#[test]
fn progress_of_a_knock_does_not_count_for_its_replacement() {
    with(&doors(DOOR), |topology, filter| {
        let knocking = || filter.ask(&["show", "doors"]).expect("doors")["knocking"][0]["steps"].as_u64();
        let file = filter.path("knockplane.toml");
        let before = fs::read_to_string(&file).expect("the configuration");
        knock(topology, "-d 20 7000:tcp 4321:udp");
        eventually("two steps are taken", || knocking() == Some(2));
        assert!(filter.knockctl(&["reload"]).expect("knockctl").ok());
        assert_eq!(knocking(), Some(2), "the same knock goes on");
        fs::write(&file, before.replace("tcp/7000", "tcp/7007")).expect("written");
        assert!(filter.knockctl(&["reload"]).expect("knockctl").ok());
        assert_eq!(knocking(), None);
    });
}

/// The end of a session whose peer sends nothing any more: the kind of the error, if there is one.
fn end_of(mut stream: TcpStream) -> Option<ErrorKind> {
    stream.set_read_timeout(Some(Duration::from_secs(8))).expect("a timeout");
    stream.read(&mut [0; 64]).err().map(|error| error.kind())
}

#[test]
fn a_door_that_cuts_resets_both_ends_and_no_later_knock_revives_the_connection() {
    let door = DOOR.replace("for = \"3s\"", "for = \"2s\"\ncut = true");
    with(&doors(&door), |topology, filter| {
        let listener = topology.server.within(|| Ok(TcpListener::bind((SERVER, 8080))?)).expect("the port is free");
        knock(topology, KNOCK);
        eventually("the door opens", || is_open(filter));
        let mut client = session(topology, 8080);
        let (server, _) = listener.accept().expect("the session");
        client.write_all(b"hello").expect("sent");
        let mut server_reads = server.try_clone().expect("a clone");
        server_reads.read_exact(&mut [0; 5]).expect("arrived");
        let ends = [client.try_clone().expect("a clone"), server].map(|end| thread::spawn(|| end_of(end)));
        let ends = ends.map(|end| end.join().expect("it ends"));
        assert_eq!(ends, [Some(ErrorKind::ConnectionReset); 2], "the client's and the server's");
        assert!(!is_open(filter));
        let lost = filter.metric("knockplane_frames_lost", &[]).expect("a gauge");
        assert_eq!(lost, 0.0, "every frame is accounted for");
        knock(topology, KNOCK);
        eventually("the door opens again", || is_open(filter));
        assert!(client.write_all(b"revived").is_err(), "the connection is over");
        let mut another = session(topology, 8080);
        another.write_all(b"hello").expect("a new one is let in");
    });
}
