//! What opens a door of the configuration and what does not, with real knocks and real scans.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use knockplane_tests::{CLIENT, Filter, FilterOptions, SERVER, Topology};

use crate::scene::{eventually, knock, listed, ping, serve_tcp, tcp_echo, with, with_queues};

/// Three steps that no scan meets in this order.
const DOOR: &str = r#"
[[door]]
name = "echo"
knock = ["tcp/7000 syn", "udp/4321", "tcp/1234 syn"]
opens = ["tcp/8080"]
for = "3s"
"#;

/// The door's knock, as Debian's client takes it.
const KNOCK: &str = "7000:tcp 4321:udp 1234:tcp";

fn doors(doors: &str) -> FilterOptions {
    FilterOptions { sections: doors.to_owned(), ..FilterOptions::from_rules("/ip firewall filter\n") }
}

fn is_open(filter: &Filter<'_>) -> bool {
    listed(filter, "door-echo", CLIENT)
}

#[test]
fn a_door_opens_what_it_says_and_a_session_outlives_it() {
    with(&doors(DOOR), |topology, filter| {
        serve_tcp(topology, 8080);
        serve_tcp(topology, 8081);
        assert!(!tcp_echo(topology, 8080));
        knock(topology, KNOCK);
        eventually("the door opens", || is_open(filter));
        let address: SocketAddr = format!("{SERVER}:8080").parse().expect("an address");
        let session = topology.client.within(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(5))?));
        let mut session = session.expect("the door is open");
        assert!(!tcp_echo(topology, 8081) && !ping(topology, ""), "it opens no more than it says");
        eventually("the door closes", || !is_open(filter));
        assert!(!tcp_echo(topology, 8080), "nobody comes in any more");
        session.write_all(b"still here").expect("sent");
        let mut echo = [0; 10];
        session.read_exact(&mut echo).expect("whoever is in stays in");
        assert_eq!(&echo, b"still here");
        eventually("the log tells of it", || filter.log().contains("door opened"));
    });
}

#[test]
fn knocks_in_the_wrong_order_or_with_something_in_between_open_nothing() {
    with(&doors(DOOR), |topology, filter| {
        for wrong in ["7000:tcp 1234:tcp 4321:udp", "7000:tcp 4321:udp 80:tcp 1234:tcp", "4321:udp 1234:tcp"] {
            knock(topology, &format!("-d 20 {wrong}"));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!is_open(filter), "{wrong}");
        }
        // Sent again, as by clients that are not answered: neither fails nor advances.
        knock(topology, "-d 20 7000:tcp 7000:tcp 4321:udp 7000:tcp 4321:udp 1234:tcp");
        eventually("repeats change nothing", || is_open(filter));
    });
}

#[test]
fn knocks_without_a_pause_open_on_two_queues() {
    with_queues(2, &doors(&DOOR.replace("3s", "1s")), |topology, filter| {
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

/// What nmap says of ports, one in a line; closed ones of a large number are summed up by it.
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
    // The budget of ports would do it as well: it is the order alone that is tried here.
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
        eventually("who knows it gets in", || listed(filter, "door-ascending", CLIENT));
    });
}

#[test]
fn the_budget_of_ports_keeps_a_scan_from_a_knock_of_neighbours() {
    with(&doors("[[door]]\nname = \"echo\"\nknock = [\"tcp/500\", \"tcp/501\"]\n"), |topology, filter| {
        nmap(topology, "-sS -r -p 1-1024");
        assert!(!is_open(filter) && !filter.log().contains("door opened"), "{}", filter.log());
        filter.knockctl(&["list", "add", "door-echo", CLIENT]).expect("knockctl");
        assert!(ping(topology, ""), "whoever is let in is in, whatever was sent in his name");
    });
}
