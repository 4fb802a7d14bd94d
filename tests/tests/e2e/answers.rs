//! The effects of rules besides forwarding and dropping on real clients: answers, tarpits, connections, the log.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use knockplane_tests::{CLIENT, FilterOptions, Process, SERVER, SERVER6, Topology};

use crate::scenario::{eventually, ping, serve_tcp, tcp_echo, udp_to, with};

/// Each way to reject, by port.
const REJECTING: &str = "/ip firewall filter
add chain=input protocol=tcp dst-port=81 action=reject reject-with=tcp-reset
add chain=input protocol=tcp dst-port=82 action=reject reject-with=icmp-host-unreachable
add chain=input protocol=tcp dst-port=83 action=reject reject-with=icmp-admin-prohibited
add chain=input protocol=udp dst-port=84 action=reject reject-with=icmp-port-unreachable
add chain=input protocol=icmp action=reject reject-with=icmp-net-prohibited
add chain=input action=drop
/ipv6 firewall filter
add chain=input protocol=tcp dst-port=81 action=reject reject-with=tcp-reset
add chain=input protocol=udp action=reject reject-with=icmp-admin-prohibited
";

fn connect(topology: &Topology, server: &str, port: u16) -> Result<TcpStream, ErrorKind> {
    let address: SocketAddr = format!("{server}:{port}").parse().expect("an address");
    let connected = topology.client.within(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(2))));
    connected.expect("the client's namespace").map_err(|error| error.kind())
}

#[test]
fn rejected_packets_are_answered() {
    with(&FilterOptions::from_rules(REJECTING), |topology, _| {
        topology.add_ipv6().expect("IPv6");
        assert_eq!(connect(topology, SERVER, 81).err(), Some(ErrorKind::ConnectionRefused));
        assert_eq!(connect(topology, SERVER, 82).err(), Some(ErrorKind::HostUnreachable));
        assert_eq!(connect(topology, SERVER, 83).err(), Some(ErrorKind::HostUnreachable));
        assert_eq!(connect(topology, SERVER, 85).err(), Some(ErrorKind::TimedOut));
        assert_eq!(connect(topology, &format!("[{SERVER6}]"), 81).err(), Some(ErrorKind::ConnectionRefused));

        let socket = udp_to(topology, 84);
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        socket.send(b"anyone there?").expect("sent");
        assert_eq!(socket.recv(&mut [0; 4]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));

        let pinged = topology.client.run(&format!("ping -n -c 1 -W 2 {SERVER}")).expect("ping");
        assert!(
            pinged.stdout.contains("Dest Unreachable, Bad Code: 9") || pinged.stdout.contains("Prohibited"),
            "{pinged:?}"
        );
    });
}

#[test]
fn answers_have_right_checksums_and_the_right_source() {
    with(&FilterOptions::from_rules(REJECTING), |topology, filter| {
        topology.add_ipv6().expect("IPv6");
        let log = filter.path("tcpdump.log");
        let mut command = topology.client.command("tcpdump");
        command.args(["-n", "-vv", "-l", "--immediate-mode", "-i", "any", "-Q", "in"]);
        command.arg("icmp or tcp or (icmp6 and ip6[40] == 1)");
        let _tcpdump = Process::start("tcpdump", &mut command, &log).expect("tcpdump is installed");
        let seen = || fs::read_to_string(&log).unwrap_or_default();
        eventually("tcpdump listens", || seen().contains("listening on"));
        assert_eq!(connect(topology, SERVER, 81).err(), Some(ErrorKind::ConnectionRefused));
        assert_eq!(connect(topology, SERVER, 82).err(), Some(ErrorKind::HostUnreachable));
        assert_eq!(connect(topology, &format!("[{SERVER6}]"), 81).err(), Some(ErrorKind::ConnectionRefused));
        let socket = udp6(topology);
        socket.send(b"anyone there?").expect("sent");
        for answer in [
            format!("{SERVER}.81 > {CLIENT}"),
            format!("host {SERVER} unreachable"),
            format!("{SERVER6}.81 > "),
            "unreachable prohibited".to_owned(),
        ] {
            eventually(&format!("the client sees \"{answer}\""), || seen().contains(&answer));
        }
        let seen = seen();
        assert!(seen.contains("Flags [R.]") && seen.contains("(correct)"), "{seen}");
        // The words of tcpdump about checksums of TCP and ICMPv6, of ICMP, and of the IP header.
        for wrong in ["incorrect", "wrong", "bad cksum"] {
            assert!(!seen.contains(wrong), "{seen}");
        }
    });
}

fn udp6(topology: &Topology) -> UdpSocket {
    let socket = topology.client.within(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.connect((SERVER6, 9))?;
        Ok(socket)
    });
    socket.expect("a socket in the client's namespace")
}

#[test]
fn a_tarpit_accepts_connections_and_no_data() {
    let rules = "/ip firewall filter\nadd chain=input protocol=tcp action=tarpit\n";
    with(&FilterOptions::from_rules(rules), |topology, filter| {
        let server = topology.server.within(|| Ok(TcpListener::bind((SERVER, 80))?)).expect("the port is free");
        server.set_nonblocking(true).expect("does not wait");
        let mut stuck = connect(topology, SERVER, 80).expect("a tarpit accepts every connection");
        stuck.set_read_timeout(Some(Duration::from_millis(1500))).expect("a timeout");
        stuck.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("into the socket's own buffer");
        let answer = stuck.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(answer, Err(ErrorKind::WouldBlock), "it neither answers nor closes");
        assert_eq!(
            server.accept().err().map(|error| error.kind()),
            Some(ErrorKind::WouldBlock),
            "no connection reached the server"
        );
        let shown = filter.ask(&["show", "rules"]).expect("rules");
        assert!(shown["rules"][0]["counter"]["packets"].as_u64() >= Some(2), "{shown}");
    });
}

#[test]
fn connection_state_accepts_answers_from_outside_and_no_new_connections() {
    let rules = "/ip firewall filter
add chain=input connection-state=established,related action=accept
add chain=input action=drop
";
    with(&FilterOptions::from_rules(rules), |topology, _| {
        serve_tcp(topology, 8080);
        assert!(!ping(topology, "") && !tcp_echo(topology, 8080), "no connection begins from outside");
        let outbound = topology.server.run(&format!("ping -n -c 2 -i 0.2 -W 1 {CLIENT}")).expect("ping");
        assert!(outbound.ok(), "what the inside begins is answered: {outbound:?}");

        let listener = topology.client.within(|| Ok(TcpListener::bind((CLIENT, 9002))?)).expect("the port is free");
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut word = [0; 5];
            stream.read_exact(&mut word).expect("a word");
            stream.write_all(&word).expect("the word back");
        });
        let address: SocketAddr = format!("{CLIENT}:9002").parse().expect("an address");
        let stream = topology.server.within(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(5))?));
        let mut stream = stream.expect("the inside connects");
        stream.write_all(b"hello").expect("sent");
        let mut word = [0; 5];
        stream.read_exact(&mut word).expect("answered");
        assert_eq!(&word, b"hello");
        echo.join().expect("the echo");

        // An ICMP error about the inside's own datagram is related to it: the port is closed.
        let socket = topology.server.within(|| {
            let socket = UdpSocket::bind((SERVER, 0))?;
            socket.connect((CLIENT, 9))?;
            Ok(socket)
        });
        let socket = socket.expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        socket.send(b"anyone?").expect("sent");
        assert_eq!(socket.recv(&mut [0; 1]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn a_session_outlives_the_door_that_opened_it() {
    let rules = "/ip firewall filter
add chain=input connection-state=established action=accept
add chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list address-list=open address-list-timeout=1s
add chain=input src-address-list=open action=accept
add chain=input action=drop
";
    with(&FilterOptions::from_rules(rules), |topology, filter| {
        serve_tcp(topology, 8080);
        assert!(connect(topology, SERVER, 8080).is_err());
        let _ = topology.client.run(&format!("knock {SERVER} 1234:tcp")).expect("knock");
        let mut session = connect(topology, SERVER, 8080).expect("the door is open");
        eventually("the door closes", || connect(topology, SERVER, 8080).is_err());
        assert_eq!(filter.ask(&["show", "lists", "open"]).expect("lists")["entries"].as_array().map(Vec::len), Some(0));
        session.write_all(b"still here").expect("sent");
        let mut echo = [0; 10];
        session.read_exact(&mut echo).expect("answered");
        assert_eq!(&echo, b"still here");
    });
}

#[test]
fn large_datagrams_pass_in_fragments_by_a_rule_about_ports() {
    let rules =
        "/ip firewall filter\nadd chain=input protocol=udp dst-port=9003 action=accept\nadd chain=input action=drop\n";
    with(&FilterOptions::from_rules(rules), |topology, _| {
        let server = topology.server.within(|| Ok(UdpSocket::bind((SERVER, 9003))?)).expect("a socket");
        server.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let datagram: Vec<u8> = (0..6000_u32).map(|byte| byte as u8).collect();
        udp_to(topology, 9003).send(&datagram).expect("sent");
        let mut buffer = vec![0; 9000];
        let (count, _) = server.recv_from(&mut buffer).expect("all fragments arrive");
        assert_eq!(buffer[..count], datagram);

        let other = topology.server.within(|| Ok(UdpSocket::bind((SERVER, 9004))?)).expect("a socket");
        other.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        udp_to(topology, 9004).send(&datagram).expect("sent");
        assert!(other.recv_from(&mut buffer).is_err(), "another port's do not");
    });
}

#[test]
fn rules_log_in_the_form_of_routeros() {
    let rules = "/ip firewall filter
add chain=input protocol=tcp dst-port=23 action=log log-prefix=telnet
add chain=input protocol=tcp dst-port=24 action=drop log=yes log-prefix=\"no way\"
add chain=input action=drop
";
    with(&FilterOptions::from_rules(rules), |topology, filter| {
        let _ = topology.client.run(&format!("knock {SERVER} 23:tcp 24:tcp")).expect("knock");
        eventually("both lines are logged", || {
            let log = filter.log();
            log.contains("telnet input: in:outside out:inside,")
                && log.contains("no way input: in:outside")
                && log.contains("proto TCP (SYN),")
                && log.contains(&format!("->{SERVER}:24, len "))
        });
    });
}

#[test]
fn raw_drops_before_anything_is_tracked() {
    let rules = "/ip firewall raw
add chain=prerouting protocol=udp action=drop
add chain=prerouting protocol=icmp action=notrack
/ip firewall filter
add chain=input connection-state=untracked action=accept
add chain=input action=drop
";
    with(&FilterOptions::from_rules(rules), |topology, _| {
        assert!(ping(topology, ""), "untracked is accepted");
        serve_tcp(topology, 8080);
        assert!(!tcp_echo(topology, 8080), "what is tracked is not");
    });
}

#[test]
fn nmap_curl_and_nc_report_refused_unreachable_and_timeout() {
    let tarpit = "add chain=input protocol=tcp dst-port=86 action=tarpit\nadd chain=input action=drop\n/ipv6";
    let rules = REJECTING.replacen("add chain=input action=drop\n/ipv6", tarpit, 1);
    with(&FilterOptions::from_rules(&rules), |topology, _| {
        let run = |line: &str| topology.client.run(line).expect("the client's programs can be run");
        let scanned = run(&format!("nmap -n -Pn -sS -p 81,82,83,85,86 --reason --max-retries 1 {SERVER}")).stdout;
        for (port, state, reason) in [
            (81, "closed", "reset"),
            (82, "filtered", "host-unreach"),
            (83, "filtered", "admin-prohibited"),
            (85, "filtered", "no-response"),
            (86, "open", "syn-ack"),
        ] {
            let line = scanned.lines().find(|line| line.starts_with(&format!("{port}/tcp"))).unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(words.get(1) == Some(&state) && words.contains(&reason), "{port} is {state}: {scanned}");
        }
        let scanned = run(&format!("nmap -n -Pn -sU -p 84 --reason --max-retries 1 {SERVER}")).stdout;
        assert!(scanned.contains("closed") && scanned.contains("port-unreach"), "{scanned}");

        let curl = |port: u16| run(&format!("curl --silent --verbose --max-time 3 http://{SERVER}:{port}/")).stderr;
        assert!(curl(81).contains("Connection refused"), "{}", curl(81));
        assert!(curl(82).contains("No route to host"), "{}", curl(82));
        let stuck = curl(86);
        assert!(stuck.contains("Connected to") && stuck.contains("Operation timed out"), "{stuck}");
        let nc = |port: u16| run(&format!("nc -n -v -z -w 2 {SERVER} {port}")).stderr;
        assert!(nc(81).contains("refused"), "{}", nc(81));
        assert!(nc(82).contains("No route to host"), "{}", nc(82));
        assert!(nc(85).contains("timed out"), "{}", nc(85));
        assert!(nc(86).contains("succeeded"), "{}", nc(86));
    });
}
